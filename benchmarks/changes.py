"""What each change of the kernels has brought: the commits of a list are built, and their runs take turns.

Part of benchmarks/kernels.py. Every commit is checked out in one temporary worktree after the other, so that only what
it changed is compiled again, and its package is kept in the work folder.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import compare

#: Commits in their order, each an ancestor of the next one, and what they do; the first is that before all of them.
#: Changes that no case below meets are left out, small ones of one kind are one line with the one before.
CHANGES = (
    ("9cb6287", "before"),
    ("1d13a36", "sixteen lanes, moments weighted once a column; rows that leave the image are sampled in groups"),
    ("faa1282", "grey levels become floats by a compiled loop"),
    ("e90fe54", "prefilter in registers; each axis leaves out what the others no longer need"),
    ("6395be9", "rows are asked for before they become floats"),
    ("5a6a9ef", "window, gradients and their moments in one pass"),
    ("67f2516", "weights of windows that leave the image kept per row; groups of a column placed in step"),
    ("e30d716", "search: sixteen lanes, loads that products share, box sums in single precision"),
    ("951fc2a", "search: box sums side by side, squares on their way"),
    ("8b8bd94", "matrix of a step factorised once"),
    ("468abde", "reg: sums of image 1 alone are kept, gradients taken from the box"),
    ("8a1513d", "reg: block means compiled, larger blocks"),
    ("e70fe25", "reg: floats converted and checked in one pass, scratch not cleared twice"),
    ("135d192", "search: candidates that cannot win left out by sums over blocks"),
    ("61478ec", "everything until here"),
    ("fe7412a", "ends of rows mirrored without divisions by the prefilter"),
    ("2db32d1", "search: memory that begins at a cache line"),
    ("37541ee", "groups of a column placed in short vectors of 32 bits"),
    ("HEAD", "voxels of maps counted eight at a time"),
)

WINDOW = ("-hws", str(compare.HWS), "-np", "1")


@dataclass(frozen=True)
class Case:
    """A command whose point stage is timed: bits of its images, arguments, and the unit that its time is told in."""

    name: str
    bits: int
    arguments: tuple[str, ...]
    per_point: bool = True
    turns: int = 4


CASES = (
    Case("ldic `-o 1`", 16, ("ldic", "-o", "1", "-ns", "20", *WINDOW)),
    Case("ldic `-o 3`", 16, ("ldic", "-o", "3", "-ns", "20", *WINDOW)),
    Case("search ±4, 16 bits", 16, ("pixelSearch", "-ns", "20", *WINDOW, "-sr", *("-4", "4") * 3)),
    Case("search ±4, 8 bits", 8, ("pixelSearch", "-ns", "20", *WINDOW, "-sr", *("-4", "4") * 3)),
    Case("reg `-o 1`", 16, ("reg", "-o", "1"), per_point=False),
    Case("ldic `-o 1 -ns 8`", 16, ("ldic", "-o", "1", "-ns", "8", *WINDOW), turns=2),
    Case("ldic `-o 3 -ns 8`", 16, ("ldic", "-o", "3", "-ns", "8", *WINDOW), turns=2),
)


@dataclass
class Line:
    """A commit, and the CPU seconds of the point stage of its runs by case; points of a run by case."""

    commit: str
    text: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    points: dict[str, int] = field(default_factory=dict)


# ---- building


def git(*arguments: str, folder: Path = compare.REPOSITORY) -> str:
    done = subprocess.run(("git", *arguments), cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}\nThe commits of this list are needed.")
    return done.stdout.strip()


def _hash_of(name: str) -> str:
    """Abbreviated hash of a commit; of HEAD: the last one that has changed the program."""
    if name == "HEAD":
        return git("log", "-1", "--format=%h", "HEAD", "--", "setup.py", "cython_ext", "mpidvc")
    return git("rev-parse", "--short", name)


def build(work: Path) -> dict[str, Path]:
    """A folder with the built package for every commit of the list: by its abbreviated hash."""
    folders = {}
    commits = [_hash_of(name) for name, _ in CHANGES]
    for one, following in itertools.pairwise(commits):
        git("merge-base", "--is-ancestor", one, following)
    missing = []
    for commit in commits:
        folders[commit] = work / "built" / commit
        if not (folders[commit] / "done").exists():
            missing.append(commit)
    if not missing:
        return folders
    tree = work / "tree"
    with contextlib.suppress(SystemExit):  # of a run that was killed
        git("worktree", "remove", "--force", str(tree))
    git("worktree", "prune")
    git("worktree", "add", "--detach", str(tree), missing[0])
    try:
        for commit in missing:
            git("checkout", "--quiet", "--detach", commit, folder=tree)
            log = work / "build.log"
            with log.open("w") as output:
                command = (sys.executable, "setup.py", "build_ext", "--inplace")
                failed = subprocess.run(command, cwd=tree, stdout=output, stderr=subprocess.STDOUT, check=False)
            if failed.returncode:
                raise SystemExit(f"{commit} cannot be built: see {log}")
            shutil.rmtree(folders[commit], ignore_errors=True)
            shutil.copytree(tree / "mpidvc", folders[commit] / "mpidvc")
            (folders[commit] / "done").touch()
            print(f"built: {commit}", flush=True)
    finally:
        git("worktree", "remove", "--force", str(tree))
    return folders


# ---- measuring


def run(folder: Path, case: Case, files: dict[str, Path], guess: Path | None, work: Path) -> dict[str, float]:
    """Times that a run has logged."""
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    task, *rest = case.arguments
    command = [sys.executable, "-m", "mpidvc", task, str(files[f"im1-{case.bits}"]), str(files[f"im2-{case.bits}"])]
    command += [*rest, "-od", str(out), "-pre", "case"]
    if task == "ldic":
        command += ["-pf", str(guess)]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(folder)
    try:
        timings = compare.measure(command, work, memory=False).timings
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return timings


def registered(work: Path, files: dict[str, Path], folder: Path | None) -> Path:
    """The registration that local correlations start from, by the build in this folder (None: the present one)."""
    registration = next(case for case in CASES if case.arguments[0] == "reg")
    run(folder or compare.REPOSITORY, registration, files, None, work)
    return Path(shutil.copy(work / "out" / "case-registration.tsv", work / "guess.tsv"))


def measure(
    work: Path, files: dict[str, Path], store: Callable[[list[Line]], None], turns: int | None = None
) -> list[Line]:
    """Lines of all commits; `store` gets them after every turn.

    `turns`: runs of each case, instead of its own number of them.
    """
    folders = build(work)
    lines = [Line(commit, text) for commit, (_, text) in zip(folders, CHANGES, strict=True)]
    guess = registered(work, files, folders[lines[-1].commit])
    for case in CASES:
        for turn in range(turns or case.turns):
            for line in lines if turn % 2 == 0 else reversed(lines):
                timings = run(folders[line.commit], case, files, guess, work)
                line.seconds.setdefault(case.name, []).append(timings["points_cpu"])
                line.points[case.name] = int(timings["points"])
            store(lines)
            print(f"{case.name}: turn {turn + 1}", flush=True)
    return lines


# ---- tables


def brought(lines: list[Line], k: int, name: str) -> tuple[float, float]:
    """How many times as fast a case has become by line k, and by all lines so far."""
    least = [min(line.seconds[name]) for line in lines]
    return least[k - 1] / least[k], least[0] / least[k]


def scatter(lines: list[Line]) -> float:
    """How much more than the least the second least time of a case takes: the median over lines and cases."""
    more = sorted(sorted(s)[1] / min(s) - 1 for line in lines for s in line.seconds.values() if len(s) > 1)
    return more[len(more) // 2] if more else float("nan")


def noticed(lines: list[Line]) -> float:
    """A ratio that differs from 1 by less is no change: three times the scatter, but 5 % at least."""
    return max(0.05, 3 * scatter(lines))


def changes_table(lines: list[Line]) -> str:
    """Markdown: a line per change, between the times of the first and of the last one."""

    least = noticed(lines)

    def cell(k: int, case: Case) -> str:
        if any(case.name not in line.seconds for line in lines):
            return "–"
        if k in (0, len(lines)):
            return time_of(lines[k and k - 1], case)
        one, so_far = brought(lines, k, case.name)
        bold = "**" if abs(one - 1) >= least else ""
        return f"{bold}{one:.2f}{bold} ({so_far:.2f})"

    texts = [f"{line.text} (`{line.commit}`)" for line in lines] + ["**now**"]
    columns = {"change": lambda k: texts[k]}
    columns |= {case.name: lambda k, case=case: cell(k, case) for case in CASES}
    return compare.table(list(range(len(texts))), columns)


def time_of(line: Line, case: Case) -> str:
    """The least time of a case, per point or as a whole."""
    least = min(line.seconds[case.name])
    return f"{1e6 * least / line.points[case.name]:.1f} µs" if case.per_point else f"{1e3 * least:.0f} ms"
