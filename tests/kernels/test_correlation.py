"""The kernels against plain float64 numpy and scipy: samples, all sums of a pass, whole registrations."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mpidvc.kernels import correlation

#: Voxels around image 2 in its box: as far as taps reach.
FRAME = 3
LEVEL = 100.0


@pytest.fixture(params=correlation.instruction_sets())
def isa(request):
    """Every instruction set of this machine in turn."""
    before = correlation.instruction_set()
    correlation.use_instruction_set(request.param)
    yield request.param
    correlation.use_instruction_set(before)


# --------------------------------------------------------------------------------------------------------- the oracle


@lru_cache
def texture(seed: int, shape: tuple[int, int, int], smooth: float = 1.0) -> np.ndarray:
    """Grey levels around 100 with standard deviation 20, exact in float32."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), smooth, mode="wrap")
    return (LEVEL + 20 * (noise - noise.mean()) / (noise.std() or 1.0)).astype(np.float32).astype(np.float64)


def box_of(image: np.ndarray) -> np.ndarray:
    box = correlation.empty_box(image.shape)
    box[...] = image
    return box


def map_of(voxels: np.ndarray | None) -> np.ndarray | None:
    return None if voxels is None else np.ascontiguousarray(voxels, dtype=np.uint8)


def shifts(index: np.ndarray, two_d: bool) -> np.ndarray:
    """Shift-DVC: a quarter of a voxel with the signs of the flattened index' binary digits."""
    bits = [None, 2, 1] if two_d else [4, 2, 1]
    return np.stack([np.zeros(index.shape) if b is None else np.where(index & b, 0.25, -0.25) for b in bits])


