"""A box of an image as an image, against the box cut from a padded array."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.images.image import ArrayImage
from mpidvc.images.part import ImagePart

SHAPE = (7, 9, 11)
PAD = 20


def padded(values: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The image in a wide frame of nan, with nan where it holds no data."""
    data = np.full(values.shape, np.nan)
    box = tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(first, last, strict=True))
    data[box] = values[box]
    return np.pad(data, PAD, constant_values=np.nan)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
@pytest.mark.parametrize(
    ("low", "high"), [((1, 2, 3), (5, 6, 7)), ((-3, -2, 4), (4, 12, 9)), ((-9, 0, 0), (-4, 5, 5)), ((0, 0, 0), SHAPE)]
)
def test_boxes_of_a_part(dtype: str, low: tuple[int, ...], high: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 200, SHAPE).astype(dtype)
    start, stop = np.array(low), np.array(high)
    for data in (None, (np.array([0, 3, 2]), np.array([4, 40, 8]))):
        first, last = (np.zeros(3, int), np.array(SHAPE)) if data is None else data
        expected = padded(values, first, last)
        part = ImagePart(ArrayImage(values), start, stop, data)
        assert part.shape == tuple(stop - start)
        for inner_low, inner_high in (((0, 0, 0), part.shape), ((1, -2, 0), (3, 2, 40)), ((-5, 0, 0), (-1, 3, 3))):
            found, inside = part.read_box(inner_low, inner_high)
            place = tuple(
                slice(PAD + s + max(a, 0), PAD + s + max(min(b, n), max(a, 0)))
                for s, a, b, n in zip(start, inner_low, inner_high, part.shape, strict=True)
            )
            if found.size:
                np.testing.assert_array_equal(found, expected[place])
                assert [(s.start, s.stop) for s in inside] == [
                    (max(a, 0) - a, min(b, n) - a) for a, b, n in zip(inner_low, inner_high, part.shape, strict=True)
                ]
