"""The beginning of a run: its results file is made, or that of an interrupted run is taken up again."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mpidvc.atomic import remove_abandoned
from mpidvc.errors import AgreedError, UserError
from mpidvc.fields.hdf5 import FieldLayout, check_results_file, create_results_file
from mpidvc.rowfile import RowFile
from mpidvc.runtime import journal as journals
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.filesystems import COHERENT, file_system
from mpidvc.runtime.journal import Journal, JournalLayout
from mpidvc.runtime.runlog import path_of
from mpidvc.runtime.stop import keep
from mpidvc.tasks.guesses import write_inputs
from mpidvc.tasks.ranks import agree_on_instruction_set, on_leader, sum_over_ranks
from mpidvc.workflow.determines import plain, refuse_changes, refuse_replacing, version
from mpidvc.workflow.files import RunFiles, closing
from mpidvc.workflow.output import Output, check_results, look, make_folder, results_path
from mpidvc.workflow.text import create_text, text_path
from mpidvc.workflow.work import ComputedPoints, Work

__all__ = ["begin"]

#: Seconds after which every host sees a new file: what an NFS client knows of a folder is up to a minute old.
LATE = 65.0


def begin(
    executor: Executor,
    console: Console,
    output: Output,
    stem: Path,
    describe: Callable[[], Work],
    names: Callable[[FieldLayout], Sequence[str]],
) -> tuple[RunFiles, Work | None]:
    """Make the results file of a run, or take up that of an interrupted one; on every rank.

    Parameters
    ----------
    executor : Executor
    console : Console
    output : Output
    stem : Path
        Of the files that are written.
    describe : callable
        Gives the work; called on rank 0.
    names : callable
        Gives the columns of the text of a field, if one is wanted.

    Returns
    -------
    files : RunFiles
    work : Work or None
        None on the other ranks.

    Raises
    ------
    AgreedError
        If the file cannot be written, or the interrupted run was another one.
    """
    path = results_path(stem)

    def prepare() -> str | None:
        make_folder(path.parent)
        return _stored_instruction_set(path, output)

    begun_with = on_leader(executor, prepare)
    if begun_with is not None:
        # otherwise that of the plan stays
        agree_on_instruction_set(executor, begun_with)
    work: Work | None = None

    def open_alone() -> RunFiles:
        nonlocal work
        work = describe()
        with _alone_in(path.parent):
            check_results(stem, output)
            return _open(executor, console, output, stem, work, names, coherent)

    coherent = _is_coherent(executor, path)
    files = on_leader(executor, open_alone)
    journal = files.journal
    if journal is not None:
        try:
            with closing(executor, files):
                _hold(executor, files)
                _write_guesses(executor, files)
        except UserError:
            if executor.rank == 0 and not files.resumed:
                # nothing is measured yet
                journal.path.unlink(missing_ok=True)
            raise
        # from now on the cost of the journal; its layout is not part of it
        journal.seconds = 0.0
        if files.driver == "mpio":
            journal.open_parallel(executor.communicator.mpi)  # type: ignore[attr-defined]
        keep(f"what is measured is in {journal.path}")
    return files, work


def _hold(executor: Executor, files: RunFiles) -> None:
    """Open the files on all ranks: they may have other names when they are written.

    Raises
    ------
    AgreedError
        If a rank does not see the files that rank 0 has made, as where hosts have folders of their own.
    """
    journal = files.journal
    assert journal is not None

    def stamp() -> tuple[int, int]:
        told = os.fstat(journal.descriptor())
        return told.st_ino, told.st_mtime_ns

    known = on_leader(executor, stamp)
    try:
        for file in (journal, files.finished, files.text):
            if file is not None:
                _hold_soon(file, 0.0 if files.coherent else LATE)
        # on local disks each host has files of its own; a file served to all may have other numbers and times on each
        strange = files.coherent and not any(one == other for one, other in zip(stamp(), known, strict=True))
    except FileNotFoundError:
        strange = True
    without = int(sum_over_ranks(executor, [strange])[0])
    if without:
        raise AgreedError(
            f"{files.path}: {without} of {executor.size} processes do not see what the first one has put there; choose "
            "a folder that all hosts share (-od)"
        )


def _hold_soon(file: RowFile, patience: float) -> None:
    """Open a file that another process has just made, as soon as this host sees it."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return file.hold()
        except FileNotFoundError:
            if time.monotonic() >= deadline:
                raise
        with contextlib.suppress(OSError):
            # lets the client ask its server
            list(file.path.parent.iterdir())
        time.sleep(0.1)


def _write_guesses(executor: Executor, files: RunFiles) -> None:
    """Let all ranks write the inputs of the points, where each has a guess of its own in a field's file."""
    journal = files.journal
    assert journal is not None
    if isinstance(journal.computed, ComputedPoints) and journal.computed.stored is not None:
        write_inputs(executor, journal, journal.computed.stored, files.coherent)