@dataclass
class Pair:
    """Two images and what is data in them; positions are voxels of the images."""

    im1: np.ndarray
    im2: np.ndarray
    order: int = 1
    sigma: float | None = None
    usable: np.ndarray | None = None
    valid2: np.ndarray | None = None
    low2: Any = (0, 0, 0)
    high2: Any = None
    frame: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.two_d = self.im1.shape[0] == 1
        self.frame = np.array([0 if self.two_d else FRAME, FRAME, FRAME])
        self.low2 = np.asarray(self.low2, float)
        self.high2 = np.array(self.im2.shape) - 1.0 if self.high2 is None else np.asarray(self.high2, float)
        self.reach = 1 if self.sigma is None else max(1, int(4 * self.sigma + 0.5))

    # what the kernels get

    def settings(self, **more: Any) -> correlation.Settings:
        return correlation.Settings(order=self.order, two_d=self.two_d, sigma=self.sigma, **more)

    @cached_property
    def box1(self) -> np.ndarray:
        return box_of(self.im1)

    @cached_property
    def sampled1(self) -> np.ndarray:
        box = self.box1.copy()
        sampled = box_of(box)
        if self.order == 3:
            correlation.prefilter(sampled, (0, 0, 0), sampled.shape)
        return sampled

    @cached_property
    def box2(self) -> np.ndarray:
        low, high = self.frame, self.frame + self.im2.shape
        box = correlation.empty_box(high + self.frame)
        box[tuple(map(slice, low, high))] = self.im2
        if self.order == 3:
            correlation.prefilter(box, low, high)
        return box

    @cached_property
    def map2(self) -> np.ndarray | None:
        if self.valid2 is None:
            return None
        return map_of(np.pad(self.valid2, [(f, f) for f in self.frame], constant_values=1))

    # the same in float64

    @cached_property
    def samples1(self) -> np.ndarray:
        return ndimage.spline_filter(self.im1.squeeze(), 3, mode="mirror") if self.order == 3 else self.im1.squeeze()

    @cached_property
    def samples2(self) -> np.ndarray:
        return ndimage.spline_filter(self.im2.squeeze(), 3, mode="mirror") if self.order == 3 else self.im2.squeeze()

    @cached_property
    def taps_valid(self) -> np.ndarray:
        around = [(0, 0) if self.two_d and a == 0 else (8, 8) for a in range(3)]
        return np.pad(self.valid2 != 0, around, constant_values=True)

    def gradient(self, image: np.ndarray, central: bool = False) -> np.ndarray:
        """Of all voxels, by this pair's method or by central differences; right where the neighbourhood exists."""
        axes = range(1 if self.two_d else 0, 3)
        G = np.zeros((3, *image.shape))
        for a in axes:
            if self.sigma is None or central:
                G[a] = np.gradient(image, axis=a)
            else:
                orders = [int(b == a) for b in range(3)]
                sigmas = [0 if self.two_d and b == 0 else self.sigma for b in range(3)]
                G[a] = ndimage.gaussian_filter(image, sigmas, orders, mode="nearest")
        return G

    @cached_property
    def gradient1(self) -> np.ndarray:
        return self.gradient(self.im1)

    def sample2(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image 2 at positions (3, ...), and where this is data."""
        first = 1 if self.two_d else 0
        value = ndimage.map_coordinates(self.samples2, p[first:], order=self.order, mode="mirror", prefilter=False)
        data = np.ones(p.shape[1:], bool)
        for a in range(first, 3):
            data &= (p[a] >= self.low2[a] - 1e-6) & (p[a] <= self.high2[a] + 1e-6)
        if self.valid2 is not None:
            q = np.where(data, p, 0.0)
            whole = np.floor(q).astype(int)
            for taps in np.ndindex(*[1 if self.two_d else self.order + 1, self.order + 1, self.order + 1]):
                at = whole + np.reshape(taps, (3,) + (1,) * (p.ndim - 1))
                counts = np.ones(data.shape, bool)
                if self.order == 1:
                    for a in range(first, 3):
                        counts &= (taps[a] == 0) | (q[a] != whole[a])
                else:
                    at[first:] -= 1
                at[first:] += 8
                data &= self.taps_valid[tuple(at)] | ~counts
        return value, data

    def window(
        self,
        low1: Any,
        n: Any,
        F: np.ndarray,
        centre2: Any,
        gain: float = 1.0,
        bias: float = 0.0,
        update_gradient: bool = False,
        index: tuple[int, int, int] | None = None,
    ) -> Window:
        """All arrays of one pass."""
        low1, n = np.array(low1), np.array(n)
        inner = tuple(map(slice, low1, low1 + n))
        reach = np.where([self.two_d, False, False], 0, self.reach) if update_gradient else np.zeros(3, int)
        x = np.indices(n + 2 * reach).astype(float) - np.reshape(reach + (n - 1) / 2, (3, 1, 1, 1))
        core = tuple(slice(r, r + m) for r, m in zip(reach, n, strict=True))
        lever = x[(slice(None), *core)]
        f = self.im1[inner]
        if index is not None:
            start, along_y, along_z = index
            k = np.indices(n + 2 * reach) - np.reshape(reach, (3, 1, 1, 1))
            s = shifts(start + along_z * k[0] + along_y * k[1] + k[2], self.two_d)
            x = x + s
            first = 1 if self.two_d else 0
            at = (np.indices(n) + np.reshape(low1, (3, 1, 1, 1)) + s)[first:]
            f = ndimage.map_coordinates(self.samples1, at, order=self.order, mode="mirror", prefilter=False)
            beside = [ndimage.map_coordinates(G.squeeze(), at, order=1) for G in self.gradient1]
        p = np.einsum("ij,jzyx->izyx", F, x) + np.reshape(centre2, (3, 1, 1, 1))
        g, data = self.sample2(p)
        g = gain * g + bias
        H = self.gradient(g if update_gradient else self.im1, central=True)
        H = H[(slice(None), *(core if update_gradient else inner))]
        if update_gradient:
            G = self.gradient(g)
            if self.sigma is None:
                kernel = ndimage.generate_binary_structure(3, 1)
                if self.two_d:
                    kernel[[0, 2]] = False
            else:
                kernel = np.ones([1 if r == 0 else 2 * r + 1 for r in reach], bool)
            data = ndimage.binary_erosion(data, kernel)
            g, data, G = g[core], data[core], G[(slice(None), *core)]
        else:
            G = self.gradient1[(slice(None), *inner)] if index is None else np.array(beside)
        if self.usable is not None:
            data = data & (self.usable[inner] != 0)
        return Window(f, g, G, G if self.sigma is None else H, np.stack([*lever, np.ones(f.shape)]), data)


@dataclass
class Window:
    """Grey levels, gradient (3, ...), lever (4, ...) and what is compared.

    H is what the gradient is multiplied by in M: itself, but the central differences where it is a Gaussian one.
    """

    f: np.ndarray
    g: np.ndarray
    G: np.ndarray
    H: np.ndarray
    X: np.ndarray
    data: np.ndarray

    def sums(self, level: float, absolute: bool = False) -> np.ndarray:
        """The 102 numbers in the kernel's order; `absolute`: what their rounding errors are measured by."""
        f0, r = (self.f - level)[self.data], (self.f - self.g)[self.data]
        G, H, X = self.G[:, self.data], self.H[:, self.data], self.X[:, self.data]
        if absolute:
            f0 = abs(f0) + level
            r = abs(r) + f0
            # differences of grey levels round as these do
            G, H, X = abs(G) + 0.05 * level, abs(H) + 0.05 * level, abs(X) + 0.5
        out = [f0.size, f0.sum(), (f0**2).sum(), r.sum(), (r**2).sum(), (f0 * r).sum()]
        for weight in (r, f0, np.ones_like(r)):
            out += np.einsum("v,iv,jv->ij", weight, G, X).ravel().tolist()
        z, y, x = X[:3]
        monomials = [np.ones_like(z), z, y, x, z * z, z * y, z * x, y * y, y * x, x * x]
        for i, k in [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]:
            out += [float(((G[i] * H[k] + G[k] * H[i]) / 2 * m).sum()) for m in monomials]
        return np.array(out)


def turned(degrees: float, seed: int = 0, two_d: bool = False) -> np.ndarray:
    axis = np.array([1.0, 0, 0]) if two_d else np.random.default_rng(seed).normal(size=3)
    return Rotation.from_rotvec(degrees * axis / np.linalg.norm(axis), degrees=True).as_matrix()


def check_block(
    pair: Pair,
    low1: Any,
    n: Any,
    F: np.ndarray,
    centre2: Any,
    gain: float = 1.0,
    bias: float = 0.0,
    index: tuple[int, int, int] | None = None,
    **settings: Any,
) -> Window:
    """Compare all sums of one pass; returns the oracle's arrays."""
    window = pair.window(low1, n, F, centre2, gain, bias, settings.get("update_gradient", False), index)
    sums = correlation.block_sums(
        pair.settings(znssd=True, shift=index is not None, **settings),
        pair.box1,
        map_of(pair.usable),
        pair.sampled1 if index is not None else None,
        pair.box2,
        pair.map2,
        low1,
        n,
        F,
        np.asarray(centre2) + pair.frame,
        pair.low2 + pair.frame,
        pair.high2 + pair.frame,
        LEVEL,
        gain,
        bias,
        index or (0, 0, 0),
    )
    expected, size = window.sums(LEVEL), window.sums(LEVEL, absolute=True)
    assert sums[0] == expected[0]
    # float32 carries 6e-8; one voxel too many or too few changes the sums of these blocks by 1e-4 and more
    np.testing.assert_array_less(abs(sums - expected), 2e-6 * size + 1e-9)
    return window


def pair_of(two_d: bool, order: int, **more: Any) -> Pair:
    shape1, shape2 = ((1, 24, 60), (1, 70, 70)) if two_d else ((22, 24, 60), (48, 50, 52))
    return Pair(texture(1, shape1), texture(2, shape2), order, **more)


DIMENSIONS = pytest.mark.parametrize("two_d", [False, True], ids=["3d", "2d"])
ORDERS = pytest.mark.parametrize("order", [1, 3])


def placed(pair: Pair, n: Any) -> tuple[np.ndarray, np.ndarray]:
    """First voxel of a block in image 1, and its centre in image 2 at no special position."""
    low1 = np.where([pair.two_d, False, False], 0, pair.reach)
    middle = (np.array(pair.im2.shape) - 1) / 2
    return low1, np.where([pair.two_d, False, False], 0.0, middle + np.array([0.31, -0.17, 0.43]))


# --------------------------------------------------------------------------------------------------------------- sums


@DIMENSIONS
@ORDERS
def test_sums_at_every_length_of_rows(isa, order, two_d):
    """Rows of 1 to 40 voxels: whole groups of lanes, tails, and the two together."""
    pair = pair_of(two_d, order)
    for nx in range(1, 41):
        n = (1 if two_d else 5, 4, nx)
        low1, centre2 = placed(pair, n)
        check_block(pair, low1, n, turned(1.5, nx, two_d) * 1.01, centre2, 1.02, -1.5)


def test_sums_of_a_large_block(isa):
    """Single precision is left often enough: as precise as a small block."""
    image = texture(41, (24, 96, 200))
    pair = Pair(image, texture(42, (30, 100, 206)))
    check_block(pair, (1, 1, 1), (22, 94, 198), turned(0.5, 3), (14.6, 49.7, 102.4))


@ORDERS
def test_sums_of_long_rows(isa, order):
    """Rows of more groups than a sampler has room for, and rows along which positions drift by more than 128 voxels."""
    pair = Pair(texture(43, (1, 200, 720)), texture(44, (1, 400, 720)), order)
    for nx, degrees in ((257, 1.0), (300, 1.0), (512, 1.0), (700, 0.0), (620, 14.0), (480, 17.0)):
        n = (1, 5, nx)
        low1, centre2 = placed(pair, n)
        window = check_block(pair, low1, n, turned(degrees, 0, True), centre2)
        assert window.data.all()


@pytest.mark.parametrize("degrees", [0, 2, 6, 15, 60, 120, 180])
@DIMENSIONS
@ORDERS
def test_sums_of_rotations(isa, order, two_d, degrees):
    """From groups of eight lanes over shorter ones to samples one by one."""
    pair = pair_of(two_d, order)
    n = (1 if two_d else 7, 9, 21)
    low1, centre2 = placed(pair, n)
    for seed in range(4):
        F = turned(degrees, seed, two_d) @ np.diag([1, 0.97, 1.04])
        window = check_block(pair, low1, n, F, centre2)
        assert window.data.all()


@DIMENSIONS
@ORDERS
def test_sums_where_positions_are_whole(isa, order, two_d):
    """Identity at whole voxels up to the image's last one: taps of weight zero must not count."""
    pair = pair_of(two_d, order)
    n = (1, 9, 11) if two_d else (5, 9, 11)
    low1, _ = placed(pair, n)
    for corner in (np.zeros(3), np.array(pair.im2.shape) - n):
        centre2 = corner + (np.array(n) - 1) / 2
        for F in (np.eye(3), np.diag([1, 1, 0.99])):
            window = check_block(pair, low1, n, F, centre2)
            assert window.data.all()


@pytest.mark.parametrize("degrees", [2, 15, 60])
@DIMENSIONS
@ORDERS
def test_sums_with_masks_and_holes(isa, order, two_d, degrees):
    random = np.random.default_rng(7)
    shapes = pair_of(two_d, order)
    usable = random.random(shapes.im1.shape) < 0.8
    valid2 = random.random(shapes.im2.shape) < (0.98 if order == 3 else 0.9)
    n = (1 if two_d else 6, 7, 19)
    for mask, holes in ((usable, None), (None, valid2), (usable, valid2)):
        pair = pair_of(two_d, order, usable=mask, valid2=holes)
        low1, centre2 = placed(pair, n)
        window = check_block(pair, low1, n, turned(degrees, 3, two_d), centre2, 0.9, 8.0)
        assert 0.05 < window.data.mean() < 0.95


@ORDERS
def test_zero_weight_taps_in_holes(isa, order):
    """At whole positions linear interpolation needs one voxel only, whatever its neighbours are; the spline all."""
    pair = pair_of(False, order)
    valid2 = np.ones(pair.im2.shape, np.uint8)
    valid2[20, 20, 20] = 0
    pair = pair_of(False, order, valid2=valid2)
    window = check_block(pair, (1, 1, 1), (9, 9, 9), np.eye(3), (20.0, 20.0, 20.0))
    assert (~window.data).sum() == (1 if order == 1 else 64)


@pytest.mark.parametrize("degrees", [1, 12, 50])
@pytest.mark.parametrize("update_gradient", [False, True], ids=["gradient1", "gradient2"])
@DIMENSIONS
@ORDERS
def test_sums_with_bounds(isa, order, two_d, update_gradient, degrees):
    """Bounds that cut through the block; they are not at voxels."""
    low2 = np.array([0 if two_d else 21.3, 20.6, 19.2])
    high2 = np.array([0 if two_d else 26.7, 28.1, 31.9]) + (0 if not two_d else np.array([0, 10, 9]))
    pair = pair_of(two_d, order, low2=low2, high2=high2)
    n = (1 if two_d else 9, 10, 23)
    low1, centre2 = placed(pair, n)
    window = check_block(pair, low1, n, turned(degrees, 5, two_d), centre2, update_gradient=update_gradient)
    assert 0.05 < window.data.mean() < 0.9


@pytest.mark.parametrize("sigma", [1, 1.5])
@pytest.mark.parametrize("update_gradient", [False, True], ids=["gradient1", "gradient2"])
@DIMENSIONS
def test_sums_with_gaussian_gradients(isa, two_d, update_gradient, sigma):
    for nx in (1, 3, 8, 13):
        pair = pair_of(two_d, 1, sigma=sigma)
        n = (1 if two_d else 4, 5, nx)
        low1, centre2 = placed(pair, n)
        F = turned(3, 2, two_d)
        window = check_block(pair, low1, n, F, centre2, 1.1, -9.0, update_gradient=update_gradient)
        assert window.data.all()


@DIMENSIONS
@ORDERS
def test_sums_with_updated_gradients(isa, order, two_d):
    for nx in (1, 2, 7, 8, 16, 29):
        for degrees in (0, 4, 25):
            pair = pair_of(two_d, order, usable=np.random.default_rng(nx).random(pair_of(two_d, 1).im1.shape) < 0.9)
            n = (1 if two_d else 5, 6, nx)
            low1, centre2 = placed(pair, n)
            check_block(pair, low1, n, turned(degrees, 1, two_d), centre2, 0.95, 4.0, update_gradient=True)


@pytest.mark.parametrize("sigma", [None, 1.0])
@DIMENSIONS
@ORDERS
def test_shifted_samples(isa, order, two_d, sigma):
    """Shift-DVC: f = im1(x + s), g = im2(Phi (x + s)), G linearly at x + s; the lever x is that of the voxel.

    The signs of s follow the flattened index.
    """
    pair = pair_of(two_d, order, sigma=sigma)
    n = (1 if two_d else 5, 6, 13)
    low1, centre2 = placed(pair, n)
    low1 = low1 + np.where([two_d, False, False], 0, 3)
    for index in ((0, 15, 120), (3, 16, 133), (17, 17, 17 * 9)):
        check_block(pair, low1, n, turned(4, 6, two_d) * 1.1, centre2, index=index)


# ---------------------------------------------------------------------------------------------------------- prefilter

LENGTHS = (1, 2, 3, 5, 20, 33, 70)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("length", LENGTHS)
def test_prefilter_equals_scipy(isa, length, axis):
    shape = [6, 7, 11]
    shape[axis] = length
    image = texture(3, tuple(shape), 0.0)
    box = box_of(image)
    correlation.prefilter(box, (0, 0, 0), shape)
    expected = ndimage.spline_filter(image, 3, mode="mirror")
    # 6e-8 per operation, times the filter's gain of 27 on white noise of sd 20 around 100
    np.testing.assert_allclose(box, expected, rtol=0, atol=3e-4)


def test_prefilter_2d(isa):
    image = texture(4, (1, 33, 70), 0.0)
    box = box_of(image)
    correlation.prefilter(box, (0, 0, 0), image.shape)
    np.testing.assert_allclose(box[0], ndimage.spline_filter(image[0], 3, mode="mirror"), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 5, 20), (5, 20, 33), (20, 3, 1), (1, 33, 3)])
