"""Sums over shells of voxels: against sums voxel by voxel in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpidvc.core.nested_windows import nested_sums
from mpidvc.core.uncertainty import FRAME
from mpidvc.kernels.windows import SUMS, shell_sums
from mpidvc.tasks.adaptive import _smoothed

Array = NDArray[Any]
PAIRS = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]


def brute(f: Array, g: Array, usable: Array, whole: Array, centre: Array, first: int, last: int, two_d: bool) -> Array:
    out = np.zeros((last - first + 1, SUMS))
    deep = 0 if two_d else last
    f, g = f.astype(float), g.astype(float)
    for offset in np.ndindex(2 * deep + 1, 2 * last + 1, 2 * last + 1):
        d = np.array(offset) - [deep, last, last]
        shell = int(np.abs(d).max()) - first
        p = tuple(centre + d)
        # far away, in 3D, every second row counts twice
        times = 1 if two_d or np.abs(d).max() <= 8 else 2 * ((d[0] + d[1]) % 2 == 0)
        if shell < 0 or not usable[p] or times == 0:
            continue
        G, K = np.zeros(3), np.zeros(3)
        for a in (1, 2) if two_d else (0, 1, 2):

            def at(box: Array, step: int, a: int = a, p: tuple[int, ...] = p) -> float:
                return float(box[tuple(p[b] + step * (b == a) for b in range(3))])

            G[a] = (at(f, 1) - at(f, -1)) / 2
            K[a] = G[a]
            if whole[p]:
                # the derivative of the polynomial of degree six through seven samples
                K[a] = sum(c * (at(g, k) - at(g, -k)) for k, c in ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60)))
        w, (z, y, x) = G @ G, d.astype(float)
        moments = w * np.array([1, z, y, x, z * z, z * y, z * x, y * y, y * x, x * x])
        products = [*(G[i] * G[k] for i, k in PAIRS), *np.outer(G, K).ravel()]
        out[shell] += times * np.array([*products, 1, whole[p], *moments])
    return out


@pytest.mark.parametrize("two_d", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 4), (2, 2), (3, 6), (0, 10), (7, 9), (9, 10)])
def test_sums_of_shells(two_d: bool, masked: bool, first: int, last: int) -> None:
    random = np.random.default_rng(first + 7 * last)
    shape = (1, 33, 35) if two_d else (31, 33, 35)
    f, g = (random.normal(100, 20, shape).astype(np.float32) for _ in range(2))
    usable, whole = (
        np.ones(shape, np.uint8) if not masked else (random.random(shape) < 0.7).astype(np.uint8) for _ in "ab"
    )
    centres = np.array([[0 if two_d else 15, 16, 17], [0 if two_d else 14, 13, 19]])
    maps = (usable, whole) if masked else (None, None)
    found = shell_sums(f, g, *maps, centres, first, last, two_d)
    for k, centre in enumerate(centres):
        expected = brute(f, g, usable, whole, centre, first, last, two_d)
        # single precision in sums of up to 13² products of up to 50²
        np.testing.assert_allclose(found[k, :, :17], expected[:, :17], rtol=1e-4, atol=0.5)
        np.testing.assert_allclose(found[k, :, 17:], expected[:, 17:], rtol=1e-4, atol=0.5 * (1 + last) ** 2)
        np.testing.assert_array_equal(found[k, :, 15], expected[:, 15])


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("two_d", [False, True])
def test_whole_windows_have_the_sums_of_nested_ones(order: int, two_d: bool) -> None:
    half = 7
    size = 2 * (half + FRAME) + 1
    window = np.random.default_rng(2).normal(0, 20, (1 if two_d else size, size, size)).astype(np.float32)
    middle = np.array([[n // 2 for n in window.shape]])
    g = window if order == 3 else _smoothed(window, two_d)
    found = np.cumsum(shell_sums(window, g, None, None, middle, 0, half, two_d)[0], axis=0)
    # the last moment of the places is 1
    expected = nested_sums(window, order)[0][:, :, -1]
    np.testing.assert_allclose(found[:, :15], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    moments = nested_sums(window, order)[0][:, [0, 3, 5]].sum(axis=1)[:, [9, 3, 6, 8, 0, 1, 2, 4, 5, 7]]
    np.testing.assert_allclose(found[:, 17:], moments, rtol=1e-4, atol=1e-4 * np.abs(moments).max())


@pytest.mark.parametrize(
    ("centre", "first", "last"), [((5, 6, 6), 0, 3), ((6, 6, 6), 2, 1), ((6, 6, 7), 0, 3), ((6, 6, 6), -1, 3)]
)
def test_what_leaves_the_box_is_refused(centre: tuple[int, ...], first: int, last: int) -> None:
    box = np.zeros((13, 13, 13), np.float32)
    assert shell_sums(box, box, None, None, np.array([[6, 6, 6]]), 0, 3, False).shape == (1, 4, SUMS)
    with pytest.raises(ValueError, match=r"leaves its box|distances"):
        shell_sums(box, box, None, None, np.array([centre]), first, last, False)
    with pytest.raises(ValueError, match="map"):
        shell_sums(box, box, np.zeros((2, 2, 2), np.uint8), None, np.array([[6, 6, 6]]), 0, 3, False)
