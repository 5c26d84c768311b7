"""Bytes that pieces of work are said to need: not less than what numpy takes.

`tests/commands/test_peak_memory.py` measures whole runs.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mpidvc.arrays import Array
from mpidvc.core.grid import chunk_points, make_grid
from mpidvc.core.pixel_search import LabelSearchSettings, SearchSettings
from mpidvc.core.registration import RegistrationSettings
from mpidvc.core.uncertainty import LAGS
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks import ddic, deform, ldic, memory, pixel_search
from mpidvc.tasks.adaptive import FITS, SUMS, AdaptiveSettings, SizeChoice
from mpidvc.tasks.ddic import DdicSettings, DdicTask
from mpidvc.tasks.deform import DeformTask, Motion, NearestMotion, Residual, WholeMotion
from mpidvc.tasks.labels import measure_labels
from mpidvc.tasks.ldic import NEAR, LdicSettings, LdicTask
from mpidvc.tasks.memory import PointSet
from mpidvc.tasks.pixel_search import PixelSearchTask
from mpidvc.tasks.registration import Pass, RegistrationTask, block_of
from mpidvc.tasks.source import Source
from tests.tasks.given import Given, Watched, phi_of, scattered
from tests.tasks.test_adaptive import facts_of

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
    chunk = middle(chunk_points(positions, ldic.brick(len(positions), (10, 10, 10), settings, two_d)))
    displacements[chunk] = np.linspace(0, spread, len(chunk))[:, None] * [not two_d, 1, 1]
    said = memory.ldic_bytes(
        images, PointSet(len(positions), (10, 10, 10), True, displacements, np.zeros((3, 3))), settings
    )
    task = LdicTask(images, Given(positions, phi_of(displacements), [chunk]), settings)
    taken = peak(lambda: task.run(0))
    assert taken <= said <= 2.5 * taken


@pytest.mark.parametrize(("dtype", "order", "two_d"), [("uint8", 1, False), ("float32", 3, False), ("uint16", 3, True)])
def test_ldic_from_neighbours_whose_motion_is_searched(dtype: str, order: int, two_d: bool) -> None:
    """Images without a relation: nothing converges, and the motion of the whole chunk is searched."""
    random = np.random.default_rng(2)
    images = ImagePair(*(Copied(random.integers(0, 255, FLAT if two_d else SHAPE).astype(dtype)) for _ in "12"), None)
    said, taken = from_neighbours(images, order, 1, np.zeros(3))
    # points might have left their guess for others that are far apart, and what the kernel takes is not seen
    assert taken <= said <= 3.5 * taken


@pytest.mark.parametrize(("dtype", "order", "two_d"), [("uint8", 1, False), ("float32", 3, False), ("uint16", 3, True)])
def test_ldic_from_neighbours_that_are_far_apart(dtype: str, order: int, two_d: bool) -> None:
    """Guesses of a quarter of the points lead them as far apart as points may be that share a box."""
    images = images_of(dtype, False, two_d)
    said, taken = from_neighbours(images, order, 30, np.array([0.0 if two_d else 15.0, 15.0, 15.0]))
    # in 2D their motion as a whole is not searched, for which the memory is
    assert taken <= said <= 3.5 * taken


def from_neighbours(images: ImagePair, order: int, iterations: int, apart: Array) -> tuple[int, int]:
    """Bytes that are said, and taken, of a chunk in which every fourth point is guessed to move so far, to and fro."""
    two_d = images.two_d
    hws, margin = ((0, 14, 14), (0, 3, 3)) if two_d else ((9, 9, 9), (3, 3, 3))
    registration = RegistrationSettings(order=order, max_iterations=iterations)
    settings = LdicSettings(registration, hws, margin, spacing=(10.0, 10.0, 10.0))
    positions, _ = make_grid(images.image1.shape, (10, 10, 10))
    chunk = middle(chunk_points(positions, ldic.brick(len(positions), (10, 10, 10), settings, two_d)))
    points = PointSet(len(positions), (10, 10, 10), True, None, np.zeros((3, 3)))
    displacements = np.zeros_like(positions)
    displacements[chunk[::8]], displacements[chunk[4::8]] = apart, -apart
    task = LdicTask(images, Given(positions, phi_of(displacements), [chunk]), settings)
    # scratch memory included, which a task takes once
    return memory.ldic_bytes(images, points, settings), peak(lambda: task.run(0))


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("order", "two_d"), [(1, False), (3, False), (1, True), (3, True)])
def test_ldic_with_windows_per_point(order: int, two_d: bool, masked: bool, curved: bool) -> None:
    """White noise in both images: no window will do, so that every one is as large as they get."""
    images = images_of("float32", masked, two_d)
    most = 14 if two_d else 9
    adaptive = AdaptiveSettings(1e-9, 3, most, 10.0)
    hws, margin = ((0, most, most), (0, 3, 3)) if two_d else ((most,) * 3, (3, 3, 3))
    settings = LdicSettings(RegistrationSettings(order=order, max_iterations=0), hws, margin, adaptive=adaptive)
    positions, _ = make_grid(images.image1.shape, (10, 10, 10))
    phi = phi_of(np.zeros_like(positions))
    chunk = middle(chunk_points(positions, ldic.brick(len(positions), (10, 10, 10), settings, two_d)))
    displacements = np.zeros_like(positions) if curved else None
    points = PointSet(len(positions), (10, 10, 10), True, displacements, np.zeros((3, 3)))
    choice = SizeChoice(adaptive, facts_of(two_d, order), order, Source(PhiField(positions, phi)) if curved else None)
    task = LdicTask(images, Given(positions, phi, [chunk]), settings, None, choice)
    sizes = []
    taken = peak(lambda: sizes.append(task.run(0)["result"][:, -2]))
    assert (sizes[0] == most).all()
    # sums and fits of the largest chunk are as much as all else of this one
    slack = SUMS + (FITS if curved else 0)
    assert taken <= memory.ldic_bytes(images, points, settings) <= 2.5 * taken + slack


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
    chunk = middle(chunk_points(positions, pixel_search.brick(len(positions), (12, 12, 12), settings, two_d)))
    said = memory.search_bytes(images, PointSet(len(positions), (12, 12, 12), True, None, gradient), settings)
    task = PixelSearchTask(images, Given(positions, phi, [chunk]), settings)
    taken = peak(lambda: task.run(0))
    # the kernel's own arrays are not seen here: they are most of a search
    assert taken <= said
    one = memory.search_bytes(images, PointSet(1, (12, 12, 12), True, None, gradient), settings)
    alone = PixelSearchTask(images, Given(positions[:1] + 30 * np.array([not two_d, 1, 1]), phi[:1]), settings)
    assert peak(lambda: alone.run(0)) <= one < said


@pytest.mark.parametrize(
    ("dtype", "more", "two_d"),
    [("uint8", {}, False), ("float32", {"order": 3}, False), ("uint16", {"shift": True}, False), ("uint8", {}, True)],
)
def test_ddic(dtype: str, more: dict[str, Any], two_d: bool) -> None:
    """Of the label whose boxes are the largest, beside one that is smaller and one that is not measured."""
    values = images_of(dtype, False, two_d)
    numbers = np.zeros(values.image1.shape, np.uint8)
    numbers[..., 20:80, 30:90] = 1
    numbers[..., 20:80, 100:110] = 2
    numbers[..., 5:88, 120:195] = 3
    if not two_d:
        numbers[:20] = numbers[70:] = 0
    images = ImagePair(values.image1, values.image2, Copied(numbers))
    assert images.mask1 is not None
    labels = measure_labels(InlineExecutor(), images.mask1)
    settings, nothing = DdicSettings(RegistrationSettings(max_iterations=0, **more)), np.zeros((3, 3))
    measured = np.array([1, 2])
    chunks = ddic.make_chunks(labels, measured[:1], settings)
    task = DdicTask(images, labels, chunks, Given(labels.centre[[1]], phi_of(np.zeros((1, 3)))), settings)
    table = memory.ddic_bytes(images, labels, measured[:0], settings, nothing)
    assert table == memory.LABEL * 4
    said = memory.ddic_bytes(images, labels, measured, settings, nothing) - table
    taken = peak(lambda: task.run(0))
    # the kernel's own arrays, seven floats for a voxel of the window at least, are not seen here
    low, high = labels.mask_boxes(np.array([1]), settings.dilate)
    own = 28 * int(np.prod(high - low))
    assert taken + own <= said <= 2.2 * (taken + own)
    assert memory.ddic_bytes(images, labels, np.array([2]), settings, nothing) - table < said
    # a label that is binned, or is too large for a window, is registered by blocks
    blocks = memory.registration_bytes(images, settings.registration, nothing)
    binned = replace(settings, binning=2)
    assert memory.ddic_bytes(images, labels, measured, binned, nothing) - table == max(blocks, said)
    search = LabelSearchSettings((0, -2, -2), (0, 2, 2))
    assert memory.label_search_bytes(images, labels, np.zeros((0, 3), np.int64), search, False) == table


def test_labels_whose_windows_are_the_whole_image() -> None:
    """With a margin beyond the image; the label that is compared with it in most voxels is not the first."""
    values = images_of("uint8", False, False)
    numbers = np.zeros(values.image1.shape, np.uint8)
    numbers[30:36, 40:46, 20:26] = 1
    numbers[10:80, 10:80, 50:150] = 2
    images = ImagePair(values.image1, values.image2, Copied(numbers))
    assert images.mask1 is not None
    labels = measure_labels(InlineExecutor(), images.mask1)
    settings = DdicSettings(RegistrationSettings(order=3, max_iterations=0), margin=200)
    chunks = ddic.make_chunks(labels, np.array([2]), settings)
    task = DdicTask(images, labels, chunks, Given(labels.centre[[2]], phi_of(np.zeros((1, 3)))), settings)
    said = memory.ddic_bytes(images, labels, np.array([1, 2]), settings, np.zeros((3, 3))) - memory.LABEL * 3
    taken = peak(lambda: task.run(0))
    low, high = labels.mask_boxes(np.array([2]), settings.dilate)
    own = 28 * int(np.prod(high - low))
    assert taken + own <= said <= 2.2 * (taken + own)


@pytest.mark.parametrize("shift", [False, True])
def test_box_of_a_label(shift: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of image 1, for which memory is counted, is the one that is read: not less, and not by much more."""
    values, numbers = np.random.default_rng(1).integers(0, 255, (40, 44, 48)), np.zeros((40, 44, 48), np.uint8)
    numbers[16:20, 15:28, 15:30] = 1
    images = ImagePair(Watched(values.astype(np.uint8)), Watched(values.astype(np.uint8)), ArrayImage(numbers))
    assert images.mask1 is not None
    labels = measure_labels(InlineExecutor(), images.mask1)
    settings = DdicSettings(RegistrationSettings(shift=shift, max_iterations=0))
    counted: list[int] = []
    monkeypatch.setattr(memory, "_work", lambda _, box1, *more: counted.append(int(np.prod(box1))) or 0)
    memory.ddic_bytes(images, labels, labels.numbers, settings, np.zeros((3, 3)))
    chunks = ddic.make_chunks(labels, labels.numbers, settings)
    DdicTask(images, labels, chunks, Given(labels.centre[1:], phi_of(np.zeros((1, 3)))), settings).run(0)
    assert isinstance(images.image1, Watched)
    assert max(images.image1.boxes) <= counted[0] <= 1.5 * max(images.image1.boxes)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_deformed_image(whole: bool, residual: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the part of an image that is always allowed for: it is larger than these images."""
    monkeypatch.setattr(deform, "AROUND", 0)
    shape = (20, 60, 100)
    image = Copied(np.random.default_rng(1).integers(0, 255, shape).astype(np.uint16))
    turned = np.eye(4)
    turned[1, 2], turned[2, 1] = 0.1, -0.1
    motion: Motion = WholeMotion(turned, np.array([10.0, 30.0, 50.0]), 1)
    if not whole:
        motion = NearestMotion(*scattered(shape, 40), 4, False, 1, False)
    task = DeformTask(image, motion, None, Residual(image, 1.0, 0.0) if residual else None)
    said, result = memory.deform_bytes(image, motion, residual)
    assert result == np.prod(shape) * (6 if residual else 2)
    taken = peak(lambda: task.run(0))
    assert taken <= said <= 4 * taken


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


def scratch_of(
    n: tuple[int, int, int], update_gradient: bool, shift: bool, reach: int, boxed: bool, errors: bool = False
) -> int:
    """Bytes of the kernel's arrays for n compared voxels, counted one by one (``gauss_newton/window.hpp``, in 3D)."""

    def rows(shape: list[int]) -> int:
        return shape[0] * shape[1] * (-(-shape[2] // 8) * 8) + 64

    def gaussian(shape: list[int]) -> int:
        """Two smoothed planes, and three rows."""
        _, y, x = shape
        return (2 * (y + 2 * reach) + 3) * (x + 2 * reach) if reach > 1 else 0

    if boxed and not update_gradient and not shift and reach == 1:
        return 4 * 3 * rows(list(n))  # two weights, residual
    # grey levels, three gradients, two weights, residual; three more gradients beside Gaussian ones
    floats = (7 if reach == 1 else 10) * rows(list(n))
    if update_gradient:
        floats += 2 * rows([k + 2 * (reach + shift) for k in n])
    around = [k + 2 for k in n]
    if shift:
        floats += 3 * around[0] * around[1] * around[2]
    if errors:
        # gradients of image 2, and one with a frame of the noise's reach
        floats += 3 * rows(list(n)) + rows([k + 2 * LAGS for k in n])
    return 4 * (floats + gaussian(around if shift else list(n)))


@pytest.mark.parametrize("sigma", [None, 1.0, 2.0])
@pytest.mark.parametrize(("update_gradient", "shift"), [(False, False), (True, False), (False, True)])
def test_scratch_of_the_kernel(update_gradient: bool, shift: bool, sigma: float | None) -> None:
    """Of blocks of a registration, not more than half as much again; of windows of ldic, a few MB, at least enough.

    A window compares fewer voxels than its size.
    """
    settings = RegistrationSettings(update_gradient=update_gradient, shift=shift, sigma=sigma)
    reach = settings.for_kernels(False).gradient_reach
    assert reach == (1 if sigma is None else 4 * sigma)
    block = block_of(settings, False)
    needed = scratch_of(block, update_gradient, shift, reach, True)
    assert needed <= memory._kernel(np.array(block, float), settings, reach, boxed=True) <= 1.5 * needed
    for hws in (5, 10, 15):
        needed = scratch_of((2 * hws - 1,) * 3, update_gradient, shift, reach, False)
        said = memory._kernel(np.full(3, 2.0 * hws + 1), settings, reach)
        assert needed <= said
        errors = scratch_of((2 * hws - 1,) * 3, update_gradient, shift, reach, False, errors=True) - needed
        more = memory._kernel(np.full(3, 2.0 * hws + 1), settings, reach, errors=True) - said
        assert errors <= more <= 3 * errors


@pytest.mark.parametrize(("dtype", "two_d"), [("uint8", False), ("float32", False), ("uint16", True)])
def test_image_deformed_by_one_phi(dtype: str, two_d: bool) -> None:
    image = images_of(dtype, False, two_d).image1
    turned = np.eye(4)
    turned[1, 2], turned[2, 1] = 0.1, -0.1
    motion = WholeMotion(turned, (np.array(image.shape) - 1) / 2, 1)
    task = DeformTask(image, motion)
    taken = peak(lambda: task.run(0))
    assert taken <= memory.deform_bytes(image, motion, False)[0] <= 4 * taken


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


def test_slices() -> None:
    assert memory.middle_slices((1, 20, 30)) == 600
    assert memory.middle_slices((10, 20, 30)) == 600 + 300 + 200
