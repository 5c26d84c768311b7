"""Places that voxels of a deformed image come from, against the formula over all points."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.kernels import processor
from mpidvc.tasks.deform import NearestMotion
from tests.tasks.given import brute_places, scattered


@pytest.mark.parametrize(("nn", "disp"), [(8, False), (1, False), (5, True), (30, False)])
def test_places_are_those_of_the_formula(nn: int, disp: bool) -> None:
    shape = (7, 9, 8)
    positions, phi = scattered(shape, 30)
    # beyond the image too, with points far away
    found = NearestMotion(positions, phi, nn, disp, 1, False).places((0, 0, 0), shape, None)
    np.testing.assert_allclose(
        np.moveaxis(found, 0, -1), brute_places(shape, positions, phi, nn, disp), rtol=0, atol=1e-11
    )


def test_equally_near_points_count_by_index() -> None:
    """On a grid that moves by whole voxels most voxels have ties; blocks of any size give the same bits."""
    axis = np.arange(1, 13, 4.0)
    positions = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    phi = np.tile(np.eye(4), (27, 1, 1))
    phi[:, :3, 3] = np.random.default_rng(3).integers(-1, 2, (27, 3))
    expected = brute_places((12, 12, 12), positions, phi, 3, False)
    motion = NearestMotion(positions, phi, 3, False, 1, False)
    first = motion.places((0, 0, 0), (12, 12, 12), None)
    np.testing.assert_allclose(np.moveaxis(first, 0, -1), expected, rtol=0, atol=1e-12)
    for edge in ((1, 1, 1), (5, 3, 7), (12, 12, 12)):
        motion.edge = edge
        np.testing.assert_array_equal(motion.places((0, 0, 0), (12, 12, 12), None), first)
    np.testing.assert_array_equal(motion.places((3, 0, 5), (4, 6, 7), None), first[:, 3:7, :6, 5:])


@pytest.mark.parametrize("nn", [8, 5])
def test_instruction_sets_give_the_same_bits(nn: int) -> None:
    shape = (5, 9, 19)
    positions, phi = scattered(shape, 40)
    wanted = (np.random.default_rng(2).random(shape) < 0.7).astype(np.uint8)
    motion = NearestMotion(positions, phi, nn, False, 1, False)
    before, found = processor.instruction_set(), []
    try:
        for name in processor.instruction_sets():
            processor.use_instruction_set(name)
            found.append((motion.places((0, 0, 0), shape, None), motion.places((0, 0, 0), shape, wanted)))
    finally:
        processor.use_instruction_set(before)
    for whole, part in found:
        np.testing.assert_array_equal(whole, found[0][0])
        np.testing.assert_array_equal(part, np.where(wanted, whole, np.nan))
