"""The run of ``mpidvc status``: reads results files, finished or not, without touching them."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array
from mpidvc.cli import command
from mpidvc.cli.command import Outcome
from mpidvc.core.statuses import CORRELATION, SEARCH
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import ResultsFile, is_hdf5
from mpidvc.rowfile import HOME, JOURNAL, read_attributes
from mpidvc.runtime import exit_status
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.journal import in_use
from mpidvc.runtime.runlog import Past, path_of, read_log
from mpidvc.workflow.record import Record

if TYPE_CHECKING:
    from mpidvc.tasks.ranks import Team

__all__ = ["Plan", "RunState", "State", "state_of_run", "state_of_steps"]

#: A run on other hosts that has not been heard of for so many seconds does not run any more.
SILENT = 180.0
#: Lost processes that are named.
LOST = 5
#: Records read at a time.
BLOCK = 2**18


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes
    ----------
    file : str
    state : {"finished", "running", "stopped", "interrupted"}
        Stopped ended as it was asked to; interrupted does not hold its file's lock on this host, or was not heard of
        for `SILENT` seconds on others.
    command : str
        The command that makes the file, "" if it does not say.
    points, done : int
    statuses : dict of int to int
        Number of the points done by return status.
    seconds : float or None
        Since the run, or its last resumption, began; until it was last heard of.
    rate : float or None
        Points per second since then.
    seconds_left : float or None
        Of a running one.
    last_sign : str
        When it was last heard of (ISO 8601, UTC).
    ranks, resumes : int or None
    lost : list of str
        A line for every process that was lost.
    command_line : str
    folder : str
        Where it was given; "" if that is not known.
    trusted : bool or None
        Whether the result of a finished run is one to trust; None if its file does not tell.
    """

    file: str
    state: str
    command: str
    points: int
    done: int
    statuses: dict[int, int]
    seconds: float | None
    rate: float | None
    seconds_left: float | None
    last_sign: str
    ranks: int | None
    resumes: int | None
    lost: list[str]
    command_line: str
    folder: str
    trusted: bool | None

    @property
    def exit_status(self) -> int:
        """The exit status of a finished run; of one that `--resume` finishes the status to try again."""
        if self.state != "finished":
            return exit_status.RETRY
        return exit_status.UNTRUSTED if self.trusted is False else exit_status.TRUSTED


@dataclass(frozen=True)
class RunState:
    """How far ``mpidvc run`` is in its folder.

    Attributes
    ----------
    file : str
        The folder.
    state : {"finished", "running", "stopped"}
        Stopped is any that has not come to its end and holds no lock on this host.
    done : int
        Steps that have ended.
    steps : dict of str to int or None
        Exit status of each; None for one that has not ended.
    at_work : list of State
        Results files of the step that has not ended.
    command_line : str
    folder : str
        Where it was given.
    trusted : bool or None
        Whether its results are to be trusted, once it has come to its end.
    """

    file: str
    state: str
    done: int
    steps: dict[str, int | None]
    at_work: list[State]
    command_line: str
    folder: str
    trusted: bool | None

    @property
    def exit_status(self) -> int:
        """The exit status of the run; of one that has not come to its end the status to try again."""
        if self.trusted is None:
            return exit_status.RETRY
        return exit_status.TRUSTED if self.trusted else exit_status.UNTRUSTED


@dataclass(frozen=True, kw_only=True)
class Plan(command.Plan):
    """Results files, and folders of runs, to be looked at.

    Attributes
    ----------
    files : list of str
    json, quiet : bool
    """

    #: It only looks.
    timed = False

    files: list[str]
    json: bool
    quiet: bool

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        return cls(files=args.files, json=args.json, quiet=args.quiet)

    def execute(self, executor: Executor, console: Console) -> Outcome:
        if executor.rank != 0:
            return Outcome(0)
        states: list[State | RunState] = []
        refused = None
        for file in self.files:
            try:
                states.append(state_of_steps(file) if Path(file).is_dir() else state_of_run(file))
            except UserError as error:
                if not console.quiet:
                    console.error(f"mpidvc status: error: {error}")
                refused = refused or error
                continue
            if not (self.json or self.quiet):
                _show(states[-1], console)
        if self.json:
            console.print(json.dumps([asdict(state) for state in states], indent=2))
        if refused is not None:
            return Outcome(exit_status.REFUSED, refused)
        return Outcome(max(state.exit_status for state in states), states)


