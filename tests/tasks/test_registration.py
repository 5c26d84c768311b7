"""Registration of whole images: sums of blocks against those of the whole image in float64, and levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core import deformation
from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.registration import BlockSums, RegistrationSettings
from mpidvc.errors import UserError
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks import registration
from mpidvc.tasks.registration import LevelSettings, Pass, RegistrationTask, mask_centre, register_multiscale
from tests.kernels.oracle import DIMENSIONS, LEVEL, Pair, texture

SHAPE, FLAT = (22, 25, 38), (1, 44, 52)
PHI = deformation.compute_phi((0.7, -1.2, 0.4), (2, -1, 3), np.diag([1.01, 0.98, 1.02]))
PHI_2D = deformation.compute_phi((0, -1.2, 0.4), (2, 0, 0), np.diag([1, 0.98, 1.02]))


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks along every axis, the last ones smaller than the others."""
    monkeypatch.setattr(registration, "BLOCK", (8, 9, 13))
    monkeypatch.setattr(registration, "STORED_BLOCK", (7, 20, 11))
    monkeypatch.setattr(registration, "BLOCK_2D", (1, 17, 23))


def images_of(pair: Pair, mask: np.ndarray | None = None) -> ImagePair:
    one, two = (ArrayImage(image.astype(np.float32)) for image in (pair.im1, pair.im2))
    return ImagePair(one, two, None if mask is None else ArrayImage(mask))


