"""A copy of the repository in which one mutant at a time is tried by the tests of its module."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.mutation.mutants import Mutant, mutants_of

__all__ = ["GROUPS", "ROOT", "Outcome", "Workshop", "all_mutants", "cpu_seconds", "files_for", "sample"]

ROOT = Path(__file__).parents[2]
#: What is changed, in groups that get equal shares of the time.
GROUPS = {
    "core": ["mpidvc/core/*.py"],
    "tasks": ["mpidvc/tasks/*.py"],
    "kernels": ["cython_ext/*.cpp", "cython_ext/*.hpp", "cython_ext/*/*.hpp", "cython_ext/*.pyx"],
}
#: Cores of the extensions and the tests of each; what a header or core belongs to follows from its includes.
CORES = {
    "correlation": ["gauss_newton.cpp"],
    "deform": ["deform_places.cpp"],
    "pixel_search": ["window_search.cpp"],
}
KERNEL_TESTS = {
    "correlation": [
        *("to_float", "bin_mean", "splines", "warp", "windows", "window_registration", "block_sums", "errors"),
        *("settings", "neighbour_starts", "instruction_sets"),
        *("../core/test_registration", "../tasks/test_registration", "../tasks/test_ldic"),
    ],
    "pixel_search": ["pixel_search", "../tasks/test_pixel_search"],
    "neighbours": ["neighbours", "../core/test_neighbourhood", "../core/test_propagation"],
    "labels": ["labels", "../core/test_labels", "../tasks/test_labels"],
    "interpolation": ["interpolation", "../tasks/test_passing"],
    "field": ["../core/test_local_fit", "../core/test_field_outliers", "../tasks/test_field_filter"],
    "strain": ["../core/test_strain", "../tasks/test_strain", "../core/test_deformation"],
    "deform": ["../tasks/test_deform", "../commands/test_deform_image"],
    "text": ["text", "../fields/test_tsv"],
    "records": ["records", "../fields/test_hdf5"],
    "windows": ["window_sums", "../tasks/test_adaptive"],
    "processor": ["instruction_sets", "pixel_search"],
    "phases": ["phases", "../core/test_phase_correlation"],
}
#: Tests of modules besides those of their own name.
MORE_TESTS = {
    "core/local_fit": ["tasks/test_field_filter"],
    "core/failures": ["workflow/test_verdict"],
    "core/statuses": ["fields/test_phifield"],
    "core/boxes": ["tasks/test_boxes"],
    "core/binning": ["tasks/test_binned"],
    "core/outliers": ["core/test_field_outliers"],
    "core/neighbourhood": ["core/test_field_outliers", "tasks/test_field_filter"],
    "core/grid": ["tasks/test_ldic", "tasks/test_pixel_search"],
    "core/grey": ["tasks/test_grey"],
    "core/texture": ["tasks/test_texture"],
    "core/starts": ["tasks/test_ldic_neighbours"],
    "core/pixel_search": ["tasks/test_pixel_search"],
    "core/deformation": ["core/test_registration", "tasks/test_registration"],
    "core/registration": ["tasks/test_registration"],
    "tasks/binned": ["tasks/test_registration"],
    "tasks/boxes": ["tasks/test_bases", "tasks/test_ldic", "tasks/test_registration"],
    "tasks/deform": ["commands/test_deform_image"],
    "tasks/grey": ["tasks/test_bases"],
    "tasks/ldic": ["tasks/test_ldic_records", "tasks/test_ldic_neighbours"],
    "tasks/points": ["tasks/test_ldic"],
}
#: A mutant hangs if its tests take more CPU seconds than this.
LONGEST = 120
FLAGS = [
    "-O1",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wno-psabi",
    "-std=c++17",
    "-g0",
    "-fPIC",
]


def all_mutants(groups: Sequence[str] = tuple(GROUPS), only: str = "") -> dict[str, list[Mutant]]:
    """All mutants by group, of the files in whose paths a regular expression is found."""
    found = {}
    for group in groups:
        paths = sorted(path for pattern in GROUPS[group] for path in ROOT.glob(pattern) if path.name != "__init__.py")
        chosen = [path for path in paths if re.search(only, path.relative_to(ROOT).as_posix())]
        found[group] = [mutant for path in chosen for mutant in mutants_of(path, ROOT)]
    return found


def sample(mutants: list[Mutant], seed: int) -> list[Mutant]:
    """All of them in a random order, which a seed settles: one of every file, then a second one of every file, …"""
    rng = np.random.default_rng(seed)
    rounds: dict[str, int] = {}
    keyed = []
    for k in rng.permutation(len(mutants)):
        file = mutants[k].file
        rounds[file] = rounds.get(file, 0) + 1
        keyed.append((rounds[file], len(keyed), k))
    return [mutants[k] for _, _, k in sorted(keyed)]


def read_by(name: str) -> set[str]:
    """Names of the headers of the kernels that a source reads, directly or not."""
    files = {path.name: path for path in (ROOT / "cython_ext").rglob("*") if path.is_file()}
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        text = files[waiting.pop()].read_text(encoding="utf-8")
        found = {path.rpartition("/")[2] for path in re.findall(r'(?:include|extern from) "([\w./]+)"', text)}
        waiting += (found - seen) & files.keys()
        seen |= found & files.keys()
    return seen


def extensions_of(file: str) -> list[str]:
    """Extensions that a source of the kernels belongs to."""
    found = []
    for path in sorted((ROOT / "cython_ext").glob("*.pyx")):
        sources = [path.name, *CORES.get(path.stem, [])]
        if Path(file).name in {*sources, *(header for source in sources for header in read_by(source))}:
            found.append(path.stem)
    return found


def files_for(file: str) -> list[str]:
    """Test files that a change of this file is tried by, the quick ones first."""
    path = Path(file)
    if path.parts[0] == "cython_ext":
        names = [f"kernels/{name}" for extension in extensions_of(file) for name in KERNEL_TESTS[extension]]
        names = [
            re.sub(r"kernels/\.\./|kernels/(?!test_)", lambda m: "" if ".." in m[0] else "kernels/test_", n)
            for n in names
        ]
    else:
        room, module = path.parent.name, path.stem
        names = [f"{room}/test_{module}", *MORE_TESTS.get(f"{room}/{module}", [])]
    return [f"tests/{name}.py" for name in dict.fromkeys(names) if (ROOT / f"tests/{name}.py").exists()]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: "killed", "hangs", "invalid" (does not compile) or "survived"; CPU seconds."""

    mutant: Mutant
    verdict: str
    by: str
    seconds: float


