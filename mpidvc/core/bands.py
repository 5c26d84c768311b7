"""Localised strain: the region of a grid where strain is far above that of the rest, and its shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array

__all__ = ["Band", "find_band", "otsu"]

#: Quantile at which values are cut off before a threshold is chosen: single wrong points are no class of their own.
HIGHEST = 0.99
#: A region is localised strain if it has these shares of all points; the share of the points above the threshold that
#: it has at least; its median over that of the rest; and the distance of both medians in deviations of the rest.
LEAST, MOST, TOGETHER, CONTRAST, DISTANCE = 0.01, 0.4, 0.5, 2.0, 4.0
#: Fewer points than this have no band.
FEWEST = 27
#: A region is flat if its deviation across is at most this part of the one along it.
FLAT = 0.5
#: Distance from the plane of a region, in robust deviations, of points that only hang on it; most rounds of the search.
FAR, MOST_TIMES = 3.0, 20


@dataclass(frozen=True)
class Band:
    """A region of localised strain.

    Attributes
    ----------
    region : (nz, ny, nx) bool
        Its nodes.
    threshold : float
        Otsu's value: the strain above which nodes belong to it.
    points : int
        Number of its nodes.
    share : float
        Of all nodes with a strain.
    strain_share : float
        Of the sum of their strains.
    mean, rest : float
        Mean strain in it, and elsewhere.
    centre : (3,) float64
        Mean of its positions, voxels, without what hangs on it far from its plane; so are all below.
    flat : bool
        Whether it is flat (2D: long), and so has a normal.
    normal : (3,) float64
        Direction across it, of length 1; its largest component is above 0.
    thickness : float
        Across it, voxels: that of a slab (2D: strip) of the same spread.
    """

    region: npt.NDArray[np.bool_]
    threshold: float
    points: int
    share: float
    strain_share: float
    mean: float
    rest: float
    centre: Array
    flat: bool
    normal: Array
    thickness: float


def otsu(values: Array) -> float:
    """Threshold that parts values in two classes with the largest variance between them (Otsu 1979).

    Parameters
    ----------
    values : (n,) float64
        Finite, n at least 1.

    Returns
    -------
    float
        The largest value of the lower class: the upper one is ``values > threshold``. With equal values only, these.

    Notes
    -----
    doi 10.1109/TSMC.1979.4310076, here without a histogram: all n - 1 partings of the sorted values are tried.
    """
    ordered = np.sort(values)
    n = len(ordered)
    if ordered[0] == ordered[-1]:
        return float(ordered[0])
    lower = np.arange(1, n)
    # about their mean, so that sums of many values keep their digits
    sums = np.cumsum(ordered - ordered.mean())[:-1]
    between = sums**2 / (lower * (n - lower))
    between[ordered[1:] == ordered[:-1]] = -1
    return float(ordered[np.argmax(between)])


def find_band(strain: Array, positions: Array) -> Band | None:
    """Find the band of localised strain: the largest connected region above Otsu's value.

    Parameters
    ----------
    strain : (nz, ny, nx) float64
        An amount of strain (deviatoric) at the nodes of a grid; nan where there is none.
    positions : (nz, ny, nx, 3) float64
        z, y, x of the nodes, voxels.

    Returns
    -------
    Band or None
        None where strain is not localised. It is if the region has between 1 and 40 % of the points and at least half
        of those above the value, and if its median strain is twice that of the rest, and four of their deviations
        (half of the distance between the quantiles of 16 and 84 %) above it. Noise alone has medians less than three
        deviations apart, and a constant gradient two.

    Notes
    -----
    Nodes are connected to the next ones along z, y and x.
    """
    from scipy.ndimage import label

    known = np.isfinite(strain)
    n = int(known.sum())
    if n < FEWEST:
        return None
    values = strain[known]
    threshold = otsu(np.minimum(values, np.quantile(values, HIGHEST, method="lower")))
    above = known & (strain > threshold)
    labels, count = label(above)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    region = labels == 1 + int(np.argmax(sizes))
    points = int(sizes.max())
    inside, rest = strain[region], strain[known & ~region]
    middle, other = float(np.median(inside)), float(np.median(rest))
    low, high = np.quantile(rest, (0.16, 0.84)).tolist()
    if (
        not LEAST <= points / n <= MOST
        or points < TOGETHER * above.sum()
        or middle < CONTRAST * other
        or middle - other < DISTANCE * (high - low) / 2
    ):
        return None
    places = positions[region]
    # in 2D, or in a single layer, there is no spread along an axis
    axes = np.flatnonzero(np.ptp(positions.reshape(-1, 3), axis=0) > 0)
    core = _core(places[:, axes])
    centre = places[core].mean(axis=0)
    apart = (places[core] - centre)[:, axes]
    spreads, directions = np.linalg.eigh(apart.T @ apart / len(apart))
    normal = np.zeros(3)
    normal[axes] = directions[:, 0]
    normal *= np.sign(normal[np.argmax(np.abs(normal))])
    # a row of nodes that are s apart and stand for a thickness t has the variance (t^2 - s^2) / 12
    steps = [np.diff(np.unique(positions[..., axis])).min() for axis in axes]
    step = float(np.abs(normal[axes]) @ np.array(steps))
    return Band(
        region=region,
        threshold=threshold,
        points=points,
        share=points / n,
        strain_share=float(inside.sum() / values.sum()),
        mean=float(inside.mean()),
        rest=float(rest.mean()),
        centre=centre,
        flat=bool(spreads[0] <= FLAT**2 * spreads[-1]),
        normal=normal,
        thickness=float(np.sqrt(12 * max(spreads[0], 0.0) + step**2)),
    )


def _core(places: Array) -> npt.NDArray[np.bool_]:
    """Points (n, k) of a region that lie as its flattest direction says, without what only hangs on it.

    Those whose distance from the plane (2D: line) is above `FAR` robust deviations are left out, until none is: a layer
    of poor points at a face of the specimen may touch a band. Of an even slab none is so far away.
    """
    core = np.ones(len(places), bool)
    for _ in range(MOST_TIMES):
        apart = places[core] - places[core].mean(axis=0)
        _, directions = np.linalg.eigh(apart.T @ apart)
        across = places @ directions[:, 0]
        middle = np.median(across[core])
        # 1.4826 times the median deviation is the standard deviation of a Gaussian
        far = FAR * 1.4826 * np.median(np.abs(across[core] - middle))
        found = np.abs(across - middle) <= max(far, np.finfo(float).eps * np.abs(across).max())
        if (found == core).all() or found.sum() <= places.shape[1]:
            break
        core = found
    return core
