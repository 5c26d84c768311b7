"""The documentation: its code runs as it stands there, its links and paths lead somewhere.

Every ``sh`` and ``python`` block of README.md and docs/*.md is run, page by page and in order, in a folder that holds

* ``im1.tif``, ``im2.tif``, ``im3.tif``: a small volume in three states, and ``mask.tif``, of their shape;
* ``labels1.tif``: labels of the volume in its first state;
* ``photo1.tif``, ``photo2.tif``: a small 2D image in two states;
* ``sandstone1.tif``, ``sandstone2.tif``: a larger volume in two states, in the place of the tutorial's sandstone.

A comment in the line before a block is its exception: ``<!-- not run: REASON -->``, or ``<!-- NAME -->`` for a block
that ``.ci/run`` runs by that name.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile

import mpidvc
from mpidvc.core.analytic import AnalyticPair
from tests.waiting import LONGEST

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
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
    rock = AnalyticPair((125, 126, 127), 3, (0.5, 0, 0), (0.003, 0.003, 0.003), (0.1, -1.1, -1.1), amplitude=0.3)
    # brighter than the air around the sandstone
    for number, (volume, scale) in enumerate(((rock.image1(), 0.1), (rock.image2(), 0.05)), 1):
        grey = (10_000 + scale * volume.astype(np.float64)).astype(np.uint16)
        tifffile.imwrite(folder / f"sandstone{number}.tif", grey, photometric="minisblack")
    return folder


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_runs_as_it_stands_there(page: Path, images: Path, tmp_path: Path) -> None:
    for image in images.iterdir():
        (tmp_path / image.name).write_bytes(image.read_bytes())
    run_code(page, tmp_path)


def run_code(page: Path, folder: Path) -> str:
    """Run the code of a page in a folder; return what it prints."""
    printed = ""
    environment = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache")}
    environment |= {"MPLBACKEND": "Agg", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for block in filter(runs_here, blocks_of(page)):
        done = subprocess.run(
            [*RUNNERS[block.language], block.text],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        assert done.returncode == 0, f"{block.place} ends with {done.returncode}:\n{block.text}\n\n{done.stdout}"
        printed += done.stdout
    return printed


def test_the_sandstone_is_what_the_tutorial_says(tmp_path: Path) -> None:
    """Its lines on the images that it names give the numbers that it tells."""
    if "MPIDVC_DATA" not in os.environ:
        pytest.skip("needs data")
    page = DOCS / "tutorial-sandstone.md"
    text = page.read_text(encoding="utf-8")
    for number, name in enumerate(("Intact", "Deformed"), 1):
        given = Path(os.environ["MPIDVC_DATA"], "3d", "v4_sandstone", f"V4_bin2_{name}.tif")
        voxels = tifffile.imread(given)
        assert f'"{name}": "{hashlib.sha256(voxels.tobytes()).hexdigest()}"' in text
        (tmp_path / f"sandstone{number}.tif").write_bytes(given.read_bytes())
    printed = run_code(page, tmp_path)
    assert "znssd (grey levels" in printed
    # what the page tells, in its words and in those of the program
    for told, found in (
        ("(0.05, −1.13, −1.13)", r"Translations \(px\) +z: 0\.05\d+ +y: -1\.1[23]\d+ +x: -1\.13\d+"),
        ("13 552 nodes", r"Local DIC for 13552 nodes"),
        ("98.5 %", r"RS=\+2 .* 98\.[45]%"),
        ("3988", r"RS=-5 .* 3988 "),
        ("99.5 % of the compared points", r"The result is one to trust: 99\.[3-7]% of the"),
        ("z, y, x = 231, 98, 92", r"in a band at \((22[6-9]|23[0-6]), (9[4-9]|10[0-2]), (8[8-9]|9[0-6])\) \(z, y, x\)"),
        ("(−0.52, 0.55, 0.65)", r"with the normal \(-0\.5[0-4], 0\.5[3-8], 0\.6[2-7]\)"),
        ("8.5 % of the points and 57 %", r"it holds 8\.\d% of the points and 5[5-9]\.\d% of the deviatoric strain"),
    ):
        assert told in text
        assert re.search(found, printed), found
    strains = [float(value) for value in re.findall(r"GL(?:zz|yy|xx) +│ (0\.\d+)", printed)]
    assert len(strains) == 3
    # "All axes are longer by 0.3 to 0.4 %"
    assert 0.0030 < min(strains) < max(strains) < 0.0040


def test_pictures_are_in_the_gallery() -> None:
    shown = set(re.findall(r"\(images/([\w.-]+)\)", (DOCS / "gallery.md").read_text(encoding="utf-8")))
    assert shown == {path.name for path in (DOCS / "images").iterdir()}


def test_the_index_leads_to_every_page() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    linked = {name.removeprefix("../") for name in re.findall(r"\]\(([^)]+\.md)\)", index)}
    assert linked == {path.name for path in PAGES if path.name != "index.md"} | {"CHANGELOG.md"}


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {mpidvc.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


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
