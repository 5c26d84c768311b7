"""Grey levels far from 0 with little contrast, as 10⁶ ± 1: every task against float64 on the whole grey levels.

Single precision leaves such images four bits, unless a constant is taken off before.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from mpidvc.core import deformation
from mpidvc.core.boxes import float_box
from mpidvc.core.pixel_search import SearchSettings
from mpidvc.core.registration import BlockSums, RegistrationSettings
from mpidvc.images.image import ArrayImage, Image, image_at_hand, open_image
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks import memory
from mpidvc.tasks.binned import BinnedImage
from mpidvc.tasks.deform import DeformTask, WholeMotion
from mpidvc.tasks.grey import with_limits
from mpidvc.tasks.ldic import LdicTask
from mpidvc.tasks.pixel_search import PixelSearchTask
from mpidvc.tasks.placement import Placement, placed
from mpidvc.tasks.registration import LevelSettings, Pass, RegistrationTask, register_multiscale
from mpidvc.tasks.texture import texture_of
from mpidvc.tasks.warp import sample_block
from tests.kernels.oracle import (
    DIMENSIONS,
    LEVEL,
    ORDERS,
    Pair,
    agree,
    expected_outcome,
    guess_at,
    moving,
    moving_phi,
    nodes_of,
    run_for,
    search_oracle,
)
from tests.tasks.given import Given, run_all
from tests.tasks.test_ldic import outcomes, settings_of

FAR = 1e6


def far(image: np.ndarray, base: float = FAR) -> np.ndarray:
    """Standard deviation 1 about a large mean, exact in float64."""
    return (image - LEVEL) / 20 + base


def given(image: np.ndarray) -> Image:
    return with_limits(ArrayImage(image))


def images_of(pair: Pair) -> ImagePair:
    return ImagePair(given(pair.im1), given(pair.im2))


def far_pair(two_d: bool, order: int, base2: float = FAR) -> Pair:
    near = moving(two_d, order)
    return Pair(far(near.im1), far(near.im2, base2), order)


# The base of an image


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint32", "int32"])
def test_base_is_about_the_mean(dtype: str) -> None:
    values = (1000 * far(moving(False, 1).im1, 3000)).astype(dtype)
    image = given(values)
    assert abs(image.base - values.mean(dtype=np.float64)) < values.std(dtype=np.float64)
    # a power of two times a small integer: what is taken off is exact
    assert image.base % 512 == 0


def test_integers_of_16_bits_have_none() -> None:
    """Their bits fit, and results stay as they are, to the last one."""
    for dtype in (np.uint8, np.int16, np.uint16):
        assert given(np.full((8, 8, 8), 120, dtype)).base == 0
    values = (60000 + moving(False, 1).im1 / 20).astype(np.uint16)
    assert given(values).base == 0


def test_base_travels_with_the_image(tmp_path: Path) -> None:
    """However the image is stored, opened, read and sent."""
    values = far(moving(False, 1).im1)
    expected = given(values).base
    assert abs(expected - FAR) < 1
    tifffile.imwrite(tmp_path / "plain.tif", values, photometric="minisblack")
    tifffile.imwrite(tmp_path / "zlib.tif", values, photometric="minisblack", compression="zlib", rowsperstrip=7)
    for name in ("plain", "zlib"):
        image = with_limits(open_image(tmp_path / f"{name}.tif"))
        for mode in ("shared", "mapped", "boxes"):
            with placed(InlineExecutor(), Placement(mode), [image]) as (way,):
                for one in (way, pickle.loads(pickle.dumps(way))):
                    assert one.base == expected
    for one in (given(values), BinnedImage(given(values), 2)):
        assert one.base == expected
    with image_at_hand(given(values)) as image:  # type: ignore[arg-type]
        assert pickle.loads(pickle.dumps(image)).base == expected


@pytest.mark.parametrize("dtype", ["float64", "uint32"])
def test_boxes_are_less_the_base(dtype: str) -> None:
    """In double precision; what is no data stays none."""
    values = (1000 * far(moving(False, 1).im1[:4, :5, :6])).astype(dtype)
    inside = (slice(1, 5), slice(0, 5), slice(2, 8))
    if dtype == "float64":
        values[1, 2, 3] = np.nan
    box, real = float_box(values, inside, (6, 5, 9), base=1e9)
    assert real is not None
    data = np.isfinite(values)
    np.testing.assert_array_equal(real[inside], data)
    np.testing.assert_array_equal(box[inside][data], (values - 1e9).astype(np.float32)[data])
    assert not box[0].any()


# Tasks


@pytest.mark.parametrize("update_gradient", [False, True], ids=["gradient1", "gradient2"])
@pytest.mark.parametrize(("criterion", "base2"), [("ssd", FAR), ("znssd", FAR), ("znssd", 3e5), ("znssd", 0.0)])
@DIMENSIONS
@ORDERS
def test_ldic(order: int, two_d: bool, criterion: str, base2: float, update_gradient: bool) -> None:
    """Phi and error are those of whole grey levels, also where the images' constants differ."""
    pair = far_pair(two_d, order, base2)
    nodes = nodes_of(pair)
    phi = np.array([guess_at(pair, node) for node in nodes])
    more: dict[str, Any] = {"gain": 1.0, "bias": FAR - base2} if criterion == "znssd" else {}
    settings = settings_of(two_d, order, 4, criterion=criterion, update_gradient=update_gradient, **more)
    run = run_for(pair, znssd=criterion == "znssd", update_gradient=update_gradient)
    for node, guess, got in zip(
        nodes, phi, outcomes(run_all(LdicTask(images_of(pair), Given(nodes, phi), settings))), strict=True
    ):
        expected = expected_outcome(pair, run, node, guess)
        agree(got, expected, 2e-5)
        assert got.status == 2
        # relative to the sum of grey levels it is tiny: six digits of it
        np.testing.assert_allclose(got.error, expected.error, rtol=1e-3)


