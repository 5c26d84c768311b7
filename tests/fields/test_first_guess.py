"""First guesses made by hand: what `docs/first-guess.md` says of them; pipes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.errors import UserError
from mpidvc.fields import stream
from mpidvc.fields.hdf5 import write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.read import read_field
from mpidvc.fields.tsv import write_tsv
from tests.waiting import LONGEST

from .test_phifield import marked

#: So far that windows without a guess find something else.
PAIR = AnalyticPair((1, 150, 170), seed=5, rotation=(1.6, 0, 0), strain=(0, 0, 0), translation=(0, 11, -10.4))
#: True to a voxel.
GUESS = """\
Ypos  Xpos  Ydisp  Xdisp
40    45      12    -12
40   125      10    -12
75    85      11    -11
110   45      12     -9
110  125      10     -9
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Working folder with the images im1.tif and im2.tif, and guess.txt."""
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("im1.tif", PAIR.image1()[0])
    tifffile.imwrite("im2.tif", PAIR.image2()[0])
    Path("guess.txt").write_text(GUESS)
    return tmp_path


def test_points_and_displacements_are_enough(folder, command):
    """The truth is known in closed form."""
    line = ["ldic", "im1.tif", "im2.tif", "-hws", "15", "-np", "1", "-pf"]
    done = command(*line, "guess.txt")
    assert done.returncode == 0, done.stdout + done.stderr
    field, guess = read_field("im1-im2-ldic.tsv"), np.loadtxt("guess.txt", skiprows=1)
    assert np.array_equal(field.positions[:, 1:], guess[:, :2])
    assert field.good.all()
    truth = PAIR.displacement(field.positions)
    assert 0.3 < np.abs(guess[:, 2:] - truth[:, 1:]).max() < 1
    assert np.abs(field.displacements - truth).max() < 0.03
    # without the guess the windows do not find their places
    write_tsv("zero.tsv", PhiField(field.positions, np.tile(np.eye(4), (len(field), 1, 1))), "LDIC")
    command(*line, "zero.tsv", "-pre", "zero")
    lost = read_field("zero-ldic.tsv")
    assert not lost.good.any() or np.abs(lost.displacements - truth)[lost.good].max() > 5


def test_one_row_is_a_registration(folder, command):
    Path("shift.txt").write_text("Ypos Xpos Ydisp Xdisp\n0 0 12 -10\n")
    done = command("ldic", "im1.tif", "im2.tif", "-pf", "shift.txt", "-ns", "40", "-hws", "15", "-np", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    field = read_field("im1-im2-ldic.h5")
    assert field.dims == (1, 3, 4)
    inner = ((field.positions[:, 1:] > 30) & (field.positions[:, 1:] < (115, 135))).all(axis=1)
    assert inner.sum() == 6
    assert np.abs(field.displacements - PAIR.displacement(field.positions))[inner].max() < 0.03


# ------------------------------------------------------------------------------------------------- what a text may be

NUMBERS = np.arange(24.0).reshape(4, 6) ** 1.5


@pytest.mark.parametrize("separator", ["\t", ",", ", ", ";", " ", "   "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators(tmp_path, separator, end):
    lines = [separator.join(("Zpos", "Xpos", "Ypos", "Xdisp", "Zdisp", "Ydisp"))]
    lines += [separator.join(map(repr, row)) for row in NUMBERS.tolist()]
    (tmp_path / "a").write_bytes((end.join(lines) + end).encode())
    field = read_field(tmp_path / "a", 2.0)
    assert field.layout == "points"
    assert np.array_equal(field.positions, 2 * NUMBERS[:, [0, 2, 1]])
    assert np.array_equal(field.displacements, 2 * NUMBERS[:, [4, 5, 3]])
    assert np.array_equal(field.F, np.tile(np.eye(3), (4, 1, 1)))
    assert field.columns == {}


def test_columns(tmp_path):
    def read(header, rows=2):
        n = len(header.lstrip("# ").split())
        path.write_text("\n".join([header, *(" ".join(str(10 * row + i) for i in range(n)) for row in range(rows))]))
        return read_field(path)

    path = tmp_path / "a.txt"
    flat = read("# Ypos Xpos Ydisp Xdisp Fyy Fyx Fxy Fxx mine")
    assert flat.positions.tolist() == [[0, 0, 1], [0, 10, 11]]
    assert flat.phi[1].tolist() == [[1, 0, 0, 0], [0, 14, 15, 12], [0, 16, 17, 13], [0, 0, 0, 1]]
    assert flat["mine"].tolist() == [8, 18]
    solid = read("Fzz Fzy Fzx Fyz Fyy Fyx Fxz Fxy Fxx Zpos Ypos Xpos Zdisp Ydisp Xdisp returnStatus")
    assert solid.phi[0].tolist() == [[0, 1, 2, 12], [3, 4, 5, 13], [6, 7, 8, 14], [0, 0, 0, 1]]
    assert solid["returnStatus"].tolist() == [15, 25]
    # positions that fill a grid are one, a column Label makes labels, and one row is a registration
    assert read("Zpos Ypos Xpos Zdisp Ydisp Xdisp Label").layout == "labels"
    assert read("Zpos Ypos Xpos Zdisp Ydisp Xdisp", rows=1).layout == "registration"
    path.write_text("Ypos Xpos Ydisp Xdisp\n" + "".join(f"{y} {x} 1 1\n" for y in (5, 10) for x in (4, 8, 12)))
    assert read_field(path).dims == (1, 2, 3)

    for header, missing in (
        ("Ypos Xpos Ydisp", "Xdisp"),
        ("Zpos Ypos Xpos Ydisp Xdisp", "Zdisp"),
        ("Ypos Xpos Zdisp Ydisp Xdisp", "Zpos"),
        ("Ypos Xpos Ydisp Xdisp Fyy Fxx", "Fyx Fxy"),
        ("Zpos Ypos Xpos Zdisp Ydisp Xdisp Fyy Fyx Fxy Fxx", "Fzz Fzy Fzx Fyz Fxz"),
        ("Z Y X dZ dY dX", "Ypos Xpos Ydisp Xdisp"),
    ):
        with pytest.raises(UserError, match=rf"lacks the column\(s\) {missing};"):
            read(header)
    path.write_text("Ypos Xpos Ydisp Xdisp\n1,5 2 3 4\n")
    with pytest.raises(UserError, match="line 2 has '1,5' in the column Ypos"):
        read_field(path)


# ------------------------------------------------------------------------------------------------------------- pipes


def piped(path: Path, content: bytes, pause: float = 0.0) -> threading.Thread:
    """Write into a named pipe, slowly."""

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for start in range(0, len(content), 1000):
                time.sleep(pause)
                pipe.write(content[start : start + 1000])

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.mark.parametrize("late", [0.0, 0.3])
def test_named_pipe(tmp_path, fifo, late, monkeypatch):
    monkeypatch.setattr(stream, "PATIENCE", LONGEST)
    write_tsv(tmp_path / "a.tsv", marked(), "LDIC")
    content = (tmp_path / "a.tsv").read_bytes()
    assert len(content) > 3000
    threading.Timer(late, piped, (fifo, content, 0.05)).start()
    field = read_field(fifo)
    assert field.dims == (2, 3, 4)
    assert field.phi.tobytes() == read_field(tmp_path / "a.tsv").phi.tobytes()


def test_pipe_of_a_silent_program_is_waited_for(fifo, monkeypatch):
    monkeypatch.setattr(stream, "PATIENCE", 0.1)
    # the other end is open, so that this one is at once
    other = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    program = os.open(fifo, os.O_WRONLY)

    def speak() -> None:
        os.write(program, b"Ypos Xpos Ydisp Xdisp\n1 2 3 4\n")
        os.close(program)

    threading.Timer(0.5, speak).start()
    assert read_field(fifo)["Xdisp"].tolist() == [4]
    os.close(other)


def test_pipe_without_a_program(fifo, monkeypatch):
    monkeypatch.setattr(stream, "PATIENCE", 0.2)
    with pytest.raises(UserError, match="fifo: no program writes into this pipe"):
        read_field(fifo)


def test_pipes_with_something_else(tmp_path, fifo, monkeypatch):
    thread = piped(fifo, b"")
    with pytest.raises(UserError, match="is empty"):
        read_field(fifo)
    thread.join()
    write_hdf5(tmp_path / "a.h5", marked())
    piped(fifo, (tmp_path / "a.h5").read_bytes()[:1000])
    with pytest.raises(UserError, match="is HDF5, which cannot be read from a pipe"):
        read_field(fifo)
    monkeypatch.setattr(stream, "MOST_PIPED", 10**6)
    endless = subprocess.Popen(["yes", "1 2 3 4"], stdout=subprocess.PIPE)
    assert endless.stdout is not None
    with pytest.raises(UserError, match="its first line has numbers"):
        read_field(f"/dev/fd/{endless.stdout.fileno()}")
    endless.kill()
    endless.communicate()
    # after a header it would never end
    program = "echo Ypos Xpos Ydisp Xdisp; yes 1 2 3 4"
    endless = subprocess.Popen(["bash", "-c", program], stdout=subprocess.PIPE, start_new_session=True)
    assert endless.stdout is not None
    with pytest.raises(UserError, match="the pipe does not end after 1000000 bytes; give a file"):
        read_field(f"/dev/fd/{endless.stdout.fileno()}")
    endless.stdout.close()
    endless.wait(LONGEST)


def test_what_is_neither_file_nor_pipe(tmp_path):
    for path, says in (
        ("/dev/zero", "neither a file nor a pipe"),
        ("/dev/null", "neither a file nor a pipe"),
        (tmp_path, "is a folder"),
        (tmp_path / "missing", "does not exist"),
        ("a\0b", "is no file name"),
    ):
        with pytest.raises(UserError, match=says):
            read_field(path)


def test_process_substitution(folder, environment):
    line = f"{sys.executable} -m mpidvc ldic im1.tif im2.tif -hws 15 -np 1 -pf "
    text = subprocess.run(
        ["bash", "-c", line + "<(cat guess.txt)"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST,
    )
    assert text.returncode == 0, text.stdout + text.stderr
    assert read_field("im1-im2-ldic.tsv").good.all()
    results = subprocess.run(
        ["bash", "-c", line + "<(cat im1-im2-ldic.h5) -pre other"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST,
    )
    assert results.returncode == 2
    assert "is HDF5, which cannot be read from a pipe; give the file" in results.stderr
