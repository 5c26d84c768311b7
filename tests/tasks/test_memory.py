"""Bytes that pieces of work are said to need: not less than what numpy takes.

`tests/commands/test_peak_memory.py` measures whole runs.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpidvc.core.grid import make_grid
from mpidvc.core.pixel_search import SearchSettings
from mpidvc.core.registration import RegistrationSettings
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.tasks import ldic, memory, pixel_search
from mpidvc.tasks.ldic import NEAR, LdicSettings, LdicTask
from mpidvc.tasks.memory import PointSet
from mpidvc.tasks.pixel_search import PixelSearchTask
from mpidvc.tasks.registration import Pass, RegistrationTask
from mpidvc.tasks.warp import WarpTask
from tests.tasks.given import Given, phi_of

SHAPE, FLAT = (90, 120, 200), (1, 500, 600)


class Copied(ArrayImage):
    """An image whose boxes are read into memory of their own, as from a file."""

    def _read(self, box: Any) -> Any:
        return super()._read(box).copy()


def images_of(dtype: str, masked: bool, two_d: bool = False) -> ImagePair:
    values = np.random.default_rng(1).integers(0, 255, FLAT if two_d else SHAPE).astype(dtype)
    mask = Copied((values > 20).astype(np.uint8)) if masked else None
    return ImagePair(Copied(values), Copied(values), mask)


def peak(work: Callable[[], object]) -> int:
    """Most bytes that numpy holds at the same time; what the kernels take besides is not in it."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def middle(chunks: Any) -> Any:
    """The chunk with the most points."""
    return chunks.points(int(np.argmax(np.diff(chunks.start))))


