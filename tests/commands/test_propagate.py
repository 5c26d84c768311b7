"""pixelSearchPropagate against the propagation by its definition, one point after the other, in float64."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.grid import make_grid
from mpidvc.core.pixel_search import LEAST_OVERLAP
from mpidvc.fields.tsv import COLUMNS
from mpidvc.main import main
from tests.conftest import Job
from tests.kernels.test_neighbours import brute_walk
from tests.outputs import other_outputs, outputs
from tests.slow_search import search_window

REFERENCE = Path(__file__).parents[1] / "reference"
SPAM = {
    case["name"]: case
    for case in json.loads((REFERENCE / "cases.json").read_text())["cases"]
    if case["command"] == "pixelSearchPropagate"
}

Table = dict[str, np.ndarray]
DISPLACEMENTS = ("Zdisp", "Ydisp", "Xdisp")


def read(path: Path) -> Table:
    with path.open() as file:
        names = file.readline().rstrip("\n").split("\t")
        table = np.loadtxt(file, delimiter="\t", ndmin=2)
    assert tuple(names) == COLUMNS["SEARCH"]
    return dict(zip(names, table.T, strict=True))


def columns(table: Table, names: Iterable[str]) -> np.ndarray:
    return np.stack([table[name] for name in names], axis=-1)


def cut(image: np.ndarray, start: np.ndarray, stop: np.ndarray, outside: float) -> np.ndarray:
    """A box of an image, `outside` where it sticks out."""
    box = np.full(stop - start, outside)
    inside = [np.arange(max(a, 0), min(b, n)) for a, b, n in zip(start, stop, image.shape, strict=True)]
    if all(map(len, inside)):
        box[np.ix_(*(k - a for k, a in zip(inside, start, strict=True)))] = image[np.ix_(*inside)]
    return box


class Definition:
    """The search of windows and its propagation, as documented."""

    def __init__(
        self,
        image1: np.ndarray,
        image2: np.ndarray,
        hws: int,
        reach: int,
        mask1: np.ndarray | None = None,
        mask2: np.ndarray | None = None,
        coverage: float = 0.5,
        grey: tuple[float, float] = (-np.inf, np.inf),
        zero_mean: bool = False,
    ) -> None:
        self.image1, self.image2 = (np.atleast_3d(i.T).T.astype(np.float64) for i in (image1, image2))
        flat = self.image1.shape[0] == 1
        self.hws = np.array([0 if flat else hws, hws, hws])
        self.high = np.array([0 if flat else reach, reach, reach])
        ones = np.ones(self.image1.shape)
        self.mask1, self.mask2 = (ones if m is None else m.reshape(ones.shape) != 0 for m in (mask1, mask2))
        self.coverage, self.grey, self.zero_mean = coverage, grey, zero_mean

    def search(self, position: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, float, float, int]:
        refused = (np.full(3, np.nan), 0.0, np.inf, -5)
        node = position.astype(int)
        start1, stop1 = node - self.hws, node + self.hws + 1
        start2, stop2 = start1 + guess - self.high, stop1 + guess + self.high
        window = cut(self.image1, start1, stop1, np.nan)
        real = np.isfinite(window)
        usable1 = real & (cut(self.mask1, start1, stop1, 0) != 0)
        mean = window[real].mean() if real.any() else np.nan
        if usable1.mean() < self.coverage or not self.grey[0] < mean < self.grey[1]:
            return refused
        box = cut(self.image2, start2, stop2, np.nan)
        usable2 = np.isfinite(box) & (cut(self.mask2, start2, stop2, 0) != 0)
        offset, cc, error = search_window(
            window, usable1, box, usable2, -self.high, self.zero_mean, min(self.coverage, LEAST_OVERLAP)
        )
        return (guess + offset, cc, error, 1) if np.isfinite(error) else refused

    def propagate(
        self,
        points: np.ndarray,
        displacement: Iterable[int],
        radius: float,
        distance: float,
        order: list[int],
        threshold: float = 0.9,
    ) -> list[tuple[np.ndarray, float, float, int]]:
        found = {order[0]: self.search(points[order[0]], np.array(displacement))}
        for k in order[1:]:
            reach = radius
            while True:
                near = [
                    j for j in found if np.square(points[j] - points[k]).sum() <= reach**2 and found[j][1] >= threshold
                ]
                if near:
                    break
                reach *= 2
            weights = [math.exp(-np.square(points[j] - points[k]).sum() / distance**2) for j in near]
            mean = sum(w * found[j][0] for w, j in zip(weights, near, strict=True)) / sum(weights)
            found[k] = self.search(points[k], np.rint(mean).astype(int))
        return [found[k] for k in range(len(points))]


def by_distance(points: np.ndarray) -> list[int]:
    square = np.square(points - points[0]).sum(axis=1)
    return [0, *sorted(range(1, len(points)), key=lambda k: (square[k], k))]


def assert_equal(table: Table, expected: list[tuple[np.ndarray, float, float, int]]) -> None:
    status = np.array([row[3] for row in expected])
    assert np.array_equal(table["returnStatus"], status)
    assert np.array_equal(columns(table, DISPLACEMENTS), np.array([row[0] for row in expected]), equal_nan=True)
    np.testing.assert_allclose(table["pixelSearchCC"], [row[1] for row in expected], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(table["error"], [row[2] for row in expected], rtol=1e-5, atol=1e-6)
    assert np.array_equal(table["NodeNumber"], np.arange(len(status)))
    assert np.all(table["deltaPhiNorm"] == 1)
    assert np.all(table["iterations"] == 0)
    for name in table:
        if name.startswith("F"):
            assert np.all(table[name] == (name[1] == name[2]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs in 3D and 2D, of inhomogeneous motion, with masks and holes."""
    folder = tmp_path_factory.mktemp("propagate")
    for name, shape in (("solid", (26, 30, 34)), ("flat", (1, 60, 70))):
        pair = AnalyticPair(
            shape,
            translation=(1.3, -0.8, 2.1),
            rotation=(3, 0, 0),
            strain=(0.02, 0.04, 0.06),
            amplitude=1,
            wavelength=40,
            spacing=4,
            radii=(3, 6),
            dtype=np.uint16,
            mean=0.4,
            contrast=0.1,
            noise=0.02,
        )
        image1, image2 = pair.image1().reshape(shape), pair.image2().reshape(shape)
        rng = np.random.default_rng(7)
        mask1, mask2 = np.ones(shape, np.uint8), np.ones(shape, np.uint8)
        mask1[:, : shape[1] // 2, : shape[2] // 3] = 0
        mask2[:, shape[1] // 2 :, -8:] = 0
        mask1[rng.random(shape) < 0.05] = 0
        holes = image1.astype(np.float32)
        holes[:, 20:30, 10:22] = np.nan
        images = {"1": image1, "2": image2, "mask1": mask1, "mask2": mask2, "holes": holes}
        for what, image in images.items():
            tifffile.imwrite(
                folder / f"{name}{what}.tif",
                image[0] if shape[0] == 1 else image,
                photometric="minisblack",
            )
    points = np.random.default_rng(3).uniform(4, 24, (20, 3))
    points[0] = (13, 15, 17)
    points[-1] = (13, 200, 17)
    (folder / "points.txt").write_text(
        "# Z Y X\n\n" + "\n".join(" ".join(f"{p:.3f}" for p in point) for point in points) + "\n"
    )
    return folder


@pytest.fixture
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def run(out: Path, line: str) -> Table:
    arguments = ["pixelSearchPropagate", *line.split(), "-np", "1", "-pre", "P", "-od", str(out)]
    assert main(arguments) == 0
    return read(out / "P-pixelSearchPropagate.tsv")


def image(name: str) -> np.ndarray:
    return tifffile.imread(f"{name}.tif")


SOLID = "solid1.tif solid2.tif -sp 13 15 17 1 -1 2 -hws 4 -ns 6 -sr -2 2 -2 2 -2 2"
FLAT = "flat1.tif flat2.tif -sp 0 30 35 0 -1 2 -hws 5 -ns 8 -sr -2 2 -2 2 -2 2"


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("ranking", ["distance", "walk"])
@pytest.mark.parametrize(
    ("options", "settings", "radius", "distance", "threshold"),
    [
        ("", {}, 6.0, 18.0, 0.9),
        ("-nr 13.5 -gwd 4 --zero-mean -cct 0.85", {"zero_mean": True}, 13.5, 4.0, 0.85),
        ("-nr 1 -gdw 7.5 -mf1 {0}mask1.tif -mf2 {0}mask2.tif -mc 0.7", {"coverage": 0.7}, 1.0, 7.5, 0.9),
        ("-glt 24000 -ght 33000", {"grey": (24000, 33000)}, 6.0, 18.0, 0.9),
    ],
)
@pytest.mark.parametrize(("name", "line"), [("solid", SOLID), ("flat", FLAT)])
def test_like_the_definition(
    tmp_path: Path,
    name: str,
    line: str,
    options: str,
    settings: dict,
    radius: float,
    distance: float,
    threshold: float,
    ranking: str,
) -> None:
    flat = name == "flat"
    image1, image2 = image(f"{name}1"), image(f"{name}2")
    if "mask" in options:
        settings = {**settings, "mask1": image(f"{name}mask1"), "mask2": image(f"{name}mask2")}
    definition = Definition(image1, image2, 5 if flat else 4, 2, **settings)
    grid, _ = make_grid(definition.image1.shape, (1, 8, 8) if flat else (6, 6, 6))
    start = [0, 30, 35] if flat else [13, 15, 17]
    points = np.concatenate([[start], grid])
    # the defaults follow from -hws and -sr
    if "-nr" not in options:
        radius = 7.0 if flat else 6.0
    if "-g" not in options.replace("-glt", "").replace("-ght", ""):
        distance = 14.0 if flat else 18.0
    order = brute_walk(points, radius) if ranking == "walk" else by_distance(points)
    expected = definition.propagate(points, (0 if flat else 1, -1, 2), radius, distance, order, threshold)[1:]
    table = run(tmp_path, f"{line} {options.format(name)} --ranking {ranking}")
    assert np.array_equal(columns(table, ("Zpos", "Ypos", "Xpos")), grid)
    assert_equal(table, expected)
    status, cc = table["returnStatus"], table["pixelSearchCC"]
    # the case is worth something: points of all kinds
    assert np.sum((status == 1) & (cc >= threshold)) > 10
    if "-mf" in options or "-glt" in options:
        assert np.sum(status == -5) > 3
    if "--zero-mean" in options:
        assert np.sum((status == 1) & (cc < threshold)) > 3


@pytest.mark.parametrize("name", SPAM)
def test_spam(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spam's answers, at nodes whose windows lie inside: beyond the border spam compares zeros."""
    monkeypatch.chdir(REFERENCE)
    case = SPAM[name]
    assert main(["pixelSearchPropagate", *case["args"], "--ranking", "walk", "-np", "1", "-od", str(tmp_path)]) == 0
    assert other_outputs(tmp_path) == set(case["outputs"])
    (output,) = (output for output in case["outputs"] if output.endswith(".tsv"))
    ours, theirs = read(tmp_path / output), read(Path(f"results/{name}/{output}"))
    for column in ours:
        if column not in (*DISPLACEMENTS, "returnStatus", "pixelSearchCC", "error"):
            np.testing.assert_allclose(ours[column], theirs[column], atol=1.1e-7)
    positions = columns(ours, ("Zpos", "Ypos", "Xpos"))
    shape = tifffile.imread(case["args"][0]).shape
    # half a window, and two voxels of displacement
    reach = int(case["args"][case["args"].index("-hws") + 1]) + 2
    within = ((positions >= reach) & (positions + reach < shape)).all(axis=1)
    assert within.sum() > 10
    assert np.array_equal(ours["returnStatus"][within], theirs["returnStatus"][within])
    moved = [columns(table, DISPLACEMENTS)[within] for table in (ours, theirs)]
    # its square root is off by up to 0.18 %, which may change the order of two candidates
    other = ~np.array([np.array_equal(a, b, equal_nan=True) for a, b in zip(*moved, strict=True)])
    assert other.sum() <= 0.03 * within.sum()
    cc = [table["pixelSearchCC"][within] for table in (ours, theirs)]
    np.testing.assert_allclose(*cc, rtol=1.8e-3)
    assert (cc[0] >= cc[1] - 1e-6).all()


@pytest.mark.usefixtures("_here")
def test_holes(tmp_path: Path) -> None:
    """Voxels that are not finite are no data."""
    table = run(tmp_path, SOLID.replace("solid1", "solidholes"))
    definition = Definition(image("solidholes"), image("solid2"), 4, 2)
    grid, _ = make_grid(definition.image1.shape, (6, 6, 6))
    points = np.concatenate([[[13, 15, 17]], grid])
    assert_equal(table, definition.propagate(points, (1, -1, 2), 6.0, 18.0, by_distance(points))[1:])
    assert np.sum(table["returnStatus"] == -5) > 0


@pytest.mark.usefixtures("_here")
def test_skipped_points_guide_no_others(tmp_path: Path) -> None:
    """A threshold of 0 is met by their CC, which is 0."""
    table = run(tmp_path, f"{SOLID} -mf1 solidmask1.tif -mc 0.7 -cct 0 --ranking walk")
    assert np.sum(table["returnStatus"] == -5) > 3
    assert np.sum(table["returnStatus"] == 1) > 30
    definition = Definition(image("solid1"), image("solid2"), 4, 2, image("solidmask1"), coverage=0.7)
    points = np.concatenate([[[13, 15, 17]], make_grid(definition.image1.shape, (6, 6, 6))[0]])
    order = brute_walk(points, 6.0)
    assert_equal(table, definition.propagate(points, (1, -1, 2), 6.0, 18.0, order, 1e-12)[1:])


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("start", ["", "-sp 12 16 18 1 -1 2"])
def test_guiding_points(tmp_path: Path, start: str) -> None:
    """The points of the file in their order, the first one is the start unless -sp gives one."""
    line = "solid1.tif solid2.tif -gp points.txt -hws 4 -sr -3 3 -3 3 -3 3 -ns 3 -tif -vtk"
    table = run(tmp_path, f"{line} {start}")
    points = np.loadtxt("points.txt")
    definition = Definition(image("solid1"), image("solid2"), 4, 3)
    radius, distance = 7.0, 21.0
    if start:
        all_points = np.concatenate([[[12, 16, 18]], points])
        expected = definition.propagate(all_points, (1, -1, 2), radius, distance, by_distance(all_points))[1:]
    else:
        expected = definition.propagate(points, (0, 0, 0), radius, distance, by_distance(points))
    np.testing.assert_allclose(columns(table, ("Zpos", "Ypos", "Xpos")), points, atol=1e-6)
    assert_equal(table, expected)
    assert table["returnStatus"][-1] == -5
    assert sorted(other_outputs(tmp_path)) == [f"P-pixelSearchPropagate.{end}" for end in ("tsv", "vtk")]
    vtk = (tmp_path / "P-pixelSearchPropagate.vtk").read_text()
    assert f"POINTS {len(points)} float" in vtk
    assert "VECTORS displacements" in vtk
    assert "SCALARS pixelSearchCC" in vtk


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(("line", "axes"), [(SOLID, "ZYX"), (FLAT, "YX")])
def test_files_of_a_grid(tmp_path: Path, line: str, axes: str) -> None:
    table = run(tmp_path, f"{line} -tif -vtk")
    parts = [f"-{axis}disp.tif" for axis in axes] + ["-CC.tif", "-returnStatus.tif", ".tsv", ".vtk"]
    assert other_outputs(tmp_path) == {f"P-pixelSearchPropagate{part}" for part in parts}
    for column, part in (("Xdisp", "-Xdisp"), ("pixelSearchCC", "-CC"), ("returnStatus", "-returnStatus")):
        written = tifffile.imread(tmp_path / f"P-pixelSearchPropagate{part}.tif")
        # the text has seven digits
        np.testing.assert_allclose(written.ravel(), table[column], atol=1e-6)
    text = (tmp_path / "P-pixelSearchPropagate.vtk").read_text()
    # the first node less -hws; X first
    assert ("ORIGIN 2" if axes == "ZYX" else "ORIGIN 3") in text


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("name", ["solid", "flat"])
def test_default_sizes(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    start = "0 30 35 0 -1 2" if name == "flat" else "13 15 17 1 -1 2"
    table = run(tmp_path / "default", f"{name}1.tif {name}2.tif -sp {start}")
    assert np.unique(np.diff(np.unique(table["Xpos"]))).tolist() == [10]
    # twice the smallest half-window size, of the axes that there are
    anisotropic = run(tmp_path / "anisotropic", f"{name}1.tif {name}2.tif -sp {start} -hws3 4 6 5")
    assert np.unique(np.diff(np.unique(anisotropic["Xpos"]))).tolist() == [10 if name == "flat" else 8]
    printed = capsys.readouterr().out
    half = "(0, 5, 5)" if name == "flat" else "(5, 5, 5)"
    assert f"HALF_WINDOW_SIZE: {half}" in printed
    assert "RADIUS: 8.0" in printed
    assert f"WEIGHTING_DISTANCE: {16.0 if name == 'flat' else 24.0}" in printed


@pytest.mark.usefixtures("_here")
def test_what_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Summary and log: the counts are those of the file, the progress ends at 100 %, the front has a width."""
    log = tmp_path / "log"
    table = run(tmp_path / "out", f"{SOLID} -sr -1 1 -1 1 -1 1 --zero-mean -mf1 solidmask1.tif --log {log}")
    printed = capsys.readouterr().out
    status, cc = table["returnStatus"], table["pixelSearchCC"]
    found = (status == 1) & (cc >= 0.9)

    def told(name: str) -> int:
        (cells,) = [
            cells for line in printed.splitlines() if (cells := line.split("│"))[1:2] and cells[1].strip() == name
        ]
        return int(cells[2])

    assert told("Found") == found.sum()
    assert told("Below the CC threshold") == np.sum((status == 1) & ~found) > 0
    assert told("Skipped") == np.sum(status == -5) > 0
    assert 0 < told("Found at the limit of -sr") < found.sum()
    assert "enlarge -sr" in printed
    assert "Mean width of the front: " in printed
    assert f"search: {len(cc)}/{len(cc)} points (100.0%)" in log.read_text()


@pytest.mark.parametrize("shape", [(26, 30, 240), (1, 40, 240)])
@pytest.mark.parametrize("ranking", ["distance", "walk"])
def test_twenty_voxels_are_followed_on_weak_texture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], ranking: str
) -> None:
    """Stretched by 10 % along x: no displacement at the start, 20 voxels at the end, with a range of ±2."""
    flat = shape[0] == 1
    pair = AnalyticPair(
        shape,
        translation=(0, 0, 9.95),
        rotation=(0, 0, 0),
        strain=(0, 0, 0.1),
        amplitude=0,
        spacing=5,
        radii=(3, 7),
        dtype=np.uint8,
        mean=0.5,
        contrast=0.03,
    )
    monkeypatch.chdir(tmp_path)
    for k, grey in enumerate((pair.image1(), pair.image2()), 1):
        tifffile.imwrite(f"im{k}.tif", grey.reshape(shape[1:]) if flat else grey, photometric="minisblack")
    start = "0 20 20 0 0 0" if flat else "13 15 20 0 0 0"
    line = f"im1.tif im2.tif -sp {start} -hws 6 -ns 10 -sr -2 2 -2 2 -2 2 --zero-mean -cct 0.5 --ranking {ranking}"
    table = run(tmp_path / "out", line)
    x = table["Xpos"]
    inside = x + 0.1 * (x - 20) < shape[2] - 8
    assert np.abs(table["Xdisp"] - 0.1 * (x - 20))[inside].max() <= 0.75
    assert np.abs(table["Ydisp"][inside]).max() == 0
    assert np.abs(table["Zdisp"][inside]).max() == 0
    assert table["Xdisp"][inside].max() >= 18


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("line", [SOLID + " -nr 20 -tif -vtk", FLAT + " --ranking walk -nr 20", "-gp"])
def test_any_number_of_ranks_gives_the_same_bytes(tmp_path: Path, mpiexec: Job, line: str) -> None:
    if line == "-gp":
        line = "solid1.tif solid2.tif -gp points.txt -hws 4 -sr -3 3 -3 3 -3 3 -vtk"
    run(tmp_path / "0", line)
    expected = outputs(tmp_path / "0")
    for n_ranks in (1, 2, 3, 4):
        out = tmp_path / str(n_ranks)
        done = mpiexec(n_ranks, "-m", "mpidvc", "pixelSearchPropagate", *line.split(), "-pre", "P", "-od", str(out))
        assert (done.returncode, done.stderr) == (0, "")
        assert outputs(out) == expected
        if n_ranks > 1:
            assert f"(with {n_ranks} processes)" in done.stdout


@pytest.mark.usefixtures("_here")
def test_a_narrow_front_is_told(tmp_path: Path, mpiexec: Job) -> None:
    """Whoever starts many processes for a walk from point to point is told."""
    for ranking, told in (("walk", True), ("distance", False)):
        line = SOLID.replace("-ns 6", "-ns 4") + f" -nr {3 if told else 4.5} --ranking {ranking}"
        done = mpiexec(2, "-m", "mpidvc", "pixelSearchPropagate", *line.split(), "-od", str(tmp_path / ranking))
        assert done.returncode == 0
        assert ("the front is too narrow to keep 2 processes busy" in done.stdout) == told
        assert ("Mean width of the front: 1.0 points" in done.stdout) == told


@pytest.mark.usefixtures("_here")
def test_refused_on_several_ranks(tmp_path: Path, mpiexec: Job) -> None:
    line = SOLID.replace("-sp 13 15 17 1 -1 2", "-sp 500 15 17 1 -1 2")
    done = mpiexec(2, "-m", "mpidvc", "pixelSearchPropagate", *line.split(), "-od", str(tmp_path / "out"))
    assert done.returncode == 2
    # what follows is the launcher's
    first = "mpidvc pixelSearchPropagate: error: -sp 500 15 17 1 -1 2: the starting point is refused"
    assert done.stderr.startswith(first)
    assert done.stderr.count("mpidvc pixelSearchPropagate: error:") == 1
    assert not (tmp_path / "out").exists()