def test_prefilter_of_a_part_and_its_frame(isa, size):
    """The part alone is filtered; two voxels around it are its mirror image, and nothing beyond is touched."""
    image = texture(5, size, 0.0)
    low = np.array([3, 4, 2])
    high = low + size
    shape = high + np.array([2, 4, 5])
    box = correlation.empty_box(shape)
    box[...] = -7777
    box[tuple(map(slice, low, high))] = image
    correlation.prefilter(box, low, high)
    coefficients = ndimage.spline_filter(image, 3, mode="mirror")
    expected = np.full(shape, -7777.0)
    framed = tuple(slice(lo - 2, hi + 2) for lo, hi in zip(low, high, strict=True))
    expected[framed] = np.pad(coefficients, 2, mode="reflect") if min(size) > 2 else mirrored(coefficients)
    np.testing.assert_allclose(box, expected, rtol=0, atol=3e-4)


def mirrored(array: np.ndarray) -> np.ndarray:
    """Mirror at the outermost voxels, two voxels wide; a single voxel repeats."""
    for axis in range(3):
        pad = [(2, 2) if a == axis else (0, 0) for a in range(3)]
        array = np.pad(array, pad, mode="edge" if array.shape[axis] == 1 else "reflect")
    return array


def test_prefilter_of_nothing(isa):
    box = box_of(texture(5, (4, 5, 6)))
    before = box.copy()
    correlation.prefilter(box, (1, 2, 3), (3, 2, 5))
    assert np.array_equal(box, before)


# --------------------------------------------------------------------------------------------------------------- warp


@pytest.mark.parametrize("degrees", [0, 3, 9, 40])
@DIMENSIONS
@ORDERS
def test_warp_equals_map_coordinates(isa, order, two_d, degrees):
    pair = pair_of(two_d, order)
    n = np.array([1, 75, 81] if two_d else [13, 45, 61])
    F = turned(degrees, 9, two_d)
    centre = np.where([two_d, False, False], 0.0, (np.array(pair.im2.shape) - 1) / 2 + [0.2, 0.1, -0.3])
    out = np.full(n, np.nan, np.float32)
    low, high = pair.frame, pair.frame + pair.im2.shape - 1
    correlation.warp(pair.box2, order, two_d, F, centre + pair.frame, low, high, out)
    x = np.indices(n) - np.reshape((n - 1) / 2, (3, 1, 1, 1))
    value, data = pair.sample2(np.einsum("ij,jzyx->izyx", F, x) + np.reshape(centre, (3, 1, 1, 1)))
    assert 0.2 < data.mean() < 1
    np.testing.assert_allclose(out, np.where(data, value, 0), rtol=0, atol=2e-4)


# ------------------------------------------------------------------------------------------------- whole registrations


@dataclass
class Outcome:
    F: np.ndarray
    t: np.ndarray
    error: float = np.inf
    iterations: int = 0
    status: int = 0
    norm: float = 100.0
    coverage: float = np.nan
    zncc: float = np.nan


@dataclass
class Run:
    """Settings of a registration, for the kernel and for the oracle."""

    hws: tuple[int, int, int] = (5, 5, 6)
    znssd: bool = False
    rigid: bool = False
    update_gradient: bool = False
    max_iterations: int = 50
    min_delta_phi: float = 1e-3
    gain: float = 1.0
    bias: float = 0.0

    def settings(self, pair: Pair) -> correlation.Settings:
        names = ("znssd", "rigid", "update_gradient", "max_iterations", "min_delta_phi", "gain", "bias")
        return pair.settings(**{name: getattr(self, name) for name in names})