def state_of_steps(path: str) -> RunState:
    """Find out how far ``mpidvc run`` is; its folder is neither changed nor locked.

    Parameters
    ----------
    path : str

    Raises
    ------
    UserError
        If the folder is that of no run.
    """
    folder = Path(path)
    record = Record(folder)
    if not record.exists:
        raise UserError(f"{path}: is no folder of mpidvc run; give one, or results files (.h5)")
    steps, about = record.steps, record.about
    begun = [title for title, status in steps.items() if status is None]
    at_work: list[State] = []
    for file in sorted({one for title in begun for one in (folder / title.partition(" ")[0]).glob("*.h5")}):
        with contextlib.suppress(UserError):
            at_work.append(state_of_run(str(file)))
    status = about.get("status")
    running = record.at_work or any(one.state == "running" for one in at_work)
    return RunState(
        path,
        "finished" if status is not None else "running" if running else "stopped",
        len(steps) - len(begun),
        steps,
        [one for one in at_work if one.state != "finished"],
        str(about.get("line", "")),
        str(about.get("folder", "")),
        None if status is None else status == exit_status.TRUSTED,
    )


def state_of_run(path: str, now: float | None = None) -> State:
    """Find out how far the run of a results file is; the file is neither changed nor locked.

    Parameters
    ----------
    path : str
    now : float, optional
        Seconds since the epoch; the present if not given.

    Raises
    ------
    UserError
        If the file is missing, damaged, or no results file.
    """
    now = time.time() if now is None else now
    told = read_log(path_of(Path(path))) if Path(path).is_file() else Past()
    journal = _read_journal(path)
    ended: int | None = None
    if journal is None:
        with ResultsFile(path) as file:
            ended = file.exit_status()
            command, points = file.layout.attributes.get("command", ""), file.layout.n
            found = _column(file) if "returnStatus" in file.layout.columns else ()
            statuses = _count(found)
        done, state = points, "finished"
    else:
        command, points, done, statuses = journal
        state = "interrupted"

    heard = [Path(path).stat().st_mtime, *([told.updated] if told.updated else [])]
    if state != "finished" and told.state == "stopped":
        state = "stopped"
    elif state != "finished" and told.state == "running":
        # a run holds a lock, but not every host of a cluster sees it
        elsewhere = told.hosts != [platform.node()] and min(abs(now - t) for t in heard) < SILENT
        if in_use(Path(path)) or elsewhere:
            state = "running"
    last = now if state == "running" else told.updated or heard[0]
    seconds = None
    if state == "finished" and told.seconds is not None:
        seconds = told.seconds_before + told.seconds
    if seconds is None and told.started is not None:
        seconds = max(last - told.started, 0.0)
    new = done - told.done_at_start
    rate = new / seconds if seconds and told.started is not None and new > 0 else None
    return State(
        path,
        state,
        command,
        points,
        done,
        statuses,
        seconds,
        rate,
        (points - done) / rate if rate and state == "running" else None,
        datetime.fromtimestamp(max(heard), timezone.utc).isoformat(timespec="seconds"),
        told.ranks,
        told.resumes,
        told.lost,
        told.command_line,
        told.folder,
        None if ended is None else ended == exit_status.TRUSTED,
    )


def _read_journal(path: str) -> tuple[str, int, int, dict[int, int]] | None:
    """Command, points, points done and their statuses of an unfinished file; None of any other file.

    What is no HDF5 file at all is left to be refused as a finished one.

    Raises
    ------
    UserError
        If it is HDF5 and damaged.
    """
    import h5py

    try:
        opened = h5py.File(path, "r", locking=False)
    except OSError as error:
        if not (Path(path).is_file() and is_hdf5(path)):
            return None
        raise UserError(
            f"results file {path}: was cut off, or is damaged ({' '.join(str(error).split())[:200]}); its command "
            "with --resume saves what can be saved"
        ) from None
    with opened as file:
        try:
            if JOURNAL not in file:
                return None
            journal = file[JOURNAL]
            own, about = read_attributes(file[HOME]), read_attributes(journal)
            command, points = str(own.get("command", "")), int(own["n_points"])
            # the marks first: records of a block that is marked now do not change any more
            finished = journal["marks"][()] != 0
            starts = journal["starts"][()].astype(np.int64)
            column = list(json.loads(about["columns"])).index("returnStatus")
            records = journal["records"]
            offset, kind = records.id.get_offset(), records.dtype
            if len(starts) != len(finished) + 1 or starts[-1] != points or records.shape != (points,):
                raise ValueError("its blocks are not those of its points")
            rows = np.repeat(finished, np.diff(starts))
            done = int(rows.sum())
            statuses = _count(_finished_rows(file.id.get_vfd_handle(), kind, offset, rows, column))
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError, OSError) as error:
            raise UserError(
                f"results file {path}: is damaged ({' '.join(str(error).split())[:200]}); "
                "its command with --resume saves what can be saved"
            ) from None
    return command, points, done, statuses


