"""mpidvc report: its numbers against closed forms and plain numpy, the page against the numbers, and odd results."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy.spatial.transform import Rotation

import mpidvc
from mpidvc.commands import COMMANDS
from mpidvc.commands.report import pictures, residual
from mpidvc.commands.report.facts import collect
from mpidvc.commands.report.gather import gather
from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.hdf5 import write_hdf5
from mpidvc.fields.phifield import Layout, PhiField
from mpidvc.fields.tsv import write_tsv
from mpidvc.images.image import ArrayImage, Image
from mpidvc.main import main
from mpidvc.workflow.plot import Row

RANDOM = np.random.default_rng(8)
LDIC = {"command": "ldic", "determines": json.dumps({"-hws": [6, 6, 6], "-it": 50, "--criterion": ["znssd", 1, 0]})}


def positions_of(dims: tuple[int, int, int]) -> np.ndarray:
    steps = np.array([10.0 if n > 1 else 0.0 for n in dims])
    return np.moveaxis(np.indices(dims), 0, -1).reshape(-1, 3) * steps + steps


def field(dims: tuple[int, int, int] = (6, 7, 8), status: float = 2.0, **columns: Any) -> PhiField:
    """A grid that is stretched by 1 % along y, with a little noise."""
    positions = positions_of(dims)
    n = len(positions)
    phi = np.tile(np.eye(4), (n, 1, 1))
    phi[:, 1, 3] = 0.01 * positions[:, 1] + RANDOM.normal(0, 0.01, n)
    phi[:, 2, 3] = 0.7
    told = {
        "error": RANDOM.gamma(2, 1, n),
        "iterations": RANDOM.integers(3, 9, n).astype(float),
        "returnStatus": np.full(n, status),
        "deltaPhiNorm": np.full(n, 1e-4),
        "zncc": RANDOM.uniform(0.9, 1, n),
    }
    return PhiField.from_positions(positions, phi, {**told, **columns})


def sheared(dims: tuple[int, int, int]) -> PhiField:
    """A band across y = 150 in which everything is sheared: x moves by 2 tanh((y - 150) / 20)."""
    given = field(dims)
    given.phi[:, :3, 3] = 0
    given.phi[:, 2, 3] = 2 * np.tanh((given.positions[:, 1] - 150) / 20)
    return given


# ---- the page as a reader sees it


class Page(HTMLParser):
    """Numbers of a page by their places, texts, and all addresses."""

    #: Elements without an end.
    EMPTY = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.numbers: list[tuple[str, str, str]] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.tags.append(tag)
        assert not any(name.startswith("on") for name in told)
        self.addresses += [told[name] or "" for name in ("src", "href") if name in told]
        if tag not in self.EMPTY:
            self._open.append((tag, told))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tag, told = self._open[-1] if self._open else ("", {})
        if tag == "data":
            self.numbers.append((told["data-path"] or "", told["value"] or "", data))
        if tag not in ("style", "title"):
            self.text += data


def look_up(facts: Any, path: str) -> Any:
    for part in path.split("/"):
        facts = facts[int(part)] if isinstance(facts, list) else facts[part]
    return facts


def check(page: Path) -> tuple[dict[str, Any], Page]:
    """Check that a page needs no network, and that its numbers are those beside it; return these, and the page."""
    text = page.read_text(encoding="utf-8")
    read = Page(text)
    facts: dict[str, Any] = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert all(
        address.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,", "#")) for address in read.addresses
    )
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {*read.tags}
    assert "@import" not in text
    assert "url(" not in text
    assert len(text.encode()) <= 5_000_000
    assert read.numbers
    for path, value, shown in read.numbers:
        fact = look_up(facts, path)
        assert repr(fact) == value, path
        # as many digits as it is told with
        number = float(shown.rstrip("%")) * (0.01 if shown.endswith("%") else 1)
        digits = re.fullmatch(r"[+-]?\d+(?:\.(\d+))?(?:e([+-]\d+))?%?", shown)
        assert digits, shown
        last = 10.0 ** (int(digits[2] or 0) - len(digits[1] or "") - 2 * shown.endswith("%"))
        assert abs(number - fact) <= 0.5001 * last + 1e-9, (path, shown, fact)
    # no number in a table or in the verdict but these
    verdict = text[text.index('id="verdict"') : text.index("</div>", text.index('id="verdict"'))]
    paragraph = re.sub(r"<data .*?</data>|image [12]", "", verdict[: verdict.index("</p>")])
    assert not re.search(r"\d", paragraph.partition(">")[2]), paragraph
    for cell in re.findall(r'<td class="n">(.*?)</td>', text):
        assert not re.search(r"\d", re.sub(r"<data .*?</data>", "", cell)), cell
    return facts, read


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def report(*words: Any) -> int:
    return main(["report", *map(str, words)])


# ---- the numbers


def test_the_numbers_of_a_field(tmp_path: Path) -> None:
    given = field(sigmaZ=RANDOM.gamma(20, 0.001, 336))
    given.phi[:, 0, 0] += RANDOM.normal(0.02, 0.001, 336)
    given.phi[:, 2, 1] -= 0.03
    given.columns["returnStatus"][[3, 100, 200]] = -1, -5, 1
    given.phi[100, :3] = np.nan
    write_hdf5(tmp_path / "r.h5", given, attributes=LDIC)
    assert report(tmp_path / "r.h5") == 0
    facts, page = check(tmp_path / "r-report.html")
    good = given.columns["returnStatus"] == 2
    assert facts["convergence"] == {"points": 336, "compared": 335, "good": 333, "share": 333 / 335}
    assert [(row["value"], row["count"]) for row in facts["statuses"]] == [(2, 333), (1, 1), (-1, 1), (-5, 1)]
    quantities = facts["quantities"]
    for name, values in (
        ("Ydisp", given["Ydisp"][good]),
        ("disp", np.linalg.norm(given.displacements[good], axis=1)),
        ("zncc", given["zncc"]),
        ("sigmaZ", given["sigmaZ"][good]),
        ("iterations", given["iterations"][given["returnStatus"] != -5]),
    ):
        told = quantities[name]
        assert told["n"] == len(values)
        expected = [values.mean(), values.std(), values.min(), *np.percentile(values, [1, 50, 99]), values.max()]
        found = [told[key] for key in ("mean", "sd", "min", "q01", "median", "q99", "max")]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    histogram = facts["histograms"]["Ydisp"]
    assert histogram["edges"][0] == pytest.approx(quantities["Ydisp"]["q01"], rel=1e-9)
    assert histogram["edges"][-1] == pytest.approx(quantities["Ydisp"]["q99"], rel=1e-9)
    # of 333 values three lie below the quantile of 1 %, 3.32 steps from the least, and its like above
    values = np.sort(given["Ydisp"][good])
    assert (histogram["below"], histogram["above"]) == (4, 4)
    for low, high, count in zip(histogram["edges"][:-1], histogram["edges"][1:], histogram["counts"], strict=True):
        assert count == ((values >= low) & (values < high)).sum()
    assert sum(histogram["counts"]) == 333 - 8
    # a class for each number of iterations
    histogram = facts["histograms"]["iterations"]
    assert histogram["edges"] == [2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5]
    compared = given["iterations"][given["returnStatus"] != -5]
    assert histogram["counts"] == [(compared == n).sum() for n in range(3, 9)]
    for axis, letter in enumerate("zyx"):
        profile = next(p for p in facts["profiles"] if p["axis"] == letter and "Ydisp" in p["quantities"])
        told = profile["quantities"]["Ydisp"]
        for layer, place in enumerate(profile["positions"]):
            values = given["Ydisp"][good & (given.positions[:, axis] == place)]
            found = [told["n"][layer], told["mean"][layer], told["sd"][layer]]
            np.testing.assert_allclose(found, [len(values), values.mean(), values.std()], rtol=1e-9)
    # by the normal equations
    design = np.column_stack([given.positions[good], np.ones(good.sum())])
    fit = np.linalg.solve(design.T @ design, design.T @ given.displacements[good])
    np.testing.assert_allclose(np.array(facts["motion"]["F"]) - np.eye(3), fit[:3].T, atol=1e-10)
    motion = facts["motion"]
    moves, arms = given.displacements[good], given.positions[good] - given.positions[good].mean(axis=0)
    for name, F in (("", np.eye(3) + fit[:3].T), ("mean_F_", given.F[good].mean(axis=0))):
        E = (F.T @ F - np.eye(3)) / 2
        for k, pair in enumerate(("zz", "zy", "zx", "yy", "yx", "xx")):
            expected = E[np.triu_indices(3)][k]
            assert motion[f"{name}green_lagrange"][pair] == pytest.approx(expected, abs=1e-12), name + pair
        assert motion[f"{name}volume"] == pytest.approx(np.linalg.det(F) - 1, abs=1e-12)
    np.testing.assert_allclose(motion["mean_F"], given.F[good].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(motion["centre"], given.positions[good].mean(axis=0), rtol=1e-12)
    for name in ("translation", "mean_displacement"):
        np.testing.assert_allclose(motion[name], moves.mean(axis=0), rtol=1e-12)
    assert motion["points"] == 333
    assert motion["rms"] == pytest.approx(np.sqrt(((moves - design @ fit) ** 2).sum(axis=1).mean()), rel=1e-9)
    # the rotation that brings the points nearest to where they went
    turned, _ = Rotation.align_vectors(arms + moves - moves.mean(axis=0), arms)
    np.testing.assert_allclose(motion["rotation"], turned.as_rotvec(degrees=True), atol=1e-9)
    rest = arms + moves - moves.mean(axis=0) - turned.apply(arms)
    assert motion["rigid_rms"] == pytest.approx(np.sqrt((rest**2).sum(axis=1).mean()), rel=1e-9)
    assert facts["verdict"]["trusted"]
    assert facts["verdict"]["text"].startswith(
        "The result is one to trust: 99.4% of the 335 points that ldic compared converged (of 336 in all), with a "
        f"median ZNCC of {np.median(given['zncc']):.3f}. On the whole it moved by ("
    )
    assert facts["verdict"]["text"] in page.text


def test_a_band_is_named(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "r.h5", sheared((12, 30, 14)), attributes=LDIC)
    assert report(tmp_path / "r.h5") == 0
    facts, _ = check(tmp_path / "r-report.html")
    band = facts["band"]
    np.testing.assert_allclose(band["normal"], [0, 1, 0], atol=1e-6)
    assert band["centre"][1] == pytest.approx(150, abs=1)
    assert 0.05 < band["share"] < 0.35
    assert band["strain_share"] > 0.6
    assert "Strain is localised in a band at (65, 150, 75) (z, y, x), with the normal (" in facts["verdict"]["text"]


def test_a_uniform_field_has_no_band(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "r.h5", field((12, 12, 12)), attributes=LDIC)
    assert report(tmp_path / "r.h5") == 0
    facts, _ = check(tmp_path / "r-report.html")
    assert facts["band"] is None
    assert "No band of localised strain is found." in facts["verdict"]["text"]
    assert facts["quantities"]["vol"]["mean"] == pytest.approx(0.01, abs=5e-4)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of reg, ldic and regularStrain."""
    folder = tmp_path_factory.mktemp("run")
    pair = AnalyticPair((44, 48, 52), 2, (1.0, 0, 0), (0, 0.01, 0), (0.6, -1.3, 2.0), amplitude=0.0, noise=0.01)
    for name, image in (("im1", pair.image1()), ("im2", pair.image2())):
        tifffile.imwrite(folder / f"{name}.tif", image, photometric="minisblack")
    images = f"{folder}/im1.tif {folder}/im2.tif"
    assert main(f"reg {images} -np 1".split()) == 0
    assert main(f"ldic {images} -pf {folder}/im1-im2-registration.tsv -ns 6 -hws 6 -o 3 -np 1".split()) == 0
    assert main(f"regularStrain {folder}/im1-im2-ldic.h5 -g -r 2 -np 1".split()) == 0
    return folder


