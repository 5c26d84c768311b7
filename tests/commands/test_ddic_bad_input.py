"""Whatever a user of ddic gets wrong is refused by one line that names it, before anything is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.tsv import read_tsv, write_tsv
from mpidvc.main import main
from tests.conftest import Job


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with good and bad files, and with results."""
    folder = tmp_path_factory.mktemp("inputs")
    pair = AnalyticPair((22, 24, 26), amplitude=0, translation=(0.3, 0.2, 0.1), rotation=(0, 0, 0), strain=(0, 0, 0))
    labels = np.zeros(pair.shape, np.uint16)
    labels[4:10, 4:12, 4:12] = 1
    labels[12:18, 12:20, 12:20] = 2
    images = {
        "im1": pair.image1(),
        "im2": pair.image2(),
        "lab": labels,
        "nolab": labels * 0,
        "other": labels[1:],
        "one": np.minimum(labels, labels == 1).astype(np.uint16),
        "flat": labels[5],
        "fraction": labels * np.float32(1.5),
        "negative": labels.astype(np.int16) * -1,
        "nan": np.where(labels == 2, np.nan, labels).astype(np.float32),
        "wide": labels.astype(np.int64),
        "grey64": pair.image1().astype(np.int64),
        "huge": labels.astype(np.uint32) * 10_000_000,
    }
    for name, image in images.items():
        tifffile.imwrite(folder / f"{name}.tif", image, photometric="minisblack")
    (folder / "text.tif").write_text("no picture at all\n")
    lines = {
        "own": "ddic im1.tif lab.tif im2.tif",
        "single": "ddic im1.tif one.tif im2.tif",
        "nodes": "ldic im1.tif im2.tif -ns 8 -hws 4",
        "whole": "reg im1.tif im2.tif",
    }
    for name, line in lines.items():
        given = [str(folder / word) if word.endswith(".tif") else word for word in line.split()]
        assert main([*given, "-np", "1", "-od", str(folder), "-pre", name]) == 0
    field = read_tsv(folder / "own-ddic.tsv")
    field.positions[2] += (0, 0, 0.5)
    write_tsv(folder / "moved.tsv", field, "DDIC")
    rows = (folder / "own-ddic.tsv").read_text().splitlines()
    (folder / "byhand.tsv").write_text("\n".join("\t".join(row.split("\t")[:16]) for row in rows) + "\n")
    return folder


TABLE = [
    # 64 bits: labels only
    ("grey64.tif lab.tif im2.tif", "grey64.tif: cannot use values of type int64; convert it"),
    ("im1.tif lab.tif grey64.tif", "grey64.tif: cannot use values of type int64; convert it"),
    # labels
    ("im1.tif none.tif im2.tif", "none.tif: does not exist"),
    ("im1.tif text.tif im2.tif", "text.tif: is not a TIFF file"),
    ("im1.tif nolab.tif im2.tif", "nolab.tif: has no label"),
    ("im1.tif other.tif im2.tif", "other.tif: the labels have 21 × 24 × 26 voxels but im1.tif has 22 × 24 × 26"),
    ("im1.tif flat.tif im2.tif", "flat.tif: the labels have 24 × 26 voxels"),
    ("im1.tif fraction.tif im2.tif", "fraction.tif: has the value 1.5 at voxel (z, y, x) = (4, 4, 4)"),
    ("im1.tif negative.tif im2.tif", "negative.tif: has the value -1 at voxel (z, y, x) = (4, 4, 4)"),
    ("im1.tif nan.tif im2.tif", "nan.tif: has the value nan at voxel (z, y, x) = (12, 12, 12)"),
    ("im1.tif huge.tif im2.tif", "huge.tif: has the label 20000000"),
    ("im1.tif huge.tif im2.tif", "relabel the image"),
    ("im1.tif lab.tif other.tif", "other.tif"),
    ("im1.tif lab.tif", "im2"),
    # guesses
    ("im1.tif lab.tif im2.tif -pf single-ddic.tsv", "single-ddic.tsv: has 2 rows, but the labels go up to 2"),
    ("im1.tif lab.tif im2.tif -pf moved.tsv", "moved.tsv: label 2 is at 14.5 15.5 16.0 there, but at 14.5 15.5 15.5"),
    ("im1.tif lab.tif im2.tif -pf nodes-ldic.tsv", "nodes-ldic.tsv: is a field of 12 points"),
    ("im1.tif lab.tif im2.tif -pf own-ddic.tsv -pfb 2", "-pf own-ddic.tsv: label 1"),
    ("im1.tif lab.tif im2.tif -pf none.tsv", "none.tsv"),
    ("im1.tif lab.tif im2.tif -skp", "-skp"),
    ("im1.tif lab.tif im2.tif -skp -pf byhand.tsv", "-skp: byhand.tsv has no return statuses"),
    ("im1.tif lab.tif im2.tif -skp -pf whole-registration.tsv", "-skp: whole-registration.tsv"),
    ("im1.tif lab.tif im2.tif -regbb 2 -pf whole-registration.tsv", "two first guesses"),
    # numbers and words
    ("im1.tif lab.tif im2.tif -ld 1000", "-ld 1000"),
    ("im1.tif lab.tif im2.tif -ld -1000", "-ld -1000"),
    ("im1.tif lab.tif im2.tif -vt -1", "-vt -1"),
    ("im1.tif lab.tif im2.tif -m -1", "-m -1"),
    ("im1.tif lab.tif im2.tif -msb 0", "-msb 0"),
    ("im1.tif lab.tif im2.tif -regbb 0", "-regbb 0"),
    ("im1.tif lab.tif im2.tif -regbe 0", "-regbe 0"),
    ("im1.tif lab.tif im2.tif -regbb 1 -regbe 2", "-regbb 1"),
    ("im1.tif lab.tif im2.tif -F some", "-F"),
    ("im1.tif lab.tif im2.tif -np 2 -d", "-np 2 -d"),
    ("im1.tif lab.tif im2.tif -vtk", "-vtk"),
    ("im1.tif lab.tif im2.tif -it -1", "-it -1"),
]


