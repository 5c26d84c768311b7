"""The trials themselves: they see what goes wrong."""

import json
import os
import signal
import struct
import time

import h5py
import numpy as np
import tifffile

from mpidvc.errors import UserError
from tests.mutants import hdf5_fields, mutants, text_fields, tiff_fields, trials


def behave(path):
    """What the path says."""
    if path == "refuse":
        raise UserError("one line")
    if path == "fail":
        raise KeyError(path)
    if path == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path == "end":
        os._exit(0)
    if path == "wait":
        time.sleep(600)
    if path == "allocate":
        np.ones(2**28, "f8")
    print("remarks")
    return f"{path} read"


def test_trials():
    paths = ["good", "crash", "refuse", "wait", "fail", "allocate", "end", "again"]
    ends = list(trials("tests.test_mutants:behave", paths, seconds=5))
    kinds = ["read", "killed", "refused", "late", "failed", "failed", "killed", "read"]
    assert [end.kind for end in ends] == kinds
    assert [ends[i].text for i in (0, 2, 7)] == ["good read", "one line", "again read"]
    assert "KeyError" in ends[4].text
    assert "MemoryError" in ends[5].text
    assert 5 <= ends[3].seconds < 600


def test_mutants_are_others_and_the_same_again():
    content = json.dumps({"a": [1, 2.5, "text"], "b": None}).encode()
    fields = text_fields(content)
    assert [content[field.offset : field.offset + field.size] for field in fields] == [
        *(b'"a"', b"1", b"2.5", b'"text"', b'"b"', b"null")
    ]
    first = list(mutants(content, 60, 3, fields))
    assert first == list(mutants(content, 60, 3, fields))
    assert first[:20] == list(mutants(content, 20, 3, fields))
    assert first != list(mutants(content, 60, 4, fields))
    assert all(mutant.content != content for mutant in first)
    assert len({mutant.content for mutant in first}) > 50
    assert len({len(mutant.content) for mutant in mutants(bytes(1000), 60, 3)}) > 20


def test_fields_of_tiff(tmp_path):
    path = tmp_path / "a.tif"
    for order, big in (("<", False), (">", True)):
        with tifffile.TiffWriter(path, byteorder=order, bigtiff=big) as tif:
            for _ in range(3):
                tif.write(np.zeros((40, 37), "u2"), metadata=None, contiguous=False)
        content = path.read_bytes()
        fields = tiff_fields(content)
        for tag, value in ((256, 37), (257, 40)):
            places = [field.offset for field in fields if field.name == f"value of tag {tag}"]
            assert [struct.unpack_from(f"{order}I", content, place)[0] for place in places] == [value] * 3
        (*_, end) = (field.offset for field in fields if field.name == "next directory")
        assert content[end : end + (8 if big else 4)] == bytes(8 if big else 4)


def test_fields_of_hdf5(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["entry/volume"] = np.zeros((6, 40, 37), "u2")
        place = file["entry/volume"].id.get_offset()
    content = path.read_bytes()
    values = {
        int.from_bytes(content[field.offset : field.offset + 8], "little")
        for field in hdf5_fields(path)
        if field.size == 8
    }
    assert {6, 40, 37, place, len(content), 6 * 40 * 37 * 2} <= values
