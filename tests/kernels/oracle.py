"""What the kernels compute, in plain float64 numpy and scipy: samples, sums, whole registrations, pixel searches."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mpidvc.kernels import correlation

#: Voxels around image 2 in its box: as far as taps reach.
FRAME = 3
#: Mean grey level of textures.
LEVEL = 100.0


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
        shift = index is not None
        reach = np.where([self.two_d, False, False], 0, self.reach + shift) if update_gradient else np.zeros(3, int)
        x = np.indices(n + 2 * reach).astype(float) - np.reshape(reach + (n - 1) / 2, (3, 1, 1, 1))
        core = tuple(slice(r, r + m) for r, m in zip(reach, n, strict=True))
        lever = x[(slice(None), *core)]
        f, samples = self.im1[inner], lever
        first = 1 if self.two_d else 0
        if index is not None:
            start, along_y, along_z = index
            k = np.indices(n)
            s = shifts(start + along_z * k[0] + along_y * k[1] + k[2], self.two_d)
            samples = lever + s
            at = (np.indices(n) + np.reshape(low1, (3, 1, 1, 1)) + s)[first:]
            f = ndimage.map_coordinates(self.samples1, at, order=self.order, mode="mirror", prefilter=False)

        def sampled(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            value, data = self.sample2(np.einsum("ij,jzyx->izyx", F, x) + np.reshape(centre2, (3, 1, 1, 1)))
            return gain * value + bias, data

        g, data = sampled(samples)
        source, part = self.im1, inner
        if update_gradient:
            # image 2 at the voxels and around them, from which its gradients are taken
            source, around = sampled(x)
            part = core
            if self.sigma is None and not shift:
                kernel = ndimage.generate_binary_structure(3, 1)
                if self.two_d:
                    kernel[[0, 2]] = False
            else:
                kernel = np.ones([1 if r == 0 else 2 * r + 1 for r in reach], bool)
            data = data & ndimage.binary_erosion(around, kernel)[core]
        H = self.gradient(source, central=True)[(slice(None), *part)]
        G = self.gradient(source) if update_gradient else self.gradient1
        if index is None:
            G = G[(slice(None), *part)]
        else:
            beside = (np.indices(n) + np.reshape(reach if update_gradient else low1, (3, 1, 1, 1)) + s)[first:]
            G = np.array(
                [
                    ndimage.map_coordinates(component.squeeze(0) if self.two_d else component, beside, order=1)
                    for component in G
                ]
            )
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
    whole: np.ndarray | None = None,
    **settings: Any,
) -> Window:
    """Compare all sums of one pass, with what is kept of image 1 in `whole`; returns the oracle's arrays."""
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
        whole,
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


def expected_outcome(
    pair: Pair, run: Run, node: np.ndarray, phi: np.ndarray, enough: float = 1.0, compared: Any = None
) -> Outcome:
    """Gauss-Newton as the documentation of the method has it, on whole arrays; `enough`: least voxels to compare.

    Phi is about the middle of the voxels that are compared: the node, or half a voxel above it.
    """
    out = Outcome(phi[:3, :3].copy(), phi[:3, 3].copy())
    n = np.array([1 if pair.two_d and a == 0 else 2 * h - 1 for a, h in enumerate(run.hws)])
    if compared is not None:
        n = np.array(compared)
    middle = node + (n - 1) / 2 - (n - 1) // 2
    unknowns = [u for u in range(12) if not pair.two_d or (u >= 4 and u % 4)]
    started, square = False, np.inf
    while True:
        low1 = node - (n - 1) // 2
        window = pair.window(low1, n, out.F, middle + out.t, update_gradient=run.update_gradient)
        f, g = window.f[window.data], window.g[window.data]
        G, H, X = window.G[:, window.data], window.H[:, window.data], window.X[:, window.data]
        out.coverage = f.size / n.prod()
        if f.size < enough:
            # what has left the data is not converged, however small the step
            out.status = -3
            return out
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
        before, square = square, (r**2).mean()
        if started:
            if before < 0.8 * square and out.iterations > run.max_iterations / 2:
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
    **more: Any,
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
        **more,
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


def skipped(got: Outcome, coverage: float) -> None:
    assert (got.status, got.iterations, got.error, got.norm) == (-5, 0, np.inf, np.inf)
    assert got.coverage == pytest.approx(coverage)


def crowd(pair: Pair, count: int = 100) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(12)
    size = np.array(pair.im1.shape)
    edge = np.array([0, 13, 13]) if pair.two_d else np.array([8, 8, 9])
    nodes = edge + (random.random((count, 3)) * (size - 2 * edge)).astype(int)
    phi = np.array([guess_at(pair, node, random.uniform(-0.6, 0.6)) for node in nodes])
    return nodes, phi


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


def search_oracle(
    a: np.ndarray,
    usable1: np.ndarray | None,
    region: np.ndarray,
    usable2: np.ndarray | None,
    zero_mean: bool,
    min_overlap: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """CC of every offset, -inf where there is none, and the error, all in float64."""
    a, region = a.astype(np.float64), region.astype(np.float64)
    u1 = np.ones(a.shape, bool) if usable1 is None else usable1 != 0
    u2 = np.ones(region.shape, bool) if usable2 is None else usable2 != 0
    windows, maps = sliding_window_view(region, a.shape), sliding_window_view(u2, a.shape)
    cc = np.full(windows.shape[:3], -np.inf)
    error = np.full(windows.shape[:3], np.inf)
    if not u1.any() or np.ptp(a[u1]) == 0:
        return cc, error  # nothing to follow
    for z in range(len(cc)):
        # all offsets of a plane at once: a row for each
        both = (u1 & maps[z]).reshape(-1, a.size)
        count = both.sum(axis=1)
        compared = (count > 0) & (count >= min_overlap * u1.sum())
        f, g = (np.where(both, values, 0.0) for values in (a.ravel(), windows[z].reshape(both.shape)))
        total = f.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(total != 0, ((f - g) ** 2).sum(axis=1) / total, np.inf)
            error[z].flat[compared] = found[compared]
            if zero_mean:
                for values in (f, g):
                    least, most = (np.where(both, values, end) for end in (np.inf, -np.inf))
                    compared &= least.min(axis=1) < most.max(axis=1)
                f, g = (np.where(both, v - (v.sum(axis=1) / count)[:, None], 0.0) for v in (f, g))
            norm = np.sqrt((f * f).sum(axis=1) * (g * g).sum(axis=1))
            compared &= norm > 0
            cc[z].flat[compared] = ((f * g).sum(axis=1) / norm)[compared]
    return cc, error