def expected_outcome(pair: Pair, run: Run, node: np.ndarray, phi: np.ndarray) -> Outcome:
    """Gauss-Newton as the documentation of the method has it, on whole arrays."""
    out = Outcome(phi[:3, :3].copy(), phi[:3, 3].copy())
    n = np.array([1 if pair.two_d and a == 0 else 2 * h - 1 for a, h in enumerate(run.hws)])
    unknowns = [u for u in range(12) if not pair.two_d or (u >= 4 and u % 4)]
    started = False
    while True:
        window = pair.window(node - (n - 1) // 2, n, out.F, node + out.t, update_gradient=run.update_gradient)
        f, g = window.f[window.data], window.g[window.data]
        G, H, X = window.G[:, window.data], window.H[:, window.data], window.X[:, window.data]
        out.coverage = f.size / n.prod()
        before = out.error
        if f.size == 0:
            out.status = -3
            break
        sd_f, sd_g = f.std(), g.std()
        if run.znssd and (sd_f == 0 or sd_g == 0):
            out.status = -2
            break
        if sd_f and sd_g:
            out.zncc = ((f - f.mean()) * (g - g.mean())).mean() / (sd_f * sd_g)
        r = f - g
        if run.znssd:
            r = (f - f.mean()) - (g - g.mean()) * (sd_f / sd_g)
            if run.update_gradient:
                G, H = G * (sd_f / sd_g), H * (sd_f / sd_g)
        out.error = (r**2).sum() / f.sum()
        if started:
            if before < 0.8 * out.error and out.iterations > run.max_iterations / 2:
                out.status = -1
                break
            if not 0.2 <= abs(np.linalg.det(out.F)) <= 3:
                out.status = -3
                break
            out.iterations += 1
        started = True
        if out.iterations >= run.max_iterations or out.norm <= run.min_delta_phi:
            break
        B = np.einsum("iv,jv->ijv", G, X).reshape(12, -1)[unknowns]
        # the cross term of the two gradients, its symmetric part gradient by gradient
        M = np.einsum("iv,kv,jv,lv->ijkl", G, H, X, X, optimize=True)
        M = ((M + M.transpose(2, 1, 0, 3)) / 2).reshape(12, 12)[np.ix_(unknowns, unknowns)]
        if np.linalg.matrix_rank(M / np.sqrt(np.outer(np.diag(M), np.diag(M)) + 1e-300), tol=1e-7) < len(unknowns):
            out.status = -2
            break
        delta = np.zeros(12)
        delta[unknowns] = np.linalg.solve(M, B @ r)
        step = np.eye(4)
        step[:3] += delta.reshape(3, 4)
        if run.rigid:
            u, _, v = np.linalg.svd(step[:3, :3])
            step[:3, :3] = u @ v
        out.norm = np.linalg.norm((step - np.eye(4))[:3])
        out.t = out.t + out.F @ step[:3, 3]
        out.F = out.F @ step[:3, :3]
    if out.status != -2:
        if out.norm <= run.min_delta_phi:
            out.status = 2
        elif out.status == 0:
            out.status = 1
    return out


def correlate(
    pair: Pair,
    run: Run,
    nodes: np.ndarray,
    phi: np.ndarray,
    covered: np.ndarray | None = None,
    real: np.ndarray | None = None,
    low2: np.ndarray | None = None,
    high2: np.ndarray | None = None,
    settings: correlation.Settings | None = None,
    sampled1: np.ndarray | None = None,
    **limits: float,
) -> list[Outcome]:
    nodes = np.ascontiguousarray(np.atleast_2d(nodes), dtype=np.int64)
    phi = np.broadcast_to(phi, (len(nodes), 4, 4))
    flat = np.array(phi[:, :3].reshape(-1, 12), dtype=float, order="C")
    result = np.full((len(nodes), 6), 12345.0)
    low2 = np.broadcast_to(pair.low2 if low2 is None else low2, nodes.shape) + pair.frame
    high2 = np.broadcast_to(pair.high2 if high2 is None else high2, nodes.shape) + pair.frame
    correlation.correlate_points(
        run.settings(pair) if settings is None else settings,
        pair.box1,
        map_of(pair.usable),
        map_of(covered),
        map_of(real),
        sampled1,
        pair.box2,
        pair.map2,
        run.hws,
        pair.frame,
        nodes,
        np.ascontiguousarray(low2, dtype=float),
        np.ascontiguousarray(high2, dtype=float),
        flat,
        result,
        **limits,
    )
    out = []
    for row, (error, iterations, status, norm, coverage, zncc) in zip(flat.reshape(-1, 3, 4), result, strict=True):
        out.append(Outcome(row[:, :3], row[:, 3], error, int(iterations), int(status), norm, coverage, zncc))
    return out


def agree(got: Outcome, expected: Outcome, phi: float = 1e-5) -> None:
    """Float32 sums carry six digits of the last step, which is below 1e-3: Phi to 1e-5 is on the safe side."""
    assert (got.status, got.iterations) == (expected.status, expected.iterations)
    np.testing.assert_allclose(got.F, expected.F, rtol=0, atol=phi)
    np.testing.assert_allclose(got.t, expected.t, rtol=0, atol=phi)
    # residuals of 0.03 whose grey levels of 100 are rounded at the seventh digit
    np.testing.assert_allclose(got.error, expected.error, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(got.norm, expected.norm, rtol=1e-3, atol=1e-5)
    assert got.coverage == pytest.approx(expected.coverage, abs=1e-12)
    assert got.zncc == pytest.approx(expected.zncc, abs=1e-5, nan_ok=True)


@lru_cache
def moving(two_d: bool, order: int, smooth: float = 1.5, grey: tuple[float, float] = (1.0, 0.0)) -> Pair:
    """Image 1 is image 2 through a known Phi, interpolated by a spline of degree five."""
    shape = (1, 64, 70) if two_d else (36, 40, 44)
    im2 = texture(11, shape, smooth)
    F, t = moving_phi(two_d)
    centre = (np.array(shape) - 1) / 2
    x = np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))
    p = np.einsum("ij,jzyx->izyx", F, x) + np.reshape(centre + t, (3, 1, 1, 1))
    im1 = ndimage.map_coordinates(im2.squeeze(), p[1:] if two_d else p, order=5, mode="mirror").reshape(shape)
    im2 = grey[0] * im2 + grey[1]
    return Pair(np.float32(im1).astype(float), np.float32(im2).astype(float), order)


def moving_phi(two_d: bool) -> tuple[np.ndarray, np.ndarray]:
    F = turned(1.2, 4, two_d) @ np.array([[1.0, 0, 0], [0, 1.01, 0.004], [0, 0.004, 0.985]])
    return F, np.array([0 if two_d else 0.4, -0.7, 0.6])


def guess_at(pair: Pair, node: np.ndarray, off: float = 0.3) -> np.ndarray:
    """The true Phi about the node, somewhat wrong."""
    F, t = moving_phi(pair.two_d)
    arm = node - (np.array(pair.im1.shape) - 1) / 2
    phi = np.eye(4)
    phi[:3, 3] = t + (F - np.eye(3)) @ arm + off * np.array([0 if pair.two_d else 1, 1, -1])
    return phi


def nodes_of(pair: Pair) -> np.ndarray:
    if pair.two_d:
        return np.array([[0, 20, 24], [0, 31, 40], [0, 40, 33]])
    return np.array([[14, 17, 20], [17, 20, 22], [20, 18, 19]])


def run_for(pair: Pair, **more: Any) -> Run:
    return Run(hws=(0, 9, 10) if pair.two_d else (5, 5, 6), **more)


