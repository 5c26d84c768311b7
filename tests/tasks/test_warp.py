"""Deformed images against scipy on the whole image, and against images that interpolation reproduces exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core import deformation
from mpidvc.images.image import ArrayImage
from mpidvc.tasks import deform
from mpidvc.tasks.deform import DeformTask, WholeMotion
from mpidvc.tasks.warp import sample_block, to_dtype
from tests.tasks.test_boxes import texture

SHAPE, FLAT = (26, 30, 34), (1, 50, 60)
PHI = deformation.compute_phi((1.3, -2.2, 0.7), (4, -3, 5), np.diag([1.02, 0.97, 1.04]))
PHI_2D = deformation.compute_phi((0, -2.2, 0.7), (4, 0, 0), np.diag([1, 0.97, 1.04]))


def deformed(values: np.ndarray, phi: np.ndarray, centre: Any, order: int) -> tuple[np.ndarray, np.ndarray]:
    """``values(phi x)`` for all voxels x, and where that lies inside the image; in float64."""
    c = np.reshape(centre, (3, 1, 1, 1))
    x = np.indices(values.shape) - c
    p = np.einsum("ij,jzyx->izyx", phi[:3, :3], x) + c + phi[:3, 3].reshape(3, 1, 1, 1)
    last = np.reshape(values.shape, (3, 1, 1, 1)) - 1
    inside = ((p >= 0) & (p <= last)).all(axis=0)
    if values.shape[0] == 1:
        out = ndimage.map_coordinates(values[0].astype(float), p[1:], order=order, mode="mirror")
    else:
        out = ndimage.map_coordinates(values.astype(float), p, order=order, mode="mirror")
    return out, inside


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(("shape", "phi"), [(SHAPE, PHI), (FLAT, PHI_2D)], ids=["3d", "2d"])
def test_blocks(shape: tuple[int, int, int], phi: np.ndarray, order: int) -> None:
    """Any block is that part of the image deformed as a whole; what falls outside is 0."""
    values = texture(shape)
    centre = np.array(shape) * 0.4
    if shape[0] == 1:
        centre[0] = 0
    expected, inside = deformed(values, phi, centre, order)
    blocks = [((0, 0, 0), shape)]
    blocks += [((0, 3, 5), (1, 20, 31)), ((0, 44, 0), (1, 6, 60))] if shape[0] == 1 else [((3, 4, 5), (7, 20, 11))]
    assert 0.5 < inside.mean() < 1
    for low, n in blocks:
        out = sample_block(ArrayImage(values), phi, centre, low, n, order)
        part = tuple(slice(a, a + m) for a, m in zip(low, n, strict=True))
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, np.where(inside, expected, 0)[part], rtol=0, atol=1e-3 if order == 3 else 1e-4)


def test_a_block_that_falls_outside_is_empty() -> None:
    phi = deformation.compute_phi((100, 0, 0))
    assert not sample_block(ArrayImage(texture(SHAPE)), phi, (0, 0, 0), (0, 0, 0), (5, 6, 7), 1).any()


@pytest.mark.parametrize("order", [1, 3])
def test_coordinates_are_deformed_exactly(order: int) -> None:
    """Grey levels that are a coordinate: interpolation of any order has no error but at a spline's border."""
    for axis in range(3):
        values = np.indices((40, 40, 40))[axis].astype(np.float32)
        out = sample_block(ArrayImage(values), PHI, (19, 20, 21), (15, 15, 15), (8, 9, 10), order)
        x = np.indices((8, 9, 10)) + 15 - np.reshape((19, 20, 21), (3, 1, 1, 1))
        p = np.einsum("ij,jzyx->izyx", PHI[:3, :3], x) + np.reshape(PHI[:3, 3] + (19, 20, 21), (3, 1, 1, 1))
        np.testing.assert_allclose(out, p[axis], rtol=0, atol=3e-5)


def test_types() -> None:
    """Integers are rounded and stay in their range; floats stay what they are."""
    values = np.array([-3.0, -0.4, 0.6, 2.5, 254.6, 255.4, 300.0, 70000.0], np.float32)
    np.testing.assert_array_equal(to_dtype(values, np.dtype(np.uint8)), [0, 0, 1, 2, 255, 255, 255, 255])
    np.testing.assert_array_equal(to_dtype(values, np.dtype(np.int16)), [-3, 0, 1, 2, 255, 255, 300, 32767])
    assert to_dtype(np.array([3e9], np.float32), np.dtype(np.int32))[0] == 2**31 - 1
    floats = to_dtype(values, np.dtype(np.float64))
    assert floats.dtype == np.float64
    np.testing.assert_array_equal(floats, values)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("shape", "phi"), [(SHAPE, PHI), (FLAT, PHI_2D)], ids=["3d", "2d"])
@pytest.mark.parametrize(("slab", "tile"), [(4_000_000, 256), (3000, 16), (1, 1000)])
def test_slabs(
    shape: Any, phi: np.ndarray, dtype: str, order: int, slab: int, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All slabs together are the image deformed with Phi: voxel x is the image at the inverse."""
    monkeypatch.setattr(deform, "SLAB_VOXELS", slab)
    values = texture(shape).astype(dtype)
    centre = (np.array(shape) - 1) / 2
    task = DeformTask(ArrayImage(values), WholeMotion(phi, centre, order, tile))
    slabs = [task.run(chunk).planes for chunk in range(task.n_chunks)]
    assert all(0 < len(part) <= max(1, slab // (shape[1] * shape[2])) for part in slabs)
    out = np.concatenate(slabs)
    assert out.shape == shape
    assert out.dtype == dtype
    expected, inside = deformed(values, np.linalg.inv(phi), centre, order)
    expected = np.where(inside, expected, 0)
    if dtype == "uint8":
        near = np.abs(out.astype(float) - expected)
        # rounded: half a grey level off, and where sums end beside a half
        assert near.max() <= 0.501
    else:
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-3 if order == 3 else 1e-4)
