"""Series of states: each may start from the result of the one before, and the reference may change on the way."""

from __future__ import annotations

import argparse
import json
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mpidvc.arrays import Array, Ints
from mpidvc.atomic import replacing
from mpidvc.cli.command import Outcome
from mpidvc.core.series import NOT_COMPARED, Errors, Quality, compose_along, fill, left_of, mean_phi, quality_of
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import FieldLayout, ResultsFile, write_hdf5
from mpidvc.fields.phifield import PHI, PhiField
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.kernels.correlation import ERRORS
from mpidvc.runtime.console import Console, duration
from mpidvc.runtime.executor import Executor, InlineExecutor
from mpidvc.tasks.ldic import NEAR
from mpidvc.tasks.memory import JUDGING, PointSet
from mpidvc.tasks.points import windows_of
from mpidvc.tasks.ranks import on_leader
from mpidvc.workflow.files import RunFiles
from mpidvc.workflow.guess import Guess, Nodes
from mpidvc.workflow.output import base_name, check_results, results_path
from mpidvc.workflow.pointwise import Part, PointwisePlan
from mpidvc.workflow.road import Ended
from mpidvc.workflow.stages import Stages
from mpidvc.workflow.write import write

__all__ = ["SeriesPart", "SeriesPlan"]

P = TypeVar("P", bound="SeriesPlan[Any]")
PartT = TypeVar("PartT", bound="SeriesPart")

#: Bytes of a point that rank 0 holds from state to state, and those while it takes a result: without a warm start, with
#: it, and where the reference changes.
HELD, TAKING = (130, 300, 450), (350, 630, 950)