@pytest.mark.parametrize("update_gradient", [False, True], ids=["gradient1", "gradient2"])
@pytest.mark.parametrize("rigid", [False, True], ids=["all", "rigid"])
@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
@DIMENSIONS
@ORDERS
def test_registration_equals_oracle(isa, order, two_d, criterion, rigid, update_gradient):
    pair = moving(two_d, order)
    run = run_for(pair, znssd=criterion == "znssd", rigid=rigid, update_gradient=update_gradient)
    nodes = nodes_of(pair)
    guesses = np.array([guess_at(pair, node) for node in nodes])
    for node, phi, got in zip(nodes, guesses, correlate(pair, run, nodes, guesses), strict=True):
        agree(got, expected_outcome(pair, run, node, phi))
        assert got.status == 2
        if rigid:
            np.testing.assert_allclose(got.F @ got.F.T, np.eye(3), rtol=0, atol=1e-12)


@ORDERS
def test_registration_finds_the_truth(isa, order):
    """Not only what the oracle finds: the deformation that the images were made with."""
    pair = moving(False, order, 2.0)
    run = Run(hws=(9, 9, 9))
    node = np.array([18, 20, 22])
    (got,) = correlate(pair, run, node, guess_at(pair, node))
    F, t = moving_phi(False)
    t = t + (F - np.eye(3)) @ (node - (np.array(pair.im1.shape) - 1) / 2)
    assert got.status == 2
    # what is left is the interpolation's own error
    np.testing.assert_allclose(got.F, F, rtol=0, atol=1e-4 if order == 3 else 5e-3)
    np.testing.assert_allclose(got.t, t, rtol=0, atol=2e-4 if order == 3 else 1e-2)


@pytest.mark.parametrize("sigma", [1.0, 1.5])
@pytest.mark.parametrize("update_gradient", [False, True], ids=["gradient1", "gradient2"])
def test_registration_with_gaussian_gradients(isa, sigma, update_gradient):
    pair = moving(False, 1)
    pair = Pair(pair.im1, pair.im2, 1, sigma=sigma)
    # smoothed gradients are too small, and steps too long: it need not converge
    run = run_for(pair, update_gradient=update_gradient, max_iterations=3)
    node = np.array([18, 20, 22])
    phi = guess_at(pair, node)
    (got,) = correlate(pair, run, node, phi)
    agree(got, expected_outcome(pair, run, node, phi))


@pytest.mark.parametrize("update_gradient", [False, True], ids=["gradient1", "gradient2"])
@DIMENSIONS
@ORDERS
def test_znssd_does_not_see_gain_and_offset(isa, order, two_d, update_gradient):
    plain, changed = moving(two_d, order), moving(two_d, order, grey=(1.7, -40.0))
    for run in (run_for(plain, znssd=True, update_gradient=update_gradient, gain=1 / 1.7, bias=40 / 1.7),):
        nodes = nodes_of(plain)
        phi = np.array([guess_at(plain, node) for node in nodes])
        start = run_for(plain, znssd=True, update_gradient=update_gradient)
        for got, reference, node, guess in zip(
            correlate(changed, run, nodes, phi), correlate(plain, start, nodes, phi), nodes, phi, strict=True
        ):
            agree(got, reference)
            agree(got, expected_outcome(changed, run, node, guess))
        # nor does the first estimate of the two matter
        for got, reference in zip(
            correlate(changed, start, nodes, phi), correlate(plain, start, nodes, phi), strict=True
        ):
            agree(got, reference)
            assert got.status == 2


@DIMENSIONS
def test_mask_of_half_the_window(isa, two_d):
    pair = moving(two_d, 1)
    usable = np.ones(pair.im1.shape, np.uint8)
    node = nodes_of(pair)[1]
    usable[..., node[2] + 1 :] = 0
    usable[..., node[1] - 2, :] = 0
    pair = Pair(pair.im1, pair.im2, 1, usable=usable)
    run, phi = run_for(pair), guess_at(pair, node)
    (got,) = correlate(pair, run, node, phi)
    agree(got, expected_outcome(pair, run, node, phi))
    assert got.status == 2
    assert 0.4 < got.coverage < 0.6


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
@ORDERS
def test_samples_that_fall_out(isa, order, criterion):
    """Bounds of window 2 that cut a part off, and holes: the voxels that take part change from pass to pass."""
    pair = moving(False, order)
    node = np.array([18, 20, 22])
    valid2 = np.ones(pair.im2.shape, np.uint8)
    valid2[16:19, 22, 25] = 0
    pair = Pair(pair.im1, pair.im2, order, valid2=valid2, low2=node - 4, high2=node + np.array([3, 5, 5]))
    run, phi = run_for(pair, znssd=criterion == "znssd"), guess_at(pair, node, 0.8)
    (got,) = correlate(pair, run, node, phi)
    agree(got, expected_outcome(pair, run, node, phi))
    assert got.status == 2
    assert 0.4 < got.coverage < 0.9


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
def test_samples_that_come_back(isa, criterion):
    """The guess leaves the bounds, the solution does not: sums over the whole window hold again."""
    pair = moving(False, 1)
    node = np.array([18, 20, 22])
    true = guess_at(pair, node, 0.0)
    reach = np.array([4, 4, 5]) + 0.4
    pair = Pair(pair.im1, pair.im2, low2=node + true[:3, 3] - reach, high2=node + true[:3, 3] + reach)
    run, phi = run_for(pair, znssd=criterion == "znssd"), guess_at(pair, node, 0.7)
    (got,) = correlate(pair, run_for(pair, max_iterations=0), node, phi)
    assert got.coverage < 0.95
    (got,) = correlate(pair, run, node, phi)
    assert (got.status, got.coverage) == (2, 1)
    agree(got, expected_outcome(pair, run, node, phi))


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
@pytest.mark.parametrize("masked", [False, True])
def test_dead_row(isa, masked, criterion):
    """A dead row of image 2 passes through the windows: other voxels are compared, though as many as before."""
    pair = moving(False, 1)
    valid2 = np.ones(pair.im2.shape, np.uint8)
    valid2[:, 20] = 0
    usable = np.ones(pair.im1.shape, np.uint8)
    usable[:, :, 22] = not masked
    pair = Pair(pair.im1, pair.im2, valid2=valid2, usable=usable if masked else None)
    nodes = np.array([[18, 20, 22]]) + np.array([[0, y, x] for y in range(-4, 5) for x in (-2, 3)])
    guesses = np.array([guess_at(pair, node, 0.9) for node in nodes])
    run = run_for(pair, znssd=criterion == "znssd")
    for node, phi, got in zip(nodes, guesses, correlate(pair, run, nodes, guesses), strict=True):
        agree(got, expected_outcome(pair, run, node, phi), 3e-5)


# ----------------------------------------------------------------------------------------------------------- statuses


@pytest.mark.parametrize("most", [0, 1, 2, 3])
@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
def test_most_iterations(isa, most, criterion):
    pair = moving(False, 1)
    run = run_for(pair, max_iterations=most, znssd=criterion == "znssd", min_delta_phi=1e-9)
    node = nodes_of(pair)[0]
    phi = guess_at(pair, node)
    (got,) = correlate(pair, run, node, phi)
    agree(got, expected_outcome(pair, run, node, phi))
    assert (got.status, got.iterations) == (1, most)
    if most == 0:
        assert got.norm == 100
        assert np.array_equal(got.F, phi[:3, :3])
        assert np.array_equal(got.t, phi[:3, 3])


def test_converged_on_the_last_iteration(isa):
    """The change of Phi is looked at last: it overrides the number of iterations."""
    pair = moving(False, 1)
    node = nodes_of(pair)[0]
    phi = guess_at(pair, node)
    (free,) = correlate(pair, run_for(pair), node, phi)
    (got,) = correlate(pair, run_for(pair, max_iterations=free.iterations), node, phi)
    assert (got.status, got.iterations) == (2, free.iterations)