def usable_of(im1: np.ndarray, mask: np.ndarray | None, settings: RegistrationSettings) -> np.ndarray:
    """Voxels that are compared: not masked, and their gradient touches only voxels that exist."""
    reach = 1 if settings.sigma is None else max(1, int(4 * settings.sigma + 0.5))
    touched = ndimage.generate_binary_structure(3, 1)
    if settings.sigma is not None or settings.shift:
        touched = np.ones((2 * (reach + settings.shift) + 1,) * 3, bool)
    if im1.shape[0] == 1:
        touched = touched[len(touched) // 2][None]
    usable = ndimage.binary_erosion(np.isfinite(im1), touched)
    return usable if mask is None else usable & (mask != 0)


KINDS: dict[str, dict[str, Any]] = {
    "ssd": {"criterion": "ssd"},
    "znssd": {},
    "cubic": {"order": 3},
    "updated gradient": {"update_gradient": True},
    "gaussian": {"sigma": 0.6},
    "gaussian updated": {"sigma": 0.6, "update_gradient": True},
    "shift": {"shift": True},
    "shift cubic": {"shift": True, "order": 3},
}


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spoiled", [False, True])
@DIMENSIONS
def test_blocks_add_up_to_the_whole_image(two_d, spoiled, kind):
    """Sums about the image's centre, whatever the blocks; with a mask, holes in both images, parts that fall out."""
    settings = RegistrationSettings(**{"criterion": "znssd", "level": LEVEL} | KINDS[kind])
    shape = FLAT if two_d else SHAPE
    im1, im2 = texture(1, shape).copy(), texture(2, shape).copy()
    mask = None
    if spoiled:
        random = np.random.default_rng(3)
        mask = (random.random(shape) < 0.8).astype(np.uint8)
        im1[random.random(shape) < 0.002] = np.nan
        if settings.order == 1:
            im2[random.random(shape) < 0.002] = np.inf
    margin = (0 if two_d else 4, 5, 4)
    gain, bias = (1.0, 0.0) if kind == "ssd" else (1.1, -8.0)
    phi = PHI_2D if two_d else PHI
    task = RegistrationTask(images_of(Pair(im1, im2), mask), settings, margin)
    assert task.n_chunks >= 4
    total = sum(task.run_sum(chunk, Pass(phi, gain, bias)) for chunk in range(task.n_chunks))

    whole = Pair(
        np.nan_to_num(im1, nan=LEVEL),
        np.nan_to_num(im2, posinf=LEVEL),
        settings.order,
        settings.sigma,
        usable=usable_of(im1, mask, settings),
        valid2=np.isfinite(im2) if not np.isfinite(im2).all() else None,
    )
    centre = (np.array(shape) - 1) / 2
    n = np.array(shape) - 2 * np.array(margin)
    index = None
    if settings.shift:
        first = (margin[0] * shape[1] + margin[1]) * shape[2] + margin[2]
        index = (first, shape[2], shape[1] * shape[2])
    window = whole.window(margin, n, phi[:3, :3], centre + phi[:3, 3], gain, bias, settings.update_gradient, index)
    assert 0.3 < window.data.mean() <= 1
    expected, size = (BlockSums.of(window.sums(LEVEL, absolute)).packed() for absolute in (False, True))
    if kind == "ssd":
        expected[18:42] = 0  # nobody asks for them
    assert total[0] == expected[0]
    np.testing.assert_array_less(np.abs(total - expected), 4e-6 * size + 1e-9)


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("kind", ["ssd", "znssd"])
@DIMENSIONS
def test_blocks_of_images_less_their_bases(two_d, kind):
    """Sums are those of whole grey levels, whatever is taken off each image."""
    shape = FLAT if two_d else SHAPE
    phi = PHI_2D if two_d else PHI
    margin = (0 if two_d else 4, 5, 4)
    im1, im2 = texture(1, shape), texture(2, shape) + 256
    # gain * im2 + bias is about im1
    gain, bias = (1.0, 0.0) if kind == "ssd" else (1.25, -1.25 * 256 - 20)
    pair = ImagePair(ArrayImage(im1.astype(np.float64)), ArrayImage(im2.astype(np.float64)))
    pair.image1.base, pair.image2.base = 64.0, 320.0
    settings = RegistrationSettings(criterion=kind, level=LEVEL)
    task = RegistrationTask(pair, settings, margin)
    total = sum(task.run_sum(chunk, Pass(phi, gain, bias)) for chunk in range(task.n_chunks))
    centre = (np.array(shape) - 1) / 2
    n = np.array(shape) - 2 * np.array(margin)
    window = Pair(im1, im2).window(margin, n, phi[:3, :3], centre + phi[:3, 3], gain, bias)
    expected, size = (BlockSums.of(window.sums(LEVEL, absolute)).packed() for absolute in (False, True))
    if kind == "ssd":
        expected[18:42] = 0  # nobody asks for them
    assert total[0] == expected[0]
    np.testing.assert_array_less(np.abs(total - expected), 4e-6 * size + 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [False, True])
@DIMENSIONS
def test_passes_compare_other_voxels(two_d, masked, kind, monkeypatch):
    """As many voxels fall out at one side as at the other before, none, and the first ones again.

    Each pass against its own float64 sums, and against a task that has kept nothing.
    """
    settings = RegistrationSettings(**{"criterion": "znssd", "level": LEVEL} | KINDS[kind])
    shape = FLAT if two_d else SHAPE
    im1, im2 = texture(1, shape), texture(2, shape)
    mask = None
    if masked:
        mask = np.ones(shape, np.uint8)
        mask[:, 12:16, 10:30] = 0
        # symmetric along x, so that as many are masked at either side
        mask &= mask[:, :, ::-1]
    images, margin = images_of(Pair(im1, im2), mask), (0 if two_d else 4, 5, 4)
    gain, bias = (1.0, 0.0) if kind == "ssd" else (1.1, -8.0)
    task = RegistrationTask(images, settings, margin)
    monkeypatch.setattr(registration, "KEPT", 0)
    forgetful = RegistrationTask(images, settings, margin)
    usable = usable_of(im1, mask, settings)
    whole = Pair(im1, im2, settings.order, settings.sigma, usable=usable)
    n = np.array(shape) - 2 * np.array(margin)
    index = None
    if settings.shift:
        index = ((margin[0] * shape[1] + margin[1]) * shape[2] + margin[2], shape[2], shape[1] * shape[2])
    compared = []
    for shift in (6.4, -6.4, 0.0, 6.4, -6.4):
        phi = deformation.compute_phi((0, 0, shift))
        argument = Pass(phi, gain, bias)
        parts = [task.run_sum(chunk, argument) for chunk in range(task.n_chunks)]
        for chunk, part in enumerate(parts):
            np.testing.assert_array_equal(part, forgetful.run_sum(chunk, argument))
        centre = (np.array(shape) - 1) / 2 + phi[:3, 3]
        window = whole.window(margin, n, phi[:3, :3], centre, gain, bias, settings.update_gradient, index)
        expected, size = (BlockSums.of(window.sums(LEVEL, absolute)).packed() for absolute in (False, True))
        if kind == "ssd":
            expected[18:42] = 0  # nobody asks for them
        total = sum(parts)
        assert total[0] == expected[0]
        np.testing.assert_array_less(np.abs(total - expected), 4e-6 * size + 1e-9)
        compared.append(window.data)
    assert compared[0].sum() == compared[1].sum() < compared[2].sum()
    assert (compared[0] != compared[1]).any()


@pytest.mark.parametrize("update_gradient", [False, True])
@DIMENSIONS
def test_size_of_blocks(two_d, update_gradient):
    """Blocks cover the image less its margin once, in the order of their first voxels."""
    shape = (1, 600, 1100) if two_d else (80, 130, 300)
    image = ArrayImage(np.broadcast_to(np.uint8(7), shape))
    task = RegistrationTask(
        ImagePair(image, image), RegistrationSettings(update_gradient=update_gradient), (0 if two_d else 3, 4, 5)
    )
    block = (1, 256, 512) if two_d else (32 if update_gradient else 64, 64, 128)
    compared = [n - 2 * m for n, m in zip(shape, (0 if two_d else 3, 4, 5), strict=True)]
    assert task.n_chunks == np.prod([-(-n // b) for n, b in zip(compared, block, strict=True)])


def test_blocks_that_fall_outside_add_nothing():
    pair = Pair(texture(1, SHAPE), texture(2, SHAPE))
    task = RegistrationTask(images_of(pair), RegistrationSettings(), (1, 1, 1))
    vector = task.run_sum(0, Pass(deformation.compute_phi((0, 1000, 0)), 1.0, 0.0))
    assert vector.shape == (186,)
    assert not vector.any()


# ---- levels


@pytest.mark.parametrize(
    ("begin", "end", "levels"), [(4, 1, [4, 2, 1]), (1, 1, [1]), (8, 2, [8, 4, 2]), (2, 2, [2]), (32, 16, [32, 16])]
)
def test_levels(begin: int, end: int, levels: list[int]) -> None:
    assert LevelSettings(begin, end).levels() == levels


@pytest.mark.parametrize(
    ("margin", "shape", "binning", "expected"),
    [
        (None, (40, 50, 60), 1, (5, 5, 5)),
        (None, (39, 50, 60), 2, (4, 4, 4)),
        (None, (60, 50, 39), 1, (4, 4, 4)),
        (None, (1, 50, 60), 1, (0, 6, 6)),
        ((8, 9, 3), (40, 50, 60), 1, (8, 9, 3)),
        ((8, 9, 3), (40, 50, 60), 4, (2, 2, 0)),
        ((8, 9, 3), (1, 50, 60), 2, (0, 4, 1)),
    ],
)
def test_margins(margin: Any, shape: Any, binning: int, expected: Any) -> None:
    """A tenth of the level's own shortest side and a voxel, or the voxels that were asked for, in the level's own."""
    assert LevelSettings(margin=margin).margin_of(shape, binning) == expected


def test_levels_too_coarse_are_left_out() -> None:
    """At least six voxels along every axis, three on the last level."""
    image = ArrayImage(np.zeros((44, 30, 33), np.uint8))
    # binned by 4: 7 voxels less a margin of one at both sides
    assert LevelSettings(4, 1).usable(image, RegistrationSettings()) == {2: (2, 2, 2), 1: (4, 4, 4)}
    assert LevelSettings(4, 4).usable(image, RegistrationSettings()) == {4: (1, 1, 1)}
    assert LevelSettings(4, 1, (0, 0, 0)).usable(image, RegistrationSettings())[4] == (0, 0, 0)
    flat = ArrayImage(np.zeros((1, 30, 33), np.uint8))
    assert LevelSettings(4, 4).usable(flat, RegistrationSettings()) == {4: (0, 1, 1)}


def test_nothing_left_to_compare_is_refused() -> None:
    image = ArrayImage(np.zeros((44, 20, 33), np.uint8), "one.tif")
    assert LevelSettings(1, 1, (8, 8, 8)).usable(image, RegistrationSettings()) == {1: (8, 8, 8)}
    with pytest.raises(UserError, match=r"^one\.tif: less the margin \(-m 9 9 9\), an image of 44 × 20 × 33 voxels"):
        LevelSettings(1, 1, (9, 9, 9)).usable(image, RegistrationSettings())
    # Gaussian gradients of 2 voxels reach 8 voxels: 4 are left, of 2.2 voxels 2
    assert LevelSettings(1, 1, (1, 1, 1)).usable(image, RegistrationSettings(sigma=2.0))
    with pytest.raises(UserError, match=r"the reach of the Gaussian gradient \(-gs 2.2: 9\)"):
        LevelSettings(1, 1, (1, 1, 1)).usable(image, RegistrationSettings(sigma=2.2))


def test_too_coarse_is_told() -> None:
    pair = AnalyticPair((30, 30, 30), seed=1, amplitude=0, translation=(0.3, 0.2, -0.3), rotation=(0, 0, 0))
    images = ImagePair(ArrayImage(pair.image1()), ArrayImage(pair.image2()))
    said: list[str] = []
    outcome = register_multiscale(
        InlineExecutor(), images, RegistrationSettings(), LevelSettings(8, 1), np.eye(4), said.append
    )
    assert "working on binning:  8 - too coarse for an image of 30 × 30 × 30 voxels, left out" in said
    assert (outcome.last.status, outcome.binning) == (2, 1)


# ---- whole registrations


def coarse_pair(shape: Any, **more: Any) -> AnalyticPair:
    """A texture that a binning by four leaves something of."""
    motion = {"rotation": (2.0, -1.5, 2.5), "strain": (0.02, -0.015, 0.025), "translation": (1.4, -2.2, 1.7)}
    return AnalyticPair(shape, seed=2, amplitude=0, radii=(9, 14), spacing=9, **motion | more)


def register(pair: AnalyticPair, settings: RegistrationSettings, levels: LevelSettings, **more: Any) -> Any:
    images = ImagePair(ArrayImage(pair.image1()), ArrayImage(pair.image2()))
    return register_multiscale(InlineExecutor(), images, settings, levels, np.eye(4), lambda line: None, **more)


@pytest.mark.parametrize("shape", [(60, 60, 60), (63, 61, 66), (1, 131, 134)])
@pytest.mark.parametrize("end", [1, 2, 4])
def test_the_truth_on_every_level(shape: Any, end: int) -> None:
    """Phi about the image's centre, in voxels of the full image: a bin's voxels and centre are its own.

    Rotation and strain make every half voxel that a centre is off one or two hundredths of translation.
    """
    pair = coarse_pair(shape)
    outcome = register(pair, RegistrationSettings(order=3, min_delta_phi=1e-5), LevelSettings(4, end))
    centre = (np.array(shape) - 1) / 2
    assert (outcome.last.status, outcome.binning) == (2, end)
    np.testing.assert_array_equal(outcome.centre, centre)
    tolerance = {1: 5e-4, 2: 2e-3, 4: 1e-2}[end]
    np.testing.assert_allclose(outcome.phi[:3, 3], pair.displacement(centre), rtol=0, atol=tolerance)
    np.testing.assert_allclose(outcome.phi[:3, :3], pair.gradient(centre), rtol=0, atol=tolerance / 4)


def test_watched_in_voxels_of_the_full_image() -> None:
    """Every iteration of every level is told about the same centre."""
    pair = coarse_pair((48, 52, 56))
    seen: list[np.ndarray] = []
    outcome = register(pair, RegistrationSettings(), LevelSettings(4, 1), watch=seen.append)
    assert len(seen) > outcome.last.iterations
    np.testing.assert_array_equal(seen[-1], outcome.phi)
    truth = pair.displacement((np.array(pair.shape) - 1) / 2)
    # the first step is of binned images, and is most of the way
    assert np.abs(seen[0][:3, 3] - truth).max() < 0.6 * np.abs(truth).max()


def test_lines_of_the_progress() -> None:
    """A line for every iteration of a level: its number, and Phi, error and step after it."""
    pair = coarse_pair((40, 42, 44))
    images = ImagePair(ArrayImage(pair.image1()), ArrayImage(pair.image2()))
    said: list[str] = []
    seen: list[np.ndarray] = []
    outcome = register_multiscale(
        InlineExecutor(), images, RegistrationSettings(), LevelSettings(1, 1), np.eye(4), said.append, seen.append
    )
    history, lines = outcome.last.history, [line for line in said if line.startswith("It#")]
    assert len(lines) == len(history) - 1 == len(seen) == outcome.last.iterations >= 4
    for k, (line, step, phi) in enumerate(zip(lines, history[1:], seen, strict=True), 1):
        start = f"It#:{k:03d} |δΦ|={step.delta_phi_norm:.5f} error={step.error:7.2f} t=["
        assert line.startswith(start)
        numbers = [float(v) for v in line[len(start) :].partition("]")[0].split()]
        np.testing.assert_allclose(numbers, phi[:3, 3], rtol=0, atol=5e-4)
    assert said[0] == "working on binning:  1"
    assert said[1] == f"Start correlation with Error = {history[0].error:0.2f}"
    assert said[-1] == "\t→ Converged"


def test_a_level_that_does_not_converge_ends_it() -> None:
    outcome = register(coarse_pair((48, 52, 56)), RegistrationSettings(max_iterations=1), LevelSettings(4, 1))
    assert (outcome.last.status, outcome.binning, outcome.last.iterations) == (1, 4, 1)


def test_masked_voxels_take_no_part_on_any_level() -> None:
    """Image 1 is spoiled under the mask; bins that hold an open voxel are open, so the mask's rim is left alone."""
    pair = coarse_pair((56, 56, 56))
    one, spoiled = pair.image1(), pair.image1()
    mask = np.zeros(pair.shape, np.uint8)
    mask[:, :, 24:] = 200
    spoiled[:, :, :20] = np.random.default_rng(1).integers(0, 65535, (56, 56, 20))
    settings, levels = RegistrationSettings(order=3), LevelSettings(4, 1)

    def run(image: np.ndarray) -> np.ndarray:
        images = ImagePair(ArrayImage(image), ArrayImage(pair.image2()), ArrayImage(mask))
        outcome = register_multiscale(InlineExecutor(), images, settings, levels, np.eye(4), lambda line: None)
        assert outcome.last.status == 2
        return outcome.phi

    np.testing.assert_allclose(run(spoiled), run(one), rtol=0, atol=1e-5)
    np.testing.assert_allclose(run(one)[:3, 3], pair.displacement((27.5,) * 3), rtol=0, atol=2e-3)


# ---- centre of a mask


@pytest.mark.parametrize("slab", [16_000_000, 1000, 1])
@pytest.mark.parametrize("shape", [(9, 11, 13), (1, 40, 50)])
def test_centre_of_a_mask(shape: Any, slab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All voxels that are not 0 weigh the same, however many are read at once."""
    monkeypatch.setattr(registration, "SLAB_VOXELS", slab)
    values = (np.random.default_rng(2).random(shape) < 0.2) * np.random.default_rng(3).integers(1, 300, shape)
    centre = mask_centre(ArrayImage(values.astype(np.uint16)))
    np.testing.assert_allclose(centre, np.argwhere(values).mean(axis=0), rtol=0, atol=1e-12)


def test_empty_mask() -> None:
    with pytest.raises(UserError, match=r"^m\.tif: the mask is empty"):
        mask_centre(ArrayImage(np.zeros((3, 4, 5), np.uint8), "m.tif"))
