"""Random errors of a window against the formulas in plain numpy, and gradients of image 2 from small differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpidvc.core import uncertainty
from mpidvc.core.uncertainty import Noise
from mpidvc.kernels import correlation
from tests.kernels.oracle import DIMENSIONS, ORDERS, Pair, Run, Window, correlate, guess_at, moving, nodes_of, run_for

KAPPA = np.linspace(1.2, 2.3, 12)


def noise_of(two_d: bool, variance: float = np.nan, reach: int = 2) -> Noise:
    square = (np.indices((1 if two_d else 2 * reach + 1, 2 * reach + 1, 2 * reach + 1)) - reach) ** 2.0
    if two_d:
        square[0] = 0
    rho = np.exp(-square.sum(axis=0) / 3)
    return Noise(rho, KAPPA, variance)


def measure(
    pair: Pair, run: Run, node: np.ndarray, noise: Noise, phi: np.ndarray | None = None, **more: Any
) -> tuple[Any, np.ndarray]:
    errors = np.full((1, len(correlation.ERRORS)), 5.0)
    told = correlation.Noise(noise.rho, noise.kappa, noise.variance)
    start = guess_at(pair, node) if phi is None else phi
    (got,) = correlate(pair, run, node, start, noise=told, errors=errors, **more)
    return got, errors[0]


def mixed(pair: Pair, window: Window, F: np.ndarray, centre: np.ndarray, gain: float) -> np.ndarray:
    """K: the derivative of the interpolated image 2 along the axes of image 1, by small differences."""
    at = np.einsum("ij,jzyx->izyx", F, window.X[:3]) + np.reshape(centre, (3, 1, 1, 1))
    K = np.zeros((3, *at.shape[1:]))
    step = 1e-4
    for i in range(1 if pair.two_d else 0, 3):
        ahead, behind = at.copy(), at.copy()
        ahead[i] += step
        behind[i] -= step
        slope = (pair.sample2(ahead)[0] - pair.sample2(behind)[0]) / (2 * step)
        K += gain * F[i].reshape(3, 1, 1, 1) * slope
    if pair.two_d:
        K[0] = 0
    return K


def expected(
    pair: Pair,
    run: Run,
    node: np.ndarray,
    noise: Noise,
    got: Any,
    place: np.ndarray | None = None,
    full: bool = False,
    G: np.ndarray | None = None,
) -> np.ndarray:
    n = np.array([1 if pair.two_d and a == 0 else 2 * run.hws[a] - 1 for a in range(3)])
    window = pair.window(node - (n - 1) // 2, n, got.F, node + got.t)
    G = window.G if G is None else G
    f, g = window.f[window.data], window.g[window.data]
    gain, bias = 1.0, 0.0
    if run.znssd:
        gain = f.std() / g.std()
        bias = f.mean() - gain * g.mean()
    r = f - gain * g - bias
    data = window.data
    X = window.X[:, data]
    J = np.einsum("iv,jv->ijv", G[:, data], X).reshape(12, -1)
    K = np.einsum("iv,jv->ijv", mixed(pair, window, got.F, node + got.t, gain)[:, data], X).reshape(12, -1)
    A = (J @ K.T).reshape(3, 4, 3, 4)
    A = ((A + A.transpose(2, 1, 0, 3)) / 2).reshape(12, 12)
    B = uncertainty.correlated_sums(G * data, noise, window.X) if full else None
    variance = (1 + gain**2) / 2 * noise.variance
    if np.isnan(noise.variance):
        M = np.diag(J @ J.T)
        kappa = noise.kappa if B is None else np.divide(np.diag(B), M, where=M > 0, out=np.zeros(12))
        variance = uncertainty.residual_variance(float((r**2).sum()), int(data.sum()), kappa, pair.two_d)
    C = uncertainty.covariance(A, J @ J.T, noise, variance, B)
    if run.rigid:
        C = uncertainty.rigid_part(C)
    C = uncertainty.composed(C, got.F)
    if place is not None:
        T = np.eye(12)
        for i in range(3):
            T[4 * i + 3, 4 * i : 4 * i + 3] = place
        C = T @ C @ T.T
    sigma = np.sqrt(np.diag(C)).reshape(3, 4)
    return np.concatenate([sigma[:, 3], sigma[:, :3].ravel(), [np.sqrt(variance)]])


def check(found: np.ndarray, wanted: np.ndarray, share: float = 2e-3) -> None:
    # sums of float32 products, and an inverse of them; in 2D the errors along z are 0
    np.testing.assert_allclose(found, wanted, rtol=share, atol=1e-12)
    assert found[-1] > 0


@DIMENSIONS
@ORDERS
@pytest.mark.parametrize("znssd", [False, True])
def test_errors_of_a_window(isa, two_d, order, znssd):
    pair = moving(two_d, order, grey=(0.8, 12.0) if znssd else (1.0, 0.0))
    run = run_for(pair, znssd=znssd)
    for node in nodes_of(pair)[:2]:
        for noise in (noise_of(two_d), noise_of(two_d, variance=3.0)):
            got, found = measure(pair, run, node, noise)
            assert got.status == 2
            check(found, expected(pair, run, node, noise, got))


@DIMENSIONS
def test_errors_where_groups_lie_in_two_voxels(isa, two_d):
    """A stretch of 8 % along x, over which every group passes into the next voxel somewhere."""
    pair = moving(two_d, 3)
    node, noise = nodes_of(pair)[1], noise_of(two_d)
    run = run_for(pair, max_iterations=1, min_delta_phi=1e9)
    phi = guess_at(pair, node)
    phi[1:3, 1:3] += [[0.05, -0.06], [0.07, 0.08]]
    if not two_d:
        phi[0, :3] += [-0.04, 0.03, 0.06]
    got, found = measure(pair, run, node, noise, phi)
    assert got.status == 2
    check(found, expected(pair, run, node, noise, got))


def test_errors_of_a_rigid_window_elsewhere(isa):
    pair = moving(False, 3)
    run, node, noise = run_for(pair, rigid=True), nodes_of(pair)[0], noise_of(False)
    place = np.array([0.7, -0.4, 1.2])
    got, found = measure(pair, run, node, noise, place=place[None])
    assert got.status == 2
    check(found, expected(pair, run, node, noise, got, place))


@DIMENSIONS
@pytest.mark.parametrize("order", [1, 3])
def test_windows_with_holes_count_their_neighbours(isa, two_d, order):
    pair = moving(two_d, order)
    usable = np.random.default_rng(3).random(pair.im1.shape) > 0.2
    pair = Pair(pair.im1, pair.im2, order, usable=usable.astype(np.uint8))
    run, node, noise = run_for(pair), nodes_of(pair)[1], noise_of(two_d)
    got, found = measure(pair, run, node, noise)
    assert got.status == 2
    check(found, expected(pair, run, node, noise, got, full=True))
    # which matters: holes take neighbours away
    assert abs(found[1] / expected(pair, run, node, noise, got)[1] - 1) > 0.1


def test_large_windows_are_looked_at_in_part(isa):
    """Every second row of 3757 voxels gives the gradients of image 2, and every fourth one the sum over neighbours."""
    whole = moving(False, 3)
    run, node, noise = Run(hws=(7, 9, 9)), np.array([17, 20, 22]), noise_of(False)
    got, found = measure(whole, run, node, noise)
    assert got.status == 2
    wanted = expected(whole, run, node, noise, got)
    check(found, wanted, 0.03)
    assert not np.allclose(found, wanted, rtol=1e-4)
    usable = np.random.default_rng(3).random(whole.im1.shape) > 0.2
    holed = Pair(whole.im1, whole.im2, 3, usable=usable.astype(np.uint8))
    got, found = measure(holed, run, node, noise)
    assert got.status == 2
    check(found, expected(holed, run, node, noise, got, full=True), 0.12)


def test_a_part_of_a_window_that_is_a_box_needs_kappa_only(isa):
    pair = moving(False, 3)
    usable = np.ones(pair.im1.shape, np.uint8)
    usable[:, :15] = 0
    pair = Pair(pair.im1, pair.im2, 3, usable=usable)
    run, node, noise = run_for(pair), np.array([14, 17, 20]), noise_of(False)
    got, found = measure(pair, run, node, noise)
    assert got.status == 2
    check(found, expected(pair, run, node, noise, got))


def test_noise_correlated_over_a_good_part_of_a_window_counts_its_neighbours(isa):
    """The fit takes more than a fifth of the residual's freedom."""
    pair = moving(False, 3)
    run, node, noise = run_for(pair), nodes_of(pair)[0], noise_of(False)
    voxels = np.prod(2 * np.array(run.hws) - 1)
    for share, full in ((0.19, False), (0.21, True)):
        told = Noise(noise.rho, np.full(12, share / 12 * voxels))
        got, found = measure(pair, run, node, told)
        assert got.status == 2
        check(found, expected(pair, run, node, told, got, full=full))