@dataclass(frozen=True, kw_only=True)
class SeriesPart(Part):
    """A state of a series, compared with its reference.

    Attributes
    ----------
    warm : bool
        Whether it starts from the result of the state before.
    own : dict
        Values of the options that this state has of its own.
    """

    warm: bool
    own: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SeriesPlan(PointwisePlan[PartT]):
    """Plan of a command that follows points over one state or several: a part for each state but the first.

    Attributes
    ----------
    warm_start : bool
        Whether a state starts from the result of the one before.
    update_reference : bool
        Whether the reference changes where a state is too far from it.
    prefix : str or None
        The value of ``-pre``.
    options : Namespace or None
        As parsed; on rank 0.
    """

    warm_start: bool
    update_reference: bool = False
    prefix: str | None = None
    options: argparse.Namespace | None = None

    def for_workers(self: P) -> P:
        return replace(super().for_workers(), options=None)

    @abstractmethod
    def settled(self, part: PartT, nodes: Nodes, guess: Guess) -> dict[str, Any]:
        """The attributes of a part that follow from the grey levels of its images; on rank 0."""

    def check_states(self) -> None:
        """Check, before anything is done, that the files of a changing reference may be written; on rank 0.

        Raises
        ------
        UserError
            If not, or if two images have the same name.
        """
        if not self.update_reference:
            return
        names = [base_name(image) for image in self._states]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise UserError(f"{double}: is the name of two images of the series; give them distinct names")
        for state in range(1, len(names)):
            check_results(self._total_stem(state), self.output)
            for reference in range(1, state):
                check_results(self._stem(reference, state), self.output)

    def later_points(self) -> list[PointSet]:
        """Points of later states, as far as they determine the memory of a chunk: any guess may come."""
        if not self.warm_start:
            return []
        regular = self.nodes.regular and not self.update_reference
        spread = np.array([[-NEAR] * 3, [NEAR] * 3], np.float64)
        return [PointSet(len(self.nodes), self.nodes.distance, regular, spread, np.zeros((3, 3)))]

    @property
    def _way(self) -> int:
        """Whether rank 0 holds the fields of a series, of one with a warm start, or with a changing reference."""
        return 2 if self.update_reference else int(self.warm_start)

    def rank0_bytes(self) -> int:
        return HELD[self._way] * len(self.nodes) if len(self.parts) > 1 else 0

    def ending_bytes(self) -> int:
        taking = TAKING[self._way] * len(self.nodes) if len(self.parts) > 1 else 0
        return max(super().ending_bytes(), JUDGING + taking)

    def written(self) -> tuple[list[tuple[Path, int]], int]:
        if not self._writes_totals:
            return super().written()
        # the reference of a state, which is in the name of its step, is known afterwards
        totals = [replace(part, stem=self._total_stem(k)) for k, part in enumerate(self.parts, 1)]
        return replace(self, parts=totals, update_reference=False).written()

    @property
    def _states(self) -> list[Image]:
        return [self.parts[0].images.image1, *(part.images.image2 for part in self.parts)]

    def _stem(self, reference: int, state: int) -> Path:
        """Stem of the files of a state measured from a reference."""
        own = self.parts[state - 1].stem
        if reference == 0:
            return own
        names = [base_name(self._states[k]) for k in (reference, state)]
        first = [] if self.prefix is None else [Path(self.prefix).name]
        return own.with_name("-".join([*first, *names, own.name.rpartition("-")[2]]))

    def _total_stem(self, state: int) -> Path:
        """Stem of the files with the displacements since the first state."""
        own = self.parts[state - 1].stem
        return own.with_name(f"{own.name}-total")

    def runs(self: P, executor: Executor, console: Console, stages: Stages) -> Iterator[tuple[P, PartT]]:
        if len(self.parts) == 1:
            yield self, self.parts[0]
            return
        follower = _Follower(self) if executor.rank == 0 else None
        rows = []
        for state in range(1, len(self.parts) + 1):
            begun, again = time.monotonic(), True
            while again:
                plan, part = self._next(executor, follower, state)
                yield plan, part
                again = not on_leader(executor, partial(_took, follower, console, state, part))
            if follower is not None:
                rows.append(replace(follower.row, seconds=time.monotonic() - begun))
        on_leader(executor, lambda: self._report(console, rows))

    def _next(self: P, executor: Executor, follower: _Follower | None, state: int) -> tuple[P, PartT]:
        """The part of a state and the plan that it is measured by, on every rank; points and guess on rank 0."""
        part = self.parts[state - 1]
        if not part.warm:
            return self if follower is None else self.of_part(part), part

        def describe() -> tuple[int, dict[str, Any]]:
            assert follower is not None
            here = self._from(follower.reference, state)
            nodes = follower.nodes if follower.reference else self.of_part(part).nodes
            return follower.reference, self.settled(here, nodes, follower.guess)

        reference, settled = on_leader(executor, describe)
        made = replace(self._from(reference, state), **settled)
        if follower is None:
            return self, made
        nodes = follower.nodes if reference else self.of_part(part).nodes
        return replace(self, nodes=nodes, guess=follower.guess), made

    def _from(self, reference: int, state: int) -> PartT:
        """The part of a state compared with a reference."""
        part = self.parts[state - 1]
        if reference == 0:
            return part
        images = ImagePair(self._states[reference], self._states[state])
        return replace(part, images=images, stem=self._stem(reference, state))

    def outcome(self, ended: Sequence[Ended]) -> Outcome:
        # a state that was measured again counts as it was in the end
        last = {id(one.part.images.image2): one for one in ended}
        status = next((one.status for one in last.values() if one.status), 0)
        paths = [one.path for one in last.values()]
        if self._writes_totals:
            paths = [results_path(self._total_stem(state)) for state in range(1, len(self.parts) + 1)]
        return self.outcome_of(status, paths)

    @property
    def _writes_totals(self) -> bool:
        return self.update_reference and len(self.parts) > 1

    def _report(self, console: Console, rows: Sequence[_Row]) -> None:
        """Show the table of all states and write it; remove results files that shall not stay."""
        first = base_name(self._states[0]) if self.prefix is None else Path(self.prefix).name
        command = self.parts[0].stem.name.rpartition("-")[2]
        path = self.parts[0].stem.with_name(f"{first}-{command}-series.tsv")
        shown = sorted(rows, key=lambda row: not row.quality.poor)
        console.table("Series (poor states first)", _Row.TITLES, [row.shown() for row in shown])
        poor = [row for row in rows if row.quality.poor]
        if poor:
            more = f" and {len(poor) - 1} more" if len(poor) > 1 else ""
            console.warn(
                f"state {poor[0].state} ({poor[0].name}){more}: fewer than 90% of the points converged, or their "
                "median ZNCC is below 0.8"
            )
        try:
            with replacing(path) as temporary:
                lines = [_Row.NAMES, *(row.written() for row in rows)]
                temporary.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); make room for it") from None
        console.print(f"Written: {path}")
        if self._writes_totals and not self.output.keep:
            for state in range(1, len(self.parts) + 1):
                results_path(self._total_stem(state)).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Row:
    """A row of the table of states.

    Attributes
    ----------
    state : int
    name, reference : str
        Names of its image and of that of its reference.
    quality : Quality
    phi : (3, 4) float64
        Means of F and displacements of the converged points.
    seconds : float
        Of this run.
    """

    TITLES = (
        "State",
        "Image",
        "Reference",
        "Compared",
        "Converged",
        "Median ZNCC",
        "Displacement (z y x)",
        "F",
        "Time",
    )
    NAMES = ("state", "image", "reference", "compared", "converged", "medianZNCC", *PHI)

    state: int
    name: str
    reference: str
    quality: Quality
    phi: Array
    seconds: float = 0.0

    def shown(self) -> list[object]:
        """For the screen."""
        compared, converged, zncc = self.quality
        return [
            *(self.state, self.name, self.reference, compared, f"{100 * converged:.1f}%", f"{zncc:.3f}"),
            " ".join(f"{x:.2f}" for x in self.phi[:, 3]),
            " ".join(f"{x:.3f}" for x in self.phi[:, :3].ravel()),
            duration(self.seconds),
        ]

    def written(self) -> list[str]:
        """For the file, which is the same from any number of ranks: without the time."""
        compared, converged, zncc = self.quality
        numbers = (compared, converged, zncc, *self.phi.ravel().tolist())
        return [str(self.state), self.name, self.reference, *(f"{number:.7f}" for number in numbers)]


