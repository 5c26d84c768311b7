"""Points of a field selected, corrected from their neighbours, or smoothed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints, Records
from mpidvc.core import deformation, local_fit, outliers
from mpidvc.core.motion import CommonMotion, remove_motion
from mpidvc.core.neighbourhood import neighbour_lists
from mpidvc.fields.phifield import PhiField
from mpidvc.kernels import field as kernels
from mpidvc.kernels.correlation import ERRORS
from mpidvc.kernels.interpolation import inverse_distance
from mpidvc.kernels.neighbours import Points
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.points import record_of, rows_as_records
from mpidvc.tasks.source import Source

__all__ = ["BLOCK", "RESULT", "FilterSettings", "FilterTask", "Flags", "columns_of", "kept", "select"]

#: Columns of a result: those of a search, whether the point is an outlier (1, 0, or nan where this is not known), and
#: what was done to it: 0 nothing, 1 the mean, the median or a linear fit of neighbours, 2 a quadratic fit, nan nothing
#: because its neighbours are too few.
RESULT = ("pixelSearchCC", "returnStatus", "error", "deltaPhiNorm", "iterations", "outlier", "correction")
_OUTLIER, _CORRECTION = RESULT.index("outlier"), RESULT.index("correction")
#: Numbers of the columns of a corrected point, as in spam.
CORRECTED = (0.0, 1.0, 100.0, 100.0, 0.0)
#: Points of a chunk.
BLOCK = 2048
#: The radius of a fit grows until there are as many neighbours as this.
FEWEST = 28


@dataclass(frozen=True, kw_only=True)
class FilterSettings:
    """What is selected, and what is done to it.

    Attributes
    ----------
    select : {"status", "cc", "lqc"}, optional
        The number that tells bad points: return status, pixel search CC, local quadratic coherency.
    limit : float
        Points whose status or CC is not above this are bad.
    outliers : bool
        Whether the normalised median test tells bad points, too.
    epsilon, threshold : float
        Of that test: voxels, and the largest residual of a good point.
    correct : {"distance", "fit"}, optional
        Mean of good neighbours by inverse distance, or a local fit to their displacements.
    components : {"all", "rigid", "no"}
        What is kept of the F of a mean or median: all, its rotation, or the identity.
    median : int
        Radius in nodes of the cube whose median every node gets; 0 for none.
    radius : float, optional
        Neighbours are those within so many voxels.
    number : int, optional
        Or the so many nearest ones.
    no_mask : bool
        Whether points with a return status below -4 take part.
    """

    select: Literal["status", "cc", "lqc"] | None = None
    limit: float = 1.0
    outliers: bool = False
    epsilon: float = 0.03
    threshold: float = 4.0
    correct: Literal["distance", "fit"] | None = None
    components: Literal["all", "rigid", "no"] = "all"
    median: int = 0
    radius: float | None = None
    number: int | None = None
    no_mask: bool = False

    def searches(self, field: PhiField) -> bool:
        """Whether neighbours are searched; on a grid the nodes around are known."""
        return self.select == "lqc" or self.correct is not None or (self.outliers and field.dims is None)

    def neighbours(
        self, near: Points, usable: npt.NDArray[np.bool_], centres: Array, fewest: int = 0
    ) -> Iterator[tuple[slice, Ints, Ints]]:
        """Lists of the usable neighbours of places: see `neighbour_lists`."""
        return neighbour_lists(near, centres, self.radius, self.number, usable, fewest)


class Flags(NamedTuple):
    """What is known of every point of a field before any is corrected; arrays (n,).

    Attributes
    ----------
    present : bool
        Points that take part: those that the correlation did not skip.
    sound : bool
        Those with a finite Phi.
    selected : bool
        Points to be corrected.
    outlier : float64
        1 for outliers, 0 for others, nan where this is not known.
    unjudged : int
        Number of points whose neighbours are too few to judge them by.
    """

    present: npt.NDArray[np.bool_]
    sound: npt.NDArray[np.bool_]
    selected: npt.NDArray[np.bool_]
    outlier: Array
    unjudged: int = 0

    @classmethod
    def of(cls, field: PhiField, settings: FilterSettings) -> Flags:
        """Flags as far as a point's own numbers tell them. A point that takes part without a finite Phi is bad."""
        n = len(field)
        present = np.ones(n, bool)
        status = field.columns.get("returnStatus")
        if status is not None and not settings.no_mask:
            present &= ~(np.asarray(status, np.float64) < -4)
        sound = np.asarray(present & np.isfinite(field.phi).all(axis=(1, 2)))
        selected = np.zeros(n, bool)
        if settings.select is not None:
            selected |= present & ~sound
        if settings.select in ("status", "cc"):
            column = field.columns["returnStatus" if settings.select == "status" else "pixelSearchCC"]
            selected |= present & ~(np.asarray(column, np.float64) > settings.limit)
        return cls(present, sound, selected, np.full(n, np.nan))


