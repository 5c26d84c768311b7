"""Build of the compiled kernels: one object per instruction set, chosen at run time.

Everything else about the package is in ``pyproject.toml``.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = Path("cython_ext")
#: Flags that change no result's meaning (never -ffast-math: it flushes denormals and breaks NaN tests).
OPTIMISE = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-Wno-psabi", "-std=c++17"]
#: The numerical core of an extension, by the extension's name.
CORES = {"correlation": "gauss_newton.cpp", "deform": "deform_places.cpp", "pixel_search": "window_search.cpp"}
#: Flags of some extensions. A choice between points that are nearly as near must not depend on multiply-adds.
FLAGS = {"deform": ["-ffp-contract=off"]}
#: Extensions that have to know which instruction sets there are.
DISPATCHING = {*CORES, "processor"}
#: One object of every core for each of these; the baseline is what every machine of the architecture has.
INSTRUCTION_SETS = {
    "baseline": [],
    "avx2": ["-march=x86-64-v3", "-mtune=generic"],
    "avx512": ["-march=x86-64-v4", "-mtune=generic"],
}


def read_by(*sources: Path) -> list[str]:
    """Files of the kernels that sources read, directly or not."""
    files = {path.name: path for path in SOURCES.rglob("*") if path.is_file()}
    waiting, found = list(sources), set()
    while waiting:
        text = waiting.pop().read_text(encoding="utf-8")
        names = re.findall(r'(?:include|extern from) "(?:[\w.]+/)*([\w.]+)"', text)
        new = {files[name] for name in names if name in files} - found
        found |= new
        waiting += new
    return sorted(map(str, found))


def is_newer(made: Path, sources: list[str]) -> bool:
    return all(Path(source).stat().st_mtime <= made.stat().st_mtime for source in sources)


def gnu_like(compiler) -> bool:
    return compiler.compiler_type != "msvc"


class BuildKernels(build_ext):
    """Compile the numerical cores once per instruction set and link all objects of one into its extension."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

    def build_extension(self, ext: Extension) -> None:
        name = ext.name.rpartition(".")[2]
        built = Path(self.get_ext_fullpath(ext.name))
        # an editable install builds elsewhere what an install before it may have left
        for made in (built, *Path("build").glob(f"lib.*/{self.get_ext_filename(ext.name)}")):
            # what Cython makes of a source is made anew in every environment, and is the same
            if not self.force and made.exists() and is_newer(made, ext.depends):
                if made != built:
                    self.mkpath(str(built.parent))
                    self.copy_file(str(made), str(built))
                return
        if gnu_like(self.compiler):
            ext.extra_compile_args = [*OPTIMISE, *FLAGS.get(name, []), "-g0"]
        else:
            ext.extra_compile_args = ["/O2", "/std:c++17"]
        x86 = platform.machine().lower() in {"x86_64", "amd64"} and gnu_like(self.compiler)
        if x86 and name in DISPATCHING:
            ext.define_macros = [*ext.define_macros, ("MPIDVC_X86_DISPATCH", "1")]
        if name in CORES:
            names = list(INSTRUCTION_SETS) if x86 else ["baseline"]
            ext.extra_objects = self.compile_instruction_sets(ext, CORES[name], names)
        super().build_extension(ext)

    def compile_instruction_sets(self, ext: Extension, core: str, names: list[str]) -> list[str]:
        def compiled(name: str) -> list[str]:
            return self.compiler.compile(
                [str(SOURCES / core)],
                output_dir=str(Path(self.build_temp) / name),
                macros=[("MPIDVC_ISA", name)],
                include_dirs=[str(SOURCES)],
                extra_postargs=[*ext.extra_compile_args, *INSTRUCTION_SETS[name]],
                depends=read_by(SOURCES / core),
            )

        with ThreadPoolExecutor(self.parallel) as pool:
            return [made for objects in pool.map(compiled, names) for made in objects]


def sources_of(path: Path) -> list[str]:
    """An extension's Cython source, its numerical core, and all files that these read."""
    own = [path, *(SOURCES / CORES[name] for name in [path.stem] if name in CORES)]
    return [*map(str, own), *read_by(*own)]


def extensions() -> list[Extension]:
    return [
        Extension(
            f"mpidvc.kernels.{path.stem}",
            [str(path)],
            language="c++",
            include_dirs=[numpy.get_include(), str(SOURCES)],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
            depends=["setup.py", *sources_of(path)],
        )
        for path in sorted(SOURCES.glob("*.pyx"))
    ]


#: Commands that need no kernels.
WITHOUT = {"clean", "dist_info", "egg_info", "sdist"}

setup(
    ext_modules=[]
    if WITHOUT.intersection(sys.argv)
    else cythonize(extensions(), language_level=3, build_dir="build/cython"),
    cmdclass={"build_ext": BuildKernels},
)