def _stored_instruction_set(path: Path, output: Output) -> str | None:
    """Instruction set of the run that is resumed, None if there is none."""
    if not output.resume:
        return None
    _, place, begun = look(path)
    if begun not in ("unfinished", "damaged"):
        return None
    stored = journals.determines_of(place).get("instruction set")
    return stored if isinstance(stored, str) else None


@contextlib.contextmanager
def _alone_in(folder: Path) -> Any:
    """Keep other runs from making files in a folder: two may begin at once."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open(
    executor: Executor,
    console: Console,
    output: Output,
    stem: Path,
    work: Work,
    names: Callable[[FieldLayout], Sequence[str]],
    coherent: bool,
) -> RunFiles:
    path = results_path(stem)
    determines = {name: plain(value) for name, value in {**work.determines, **version()}.items()}
    layout = replace(
        work.layout,
        voxel_size=output.voxel_size,
        unit=output.unit,
        attributes={"command": determines["command"], "determines": json.dumps(determines), **work.attributes},
    )
    part, text_part = _part_of(path), _part_of(text_path(stem))
    _, place, begun = look(path)
    resumed = output.resume and begun in ("unfinished", "damaged")
    if place != path and not output.overwrite:
        then = journals.determines_of(path)
        if output.resume and (not resumed or then == determines):
            refuse_changes(path, then, determines, ("instruction set",))
            check_results_file(path, layout)
            if begun == "unfinished" and journals.determines_of(place) == then:
                # left by a run that was killed when it had just put its results in place
                place.unlink()
                path_of(place).unlink(missing_ok=True)
            # of a run that was killed when all but this was done, or that began it again
            remove_abandoned(path_of(path))
            for left in (part, text_part):
                left.unlink(missing_ok=True)
            console.note(f"{path} is finished: nothing is left to be measured, and it stays as it is")
            return RunFiles(stem, None, np.zeros(0, np.int64), None, layout, "posix")
        if not output.resume:
            refuse_replacing(path, then, determines)
    if place.exists():
        journals.refuse_in_use(place)
    beginning = JournalLayout(
        determines=determines,
        columns=layout.columns,
        records=work.record,
        order=work.order,
        starts=work.starts,
        positions=lambda rows: work.nodes[rows],
        inputs=work.inputs,
        computed=work.computed,
        inputs_follow=work.computed is not None and work.computed.stored is not None,
    )
    with contextlib.ExitStack() as undo:
        journal: Journal | None = None
        if resumed:
            refuse_changes(place, journals.determines_of(place), determines)
            journal = journals.open_journal(place, beginning)
            undo.callback(journal.close)
        # before anything is touched: there may be no room
        undo.callback(part.unlink, missing_ok=True)
        slots = create_results_file(part, layout, path)
        # a killed run may have left one that is not wanted now
        text_part.unlink(missing_ok=True)
        text = None
        if output.tsv:
            undo.callback(text_part.unlink, missing_ok=True)
            text = create_text(text_part, names(layout), layout.n, text_path(stem))
        if journal is None:
            journal = journals.create_journal(place, beginning, like=path)
            undo.callback(journal.close)
        todo = journal.todo()
        kept = np.isin(todo, list(work.kept))
        for block in todo[kept].tolist():
            journal.record(block, work.kept[block])
        driver = _choose_driver(executor, console, output.driver, path, coherent)
        undo.pop_all()
    return RunFiles(stem, journal, todo[~kept], RowFile(part, slots, path), layout, driver, coherent, resumed, text)


def _part_of(path: Path) -> Path:
    """A file of a run until it takes its place: beside it, where a symbolic link may lead."""
    place = path.resolve()
    return place.with_name(f"{place.name}.part")


def _is_coherent(executor: Executor, path: Path) -> bool:
    """Whether all ranks see a file alike: they are on one host, or its file system shows it alike on every host."""
    hosts = {host for host, _ in executor.processes}
    # rank 0 alone knows the hosts
    elsewhere, several = sum_over_ranks(executor, [file_system(path) not in COHERENT, len(hosts) > 1])
    return bool(elsewhere == 0 or several == 0)


def _choose_driver(executor: Executor, console: Console, wanted: str, path: Path, coherent: bool) -> str:
    if executor.size == 1:
        return "posix"
    hosts = {host for host, _ in executor.processes}
    if len(hosts) > 1 and wanted in ("auto", "posix"):
        if not coherent and wanted == "auto":
            return "gather"
        if not coherent:
            kind = file_system(path)
            where = kind if kind and kind not in COHERENT else "this file system"
            console.warn(f"--hdf5-driver posix: hosts may see a file on {where} differently; gather is safe")
    return "posix" if wanted == "auto" else wanted
