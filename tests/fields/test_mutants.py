"""A damaged field is read, or refused by one line: no other exception, no wait, no memory beyond reason."""

import re

import numpy as np
import pytest

from mpidvc.fields.hdf5 import write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.read import read_field
from mpidvc.fields.tsv import write_tsv
from tests.mutants import COUNT, hdf5_fields, mutants, text_fields, trials

from .test_phifield import marked


def read(path):
    """Read a field and look at all of it."""
    field = read_field(path)
    assert field.phi.shape == (len(field), 4, 4)
    assert field.dims is None or np.prod(field.dims) == len(field)
    for name in field.names:
        assert field[name].shape == (len(field),)
        assert field[name].dtype == np.float64
    assert all(mask.shape == (len(field),) for mask in field.statuses.values())
    return field


def _points(layout):
    grid = marked()
    return PhiField(grid.positions + 0.25, grid.phi, grid.columns, layout)


def _guess(path):
    path.write_text("Ypos, Xpos, Ydisp, Xdisp\n" + "".join(f"{y}, {2 * y}, 0.5, -1e-3\n" for y in range(20)))


KINDS = {
    "tsv": lambda path: write_tsv(path, marked(), "LDIC"),
    "labels": lambda path: write_tsv(path, _points("labels"), "DDIC"),
    "guess": _guess,
    "grid": lambda path: write_hdf5(path, marked(), 0.5, "mm", {"command": "ldic", "determines": "{}"}),
    "points": lambda path: write_hdf5(path, _points("points")),
}


@pytest.mark.parametrize("length", [0, 2**64 - 16, 2**64 - 1, 2**20])
def test_texts_without_end(tmp_path, length):
    """HDF5 2.0.0 never returns from a heap with an object that has no length."""
    write_hdf5(tmp_path / "whole", marked(), 1.0, "voxel", {"command": "ldic", "determines": "x" * 5000})
    content = (tmp_path / "whole").read_bytes()
    paths = []
    for found in re.finditer(b"GCOL", content):
        at, end = found.start() + 16, found.start() + int.from_bytes(content[found.start() + 8 :][:8], "little")
        while at + 16 <= end:
            paths.append(tmp_path / f"{at}")
            paths[-1].write_bytes(content[: at + 8] + length.to_bytes(8, "little") + content[at + 16 :])
            own = int.from_bytes(content[at + 8 : at + 16], "little")
            at += -(-own // 8) * 8 + (16 if content[at : at + 2] != b"\0\0" else 0)
    assert len(paths) > 8
    for path, outcome in zip(paths, trials("tests.fields.test_mutants:read", paths), strict=True):
        assert outcome.kind == "refused", f"{path}: {outcome.kind} {outcome.text}"


@pytest.mark.parametrize("kind", KINDS)
def test_mutants(tmp_path, kind):
    KINDS[kind](tmp_path / "whole")
    read(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    fields = hdf5_fields(tmp_path / "whole") if kind in ("grid", "points") else text_fields(content)
    paths, damages = [], []
    for number, mutant in enumerate(mutants(content, COUNT, seed=9, fields=fields)):
        paths.append(tmp_path / f"{number}.field")
        paths[-1].write_bytes(mutant.content)
        damages.append(mutant.damage)
    outcomes = list(trials("tests.fields.test_mutants:read", paths))
    assert len(outcomes) == COUNT
    for number, (damage, outcome) in enumerate(zip(damages, outcomes, strict=True)):
        assert outcome.kind in ("read", "refused"), f"mutant {number}: {damage}: {outcome.kind} {outcome.text}"
        if outcome.kind == "refused":
            assert outcome.text.startswith(f"field {paths[number]}: "), f"{damage}: {outcome.text}"
            assert "\n" not in outcome.text
            assert len(outcome.text) < 600
    kinds = [outcome.kind for outcome in outcomes]
    # both must happen, or the mutants are no test
    assert {"read", "refused"} == set(kinds)
