"""Pictures: grey levels and colours pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from mpidvc.gui.pictures import NOTHING, Contrast, chessboard, compare, grey, histogram, robust_limits

NAN = np.nan
LIMITS = (Contrast(0.0, 100.0), Contrast(0.0, 50.0))


def array(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_grey() -> None:
    assert grey(array([-5, 0, 50, 100, 300, NAN]), Contrast(0, 100)).tolist() == [[0, 0, 127, 255, 255, 0]]
    assert grey(array([10, 20]), Contrast(20, 10)).dtype == np.uint8


def test_difference_is_white_at_nought_blue_below_and_red_above() -> None:
    one, two = array([10, 10, 10, NAN]), array([10, 90, -70, 5])
    picture = compare(one, two, "difference", LIMITS, 40.0)[0].astype(int)
    assert picture[0].min() > 235
    assert picture[1][0] > picture[1][2] + 80  # image 2 is brighter: red
    assert picture[2][2] > picture[2][0] + 80
    assert picture[3].tolist() == list(NOTHING)
    # the map of grey levels is that of image 2
    mapped = compare(array([10]), array([4]), "difference", LIMITS, 40.0, gain=2.0, bias=2.0)
    assert mapped[0, 0].min() > 235


def test_absolute_difference_grows_brighter_either_way() -> None:
    picture = compare(array([0, 0, 0, 0]), array([0, 20, -20, 90]), "absolute", LIMITS, 40.0)[0].astype(int)
    brightness = picture.sum(axis=1)
    assert brightness[0] < brightness[1] == brightness[2] < brightness[3]


def test_overlay_is_grey_where_both_agree() -> None:
    picture = compare(array([50, 100, 0]), array([25, 0, 50]), "overlay", LIMITS, 1.0)[0].tolist()
    assert picture == [[127, 127, 127], [255, 0, 255], [0, 255, 0]]


@pytest.mark.parametrize("shape", [(20, 20), (10, 30), (31, 7)])
def test_chessboard(shape: tuple[int, int]) -> None:
    first = chessboard(shape, 5)
    edge = max(shape) / 5
    for row, column in np.ndindex(shape):
        assert first[row, column] == ((int(row / edge) + int(column / edge)) % 2 == 0)


def test_checkerboard_and_its_tint() -> None:
    one, two = np.full((4, 4), 100, np.float32), np.zeros((4, 4), np.float32)
    plain = compare(one, two, "checkerboard", LIMITS, 1.0, squares=2)
    assert plain[0, 0].tolist() == [255, 255, 255]
    assert plain[0, 2].tolist() == plain[3, 1].tolist() == [0, 0, 0]
    tinted = compare(one, two, "checkerboard", LIMITS, 1.0, squares=2, tinted=True).astype(int)
    assert tinted[0, 0][0] > tinted[0, 0][2] + 50
    assert tinted[0, 2].tolist() == [0, 0, 0]


def test_limits_and_histogram() -> None:
    values = np.concatenate([np.linspace(0, 1000, 5001), [1e6, NAN]]).astype(np.float32)
    limits = robust_limits(values)
    assert limits.low == pytest.approx(1, abs=1)
    assert limits.high == pytest.approx(999, abs=2)
    found = histogram(values, limits)
    assert found.low < limits.low
    assert found.high > limits.high
    assert found.counts.sum() == 5002
    assert found.counts[-1] >= 1
    flat = robust_limits(np.full(9, 7, np.float32))
    assert flat.low < 7 < flat.high
    assert robust_limits(np.full(3, NAN, np.float32)) == (0, 1)