def test_growing_error(isa):
    """Late growth by more than a quarter ends a registration with -1; the bad step is not undone."""
    random = np.random.default_rng(3)
    im1, im2 = texture(21, (30, 32, 34), 0.7), texture(22, (30, 32, 34), 0.7)
    pair = Pair(im1, im2)
    run = Run(hws=(3, 3, 3), max_iterations=4, min_delta_phi=1e-6)
    nodes = random.integers(9, 20, (600, 3))
    seen = 0
    for node, got in zip(nodes, correlate(pair, run, nodes, np.eye(4)), strict=True):
        if got.status == -1:
            expected = expected_outcome(pair, run, node, np.eye(4))
            # chaotic on unrelated images, but these four steps are short
            assert (expected.status, expected.iterations) == (-1, got.iterations)
            np.testing.assert_allclose(got.error, expected.error, rtol=1e-2)
            assert got.iterations == 3
            seen += 1
    assert seen >= 5


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
@DIMENSIONS
def test_flat_window(isa, two_d, criterion):
    shape = (1, 40, 40) if two_d else (24, 26, 28)
    node = np.array([0 if two_d else 12, 13, 14])
    phi = np.eye(4)
    phi[:3, 3] = [0 if two_d else 0.5, 1.25, -0.5]
    flat, textured = np.full(shape, 50.0), texture(8, shape)
    for im1, im2 in ((flat, textured), (flat, flat), (np.zeros(shape), np.zeros(shape))):
        pair = Pair(im1, im2)
        run = Run(hws=(0, 5, 5) if two_d else (4, 5, 5), znssd=criterion == "znssd")
        (got,) = correlate(pair, run, node, phi)
        assert (got.status, got.iterations, got.norm) == (-2, 0, 100)
        assert np.array_equal(got.F, phi[:3, :3])
        assert np.array_equal(got.t, phi[:3, 3])
        if criterion == "ssd" and im1.any():
            agree(got, expected_outcome(pair, run, node, phi))


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
def test_stripes(isa, criterion):
    """Texture along one axis only: gradients along the others vanish."""
    stripes = np.broadcast_to(LEVEL + 20 * np.sin(0.7 * np.arange(30)), (24, 26, 30)).copy()
    pair = Pair(stripes, stripes)
    (got,) = correlate(pair, Run(hws=(4, 4, 4), znssd=criterion == "znssd"), np.array([12, 13, 14]), np.eye(4))
    assert (got.status, got.iterations) == (-2, 0)
    # oblique stripes: no gradient vanishes, yet the system is singular
    z, y, x = np.indices((24, 26, 30))
    oblique = LEVEL + 20 * np.sin(0.4 * z + 0.3 * y + 0.5 * x)
    pair = Pair(oblique, oblique)
    (got,) = correlate(pair, Run(hws=(4, 4, 4), znssd=criterion == "znssd"), np.array([12, 13, 14]), np.eye(4))
    assert (got.status, got.iterations) == (-2, 0)


@pytest.mark.parametrize("volume", [3.05, 0.19, 2.95, 0.21])
def test_volume_change(isa, volume):
    """The step ends in a volume change on either side of the limits of 3 and 0.2."""
    pair = moving(False, 1)
    node = np.array([18, 20, 22])
    phi = guess_at(pair, node, 0.0)
    phi[:3, :3] = moving_phi(False)[0] * volume ** (1 / 3)
    # image 2 enlarged by as much about the node: its true Phi is the guess, and the step small
    x = np.indices(pair.im2.shape) - np.reshape(node + phi[:3, 3], (3, 1, 1, 1))
    at = x / volume ** (1 / 3) + np.reshape(node + phi[:3, 3], (3, 1, 1, 1))
    pair = Pair(pair.im1, np.float32(ndimage.map_coordinates(pair.im2, at, order=5, mode="mirror")).astype(float))
    run = Run(hws=(5, 5, 5), max_iterations=2, min_delta_phi=1e-9)
    (got,) = correlate(pair, run, node, phi)
    expected = expected_outcome(pair, run, node, phi)
    agree(got, expected, 1e-4)
    inside = 0.2 < volume < 3
    assert (got.status, got.iterations) == ((1, 2) if inside else (-3, 0))


def test_moved_off_the_data(isa):
    pair = moving(False, 1)
    phi = np.eye(4)
    phi[2, 3] = 500.0
    (got,) = correlate(pair, run_for(pair), np.array([18, 20, 22]), phi)
    assert (got.status, got.iterations, got.norm, got.coverage) == (-3, 0, 100, 0)


def test_too_few_samples_left(isa):
    """Half of the least coverage of what was comparable has to stay."""
    pair = moving(False, 1)
    node = np.array([18, 20, 22])
    high2 = node + np.array([12, 12, -0.9])  # 4 or 5 of 11 voxels along x are left
    (got,) = correlate(pair, run_for(pair), node, np.eye(4), high2=high2, min_coverage=0.5)
    assert (got.status, got.coverage) == (-3, pytest.approx(5 / 11))
    (got,) = correlate(pair, run_for(pair, max_iterations=0), node, np.eye(4), high2=high2, min_coverage=0.4)
    assert (got.status, got.coverage) == (1, pytest.approx(5 / 11))


def test_half_of_the_samples_is_enough(isa):
    """A least coverage above a half is asked of window 1 only."""
    pair = moving(False, 1)
    node = np.array([18, 20, 22])
    (got,) = correlate(
        pair, run_for(pair, max_iterations=0), node, np.eye(4), high2=node + np.array([12, 12, 0.1]), min_coverage=0.9
    )
    assert (got.status, got.coverage) == (1, pytest.approx(6 / 11))


def test_coverage(isa):
    """Windows whose covered part is at least the limit take part, whole or not; without any voxel never."""
    pair = moving(False, 1)
    node, run = np.array([18, 20, 22]), run_for(pair)
    covered = np.ones(pair.im1.shape, np.uint8)
    covered[:, :, 23:] = 0  # 7 of 13 columns stay
    for limit, status in ((7 / 13, 2), (np.nextafter(7 / 13, 1), -5), (0.0, 2), (1.0, -5)):
        (got,) = correlate(pair, run, node, guess_at(pair, node), covered=covered, min_coverage=limit)
        assert got.status == status
        if status == -5:
            skipped(got, 7 / 13)
    (got,) = correlate(pair, run, node, guess_at(pair, node), covered=np.zeros_like(covered), min_coverage=0.0)
    skipped(got, 0.0)


def skipped(got: Outcome, coverage: float) -> None:
    assert (got.status, got.iterations, got.error, got.norm) == (-5, 0, np.inf, np.inf)
    assert got.coverage == pytest.approx(coverage)


def test_grey_thresholds_are_strict(isa):
    """The mean is that of the window of 2 hws + 1, masked voxels included, those that do not exist left out."""
    im1 = np.round(texture(31, (30, 32, 34)))
    real = np.ones(im1.shape, np.uint8)
    real[:, :, :12] = 0
    pair = Pair(np.where(real, im1, 0), im1)
    node, run = np.array([15, 16, 14]), Run(hws=(4, 5, 6))
    window = im1[11:20, 11:22, 12:21]
    mean = window.sum() / window.size
    low, high = np.nextafter(mean, 0), np.nextafter(mean, 1e9)
    for limits, passes in (
        ({"grey_low": mean}, False),
        ({"grey_low": low}, True),
        ({"grey_high": mean}, False),
        ({"grey_high": high}, True),
        ({"grey_low": low, "grey_high": high}, True),
        ({"grey_low": high, "grey_high": low}, False),
    ):
        (got,) = correlate(pair, run, node, np.eye(4), real=real, covered=real, **limits)
        assert (got.status != -5) is passes


def test_window_2_outside(isa):
    pair = moving(False, 1)
    node = np.array([18, 20, 22])
    phi = guess_at(pair, node)
    (got,) = correlate(pair, run_for(pair), node, phi, low2=np.ones(3), high2=np.zeros(3))
    skipped(got, 1.0)
    assert np.array_equal(got.t, phi[:3, 3])


