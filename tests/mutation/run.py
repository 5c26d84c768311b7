"""A copy of the repository in which one mutant at a time is tried by the tests of its module."""

from __future__ import annotations

import os
import re
import resource
import shutil
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
        *("splines", "warp", "windows", "window_registration", "block_sums", "settings", "instruction_sets"),
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
    "processor": ["instruction_sets", "pixel_search"],
}
#: Tests of modules besides those of their own name.
MORE_TESTS = {
    "core/failures": ["workflow/test_verdict"],
    "core/statuses": ["fields/test_phifield"],
    "core/boxes": ["tasks/test_boxes"],
    "core/binning": ["tasks/test_binned"],
    "core/outliers": ["core/test_field_outliers"],
    "core/neighbourhood": ["core/test_field_outliers", "tasks/test_field_filter"],
    "core/grid": ["tasks/test_ldic", "tasks/test_pixel_search"],
    "core/grey": ["tasks/test_grey"],
    "core/texture": ["tasks/test_texture"],
    "core/pixel_search": ["tasks/test_pixel_search"],
    "core/deformation": ["core/test_registration", "tasks/test_registration"],
    "core/registration": ["tasks/test_registration"],
    "tasks/binned": ["tasks/test_registration"],
    "tasks/boxes": ["tasks/test_ldic", "tasks/test_registration"],
    "tasks/deform": ["commands/test_deform_image"],
    "tasks/points": ["tasks/test_ldic"],
}
#: A mutant hangs if its tests take more CPU seconds than this, and so many times as many as without it.
LONGEST, TIMES = 120, 5
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


def all_mutants(groups: Sequence[str] = tuple(GROUPS)) -> dict[str, list[Mutant]]:
    """All mutants by group."""
    found = {}
    for group in groups:
        paths = sorted(path for pattern in GROUPS[group] for path in ROOT.glob(pattern) if path.name != "__init__.py")
        found[group] = [mutant for path in paths for mutant in mutants_of(path, ROOT)]
    return found


def sample(mutants: list[Mutant], seed: int) -> list[Mutant]:
    """All of them in a random order, which a seed settles."""
    order = np.random.default_rng(seed).permutation(len(mutants))
    return [mutants[k] for k in order]


def extensions_of(file: str) -> list[str]:
    """Extensions that a source of the kernels belongs to."""
    folder = ROOT / "cython_ext"
    reading = {
        path.name: {name.rpartition("/")[2] for name in re.findall(r'include "([\w./]+)"', path.read_text())}
        for path in folder.rglob("*")
        if path.is_file()
    }
    for path in folder.glob("*.pyx"):
        reading[path.name] |= set(CORES.get(path.stem, []))
        reading[path.name] |= set(re.findall(r'cdef extern from "([\w.]+)"', path.read_text()))
    found = []
    for path in sorted(folder.glob("*.pyx")):
        seen, waiting = set(), [path.name]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += reading.get(name, set())
        if Path(file).name in seen:
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
    """A copy of the working tree with kernels of its own, of the lowest instruction set only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._limits: dict[tuple[str, ...], int] = {}
        self._clock = time.time() - 1e6
        files = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in files.stdout.splitlines():
            if (ROOT / name).is_file():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, target)
        self._touch(*folder.rglob("*"))
        (folder / "build").mkdir()
        for path in sorted((folder / "cython_ext").glob("*.pyx")):
            assert self._build(path.stem) is None, f"{path.stem} does not build"

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[Workshop]:
        with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
            yield cls(Path(folder))

    def try_out(self, mutant: Mutant) -> Outcome:
        """Put the mutant in place, run the tests of its module, and put the original back."""
        files = files_for(mutant.file)
        limit = self.limit(files)
        before = cpu_seconds()
        path = self.folder / mutant.file
        original = path.read_text(encoding="utf-8")
        path.write_text(mutant.applied(original), encoding="utf-8")
        self._touch(path)
        extensions = extensions_of(mutant.file) if mutant.file.startswith("cython_ext/") else []
        try:
            failed = [name for name in extensions if self._build(name, Path(mutant.file).name) is not None]
            if failed:
                verdict, by = "invalid", ""
            else:
                verdict, by = self.run_tests(files, limit)
        finally:
            path.write_text(original, encoding="utf-8")
            self._touch(path)
            for name in extensions:
                self._restore(name)
        return Outcome(mutant, verdict, by, cpu_seconds() - before)

    def limit(self, files: Sequence[str]) -> int:
        """CPU seconds that the tests of a mutant have: several times those of the sources as they are.

        Raises
        ------
        RuntimeError
            If the tests fail without a mutant: they would kill every one.
        """
        if tuple(files) not in self._limits:
            before = cpu_seconds()
            verdict, by = self.run_tests(files, 3600)
            if verdict != "survived":
                raise RuntimeError(f"without a mutant: {verdict} {by}")
            self._limits[tuple(files)] = max(LONGEST, round(TIMES * (cpu_seconds() - before)))
        return self._limits[tuple(files)]

    def run_tests(self, files: Sequence[str], limit: int) -> tuple[str, str]:
        """Verdict, and the test that gave it; CPU seconds are limited, and no others: other work is no matter."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MPIDVC_")}
        environ |= {"PYTHONPATH": str(self.folder), "PYTHONPYCACHEPREFIX": str(self.folder / "build" / "pycache")}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-W", "ignore", *files]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5)),
        )
        if done.returncode == 0:
            return "survived", ""
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        if done.returncode < 0 and found is None:
            return ("hangs", "") if done.returncode in (-24, -9) else ("killed", f"signal {-done.returncode}")
        return "killed", found[1] if found else f"status {done.returncode}"

    # ---- kernels

    def _build(self, name: str, changed: str | None = None) -> str | None:
        """Build an extension from what changed; returns the compiler's complaint."""
        source, build = self.folder / "cython_ext", self.folder / "build"
        wrapper = build / f"{name}.cpp"
        steps: list[list[str]] = []
        include = ["-I", str(source), "-I", np.get_include(), "-I", sysconfig.get_paths()["include"]]
        macros = ["-DNPY_NO_DEPRECATED_API=NPY_2_0_API_VERSION", "-DMPIDVC_ISA=baseline"]
        cores = CORES.get(name, [])
        # a header of the core is no part of the wrapper, but for its interface
        if changed is None or changed not in cores:
            if changed is None or changed == f"{name}.pyx":
                steps.append(
                    [sys.executable, "-m", "cython", "-3", "--cplus", str(source / f"{name}.pyx"), "-o", str(wrapper)]
                )
            steps.append(["g++", *FLAGS, *include, *macros, "-w", "-c", str(wrapper), "-o", str(build / f"{name}.o")])
        if changed is None or not changed.endswith(".pyx"):
            for core in cores:
                steps.append(
                    ["g++", *FLAGS, *include, *macros, "-w", "-c", str(source / core), "-o", str(build / f"{core}.o")]
                )
        out = self.folder / "mpidvc" / "kernels" / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
        if changed is not None:
            for path in (build / f"{name}.o", *(build / f"{core}.o" for core in cores), wrapper, out):
                shutil.copy2(path, path.with_name(path.name + ".kept"))
        objects = [str(build / f"{name}.o"), *(str(build / f"{core}.o") for core in cores)]
        steps.append(["g++", "-shared", *objects, "-o", str(out) + ".new"])
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                return done.stderr
        # a process that has the old one loaded keeps it
        Path(f"{out}.new").replace(out)
        return None

    def _restore(self, name: str) -> None:
        for path in [*(self.folder / "build").glob("*.kept"), *(self.folder / "mpidvc" / "kernels").glob("*.kept")]:
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
