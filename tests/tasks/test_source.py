"""The field that points are computed from; tests/commands/test_ranks.py shares one among ranks."""

from __future__ import annotations

import numpy as np

from mpidvc.fields.phifield import PhiField
from mpidvc.kernels.neighbours import Points
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks.source import Source, share_source, source_bytes
from tests.tasks.given import scattered


def test_one_process_has_the_field_itself() -> None:
    field = PhiField(*scattered((20, 20, 20), 200))
    source = share_source(InlineExecutor(), field)
    assert source is not None
    assert source.field is field
    assert share_source(InlineExecutor(), None) is None


def test_neighbours_in_a_tree_that_was_made_before() -> None:
    field = PhiField(*scattered((20, 20, 20), 200))
    tree = Points(field.positions).tree
    distance = np.linalg.norm(field.positions[:, None] - field.positions, axis=2)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :7]
    for source in (Source(field), Source(field, tree)):
        np.testing.assert_array_equal(source.points.nearest(field.positions, 7), nearest)


def test_bytes_are_an_upper_bound() -> None:
    """Of the arrays and of the tree; for many points, as it matters for these only."""
    field = PhiField(*scattered((90, 90, 90), 20000), {"returnStatus": np.ones(20000)})
    held = (
        field.positions.nbytes
        + field.phi.nbytes
        + 8 * 20000
        + sum(part.nbytes for part in Points(field.positions).tree)
    )
    assert held <= source_bytes(field) <= 1.3 * held
