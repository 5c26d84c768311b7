"""Textures and scattered points that deform them, and the formula of the places in plain numpy."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

__all__ = ["SHAPE", "brute_places", "scattered", "texture"]

SHAPE = (18, 22, 26)


def texture(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    values = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), [1.2 * (n > 1) for n in shape])
    return ((values - values.min()) / np.ptp(values) * 50000 + 5000).astype(np.uint16)


def scattered(shape: tuple[int, ...], n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Random points and random Phi."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, np.array(shape) - 1, (n, 3))
    phi = np.tile(np.eye(4), (n, 1, 1))
    phi[:, :3] += 0.04 * rng.standard_normal((n, 3, 4))
    phi[:, :3, 3] *= 40
    if shape[0] == 1:
        positions[:, 0] = 0
        phi[:, 0], phi[:, :, 0] = [1, 0, 0, 0], [1, 0, 0, 0]
    return positions, phi


def brute_places(shape: tuple[int, ...], positions: np.ndarray, phi: np.ndarray, nn: int, disp: bool) -> np.ndarray:
    """The formula, voxel by voxel, over all points."""
    places = np.empty((*shape, 3))
    inverse = np.linalg.inv(phi[:, :3, :3])
    for voxel in np.ndindex(*shape):
        v = np.array(voxel, float)
        distance = np.linalg.norm(positions + phi[:, :3, 3] - v, axis=1)
        near = np.argsort(distance, kind="stable")[:nn]
        weight = 1 / (distance[near] + 1e-6)
        if disp:
            moved = -phi[near, :3, 3]
        else:
            moved = np.array(
                [-inverse[k] @ phi[k, :3, 3] + (inverse[k] - np.eye(3)) @ (v - positions[k]) for k in near]
            )
        places[voxel] = v + weight @ moved / weight.sum()
    return places
