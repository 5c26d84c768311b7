"""Scores of stacks in chunks: the matches of the images one by one, and no image read but for its match."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.core.phase_correlation import Reference
from mpidvc.images.image import ArrayImage
from mpidvc.tasks import stacks
from mpidvc.tasks.stacks import StackTask


class Counted(ArrayImage):
    """Notes the boxes that are read."""

    def __init__(self, array: np.ndarray, path: str) -> None:
        super().__init__(array, path)
        self.boxes: list[tuple[int, ...]] = []

    def read_box(self, low, high):
        self.boxes.append((*low, *high))
        return super().read_box(low, high)


def test_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "CHUNK", 4)
    random = np.random.default_rng(1)
    given = [Counted(random.normal(size=(n, 8, 9)), f"{n}") for n in (9, 4)]
    task = StackTask(given)
    assert [task.images_of(chunk) for chunk in range(task.n_chunks)] == [
        (0, range(4)),
        (0, range(4, 8)),
        (0, range(8, 9)),
        (1, range(4)),
    ]
    # as ranks do them: in any order
    found = {chunk: task.run(chunk) for chunk in (1, 2, 0, 3)}
    for chunk, matches in found.items():
        number, images = task.images_of(chunk)
        reference = Reference(given[number].array[0])
        assert matches == [reference.match(given[number].array[k]) for k in images]
    for stack in given:
        n, ny, nx = stack.shape
        planes = [k for k, *_ in stack.boxes]
        assert stack.boxes == [(k, 0, 0, k + 1, ny, nx) for k in planes]
        # the first one once more, as the reference
        assert sorted(planes) == [0, *range(n)]