def test_samples_that_are_no_data(isa):
    """Window 2 reaches over a bound, and over voxels that are not valid."""
    whole = moving(False, 3)
    node, noise = np.array([17, 20, 22]), noise_of(False)
    run = run_for(whole)
    cut = Pair(whole.im1, whole.im2, 3, high2=(19.5, 39, 43))
    got, found = measure(cut, run, node, noise)
    assert got.status == 2
    # whole planes are missing
    check(found, expected(cut, run, node, noise, got))
    valid2 = np.ones(whole.im2.shape, np.uint8)
    valid2[15:17, 20:23, 21:24] = 0
    holed = Pair(whole.im1, whole.im2, 3, valid2=valid2)
    got, found = measure(holed, run, node, noise)
    assert got.status == 2
    check(found, expected(holed, run, node, noise, got, full=True))


def test_gaussian_gradients(isa):
    pair = moving(False, 3)
    smooth = Pair(pair.im1, pair.im2, 3, sigma=0.8)
    run, node, noise = run_for(smooth), nodes_of(smooth)[1], noise_of(False)
    got, found = measure(smooth, run, node, noise)
    assert got.status == 2
    check(found, expected(smooth, run, node, noise, got))


@DIMENSIONS
def test_an_updated_gradient_takes_that_of_image_1(isa, two_d):
    """Those of the deformed image 2 have the noise that K has."""
    pair = moving(two_d, 3)
    run, node, noise = run_for(pair, update_gradient=True), nodes_of(pair)[1], noise_of(two_d)
    got, found = measure(pair, run, node, noise)
    assert got.status == 2
    check(found, expected(pair, run, node, noise, got))


def test_no_errors_unless_converged(isa):
    pair = moving(False, 1)
    node, noise = nodes_of(pair)[0], noise_of(False)
    got, found = measure(pair, run_for(pair, max_iterations=1), node, noise)
    assert got.status == 1
    assert np.isnan(found).all()
    # as many parameters as voxels that count
    few = Noise((noise.rho == 1) * 1.0, np.full(12, 1e4))
    got, found = measure(pair, run_for(pair), node, few)
    assert got.status == 2
    assert np.isnan(found).all()


def test_the_result_is_the_same_without_errors(isa):
    pair = moving(False, 3)
    node, run = nodes_of(pair)[0], run_for(pair)
    (alone,) = correlate(pair, run, node, guess_at(pair, node))
    got, _ = measure(pair, run, node, noise_of(False))
    assert (got.F == alone.F).all()
    assert (got.t == alone.t).all()
    assert got.error == alone.error
