"""Windows per point: the choice against one that looks at every window by itself, in plain numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from mpidvc.core.adaptive import CURVATURE, LARGEST, MET, NoiseFacts
from mpidvc.core.nested_windows import nested_kappas
from mpidvc.core.registration import RegistrationSettings
from mpidvc.core.uncertainty import Noise, residual_of
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.tasks.adaptive import AdaptiveSettings, SizeChoice
from mpidvc.tasks.ldic import LdicSettings, LdicTask
from mpidvc.tasks.source import Source
from tests.tasks.given import Given, phi_of, run_all

Array = NDArray[Any]

NOISE = 60.0
SIZES = range(3, 10)


def image_of(two_d: bool) -> Array:
    """Texture whose contrast falls along x."""
    shape = (1, 90, 160) if two_d else (40, 44, 90)
    values = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=shape), (0 if two_d else 1.2, 1.2, 1.2))
    values *= 1000 * 10 ** (-np.arange(shape[2]) / shape[2]) / values.std()
    return (5000 + values + np.random.default_rng(4).normal(0, NOISE, shape)).astype(np.float32)


def facts_of(two_d: bool, order: int) -> NoiseFacts:
    """White noise, and gradients of the texture."""
    R = np.zeros((1 if two_d else 13, 13, 13))
    R[0 if two_d else 6, 6, 6] = NOISE**2
    total = residual_of(R, order)
    lags = np.stack(np.meshgrid(*(np.arange(-(n // 2), n // 2 + 1) for n in R.shape), indexing="ij"))
    gamma = np.stack([(1 - lag**2 / 4) * np.exp(-(lags**2).sum(axis=0) / 8) for lag in lags])
    return NoiseFacts(Noise.of(total, gamma), R, gamma, np.array([0.1, 0.2, 0.3]), float(total.max()))


def oracle(f: Array, mask: Array, nodes: Array, facts: NoiseFacts, order: int, target: float, two_d: bool) -> Array:
    """The first size whose window has a small enough error, the largest one if there is none."""
    f = f.astype(np.float64)
    real = np.isfinite(f)
    axes = (1, 2) if two_d else (0, 1, 2)
    cross = ndimage.generate_binary_structure(3, 1)
    if two_d:
        cross = cross & (np.indices((3, 3, 3))[0] == 1)
    usable = ndimage.binary_erosion(real, cross) & (mask != 0)
    whole = usable & ndimage.binary_erosion(real, np.ones((1 if two_d else 9, 9, 9)))
    f = np.where(real, f, np.nanmean(f))
    smooth = f
    if order == 1:
        for a in axes:
            smooth = ndimage.correlate1d(smooth, [1 / 12, 5 / 6, 1 / 12], axis=a)
    G, K = np.zeros((3, *f.shape)), np.zeros((3, *f.shape))
    for a in axes:
        G[a] = ndimage.correlate1d(f, [-0.5, 0, 0.5], axis=a)
        K[a] = ndimage.correlate1d(smooth, [-1 / 60, 3 / 20, -3 / 4, 0, 3 / 4, -3 / 20, 1 / 60], axis=a)
    K = np.where(whole, K, G)
    # products of the filters' taps that meet: of white noise nothing else is left
    along = 0.75 if order == 3 else (0.75 * 5 / 6 - 0.15 / 12) * (5 / 6) ** (len(axes) - 1)
    shared_K, shared_G = NOISE**2 * along, NOISE**2 * 0.5
    found = []
    for node in nodes.astype(int):
        chosen = SIZES[-1]
        for H in SIZES:
            box = tuple(
                slice(0, 1) if two_d and a == 0 else slice(max(node[a] - H + 1, 0), node[a] + H) for a in range(3)
            )
            here = usable[box]
            g, k = (part[(slice(None), *box)][:, here][list(axes)] for part in (G, K))
            n, w = int(here.sum()), int(whole[box][here].sum())
            A = g @ k.T - (w * shared_K + (n - w) * shared_G) * np.eye(len(axes))
            kappa = nested_kappas(facts.noise.rho, facts.gamma, H - 1)[3::4]
            D = np.diag(np.sqrt(np.maximum(kappa - facts.own, kappa / 2))[list(axes)])
            if (np.diag(A) > 0).all():
                # the value at the node of a line through all voxels, with the weights of their gradients
                at = np.stack(np.nonzero(here)) + [[s.start - node[a]] for a, s in enumerate(box)]
                X = np.concatenate([at[list(axes)], np.ones((1, at.shape[1]))])
                w = (g**2).sum(axis=0)
                factor = w.sum() * np.linalg.inv((X * w) @ X.T)[-1, -1]
                C = factor * facts.variance * np.linalg.inv(A) @ D @ (g @ g.T) @ D @ np.linalg.inv(A).T
                if np.sqrt(np.diag(C).max()) <= target:
                    chosen = H
                    break
        found.append(chosen)
    return np.array(found)


def settings_of(order: int, two_d: bool, target: float) -> LdicSettings:
    most = SIZES[-1]
    return LdicSettings(
        RegistrationSettings(order=order, max_iterations=2),
        (0 if two_d else most, most, most),
        (0 if two_d else 2, 2, 2),
        min_coverage=0.0,
        adaptive=AdaptiveSettings(target, SIZES[0], most, 8.0),
    )


@pytest.mark.parametrize("two_d", [False, True])
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("holes", [False, True])
def test_windows_are_the_smallest_that_will_do(two_d: bool, order: int, holes: bool) -> None:
    values = image_of(two_d)
    mask = np.ones(values.shape, np.uint8)
    if holes:
        values[0 if two_d else slice(10, 14), 18:22, 30:34] = np.nan
        mask[:, :, 50:56] = 0
    target = 0.07 if two_d else 0.025
    images = ImagePair(ArrayImage(values), ArrayImage(values), ArrayImage(mask) if holes else None)
    grid = [[0] if two_d else [6, 20, 34], range(3, values.shape[1], 9), range(2, values.shape[2], 11)]
    nodes = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, 3)
    facts, settings = facts_of(two_d, order), settings_of(order, two_d, target)
    assert settings.adaptive is not None
    choice = SizeChoice(settings.adaptive, facts, order)
    chunks = [np.arange(0, len(nodes), 2), np.arange(1, len(nodes), 2)]
    records = run_all(LdicTask(images, Given(nodes, phi_of(np.zeros((len(nodes), 3))), chunks), settings, None, choice))
    sizes, limits = records["result"][:, -2:].T
    expected = oracle(values, mask, nodes, facts, order, target, two_d)
    # sums in single precision decide otherwise where the error is the target, to some digits
    assert np.mean(sizes != expected) < 0.01
    assert np.abs(sizes - expected).max() <= 1
    # all sizes occur, and both ends
    assert len(np.unique(sizes)) >= 6
    assert set(limits) == {MET, LARGEST}
    assert (sizes[limits == LARGEST] == SIZES[-1]).all()


def test_a_point_is_that_of_a_window_of_its_size() -> None:
    """Whatever the windows of the points that share its boxes."""
    values = image_of(False)
    moved = ndimage.shift(values.astype(float), (0.3, -0.4, 0.2), order=3, mode="nearest").astype(np.float32)
    images = ImagePair(ArrayImage(values), ArrayImage(moved))
    nodes = np.stack(np.meshgrid([12, 26], [10, 20, 30], range(6, 84, 6), indexing="ij"), axis=-1).reshape(-1, 3)
    phi = phi_of(np.zeros((len(nodes), 3)))
    # a point with boxes of its own
    phi[5, :3, 3] = 25
    facts, settings = facts_of(False, 3), settings_of(3, False, 0.02)
    settings = replace(settings, registration=replace(settings.registration, max_iterations=20))
    assert settings.adaptive is not None
    points = Given(nodes, phi)
    found = run_all(LdicTask(images, points, settings, facts.noise, SizeChoice(settings.adaptive, facts, 3)))
    sizes = found["result"][:, -2]
    assert len(np.unique(sizes)) >= 4
    for size in np.unique(sizes).astype(int).tolist():
        fixed = replace(settings, hws=(size,) * 3, adaptive=None)
        noise = Noise.of(facts.variance * facts.noise.rho, facts.gamma, facts.own, False, fixed.compared)
        alone = run_all(LdicTask(images, points, fixed, noise))
        here = sizes == size
        np.testing.assert_array_equal(found["phi"][here], alone["phi"][here])
        np.testing.assert_array_equal(found["result"][here, :-2], alone["result"][here])


def test_curvature_comes_first() -> None:
    values = image_of(False)
    images = ImagePair(ArrayImage(values), ArrayImage(values))
    nodes = np.stack(np.meshgrid(*(range(4, n - 3, 8) for n in values.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    target = 0.025
    settings, facts = settings_of(3, False, target), facts_of(False, 3)
    assert settings.adaptive is not None

    def chosen(curvature: float | None) -> tuple[Array, Array]:
        field = None
        if curvature is not None:
            phi = phi_of(np.zeros((len(nodes), 3)))
            phi[:, 1, 3] = curvature * nodes[:, 2].astype(float) ** 2 / 2
            field = Source(PhiField(nodes.astype(float), phi))
        choice = SizeChoice(settings.adaptive, facts, 3, field)  # type: ignore[arg-type]
        points = Given(nodes, phi_of(np.zeros((len(nodes), 3))))
        records = run_all(LdicTask(images, points, settings, None, choice))
        sizes, limits = records["result"][:, -2:].T
        return sizes, limits

    free, met = chosen(None)
    for curvature, largest in ((0.0, 9), (target * 6 / 42 * 0.99, 7), (target * 6 / 6 * 1.01, 3)):
        sizes, limits = chosen(curvature)
        np.testing.assert_array_equal(sizes, np.minimum(free, largest))
        if largest == 9:
            np.testing.assert_array_equal(limits, met)
        elif largest == 7:
            np.testing.assert_array_equal(limits, np.where(free > 7, CURVATURE, MET))
            assert 0 < np.mean(limits == MET) < 1
        else:
            # the bias of the smallest window is larger than the target, too
            assert (limits == CURVATURE).all()