def test_no_comparable_voxel(isa):
    pair = moving(False, 1)
    pair = Pair(pair.im1, pair.im2, 1, usable=np.zeros(pair.im1.shape, np.uint8))
    (got,) = correlate(pair, run_for(pair), np.array([18, 20, 22]), np.eye(4))
    assert (got.status, got.iterations, got.coverage) == (-2, 0, 0)


@pytest.mark.parametrize(
    ("bad", "places"),
    [
        (np.nan, [(0, 3), (2, 3), (1, 1), (2, 0)]),
        (np.inf, [(0, 3), (2, 3), (1, 1), (2, 0)]),
        (1e300, [(0, 3), (2, 3)]),
        (-1e12, [(0, 3), (2, 3)]),
    ],
)
def test_absurd_guesses_are_rows(isa, bad, places):
    """Nothing but a status comes of a guess that is no number or far beyond any image."""
    pair = moving(False, 1)
    for place in places:
        phi = np.eye(4)
        phi[place] = bad
        (got,) = correlate(pair, run_for(pair), np.array([18, 20, 22]), phi)
        assert (got.status, got.iterations) == (-3, 0)


# ------------------------------------------------------------------------------------ independence of points and sets


def crowd(pair: Pair, count: int = 100) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(12)
    size = np.array(pair.im1.shape)
    edge = np.array([0, 13, 13]) if pair.two_d else np.array([8, 8, 9])
    nodes = edge + (random.random((count, 3)) * (size - 2 * edge)).astype(int)
    phi = np.array([guess_at(pair, node, random.uniform(-0.6, 0.6)) for node in nodes])
    return nodes, phi


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
@DIMENSIONS
@ORDERS
def test_company_and_order_do_not_matter(isa, order, two_d, criterion):
    """The same bits alone, together and in any order; buffers carry nothing from point to point."""
    pair = moving(two_d, order)
    run = run_for(pair, znssd=criterion == "znssd")
    nodes, phi = crowd(pair, 24)
    phi[5, 2, 3] = 300.0
    low2 = np.maximum(nodes + np.rint(phi[:, :3, 3]) - run.hws - 1, 0)
    high2 = np.minimum(nodes + np.rint(phi[:, :3, 3]) + run.hws + 1, np.array(pair.im2.shape) - 1)
    low2[9], high2[9] = 1, 0

    def rows(chosen: np.ndarray) -> list[bytes]:
        low, high = np.minimum(low2, pair.high2)[chosen], np.maximum(high2, pair.low2)[chosen]
        return [bits(got) for got in correlate(pair, run, nodes[chosen], phi[chosen], low2=low, high2=high)]

    together = rows(np.arange(24))
    backwards = rows(np.arange(24)[::-1])[::-1]
    alone = [rows(np.array([k]))[0] for k in range(24)]
    assert together == backwards
    assert together == alone


def bits(got: Outcome) -> bytes:
    numbers = [*got.F.ravel(), *got.t, got.error, got.iterations, got.status, got.norm, got.coverage, got.zncc]
    return np.array(numbers).tobytes()


@pytest.mark.parametrize("criterion", ["ssd", "znssd"])
@DIMENSIONS
@ORDERS
def test_instruction_sets_agree(order, two_d, criterion):
    sets = correlation.instruction_sets()
    if len(sets) == 1:
        pytest.skip("this processor has one instruction set only")
    pair = moving(two_d, order)
    run = run_for(pair, znssd=criterion == "znssd")
    nodes, phi = crowd(pair)
    before, results = correlation.instruction_set(), []
    try:
        for name in sets:
            correlation.use_instruction_set(name)
            assert correlation.instruction_set() == name
            results.append(correlate(pair, run, nodes, phi))
    finally:
        correlation.use_instruction_set(before)
    for other in results[1:]:
        for got, expected in zip(other, results[0], strict=True):
            agree(got, expected)
    assert sum(got.status == 2 for got in results[0]) > 90