@pytest.mark.parametrize("spread", [0.0, 15.0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("dtype", "order", "two_d"), [("uint8", 1, False), ("float32", 3, False), ("uint16", 3, True)])
def test_ldic(dtype: str, order: int, two_d: bool, masked: bool, spread: float) -> None:
    images = images_of(dtype, masked, two_d)
    hws, margin = ((0, 14, 14), (0, 3, 3)) if two_d else ((9, 9, 9), (3, 3, 3))
    settings = LdicSettings(RegistrationSettings(order=order, max_iterations=0), hws, margin)
    positions, _ = make_grid(images.image1.shape, (10, 10, 10))
    displacements = np.linspace(0, spread, len(positions))[:, None] * [not two_d, 1, 1]
    chunk = middle(ldic.make_chunks(positions, (10, 10, 10), settings, two_d))
    displacements[chunk] = np.linspace(0, spread, len(chunk))[:, None] * [not two_d, 1, 1]
    said = memory.ldic_bytes(
        images, PointSet(len(positions), (10, 10, 10), True, displacements, np.zeros((3, 3))), settings
    )
    task = LdicTask(images, Given(positions, phi_of(displacements), [chunk]), settings)
    taken = peak(lambda: task.run(0))
    assert taken <= said <= 2.5 * taken


@pytest.mark.parametrize("deformed", [False, True])
@pytest.mark.parametrize(
    ("dtype", "masked", "two_d"), [("uint8", True, False), ("float32", False, False), ("uint8", False, True)]
)
def test_search(dtype: str, masked: bool, two_d: bool, deformed: bool) -> None:
    images = images_of(dtype, masked, two_d)
    settings = SearchSettings(*(((0, 9, 9), (0, -3, -3), (0, 3, 3)) if two_d else ((8, 8, 8), (-3,) * 3, (3,) * 3)))
    positions, _ = make_grid(images.image1.shape, (12, 12, 12))
    gradient = np.zeros((3, 3))
    gradient[1, 2] = 0.02 * deformed
    phi = phi_of(np.zeros((len(positions), 3)))
    phi[:, :3, :3] += gradient
    chunk = middle(pixel_search.make_chunks(positions, (12, 12, 12), settings, two_d))
    said = memory.search_bytes(images, PointSet(len(positions), (12, 12, 12), True, None, gradient), settings)
    task = PixelSearchTask(images, Given(positions, phi, [chunk]), settings)
    taken = peak(lambda: task.run(0))
    # the kernel's own arrays are not seen here: they are most of a search
    assert taken <= said
    one = memory.search_bytes(images, PointSet(1, (12, 12, 12), True, None, gradient), settings)
    alone = PixelSearchTask(images, Given(positions[:1] + 30 * np.array([not two_d, 1, 1]), phi[:1]), settings)
    assert peak(lambda: alone.run(0)) <= one < said


@pytest.mark.parametrize("more", [{}, {"order": 3}, {"shift": True}, {"update_gradient": True}])
@pytest.mark.parametrize("masked", [False, True])
def test_registration(masked: bool, more: dict[str, Any]) -> None:
    images, settings = images_of("uint16", masked), RegistrationSettings(**more)
    said = memory.registration_bytes(images, settings, np.zeros((3, 3)))
    task = RegistrationTask(images, settings, (5, 5, 5))
    turned = np.eye(4)
    turned[1, 2], turned[2, 1] = 0.1, -0.1
    taken = peak(lambda: task.run_sum(0, Pass(turned, 1.0, 0.0)))
    # the kernel's own arrays are most of it
    assert taken <= said


@pytest.mark.parametrize(("dtype", "two_d"), [("uint8", False), ("float32", False), ("uint16", True)])
def test_warp(dtype: str, two_d: bool) -> None:
    image = images_of(dtype, False, two_d).image1
    turned = np.eye(4)
    turned[1, 2], turned[2, 1] = 0.1, -0.1
    task = WarpTask(image, turned, (np.array(image.shape) - 1) / 2, 1)
    taken = peak(lambda: task.run(0))
    assert taken <= memory.warp_bytes(image) <= 4 * taken


def test_spread_of_guesses() -> None:
    """By a field's own displacements, or what a gradient makes of the points' extent; never more than shares a box."""
    nothing = np.zeros((3, 3))
    np.testing.assert_array_equal(memory.spread_of(None, nothing, np.array([50.0, 60, 70])), [1, 1, 1])
    shear = np.array([[0, 0, 0.1], [0, -0.05, 0], [0, 0, 0]])
    np.testing.assert_allclose(memory.spread_of(None, shear, np.array([50.0, 60, 70])), [8, 4, 1])
    field = np.array([[0, 1, 2], [3, -4, 2.5], [np.nan, 0, 2]])
    np.testing.assert_allclose(memory.spread_of(field, shear, np.array([50.0, 60, 70])), [3, 5, 0.5])
    wild = np.array([[0, 0, np.inf], [1e9, 0, 0]])
    np.testing.assert_allclose(memory.spread_of(wild, nothing, np.zeros(3)), [2 * NEAR, 0, 2 * NEAR])
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(memory.spread_of(np.zeros((0, 3)), nothing, np.zeros(3)), [1, 1, 1])


def test_binned_images() -> None:
    """The largest is that binned by two; every bin has a float, or a byte of a mask."""
    image = ArrayImage(np.zeros((21, 30, 41), np.uint8))
    assert memory.tile_bytes(image, 1, False) == 0
    assert memory.tile_bytes(image, 4, False) == 10 * 15 * 20 * 4
    assert memory.tile_bytes(image, 2, True) == 10 * 15 * 20
    assert memory.tile_bytes(ArrayImage(np.zeros((30, 41), np.uint8)), 2, False) == 15 * 20 * 4


def test_fields_and_looks() -> None:
    rank, first = memory.field_bytes(1000)
    assert rank == 1000 * memory.ROW
    assert memory.field_bytes(10**8)[0] == memory.ROWS * memory.ROW
    assert memory.field_bytes(2000)[1] - first == 1000 * memory.POINT_RANK0
    assert memory.looking_bytes(None) == memory.GREY
    assert memory.looking_bytes(None, grey=False) == 0
    assert memory.looking_bytes((50, 60, 70), grey=False) == memory.TEXTURE * 101 * 121 * 141
    assert memory.looking_bytes((0, 1, 1)) == memory.GREY
