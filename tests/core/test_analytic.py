"""The known field and the known texture that other tests lean on."""

import numpy as np
import pytest

from mpidvc.core.analytic import AnalyticPair

SHAPES = {"3D": (24, 28, 32), "2D": (1, 60, 70)}
MOTION = {"rotation": (2.0, -1.0, 1.5), "strain": (0.02, -0.01, 0.015), "translation": (0.8, -1.3, 0.6)}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def pair(request):
    return AnalyticPair(request.param, seed=3, **MOTION, amplitude=0.4, wavelength=40.0, dtype=np.float32)


def points_in(pair, n, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (n, 3)) * (np.array(pair.shape) - 1)


def test_gradient_is_the_derivative_of_phi(pair):
    points, step = points_in(pair, 50), 1e-5
    differences = [(pair.phi(points + step * e) - pair.phi(points - step * e)) / (2 * step) for e in np.eye(3)]
    np.testing.assert_allclose(pair.gradient(points), np.stack(differences, axis=-1), atol=1e-9)
    np.testing.assert_allclose(pair.displacement(points), pair.phi(points) - points)


def test_inverse_undoes_phi(pair):
    points = points_in(pair, 50)
    np.testing.assert_allclose(pair.inverse_phi(pair.phi(points)), points, atol=1e-8)


def test_motion_follows_the_options():
    shape = (20, 20, 20)
    pair = AnalyticPair(shape, rotation=(90, 0, 0), strain=(0, 0, 0.5), translation=(0, 0, 2), amplitude=0)
    centre = np.full(3, 9.5)
    np.testing.assert_allclose(pair.displacement(centre), [0, 0, 2])
    # A positive turn about z takes y to x, as the order (z, y, x) has it; the stretch along x comes first.
    np.testing.assert_allclose(pair.gradient(centre), [[1, 0, 0], [0, 0, -1.5], [0, 1, 0]], atol=1e-12)


def test_plane_motion_of_a_2d_image():
    pair = AnalyticPair(SHAPES["2D"], **MOTION, wavelength=50)
    points = points_in(pair, 20)
    assert np.all(pair.displacement(points)[:, 0] == 0)
    F = pair.gradient(points)
    assert np.all(F[:, 0] == [1, 0, 0])
    assert np.all(F[:, 1:, 0] == 0)


def test_images_are_the_texture_in_both_states(pair):
    points = np.rint(points_in(pair, 200))
    index = tuple(points.astype(int).T)
    np.testing.assert_allclose(pair.image1()[index], pair.texture(points), atol=1e-5)
    # The voxels of image 2 lie at points of state 1 that are no voxels.
    origin = pair.inverse_phi(points)
    assert np.abs(origin[:, 1:] - np.rint(origin[:, 1:])).max() > 0.3
    np.testing.assert_allclose(pair.image2()[index], pair.texture(origin), atol=1e-5)


def test_positions_keep_their_precision_in_long_images():
    pair = AnalyticPair((1, 8, 4000), translation=(0, 0.1, 0.37), rotation=(0, 0, 0), dtype=np.float32)
    points = np.array([[0.0, y, x] for y in (2, 5) for x in (3500, 3990)])
    np.testing.assert_allclose(
        pair.image2()[0][[2, 2, 5, 5], [3500, 3990] * 2], pair.texture(pair.inverse_phi(points)), atol=1e-5
    )


@pytest.mark.parametrize(("dtype", "full"), [("uint8", 255), ("uint16", 65535), ("float32", 1.0)])
def test_grey_levels_of_every_type(dtype, full):
    pair = AnalyticPair((40, 44, 48), seed=1, dtype=dtype, gain2=0.8, offset2=0.1)
    im1, im2 = pair.image1(), pair.image2()
    assert im1.dtype == im2.dtype == np.dtype(dtype)
    assert im1.shape == im2.shape == pair.shape
    assert im1.mean() / full == pytest.approx(0.3, abs=0.02)
    assert im1.std() / full == pytest.approx(0.08, abs=0.01)
    assert im2.mean() / full == pytest.approx(0.8 * 0.3 + 0.1, abs=0.02)
    assert im2.std() / full == pytest.approx(0.8 * 0.08, abs=0.01)


def test_texture_has_a_short_correlation_length():
    im = AnalyticPair((40, 44, 48), dtype=np.float32).image1().astype(float)
    im -= im.mean()
    correlation = [np.mean(im[..., k:] * im[..., :-k]) / im.var() for k in (1, 3, 8)]
    assert correlation[0] > 0.8
    assert 0.2 < correlation[1] < 0.5
    assert abs(correlation[2]) < 0.1


@pytest.mark.parametrize("shape", [(1, 240, 250), (60, 64, 68)])
def test_texture_is_the_same_at_every_face(shape):
    """Blobs lie around the image, too: at its faces the grey levels have the mean of all.

    Without the blobs beyond a face the sum of blobs, of which the mean is three standard deviations or more, is halved.
    """
    im = AnalyticPair(shape, seed=2, dtype=np.float32).image1().astype(float)
    for axis in range(3):
        if shape[axis] > 1:
            for face in (0, -1):
                assert im.take(face, axis).mean() == pytest.approx(0.3, abs=0.04), (axis, face)


def test_seeds_and_series():
    shape = (16, 18, 20)
    first, again, other = (AnalyticPair(shape, seed=s) for s in (1, 1, 2))
    assert np.array_equal(first.image1(), again.image1())
    assert np.array_equal(first.image2(), again.image2())
    assert not np.array_equal(first.image1(), other.image1())
    further = AnalyticPair(shape, seed=1, translation=(2.0, 0.0, 0.0))
    assert np.array_equal(first.image1(), further.image1())


def test_noise_differs_between_the_images():
    still = {
        "rotation": (0, 0, 0),
        "strain": (0, 0, 0),
        "translation": (0, 0, 0),
        "amplitude": 0.0,
        "dtype": np.float32,
    }
    clean, noisy = AnalyticPair((20, 20, 20), **still), AnalyticPair((20, 20, 20), **still, noise=0.02)
    n1, n2 = noisy.image1() - clean.image1(), noisy.image2() - clean.image2()
    assert n1.std() == pytest.approx(0.02, rel=0.05)
    assert abs(np.corrcoef(n1.ravel(), n2.ravel())[0, 1]) < 0.05


def test_impossible_motions_are_refused():
    with pytest.raises(ValueError, match="too steep"):
        AnalyticPair((20, 20, 20), amplitude=2.0, wavelength=20.0)
    with pytest.raises(ValueError, match="motion too large"):
        AnalyticPair((20, 20, 20), translation=(0, 0, 60)).image2()