@pytest.mark.parametrize(("line", "says"), TABLE, ids=[line for line, _ in TABLE])
def test_refused(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    says: str,
) -> None:
    monkeypatch.chdir(inputs)
    before = sorted(inputs.iterdir())
    words = line.split()
    assert main(["ddic", *words, *([] if "-np" in words else ["-np", "1"]), "-od", str(tmp_path / "out")]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("mpidvc ddic: error: ")
    assert says in told
    assert not list((tmp_path / "out").glob("*"))
    assert sorted(inputs.iterdir()) == before


def test_one_label_is_enough(inputs: Path) -> None:
    field = read_tsv(inputs / "single-ddic.tsv")
    assert field["returnStatus"].tolist() == [0, 2]


def test_results_go_beside_the_labels(inputs: Path, tmp_path: Path) -> None:
    """As in spam; the name is that of the images."""
    (tmp_path / "lab.tif").write_bytes((inputs / "lab.tif").read_bytes())
    assert main(["ddic", f"{inputs}/im1.tif", f"{tmp_path}/lab.tif", f"{inputs}/im2.tif", "-np", "1"]) == 0
    assert (tmp_path / "im1-im2-ddic.tsv").exists()


def test_labels_of_64_bits(inputs: Path, tmp_path: Path) -> None:
    """Are labels like others."""
    one, two, wide = (str(inputs / f"{name}.tif") for name in ("im1", "im2", "wide"))
    assert main(["ddic", one, wide, two, "-np", "1", "-od", str(tmp_path), "-pre", "own"]) == 0
    assert (tmp_path / "own-ddic.tsv").read_bytes() == (inputs / "own-ddic.tsv").read_bytes()


def test_mask_of_64_bits(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, wide = (str(inputs / f"{name}.tif") for name in ("im1", "im2", "wide"))
    assert main(["ldic", one, two, "-ns", "8", "-hws", "4", "-mf1", wide, "-np", "1"]) == 2
    told = capsys.readouterr().err
    assert f"mask {wide}: cannot use values of type int64; convert it" in told
    assert told.count("\n") == 1


def test_refused_once_for_all_ranks(inputs: Path, mpiexec: Job) -> None:
    """What every rank would find is told by one of them, and the launcher has nothing to add."""
    images = [str(inputs / f"{name}.tif") for name in ("im1", "lab", "im2")]
    done = mpiexec(2, "-m", "mpidvc", "ddic", *images, "-regbb", "16", "-regbe", "16")
    assert done.returncode == 2
    assert "an image of 1 × 1 × 1 voxels has fewer than 3 left" in done.stderr
    assert done.stderr.strip().count("\n") == 0