class _Carried(NamedTuple):
    """A state that may be the reference: its total Phi without gaps, and the points measured, and lost, up to it.

    `step` are the random errors of the step that ends there, `left` the variances (n, 12) of displacement and F that
    stay of the steps before; None, and 0, where there are none.
    """

    state: int
    total: Array
    measured: Any
    lost: Any
    step: Errors | None
    left: Array


class _Follower:
    """Follows the points from state to state; on rank 0.

    Attributes
    ----------
    nodes : Nodes
        In the reference, at whole voxels if it is not the first state.
    guess : Guess
        Of the next state.
    row : _Row
        Of the last state.
    """

    def __init__(self, plan: SeriesPlan[Any]) -> None:
        self._plan = plan
        self.nodes, self.guess = plan.nodes, plan.guess
        n = len(plan.nodes)
        self._base = _Carried(0, np.tile(np.eye(4), (n, 1, 1)), np.ones(n, bool), np.zeros(n, bool), None, np.zeros(12))
        self._last = self._base
        self.row: _Row

    @property
    def reference(self) -> int:
        return self._base.state

    def take(self, state: int, found: PhiField, console: Console, kappa: Array | None = None) -> bool:
        """Take the result of a state; return False if it is to be measured again, from another reference.

        `kappa` (3,) is that of its noise, if there are random errors.
        """
        plan = self._plan
        status = found["returnStatus"]
        quality = quality_of(status, found["zncc"])
        names = [base_name(image) for image in plan._states]
        if plan.update_reference and quality.poor and self._last.state > self.reference:
            self._move(self._last)
            console.note(
                f"{names[state]}: {100 * quality.converged:.1f}% converged with a median ZNCC of {quality.zncc:.3f}; "
                f"{names[self.reference]} becomes the reference, and {names[state]} is measured again"
            )
            return False
        good = status == 2
        total = found
        if plan.update_reference:
            total = self._total(found)
            self._write(state, total, console)
        if plan.warm_start and quality.guides:
            filled = fill(found.positions, found.phi, good)
            self._guess_from(found.positions, filled)
            if not quality.poor and plan.update_reference:
                skipped = np.isin(status, NOT_COMPARED)
                along = compose_along(self._base.total, filled, self.nodes.positions, plan.nodes.positions)
                self._last = _Carried(
                    state,
                    along,
                    self._base.measured & good,
                    self._base.lost | skipped,
                    self._step(found, along, kappa),
                    self._left(found),
                )
        # every pair of an incremental series has a reference of its own
        of_part = base_name(plan.parts[state - 1].images.image1)
        reference = names[self.reference] if self.reference else of_part
        self.row = _Row(state, names[state], reference, quality, mean_phi(total.phi, good))
        return True

    def _guess_from(self, positions: Array, phi: Array) -> None:
        """The guess of the next state; points that were lost have none."""
        guess = phi.copy()
        if self._plan.update_reference:
            guess[self._base.lost, :3] = np.nan
        self.guess = Guess(field=PhiField(positions, guess), name="the state before")

    def _step(self, found: PhiField, total: Array, kappa: Array | None) -> Errors | None:
        """The random errors of the step to this state, if there are any."""
        if kappa is None:
            return None
        places = self._plan.nodes.positions + total[:, :3, 3]
        return Errors.of(_variances(found), self._window(found), np.rint(places) - places, found.F, kappa)

    def _window(self, found: PhiField) -> Ints:
        return windows_of(found, self._plan.parts[0].settings.compared)

    def _left(self, found: PhiField) -> Array:
        """Variances (n, 12) that stay of the steps before the reference, now that this field begins there."""
        left, step = self._base.left, self._base.step
        return left if step is None else left + left_of(step, self._window(found))

    def _move(self, to: _Carried) -> None:
        """Change the reference."""
        start = self._plan.nodes
        self._base = to
        places = np.rint(start.positions + to.total[:, :3, 3])
        self.nodes = replace(Nodes.at(places), distance=start.distance)
        self._guess_from(places, np.tile(np.eye(4), (len(places), 1, 1)))

    def _total(self, found: PhiField) -> PhiField:
        """The field since the first state.

        A point that was interpolated on the way, where it had not converged, has return status 1 at best.
        """
        start = self._plan.nodes
        phi = compose_along(self._base.total, found.phi, self.nodes.positions, start.positions)
        status = found.columns["returnStatus"]
        phi[np.isin(status, NOT_COMPARED), :3, :3] = np.eye(3)
        status = np.where((status == 2) & ~self._base.measured, 1.0, status)
        columns = found.columns | {"returnStatus": status}
        if self.reference and ERRORS[0] in columns:
            # the noise of the reference is in both parts, and cancels as far as the same voxels are compared
            sigma = np.where((status == 2)[:, None], np.sqrt(_variances(found) + self._left(found)), np.nan)
            columns |= dict(zip(ERRORS[:12], sigma.T, strict=True))
            columns |= {ERRORS[12]: np.where(status == 2, found[ERRORS[12]], np.nan)}
        layout = start.layout
        return PhiField(start.positions, phi, columns, layout.layout, layout.dims, layout.spacing)

    def _write(self, state: int, total: PhiField, console: Console) -> None:
        """Write the total field in the forms that are asked for."""
        plan, stem = self._plan, self._plan._total_stem(state)
        names = [base_name(image) for image in plan._states]
        told = {"command": "series", "total of": names[state], "reference": names[self.reference]}
        attributes = {"command": "series", "determines": json.dumps(told)}
        write_hdf5(results_path(stem), total, plan.output.voxel_size, plan.output.unit, attributes)
        files = RunFiles(stem, None, np.zeros(0, np.int64), None, FieldLayout.of(total), "posix")
        write(InlineExecutor(), console, plan.output, files, plan.files, plan.half_cell)


def _variances(found: PhiField) -> Array:
    """Variances (n, 12) of displacement and F."""
    return np.stack([found[name] for name in ERRORS[:12]], axis=-1) ** 2


def _took(follower: _Follower | None, console: Console, state: int, part: SeriesPart) -> bool:
    """Whether the result of a state stands; on rank 0."""
    assert follower is not None
    with ResultsFile(results_path(part.stem)) as file:
        found, noise = file.field(), file.noise()
    return follower.take(state, found, console, None if noise is None else noise["kappa"])
