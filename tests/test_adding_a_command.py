"""The command of docs/adding-a-command.md, whose blocks are its files: added to a copy of the table, and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import mpidvc
from mpidvc import read_field
from mpidvc.core.analytic import AnalyticPair
from tests.outputs import outputs
from tests.waiting import LONGEST

PAGE = Path(__file__).parents[1] / "docs/adding-a-command.md"
ARGUMENTS = ("a.tif", "b.tif", "-ns3", "5", "6", "7", "-hws3", "2", "3", "4", "-tif", "-vtk")


def block(name: str) -> str:
    """The block of the page below the comment with this name."""
    marker = f"<!-- not run: the {name}, which a test adds -->"
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(marker)}\n```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found is not None, f"{PAGE.name} has no block {name}"
    return found[1]


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package's Python sources with the command as the page adds it."""
    root = tmp_path_factory.mktemp("added")
    source = Path(mpidvc.__file__).parent
    for path in source.rglob("*"):
        if "__pycache__" not in path.parts and path.is_file():
            copy = root / "mpidvc" / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(path)
    folder = root / "mpidvc/commands/difference"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""``mpidvc difference``."""\n')
    for name in ("options.py", "run.py"):
        (folder / name).write_text(block(f"file {name}"))
    table = root / "mpidvc/commands/__init__.py"
    lines = table.read_text()
    table.unlink()
    head, line, rest = lines.partition('        Command("status"')
    if not line:
        head, line, rest = lines.partition('        Command(\n            "status"')
    assert line
    table.write_text(f"{head}        {block('line of the table').strip()},\n{line}{rest}")
    return root


@pytest.fixture(scope="module")
def with_it(added: Path, environment: dict[str, str]) -> dict[str, str]:
    """Environment of a child process that finds this copy."""
    path = os.pathsep.join([str(added), environment["PYTHONPATH"]])
    return environment | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    pair = AnalyticPair((24, 30, 36), seed=1, gain2=0.8, offset2=0.05)
    for name, image in (("a", pair.image1()), ("b", pair.image2())):
        tifffile.imwrite(folder / f"{name}.tif", image, photometric="minisblack")
    return folder


def run(environment: dict[str, str], images: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mpidvc", *words],
        env=environment,
        cwd=images,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )


def expected(images: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions and differences by the definition."""
    a, b = (tifffile.imread(images / f"{name}.tif").astype(float) for name in "ab")
    positions, differences = [], []
    for z in range(5, 24, 5):
        for y in range(6, 30, 6):
            for x in range(7, 36, 7):
                window = tuple(slice(max(c - h, 0), c + h + 1) for c, h in zip((z, y, x), (2, 3, 4), strict=True))
                positions.append((z, y, x))
                differences.append((b - a)[window].mean())
    return np.array(positions), np.array(differences)


def test_it_is_small() -> None:
    code = [line for name in ("options.py", "run.py") for line in block(f"file {name}").splitlines()]
    statements = [line for line in code if line.strip() and not line.startswith(("import ", "from "))]
    assert len(statements) <= 90


def test_it_is_in_the_help(with_it: dict[str, str], images: Path) -> None:
    assert re.search(r"^  difference +mean grey-level", run(with_it, images, "--help").stdout, re.MULTILINE)
    assert "--half-window-size" in run(with_it, images, "difference", "--help").stdout
    refused = run(with_it, images, "difference", "a.tif", "b.tif", "-ns", "5")
    assert refused.returncode == 2
    assert refused.stderr == "mpidvc difference: error: the size of the windows is missing: give -hws or -hws3\n"


def test_ranks_give_the_bytes_of_one_process(
    with_it: dict[str, str], images: Path, tmp_path: Path, launcher: object
) -> None:
    found = []
    for n in "12":
        done = run(with_it, images, "difference", *ARGUMENTS, "-od", str(tmp_path / n), "-np", n)
        assert done.returncode == 0, done.stderr
        found.append(outputs(tmp_path / n))
    assert found[0] == found[1]
    assert {name.partition("difference")[2] for name in found[0]} == {
        *(".h5", ".tsv", ".vtk", "-difference.tif", "-Zdisp.tif", "-Ydisp.tif", "-Xdisp.tif")
    }
    positions, differences = expected(images)
    for suffix in (".h5", ".tsv"):
        field = read_field(tmp_path / f"2/a-b-difference{suffix}")
        np.testing.assert_array_equal(field.positions, positions)
        np.testing.assert_allclose(field["difference"], differences, atol=1e-6)
        assert field.good.all()
    volume = tifffile.imread(tmp_path / "2/a-b-difference-difference.tif")
    np.testing.assert_allclose(volume.ravel(), differences, rtol=1e-6)


def test_it_is_resumed(with_it: dict[str, str], images: Path, tmp_path: Path) -> None:
    """Interrupted after its first block, by a task that breaks there, then resumed."""
    whole = run(with_it, images, "difference", *ARGUMENTS, "-od", str(tmp_path / "whole"), "-np", "1")
    assert whole.returncode == 0, whole.stderr
    program = """
import sys
from mpidvc.commands.difference.run import DifferenceTask
from mpidvc.main import main
from mpidvc.workflow import work
run = DifferenceTask.run
def broken(self, chunk):
    if chunk == 1:
        raise KeyboardInterrupt
    return run(self, chunk)
DifferenceTask.run = broken
sys.exit(main(sys.argv[1:]))
"""
    words = ["difference", *ARGUMENTS, "-od", str(tmp_path / "parts"), "-np", "1"]
    begun = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=with_it,
        cwd=images,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert begun.returncode == 85, begun.stderr
    resumed = run(with_it, images, *words, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "64 of 64 points" not in resumed.stdout
    assert re.search(r"Going on with .*: 64 of 80 points are done", resumed.stdout)
    assert outputs(tmp_path / "parts") == outputs(tmp_path / "whole")


def test_it_is_a_function(with_it: dict[str, str], images: Path, tmp_path: Path) -> None:
    program = f"""
import numpy as np, tifffile, mpidvc
assert "difference" in dir(mpidvc)
one, two = (tifffile.imread({str(images)!r} + name) for name in ("/a.tif", "/b.tif"))
for processes in (1, 2):
    field = mpidvc.difference(
        one, two, node_spacing=(5, 6, 7), half_window_size=(2, 3, 4), processes=processes
    )
    np.save({str(tmp_path)!r} + f"/{{processes}}.npy", field["difference"])
"""
    subprocess.run([sys.executable, "-c", program], env=with_it, cwd=tmp_path, timeout=LONGEST, check=True)
    one, two = (np.load(tmp_path / f"{n}.npy") for n in (1, 2))
    np.testing.assert_allclose(one, expected(images)[1], atol=1e-6)
    assert one.tobytes() == two.tobytes()


def test_its_files_pass_the_checks_of_the_house(added: Path) -> None:
    """Formatted and linted as the package is, where the tools are installed."""
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed")
    config = PAGE.parents[1] / "pyproject.toml"
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [ruff, *words, "--config", config, added / "mpidvc/commands/difference"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
