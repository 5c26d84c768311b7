"""Images, jobs, and the files of undisturbed runs."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.main import main
from mpidvc.runtime.launch import Mpiexec, find_mpiexec
from tests.survival.jobs import Job

#: Commands whose points take about a second; `@` is the folder of the images.
LINES = {
    "ldic": "ldic @a.tif @b.tif -ns 4 -hws 8 -o 3 -dp 1e-5",
    "pixelSearch": "pixelSearch @a.tif @b.tif -ns 3 -hws 4 -sr -4 4 -4 4 -4 4",
    "pixelSearchPropagate": "pixelSearchPropagate @a.tif @b.tif -ns 4 -hws 5 -sr -2 2 -2 2 -2 2 -sp 20 30 40 0 0 0",
    "ddic": "ddic @a.tif @labels.tif @b.tif -nr -ug -o 3 -dp 1e-4",
}

#: Makes a job of a command; the options are added to its line.
Make = Callable[..., Job]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    motion = {"amplitude": 0.1, "wavelength": 60.0, "translation": (0.6, -0.4, 0.7)}
    solid, flat = AnalyticPair((40, 60, 80), seed=5, **motion), AnalyticPair((1, 200, 300), seed=5, **motion)
    z, y, x = np.indices(solid.shape)
    made = {
        "a": solid.image1(),
        "b": solid.image2(),
        "c": AnalyticPair((40, 60, 80), seed=5, **motion | {"translation": (1.1, 0.3, -0.6)}).image2(),
        "mask": ((y - 30) ** 2 + (z - 20) ** 2 < 700).astype(np.uint8),
        # bricks that touch
        "labels": (1 + z // 8 + 5 * (y // 10) + 30 * (x // 8)).astype(np.uint16),
        "f": flat.image1()[0],
        "g": flat.image2()[0],
    }
    for name, image in made.items():
        tifffile.imwrite(folder / f"{name}.tif", image, photometric="minisblack")
    return folder


@pytest.fixture(scope="session")
def oracle(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of the files that a line writes when one process runs it undisturbed."""
    known: dict[str, Path] = {}

    def of(line: str) -> Path:
        if line not in known:
            folder = tmp_path_factory.mktemp("oracle")
            with contextlib.redirect_stdout(io.StringIO()):
                assert main([*line.replace("@", f"{images}/").split(), "-np", "1", "-od", str(folder)]) == 0
            known[line] = folder
        return known[line]

    return of


@pytest.fixture
def make(images: Path, environment: dict[str, str], tmp_path: Path) -> Make:
    def job(line: str, stem: str = "", out: str = "out") -> Job:
        stem = stem or f"a-b-{line.split()[0]}"
        return Job(line, images, tmp_path / out, stem, environment, find_mpiexec())

    return job


@pytest.fixture
def survivor(launcher: Mpiexec) -> None:
    """For jobs that outlive their ranks."""
    if not launcher.fault_tolerant:
        pytest.skip("this MPI ends a job that loses a rank")