def _finished_rows(
    handle: int, kind: np.dtype[Any], offset: int, finished: npt.NDArray[np.bool_], column: int
) -> Iterator[Array]:
    # Past HDF5, which takes ten times as long to pick a member of a record; by the same handle, as the finished file
    # may take the name at any moment.
    for start in range(0, len(finished), BLOCK):
        mine = finished[start : start + BLOCK]
        if mine.any():
            data = os.pread(handle, len(mine) * kind.itemsize, offset + start * kind.itemsize)
            yield np.frombuffer(data, kind)["result"][mine, column]


def _column(file: ResultsFile) -> Iterator[Array]:
    for start in range(0, file.layout.n, BLOCK):
        yield file.column("returnStatus", start, min(start + BLOCK, file.layout.n))


def _count(parts: Iterable[Array]) -> dict[int, int]:
    """Number of points by return status, the best first."""
    counts: Counter[int] = Counter()
    for part in parts:
        values, numbers = np.unique(np.nan_to_num(part, posinf=0, neginf=0), return_counts=True)
        counts.update({int(value): int(number) for value, number in zip(values, numbers, strict=True)})
    return dict(sorted(counts.items(), reverse=True))


def _show(state: State | RunState, console: Console) -> None:
    """Print it for people."""
    if isinstance(state, RunState):
        _show_steps(state, console)
        return
    share = f"{100 * state.done / state.points:.1f}%" if state.done < state.points else "all"
    of = f" ({state.command})" if state.command else ""
    lines = [f"{state.file}: {state.state}{of}"]
    ranks = f" on {state.ranks} process{'es' if state.ranks != 1 else ''}" if state.ranks else ""
    if state.state == "finished":
        taken = f", {_duration(state.seconds)}{ranks}" if state.seconds is not None else ""
        lines.append(f"  {state.points} points{taken}{_resumed(state)}")
        if state.trusted is False:
            lines.append("  the result is not one to trust: its command with --resume says why")
    else:
        lines.append(f"  {state.done} of {state.points} points done ({share}){_resumed(state)}")
    if state.state == "running":
        rate = "no rate yet" if state.rate is None else f"{state.rate:{'.0f' if state.rate >= 100 else '.3g'}} points/s"
        left = f", {_duration(state.seconds_left)} left" if state.seconds_left else ""
        lines.append(f"  {rate}{ranks}{left}" if state.done < state.points else "  the finished file is being written")
    elif state.state != "finished":
        lines.append(f"  last sign of life: {state.last_sign.replace('T', ' ').replace('+00:00', ' UTC')}")
        lines.append(f"  go on: {_resume_line(state)}")
    lines += [f"  {line}" for line in state.lost[:LOST]]
    lines += [f"  {len(state.lost) - LOST} more were lost"] if len(state.lost) > LOST else []
    width = len(str(max(state.statuses.values(), default=0)))
    meanings = _meanings(state.command)
    lines += [
        f"  RS={value:+d} {number:{width}d} {100 * number / state.done:5.1f}%  {meanings.get(value, '')}".rstrip()
        for value, number in state.statuses.items()
    ]
    console.print("\n".join(lines))


def _show_steps(state: RunState, console: Console) -> None:
    """Print it for people."""
    lines = [f"{state.file}: {state.state} (run)"]
    if state.trusted is False:
        lines.append("  the result is not one to trust: its command line, given again, says why")
    elif state.state == "stopped":
        there = f"cd {shlex.quote(state.folder)} && " if state.folder else ""
        lines.append(f"  go on: {there}{state.command_line}")
    told = {None: "begun", exit_status.TRUSTED: "finished", exit_status.UNTRUSTED: "not to be trusted"}
    width = max(map(len, state.steps), default=0)
    lines += [f"  {title:{width}}  {told.get(status, 'failed')}" for title, status in state.steps.items()]
    console.print("\n".join(lines))
    for one in state.at_work:
        _show(one, console)


def _resumed(state: State) -> str:
    return f", resumed {state.resumes} time{'s' if state.resumes != 1 else ''}" if state.resumes else ""


def _duration(seconds: float | None) -> str:
    whole = round(seconds or 0)
    return f"{whole // 3600:02d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def _resume_line(state: State) -> str:
    if not state.command_line:
        return f"its command{f' (mpidvc {state.command} ...)' if state.command else ''} again, with --resume"
    words = [word for word in shlex.split(state.command_line) if word not in ("--resume", "--overwrite")]
    there = f"cd {shlex.quote(state.folder)} && " if state.folder else ""
    return f"{there}{shlex.join(words)} --resume"


def _meanings(command: str) -> dict[int, str]:
    known = SEARCH if command.startswith("pixelSearch") else CORRELATION
    return {value: status.meaning for value, status in known.items()}
