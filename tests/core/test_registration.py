"""Sums of blocks that add up, and Gauss-Newton driven by them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core import deformation
from mpidvc.core.registration import BlockSums, GaussNewton, RegistrationSettings
from mpidvc.kernels import correlation

#: Voxels around image 2 in its box.
FRAME = 3


@lru_cache
def images(two_d: bool) -> tuple[np.ndarray, np.ndarray]:
    """A texture and its deformed form, float32, grey levels around 100."""
    shape = (1, 60, 70) if two_d else (30, 33, 36)
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=shape), [0 if two_d else 1.5, 1.5, 1.5])
    im2 = 100 + 20 * noise / noise.std()
    phi = true_phi(two_d)
    centre = (np.array(shape) - 1) / 2
    x = np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))
    p = np.einsum("ij,jzyx->izyx", phi[:3, :3], x) + np.reshape(centre + phi[:3, 3], (3, 1, 1, 1))
    im1 = ndimage.map_coordinates(im2.squeeze(), p[1:] if two_d else p, order=5, mode="mirror").reshape(shape)
    return im1.astype(np.float32), im2.astype(np.float32)


def true_phi(two_d: bool) -> np.ndarray:
    if two_d:
        return deformation.compute_phi([0, -0.7, 0.6], [1.3, 0, 0], np.diag([1, 1.01, 0.985]))
    return deformation.compute_phi([0.4, -0.7, 0.6], [0.7, -0.5, 0.9], np.diag([1.005, 1.01, 0.985]))


class Problem:
    """A part of image 1 to be registered in image 2, as a whole or in blocks."""

    def __init__(self, two_d: bool, settings: RegistrationSettings) -> None:
        self.two_d, self.settings = two_d, settings
        self.kernel = settings.for_kernels(two_d)
        im1, im2 = images(two_d)
        self.box1 = correlation.empty_box(im1.shape)
        self.box1[...] = im1
        self.frame = np.array([0 if two_d else FRAME, FRAME, FRAME])
        self.box2 = correlation.empty_box(im2.shape + 2 * self.frame)
        inside = tuple(slice(f, f + n) for f, n in zip(self.frame, im2.shape, strict=True))
        self.box2[inside] = im2
        if settings.order == 3:
            correlation.prefilter(self.box2, self.frame, self.frame + im2.shape)
        self.low2, self.high2 = self.frame.astype(float), self.frame + np.array(im2.shape) - 1.0
        edge = np.array([0 if two_d else 7, 8, 8])
        self.low1, self.high1 = edge, np.array(im1.shape) - edge - (1 - np.array(im1.shape) % 2)
        self.centre = (self.low1 + self.high1 - 1) / 2

    def block(self, low: np.ndarray, high: np.ndarray, state: GaussNewton) -> BlockSums:
        """Sums of a block about the centre of the whole part."""
        middle = (low + high - 1) / 2
        F, t = state.phi[:3, :3], state.phi[:3, 3]
        sums = correlation.block_sums(
            self.kernel,
            self.box1,
            None,
            None,
            self.box2,
            None,
            low,
            high - low,
            F,
            F @ (middle - self.centre) + t + self.centre + self.frame,
            self.low2,
            self.high2,
            self.settings.level,
            state.gain,
            state.bias,
        )
        return BlockSums.of(sums).moved(middle - self.centre)

    def blocks(self, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The part in `count` uneven pieces per axis."""
        cuts = []
        for a in range(3):
            pieces = 1 if self.two_d and a == 0 else count
            at = np.linspace(self.low1[a], self.high1[a], pieces + 1) + 0.3 * (np.arange(pieces + 1) % 2)
            cuts.append(np.floor(at).astype(int))
            cuts[-1][-1] = self.high1[a]
        out = []
        for k in np.ndindex(*[len(c) - 1 for c in cuts]):
            low = np.array([c[i] for c, i in zip(cuts, k, strict=True)])
            high = np.array([c[i + 1] for c, i in zip(cuts, k, strict=True)])
            out.append((low, high))
        assert sum((high - low).prod() for low, high in out) == (self.high1 - self.low1).prod()
        return out

    def solve(self, start: np.ndarray, count: int) -> GaussNewton:
        state = GaussNewton(self.settings, start, self.two_d)
        while not state.finished:
            vectors = [self.block(low, high, state).packed() for low, high in self.blocks(count)]
            state.advance(BlockSums.unpacked(np.sum(vectors, axis=0)))
        return state

    def as_one_point(self, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same by `correlate_points`, whose windows are 2 hws - 1 wide."""
        n = self.high1 - self.low1
        assert (n % 2 == 1).all()
        hws = np.where(n == 1, 0 if self.two_d else 1, (n + 1) // 2)
        phi, result = start[None, :3].reshape(1, 12).copy(), np.zeros((1, 6))
        correlation.correlate_points(
            self.kernel,
            self.box1,
            None,
            None,
            None,
            None,
            self.box2,
            None,
            hws,
            self.frame,
            self.centre[None].astype(np.int64),
            self.low2[None],
            self.high2[None],
            phi,
            result,
        )
        return phi.reshape(3, 4), result[0]


def start_of(two_d: bool) -> np.ndarray:
    start = np.eye(4)
    start[:3, 3] = [0 if two_d else 0.1, -0.3, 0.9]
    return start


KINDS: dict[str, dict[str, Any]] = {
    "ssd": {},
    "cubic": {"order": 3},
    "rigid": {"rigid": True},
    "znssd": {"criterion": "znssd", "gain": 1.1, "bias": -8.0},
    "znssd cubic rigid": {"criterion": "znssd", "order": 3, "rigid": True},
    "updated gradient": {"update_gradient": True},
    "znssd updated gradient": {"update_gradient": True, "criterion": "znssd"},
    "at most two": {"max_iterations": 2},
    "none": {"max_iterations": 0},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("two_d", [False, True], ids=["3d", "2d"])
def test_blocks_equal_one_block_and_one_point(two_d, kind):
    settings = RegistrationSettings(level=97.0, **KINDS[kind])
    problem = Problem(two_d, settings)
    one, several = problem.solve(start_of(two_d), 1), problem.solve(start_of(two_d), 3)
    phi, (error, iterations, status, norm, _, zncc) = problem.as_one_point(start_of(two_d))
    assert (one.status, one.iterations) == (several.status, several.iterations) == (status, iterations)
    assert status == (1 if settings.max_iterations < 3 else 2)
    # what differs is the order of float32 additions
    np.testing.assert_allclose(several.phi, one.phi, rtol=0, atol=1e-6)
    np.testing.assert_allclose(phi, one.phi[:3], rtol=0, atol=2e-6)
    np.testing.assert_allclose([several.error, error], one.error, rtol=2e-5)
    np.testing.assert_allclose([several.delta_phi_norm, norm], one.delta_phi_norm, rtol=1e-3, atol=1e-6)
    assert one.zncc > 0
    np.testing.assert_allclose([several.zncc, zncc], one.zncc, rtol=0, atol=1e-6)
    if settings.criterion == "znssd":
        np.testing.assert_allclose([several.gain, several.bias], [one.gain, one.bias], rtol=1e-5)
    if kind == "none":
        assert np.array_equal(one.phi, start_of(two_d))
        assert one.delta_phi_norm == 100
    if kind == "rigid":
        np.testing.assert_allclose(one.phi[:3, :3] @ one.phi[:3, :3].T, np.eye(3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("two_d", [False, True], ids=["3d", "2d"])
def test_the_truth_is_found(two_d):
    problem = Problem(two_d, RegistrationSettings(order=3, level=100.0, min_delta_phi=1e-5))
    state = problem.solve(start_of(two_d), 2)
    centre = (np.array(images(two_d)[0].shape) - 1) / 2
    expected = deformation.move_centre(true_phi(two_d), centre, problem.centre)
    assert state.status == 2
    np.testing.assert_allclose(state.phi, expected, rtol=0, atol=1e-3)


def test_history_ends_where_the_registration_does():
    state = Problem(False, RegistrationSettings(level=100.0)).solve(start_of(False), 1)
    assert len(state.history) == state.iterations + 1
    assert state.history[0].delta_phi_norm == 100
    assert np.array_equal(state.history[0].phi, start_of(False))
    assert np.array_equal(state.history[-1].phi, state.phi)
    assert state.history[-1].error == state.error
    assert state.history[-1].delta_phi_norm == state.delta_phi_norm
    assert state.error < 0.1 * state.history[0].error


def test_rigid_starts_rigid():
    phi = deformation.compute_phi([1, 2, 3], [5, 6, 7], np.diag([1.1, 1, 0.9]))
    state = GaussNewton(RegistrationSettings(rigid=True), phi, False)
    np.testing.assert_allclose(state.phi, deformation.compute_phi([1, 2, 3], [5, 6, 7]), rtol=0, atol=1e-14)
    assert np.array_equal(GaussNewton(RegistrationSettings(), phi, False).phi, phi)


def test_first_estimate_of_the_grey_levels():
    """znssd begins with the map of grey levels that it is given, ssd compares grey levels as they are."""
    guess = {"gain": 1.25, "bias": -8.0}
    for criterion, expected in (("znssd", (1.25, -8.0)), ("ssd", (1.0, 0.0))):
        state = GaussNewton(RegistrationSettings(criterion=criterion, **guess), np.eye(4), False)
        assert (state.gain, state.bias) == expected


def test_grey_levels_after_a_pass():
    """Gain and bias give image 2 the mean and the deviation of image 1; error and ZNCC are those with this map."""
    random = np.random.default_rng(7)
    f = random.normal(100, 20, 500)
    g = 0.6 * f + 30 + random.normal(0, 4, 500)
    settings = RegistrationSettings(criterion="znssd", gain=1.25, bias=-8.0, level=97.0, max_iterations=0)
    state = GaussNewton(settings, np.eye(4), False)
    f0, r = f - 97, f - (1.25 * g - 8)
    sums = texture_sums()
    sums.scalars[:] = [500, f0.sum(), f0 @ f0, r.sum(), r @ r, f0 @ r]
    state.advance(sums)
    gain = f.std() / g.std()
    bias = f.mean() - gain * g.mean()
    np.testing.assert_allclose([state.gain, state.bias], [gain, bias], rtol=1e-10)
    assert state.error == pytest.approx(((f - gain * g - bias) ** 2).sum() / f.sum(), rel=1e-9)
    assert state.zncc == pytest.approx(np.corrcoef(f, g)[0, 1], rel=1e-10)


# ----------------------------------------------------------------------------------------------------------- statuses


def texture_sums(n: int = 500, f: float = 0.0, rr: float = 100.0, r: np.ndarray | None = None) -> BlockSums:
    """Sums over random gradients and levers; the residual is r."""
    random = np.random.default_rng(4)
    G, X = random.normal(size=(3, n)), np.concatenate([random.uniform(-5, 5, (3, n)), np.ones((1, n))])
    A = np.zeros((3, 4)) if r is None else np.einsum("v,iv,jv->ij", r, G, X)
    products = np.einsum("iv,kv,jv,lv->ikjl", G, G, X, X)
    scalars = np.array([n, f, 1000.0, 0.0, rr, 0.0])
    return BlockSums(scalars, np.stack([A, np.zeros((3, 4)), np.zeros((3, 4))]), products)


def test_no_voxel_left():
    state = GaussNewton(RegistrationSettings(), np.eye(4), False)
    state.advance(BlockSums.of(np.zeros(correlation.SUMS)))
    assert (state.finished, state.status, state.iterations) == (True, -3, 0)


def test_no_texture():
    sums = texture_sums()
    for products in (np.zeros_like(sums.products), np.full_like(sums.products, np.nan)):
        state = GaussNewton(RegistrationSettings(level=1.0), np.eye(4), False)
        state.advance(BlockSums(sums.scalars, sums.moments, products))
        assert (state.status, state.iterations, state.delta_phi_norm) == (-2, 0, 100)
        assert np.array_equal(state.phi, np.eye(4))
        assert state.error == 100 / 500


def test_no_contrast_under_znssd():
    sums = texture_sums()
    sums.scalars[2] = 0
    state = GaussNewton(RegistrationSettings(criterion="znssd"), np.eye(4), False)
    state.advance(sums)
    assert state.status == -2


def test_sum_of_grey_levels_zero():
    state = GaussNewton(RegistrationSettings(max_iterations=0), np.eye(4), False)
    state.advance(texture_sums(f=0.0))
    assert (state.error, state.status) == (np.inf, 1)


def run_errors(errors: list[float], most: int) -> GaussNewton:
    """Errors of the passes in turn, while Phi hardly moves."""
    state = GaussNewton(RegistrationSettings(max_iterations=most, min_delta_phi=1e-12, level=1.0), np.eye(4), False)
    noise = 1e-3 * np.random.default_rng(5).normal(size=500)
    for error in errors:
        assert not state.finished
        state.advance(texture_sums(rr=error * 500, r=noise))
    return state


def test_growing_error():
    """Only after half of the iterations, only by more than a quarter; the step is not counted."""
    assert not run_errors([1, 2, 4, 8], 6).finished
    state = run_errors([1, 1, 1, 1, 1, 1.2501], 6)
    assert (state.finished, state.status, state.iterations) == (True, -1, 4)
    assert not run_errors([1, 1, 1, 1, 1, 1.2499], 6).finished
    # iterations == half is not beyond half
    assert not run_errors([1, 1, 1, 1, 9], 6).finished


def test_growing_error_of_negative_grey_levels():
    """What grows is the square of the residual; the error has the sign of the sum of grey levels."""
    state = GaussNewton(RegistrationSettings(max_iterations=6, min_delta_phi=1e-12, level=-1.0), np.eye(4), False)
    noise = 1e-3 * np.random.default_rng(5).normal(size=500)
    for error in (1, 1, 1, 1, 1, 0.5):
        state.advance(texture_sums(rr=error * 500, r=noise))
        assert not state.finished
    assert state.error == -0.5
    state.advance(texture_sums(rr=0.7 * 500, r=noise))
    assert (state.finished, state.status) == (True, -1)


def test_small_step_off_the_data():
    """Where nothing is left to compare no small step makes a registration converged."""
    state = GaussNewton(RegistrationSettings(level=1.0), np.eye(4), False)
    state.advance(texture_sums(r=1e-9 * np.ones(500)))
    assert state.delta_phi_norm < 1e-3
    state.advance(BlockSums.of(np.zeros(correlation.SUMS)))
    assert (state.finished, state.status) == (True, -3)


def test_maximum():
    state = run_errors([1, 1, 1], 2)
    assert (state.finished, state.status, state.iterations) == (True, 1, 2)


@pytest.mark.parametrize(("volume", "fails"), [(2.99, False), (3.01, True), (0.201, False), (0.199, True)])
def test_volume(volume, fails):
    phi = np.diag([1.0, 1.0, volume, 1.0])
    state = GaussNewton(RegistrationSettings(level=1.0, min_delta_phi=1e-12), phi, False)
    noise = 1e-6 * np.random.default_rng(5).normal(size=500)
    state.advance(texture_sums(r=noise))
    assert not state.finished  # the guess itself is not judged
    state.advance(texture_sums(r=noise))
    assert state.finished is fails
    assert (state.status, state.iterations) == ((-3, 0) if fails else (0, 1))


def test_convergence_is_looked_at_last():
    """A small step overrides the volume test of the same iteration."""
    phi = np.diag([1.0, 1.0, 4.0, 1.0])
    state = GaussNewton(RegistrationSettings(level=1.0, min_delta_phi=-1e-3), phi, False)
    state.advance(texture_sums(r=1e-9 * np.ones(500)))
    state.advance(texture_sums(r=1e-9 * np.ones(500)))
    assert (state.status, state.iterations) == (2, 0)


# --------------------------------------------------------------------------------------------------------------- sums


def direct(G: np.ndarray, X: np.ndarray, f: np.ndarray, r: np.ndarray) -> np.ndarray:
    """The kernels' vector of 102 numbers, straight from its definition."""
    out = [float(f.size), f.sum(), (f * f).sum(), r.sum(), (r * r).sum(), (f * r).sum()]
    for w in (r, f, np.ones_like(r)):
        out += [(w * G[i] * X[j]).sum() for i in range(3) for j in range(4)]
    z, y, x, one = X
    monomials = [one, z, y, x, z * z, z * y, z * x, y * y, y * x, x * x]
    out += [(G[i] * G[k] * m).sum() for i, k in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)) for m in monomials]
    return np.array(out)


