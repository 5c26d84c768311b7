"""Groups of nodes that windows are tried at, what is read for them, and virtual states."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mpidvc.core.registration import RegistrationSettings
from mpidvc.core.uncertainty import FRAME
from mpidvc.images.image import ArrayImage
from mpidvc.images.source import Source
from mpidvc.tasks.trial import PILOT, TrialTask, Virtual, VirtualTask, groups_of, largest_window


@pytest.mark.parametrize(
    ("shape", "largest"),
    [((64, 64, 64), 14), ((1, 200, 210), 40), ((60, 300, 300), 13), ((1000,) * 3, 25), ((20,) * 3, 3)],
)
def test_largest_window(shape: tuple[int, int, int], largest: int) -> None:
    assert largest_window(shape) == largest


@pytest.mark.parametrize("shape", [(64, 64, 64), (1, 200, 210), (60, 300, 300), (400, 400, 400)])
@pytest.mark.parametrize("grain", [(1, 1, 1), (16, 64, 64)])
def test_windows_of_all_groups_are_inside(shape: tuple[int, int, int], grain: tuple[int, int, int]) -> None:
    if shape[0] == 1:
        grain = (1, *grain[1:])
    nodes = nodes_inside(shape, grain)
    assert len(np.unique(nodes, axis=0)) == len(nodes) >= 8


def test_groups_at_the_last_border_of_pieces() -> None:
    """A border of pieces so near to the edge that a group about it would not fit."""
    for grain in (16, 32):
        assert len(nodes_inside((1, 200, 210), (1, grain, grain))) > 100


def nodes_inside(shape: tuple[int, int, int], grain: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    """Nodes of all groups, whose windows have been found to be inside the image."""
    hws = largest_window(shape)
    groups = groups_of(shape, hws, grain)
    nodes = np.concatenate([group.nodes for group in groups])
    flat = np.array([0 if shape[0] == 1 else 1, 1, 1])
    reach = flat * (hws - 1 + FRAME)
    assert (nodes - reach >= 0).all()
    assert (nodes + reach < shape).all()
    return nodes


def test_groups_are_spread() -> None:
    nodes = np.concatenate([group.nodes for group in groups_of((64, 64, 64), 14)])
    # 28 voxels are left for the centres of the windows
    assert (np.ptp(nodes, axis=0) >= 20).all()
    assert len(nodes) == 216


class Counting(Source):
    """A large image without a file, of noise; it counts the voxels that are decoded, piece by piece."""

    def __init__(self, shape: tuple[int, int, int], grain: tuple[int, int, int]) -> None:
        super().__init__("counting", shape, np.dtype(np.uint8))
        self._grain, self.decoded = grain, 0
        self._noise = np.random.default_rng(1).integers(0, 255, (64, 64, 64), np.uint8)

    @property
    def grain(self) -> tuple[int, int, int]:
        return self._grain

    def _read(self, box: tuple[slice, slice, slice]) -> np.ndarray[Any, Any]:
        self.decoded += math.prod((-(-s.stop // g) - s.start // g) * g for s, g in zip(box, self._grain, strict=True))
        return self._noise[np.ix_(*(np.arange(s.start, s.stop) % 64 for s in box))]


@pytest.mark.parametrize(
    ("grain", "share"),
    # of planes in large pieces more cannot be helped, if four places are looked at
    [((1, 1, 1), 0.05), ((32, 32, 32), 0.05), ((64, 64, 64), 0.05), ((1, 256, 256), 0.15)],
)
def test_share_of_a_large_image_that_is_decoded(grain: tuple[int, int, int], share: float) -> None:
    """One group after the other: no piece that is decoded for one is at hand for the next."""
    shape = (1000, 1000, 1000)
    first, second = Counting(shape, grain), Counting(shape, grain)
    hws = largest_window(shape)
    groups = groups_of(shape, hws, grain)
    guess = [np.tile(np.eye(4), (len(group.nodes), 1, 1)) for group in groups]
    task = TrialTask(first, [(second, RegistrationSettings(order=3))], groups, [guess], [5], hws)
    chunks = [0, len(groups) // 2, len(groups) - 1]
    for chunk in chunks:
        task.run(chunk)
    for image in (first, second):
        assert image.decoded / len(chunks) * len(groups) <= share * math.prod(shape)
    assert len(groups) >= 4


def texture(shape: tuple[int, int, int], scale: float = 1.5) -> np.ndarray[Any, Any]:
    k = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(n) for n in shape), indexing="ij", sparse=True)
    amplitude = np.exp(-(scale**2) * sum(q**2 for q in k) / 2)
    values = np.fft.ifftn(np.fft.fftn(np.random.default_rng(4).normal(size=shape)) * amplitude).real
    return (100 + 20 * values / values.std()).astype(np.float32)


@pytest.mark.parametrize("two_d", [False, True])
def test_virtual_states_are_found(two_d: bool) -> None:
    """Registered as they were made: the interpolation of order 3 has a bias of some 1e-3 voxel on this texture."""
    shape = (1 if two_d else 52, 54, 56)
    image = ArrayImage(texture(shape), "image")
    phi = np.eye(4)
    phi[:3, 3] = 0 if two_d else 0.3, -0.45, 0.2
    phi[1, 1], phi[2, 2], phi[2, 1] = 1.01, 0.995, 0.004
    noise = np.zeros((1 if two_d else 3, 3, 3))
    groups = groups_of(shape, 9)[:2]
    task = VirtualTask(image, Virtual(phi[None], noise), groups, [6, 9], 9, RegistrationSettings(order=3))
    for chunk, group in enumerate(groups):
        (found,) = task.run(chunk)
        assert (found.status == 2).all()
        truth = (group.nodes - group.centre) @ (phi[:3, :3] - np.eye(3)).T + phi[:3, 3]
        error = found.displacements - truth[:, None]
        # one voxel of the window counts less in 2D
        assert np.abs(error).max() < (0.012 if two_d else 0.006)
        assert np.abs(found.F - phi[:3, :3]).max() < (4e-3 if two_d else 2e-3)


def test_noise_of_virtual_states_is_independent_and_repeatable() -> None:
    image = ArrayImage(texture((52, 54, 56)), "image")
    noise = np.zeros((3, 3, 3))
    noise[1, 1, 1] = 16.0
    groups = groups_of(image.shape, 9)[:1]
    phis = np.tile(np.eye(4), (2, 1, 1))
    task = VirtualTask(image, Virtual(phis, noise), groups, [9], 9, RegistrationSettings(order=3))
    first, second = task.run(0)
    again = task.run(0)[0]
    np.testing.assert_array_equal(first.displacements, again.displacements)
    assert np.abs(first.displacements - second.displacements).max() > 1e-4
    # without a shift nothing is smoothed: two independent noises of 4² each
    variance = np.nansum(first.squares) / np.nansum(first.voxels)
    assert variance == pytest.approx(32, rel=0.05)


def test_gradients_that_a_group_shows() -> None:
    """Of central differences in windows of the pilot size, at nodes with half of their window in the mask."""
    shape, half = (80, 80, 80), PILOT - 1
    values = texture(shape)
    group = groups_of(shape, 16)[13]
    mask = np.ones(shape, np.uint8)
    # through the middle of the windows of half of the nodes, and a voxel more
    mask[:, :, int(group.nodes[:, 2].max()) :] = 0
    look = TrialTask(ArrayImage(values, "image"), [], [group], [], [5], 16, mask=ArrayImage(mask, "mask")).run(0)
    assert np.isfinite(look.means).sum() == len(group.nodes) / 2
    differences = np.stack(np.gradient(values.astype(np.float64)))
    expected = np.zeros((2, 3))
    for node in group.nodes[group.nodes[:, 2] < group.nodes[:, 2].max()]:
        z, y, x = (slice(n - half, n + half + 1) for n in node)
        G = differences[:, z, y, x]
        expected += (G**2).sum(axis=(1, 2, 3)), (G[..., 1:] * G[..., :-1]).sum(axis=(1, 2, 3))
    middle = look.gradients.shape[1] // 2
    found = look.gradients[:, middle, middle, middle : middle + 2].T
    # grey levels are in single precision
    np.testing.assert_allclose(found, expected, rtol=1e-6)