def test_shift_takes_the_index_of_the_whole_window(isa):
    """The error of the guess shows the samples: the index runs over the window of 2 hws + 1."""
    for two_d in (False, True):
        for order in (1, 3):
            pair = moving(two_d, order)
            run = run_for(pair, max_iterations=0)
            node = nodes_of(pair)[0]
            settings = pair.settings(shift=True, max_iterations=0)
            phi = guess_at(pair, node)
            phi[:3, :3] = turned(2, 1, two_d) * 1.02
            (got,) = correlate(pair, run, node, phi, settings=settings, sampled1=pair.sampled1)
            wy, wx = 2 * run.hws[1] + 1, 2 * run.hws[2] + 1
            n = np.array([1 if two_d else 2 * run.hws[0] - 1, wy - 2, wx - 2])
            index = ((0 if two_d else wy * wx) + wx + 1, wx, wy * wx)
            window = pair.window(node - (n - 1) // 2, n, phi[:3, :3], node + phi[:3, 3], index=index)
            assert got.status == 1
            assert got.error == pytest.approx(((window.f - window.g) ** 2).sum() / window.f.sum(), rel=1e-4)


# ---------------------------------------------------------------------------------------------------------- bad input


def test_unknown_instruction_set():
    before = correlation.instruction_set()
    with pytest.raises(ValueError, match="'sse9' is not available here"):
        correlation.use_instruction_set("sse9")
    assert correlation.instruction_set() == before
    assert correlation.instruction_sets()[0] == "baseline"
    assert set(correlation.instruction_sets()) <= set(correlation.INSTRUCTION_SETS)


@pytest.mark.parametrize("order", [0, 2, 5])
def test_unknown_order(order):
    with pytest.raises(ValueError, match="interpolation order"):
        correlation.Settings(order=order)
    box = correlation.empty_box((5, 5, 5))
    with pytest.raises(ValueError, match="interpolation order"):
        correlation.warp(box, order, False, np.eye(3), (2, 2, 2), (0, 0, 0), (4, 4, 4), box.copy())


@pytest.mark.parametrize(("low", "high"), [((-1, 0, 0), (3, 4, 5)), ((0, 0, 0), (3, 4, 6)), ((0, 3, 0), (3, 2, 5))])
def test_prefilter_outside(low, high):
    with pytest.raises(ValueError, match="not inside the box"):
        correlation.prefilter(correlation.empty_box((3, 4, 5)), low, high)


def points_call(**changes: Any) -> None:
    arguments = {
        "settings": correlation.Settings(),
        "box1": correlation.empty_box((12, 13, 14)),
        "usable": None,
        "covered": None,
        "real": None,
        "sampled1": None,
        "box2": correlation.empty_box((20, 20, 20)),
        "valid2": None,
        "hws": (3, 3, 3),
        "offset": (0, 0, 0),
        "centre1": np.full((2, 3), 6),
        "low2": np.full((2, 3), 3.0),
        "high2": np.full((2, 3), 16.0),
        "phi": np.tile(np.eye(4)[:3].ravel(), (2, 1)),
        "result": np.zeros((2, 6)),
    }
    correlation.correlate_points(**(arguments | changes))


POINTS_ERRORS = {
    "phi": ({"phi": np.zeros((2, 16))}, "arrays of points"),
    "result": ({"result": np.zeros((1, 6))}, "arrays of points"),
    "centres": ({"centre1": np.full((2, 2), 6)}, "arrays of points"),
    "low2": ({"low2": np.zeros((1, 3))}, "arrays of points"),
    "high2": ({"high2": np.zeros((2, 4))}, "arrays of points"),
    "usable": ({"usable": np.zeros((12, 13, 15), np.uint8)}, "map of voxels"),
    "covered": ({"covered": np.zeros((12, 12, 14), np.uint8)}, "map of voxels"),
    "real": ({"real": np.zeros((11, 13, 14), np.uint8)}, "map of voxels"),
    "valid2": ({"valid2": np.zeros((12, 13, 14), np.uint8)}, "map of voxels"),
    "sampled1": ({"sampled1": np.zeros((12, 13, 15), np.float32)}, "samples must have the shape"),
    "no samples": ({"settings": correlation.Settings(shift=True)}, "needs sampled1"),
    "hws": ({"hws": (3, 0, 3)}, "half-window size"),
    "hws z": ({"hws": (0, 3, 3)}, "half-window size"),
    "hws z in 2D": ({"settings": correlation.Settings(two_d=True)}, "must be 0 in 2D"),
    "window low": ({"centre1": np.array([[6, 6, 6], [6, 6, 2]])}, "window of point 1 leaves"),
    "window high": ({"centre1": np.array([[9, 6, 6], [6, 6, 6]])}, "window of point 0 leaves"),
    "gradients": ({"settings": correlation.Settings(sigma=2.0)}, "window of point 0 leaves"),
    "window 2 low": ({"low2": np.array([[3.0, 3, 3], [3, 2.5, 3]])}, "window 2 of point 1 leaves"),
    "window 2 high": ({"high2": np.array([[5.0, 5, 16.5], [5, 5, 5]])}, "window 2 of point 0 leaves"),
}


@pytest.mark.parametrize("name", POINTS_ERRORS)
def test_bad_points(name):
    changes, message = POINTS_ERRORS[name]
    points_call()
    with pytest.raises(ValueError, match=message):
        points_call(**changes)


def test_no_points():
    points_call(
        **{name: np.zeros((0, 3)) for name in ("low2", "high2")},
        centre1=np.zeros((0, 3), np.int64),
        phi=np.zeros((0, 12)),
        result=np.zeros((0, 6)),
    )


def block_call(**changes: Any) -> None:
    arguments = {
        "settings": correlation.Settings(),
        "box1": correlation.empty_box((12, 13, 14)),
        "usable": None,
        "sampled1": None,
        "box2": correlation.empty_box((20, 20, 20)),
        "valid2": None,
        "low1": (1, 1, 1),
        "n": (10, 11, 12),
        "F": np.eye(3),
        "centre2": (9, 9, 9),
        "low2": (3, 3, 3),
        "high2": (16, 16, 16),
        "level": 0.0,
        "gain": 1.0,
        "bias": 0.0,
    }
    correlation.block_sums(**(arguments | changes))


BLOCK_ERRORS = {
    "usable": ({"usable": np.zeros((12, 13, 15), np.uint8)}, "map of voxels"),
    "valid2": ({"valid2": np.zeros((12, 13, 14), np.uint8)}, "map of voxels"),
    "sampled1": ({"sampled1": np.zeros((12, 13, 15), np.float32)}, "samples must have the shape"),
    "no samples": ({"settings": correlation.Settings(shift=True)}, "needs sampled1"),
    "low": ({"low1": (0, 1, 1)}, "must lie inside box 1"),
    "high": ({"n": (10, 11, 13)}, "must lie inside box 1"),
    "gradients": ({"settings": correlation.Settings(sigma=0.5)}, "must lie inside box 1"),
    "n": ({"n": (10, 0, 12)}, "at least one voxel"),
    "low2": ({"low2": (3, 2.5, 3)}, "must lie inside box 2"),
    "high2": ({"high2": (16, 16, 16.5)}, "must lie inside box 2"),
}


@pytest.mark.parametrize("name", BLOCK_ERRORS)
def test_bad_blocks(name):
    changes, message = BLOCK_ERRORS[name]
    block_call()
    with pytest.raises(ValueError, match=message):
        block_call(**changes)


def test_warp_outside():
    box, out = correlation.empty_box((8, 8, 8)), correlation.empty_box((4, 4, 4))
    for low, high in (((0, -1, 0), (5, 5, 5)), ((2, 2, 2), (5, 5, 7.5))):
        with pytest.raises(ValueError, match="must lie inside the box"):
            correlation.warp(box, 1, False, np.eye(3), (4, 4, 4), low, high, out)


@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_bad_sigma(sigma):
    with pytest.raises(ValueError, match="must be above 0"):
        correlation.Settings(sigma=sigma)


@pytest.mark.parametrize("value", [1e5, 1e8, -1e12, 1e300])
@pytest.mark.parametrize("entry", [(i, j) for i in range(3) for j in range(4)])
def test_absurd_guess_is_a_row(isa, entry, value):
    """Positions beyond the fixed-point range must not become addresses."""
    phi = np.eye(4)[:3]
    phi[entry] = value
    result = np.zeros((2, 6))
    points_call(phi=np.stack([phi.ravel(), np.eye(4)[:3].ravel()]), result=result)
    assert (result[:, 2] < 0).all()  # no texture, or no samples


def test_taps_stay_inside_the_frame(isa):
    """Where samples end at a voxel, the next voxels are read with weight 0: they must exist, but not count."""
    frame = correlation.FRAME
    image = np.random.default_rng(5).random((9, 9, 60)).astype(np.float32)
    box1 = correlation.empty_box(image.shape)
    box1[...] = image
    shape = tuple(n + 2 * frame for n in image.shape)
    memory = np.full(int(np.prod(shape)) + correlation.PADDING + 4000, np.nan, np.float32)
    box2 = memory[: int(np.prod(shape))].reshape(shape)
    box2[...] = 0
    memory[box2.size : box2.size + correlation.PADDING] = 0
    inside = tuple(slice(frame, frame + n) for n in image.shape)
    box2[inside] = image
    correlation.prefilter(box2, [frame] * 3, [frame + n for n in image.shape])
    n = np.array([5, 5, 40])
    last = np.array(image.shape) - 1
    F = np.diag([1.0, 1.0, 0.99])
    centre2 = last + frame - np.diag(F) * (n - 1) / 2
    sums = correlation.block_sums(
        correlation.Settings(order=3),
        box1,
        None,
        None,
        box2,
        None,
        (1, 1, 1),
        n,
        F,
        centre2,
        [frame] * 3,
        last + frame,
        0.0,
        1.0,
        0.0,
    )
    assert np.isfinite(sums).all()
    assert sums[0] == n.prod()


def test_rigid_drops_the_stretch_of_the_guess(isa):
    pair = moving(False, 1)
    run = run_for(pair, rigid=True)
    (got,) = correlate(pair, run, np.array([18, 20, 22]), np.diag([1.05, 1.0, 0.97, 1.0]))
    np.testing.assert_allclose(got.F.T @ got.F, np.eye(3), atol=1e-12)


def test_2d_needs_no_room_along_z():
    points_call(
        settings=correlation.Settings(two_d=True),
        box1=correlation.empty_box((1, 13, 14)),
        box2=correlation.empty_box((1, 20, 20)),
        hws=(0, 3, 3),
        centre1=np.array([[0, 6, 6]] * 2),
        low2=np.array([[0.0, 3, 3]] * 2),
        high2=np.array([[0.0, 16, 16]] * 2),
    )


# ------------------------------------------------------------------------------------------------------- shared object


def test_instruction_sets_share_no_code():
    """The linker may keep one copy only of a weak or unique symbol: that of AVX-512 would crash older processors."""
    if shutil.which("nm") is None:
        pytest.skip("no nm here")
    done = subprocess.run(["nm", "-C", correlation.__file__], capture_output=True, text=True, check=False)
    if done.returncode or "mpidvc_kernels_baseline" not in done.stdout:
        pytest.skip("the extension has no symbol table")
    defined = []
    for line in done.stdout.splitlines():
        address, _, rest = line.partition(" ")
        if address.strip():
            defined.append(rest.split(" ", 1))
    weak = [name for kind, name in defined if kind in "WVuwv" and "__pyx" not in name.lower()]
    assert weak == []
    cores = [kind for kind, name in defined if "(anonymous namespace)" in name]
    assert cores
    assert set(cores) <= set("tdrb")
    tables = [name for kind, name in defined if name.startswith("mpidvc_kernels_") and kind.lower() == "t"]
    assert len(tables) in (1, len(correlation.INSTRUCTION_SETS))