def test_thresholds_of_ldic() -> None:
    """They are whole grey levels."""
    pair = far_pair(False, 1)
    node = nodes_of(pair)[:1]
    phi = np.array([guess_at(pair, node[0])])
    z, y, x = node[0]
    mean = pair.im1[z - 5 : z + 6, y - 5 : y + 6, x - 6 : x + 7].mean()
    for low, high, status in ((mean - 1e-4, np.inf, 2), (mean + 1e-4, np.inf, -5), (-np.inf, mean - 1e-4, -5)):
        settings = settings_of(False, 1, 4, grey_low=low, grey_high=high)
        (got,) = outcomes(run_all(LdicTask(images_of(pair), Given(node, phi), settings)))
        assert got.status == status


@pytest.mark.parametrize(("gain", "bias", "base2"), [(1.0, 0.0, FAR), (1.1, -0.1 * FAR, FAR), (1.0, FAR, 0.0)])
@DIMENSIONS
@ORDERS
def test_sums_of_blocks(order: int, two_d: bool, gain: float, bias: float, base2: float) -> None:
    """About the level of image 1, whatever was taken off."""
    pair = far_pair(two_d, order, base2)
    F, t = moving_phi(two_d)
    phi = np.eye(4)
    phi[:3, :3], phi[:3, 3] = F, t
    margin = (0 if two_d else 6, 9, 9)
    settings = RegistrationSettings(order=order, criterion="znssd", level=FAR)
    task = RegistrationTask(images_of(pair), settings, margin)
    total = sum(task.run_sum(chunk, Pass(phi, gain, bias)) for chunk in range(task.n_chunks))
    centre = (np.array(pair.im1.shape) - 1) / 2
    n = np.array(pair.im1.shape) - 2 * np.array(margin)
    window = pair.window(margin, n, F, centre + t, gain, bias)
    expected = BlockSums.of(window.sums(FAR)).packed()
    # what rounding errors are measured by: grey levels of a few units
    near = moving(two_d, order)
    small = Pair(far(near.im1, 3.0), far(near.im2, 3.0), order).window(margin, n, F, centre + t)
    size = BlockSums.of(small.sums(0.0, absolute=True)).packed()
    assert total[0] == expected[0]
    np.testing.assert_array_less(np.abs(total - expected), 1e-5 * size + 1e-6)


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
@ORDERS
def test_registration_of_images(order: int, criterion: Any) -> None:
    """From binned images to full ones: as the images less the constant, and the error of whole grey levels."""
    found = []
    for base in (0.0, FAR):
        near = moving(False, order)
        pair = Pair(far(near.im1, base), far(near.im2, base), order)
        settings = RegistrationSettings(order=order, criterion=criterion, level=base)
        result = register_multiscale(
            InlineExecutor(), images_of(pair), settings, LevelSettings(2, 1), np.eye(4), lambda line: None
        )
        assert result.last.status == 2
        found.append(result)
    near_result, far_result = found
    np.testing.assert_allclose(far_result.phi, near_result.phi, rtol=0, atol=1e-4)
    last = far_result.last
    # the residual's mean square is 1e-4 here
    mean_square = last.error * FAR
    assert 0 < mean_square < 1e-2
    assert last.zncc == pytest.approx(near_result.last.zncc, abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("zero_mean", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_search(turned: bool, zero_mean: bool) -> None:
    """CC and error of whole grey levels, also of windows that are deformed."""
    pair = far_pair(False, 1)
    images = images_of(pair)
    node = np.array([[17, 20, 22]])
    phi = np.eye(4)[None].copy()
    phi[0, :3, 3] = np.rint(moving_phi(False)[1])
    if turned:
        phi[0, :3, :3] = deformation.compute_phi((0, 0, 0), (0, 0, 90))[:3, :3]  # samples are at voxels
    settings = SearchSettings((4, 4, 4), (-2, -3, -2), (3, 2, 2), zero_mean=zero_mean)
    (got,) = run_all(PixelSearchTask(images, Given(node, phi), settings))
    z, y, x = node[0]
    window = pair.im1[z - 4 : z + 5, y - 4 : y + 5, x - 4 : x + 5]
    if turned:
        at = np.indices((9, 9, 9)) - 4
        back = np.rint(np.einsum("ij,jzyx->izyx", np.linalg.inv(phi[0, :3, :3]), at)).astype(int) + node[0].reshape(
            3, 1, 1, 1
        )
        window = pair.im1[tuple(back)]
    moved = node[0] + phi[0, :3, 3].astype(int)
    part = tuple(slice(m - 4 + a, m + 5 + b) for m, a, b in zip(moved, settings.low, settings.high, strict=True))
    cc, error = search_oracle(window, None, pair.im2[part], None, zero_mean)
    at = np.unravel_index(np.argmax(cc), cc.shape)
    np.testing.assert_array_equal(got["phi"][:, 3], np.array(at) + settings.low + phi[0, :3, 3])
    # float32 of deviations of 1 against 10⁶, in CC, and by themselves, less their means
    assert got["result"][0] == pytest.approx(cc[at], abs=2e-6 if zero_mean else 1e-13)
    assert got["result"][2] == pytest.approx(error[at], rel=1e-4)
    for low, accepted in ((window.mean() - 1e-3, True), (window.mean() + 1e-3, False)):
        bounded = SearchSettings((4, 4, 4), (-2, -3, -2), (3, 2, 2), grey_low=low)
        (got,) = run_all(PixelSearchTask(images, Given(node, phi), bounded))
        assert (got["result"][1] == 1) == accepted


@pytest.mark.parametrize("dtype", ["float64", "uint32"])
@ORDERS
def test_deformed_images(order: int, dtype: str) -> None:
    """Samples of whole grey levels, 0 outside, and integers rounded."""
    values = far(moving(False, 1).im1)
    if dtype == "uint32":
        values = np.rint(1000 * values)
    image = given(values.astype(dtype))
    assert image.base
    phi = deformation.compute_phi((1.3, -2.2, 0.7), (2, -1, 3))
    centre = (np.array(values.shape) - 1) / 2
    out = sample_block(image, phi, centre, (0, 0, 0), values.shape, order)
    pair = Pair(values, values, order)
    x = np.indices(values.shape) - centre.reshape(3, 1, 1, 1)
    expected, inside = pair.sample2(
        np.einsum("ij,jzyx->izyx", phi[:3, :3], x) + (centre + phi[:3, 3]).reshape(3, 1, 1, 1)
    )
    assert 0.5 < inside.mean() < 1
    np.testing.assert_array_equal(out[~inside], 0)
    np.testing.assert_allclose(out[inside], expected[inside], rtol=0, atol=2e-6 * values.std())
    task = DeformTask(image, WholeMotion(np.linalg.inv(phi), centre, order))
    whole = np.concatenate([task.run(k).planes for k in range(task.n_chunks)])
    assert whole.dtype == image.dtype
    np.testing.assert_allclose(whole, out, rtol=0, atol=0.5 if dtype == "uint32" else 2e-6 * values.std())


def test_binned_images_keep_the_digits() -> None:
    values = far(moving(False, 1).im1, 1e9)
    image = BinnedImage(given(values), 2)
    part, _ = image.read_box((0, 0, 0), image.shape)
    expected = values.reshape(18, 2, 20, 2, 22, 2).mean(axis=(1, 3, 5))
    assert image.dtype == part.dtype == np.float64
    np.testing.assert_allclose(part, expected, rtol=0, atol=1e-6)
    assert memory.tile_bytes(given(values), 2, False) == part.nbytes


def test_texture_is_that_of_the_deviations() -> None:
    """A deviation of a millionth of the mean is texture, in double precision."""
    image = given(far(moving(False, 1).im1, 1e8))
    windows = SearchSettings((5, 5, 5), (0, 0, 0), (0, 0, 0), grey_low=1e8 - 5)
    texture = texture_of(image, None, np.array([[15, 18, 20], [18, 20, 22]], float), windows)
    assert (texture.looked_at, texture.flat, texture.noise) == (2, 0, 0)
