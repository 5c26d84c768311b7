"""The pair that the coarse search sees, against block means; its chunks, on an executor, against one process."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.coarse import binning_of, search
from mpidvc.errors import UserError
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks import coarse
from mpidvc.tasks.coarse import BinTask, coarse_motion
from mpidvc.tasks.grey import with_limits


@pytest.mark.parametrize("piece", [1, 3000, 10**7])
@pytest.mark.parametrize("shape", [(130, 121, 140), (1, 400, 710)], ids=["3D", "2D"])
def test_binned_images(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], piece: int) -> None:
    """Whatever the chunks are: means of the blocks, those that stick out left out, half of the rest at either side."""
    monkeypatch.setattr(coarse, "PIECE", piece)
    rng = np.random.default_rng(2)
    image = rng.integers(0, 60000, shape).astype(np.uint16)
    mask = np.ones(shape, np.uint8)
    mask[:, :50] = 0
    task = BinTask(ArrayImage(image, "a"), ArrayImage(mask, "mask"))
    factor = binning_of(shape)
    assert task.factor == factor == ((2, 2, 2) if shape[0] > 1 else (1, 3, 3))
    small = np.zeros(task.shape)
    for chunk in range(task.n_chunks):
        low, high = task.place(chunk)
        small[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = task.run(chunk)
    cut = tuple(slice((n % b) // 2, (n % b) // 2 + n // b * b) for n, b in zip(shape, factor, strict=True))
    z, y, x = task.shape
    blocks = (z, factor[0], y, factor[1], x, factor[2])
    expected = image[cut].astype(float).reshape(blocks).mean(axis=(1, 3, 5))
    masked = mask[cut].reshape(blocks).mean(axis=(1, 3, 5))
    np.testing.assert_array_equal(np.isnan(small), masked < 0.5)
    whole = masked == 1
    np.testing.assert_allclose(small[whole], expected[whole], rtol=1e-6)


def test_the_base_is_taken_off() -> None:
    """Grey levels of 10⁸ with a texture of a few: single precision alone would lose it."""
    image = 1e8 + np.random.default_rng(2).integers(0, 9, (1, 40, 40)).astype(np.float64)
    limited = with_limits(ArrayImage(image, "a"))
    assert limited.base != 0
    task = BinTask(limited)
    np.testing.assert_array_equal(task.run(0), image - limited.base)


def test_on_an_executor() -> None:
    """The same bits as for arrays in one process, and an error on every rank."""
    pair = AnalyticPair((1, 333, 350), seed=1, rotation=(60, 0, 0), translation=(0, 20, 9), amplitude=0, around=0.6)
    one, two = pair.image1().astype(np.float32), pair.image2().astype(np.float32)
    images = ImagePair(ArrayImage(one, "one"), ArrayImage(two, "two"), None)
    told: list[int] = []
    found = coarse_motion(InlineExecutor(), images, 180.0, lambda done, total: told.append(done))
    expected = search(one, two)
    np.testing.assert_array_equal(found.best.phi, expected.best.phi)
    assert (found.best.score, found.doubtful) == (expected.best.score, False)
    assert told[-1] == max(told)
    even = ArrayImage(np.ones_like(one), "even")
    with pytest.raises(UserError, match="no texture in image 2"):
        coarse_motion(InlineExecutor(), ImagePair(images.image1, even, None))
