"""The model: moves against their definition, the history, dragging, slices, and grey levels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mpidvc.core import deformation
from mpidvc.gui.model import Model, RefusedError, axes_of
from tests.gui.pairs import PHI, PLANE, SHEARED, pair_of, ramp


@pytest.fixture
def model() -> Model:
    return Model(pair_of(ramp((31, 42, 37)), ramp((31, 42, 37), 55.0)))


@pytest.fixture
def flat() -> Model:
    return Model(pair_of(ramp((1, 50, 61)), ramp((1, 50, 61))))


def turned(vector: list[float]) -> np.ndarray:
    """Rotation matrix by scipy, over (z, y, x) as the components stand."""
    return np.asarray(Rotation.from_rotvec(vector, degrees=True).as_matrix())


# ---- moves


def test_translation_adds_up(model: Model) -> None:
    model.translate((1, 0, -5))
    model.translate((0.5, 2, 0))
    np.testing.assert_allclose(model.translation, [1.5, 2, -5])
    np.testing.assert_array_equal(model.phi[:3, :3], np.eye(3))
    model.set_translation((7, 8, 9))
    assert model.translation.tolist() == [7, 8, 9]


def test_rotation_comes_after_what_is_there(model: Model) -> None:
    """About any axis, about the centre of image 1 as it lies; spam composes so, too."""
    model.load(SHEARED)
    model.rotate((3, -4, 12))
    np.testing.assert_allclose(model.phi[:3, :3], turned([3, -4, 12]) @ SHEARED[:3, :3], atol=1e-12)
    np.testing.assert_array_equal(model.translation, SHEARED[:3, 3])
    model.rotate((-3, 4, -12))
    np.testing.assert_allclose(model.phi, SHEARED, atol=1e-12)


def test_values_are_absolute(model: Model) -> None:
    """The same values applied twice change nothing: spam adds the rotation at each press."""
    model.set_rotation((5, 0, 0))
    once = model.phi
    model.set_rotation((5, 0, 0))
    np.testing.assert_allclose(model.phi, once, atol=1e-14)
    np.testing.assert_allclose(model.rotation, [5, 0, 0], atol=1e-10)


def test_shear_of_a_loaded_phi_stays(model: Model) -> None:
    """Rotation and stretch change R and the diagonal of U, and nothing else."""
    model.load(SHEARED)
    np.testing.assert_array_equal(model.phi, SHEARED)
    U = deformation.polar(SHEARED[:3, :3])[1]
    model.stretch_by((0.01, 0, -0.05))
    np.testing.assert_allclose(model.stretch, U + np.diag([0.01, 0, -0.05]), atol=1e-12)
    np.testing.assert_allclose(model.rotation, [10, -20, 5], atol=1e-9)
    model.set_rotation((0, 0, 0))
    np.testing.assert_allclose(model.phi[:3, :3], U + np.diag([0.01, 0, -0.05]), atol=1e-12)
    model.set_stretch((1, 1, 1))
    np.testing.assert_allclose(model.stretch - np.diag(model.stretch.diagonal()), U - np.diag(U.diagonal()), atol=1e-9)


def test_moves_of_2d_images_stay_in_the_plane(flat: Model) -> None:
    flat.translate((1, 2, 3))
    flat.rotate((10, 20, 30))
    flat.stretch_by((0.5, 0.1, -0.1))
    flat.set_translation((5, 6, 7))
    flat.drag_rotation((0, 0), (5, 9))
    flat.release("rotation")
    assert flat.phi[0].tolist() == [1, 0, 0, 0]
    assert flat.phi[:, 0].tolist() == [1, 0, 0, 0]
    with pytest.raises(RefusedError, match="across z only"):
        flat.look_across(1)
    flat.load(PLANE)
    np.testing.assert_array_equal(flat.phi, PLANE)


@pytest.mark.parametrize("stretch", [(0, 1, 1), (-1, 1, 1), (1, 11, 1), (1, 1, np.nan)])
def test_no_deformation_is_refused(model: Model, stretch: tuple[float, ...]) -> None:
    with pytest.raises(RefusedError, match=r"stretch|no deformation"):
        model.set_stretch(stretch)
    np.testing.assert_array_equal(model.phi, np.eye(4))
    assert model.undone is None


# ---- history


def test_undo_and_redo(model: Model) -> None:
    assert model.undone is None
    assert model.redone is None
    states = [model.phi]
    for k in range(4):
        model.translate((k + 1, 0, 0))
        states.append(model.phi)
    assert model.undone == "translation"
    for k in (3, 2, 1, 0):
        model.undo()
        assert model.phi is states[k]
    model.undo()
    assert model.phi is states[0]
    for k in (1, 2):
        model.redo()
        assert model.phi is states[k]
    model.rotate((1, 0, 0))
    assert model.redone is None
    model.redo()
    assert model.undone == "rotation"
    model.undo()
    assert model.phi is states[2]
    assert model.redone == "rotation"


def test_what_changes_nothing_is_no_step(model: Model) -> None:
    model.translate((0, 0, 0))
    model.reset()
    assert model.undone is None


def test_reset(model: Model) -> None:
    with pytest.raises(RefusedError, match="no Phi was loaded"):
        model.reset_to_loaded()
    model.load(SHEARED)
    model.translate((1, 1, 1))
    model.reset()
    np.testing.assert_array_equal(model.phi, np.eye(4))
    model.reset_to_loaded()
    np.testing.assert_array_equal(model.phi, SHEARED)
    model.undo()
    np.testing.assert_array_equal(model.phi, np.eye(4))


def test_unsaved(model: Model) -> None:
    assert not model.unsaved
    model.translate((1, 0, 0))
    assert model.unsaved
    model.undo()
    assert not model.unsaved
    model.redo()
    model.saved()
    assert not model.unsaved
    model.undo()
    assert model.unsaved
    assert not Model(model.pair, SHEARED).unsaved


# ---- dragging


@pytest.mark.parametrize("across", [0, 1, 2])
def test_dragged_image_follows_the_mouse(model: Model, across: int) -> None:
    model.load(SHEARED)
    model.look_across(across)
    axes = axes_of(across)
    model.drag_translation(3, -2)
    model.drag_translation(5, -4)  # from the last step, not from the last position
    expected = SHEARED.copy()
    expected[axes.rows, 3] += 5
    expected[axes.columns, 3] -= 4
    np.testing.assert_allclose(model.phi, expected)
    model.release("drag")
    assert model.undone == "drag"
    model.undo()
    np.testing.assert_array_equal(model.phi, SHEARED)


@pytest.mark.parametrize("across", [0, 1, 2])
def test_dragged_point_turns_with_the_image(model: Model, across: int) -> None:
    """The point of the specimen under the mouse stays under it."""
    model.load(SHEARED)
    model.look_across(across)
    axes = axes_of(across)
    pivot = model.centre + model.translation
    first, last = pivot.copy(), pivot.copy()
    first[[axes.rows, axes.columns]] += [8, 3]
    angle = np.radians(25) + np.arctan2(3, 8)
    last[[axes.rows, axes.columns]] += np.hypot(8, 3) * np.array([np.cos(angle), np.sin(angle)])
    material = model.centre + np.linalg.inv(SHEARED[:3, :3]) @ (first - pivot)
    model.drag_rotation((first[axes.rows], first[axes.columns]), (last[axes.rows], last[axes.columns]))
    moved = material + deformation.apply(model.phi, model.centre, material)
    np.testing.assert_allclose(moved, last, atol=1e-9)
    R = deformation.polar(model.phi[:3, :3])[0] @ deformation.polar(SHEARED[:3, :3])[0].T
    assert np.linalg.norm(deformation.rotation_vector(R)) == pytest.approx(25)
    model.release("rotation")
    assert model.undone == "rotation"


def test_dragged_stretch(model: Model) -> None:
    _, cy, cx = model.centre
    model.drag_stretch((cy, cx + 10), (cy, cx + 11))
    np.testing.assert_allclose(model.stretch, np.diag([1, 1.1, 1.1]), atol=1e-12)
    model.drag_stretch((cy, cx + 10), (cy, cx))  # to nothing: refused, the last stays
    np.testing.assert_allclose(model.stretch, np.diag([1, 1.1, 1.1]), atol=1e-12)
    model.release("stretch")
    model.drag_stretch((cy, cx), (cy, cx + 10))  # begins at the centre: no ratio
    np.testing.assert_allclose(model.stretch, np.diag([1, 1.1, 1.1]), atol=1e-12)


# ---- the view


@pytest.mark.parametrize(("across", "rows", "columns"), [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_axes_are_those_of_spam(across: int, rows: int, columns: int) -> None:
    """z: x to the right, y down; y: x, z; x: y, z."""
    assert axes_of(across) == (across, rows, columns)


def test_pan_and_zoom(model: Model) -> None:
    view = model.view
    view.pan(3, -4)
    np.testing.assert_allclose(view.middle, model.centre + np.array([0, -3, 4]))
    place = np.array([10.0, 30.0])
    before = (place - view.middle[1:]) * view.zoom
    view.zoom_at(2.5, *place)
    np.testing.assert_allclose((place - view.middle[1:]) * view.zoom, before)
    assert view.zoom == 2.5
    view.zoom_at(1e9, 0, 0)
    assert view.zoom == 64
    view.show_box((10, 20), (20, 40), 200, 200)
    np.testing.assert_allclose(view.middle[1:], [15, 30])
    assert view.zoom == 10


def test_slices(model: Model) -> None:
    view = model.view
    model.show_slice(0, 7)
    assert (view.slice1, view.slice2) == (7, 7)
    model.link(False)
    model.show_slice(1, 1000)
    assert (view.slice1, view.slice2) == (7, 30)
    assert model.slice_offset == 23
    model.apply_slice_offset()
    assert model.translation.tolist() == [23, 0, 0]
    assert (view.slice1, view.slice2) == (30, 30)
    model.show_slice(0, -3)
    assert view.slice1 == 0
    model.link(True)
    assert view.slice2 == 0
    model.look_across(2)
    assert view.slice1 == 18
    model.show_slice(1, 5)
    model.look_across(0)
    assert view.slice1 == 0


def test_offset_of_slices_is_in_voxels_of_the_images() -> None:
    model = Model(pair_of(ramp((30, 42, 36)), ramp((30, 42, 36)), 2000))
    assert model.pair.factor == 3
    model.link(False)
    model.show_slice(1, model.view.slice1 + 2)
    model.apply_slice_offset()
    assert model.translation.tolist() == [6, 0, 0]


def test_squares(model: Model) -> None:
    view = model.view
    assert view.squares == 5
    for by, expected in ((2, 7), (-2, 5), (-2, 3), (-2, 3)):
        view.change_squares(by)
        assert view.squares == expected


# ---- grey levels


def test_matched_grey_levels() -> None:
    """Of an image 2 that is darker and has less contrast: matched from the beginning, and exactly."""
    rng = np.random.default_rng(1)
    one = rng.normal(100, 10, (20, 20, 20)).astype(np.float32)
    model = Model(pair_of(one, 0.5 * one - 7))
    assert model.view.matched
    gain, bias = model.grey_map
    assert gain == pytest.approx(2, rel=1e-3)
    assert bias == pytest.approx(14, abs=0.3)
    assert model.numbers().residual < 0.1
    assert model.pictures()[2].min() > 230
    model.view.matched = False
    assert model.numbers().residual == pytest.approx(57, abs=2)
    assert not Model(pair_of(one, one)).view.matched


def test_pictures_and_grey_levels_with_a_base() -> None:
    """Grey levels far from nought, which are kept less a constant, are drawn the same."""
    rng = np.random.default_rng(1)
    one = rng.normal(0, 10, (12, 20, 22))
    two = np.roll(one, 2, 1)
    low, high = (Model(pair_of(one + level, two + 2 * level)) for level in (1000, 4e6))
    assert high.pair.base1 != 0
    for model in (low, high):
        model.translate((0, 2, 0))
    for a, b in itertools.pairwise([low, high]):
        for mine, theirs in zip(a.pictures(), b.pictures(), strict=True):
            assert np.abs(mine.astype(int) - theirs).max() <= 1
    assert high.grey_at((5, 9, 9))[0] == pytest.approx(one[5, 7, 9] + 4e6, abs=1e-2)
    assert high.grey_at((5, 9, 9))[1] == pytest.approx(two[5, 9, 9] + 8e6, abs=1e-2)
    assert np.isnan(high.grey_at((5, 9, 99))).all()
    assert np.isnan(high.grey_at((5, 0, 9))[0])


def test_contrast_and_histogram(model: Model) -> None:
    low, high = model.view.contrasts[0]
    values = ramp((31, 42, 37))
    assert values.min() <= low < high <= values.max()
    assert model.histogram_of(1).counts.sum() == len(model.samples[1])
    assert model.view.spread == pytest.approx((high - low) / 2)


def test_images_without_any_grey_level() -> None:
    nothing = np.full((5, 6, 7), np.nan, np.float32)
    model = Model(pair_of(nothing, nothing))
    assert [picture.shape for picture in model.pictures()] == [(6, 7), (6, 7), (6, 7, 3)]
    assert np.isnan(model.numbers().residual)


def test_phi_of_pictures_is_that_of_the_numbers(model: Model) -> None:
    """What brings image 1 upon image 2 makes both alike."""
    image = np.random.default_rng(2).random((30, 30, 30)).astype(np.float32)
    still = Model(pair_of(image, np.roll(image, (2, -3, 1), (0, 1, 2))))
    assert still.numbers().zncc < 0.2
    still.translate((2, -3, 1))
    inner = still.pictures()
    assert (inner[0][3:-3, 3:-3] == inner[1][3:-3, 3:-3]).all()
    still.set_phi("guess", PHI)
    assert still.numbers().zncc < 0.2
