"""A results file as the first guess (-pf): everywhere, and with the same result as the text of the same field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.cli import options
from mpidvc.cli.parser import Parser, UsageError
from mpidvc.core.analytic import AnalyticPair
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import read_tsv, write_tsv
from mpidvc.main import main


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images, and guesses in text and HDF5."""
    folder = tmp_path_factory.mktemp("inputs")
    pair = AnalyticPair((32, 34, 36), amplitude=0, translation=(2.3, 1.2, 0.1), rotation=(0, 0, 0), strain=(0, 0, 0))
    tifffile.imwrite(folder / "im1.tif", pair.image1(), photometric="minisblack")
    tifffile.imwrite(folder / "im2.tif", pair.image2(), photometric="minisblack")
    phi = np.eye(4)
    phi[:3, 3] = (1, 0.5, 0)
    z, y, x = np.meshgrid((6.0, 10.0), (6.0, 10.0), (6.0, 10.0), indexing="ij")
    nodes = np.stack([z, y, x], -1).reshape(-1, 3)
    columns = {name: np.full(8, value) for name, value in (("returnStatus", 1.0), ("error", 0.5))}
    fields = {
        "grid": PhiField.from_positions(nodes, np.tile(phi, (8, 1, 1)), columns),
        "points": PhiField.from_positions(nodes[:-1], np.tile(phi, (7, 1, 1))),
        "registration": PhiField(nodes[:1], phi[None], {}, "registration"),
        "labels": PhiField(nodes, np.tile(phi, (8, 1, 1)), {"Label": np.arange(8.0)}, "labels"),
    }
    for name, field in fields.items():
        write_tsv(folder / f"{name}.tsv", field, "LDIC")
        write_hdf5(folder / f"{name}.h5", read_tsv(folder / f"{name}.tsv"), 0.01, "mm")
    (folder / "grid-without-suffix").write_bytes((folder / "grid.h5").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("command", "guess", "more"),
    [
        ("ldic", "grid", ("-hws", "4", "-pfb", "2")),
        ("ldic", "points", ("-hws", "4", "-pfb", "2")),
        ("ldic", "registration", ("-hws", "4", "-ns", "12")),
        ("pixelSearch", "grid", ("-hws", "4", "-pfb", "2")),
        ("reg", "registration", ()),
    ],
)
def test_same_as_text(inputs: Path, tmp_path: Path, command: str, guess: str, more: tuple[str, ...]) -> None:
    written = []
    for kind in ("tsv", "h5"):
        folder = tmp_path / kind
        images = (str(inputs / "im1.tif"), str(inputs / "im2.tif"))
        file = str(inputs / f"{guess}.{kind}")
        assert main([command, *images, "-pf", file, *more, "-np", "1", "-od", str(folder)]) == 0
        written.append({path.name: path.read_bytes() for path in folder.glob("*.tsv")})
    assert written[0] == written[1]
    assert len(written[0]) == 1


def test_signature_counts_and_not_the_suffix(inputs: Path, tmp_path: Path) -> None:
    images = (str(inputs / "im1.tif"), str(inputs / "im2.tif"))
    for k, name in enumerate(("grid.h5", "grid-without-suffix")):
        arguments = ["-pf", str(inputs / name), "-hws", "4", "-np", "1", "-od", str(tmp_path / str(k))]
        assert main(["ldic", *images, *arguments]) == 0
    first, second = (next((tmp_path / str(k)).glob("*.tsv")).read_bytes() for k in (0, 1))
    assert first == second


def test_skip_continues_a_results_file(inputs: Path, tmp_path: Path) -> None:
    images = (str(inputs / "im1.tif"), str(inputs / "im2.tif"))
    arguments = ["-pf", str(inputs / "grid.h5"), "-pfb", "2", "-skp", "-hws", "4", "-np", "1", "-od", str(tmp_path)]
    assert main(["ldic", *images, *arguments]) == 0
    assert (read_tsv(next(tmp_path.glob("*.tsv"))).columns["returnStatus"] == 2).all()


@pytest.mark.parametrize(
    ("command", "guess", "says"),
    [("reg", "grid.h5", "field of 8 points"), ("ldic", "labels.h5", "labels"), ("ldic", "no.h5", "does not exist")],
)
def test_refused(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, guess: str, says: str
) -> None:
    images = (str(inputs / "im1.tif"), str(inputs / "im2.tif"))
    more = ("-hws", "4") if command == "ldic" else ()
    assert main([command, *images, "-pf", str(inputs / guess), *more, "-od", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert guess in error
    assert error.count("\n") == 1


def parsed(*line: str) -> tuple[float, str]:
    parser = Parser("mpidvc any")
    options.add_voxel_size(parser, parser.add_argument_group("output"))
    args = parser.parse_args(line)
    options.check_common(args)
    return args.voxel_size, args.unit


def test_voxel_size() -> None:
    assert parsed() == (1.0, "voxel")
    assert parsed("--voxel-size", "1.3e-2", "--unit", "mm") == (0.013, "mm")
    with pytest.raises(UsageError):
        parsed("--voxel", "1")


@pytest.mark.parametrize("size", ["0", "-1", "nan", "inf"])
def test_voxel_size_that_is_none(size: str) -> None:
    with pytest.raises(UserError, match=r"--voxel-size .*: has to be above 0 and finite"):
        parsed("--voxel-size", size)
