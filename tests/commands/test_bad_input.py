"""Whatever a user gets wrong is refused by one line that names it, before anything is written."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.tsv import COLUMNS
from mpidvc.main import main

HEADER = "\t".join(COLUMNS["LDIC"])
#: Nodes of a field every 8 voxels.
NODES = [(z, y, x) for z in (8, 16) for y in (8, 16) for x in (8, 16)]


def row(number: int, position: tuple[float, ...], t: tuple[float, ...] = (0, 0, 0), status: int = 2) -> str:
    values = [number, *position, 1, 0, 0, t[0], 0, 1, 0, t[1], 0, 0, 1, t[2], 1, 5, status, 1e-4]
    return "\t".join(f"{value:.7f}" for value in values)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with good and bad files."""
    folder = tmp_path_factory.mktemp("inputs")
    pair = AnalyticPair((22, 24, 26), amplitude=0, translation=(0.3, 0.2, 0.1), rotation=(0, 0, 0), strain=(0, 0, 0))
    images = {"im1": pair.image1(), "im2": pair.image2()}
    images |= {"smaller": images["im2"][:, :, 1:], "flat": images["im1"][8], "mask": np.ones((22, 24, 26), np.uint8)}
    images |= {"othermask": images["mask"][1:], "emptymask": images["mask"] * 0}
    images |= {"spectrum": images["im1"].astype(np.complex64), "cube4": np.zeros((3, 4, 10, 12), np.uint8)}
    images |= {"tiny": images["im1"][:2, :2, :2], "nothing": np.full((22, 24, 26), np.nan, np.float32)}
    for name, image in images.items():
        tifffile.imwrite(folder / f"{name}.tif", image, photometric="minisblack")
    tifffile.imwrite(folder / "colour.tif", np.zeros((24, 26, 3), np.uint8), photometric="rgb")
    whole = (folder / "im2.tif").read_bytes()
    (folder / "truncated.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "text.tif").write_text("no picture at all\n")
    (folder / "empty.tif").write_bytes(b"")
    (folder / "emptyfolder").mkdir()
    (folder / "twin").mkdir()
    tifffile.imwrite(folder / "twin" / "im2.tif", images["im2"], photometric="minisblack")
    (folder / "uneven").mkdir()
    for k, width in enumerate((26, 26, 25)):
        tifffile.imwrite(folder / "uneven" / f"{k}.tif", images["im1"][0, :, :width], photometric="minisblack")
    with h5py.File(folder / "scan.h5", "w") as file:
        file["entry/data"] = images["im1"]
        file["entry/line"] = np.arange(10)
        file["entry/text"] = "text"
    (folder / "notes.h5").write_text("no HDF5\n")

    grid = [row(k, node) for k, node in enumerate(NODES)]
    labels = [line.replace("NodeNumber", "Label") for line in [HEADER, *grid]]
    fields = {
        "registration": [HEADER, row(1, (10.5, 11.5, 12.5))],
        "nan": [HEADER, row(1, (10.5, 11.5, 12.5), (np.nan, 0, 0))],
        "field": [HEADER, *grid],
        "labels": labels,
        "nocolumn": ["\t".join(line.split("\t")[:15] + line.split("\t")[16:]) for line in [HEADER, *grid]],
        "decimals": [HEADER, *(line.replace(".", ",") for line in grid)],
        "digits": [HEADER, *(line.replace("1", "١") for line in grid)],
        "word": [HEADER, *grid[:-1], grid[-1].replace("16.0000000", "sixteen", 1)],
        "short": [HEADER, *grid[:-1], grid[-1].rpartition("\t")[0]],
        "headeronly": [HEADER],
        "byhand": ["Zpos Ypos Xpos Zdisp Ydisp Xdisp", "8 8 8 0 0 0", "8 8 16 0 0 0"],
        "nanposition": [HEADER, *grid[:-1], row(7, (np.nan, 8, 8))],
        "singular": [HEADER, row(1, (10.5, 11.5, 12.5)).replace("\t1.0000000\t0.0000000", "\t0.0000000\t0.0000000")],
        "outside": [HEADER, *(row(k, (z + 500, y, x)) for k, (z, y, x) in enumerate(NODES))],
    }
    for name, lines in fields.items():
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    (folder / "void.tsv").write_text("")
    return folder


#: For both commands: the arguments after "-ns 8 -hws 4" of ldic, and words of the message.
BOTH = [
    # images
    ("im1.tif none.tif", "none.tif"),
    ("none.tif im2.tif", "none.tif"),
    ("nofolder/im1.tif im2.tif", "nofolder/im1.tif"),
    ("im1.tif colour.tif", "colour.tif"),
    ("im1.tif truncated.tif", "truncated.tif"),
    ("im1.tif text.tif", "text.tif"),
    ("im1.tif empty.tif", "empty.tif"),
    ("im1.tif emptyfolder", "emptyfolder"),
    ("uneven im2.tif", "uneven"),
    ("im1.tif smaller.tif", "smaller.tif"),
    ("im1.tif flat.tif", "flat.tif"),
    ("spectrum.tif spectrum.tif", "spectrum.tif"),
    ("cube4.tif cube4.tif", "cube4.tif"),
    ("scan.h5 im2.tif", "scan.h5"),
    ("scan.h5::/entry/none im2.tif", "scan.h5::/entry/none"),
    ("scan.h5::/entry im2.tif", "scan.h5::/entry"),
    ("scan.h5::/entry/line im2.tif", "scan.h5::/entry/line"),
    ("scan.h5::/entry/text im2.tif", "scan.h5::/entry/text"),
    ("none.h5::/entry im2.tif", "none.h5"),
    ("notes.h5::/entry im2.tif", "notes.h5"),
    # masks
    ("im1.tif im2.tif -mf1 none.tif", "none.tif"),
    ("im1.tif im2.tif -mf1 othermask.tif", "-mf1 othermask.tif"),
    ("im1.tif im2.tif -mf1 text.tif", "text.tif"),
    # guesses
    ("im1.tif im2.tif -pf none.tsv", "none.tsv"),
    ("im1.tif im2.tif -pf im1.tif", "im1.tif"),
    ("im1.tif im2.tif -pf emptyfolder", "emptyfolder"),
    ("im1.tif im2.tif -pf nocolumn.tsv", "nocolumn.tsv"),
    ("im1.tif im2.tif -pf decimals.tsv", "decimals.tsv"),
    ("im1.tif im2.tif -pf digits.tsv", "digits.tsv"),
    ("im1.tif im2.tif -pf /dev/zero", "/dev/zero"),
    ("im1.tif im2.tif -pf word.tsv", "word.tsv"),
    ("im1.tif im2.tif -pf short.tsv", "short.tsv"),
    ("im1.tif im2.tif -pf headeronly.tsv", "headeronly.tsv"),
    ("im1.tif im2.tif -pf void.tsv", "void.tsv"),
    ("im1.tif im2.tif -pf labels.tsv", "-pf labels.tsv"),
    ("im1.tif im2.tif -pf registration.tsv -pfb 0", "-pfb 0"),
    ("im1.tif im2.tif -pf registration.tsv -pfb nan", "-pfb nan"),
    ("im1.tif im2.tif -pf registration.tsv -pfb -1", "-pfb -1"),
    # numbers and words
    ("im1.tif im2.tif -o 2", "-o"),
    ("im1.tif im2.tif -o 0", "-o"),
    ("im1.tif im2.tif -it -1", "-it -1"),
    ("im1.tif im2.tif -it 1.5", "-it"),
    ("im1.tif im2.tif -dp nan", "-dp nan"),
    ("im1.tif im2.tif -dp", "-dp"),
    ("im1.tif im2.tif -m -1", "-m -1"),
    ("im1.tif im2.tif -m3 1 2", "-m3"),
    ("im1.tif im2.tif -np 0", "-np 0"),
    ("im1.tif im2.tif -np -3", "-np -3"),
    ("im1.tif im2.tif -np x", "-np"),
    ("im1.tif im2.tif --criterion foo", "--criterion"),
    ("im1.tif im2.tif --crit ssd", "--crit"),
    ("im1.tif im2.tif --nonsense", "--nonsense"),
    ("im1.tif im2.tif -i 3 -u --m 3", "--m"),
    # where to write
    ("im1.tif im2.tif -od im1.tif", "-od im1.tif"),
    ("im1.tif im2.tif -od im1.tif/out", "-od im1.tif/out"),
    ("im1.tif im2.tif -od ''", '-od ""'),
    ("im1.tif im2.tif -pre ''", '-pre ""'),
    ("im1.tif im2.tif -pre nofolder/x", "-pre nofolder/x"),
    ("im1.tif im2.tif --log emptyfolder", "emptyfolder"),
    ("im1.tif im2.tif --log im1.tif", "--log im1.tif"),
    ("im1.tif im2.tif --log nofolder/log", "nofolder/log"),
]
REG = [
    ("im1.tif", "im2"),
    ("", "im1"),
    ("im1.tif im2.tif im2.tif", "im2.tif"),
    ("im1.tif im2.tif -bb 1 -be 2", "-bb 1"),
    ("im1.tif im2.tif -bb 0", "-bb 0"),
    ("im1.tif im2.tif -be -2", "-be -2"),
    ("im1.tif im2.tif -gm foo", "-gm"),
    ("im1.tif im2.tif -gm gaussian -gs 0", "-gs 0"),
    ("im1.tif im2.tif -gm gaussian -gs nan", "-gs nan"),
    ("im1.tif im2.tif -m 11", "-m 11 11 11"),
    ("im1.tif im2.tif -m3 0 12 0", "-m 0 12 0"),
    ("tiny.tif tiny.tif", "2 × 2 × 2"),
    ("im1.tif im2.tif -rmc", "-rmc"),
    ("im1.tif im2.tif -rmc -mf1 emptymask.tif", "emptymask.tif"),
    ("im1.tif im2.tif -pf field.tsv", "-pf field.tsv"),
    ("im1.tif im2.tif -pf nan.tsv", "-pf nan.tsv"),
    ("im1.tif im2.tif -ns 10", "-ns"),
    ("im1.tif im2.tif -r", "-r"),
]
LDIC = [
    ("im1.tif", "im1.tif"),
    ("", "image"),
    ("im1.tif im2.tif -ns 0", "-ns 0"),
    ("im1.tif im2.tif -ns -5", "-ns -5"),
    ("im1.tif im2.tif -ns3 0 5 5", "-ns3 0 5 5"),
    ("im1.tif im2.tif -ns 30", "-ns 30"),
    ("im1.tif im2.tif -hws 0", "-hws 0"),
    ("im1.tif im2.tif -hws 1000", "-hws 1000: windows of 2001 × 2001 × 2001 voxels are larger than the image"),
    ("im1.tif im2.tif -hws 99999999999999999999", "-hws 99999999999999999999"),
    ("im1.tif im2.tif -hws3 0 5 5", "-hws3 0 5 5"),
    ("im1.tif im2.tif -hws x", "-hws"),
    ("im1.tif im2.tif -F foo", "-F"),
    ("im1.tif im2.tif -mc 2", "-mc 2"),
    ("im1.tif im2.tif -mc -0.1", "-mc -0.1"),
    ("im1.tif im2.tif -glt 5 -ght 5", "-glt 5"),
    ("im1.tif im2.tif -glt nan", "-glt nan"),
    ("im1.tif im2.tif -ns 9 -pf field.tsv", "-ns 9: the nodes"),
    ("im1.tif im2.tif -skp", "-skp"),
    ("im1.tif im2.tif -skp -pf registration.tsv", "-skp"),
    ("im1.tif im2.tif -skp -pf byhand.tsv", "-skp: byhand.tsv has no column returnStatus"),
    ("im1.tif im2.tif --start-from none", "argument --start-from: invalid choice: 'none'"),
    ("im1.tif im2.tif --start-from", "--start-from: expected one argument"),
    ("im1.tif im2.tif --start-from guess neighbours", "neighbours"),
    ("im1.tif im2.tif -notsv -noh5", "-notsv -noh5"),
    ("im1.tif im2.tif -n 5", "-n"),
    ("im1.tif im2.tif --node 5", "--node"),
    ("im1.tif im2.tif twin/im2.tif", "im1-im2-ldic.tsv"),
    ("im1.tif im2.tif smaller.tif", "smaller.tif"),
    ("im1.tif im2.tif none.tif -sei", "none.tif"),
    ("im1.tif im2.tif -bb 2", "-bb"),
]
TABLE = [("reg", line, word) for line, word in BOTH + REG] + [("ldic", line, word) for line, word in BOTH + LDIC]


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], out: Path, *words: str) -> str:
    """The only line that the command prints as it refuses its arguments."""
    folder = Path.cwd()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert main(arguments) == 2
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 1, printed.err
    start = f"mpidvc {arguments[0]}: error: "
    assert lines[0].startswith(start)
    assert len(lines[0]) > len(start) + 10
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in printed.out + printed.err
    assert not out.exists() or list(out.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    return lines[0]


@pytest.mark.parametrize(("command", "line", "word"), TABLE, ids=[f"{c} {line}" for c, line, _ in TABLE])
def test_refused(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    line: str,
    word: str,
) -> None:
    monkeypatch.chdir(inputs)
    given = [argument.replace("''", "") for argument in line.split()]
    fields = any(argument.endswith(".tsv") and argument != "registration.tsv" for argument in given)
    # A default comes first, so that what the case says about the same option counts.
    sizes = [] if command == "reg" else ["-hws", "4"] if fields else ["-ns", "8", "-hws", "4"]
    out = tmp_path / "out"
    where = [] if "-od" in given else ["-od", str(out)]
    processes = [] if "-np" in given else ["-np", "1"]
    refused(capsys, [command, *sizes, *processes, *where, *given], out, word)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (["im1.tif", "im2.tif"], "-hws"),
        (["im1.tif", "im2.tif", "-ns", "8"], "-hws"),
        (["im1.tif", "im2.tif", "-hws", "4"], "-ns"),
        (["im1.tif", "im2.tif", "-hws", "4", "-pf", "registration.tsv"], "-ns"),
    ],
)
def test_sizes_of_ldic_are_missing(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    word: str,
) -> None:
    monkeypatch.chdir(inputs)
    refused(capsys, ["ldic", *given, "-od", str(tmp_path / "out")], tmp_path / "out", word)