def test_a_folder(measured: Path, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    assert report(measured, "-o", page) == 0
    facts, read = check(page)
    assert facts["result"]["command"] == "ldic"
    assert facts["strain_from"] == "file im1-im2-ldic-strain-Geers.h5"
    strain = mpidvc.read_field(measured / "im1-im2-ldic-strain-Geers.h5")
    assert facts["quantities"]["dev"]["mean"] == pytest.approx(strain["dev"][strain["returnStatus"] == 2].mean())
    assert [step["file"] for step in facts["steps"]] == [
        "im1-im2-registration.tsv",
        "im1-im2-ldic.h5",
        "im1-im2-ldic-strain-Geers.h5",
    ]
    assert facts["steps"][1]["settings"]["-hws"] == [6, 6, 6]
    assert "mpidvc ldic " in read.text
    # the motion that the images were made with
    motion = facts["motion"]
    np.testing.assert_allclose(motion["rotation"], [1, 0, 0], atol=0.03)
    assert motion["green_lagrange"]["yy"] == pytest.approx((1.01**2 - 1) / 2, abs=5e-4)
    # what is left is the noise of both images, and what their interpolation smooths
    left = facts["residual"]
    assert left["after"]["sd"] < 0.25 * left["before"]["sd"]
    assert left["gain"] == pytest.approx(1, abs=0.05)


def test_the_residual_is_the_difference_of_the_images(measured: Path, tmp_path: Path) -> None:
    """Before, with the grey levels that the report tells: by plain numpy over one of the planes."""
    from mpidvc.images.image import open_image

    found = mpidvc.read_field(measured / "im1-im2-ldic.h5")
    images = open_image(measured / "im1.tif"), open_image(measured / "im2.tif")
    compared = residual.compare(images, found, found.good, 3)
    f, g = (tifffile.imread(measured / f"im{k}.tif").astype(float) for k in (1, 2))
    part = compared.before[0]
    assert part.axis == 0
    z = int(part.place)
    np.testing.assert_allclose(part.values, f[z] - compared.gain * g[z] - compared.bias, atol=1e-6)
    np.testing.assert_array_equal(compared.one[0].values, f[z])
    # at a node image 2 is read where the node went
    node = int(np.flatnonzero((found.positions[:, 0] == z) & found.good)[5])
    y, x = found.positions[node, 1:].astype(int)
    from scipy.ndimage import map_coordinates

    there = map_coordinates(g, (found.positions[node] + found.displacements[node])[:, None], order=3, mode="mirror")[0]
    expected = f[z, y, x] - compared.gain * there - compared.bias
    # splines of ours are of single precision
    assert compared.after[0].values[y, x] == pytest.approx(expected, abs=1e-3 * np.ptp(f))


#: Grey levels of a multiple of 4, so that halves are exact.
SOLID = 4.0 * RANDOM.integers(0, 500, (40, 44, 48))
SHIFT = (1, 3, -2)


def shifted(nodes: tuple[int, int, int] = (4, 4, 5)) -> tuple[tuple[Image, Image], PhiField]:
    """A solid that moves by whole voxels, and gets darker: image 1 is 2 image 2 + 100; and the field of its nodes."""
    two = (np.roll(SOLID, SHIFT, (0, 1, 2)) - 100) / 2
    positions = np.moveaxis(np.indices(nodes), 0, -1).reshape(-1, 3) * 8.0 + 6.0
    phi = np.tile(np.eye(4), (len(positions), 1, 1))
    phi[:, :3, 3] = SHIFT
    images = ArrayImage(SOLID.astype(np.float32), "one"), ArrayImage(two.astype(np.float32), "two")
    return images, PhiField.from_positions(positions, phi, {})


@pytest.mark.parametrize("step", [1, 3])
def test_what_is_left_of_images_that_are_known(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing where the field tells the displacement; all numbers over these voxels of the middle planes of nodes."""
    monkeypatch.setattr(residual, "PIXELS", 48 // step)
    images, given = shifted()
    found = residual.compare(images, given, np.ones(len(given), bool), 1)
    two = images[1].read_box((0, 0, 0), SOLID.shape)[0].astype(float)
    assert (found.gain, found.bias) == pytest.approx((2, 100))
    differences, levels = [], []
    for axis in range(3):
        place = 22
        # the nodes lie between 6 and 30, along x 38, and image 2 has all that they tell
        inside = np.zeros(SOLID.shape, bool)
        inside[6:31, 6:31, 6:39] = True
        cut = [slice(None, None, step)] * 3
        cut[axis] = slice(place, place + 1)
        one, other, known = (part[tuple(cut)].squeeze(axis) for part in (SOLID, two, inside))
        parts = found.one[axis], found.two[axis], found.before[axis], found.after[axis]
        assert [(part.axis, part.place) for part in parts] == [(axis, place)] * 4
        down, right = (k for k in range(3) if k != axis)
        assert parts[0].extent == (-0.5, SOLID.shape[right] - 0.5, SOLID.shape[down] - 0.5, -0.5)
        np.testing.assert_array_equal(parts[0].values, one)
        np.testing.assert_array_equal(parts[1].values, other)
        np.testing.assert_allclose(parts[2].values, one - 2 * other - 100, atol=1e-6)
        np.testing.assert_allclose(parts[3].values, np.where(known, 0, np.nan), atol=1e-6)
        differences.append((one - 2 * other - 100)[known])
        levels.append(one[known])
    assert found.voxels == len(np.concatenate(levels))
    for name, values in (("before", differences), ("image 1", levels)):
        expected = np.concatenate(values).mean(), np.concatenate(values).std()
        assert (found.numbers[name]["mean"], found.numbers[name]["sd"]) == pytest.approx(expected, abs=1e-6)
    assert (found.numbers["after"]["mean"], found.numbers["after"]["sd"]) == pytest.approx((0, 0), abs=1e-6)


def test_nodes_that_are_not_good_tell_no_voxel() -> None:
    images, given = shifted()
    good = np.ones(len(given), bool)
    # in the middle plane across z, at (22, 14, 14)
    bad = int(np.flatnonzero((given.positions == (22, 14, 14)).all(axis=1))[0])
    good[bad] = False
    given.phi[bad, :3, 3] = 7
    after = residual.compare(images, given, good, 1).after[0].values
    assert np.isnan(after[7:22, 7:22]).all()
    assert np.nanmax(np.abs(after)) < 1e-6
    assert np.isfinite(after[6:31, 23:39]).all()


def test_of_a_large_image_one_plane_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residual, "LARGE", SOLID.size - 1)
    images, given = shifted()
    assert [part.axis for part in residual.compare(images, given, np.ones(len(given), bool), 1).after] == [0]
    monkeypatch.setattr(residual, "LARGE", SOLID.size)
    assert [part.axis for part in residual.compare(images, given, np.ones(len(given), bool), 1).after] == [0, 1, 2]


def test_images_without_contrast_are_compared_as_they_are() -> None:
    images, given = shifted()
    even = ArrayImage(np.full(SOLID.shape, 7, np.float32), "even")
    found = residual.compare((images[0], even), given, np.ones(len(given), bool), 1)
    assert (found.gain, found.bias) == (1, 0)
    np.testing.assert_array_equal(found.before[0].values, SOLID[22] - 7)


def test_a_layer_of_nodes_tells_the_voxels_of_its_plane() -> None:
    """And of a line of nodes those on it."""
    images, given = shifted((1, 4, 5))
    given.positions[:, 0] = 22
    given.phi[:, 2, 3] += 0.5 * (given.positions[:, 1] - 6)
    after = residual.compare(images, given, np.ones(len(given), bool), 1)
    (part,) = after.one
    assert (part.axis, part.place) == (0, 22)
    known = np.isfinite(after.after[0].values)
    assert known[6:31, 6:30].all()
    assert not known[:6].any()
    # whole voxels again in every second row
    two = images[1].read_box((0, 0, 0), SOLID.shape)[0].astype(float)
    there = two[23, 6 + 3 + 4, 10 - 2 + 2 : 24 - 2 + 2]
    expected = SOLID[22, 10, 10:24] - after.gain * there - after.bias
    np.testing.assert_allclose(after.after[0].values[10, 10:24], expected, atol=1e-3)


def test_the_residual_of_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A voxel of a label is where the Phi of its label takes it; the others have no place, and no number in a slice."""
    drawn: list[Row] = []
    really = pictures.draw

    def draw(rows: list[Row]) -> Any:
        drawn.extend(rows)
        return really(rows)

    monkeypatch.setattr(pictures, "draw", draw)
    pair = AnalyticPair((40, 44, 48), 2, (2.0, 0, 0), (0, 0, 0), (0.6, -1.3, 2.0), amplitude=0.0)
    labels = np.zeros(pair.shape, np.int64)
    for k, x in enumerate((8, 26)):
        labels[12:30, 12:32, x : x + 14] = k + 1
    for name, image in (("im1", pair.image1()), ("im2", pair.image2()), ("labels", labels)):
        tifffile.imwrite(tmp_path / f"{name}.tif", image, photometric="minisblack")
    assert main(f"ddic {tmp_path}/im1.tif {tmp_path}/labels.tif {tmp_path}/im2.tif -o 3 -m 8 -np 1".split()) == 0
    assert report(tmp_path / "im1-im2-ddic.h5") == 0
    facts, page = check(tmp_path / "im1-im2-ddic-report.html")
    assert "there is none outside of the labels that converged" in page.text
    left = facts["residual"]
    # of each plane the voxels that are labels
    planes = [(labels.take(n // 2, axis) > 0).sum() for axis, n in enumerate(labels.shape)]
    assert left["voxels"] == sum(planes)
    assert left["after"]["sd"] < 0.1 * left["before"]["sd"]
    found = mpidvc.read_field(tmp_path / "im1-im2-ddic.h5")
    (moved,) = (row for row in drawn if row.title == "x displacement")
    for axis, part in enumerate(moved.slices):
        numbers = labels.take(labels.shape[axis] // 2, axis)
        np.testing.assert_array_equal(part.values, np.where(numbers > 0, found["Xdisp"][numbers], np.nan))
    # row 0 is the background: no label that was compared, and none that was not
    assert [(row["value"], row["count"], row["share"]) for row in facts["statuses"]] == [(2, 2, 1)]
    assert facts["quantities"]["error"]["n"] == 2
    assert "100.0% of the 2 labels that ddic compared converged, with" in facts["verdict"]["text"]
    # without the labels there is none
    (tmp_path / "labels.tif").unlink()
    drawn.clear()
    assert report(tmp_path / "im1-im2-ddic.h5") == 0
    (moved,) = (row for row in drawn if row.title == "x displacement")
    assert moved.slices[0].scatter is not None
    facts, page = check(tmp_path / "im1-im2-ddic-report.html")
    assert "after" not in facts["residual"]
    assert "does not tell the displacement of single voxels" in page.text


@pytest.mark.parametrize("kind", ["rigid", "affine"])
def test_a_motion_that_was_removed_is_in_the_residual(measured: Path, tmp_path: Path, kind: str) -> None:
    """Image 2 has it: the residual of the field without it is that of the field before. It is told, too."""
    line = f"filterPhiField -pf {measured}/im1-im2-ldic.h5 --remove-motion {kind} -od {tmp_path} -np 1"
    assert main(line.split()) == 0
    assert main(f"regularStrain {tmp_path}/im1-im2-ldic-filtered.h5 -g -od {tmp_path} -np 1".split()) == 0
    assert report(measured / "im1-im2-ldic.h5", "-o", tmp_path / "before.html") == 0
    before, _ = check(tmp_path / "before.html")
    assert before["removed"] == []
    assert before["convergence"]["share"] < 1
    for name in ("im1-im2-ldic-filtered", "im1-im2-ldic-filtered-strain-Geers"):
        assert report(tmp_path / f"{name}.h5") == 0
        facts, _ = check(tmp_path / f"{name}-report.html")
        assert [one["kind"] for one in facts["removed"]] == [kind]
        np.testing.assert_allclose(facts["removed"][0]["rotation"], [1, 0, 0], atol=0.03)
        assert f"Before, a motion of the whole ({kind}) was taken off: it moved by (" in facts["verdict"]["text"]
        if "strain" not in name:
            # displacements between nodes are linear, and so is the motion but for the product of both: some 1e-4 voxel
            after = facts["residual"]["after"]["sd"]
            assert after == pytest.approx(before["residual"]["after"]["sd"], rel=0.01)
            # windows that had not converged are not good because of it
            assert facts["convergence"]["share"] == before["convergence"]["share"]


def test_strain_of_points_without_a_grid_has_no_band(tmp_path: Path) -> None:
    """None is looked for, and none is said to be missing."""
    given = sheared((6, 15, 8))
    points = PhiField(given.positions, given.phi, given.columns, "points")
    write_hdf5(tmp_path / "r.h5", points, attributes={"command": "ldic"})
    assert main(f"regularStrain {tmp_path}/r.h5 -g -r 20 -np 1".split()) == 0
    assert report(tmp_path / "r.h5") == 0
    facts, page = check(tmp_path / "r-report.html")
    assert facts["quantities"]["dev"]["n"] > 0
    assert "band" not in facts["verdict"]["text"].lower()
    assert "Bands of localised strain are looked for on grids only." in page.text


def test_images_that_are_given_or_gone(measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "r.h5"
    copy.write_bytes((measured / "im1-im2-ldic.h5").read_bytes())
    assert report(copy) == 0
    facts, read = check(tmp_path / "r-report.html")
    assert facts["images"] == []
    assert facts["residual"] is None
    assert "The images are not where they were" in read.text
    assert report(copy, "--images", measured / "im1.tif", measured / "im2.tif") == 0
    facts, _ = check(tmp_path / "r-report.html")
    assert [image["shape"] for image in facts["images"]] == [[44, 48, 52]] * 2
    assert report(copy, "--images", measured / "im1.tif", tmp_path / "no.tif") == 2
    assert "no.tif: does not exist" in capsys.readouterr().err


def test_random_errors_in_2d_are_those_in_the_plane(tmp_path: Path) -> None:
    given = field((1, 12, 12), **{f"sigma{name}": np.full(144, 0.01) for name in ("Zdisp", "Ydisp", "Xdisp", "Fzz")})
    write_hdf5(tmp_path / "r.h5", given, attributes=LDIC)
    given.positions[:, 0] = 0
    write_hdf5(tmp_path / "flat.h5", given, attributes=LDIC)
    assert report(tmp_path / "flat.h5") == 0
    facts, _ = check(tmp_path / "flat-report.html")
    assert {name for name in facts["quantities"] if "sigma" in name} == {"sigmaYdisp", "sigmaXdisp"}
    assert "(one standard deviation, median) is 0.01, 0.01 voxels (y, x)" in facts["verdict"]["text"]


def test_the_same_input_gives_the_same_bytes(measured: Path, tmp_path: Path) -> None:
    """In another process, too, of another random seed of hashes."""
    found = []
    for name in ("a", "b"):
        line = [sys.executable, "-m", "mpidvc", "report", str(measured), "-o", str(tmp_path / f"{name}.html")]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        found.append([(tmp_path / f"{name}.{end}").read_bytes() for end in ("html", "json")])
    assert found[0] == found[1]


def test_a_series(tmp_path: Path) -> None:
    states = [
        AnalyticPair((1, 100, 90), 5, (0, 0, 0), (0, 0.004 * k, 0), (0, 0.4 * k, 0), amplitude=0.0) for k in (1, 2)
    ]
    images = [states[0].image1(), *(state.image2() for state in states)]
    names = []
    for k, image in enumerate(images):
        names.append(str(tmp_path / f"s{k:02d}.tif"))
        tifffile.imwrite(names[-1], image[0])
    assert main(["ldic", *names, "-ns", "12", "-hws", "9", "-np", "1", "-od", str(tmp_path / "out")]) == 0
    assert report(tmp_path / "out") == 0
    facts, _ = check(tmp_path / "out" / "report.html")
    # the last state is shown
    assert facts["result"]["file"] == "s00-s02-ldic.h5"
    table = facts["series"]
    assert [row[table["columns"].index("image")] for row in table["rows"]] == ["s01", "s02"]
    means = [row[table["columns"].index("Ydisp")] for row in table["rows"]]
    last = mpidvc.read_field(tmp_path / "out" / "s00-s02-ldic.h5")
    assert means[1] == pytest.approx(last["Ydisp"][last.good].mean(), abs=1e-6)
    # a single state knows its series
    assert report(tmp_path / "out" / "s00-s01-ldic.h5") == 0
    single, _ = check(tmp_path / "out" / "s00-s01-ldic-report.html")
    assert single["series"] == table


def test_a_series_that_was_measured_again(tmp_path: Path) -> None:
    """As of mpidvc run: the table of the first measurement, of which a state had points in a wrong place."""
    for name in ("ldic", "ldicAgain"):
        (tmp_path / name).mkdir()
    wrong, right, other = field(), field(), field()
    wrong.phi[:100, 1, 3] += 30
    right.columns["returnStatus"][:10] = -3
    write_hdf5(tmp_path / "ldic" / "a-b-ldic.h5", wrong, attributes=LDIC)
    write_hdf5(tmp_path / "ldicAgain" / "a-b-ldic.h5", right, attributes=LDIC)
    write_hdf5(tmp_path / "ldic" / "a-c-ldic.h5", other, attributes=LDIC)
    table = "state\timage\treference\tconverged\tYdisp\n1\tb\ta\t1.0\t9.5\n2\tc\ta\t1.0\t0.4\n"
    (tmp_path / "ldic" / "a-ldic-series.tsv").write_text(table)
    assert report(tmp_path) == 0
    facts, page = check(tmp_path / "report.html")
    first, second = facts["series"]["rows"]
    good = right["returnStatus"] == 2
    assert first == [1, "b", "a", pytest.approx(326 / 336), pytest.approx(right["Ydisp"][good].mean())]
    assert second == [2, "c", "a", 1, 0.4]
    assert "a-ldic-series.tsv, with what was measured again" in page.text


def test_a_study(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "im-ldic.h5", field(), attributes=LDIC)
    (tmp_path / "study.csv").write_text("hws,nodes,sigmaZ\n3,200,0.1\n6,200,0.03\n")
    assert report(tmp_path / "im-ldic.h5") == 0
    facts, page = check(tmp_path / "im-ldic-report.html")
    assert facts["study"]["rows"] == [[3.0, 200.0, 0.1], [6.0, 200.0, 0.03]]
    assert "Noise against window" in page.text


# ---- odd results


@pytest.mark.parametrize(
    ("dims", "status"),
    [
        *(((1, 7, 8), 2), ((5, 1, 8), 2), ((5, 7, 1), 2), ((1, 1, 9), 2), ((9, 1, 1), 2)),
        *(((6, 7, 8), -1), ((6, 7, 8), -5), ((1, 7, 8), -1)),
    ],
)
def test_any_grid_and_any_status(dims: tuple[int, int, int], status: float, tmp_path: Path) -> None:
    given = field(dims, status)
    if status == -5:
        given.phi[:, :3] = np.nan
    write_hdf5(tmp_path / "r.h5", given, attributes=LDIC)
    assert report(tmp_path / "r.h5") == 0
    facts, _ = check(tmp_path / "r-report.html")
    assert facts["convergence"]["good"] == (len(given) if status == 2 else 0)
    assert facts["verdict"]["trusted"] is (status == 2)
    assert bool(facts["motion"]) is (status == 2)
    if status != 2:
        assert "There is no point from which motion or strain could be told." in facts["verdict"]["text"]
        assert facts["verdict"]["warnings"]


def test_a_layer_of_a_volume(tmp_path: Path) -> None:
    """Its strain is that in its plane; its displacement has three components."""
    given = field((1, 12, 12))
    given.positions[:, 0], given.phi[:, 0, 3] = 40, 0.3
    write_hdf5(tmp_path / "r.h5", given, attributes=LDIC)
    assert report(tmp_path / "r.h5") == 0
    facts, _ = check(tmp_path / "r-report.html")
    assert facts["quantities"]["Zdisp"]["mean"] == pytest.approx(0.3)
    assert set(facts["motion"]["green_lagrange"]) == {"yy", "yx", "xx"}
    assert facts["quantities"]["vol"]["mean"] == pytest.approx(0.01, abs=2e-3)


@pytest.mark.parametrize("layout", ["labels", "points"])
def test_scattered_points(layout: Layout, tmp_path: Path) -> None:
    given = field()
    given.positions[1:] += RANDOM.normal(0, 2, (335, 3))
    given.positions[5] = np.nan
    command = "ddic" if layout == "labels" else "ldic"
    write_hdf5(
        tmp_path / "r.h5", PhiField(given.positions, given.phi, given.columns, layout), attributes={"command": command}
    )
    assert report(tmp_path / "r.h5") == 0
    facts, _ = check(tmp_path / "r-report.html")
    assert facts["convergence"]["good"] == (334 if layout == "labels" else 335)
    assert "dev" not in facts["quantities"]
    # row 0 is the background, and no label; one of the others has no place
    assert facts["convergence"]["points"] == (335 if layout == "labels" else 336)
    assert f"{layout} that {command} compared" in facts["verdict"]["text"]


def test_text_and_a_registration(measured: Path, tmp_path: Path) -> None:
    write_tsv(tmp_path / "t.tsv", field(), "LDIC")
    assert report(tmp_path / "t.tsv") == 0
    facts, _ = check(tmp_path / "t-report.html")
    assert facts["convergence"]["good"] == 336
    page = tmp_path / "reg.html"
    line = ["--images", measured / "im1.tif", measured / "im2.tif", "-o", page]
    assert report(measured / "im1-im2-registration.tsv", *line) == 0
    facts, _ = check(page)
    assert facts["residual"]["after"]["sd"] < 0.4 * facts["residual"]["before"]["sd"]
    np.testing.assert_allclose(facts["motion"]["rotation"], [1, 0, 0], atol=0.05)


@pytest.mark.parametrize(
    ("command", "good", "trusted"),
    [("ldic", 168, True), ("ldic", 167, False), ("passPhiField", 168, True), ("passPhiField", 167, False)],
)
def test_half_of_the_points_is_enough(command: str, good: int, trusted: bool, tmp_path: Path) -> None:
    """Of those that were compared; advice is that of a correlation."""
    given = field()
    status = given.columns["returnStatus"]
    status[:] = -1
    status[RANDOM.permutation(336)[:good]] = 2 if command == "ldic" else 1
    if command != "ldic":
        del given.columns["deltaPhiNorm"]
        given.columns["pixelSearchCC"] = given.columns["zncc"]
    write_hdf5(tmp_path / "r.h5", given, attributes={**LDIC, "command": command})
    facts = collect(gather(str(tmp_path / "r.h5")), COMMANDS, None).facts
    verdict = facts["verdict"]
    assert facts["convergence"] == {"points": 336, "compared": 336, "good": good, "share": good / 336}
    assert verdict["trusted"] is trusted
    assert verdict["text"].startswith(f"The result is {'' if trusted else 'not '}one to trust: ")
    assert f"compared {'converged' if command == 'ldic' else 'are good'}" in verdict["text"]
    assert bool(verdict["warnings"] + verdict["advice"]) is (command == "ldic")


def test_errors_far_above_those_of_the_others_are_named(tmp_path: Path) -> None:
    """Of points that converged and do not match well."""
    given = field()
    given.columns["error"] = np.exp(RANDOM.normal(-3, 0.2, 336))
    given.columns["zncc"] = 1 - 0.01 * np.exp(RANDOM.normal(0, 0.2, 336))
    write_hdf5(tmp_path / "r.h5", given, attributes=LDIC)
    assert collect(gather(str(tmp_path / "r.h5")), COMMANDS, None).facts["verdict"]["warnings"] == []
    given.columns["error"][:40] *= 100
    given.columns["zncc"][:30] = 0.2
    given.columns["returnStatus"][:5] = -1
    write_hdf5(tmp_path / "r.h5", given, attributes=LDIC)
    (line,) = collect(gather(str(tmp_path / "r.h5")), COMMANDS, None).facts["verdict"]["warnings"]
    assert line.startswith("25 of 331 points that converged have an error far above that of the others")


#: Files of a folder and the commands that made them; the one that is shown.
FOLDERS = {
    "a9-ldic.h5 ldic, a10-ldic.h5 ldic, a2-ldic.h5 ldic": "a10-ldic.h5",
    "a-pixelSearch.h5 pixelSearch, a-ldic.h5 ldic, a-ldic-filtered.h5 filterPhiField": "a-ldic.h5",
    "b.h5 pixelSearch, a.h5 passPhiField": "a.h5",
    "b.h5 unknown, a.h5 regularStrain": "a.h5",
    "a.h5 ddic, b.h5 series": "b.h5",
    "ldic/a-b.h5 ldic, ldicAgain/a-b.h5 ldic": "ldicAgain/a-b.h5",
    "ldic/a.h5 ldic, b.h5 pixelSearch": "b.h5",
}


@pytest.mark.parametrize("files", FOLDERS)
def test_which_result_of_a_folder_is_shown(files: str, tmp_path: Path) -> None:
    """The measurement rather than what led to it; of several the last, by the numbers in their names."""
    for name, command in (words.split() for words in files.split(", ")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_hdf5(tmp_path / name, field((4, 5, 6)), attributes={"command": command})
    assert gather(str(tmp_path)).main.path == tmp_path / FOLDERS[files]


def test_tables_of_other_results_are_not_shown(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a-b-ldic.h5", field((4, 5, 6)), attributes=LDIC)
    series = "state\timage\treference\n1\t{}\t{}\n"
    (tmp_path / "c-series.tsv").write_text(series.format("c", "a"))
    (tmp_path / "d-series.tsv").write_text(series.format("b", "a"))
    (tmp_path / "c-study.csv").write_text("hws,sigmaZ\n3,0.1\n")
    found = gather(str(tmp_path / "a-b-ldic.h5"))
    assert found.series is not None
    assert found.series.name == "d-series.tsv"
    assert found.study is None
    # of a folder the first
    found = gather(str(tmp_path))
    assert found.series is not None
    assert found.series.name == "c-series.tsv"
    assert found.study is not None


def test_strain_is_that_of_the_result(tmp_path: Path) -> None:
    names = {"a-ldic": "ldic", "a-ldic-strain-Q8": "regularStrain", "b-ldic-strain-Q8": "regularStrain"}
    for name, command in names.items():
        write_hdf5(tmp_path / f"{name}.h5", field((4, 5, 6)), attributes={"command": command})
    for given in (tmp_path, tmp_path / "a-ldic.h5"):
        found = gather(str(given))
        assert found.main.path.name == "a-ldic.h5"
        assert found.strain is not None
        assert found.strain.path.name == "a-ldic-strain-Q8.h5"
    (tmp_path / "a-ldic-strain-Q8.h5").unlink()
    assert gather(str(tmp_path)).strain is None
    assert gather(str(tmp_path / "a-ldic.h5")).strain is None


def test_a_failed_correlation_says_why(tmp_path: Path) -> None:
    given = field((10, 10, 10))
    given.columns["returnStatus"][given.positions[:, 0] < 65] = -1
    write_hdf5(tmp_path / "r.h5", given, attributes=LDIC)
    assert report(tmp_path / "r.h5") == 0
    facts, page = check(tmp_path / "r-report.html")
    assert facts["verdict"]["trusted"] is False
    assert "the others (RS=-1: 600) are scattered" in facts["verdict"]["warnings"][0]
    assert any("start from mpidvc reg" in line for line in facts["verdict"]["advice"])
    for line in (*facts["verdict"]["warnings"], *facts["verdict"]["advice"]):
        assert line in page.text


# ---- names and files of the devil


EVIL = "<img src=x onerror=alert(x)>&\"'"


def test_names_are_escaped(tmp_path: Path) -> None:
    folder = tmp_path / EVIL
    folder.mkdir()
    given = field((4, 5, 6))
    given.columns["sigma<script>alert(x)<"] = np.ones(120)
    settings = json.dumps({"</style><script>alert(x)</script>": {"<b>": ["<i>", None, True]}})
    attributes = {"command": "<script>alert(x)", "determines": settings, "<u>": "</details><script>"}
    write_hdf5(folder / f"{EVIL}.h5", given, attributes=attributes)
    log = {"command_line": "mpidvc '<script>alert(x)</script>'", "hosts": {"<script>": 1}, "lost": ["<script>"]}
    (folder / f"{EVIL}.run.json").write_text(json.dumps({**log, "folder": "<script>"}))
    table = "state\timage\treference\t<script>\n1\t<script>\ta\t3\n"
    (folder / "x-series.tsv").write_text(table)
    assert report(folder) == 0
    facts, page = check(folder / "report.html")
    assert {*page.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "div", "p", "nav", "a", "section", "table"),
        *("thead", "tbody", "tr", "th", "td", "caption", "data", "figure", "figcaption", "img", "span", "details"),
        *("summary", "pre", "i", "ul", "li", "code"),
    }
    assert "<script>alert(x)</script>" in page.text
    assert facts["title"] == EVIL
    assert page.text.lstrip().startswith(EVIL)


@pytest.mark.parametrize(
    "settings",
    [
        "not json",
        "[1]",
        "null",
        '{"-hws": "a", "image 1": 5, "image 2": [], "-it": "x", "--criterion": 3, "-o": [1]}',
        '{"-hws": [1, 2, "x"], "image 1": {"shape": "x"}, "image 2": {"shape": [1, 2, 3]}}',
        '{"-hws": [1e400, 2, 3]}',
    ],
)
def test_damaged_settings(settings: str, tmp_path: Path) -> None:
    write_hdf5(tmp_path / "r.h5", field((4, 5, 6)), attributes={"command": "ldic", "determines": settings})
    (tmp_path / "r.run.json").write_text('{"command_line": "mpidvc ldic r.h5 -pf r.h5 -ns 3 -hws 3", "ranks": 1e400}')
    assert report(tmp_path / "r.h5") == 0
    check(tmp_path / "r-report.html")


def test_absurd_numbers(tmp_path: Path) -> None:
    given = field((4, 5, 6))
    given.phi[3, 0, 3], given.phi[4, 1, 1], given.phi[9, :3, 3] = np.inf, 1e300, 1e200
    given.columns["error"][:], given.columns["returnStatus"][7] = np.inf, 99.5
    write_hdf5(tmp_path / "r.h5", given, attributes=LDIC)
    assert report(tmp_path / "r.h5") == 0
    facts = json.loads((tmp_path / "r-report.json").read_text(), parse_constant=refuse)
    assert facts["quantities"]["error"]["n"] == 0


def test_a_damaged_file_among_others(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", field((4, 5, 6)), attributes=LDIC)
    (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:3000])
    (tmp_path / "c-series.tsv").write_bytes(b"\xff\xfe\t\n1")
    assert report(tmp_path) == 0
    facts, page = check(tmp_path / "report.html")
    assert facts["result"]["file"] == "a.h5"
    (line,) = facts["refused"]
    assert "b.h5: is cut off or damaged" in line
    assert line in page.text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("@empty", "empty: holds no result that can be read; give one with the files (.h5, .tsv) of a command"),
        ("@no.h5", "no.h5: does not exist; give a result (.h5 or .tsv), or a folder with results"),
        ("@cut.h5", "cut.h5: is cut off or damaged"),
        ("@text", "text: lacks the column(s)"),
        ("@r.h5 -o @no/a.html", "there is no folder"),
        ("@r.h5 -o @a.pdf", "has to end in .html"),
        ("@r.h5 --images a", "expected 2 arguments"),
    ],
)
def test_mistakes(words: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    write_hdf5(tmp_path / "r.h5", field((4, 5, 6)), attributes=LDIC)
    (tmp_path / "cut.h5").write_bytes((tmp_path / "r.h5").read_bytes()[:3000])
    (tmp_path / "text").write_text("a\tb\n1\t2\n")
    before = sorted(tmp_path.rglob("*"))
    assert report(*words.replace("@", f"{tmp_path}/").split()) == 2
    printed = capsys.readouterr().err
    assert told in printed
    assert len(printed.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_matplotlib_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_hdf5(tmp_path / "r.h5", field((4, 5, 6)), attributes=LDIC)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert report(tmp_path / "r.h5") == 2
    assert capsys.readouterr().err.startswith("mpidvc report: error: matplotlib is not installed; pip install")


def test_from_python(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "r.h5", field((4, 5, 6)), attributes=LDIC)
    facts = mpidvc.report(tmp_path / "r.h5")
    assert facts == json.loads((tmp_path / "r-report.json").read_text())


def test_ranks_make_the_same_bytes(tmp_path: Path, mpiexec: Any) -> None:
    """And a mistake is one line."""
    write_hdf5(tmp_path / "r.h5", field((4, 5, 6)), attributes=LDIC)
    assert report(tmp_path / "r.h5", "-o", tmp_path / "one.html") == 0
    done = mpiexec(2, "-m", "mpidvc", "report", str(tmp_path / "r.h5"), "-o", str(tmp_path / "two.html"))
    assert done.returncode == 0, done.stderr
    for end in ("html", "json"):
        assert (tmp_path / f"one.{end}").read_bytes() == (tmp_path / f"two.{end}").read_bytes()
    done = mpiexec(2, "-m", "mpidvc", "report", str(tmp_path / "no.h5"))
    assert done.returncode == 2
    assert "no.h5: does not exist" in done.stderr
    assert "Traceback" not in done.stderr
