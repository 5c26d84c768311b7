"""Whether one motion describes a whole field."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array
from mpidvc.core.deformation import apply

__all__ = ["FAR", "share_elsewhere"]

#: Distance, in voxels along an axis, from which on a point is elsewhere: ldic converges from less.
FAR = 2.0


def share_elsewhere(
    positions: Array, displacements: Array, cc: npt.ArrayLike, phi: npt.ArrayLike, centre: npt.ArrayLike
) -> float:
    """Share of the points of a pixel search that one motion does not lead to their place.

    Only the half of the points that correlate best counts: a window that is matched with a wrong place correlates less
    than those that are matched with the right one.

    Parameters
    ----------
    positions, displacements : (n, 3) float64
        Points that were found, voxels.
    cc : (n,) float
        Their correlation.
    phi : (4, 4)
        The motion, about `centre`.
    centre : (3,)

    Returns
    -------
    float
        0 to 1; 1 where there are no points.
    """
    cc = np.asarray(cc, np.float64)
    if len(cc) == 0:
        return 1.0
    best = cc >= np.median(cc)
    moved = apply(phi, centre, positions[best])
    # displacements of a search are whole numbers
    far = np.abs(displacements[best] - moved) > FAR + 0.5
    return float(far.any(axis=1).mean())