@pytest.mark.parametrize("command", ["reg", "ldic"])
def test_instruction_set_that_does_not_exist(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.chdir(inputs)
    monkeypatch.setenv("MPIDVC_ISA", "foo")
    sizes = [] if command == "reg" else ["-ns", "8", "-hws", "4"]
    arguments = [command, "im1.tif", "im2.tif", *sizes, "-np", "1", "-od", str(tmp_path)]
    line = refused(capsys, arguments, tmp_path, "MPIDVC_ISA=foo")
    assert "baseline" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("command", ["reg", "ldic"])
def test_folder_that_cannot_be_written(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.chdir(inputs)
    tmp_path.chmod(0o500)
    sizes = [] if command == "reg" else ["-ns", "8", "-hws", "4"]
    refused(capsys, [command, "im1.tif", "im2.tif", *sizes, "-od", str(tmp_path)], tmp_path, f"-od {tmp_path}")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    "line",
    [
        # no grey level anywhere
        "ldic nothing.tif nothing.tif -ns 8 -hws 4",
        # every node skipped by the mask
        "ldic im1.tif im2.tif -ns 8 -hws 4 -mf1 emptymask.tif",
        "reg nothing.tif nothing.tif",
        "reg im1.tif im2.tif -mf1 emptymask.tif",
    ],
)
def test_images_without_data_are_no_crash(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
) -> None:
    """Nothing is wrong with the command line: rows with a negative status are written, and the exit status tells."""
    monkeypatch.chdir(inputs)
    status = main([*line.split(), "-od", str(tmp_path), "-pre", "P", "-np", "1"])
    assert "Traceback" not in capsys.readouterr().err
    (path,) = tmp_path.glob("*.tsv")
    table = np.genfromtxt(path, names=True, ndmin=1)
    assert np.all(table["returnStatus"] < 0)
    assert status == 1


@pytest.mark.parametrize(
    "line",
    [
        "ldic im1.tif im2.tif -hws 4 -pf nanposition.tsv",
        "ldic im1.tif im2.tif -hws 4 -pf outside.tsv",
        "reg im1.tif im2.tif -rig -pf singular.tsv",
        "reg im1.tif im2.tif -dp inf -def -pf singular.tsv",
        "reg nothing.tif nothing.tif -j",
    ],
)
def test_numbers_that_cannot_be_computed_with(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    """A refusal or rows that tell, but no exception."""
    monkeypatch.chdir(inputs)
    status = main([*line.split(), "-od", str(tmp_path), "-pre", "P", "-np", "1"])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert status in (0, 1) or (status == 2 and len(error.splitlines()) == 1)


#: Options of reg and ldic that it does not have; images may differ in size.
NOT_OF_PROPAGATE = ("-pf", "-o", "-it", "-dp", "-m", "-m3", "--criterion", "--crit", "-i", "smaller.tif")
#: Arguments of pixelSearchPropagate after a good -sp, and words of the message.
PROPAGATE = [
    *((line, word) for line, word in BOTH if not set(NOT_OF_PROPAGATE) & set(line.split())),
    ("im1.tif", "im2"),
    ("im1.tif im2.tif im2.tif", "im2.tif"),
    ("im1.tif im2.tif -mf2 none.tif", "none.tif"),
    ("im1.tif im2.tif -mf2 othermask.tif", "-mf2 othermask.tif"),
    # where to begin
    ("im1.tif im2.tif -sp 11 12", "-sp"),
    ("im1.tif im2.tif -sp 11 12 13 0 0 0.5", "-sp"),
    ("im1.tif im2.tif -sp 11 12 200 0 0 0", "-sp 11 12 200 0 0 0"),
    ("im1.tif im2.tif -sp 11 12 13 0 0 100", "-sp 11 12 13 0 0 100"),
    ("im1.tif im2.tif -mf1 emptymask.tif", "-sp 11 12 13 0 0 0: the starting point is refused"),
    ("im1.tif im2.tif -mf2 emptymask.tif", "-sp 11 12 13 0 0 0: the starting point is refused"),
    ("im1.tif im2.tif -glt 1e9", "-sp 11 12 13 0 0 0: the starting point is refused"),
    ("nothing.tif im2.tif", "-sp 11 12 13 0 0 0: the starting point is refused"),
    ("im1.tif im2.tif -cct 1", "-cct 1"),
    ("flat.tif flat.tif", "-sp 11 12 13 0 0 0"),
    ("flat.tif flat.tif -sp 0 12 13 1 0 0", "-sp 0 12 13 1 0 0"),
    # numbers
    ("im1.tif im2.tif -ns 0", "-ns 0"),
    ("im1.tif im2.tif -ns3 0 5 5", "-ns3 0 5 5"),
    ("im1.tif im2.tif -ns 30", "-ns 30"),
    ("im1.tif im2.tif -hws 0", "-hws 0"),
    ("im1.tif im2.tif -hws3 0 5 5", "-hws3 0 5 5"),
    ("im1.tif im2.tif -mc 2", "-mc 2"),
    ("im1.tif im2.tif -glt 5 -ght 5", "-glt 5"),
    ("im1.tif im2.tif -sr 3 -3 0 0 0 0", "-sr 3 -3 0 0 0 0"),
    ("im1.tif im2.tif -sr -3 3 -3 3 -3", "-sr"),
    ("im1.tif im2.tif -sr -9 -5 -9 -5 -9 -5", "-nr"),
    ("im1.tif im2.tif -sr -9 -5 -9 -5 -9 -5 -nr 9", "-gwd"),
    ("im1.tif im2.tif -nr 0", "-nr 0"),
    ("im1.tif im2.tif -nr nan", "-nr nan"),
    ("im1.tif im2.tif -nr inf", "-nr inf"),
    ("im1.tif im2.tif -gwd -2", "-gwd -2"),
    ("im1.tif im2.tif -cct nan", "-cct nan"),
    ("im1.tif im2.tif -cct 90", "-cct 90"),
    ("im1.tif im2.tif --ranking random", "--ranking"),
    ("im1.tif im2.tif --rank walk", "--rank"),
    ("im1.tif im2.tif -notsv -noh5", "-notsv -noh5"),
    ("im1.tif im2.tif -pf field.tsv", "-pf"),
    # files of points
    ("im1.tif im2.tif -gp none.txt", "-gp none.txt"),
    ("im1.tif im2.tif -gp emptyfolder", "-gp emptyfolder"),
    ("im1.tif im2.tif -gp im1.tif", "-gp im1.tif"),
    ("im1.tif im2.tif -gp void.tsv", "-gp void.tsv"),
    ("im1.tif im2.tif -gp text.tif", "line 1"),
    ("im1.tif im2.tif -gp twonumbers.txt", "line 2"),
    ("im1.tif im2.tif -gp nanpoint.txt", "line 3"),
    ("im1.tif im2.tif -gp farpoint.txt", "line 1"),
    ("im1.tif im2.tif -gp points.txt -notsv -noh5 -tif", "-notsv -noh5"),
]


@pytest.mark.parametrize(("line", "word"), PROPAGATE, ids=[line for line, _ in PROPAGATE])
def test_propagation_refused(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    word: str,
) -> None:
    monkeypatch.chdir(inputs)
    Path("points.txt").write_text("11 12 13\n11 12 14\n")
    Path("twonumbers.txt").write_text("11 12 13\n11 12\n")
    Path("nanpoint.txt").write_text("# points\n11 12 13\n11 nan 14\n")
    Path("farpoint.txt").write_text("11 12 1e300\n")
    given = [argument.replace("''", "") for argument in line.split()]
    out = tmp_path / "out"
    where = [] if "-od" in given else ["-od", str(out)]
    processes = [] if "-np" in given else ["-np", "1"]
    sizes = ["-sp", "11", "12", "13", "0", "0", "0", "-ns", "8", "-hws", "4"]
    refused(capsys, ["pixelSearchPropagate", *sizes, *processes, *where, *given], out, word)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ([], "-sp"),
        # the first point of the file is the starting point
        (["-gp", "outside.txt"], "-gp outside.txt: the starting point 500 12 13 is refused"),
    ],
)
def test_starting_point_is_missing(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    word: str,
) -> None:
    monkeypatch.chdir(inputs)
    Path("outside.txt").write_text("500 12 13\n11 12 13\n")
    arguments = [
        "pixelSearchPropagate",
        "im1.tif",
        "im2.tif",
        "-hws",
        "4",
        *given,
        "-np",
        "1",
        "-od",
        str(tmp_path / "out"),
    ]
    refused(capsys, arguments, tmp_path / "out", word)
