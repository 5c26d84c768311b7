"""Strain of blocks of points: deformation gradients from a field, and their components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Array, Records, Triple
from mpidvc.core.strain import (
    cell_errors,
    cell_gradients,
    column_names,
    component_errors,
    components,
    corner_nodes,
    gradients_around,
)
from mpidvc.kernels.correlation import ERRORS
from mpidvc.tasks.points import Points, record_of, windows_of
from mpidvc.tasks.source import Source

__all__ = ["BLOCK", "StrainSettings", "StrainTask"]

#: Points of a block.
BLOCK = 4096


@dataclass(frozen=True)
class StrainSettings:
    """The way that strain is computed.

    Attributes
    ----------
    mode : {"Q8", "Q4", "Geers", "raw"}
    components : tuple of str
    two_d : bool
        Whether nothing happens along z.
    dims : 3 ints
        Nodes of the grid of the field along z, y, x; of Q8 and Q4 only.
    radius : float
        How far neighbours are away, voxels; of Geers only.
    errors : bool
        Whether components get their random errors.
    window : 3 ints
        Edges of the windows of correlation along z, y, x, voxels, the largest where nodes have windows of their own; of
        the random errors of Geers, Q8 and Q4.
    """

    mode: str
    components: tuple[str, ...]
    two_d: bool
    dims: Triple = (0, 0, 0)
    radius: float = 0.0
    errors: bool = False
    window: Triple = (1, 1, 1)

    @property
    def sigma(self) -> tuple[str, ...]:
        """Names of the columns of random errors."""
        return tuple(f"sigma{name}" for name in column_names(self.components)) if self.errors else ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers of a point; its return status is 2 if it has a strain, and otherwise -5."""
        return (*column_names(self.components), *self.sigma, "returnStatus")


class StrainTask:
    """Strain at points.

    Parameters
    ----------
    source : Source or None
        For Geers, Q8 and Q4 the points, with a displacement of nan where they do not count; for raw with errors the
        points, else None. With errors it has the columns of those that are propagated.
    points : Points
        The points in blocks; their Phi is nan where they do not count (Geers, raw).
    settings : StrainSettings
    """

    def __init__(self, source: Source | None, points: Points, settings: StrainSettings) -> None:
        self._source, self._points, self._settings = source, points, settings
        self.n_chunks = points.n_blocks
        self.dtype = self.record(settings)
        self._usable: NDArray[np.bool_] | None = None
        if source is not None and settings.mode == "Geers":
            self._usable = np.asarray(np.isfinite(source.field.displacements).all(axis=1))
        #: Of the displacements, where these are propagated.
        self._errors = self._columns(ERRORS[:3]) if settings.errors and settings.mode != "raw" else None
        self._windows = np.array(settings.window) if source is None else windows_of(source.field, settings.window)

    @staticmethod
    def record(settings: StrainSettings) -> np.dtype[Any]:
        """Dtype of the result of a point."""
        return record_of(settings.columns)

    def run(self, chunk: int) -> Records:
        inputs = self._points.inputs(chunk)
        F, displacement, errors = self._gradients(chunk, inputs)
        values, exists = components(F, self._settings.components, self._settings.two_d)
        records = np.zeros(len(F), self.dtype)
        records["phi"][:, :, :3] = F
        records["phi"][:, :, 3] = displacement
        n = values.shape[1]
        records["result"][:, :n] = values
        if errors is not None:
            records["result"][:, n:-1] = component_errors(F, errors, self._settings.components, self._settings.two_d)
        records["result"][:, -1] = np.where(exists, 2, -5)
        return records

    def _columns(self, names: Sequence[str], first: int = 0, last: int | None = None) -> Array:
        """Columns (n, k) of some points."""
        assert self._source is not None
        return np.stack([self._source.field.columns[name][first:last] for name in names], axis=-1)

    def _gradients(self, chunk: int, inputs: Records) -> tuple[Array, Array, Array | None]:
        """F, displacements, and the errors of F where they are asked for."""
        settings, source = self._settings, self._source
        phi: Any = inputs["phi"]
        first = chunk * BLOCK
        last = first + len(inputs)
        if settings.mode == "raw" or source is None:
            known = self._columns(ERRORS[3:12], first, last).reshape(-1, 3, 3) if settings.errors else None
            return phi[:, :, :3], phi[:, :, 3], known
        field = source.field
        if settings.mode != "Geers":
            corners = corner_nodes(np.arange(first, last), settings.dims)
            F, displacement = cell_gradients(corners, field.positions, field.displacements)
            if self._errors is None:
                return F, displacement, None
            return F, displacement, cell_errors(corners, field.positions, self._errors, self._windows, settings.two_d)
        F, displacement = np.full((len(inputs), 3, 3), np.nan), np.full((len(inputs), 3), np.nan)
        counts = np.isfinite(phi[:, :, 3]).all(axis=1)
        assert self._usable is not None
        F[counts], displacement[counts], known = gradients_around(
            source.points,
            np.ascontiguousarray(inputs["position"][counts]),
            settings.radius,
            self._usable,
            field.positions,
            field.displacements,
            settings.two_d,
            self._errors,
            self._windows,
        )
        if known is None:
            return F, displacement, None
        sigma = np.full(F.shape, np.nan)
        sigma[counts] = known
        return F, displacement, sigma
