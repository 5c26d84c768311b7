"""The field that points are computed from; tests/commands/test_ranks.py shares one among ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpidvc.errors import AgreedError
from mpidvc.fields.phifield import PhiField
from mpidvc.kernels.neighbours import Points
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks import source as module
from mpidvc.tasks.source import Source, share_arrays, share_source, source_bytes
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


class Node:
    """This process as the only one of its node."""

    rank = 0

    def __init__(self, short: bool) -> None:
        self._short = short

    def allocate(self, size: int) -> np.ndarray:
        if self._short:
            raise AgreedError("no memory")
        return np.full(size, 7, np.uint8)


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("shape", [(31, 3), (25, 4), (1,), (0, 3), ()])
def test_copies_piece_by_piece(shape: Any, short: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that end within a number; where shared memory is short, in memory of this rank's own."""
    monkeypatch.setattr(module, "PIECE", 100)
    given = np.random.default_rng(1).normal(size=shape)
    sent: list[int] = []

    class Executor(InlineExecutor):
        def broadcast(self, value: Any) -> Any:
            sent.append(len(value))
            return value

    copy = module._copied(Executor(), Node(short), given, given.dtype, shape)  # type: ignore[arg-type]
    np.testing.assert_array_equal(copy, given)
    assert not copy.flags.writeable
    assert not np.shares_memory(copy, given)
    assert sent == [100] * (given.nbytes // 100) + [given.nbytes % 100] * (given.nbytes % 100 > 0)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("most", "small"), [(40, True), (39, False)])
def test_small_arrays_are_sent_at_once(rank: int, most: int, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory that a node shares; ranks other than 0 have nothing to give."""
    arrays, copies = {"a": np.arange(5.0)}, {"a": np.arange(5.0)}
    sent: list[Any] = []

    class Rank(InlineExecutor):
        size = 2

        def broadcast(self, value: Any) -> Any:
            sent.append(value)
            return [small, arrays][len(sent) - 1]

    monkeypatch.setattr(module, "SMALL", most)
    monkeypatch.setattr(module, "_copies", lambda *given: copies)
    assert share_arrays(Rank(), arrays if rank == 0 else None) is (arrays if small else copies)
    assert sent[0] is (small and rank == 0)
    assert len(sent) == 1 + small
