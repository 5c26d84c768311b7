"""The field that points are computed from: in one process, and what every rank gets of it."""

from __future__ import annotations

import numpy as np

from mpidvc.kernels.neighbours import Points
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks import source
from mpidvc.tasks.source import Source, share_source, source_bytes
from tests.conftest import Job
from tests.core.brute import BruteForce
from tests.tasks import source_program
from tests.tasks.source_program import CENTRES, digest, field_of


def test_points_are_those_of_the_field() -> None:
    """By a tree of its own, or by one that is there already."""
    field = field_of(300)
    expected = BruteForce(field.positions).nearest(CENTRES, 5)
    for given in (Source(field), Source(field, Points(field.positions).tree)):
        np.testing.assert_array_equal(given.points.nearest(CENTRES, 5), expected)
        assert given.points is given.points


def test_bytes() -> None:
    """Positions and Phi are 19 doubles, and here are two columns, of 8 bytes and of 1 byte; the tree needs no more."""
    field = field_of(1000)
    assert source_bytes(field) - 1000 * (19 * 8 + 8 + 1) == 1000 * source.TREE
    order, nodes = Points(field.positions).tree
    assert 0 < order.nbytes + nodes.nbytes <= 1000 * source.TREE


def test_one_process_keeps_its_field() -> None:
    field = field_of(10)
    found = share_source(InlineExecutor(), field)
    assert found is not None
    assert found.field is field
    assert share_source(InlineExecutor(), None) is None


def test_every_rank_has_the_field(mpiexec: Job) -> None:
    """A copy of a small one, and shared memory, which cannot be written to, of a large one; none if there is none."""
    large = field_of(source_program.LARGE)
    assert source_bytes(field_of(source_program.LITTLE)) < source.SMALL < source_bytes(large)
    # several pieces, the last of which is not full
    assert large.phi.nbytes % source_program.PIECE
    done = mpiexec(3, source_program.__file__)
    assert (done.returncode, done.stderr) == (0, "")
    lines = sorted(done.stdout.splitlines())
    expected = []
    for rank in range(3):
        expected.append(f"{rank} none: None")
        for name, n, shared in (("little", source_program.LITTLE, False), ("large", source_program.LARGE, True)):
            field = field_of(n)
            near = BruteForce(field.positions).nearest(CENTRES, 4)
            expected.append(f"{rank} {name}: {digest(field, near)} {shared}")
    assert lines == sorted(expected)
