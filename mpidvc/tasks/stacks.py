"""Scores of stacks of images: chunks of images, each matched with the first one of its stack."""

from __future__ import annotations

from collections.abc import Sequence

from mpidvc.core.phase_correlation import Match, Reference
from mpidvc.images.stack import Stack, plane_of

__all__ = ["StackTask"]

#: Images of a chunk: the first image of a stack is transformed once by every rank, or for each other stack it meets.
CHUNK = 32


class StackTask:
    """Matches of the images of stacks with their first ones; images are read one at a time.

    Parameters
    ----------
    stacks : sequence of Stack
    """

    def __init__(self, stacks: Sequence[Stack]) -> None:
        self._stacks = stacks
        self._chunks = [
            (number, range(first, min(first + CHUNK, stack.shape[0])))
            for number, stack in enumerate(stacks)
            for first in range(0, stack.shape[0], CHUNK)
        ]
        self.n_chunks = len(self._chunks)
        self._reference: tuple[int, Reference] | None = None

    def images_of(self, chunk: int) -> tuple[int, range]:
        """Stack and images of a chunk."""
        return self._chunks[chunk]

    def run(self, chunk: int) -> list[Match]:
        """The matches of a chunk, in the order of its images."""
        number, images = self._chunks[chunk]
        stack = self._stacks[number]
        if self._reference is None or self._reference[0] != number:
            self._reference = number, Reference(plane_of(stack, 0))
        reference = self._reference[1]
        return [reference.match(plane_of(stack, k)) for k in images]