def select(executor: Executor, source: Source, settings: FilterSettings) -> Flags:
    """Flags of all points; every rank calls it.

    Parameters
    ----------
    executor : Executor
    source : Source
    settings : FilterSettings
    """
    field = source.field
    flags = Flags.of(field, settings)
    unjudged = np.zeros(len(field), bool)
    if settings.select == "lqc":

        def coherency(rows: Ints) -> Array:
            values = np.empty(len(rows))
            for which, start, found in settings.neighbours(source.points, flags.sound, field.positions[rows], FEWEST):
                values[which] = local_fit.coherency(field.positions, field.phi, rows[which], start, found)
            return values

        values = _judge(executor, np.nonzero(flags.sound)[0], coherency, len(field))
        flags.selected[:] |= values >= local_fit.LARGEST_COHERENCY
        unjudged |= flags.sound & np.isnan(values)
    if settings.outliers:
        trusted = field.good & flags.sound
        rows = np.nonzero(flags.sound)[0]
        found = np.zeros(len(field), bool)
        for _ in range(outliers.PASSES):
            usable = trusted & ~found
            values = _judge(executor, rows, _residuals_by(source, trusted, usable, settings.epsilon), len(field))
            # a point with too few neighbours left keeps the judgement of the pass before
            known = np.isfinite(values)
            found[known] = values[known] > settings.threshold
            flags.outlier[known] = found[known]
        flags.selected[:] |= found
        unjudged |= flags.sound & np.isnan(flags.outlier)
    return flags._replace(unjudged=int(unjudged.sum()))


def _residuals_by(
    source: Source, trusted: npt.NDArray[np.bool_], usable: npt.NDArray[np.bool_], epsilon: float
) -> Callable[[Ints], Array]:
    """The test of some rows: against the nodes around, or else the nearest points that are to be trusted."""
    field = source.field

    def residuals(rows: Ints) -> Array:
        if field.dims is not None:
            start, found = kernels.around(field.dims, outliers.block_reach(field.dims), rows)
            return outliers.residuals(field.positions, field.phi, rows, start, found, usable, epsilon)
        values = np.empty(len(rows))
        # the point itself may be one of them
        lists = neighbour_lists(source.points, field.positions[rows], None, outliers.NEAREST + 1, trusted)
        for which, start, found in lists:
            values[which] = outliers.residuals(field.positions, field.phi, rows[which], start, found, usable, epsilon)
        return values

    return residuals


def _judge(executor: Executor, rows: Ints, measure: Callable[[Ints], Array], n: int) -> Array:
    """A number (n,) for each of some points, measured by all ranks and known to all; nan for the others."""
    values = np.full(n, np.nan)

    def sink(chunk: int, data: Any) -> None:
        values[rows[chunk * BLOCK : (chunk + 1) * BLOCK]] = np.frombuffer(data)

    executor.map(_Judgement(rows, measure), sink)
    return executor.broadcast(values if executor.rank == 0 else None)