@pytest.fixture
def voxels() -> dict[str, np.ndarray]:
    random = np.random.default_rng(6)
    X = np.concatenate([random.uniform(-9, 9, (3, 200)), np.ones((1, 200))])
    return {"G": random.normal(size=(3, 200)), "X": X, "f": random.normal(size=200), "r": random.normal(size=200)}


def test_unpacked_sums(voxels):
    sums = BlockSums.of(direct(**voxels))
    G, X, f, r = voxels["G"], voxels["X"], voxels["f"], voxels["r"]
    np.testing.assert_allclose(sums.scalars, [200, f.sum(), f @ f, r.sum(), r @ r, f @ r], rtol=1e-13)
    for moment, w in zip(sums.moments, (r, f, np.ones(200)), strict=True):
        np.testing.assert_allclose(moment, np.einsum("v,iv,jv->ij", w, G, X), rtol=0, atol=1e-10)
    np.testing.assert_allclose(sums.products, np.einsum("iv,kv,jv,lv->ikjl", G, G, X, X), rtol=0, atol=1e-9)


def test_moved_sums(voxels):
    offset = np.array([30.5, -12, 100])
    moved = BlockSums.of(direct(**voxels)).moved(offset)
    voxels["X"] = voxels["X"] + np.array([*offset, 0])[:, None]
    expected = BlockSums.of(direct(**voxels))
    np.testing.assert_array_equal(moved.scalars, expected.scalars)
    np.testing.assert_allclose(moved.moments, expected.moments, rtol=0, atol=1e-9)
    np.testing.assert_allclose(moved.products, expected.products, rtol=1e-11, atol=1e-7)
    back = moved.moved(-offset)
    np.testing.assert_allclose(back.products, BlockSums.of(direct(**voxels)).moved(-offset).products, atol=1e-7)


def test_packed_sums(voxels):
    sums = BlockSums.of(direct(**voxels)).moved([1, 2, 3])
    vector = sums.packed()
    assert vector.shape == (186,)
    again = BlockSums.unpacked(vector)
    for name in ("scalars", "moments", "products"):
        assert np.array_equal(getattr(again, name), getattr(sums, name))
    twice = BlockSums.unpacked(vector + vector)
    assert np.array_equal(twice.products, 2 * sums.products)


def test_sums_do_not_share_the_kernels_vector(voxels):
    vector = direct(**voxels)
    sums = BlockSums.of(vector)
    packed = sums.packed().copy()
    vector[:] = 0
    assert np.array_equal(sums.packed(), packed)
