"""Strain of blocks of points: deformation gradients from a field, and their components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Array, Records, Triple
from mpidvc.core.strain import (
    cell_gradients,
    column_names,
    component_errors,
    components,
    corner_nodes,
    gradients_around,
)
from mpidvc.kernels.correlation import ERRORS
from mpidvc.tasks.points import Points, record_of
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
        Whether components get their random errors; of raw only.
    """

    mode: str
    components: tuple[str, ...]
    two_d: bool
    dims: Triple = (0, 0, 0)
    radius: float = 0.0
    errors: bool = False

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
        points with these, else None.
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

    @staticmethod
    def record(settings: StrainSettings) -> np.dtype[Any]:
        """Dtype of the result of a point."""
        return record_of(settings.columns)

    def run(self, chunk: int) -> Records:
        inputs = self._points.inputs(chunk)
        F, displacement = self._gradients(chunk, inputs)
        values, exists = components(F, self._settings.components, self._settings.two_d)
        records = np.zeros(len(F), self.dtype)
        records["phi"][:, :, :3] = F
        records["phi"][:, :, 3] = displacement
        n = values.shape[1]
        records["result"][:, :n] = values
        if self._settings.errors and self._source is not None:
            rows = slice(chunk * BLOCK, chunk * BLOCK + len(F))
            columns = [self._source.field.columns[name][rows] for name in ERRORS[3:12]]
            errors = np.stack(columns, axis=-1).reshape(-1, 3, 3)
            records["result"][:, n:-1] = component_errors(F, errors, self._settings.components, self._settings.two_d)
        records["result"][:, -1] = np.where(exists, 2, -5)
        return records

    def _gradients(self, chunk: int, inputs: Records) -> tuple[Array, Array]:
        settings, source = self._settings, self._source
        phi: Any = inputs["phi"]
        if settings.mode == "raw" or source is None:
            return phi[:, :, :3], phi[:, :, 3]
        field = source.field
        if settings.mode != "Geers":
            cells = np.arange(chunk * BLOCK, chunk * BLOCK + len(inputs))
            corners = corner_nodes(cells, settings.dims)
            return cell_gradients(corners, field.positions, field.displacements)
        F, displacement = np.full((len(inputs), 3, 3), np.nan), np.full((len(inputs), 3), np.nan)
        counts = np.isfinite(phi[:, :, 3]).all(axis=1)
        assert self._usable is not None
        F[counts], displacement[counts] = gradients_around(
            source.points,
            np.ascontiguousarray(inputs["position"][counts]),
            settings.radius,
            self._usable,
            field.positions,
            field.displacements,
            settings.two_d,
        )
        return F, displacement