class Workshop:
    """A copy of the working tree with its kernels; one that is changed is compiled for the lowest instruction set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sound: set[tuple[str, ...]] = set()
        self._clock = time.time() - 1e6
        self._tests_cpu = 0.0
        self._stale: list[Path] = []
        files = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        kernels = [path.relative_to(ROOT) for path in (ROOT / "mpidvc" / "kernels").glob("*.so")]
        for name in [*files.stdout.splitlines(), *map(str, kernels)]:
            if (ROOT / name).is_file():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, target)
        self._touch(*folder.rglob("*"))
        (folder / "build").mkdir(exist_ok=True)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MPIDVC_")}
        environ |= {"PYTHONPATH": str(folder), "PYTHONPYCACHEPREFIX": str(folder / "build" / "pycache")}
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "tests.mutation.nursery"],
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[Workshop]:
        with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
            workshop = cls(Path(folder))
            try:
                yield workshop
            finally:
                workshop._nursery.communicate()

    def cpu_seconds(self) -> float:
        """Used so far, by the tests too."""
        return cpu_seconds() + self._tests_cpu

    def try_out(self, mutant: Mutant) -> Outcome:
        """Put the mutant in place, run the tests of its module, and put the original back.

        Raises
        ------
        RuntimeError
            If what killed the mutant fails without it too.
        """
        files = files_for(mutant.file)
        before = self.cpu_seconds()
        path = self.folder / mutant.file
        original = path.read_text(encoding="utf-8")
        path.write_text(mutant.applied(original), encoding="utf-8")
        self._touch(path)
        extensions = extensions_of(mutant.file) if mutant.file.startswith("cython_ext/") else []
        try:
            if all(self._build(name, mutant.file) for name in extensions):
                verdict, by = self.run_tests(files)
            else:
                verdict, by = "invalid", ""
        finally:
            path.write_text(original, encoding="utf-8")
            self._touch(path)
            self._restore()
        seconds = self.cpu_seconds() - before
        if verdict in ("killed", "hangs"):
            self._check([by.partition("[")[0]] if by.startswith("tests/") else files)
        return Outcome(mutant, verdict, by, seconds)

    def _check(self, tests: Sequence[str]) -> None:
        if tuple(tests) not in self._sound:
            verdict, by = self.run_tests(tests)
            if verdict != "survived":
                raise RuntimeError(f"without a mutant: {verdict} {by}")
            self._sound.add(tuple(tests))

    def run_tests(self, tests: Sequence[str]) -> tuple[str, str]:
        """Verdict, and the test that gave it; CPU seconds are limited, and no others: other work is no matter."""
        printed = self.folder / "build" / "printed"
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        asked = {"tests": list(tests), "limit": LONGEST, "out": str(printed)}
        print(json.dumps(asked), file=self._nursery.stdin, flush=True)
        status, seconds = json.loads(self._nursery.stdout.readline())
        self._tests_cpu += seconds
        if status == 0:
            return "survived", ""
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", printed.read_text(errors="replace"), re.MULTILINE)
        if status < 0 and found is None:
            return ("hangs", "") if status in (-signal.SIGXCPU, -signal.SIGKILL) else ("killed", f"signal {-status}")
        return "killed", found[1] if found else f"status {status}"

    # ---- kernels

    def _build(self, name: str, changed: str) -> bool:
        """Build an extension in which one file is changed; tells whether it compiles."""
        source, build = self.folder / "cython_ext", self.folder / "build"
        wrapper, cores = build / f"{name}.cpp", CORES.get(name, [])
        include = ["-I", str(source), "-I", np.get_include(), "-I", sysconfig.get_paths()["include"]]
        compiler = [
            "g++",
            *FLAGS,
            *include,
            "-DNPY_NO_DEPRECATED_API=NPY_2_0_API_VERSION",
            "-DMPIDVC_ISA=baseline",
            "-w",
        ]
        made = [
            (wrapper, [f"{name}.pyx"], [sys.executable, "-m", "cython", "-3", "--cplus", str(source / f"{name}.pyx")])
        ]
        made.append((build / f"{name}.o", [f"{name}.pyx", *read_by(f"{name}.pyx")], [*compiler, "-c", str(wrapper)]))
        for core in cores:
            made.append((build / f"{core}.o", [core, *read_by(core)], [*compiler, "-c", str(source / core)]))
        for out, sources, command in made:
            # what the change is no part of is built once
            touched = Path(changed).name in sources
            if touched:
                self._stale.append(out)
            if touched or not out.exists():
                part = out.with_name(out.name + ".new")
                if subprocess.run([*command, "-o", str(part)], capture_output=True, check=False).returncode:
                    assert touched, f"{out.name} does not build"
                    return False
                part.replace(out)
        library = self.folder / "mpidvc" / "kernels" / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
        objects = [str(out) for out, _, _ in made[1:]]
        subprocess.run(["g++", "-shared", *objects, "-o", f"{library}.new"], check=True)
        library.rename(f"{library}.kept")
        Path(f"{library}.new").rename(library)
        return True

    def _restore(self) -> None:
        for path in self._stale:
            path.unlink(missing_ok=True)
        self._stale.clear()
        for path in (self.folder / "mpidvc" / "kernels").glob("*.kept"):
            path.replace(path.with_suffix(""))

    def _touch(self, *paths: Path) -> None:
        """Give every change a time of its own: Python tells bytecode that is out of date by whole seconds."""
        self._clock += 2
        for path in paths:
            os.utime(path, (self._clock, self._clock))


def cpu_seconds() -> float:
    """CPU time of this process and its children so far."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)
