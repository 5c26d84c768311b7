"""The documentation: its code runs as it stands there, its links and paths lead somewhere.

Every ``sh`` and ``python`` block of README.md and docs/*.md is run, page by page and in order, in a folder that holds

* ``im1.tif``, ``im2.tif``, ``im3.tif``: a small volume in three states, and ``mask.tif``, of their shape;
* ``labels1.tif``: labels of the volume in its first state;
* ``photo1.tif``, ``photo2.tif``: a small 2D image in two states.

A comment in the line before a block is its exception: ``<!-- not run: REASON -->``, or ``<!-- NAME -->`` for a block
that ``.ci/run`` runs by that name.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: How a language is run.
RUNNERS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-W", "error", "-c"]}
#: Beginnings of lines that are code, whatever their block is called.
CODE = re.compile(r"^(\$ |mpi\w+ |python |pip |import |from \S+ import )", re.MULTILINE)
MARKER = re.compile(r"<!-- (.+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, where it is, and the comment in the line before it."""

    page: Path
    line: int
    language: str
    text: str
    marker: str | None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").split("\n")
    begin: int | None = None
    for k, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if begin is None:
            begin = k
            continue
        before = MARKER.fullmatch(lines[begin - 1]) if begin else None
        text = "\n".join(lines[begin + 1 : k])
        found.append(Block(page, begin + 1, lines[begin][3:].strip(), text, before[1] if before else None))
        begin = None
    assert begin is None, f"{page}: a block that begins in line {begin} does not end"
    return found


def runs_here(block: Block) -> bool:
    return block.language in RUNNERS and block.marker is None


RUN = [page for page in PAGES if any(map(runs_here, blocks_of(page)))]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the images of every page."""
    folder = tmp_path_factory.mktemp("images")
    volumes = [
        AnalyticPair((60, 64, 68), 1, (1.0, 0.5, 0.5), (-0.01, 0.003, 0.003), (1.3, -0.7, 2.4), amplitude=0.0),
        AnalyticPair((60, 64, 68), 1, (1.5, 0.8, 0.8), (-0.02, 0.006, 0.006), (1.9, -1.1, 3.1), amplitude=0.0),
    ]
    for number, volume in enumerate((volumes[0].image1(), volumes[0].image2(), volumes[1].image2()), 1):
        tifffile.imwrite(folder / f"im{number}.tif", volume, photometric="minisblack")
    labels = np.zeros(volumes[0].shape, np.uint16)
    for k, corner in enumerate(np.ndindex(2, 2, 2)):
        labels[tuple(slice(12 + 20 * n, 28 + 20 * n) for n in corner)] = k + 1
    tifffile.imwrite(folder / "labels1.tif", labels, photometric="minisblack")
    mask = volumes[0].image1()
    mask[...] = 1
    mask[:, :10] = 0
    tifffile.imwrite(folder / "mask.tif", mask, photometric="minisblack")
    photo = AnalyticPair((1, 180, 200), 2, (1.0, 0, 0), (0, -0.004, 0.01), (0, -1.4, 2.2), amplitude=0.0)
    for number, plane in enumerate((photo.image1(), photo.image2()), 1):
        tifffile.imwrite(folder / f"photo{number}.tif", plane[0], photometric="minisblack")
    return folder


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_runs_as_it_stands_there(page: Path, images: Path, tmp_path: Path) -> None:
    for image in images.iterdir():
        (tmp_path / image.name).write_bytes(image.read_bytes())
    environment = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment |= {"MPLBACKEND": "Agg", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for block in filter(runs_here, blocks_of(page)):
        done = subprocess.run(
            [*RUNNERS[block.language], block.text],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{block.place} ends with {done.returncode}:\n{block.text}\n\n{done.stdout}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_that_is_not_run_says_why(page: Path) -> None:
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for block in blocks_of(page):
        if block.language == "py" and page.name == "adding-a-command.md":
            # files of a package: tests/test_adding_a_command.py makes and runs it
            assert block.marker is not None
        elif block.language not in RUNNERS:
            found = CODE.search(block.text)
            assert found is None, f"{block.place}: {found[0]!r} is code; call its block sh or python"
        elif block.marker is not None:
            reason = re.fullmatch(r"not run: \S.*", block.marker)
            assert reason or f"(from_readme {block.marker})" in ci, f"{block.place}: no reason, nor a name of .ci/run"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for text, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: [{text}]({target}) leads nowhere"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name}: [{text}]({target}) leads to no heading"


@pytest.mark.parametrize("name", ["architecture.md", "decisions.md"])
def test_sources_named_in_the_map_exist(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    named = {path for path in re.findall(r"`([\w./-]+)`", text) if re.search(r"\w\.(py|pyx|cpp|hpp)$|/$", path)}
    assert named
    missing = sorted(path for path in named if not any(Path(top, path).exists() for top in (ROOT, ROOT / "mpidvc")))
    # a name alone is that of a module in the room that the text is about
    modules = {path.name for top in ("mpidvc", "cython_ext") for path in (ROOT / top).rglob("*.*")}
    missing = [path for path in missing if path not in modules]
    assert missing == []
