"""Files with fixed slots, filled in place."""

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpidvc.errors import UserError
from mpidvc.rowfile import RowFile, Slot, boxes, create_dataset, create_file, reserve

RECORD = np.dtype([("a", np.float64, (3,)), ("b", np.int32)])


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, dict[str, Slot]]:
    """A file with a volume, a vector field on it, records and nothing."""
    path = tmp_path / "a.h5"
    with create_file(path, 1000) as file:
        slots = {
            "group/volume": create_dataset(file, "group/volume", (2, 3, 4), "<f8"),
            "vectors": create_dataset(file, "vectors", (2, 3, 4), "<f4", (3,)),
            "records": create_dataset(file, "records", (5,), RECORD),
            "nothing": create_dataset(file, "nothing", (0,), "<i8"),
        }
    with path.open("r+b") as plain:
        reserve(plain.fileno(), path.stat().st_size)
    return path, slots


def test_rows_are_where_hdf5_finds_them(made: tuple[Path, dict[str, Slot]]) -> None:
    path, slots = made
    size = path.stat().st_size
    head = path.read_bytes()
    volume, vectors = np.arange(24.0), np.arange(72, dtype=np.float32).reshape(24, 3)
    records = np.zeros(5, RECORD)
    records["a"], records["b"] = np.arange(15).reshape(5, 3), range(5)
    rows = RowFile(path, slots)
    for start, stop in ((20, 24), (0, 7), (7, 20)):
        rows.write("group/volume", start, volume[start:stop])
        rows.write("vectors", start, vectors[start:stop])
    rows.write("records", 2, records[2:])
    rows.write("records", 0, records[:2])
    rows.write("nothing", 0, np.zeros(0, np.int64))
    with h5py.File(path) as file:
        assert np.array_equal(file["group/volume"][()].ravel(), volume)
        assert np.array_equal(file["vectors"][()].reshape(24, 3), vectors)
        assert np.array_equal(file["records"][()], records)
        assert file["nothing"].shape == (0,)
    assert np.array_equal(rows.read("vectors", 5, 9), vectors[5:9])
    assert np.array_equal(rows.mapped("records")[[4, 0]], records[[4, 0]])
    assert len(rows.mapped("nothing")) == 0
    # neither length nor metadata change
    assert path.stat().st_size == size
    first = min(slot.offset for slot in slots.values() if slot.offset)
    assert path.read_bytes()[:first] == head[:first]
    assert rows.seconds > 0


def test_a_file_whose_closing_was_interrupted_can_be_closed(
    made: tuple[Path, dict[str, Slot]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = RowFile(*made)
    rows.hold()
    close = os.close

    def interrupted(descriptor: int) -> None:
        close(descriptor)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rows.close()
    monkeypatch.undo()
    rows.close()
    assert not rows.read("vectors", 0, 1).any()


def test_space_is_taken_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with create_file(path, 0) as file:
        create_dataset(file, "x", (1_000_000,), "<f8")
    with path.open("r+b") as plain:
        reserve(plain.fileno(), path.stat().st_size)
    assert path.stat().st_blocks * 512 >= 8_000_000
    assert not RowFile(path, {"x": Slot(4096, np.dtype("<f8"), (), (10,))}).read("x", 0, 10).any()


def test_what_has_the_name_later_is_not_touched(made: tuple[Path, dict[str, Slot]], tmp_path: Path) -> None:
    """A process that slept must not write into the file that took the place of its own."""
    path, slots = made
    rows = RowFile(path, slots)
    rows.hold()
    other = tmp_path / "other"
    other.write_bytes(bytes(path.stat().st_size))
    other.replace(path)
    rows.write("group/volume", 0, np.ones(24))
    assert rows.mapped("group/volume").all()
    assert not any(path.read_bytes())


def test_place_that_it_takes(made: tuple[Path, dict[str, Slot]], tmp_path: Path) -> None:
    """Messages use the name that it will get; until then it is written under its own, by any process."""
    path, slots = made
    named, target = tmp_path / "b.h5", tmp_path / "target"
    target.write_bytes(b"old")
    named.symlink_to(target)
    rows = pickle.loads(pickle.dumps(RowFile(path, slots, named)))
    rows.write("group/volume", 0, np.ones(24))
    assert target.read_bytes() == b"old"
    rows.take_place()
    assert not path.exists()
    assert named.readlink() == target
    assert np.array_equal(RowFile(named, slots).read("group/volume", 0, 24), np.ones(24))
    # it is not opened again: another one may have the name now
    with pytest.raises(UserError, match=r"b\.h5: cannot be written \(No such file"):
        rows.write("group/volume", 0, np.zeros(24))
    target.unlink()
    target.mkdir()
    path.touch()
    with pytest.raises(UserError, match=r"b\.h5: cannot be written \(Is a directory"):
        rows.take_place()


def test_pickled_it_is_opened_anew(made: tuple[Path, dict[str, Slot]]) -> None:
    rows = RowFile(*made)
    rows.write("group/volume", 3, np.array([7.0]))
    copy = pickle.loads(pickle.dumps(rows))
    assert copy.read("group/volume", 3, 4)[0] == 7
    copy.close()
    assert copy.read("group/volume", 3, 4)[0] == 7


def test_a_file_that_is_cut_off_or_gone(made: tuple[Path, dict[str, Slot]], tmp_path: Path) -> None:
    path, slots = made
    rows = RowFile(path, slots)
    with path.open("r+b") as file:
        file.truncate(slots["vectors"].offset + 5)
    with pytest.raises(UserError, match="is shorter than it was"):
        rows.read("vectors", 0, 2)
    gone = RowFile(tmp_path / "gone.h5", slots)
    with pytest.raises(FileNotFoundError):
        gone.hold()
    with pytest.raises(UserError, match=r"gone\.h5: cannot be written \(No such file"):
        gone.write("vectors", 0, np.zeros((1, 3)))
    with pytest.raises(UserError, match=r"gone\.h5: cannot be written \(No such file"):
        gone.write_at(0, b"text")


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4), (1, 1, 5)])
def test_ranges_of_rows_are_boxes(shape: tuple[int, ...]) -> None:
    numbers = np.arange(np.prod(shape)).reshape(shape)
    n = numbers.size
    for start in range(n):
        for stop in range(start + 1, n + 1):
            found = [numbers[box].ravel() for box in boxes(shape, start, stop)]
            assert len(found) <= 2 * len(shape) - 1
            assert np.array_equal(np.concatenate(found), np.arange(start, stop))
    for bad in ((0, 0), (-1, 2), (n, n + 1)):
        with pytest.raises(ValueError, match="there are no rows"):
            boxes(shape, *bad)
