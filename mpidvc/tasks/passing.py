"""A field passed to other points: means of its neighbouring points, block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Array, Ints, Records
from mpidvc.core import deformation
from mpidvc.core.neighbourhood import neighbour_lists
from mpidvc.kernels import interpolation, neighbours
from mpidvc.tasks.points import Points, record_of
from mpidvc.tasks.source import Source

__all__ = [
    "NO_NEIGHBOUR",
    "RECORD",
    "RESULT",
    "TAKEN",
    "AppliedTask",
    "PassingSettings",
    "PassingTask",
    "interpolate",
    "records_of",
]

#: Numbers of a result, besides Phi.
RESULT = ("pixelSearchCC", "returnStatus", "error", "deltaPhiNorm", "iterations")
RECORD = record_of(RESULT)
#: Return statuses of a point that got a value, and of one that did not.
PASSED, NO_NEIGHBOUR = 1, -7
#: Column of a field whose points are not all taken: bool.
TAKEN = "taken"


@dataclass(frozen=True)
class PassingSettings:
    """How a field is passed to other points.

    Attributes
    ----------
    radius : float or None
        Distance of neighbours, voxels.
    number : int or None
        Number of neighbours, where there is no radius.
    apply_f : {"all", "rigid", "no"}
        Part of F that the points get.
    surrounded : bool
        Whether a point has to lie in the box around its neighbours.
    """

    radius: float | None
    number: int | None
    apply_f: str
    surrounded: bool


class PassingTask:
    """Phi at points from the neighbouring points of a field.

    Parameters
    ----------
    source : Source
        The points that are taken: those of its column `TAKEN`, all if there is none.
    points : Points
        The points that get a value.
    settings : PassingSettings
    """

    def __init__(self, source: Source, points: Points, settings: PassingSettings) -> None:
        self._source, self._points, self._settings = source, points, settings
        self.n_chunks = points.n_blocks

    def run(self, chunk: int) -> Records:
        """Records of a block: the status of points without neighbours is -7, their Phi nan."""
        targets = self._points.inputs(chunk)["position"]
        field = self._source.field
        taken = np.asarray(field.columns[TAKEN], np.bool_) if TAKEN in field.columns else None
        phi = interpolate(self._source.points, field.positions, field.phi, targets, self._settings, taken)
        return records_of(phi, np.where(np.isfinite(phi[:, 0, 3]), PASSED, NO_NEIGHBOUR))


class AppliedTask:
    """Phi of a registration at points: the first guess that these already have.

    Parameters
    ----------
    points : Points
    """

    def __init__(self, points: Points) -> None:
        self._points = points
        self.n_chunks = points.n_blocks

    def run(self, chunk: int) -> Records:
        """Records of a block."""
        phi = self._points.inputs(chunk)["phi"]
        return records_of(phi, np.full(len(phi), PASSED))


def records_of(phi: Array, status: Ints | Array) -> Records:
    """Records of Phi (n, 4, 4) with these return statuses (n,); their other numbers are spam's."""
    records = np.zeros(len(phi), RECORD)
    records["phi"] = phi[:, :3]
    for name, value in (("returnStatus", status), ("deltaPhiNorm", 1), ("iterations", 1)):
        records["result"][:, RESULT.index(name)] = value
    return records


def interpolate(
    tree: neighbours.Points,
    positions: Array,
    phi: Array,
    targets: Array,
    settings: PassingSettings,
    taken: NDArray[np.bool_] | None = None,
) -> Array:
    """Mean Phi of the neighbours of each target, weighted by 1 / (distance + 1e-6).

    Parameters
    ----------
    tree : neighbours.Points
        Of `positions`.
    positions, phi : (n, 3), (n, 4, 4) float64
        The field.
    targets : (m, 3) float64
        Finite, voxels.
    settings : PassingSettings
    taken : (n,) bool, optional
        Points that may be neighbours; all by default.

    Returns
    -------
    (m, 4, 4) float64
        The upper 12 components are nan where there is no neighbour.
    """
    means = np.empty((len(targets), 4, 4))
    for which, start, found in neighbour_lists(tree, targets, settings.radius, settings.number, taken):
        part = targets[which]
        means[which] = interpolation.inverse_distance(start, found, positions, phi, part)
        if settings.surrounded:
            outside = which.start + np.flatnonzero(~interpolation.surrounded(start, found, positions, part))
            means[outside, :3] = np.nan
    return deformation.with_part(means, settings.apply_f)