class _Judgement:
    """A number for each of some points, chunk by chunk."""

    def __init__(self, rows: Ints, measure: Callable[[Ints], Array]) -> None:
        self._rows, self._measure = rows, measure
        self.n_chunks = -(-len(rows) // BLOCK)

    def run(self, chunk: int) -> bytes:
        return self._measure(self._rows[chunk * BLOCK : (chunk + 1) * BLOCK]).tobytes()


def columns_of(field: PhiField, same_phi: bool) -> tuple[str, ...]:
    """Columns of a result: `RESULT`, and those of the field that tell how well its points were measured.

    Parameters
    ----------
    field : PhiField
    same_phi : bool
        Whether points that are not corrected keep their Phi, and so its random errors.
    """
    told = [name for name in ("coverage", "zncc", *(ERRORS if same_phi else ())) if name in field.columns]
    return (*RESULT, *told)


def kept(field: PhiField, rows: Ints, columns: tuple[str, ...] = RESULT) -> Records:
    """Records of rows of a field as they are; nothing is known of outliers, and nothing was done."""
    names = [*RESULT[: len(CORRECTED)], *columns[len(RESULT) :]]
    known = {name: field.columns[name] for name in names if name in field.columns}
    return rows_as_records(replace(field, columns=known), rows, columns)


class FilterTask:
    """Records of the points of a field, chunk by chunk.

    Parameters
    ----------
    source : Source
    settings : FilterSettings
    flags : Flags
    starts : (n_chunks + 1,) int64
        Row of the field at which each chunk begins.
    motion : CommonMotion, optional
        What is taken off the points that take part, after everything else.
    columns : tuple of str
        Of the records: see `columns_of`.
    """

    def __init__(
        self,
        source: Source,
        settings: FilterSettings,
        flags: Flags,
        starts: Ints,
        motion: CommonMotion | None = None,
        columns: tuple[str, ...] = RESULT,
    ) -> None:
        self.dtype, self._columns = record_of(columns), columns
        self._source, self._field = source, source.field
        self._settings, self._flags, self._starts, self._motion = settings, flags, starts, motion
        self._good = flags.sound & ~flags.selected
        self.n_chunks = len(starts) - 1

    def run(self, chunk: int) -> Records:
        rows = np.arange(self._starts[chunk], self._starts[chunk + 1])
        records = self._filtered(rows)
        if self._motion is not None:
            moved = np.nonzero(self._flags.present[rows])[0]
            phi = np.tile(np.eye(4), (len(moved), 1, 1))
            phi[:, :3] = records["phi"][moved]
            records["phi"][moved] = remove_motion(phi, self._field.positions[rows[moved]], self._motion)[:, :3]
        return records

    def _filtered(self, rows: Ints) -> Records:
        field, settings, flags = self._field, self._settings, self._flags
        records = kept(field, rows, self._columns)
        records["result"][:, _OUTLIER] = flags.outlier[rows]
        if settings.median:
            changed = np.nonzero(flags.present[rows])[0]
            phi, means = self._medians(rows[changed]), np.ones(len(changed))
            # a selection only tells which points keep their columns, as in spam
            remade = np.ones(len(changed), bool) if settings.select is None else flags.selected[rows[changed]]
        elif settings.correct is not None:
            changed = np.nonzero(flags.selected[rows])[0]
            phi, means = (self._fit if settings.correct == "fit" else self._mean)(rows[changed])
            remade = np.ones(len(changed), bool)
        else:
            return records
        done = np.isfinite(phi).all(axis=(1, 2))
        records["result"][changed, _CORRECTION] = np.where(done, means, np.nan)
        records["phi"][changed[done]] = phi[done]
        made = changed[done & remade]
        records["result"][made, : len(CORRECTED)] = CORRECTED
        # nothing was measured there
        records["result"][made, len(RESULT) :] = np.nan
        return records

    def _medians(self, rows: Ints) -> Array:
        field, settings = self._field, self._settings
        assert field.dims is not None
        only = settings.components == "no"
        usable = self._flags.present.view(np.uint8)
        found = kernels.medians(field.positions, field.phi, field.dims, usable, settings.median, rows, only)
        return _with_identity(found) if only else found

    def _fit(self, rows: Ints) -> tuple[Array, Array]:
        places = self._field.positions[rows]
        displacements, order = np.empty((len(rows), 3)), np.empty(len(rows))
        for which, start, found in self._settings.neighbours(self._source.points, self._good, places, FEWEST):
            fit = local_fit.fitted(self._field.positions, self._field.phi, places[which], start, found)
            displacements[which], order[which] = fit
        return _with_identity(displacements), order

    def _mean(self, rows: Ints) -> tuple[Array, Array]:
        places = self._field.positions[rows]
        phi = np.empty((len(rows), 4, 4))
        for which, start, found in self._settings.neighbours(self._source.points, self._good, places):
            phi[which] = inverse_distance(start, found, self._field.positions, self._field.phi, places[which])
        return deformation.with_part(phi, self._settings.components)[:, :3], np.ones(len(rows))


def _with_identity(displacements: Array) -> Array:
    """Phi (k, 3, 4) of these displacements (k, 3) and F = I."""
    phi = np.zeros((len(displacements), 3, 4))
    phi[:, :, :3] = np.eye(3)
    phi[:, :, 3] = displacements
    return phi
