"""Covariances from noise: against brute force, closed forms, and made noise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from mpidvc.core import uncertainty
from mpidvc.core.uncertainty import FRAME, Noise, Sample, predict

Array = NDArray[np.float64]


def gaussian(s: float, lags: int = 6) -> Array:
    """Autocorrelation of white noise smoothed by a Gaussian of deviation s; 0: white."""
    square = (np.indices((2 * lags + 1,) * 3) - lags) ** 2
    return np.exp(-square.sum(axis=0) / (4 * s * s)) if s else (square.sum(axis=0) == 0) * 1.0


def basis(shape: tuple[int, ...]) -> Array:
    X = np.ones((4, *shape))
    X[:3] = np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2
    return X


def test_lag_sums_are_sums_of_products() -> None:
    random = np.random.default_rng(1)
    window, weights = random.normal(size=(5, 6, 7)), (random.random((5, 6, 7)) > 0.3) * 1.0
    products, pairs = uncertainty.lag_sums(window, weights, lags=2)
    for lag in ((0, 0, 0), (2, -1, 0), (-1, 2, 2)):
        values, count = 0.0, 0.0
        for at in np.ndindex(window.shape):
            to = tuple(a + b for a, b in zip(at, lag, strict=True))
            if all(0 <= i < n for i, n in zip(to, window.shape, strict=True)):
                count += weights[at] * weights[to]
                values += window[at] * weights[at] * window[to] * weights[to]
        place = tuple(2 + k for k in lag)
        assert products[place] == pytest.approx(values, abs=1e-10)
        assert pairs[place] == count


def test_a_plane_has_no_lags_along_z() -> None:
    products, pairs = uncertainty.lag_sums(np.ones((1, 9, 9)), lags=3)
    assert products.shape == (1, 7, 7)
    assert pairs[0, 3, 3] == 81
    assert pairs[0, 0, 3] == 54


def test_white_noise_counts_every_voxel() -> None:
    noise = Noise.of(2.5 * gaussian(0), np.stack([gaussian(1.6)] * 3))
    assert noise.kappa == pytest.approx(np.ones(12))
    assert np.isnan(noise.variance)
    assert Noise.of(2.5 * gaussian(0), np.stack([gaussian(1.6)] * 3), known=True).variance == 2.5


def test_correlated_voxels_count_less() -> None:
    """Two Gaussians: the sum over all lags is an integral, (2 sqrt(pi))³ / (1/s² + 1/t²)^(3/2)."""
    s, t = 0.8, 1.5
    expected = (2 * np.sqrt(np.pi)) ** 3 * (1 / s**2 + 1 / t**2) ** -1.5
    # what is cut off where correlations fall below 2 % is some per mille
    assert uncertainty.kappas(gaussian(s), np.stack([gaussian(t)] * 3)) == pytest.approx(expected, rel=5e-3)


def test_small_correlations_are_cut_off() -> None:
    rho = gaussian(1.0)
    cut = uncertainty.trimmed(rho)
    shell = np.abs(np.indices(rho.shape) - 6).max(axis=0)
    # exp(-l² / 4) is below 0.02 from 4 on
    assert (cut[shell < 4] == rho[shell < 4]).all()
    assert (cut[shell >= 4] == 0).all()


def test_white_noise_gives_the_textbook_covariance() -> None:
    random = np.random.default_rng(2)
    J = random.normal(size=(12, 400))
    M = J @ J.T
    found = uncertainty.covariance(M, M, Noise(gaussian(0), np.ones(12)), 0.3)
    assert found == pytest.approx(0.3 * np.linalg.inv(M), rel=1e-9)


def pairs_of(G: Array, rho: Array) -> tuple[Array, Array]:
    """Σ rho J Jᵀ over all pairs of voxels; with X of both voxels, and with the mean of the one's and the other's."""
    shape, reach = G.shape[1:], rho.shape[0] // 2
    X = basis(shape).reshape(4, -1)
    flat = G.reshape(3, -1)
    places = np.indices(shape).reshape(3, -1)
    lags = places[:, None] - places[:, :, None]
    near = (np.abs(lags) <= reach).all(axis=0)
    R = np.where(near, rho[tuple(np.clip(lags + reach, 0, 2 * reach))], 0)
    exact = np.einsum("ax,bx,xy,cy,dy->abcd", flat, X, R, flat, X, optimize=True)
    first = np.einsum("ax,bx,xy,cy,dx->abcd", flat, X, R, flat, X, optimize=True)
    return exact.reshape(12, 12), (first + first.transpose(2, 3, 0, 1)).reshape(12, 12) / 2


def test_correlated_sums_are_those_of_all_pairs() -> None:
    random = np.random.default_rng(3)
    shape = (7, 8, 9)
    G = ndimage.gaussian_filter(random.normal(size=(3, *shape)), (0, 1, 1, 1)) * (random.random(shape) > 0.4)
    rho = gaussian(0.7, 2)
    found = uncertainty.correlated_sums(G, Noise(rho, np.ones(12)), basis(shape))
    exact, approximate = pairs_of(G, rho)
    assert found == pytest.approx(approximate, rel=1e-9, abs=1e-9)
    # the lag in X, at 8 voxels
    assert np.diag(found) == pytest.approx(np.diag(exact), rel=0.1)


def test_whole_windows_need_kappa_only() -> None:
    """D M D against all pairs, in a window of 25 voxels: the edge that kappa neglects is a few per cent."""
    random = np.random.default_rng(4)
    shape = (25, 25, 25)
    tex = ndimage.gaussian_filter(random.normal(size=tuple(n + 8 for n in shape)), 1.6)
    G = np.stack(np.gradient(tex))[:, 4:-4, 4:-4, 4:-4]
    gamma = np.stack([np.divide(*uncertainty.lag_sums(g)) for g in G])
    gamma /= gamma[:, 6, 6, 6][:, None, None, None]
    noise = Noise.of(gaussian(0.7), gamma)
    X = basis(shape)
    J = (G[:, None] * X[None]).reshape(12, -1)
    M, B = J @ J.T, uncertainty.correlated_sums(G, noise, X)
    cheap = np.diag(uncertainty.covariance(M, M, noise, 1.0))
    full = np.diag(uncertainty.covariance(M, M, noise, 1.0, B))
    assert np.sqrt(cheap / full) == pytest.approx(1, abs=0.08)
    # and the formula for white noise is three times too small
    assert np.sqrt(full / np.diag(np.linalg.inv(M))).min() > 2.5


def test_a_fit_takes_its_share_of_the_residual() -> None:
    """Least squares of 12 parameters leave (N - 12) s² of white noise."""
    random = np.random.default_rng(5)
    J = random.normal(size=(12, 60))
    squares = []
    for _ in range(2000):
        e = random.normal(size=60)
        squares.append(((e - J.T @ np.linalg.solve(J @ J.T, J @ e)) ** 2).sum())
    # 2000 fits of 48 degrees of freedom: 0.5 %
    assert uncertainty.residual_variance(float(np.mean(squares)), 60, np.ones(12)) == pytest.approx(1, abs=0.02)
    assert np.isnan(uncertainty.residual_variance(1.0, 60, np.full(12, 5.0)))


def test_a_rigid_increment_has_no_stretch() -> None:
    random = np.random.default_rng(6)
    half = random.normal(size=(12, 12))
    C = uncertainty.rigid_part(half @ half.T)
    index = np.arange(12).reshape(3, 4)[:, :3]
    F = C[np.ix_(index.ravel(), index.ravel())].reshape(3, 3, 3, 3)
    assert pytest.approx(0, abs=1e-12) == F + F.transpose(1, 0, 2, 3)
    assert C[np.ix_([3, 7, 11], [3, 7, 11])] == pytest.approx((half @ half.T)[np.ix_([3, 7, 11], [3, 7, 11])])


def test_composition_turns_the_errors() -> None:
    random = np.random.default_rng(7)
    F = np.eye(3) + 0.2 * random.normal(size=(3, 3))
    half = 1e-3 * random.normal(size=(12, 12))
    phi = np.eye(4)
    phi[:3, :3] = F
    changes = []
    for column in half.T:
        step = np.eye(4)
        step[:3] += column.reshape(3, 4)
        changes.append((phi @ step - phi)[:3].ravel())
    assert uncertainty.composed(half @ half.T, F) == pytest.approx(np.array(changes).T @ np.array(changes), rel=1e-9)


def test_the_noise_in_a_gradient_and_in_the_residual_is_one() -> None:
    """Coarse texture and strong noise: variances of Σ G r over many noises, against kappa s² Σ G²."""
    random = np.random.default_rng(12)
    s, level, n = 0.5, 0.4, 21
    cut = (slice(8, 8 + n),) * 3
    tex = ndimage.gaussian_filter(random.normal(size=(n + 16,) * 3), 3.0)
    tex *= 1 / tex.std()
    squares, sums, gamma, power = np.zeros(3), [], np.zeros((3, 13, 13, 13)), np.zeros(3)
    for _ in range(400):
        e, other = (ndimage.gaussian_filter(random.normal(size=tex.shape), s) for _ in range(2))
        e, other = level * e / e.std(), level * other / other.std()
        G = np.stack(np.gradient(tex + e))[(slice(None), *cut)]
        r = (e - other)[cut]
        sums.append((G * r).sum(axis=(1, 2, 3)))
        squares += (G**2).sum(axis=(1, 2, 3)) / 400
        if len(sums) <= 40:
            lags = np.stack([np.divide(*uncertainty.lag_sums(g)) for g in G])
            gamma += lags / lags[:, 6, 6, 6][:, None, None, None] / 40
            power += lags[:, 6, 6, 6] / 40
    found = np.var(sums, axis=0) / squares / (2 * level**2)
    # of a filter that is sampled coarsely
    made = ndimage.gaussian_filter(random.normal(size=(60, 60, 60)), s)
    R = np.divide(*uncertainty.lag_sums(made / made.std())) * level**2
    own = uncertainty.own_share(R, 2 * level**2, power)
    # 3 x 400 draws: 4 %
    assert Noise.of(2 * R, gamma, own).kappa.mean() == pytest.approx(found.mean(), rel=0.12)
    # without it the error would be a fifth too large
    assert Noise.of(2 * R, gamma).kappa.mean() > 1.25 * found.mean()


def test_noise_of_a_residual_is_that_of_one_image() -> None:
    """The two ways are inverse; at whole voxels an interpolation passes all noise, half way a linear one averages."""
    R = 2.0 * gaussian(0.7)
    for places in (np.zeros((1, 3)), np.full((1, 3), np.nan), np.array([[0.3, -0.2, 0.5], [0.1, 0.9, 0.0]])):
        for order in (1, 3):
            spectrum = uncertainty.passed(order, places, False)
            residual = uncertainty.residual_of_noise(R, spectrum)
            # correlations beyond the largest lag are cut off
            assert uncertainty.noise_of_residual(residual, spectrum) == pytest.approx(R, abs=0.02)
    assert uncertainty.residual_of_noise(R, uncertainty.passed(3, np.zeros((1, 3)), False)) == pytest.approx(2 * R)
    half = uncertainty.residual_of_noise(gaussian(0), uncertainty.passed(1, np.full((1, 3), 0.5), False))
    assert half[6, 6, 6:9] == pytest.approx([1 + 0.5**3, 0.5**2 * 0.25, 0])
    everywhere = uncertainty.residual_of_noise(R, uncertainty.passed(1, np.full((1, 3), np.nan), False))
    assert everywhere == pytest.approx(uncertainty.residual_of(R, 1), abs=1e-6)


def test_bias_of_an_interpolation() -> None:
    """Lines of a texture moved by sums of sines, and the displacement that least squares find with interpolation."""
    random = np.random.default_rng(14)
    n, s, level = 4096, 1.0, 0.2
    k = 2 * np.pi * np.fft.rfftfreq(n)
    spectrum = np.fft.rfft(random.normal(size=n)) * np.exp(-(k**2) * s * s / 2)
    line = np.fft.irfft(spectrum, n)
    scale = 1 / line.std()
    G = (np.roll(line, -1) - np.roll(line, 1)) / 2 * scale
    found = {1: 0.0, 3: 0.0}
    for t in np.arange(1, 10) / 20:
        moved = np.fft.irfft(spectrum * np.exp(-1j * k * t), n) * scale
        for order in found:
            at = np.arange(n) + t
            value = ndimage.map_coordinates(moved, [at], order=order, mode="grid-wrap")
            slope = (ndimage.map_coordinates(moved, [at + 1e-4], order=order, mode="grid-wrap") - value) / 1e-4
            found[order] = max(found[order], abs((G * (line * scale - value)).sum() / (G * slope).sum()))
    windows = (line * scale + level * random.normal(size=n)).reshape(-1, 32)
    spectra = uncertainty.line_spectra(windows[None])[2]
    told = {o: uncertainty.interpolation_bias(np.stack([spectra] * 3), level**2 * gaussian(0), o)[2] for o in found}
    # 128 lines of 32 voxels tell a spectrum to a tenth
    assert told[1] == pytest.approx(found[1], rel=0.15)
    assert told[3] == pytest.approx(found[3], rel=0.3)
    assert found[1] > 5 * found[3] > 0.005


def test_windows_that_the_model_does_not_fit_do_not_count() -> None:
    white, place = gaussian(0), np.zeros(3)
    spectra = np.ones((3, 33))
    good = [Sample(level * white, np.stack([white] * 3), np.ones(3), place, spectra) for level in (1.0, 1.5, 2.0)]
    bad = Sample(50 * gaussian(2), np.stack([gaussian(2)] * 3), np.ones(3), place, np.nan * spectra)
    covariance, gamma, power, places, spectra = uncertainty.pool([*good, bad])
    assert spectra == pytest.approx(np.ones((3, 33)))
    assert covariance == pytest.approx(1.5 * white)
    assert gamma == pytest.approx(np.stack([white] * 3))
    assert power == pytest.approx(np.ones(3))
    assert len(places) == 3


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("s", [0.0, 1.0])
def test_noise_that_an_interpolation_has_passed(order: int, s: float) -> None:
    """Against noise that scipy has shifted, over a lattice of shifts that stands for all."""
    random = np.random.default_rng(8)
    noise = ndimage.gaussian_filter(random.normal(size=(48, 48, 48)), s, mode="wrap") if s else None
    noise = random.normal(size=(48, 48, 48)) if noise is None else noise / noise.std()
    found = uncertainty.interpolated(gaussian(s), order)
    shifts = (np.arange(4) + 0.5) / 4
    places = [(a, b, c) for a in shifts[:2] for b in shifts for c in shifts]
    total = np.zeros(3)
    for shift in places:
        moved = ndimage.shift(noise, shift, order=order, mode="grid-wrap")
        total += [(moved * np.roll(moved, k, axis=2)).mean() / len(places) for k in (0, 1, 2)]
    # 110 000 voxels, of which a few count as one: 2 %
    assert found[6, 6, 6:9] == pytest.approx(total, abs=0.03)


@pytest.mark.parametrize("order", [1, 3])
def test_whole_voxels_of_a_displacement_change_no_noise(order: int) -> None:
    found = uncertainty.passed(order, [(1.25, -0.75, 3.5), (2.0, 0.0, -1.0)], False)
    same = uncertainty.passed(order, [(0.25, 0.25, 0.5), (0.0, 0.0, 0.0)], False)
    np.testing.assert_allclose(found, same, rtol=1e-12)
    # between voxels noise is smoothed, at voxels it is as it was
    assert same.mean() < 0.8
    np.testing.assert_allclose(uncertainty.passed(order, [(5.0, 0.0, -2.0)], False), 1, rtol=1e-12)


@pytest.mark.parametrize("two_d", [False, True])
def test_prediction_of_a_window(two_d: bool) -> None:
    """Linearised errors of many noises in a known texture: the sums over voxels, with the noises themselves."""
    random = np.random.default_rng(9)
    shape = (1, 45, 45) if two_d else (15, 15, 15)
    grown = tuple(n if n == 1 else n + 2 * FRAME for n in shape)
    axes = (1, 2) if two_d else (0, 1, 2)
    tex = ndimage.gaussian_filter(
        random.normal(size=tuple(n if n == 1 else 80 for n in grown)), [1.6 * (n > 1) for n in shape]
    )
    tex = (tex / tex.std())[tuple(slice(20, 20 + n) if n > 1 else slice(None) for n in grown)]
    inner = tuple(slice(FRAME, -FRAME) if n > 1 else slice(None) for n in shape)
    X = basis(shape)
    level = 0.2

    def slopes(f: Array) -> Array:
        G = np.zeros((3, *grown))
        for a in axes:
            G[a] = (np.roll(f, -1, a) - np.roll(f, 1, a)) / 2
        return (G[(slice(None), *inner)][:, None] * X[None]).reshape(12, -1)

    K = slopes(tex)
    some = np.flatnonzero((K**2).sum(axis=1) > 0)
    errors = []
    for _ in range(400):
        e, other = level * random.normal(size=(2, *grown))
        J = slopes(tex + e)[some]
        errors.append(np.linalg.solve(J @ K[some].T, J @ (e - other)[inner].ravel()))
    sigma = np.zeros(12)
    sigma[some] = np.std(errors, axis=0)
    R = np.zeros((1 if two_d else 13, 13, 13))
    R[R.shape[0] // 2, 6, 6] = level**2
    # of this texture differences over one voxel find 80 % of the slope; the window and its own noise are one draw
    noisy = tex + level * random.normal(size=grown)
    found = predict(noisy, R, 3, kappa=np.ones(12))
    # residuals of a splined image have less noise, and correlated: 0.93 of 2 s² with kappa 1.3 in the mean of places
    assert found.displacement[list(axes)] == pytest.approx(sigma.reshape(3, 4)[list(axes), 3], rel=0.25)
    assert found.F[np.ix_(axes, axes)] == pytest.approx(sigma.reshape(3, 4)[np.ix_(axes, axes)], rel=0.3)
    assert (found.displacement[0] == 0) == two_d


def test_prediction_of_a_window_without_texture() -> None:
    R = gaussian(0)
    assert np.isnan(predict(np.full((20, 20, 20), 7.0), R, 3).displacement).all()
