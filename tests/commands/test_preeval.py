"""`mpidvc preeval` as users run it: its table and files, its refusals, ranks, and the function in Python."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

import mpidvc
from mpidvc.commands.preeval.names import named
from mpidvc.errors import UserError
from mpidvc.main import main
from tests.conftest import Job
from tests.reference.make_preeval_reference import SCORES, more_stacks, stacks

THEIRS = {name: float(text) for name, text in json.loads(SCORES.read_text())["float32"].items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("preeval")
    given = stacks("float32")
    with h5py.File(path / "f.h5", "w") as file:
        for name, stack in given.items():
            file[f"entry/{name}"] = stack
        file["nan"] = np.where(np.arange(36) == 7, np.nan, given["clean"])
        file["short"] = given["clean"][:3]
        file["flat"] = more_stacks()["constant"].astype("u1")
    tifffile.imwrite(path / "good.tif", given["good"])
    (path / "fair").mkdir()
    for k, plane in enumerate(given["fair"]):
        tifffile.imwrite(path / "fair" / f"{k}.tif", plane)
    return path


def run(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(["preeval", *line.replace("@", f"{folder}/").split(), "-np", "1"])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_table_and_files(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = f"--json {tmp_path}/r.json --tsv {tmp_path}/r.tsv --plot {tmp_path}/r.png"
    line = "nan=@f.h5::/nan bad=@f.h5::/entry/bad fair=@fair good=@good.tif flat=@f.h5::/flat"
    status, out, err = run(f"{line} clean=silx:@f.h5?path=/entry/clean {files}", folder, capsys)
    assert status == 0
    assert err == "warning: stack nan: its first image holds nan or infinity; it has no score and is ranked last\n"
    order = ["clean", "good", "fair", "bad", "flat", "nan"]
    assert [line.split("│")[2].strip() for line in out.splitlines() if line.startswith("│ ")][1:] == order
    assert "Reference stack: clean\n" in out
    told = json.loads((tmp_path / "r.json").read_text())
    assert (told["reference_stack"], told["ranked_stack_names"]) == ("clean", order)
    for one in told["stacks"][:4]:
        assert one["score"] == pytest.approx(THEIRS[one["stack"]], abs=1e-5)
        assert one["images"] == len(one["matches"]["peak"]) == 6
    first, last = told["stacks"][0], told["stacks"][-1]
    assert first["uri"] == f"silx:{folder}/f.h5?path=/entry/clean"
    # the window moves by (3, -2) per image: its content by (-3, 2); half of the height is 20
    assert first["matches"]["y"] == [0, -3, -6, -9, -12, -15]
    assert first["matches"]["x"] == [0, 2, 4, 6, 8, 10]
    assert first["distinct"] == 1
    assert last["score"] is None
    assert last["matches"]["peak"] == [None] * 6
    header, *rows = [line.split("\t") for line in (tmp_path / "r.tsv").read_text().splitlines()]
    assert header == ["rank", "stack", "score", "ratio", "distinct", "images", "uri"]
    assert [(row[0], row[1]) for row in rows] == [(str(k), name) for k, name in enumerate(order, 1)]
    assert [float(row[2]) for row in rows[:-1]] == [one["score"] for one in told["stacks"][:-1]]
    assert rows[-1][2] == "nan"
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_stacks_that_cannot_be_aligned(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run("@f.h5::/entry/bad @f.h5::/flat", folder, capsys)
    assert status == 0
    assert err.startswith("warning: the best stack has no distinct peak in most of its images; ")


@pytest.mark.parametrize(
    ("options", "reference", "line"),
    [
        ("--reference good.tif", "good.tif", "Reference stack: good.tif; nothing was ranked"),
        ("--reference @good.tif", "@good.tif", "Reference stack: @good.tif; nothing was ranked"),
        ("--skip", None, "Reference stack: none; nothing was ranked"),
        ("--skip --reference other", "other", "Reference stack: other; nothing was ranked"),
    ],
)
def test_no_ranking(
    options: str, reference: str, line: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # the second stack is not opened
    status, out, err = run(f"@good.tif @none.h5::/a {options} --json {tmp_path}/r.json", folder, capsys)
    assert (status, err) == (0, "")
    assert line.replace("@", f"{folder}/") in out
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["reference_stack"] == (reference and reference.replace("@", f"{folder}/"))
    assert (told["ranked_stack_names"], told["stacks"]) == (None, [])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the following arguments are required: stack (see mpidvc preeval --help)"),
        ("@f.h5::/nowhere", "stack @f.h5::/nowhere: names no dataset; @f.h5 holds /entry/bad, "),
        ("@f.h5", "stack @f.h5: names no dataset; "),
        ("a=@good.tif a=@fair", "stack a: is there twice; give other names, as in name=file.h5::/path"),
        ("@good.tif @good.tif", "stack @good.tif: is there twice; "),
        ("a=", "stack a=: has no URI; give name=file.h5::/path"),
        ("a=@f.h5::/entry/bad b=@f.h5::/short", "stack b: has 3 images but a has 6; stacks that need the same "),
        ("a=@good.tif b=@fair --reference c", "--reference c: is none of the stacks a, b"),
        ("@good.tif --skip --plot a.png", "--plot: there is no ranking with --skip; drop one of them"),
        ("@good.tif --reference good --tsv a", "--tsv: there is no ranking with --reference good; drop one of them"),
        ("@good.tif --json @good.tif", "--json @good.tif: is one of the stacks; give another file"),
        ("@f.h5::/short --plot @f.h5", "--plot @f.h5: is one of the stacks; give another file"),
        ("@good.tif --json @a --tsv @a", "--tsv @a: is the file of --json; give another file"),
        ("@good.tif --json @fair", "--json @fair: is a folder; give the name of a file"),
        ("@good.tif --tsv @none/a", "--tsv @none/a: there is no folder @none; make it"),
    ],
)
def test_refusals(line: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    status, _, err = run(line, folder, capsys)
    assert status == 2
    assert err.count("\n") == 1
    assert err.startswith(f"mpidvc preeval: error: {message}".replace("@", f"{folder}/"))
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_any_number_of_ranks(folder: Path, tmp_path: Path, mpiexec: Job, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("bad", "clean", "fair", "good")
    line = " ".join([f"{name}=@f.h5::/entry/{name}" for name in names]) + " nan=@f.h5::/nan"
    assert run(f"{line} --json {tmp_path}/one.json", folder, capsys)[0] == 0
    words = line.replace("@", f"{folder}/").split()
    # chunks of two images: every rank has some
    code = "import sys, mpidvc.main, mpidvc.tasks.stacks as s; s.CHUNK = 2; sys.exit(mpidvc.main.main(sys.argv[1:]))"
    done = mpiexec(3, "-c", code, "preeval", *words, "--json", f"{tmp_path}/three.json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "three.json").read_bytes() == (tmp_path / "one.json").read_bytes()


def test_in_python(folder: Path) -> None:
    given = stacks("float32")
    ranking = mpidvc.preeval(given)
    assert ranking.names == ["clean", "good", "fair", "bad"]
    assert ranking.reference == "clean"
    for one in ranking.stacks:
        assert one.score == pytest.approx(THEIRS[one.name], abs=1e-5)
    uris = [f"{folder}/f.h5::/entry/{name}" for name in ("bad", "good")]
    assert mpidvc.preeval(uris).names == ["good", "bad"]
    assert mpidvc.preeval({"=": uris[0], "?::": given["clean"]}).names == ["?::", "="]
    with pytest.warns(UserWarning, match="1 of its images hold nan or infinity"):
        assert mpidvc.preeval(more_stacks()).names[-1] == "nan"
    with pytest.raises(UserError, match="arguments are required: stack"):
        mpidvc.preeval({})
    with pytest.raises(UserError, match="stack a: has 2 dimensions"):
        mpidvc.preeval({"a": given["clean"][0]})


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["f.h5::/e/p/Ca", "f.h5::/e/p/Fe"], ["Ca", "Fe"]),
        (["f.h5::/e/p/Ca"], ["Ca"]),
        (["f.h5::/a/s0", "f.h5::/b/s0", "f.h5::/b/s1"], ["a/s0", "b/s0", "b/s1"]),
        (["a.h5::/e/Ca", "b.h5::/e/Ca"], ["a.h5/e/Ca", "b.h5/e/Ca"]),
        (["a.tif", "b.tif"], ["a.tif", "b.tif"]),
        (["x/a.tif", "x/b.tif"], ["a.tif", "b.tif"]),
        (["f.h5::/a[0:2]", "f.h5::/a[2:4]"], ["f.h5::/a[0:2]", "f.h5::/a[2:4]"]),
        (["silx:f.h5?path=/a&slice=1", "f.h5::/b"], ["a", "b"]),
        (["x=f.h5::/a", "f.h5::/b"], ["x", "b"]),
    ],
)
def test_names(words: list[str], names: list[str]) -> None:
    assert [name for name, _ in named(words)] == names
