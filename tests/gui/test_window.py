"""The window, with real clicks and keys: every button, key and field, the mouse, jobs, files and questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QCheckBox, QFileDialog, QLineEdit, QPushButton, QSlider

from mpidvc.core import deformation
from mpidvc.core.coarse import Found
from mpidvc.core.coarse_refinement import Candidate
from mpidvc.fields.read import read_field
from mpidvc.gui import snap
from mpidvc.gui import window as window_module
from mpidvc.gui.canvas import Canvas, Place
from mpidvc.gui.files import OpenedPair, field_of, open_images, save_phi
from mpidvc.gui.histogram import HistogramBar
from mpidvc.gui.model import Model
from mpidvc.gui.panels import Number
from mpidvc.gui.pictures import MODES, Contrast
from mpidvc.gui.window import Window
from mpidvc.images.image import ArrayImage
from tests.gui.pairs import SHEARED, WidePair, phi_of
from tests.gui.user import CTRL, LEFT, SHIFT, activate, click, drag, give, key, the_model, wait
from tests.waiting import LONGEST

pytestmark = pytest.mark.usefixtures("no_errors")

PAIR = WidePair((50, 56, 60), 3, (12, -6, 8), (0.02,) * 3, (5, -7, 6), amplitude=0, spacing=7, radii=(5, 9))
Answer = Callable[..., list[str]]


def opened_pair() -> OpenedPair:
    images = ArrayImage(PAIR.image1(), "im1"), ArrayImage(PAIR.image2(), "im2")
    return open_images(*images, 1)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shown(app: Any) -> Iterator[Window]:
    """A window that all tests of this module share."""
    window = Window()
    window.show()
    window.read(opened_pair())
    wait(window)
    QTest.qWaitForWindowActive(window)
    yield window
    window.model = None
    window.close()


@pytest.fixture
def window(shown: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Window:
    """The window as it is in the beginning, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    assert shown.model is not None
    shown.model = Model(shown.model.pair)
    shown.saved = None
    shown.written.clear()
    shown._ours.clear()
    shown.save.name.setText("im1-im2-PhiEye-bin1.tsv")
    shown.snap.angle.show_value(180)
    shown._folder = ""
    shown.show_all()
    shown.refresh()
    shown.setFocus()
    shown.say("")
    return shown


# ---- every button: what is looked at before and after it is pressed


def stretches(model: Model) -> np.ndarray:
    return model.stretch.diagonal()


def moves() -> dict[str, tuple[Callable[[Model], Any], Any]]:
    """Buttons of the rows, and what they make of the identity."""
    found: dict[str, tuple[Callable[[Model], Any], Any]] = {}
    for k, axis in enumerate("zyx"):
        one = np.eye(3)[k]
        for step in (-5, -1, 1, 5):
            found[f"translation-{axis}{step:+d}"] = (lambda model: model.translation), step * one
            found[f"rotation-{axis}{step:+d}"] = (lambda model: model.rotation), step * one
        for step in (-0.05, -0.01, 0.01, 0.05):
            found[f"stretch-{axis}{step:+g}"] = stretches, 1 + step * one
    for step in (-0.05, -0.01, 0.01, 0.05):
        found[f"stretch-all{step:+g}"] = stretches, np.full(3, 1 + step)
    found["turn"] = (lambda model: model.rotation), np.full(3, 10 / np.sqrt(3))
    return found


#: Buttons and ticks that a test of their own presses.
ELSEWHERE = {
    *("undo", "redo", "identity", "loaded", "load", "save", "browse", "save-deformed", "cancel"),
    *("snap-translation", "snap-search", "snap-reg", "apply-offset", "show-all"),
}
VIEWS: dict[str, tuple[Callable[[Model], Any], Any]] = {
    **{f"across-{axis}": ((lambda model: model.view.across), k) for k, axis in enumerate("zyx")},
    **{mode: ((lambda model: model.view.mode), mode) for mode in MODES},
    "link": ((lambda model: model.view.linked), False),
    "match": ((lambda model: model.view.matched), True),
    "tint": ((lambda model: model.view.tinted), True),
    "fewer": ((lambda model: model.view.squares), 3),
    "more": ((lambda model: model.view.squares), 7),
    "image1-before": ((lambda model: model.view.slices[0]), [24, 24]),
    "image1-after": ((lambda model: model.view.slices[0]), [26, 26]),
    "image2-before": ((lambda model: model.view.slices[0]), [24, 24]),
    "image2-after": ((lambda model: model.view.slices[0]), [26, 26]),
    "image1-auto": ((lambda model: model.view.contrasts[0] == model.usual_contrast(0)), True),
    "image2-auto": ((lambda model: model.view.contrasts[1] == model.usual_contrast(1)), True),
    "spread-auto": ((lambda model: model.view.spread == model.usual_spread()), True),
}


def test_every_button_is_tested(window: Window) -> None:
    names = {one.objectName() for kind in (QPushButton, QCheckBox) for one in window.findChildren(kind)}
    assert names == {*moves(), *VIEWS, *ELSEWHERE}


@pytest.mark.parametrize("name", moves())
def test_buttons_that_move(window: Window, name: str) -> None:
    look, expected = moves()[name]
    click(window, name)
    np.testing.assert_allclose(look(the_model(window)), expected, atol=1e-9)
    # the fields show it
    model = the_model(window)
    for rows, values in (
        (window.translation, model.translation),
        (window.rotation, model.rotation),
        (window.stretch, stretches(model)),
    ):
        np.testing.assert_allclose([field.value() for field in rows.fields], values, atol=6e-4)
    assert window.message.text() == "Φ needs to be saved"
    assert window.isWindowModified()


@pytest.mark.parametrize("name", VIEWS)
def test_buttons_of_the_view(window: Window, name: str) -> None:
    look, expected = VIEWS[name]
    model = the_model(window)
    model.view.mode = "checkerboard" if name in ("tint", "fewer", "more", "difference") else "difference"
    model.view.contrasts = [Contrast(0, 1), Contrast(2, 3)]
    model.view.spread = 1.0
    model.view.across = 2 if name == "across-z" else 0
    window.refresh()
    if name != "difference" or model.view.mode == "checkerboard":
        click(window, name)
    assert look(model) == expected
    assert window.bar.across.checkedId() == model.view.across
    assert MODES[window.comparison.modes.checkedId()] == model.view.mode
    assert not model.unsaved


# ---- every key

#: Keys, and what they change; arrows along z.
KEYS: dict[str, tuple[Callable[[Model], Any], Any]] = {
    **{f"{k + 1}": ((lambda model: model.view.across), k) for k in range(3)},
    **{name: ((lambda model: model.view.mode), mode) for name, mode in zip("DACO", MODES, strict=True)},
    "PgUp": ((lambda model: model.view.slice1), 26),
    "PgDown": ((lambda model: model.view.slice1), 24),
    "Shift+PgUp": ((lambda model: model.view.slice1), 35),
    "Shift+PgDown": ((lambda model: model.view.slice2), 15),
    "L": ((lambda model: model.view.linked), False),
    "M": ((lambda model: model.view.matched), True),
    "T": ((lambda model: model.view.tinted), True),
    "B": ((lambda model: model.view.squares), 3),
    "N": ((lambda model: model.view.squares), 7),
    "F": ((lambda model: model.view.middle.tolist()), [24.5, 27.5, 29.5]),
    **{
        f"{shift}{name}": ((lambda model: model.translation.tolist()), (step * np.array(by)).tolist())
        for shift, step in (("", 1.0), ("Shift+", 5.0))
        for name, by in (
            ("Left", (0, 0, -1)),
            ("Right", (0, 0, 1)),
            ("Up", (0, -1, 0)),
            ("Down", (0, 1, 0)),
            ("Home", (-1, 0, 0)),
            ("End", (1, 0, 0)),
        )
    },
    **{
        f"{shift}{name}": ((lambda model: model.rotation.round(9).tolist()), [angle, 0.0, 0.0])
        for shift, name, angle in (("", "Q", -1.0), ("", "E", 1.0), ("Shift+", "Q", -5.0), ("Shift+", "E", 5.0))
    },
    **{
        f"{shift}{name}": ((lambda model: stretches(model).round(9).tolist()), [1 + by] * 3)
        for shift, name, by in (("", "W", 0.01), ("", "S", -0.01), ("Shift+", "W", 0.05), ("Shift+", "S", -0.05))
    },
}
#: Keys of actions that a test of their own presses.
OTHER_KEYS = {
    *("Ctrl+O", "Ctrl+L", "Ctrl+S", "Ctrl+Shift+S", "Ctrl+E", "Ctrl+Q", "Ctrl+Z", "Ctrl+Shift+Z", "Ctrl+Y", "Ctrl+I"),
    *("Ctrl+R", "F5", "F6", "F7", "Esc", "F1", "+", "=", "-"),
}


def test_every_key_is_tested(window: Window) -> None:
    keys = [shortcut.toString() for action in window._actions.values() for shortcut in action.shortcuts()]
    assert len(keys) == len(set(keys))
    assert set(keys) == {*KEYS, *OTHER_KEYS}


@pytest.mark.parametrize("keys", KEYS)
def test_keys(window: Window, keys: str) -> None:
    look, expected = KEYS[keys]
    model = the_model(window)
    if keys == "1":
        model.view.across = 1
    if keys in ("B", "N", "T", "D"):
        model.view.mode = "checkerboard"
    model.view.pan(3, 4)
    window.refresh()
    key(window, keys)
    assert look(model) == expected


def test_arrows_move_along_the_axes_of_the_view(window: Window) -> None:
    key(window, "3")
    key(window, "Right")
    key(window, "Shift+Down")
    key(window, "Home")
    np.testing.assert_array_equal(the_model(window).translation, [5, 1, -1])
    key(window, "E")
    np.testing.assert_allclose(the_model(window).rotation, [0, 0, 1], atol=1e-9)


def test_keys_zoom(window: Window) -> None:
    model = the_model(window)
    before = model.view.zoom
    key(window, "+")
    assert model.view.zoom == pytest.approx(1.25 * before)
    key(window, "=")
    key(window, "-")
    assert model.view.zoom == pytest.approx(1.25 * before)
    click(window, "show-all")
    assert model.view.zoom == pytest.approx(before)


def test_help_shows_the_keys(window: Window, answer: Answer) -> None:
    seen = answer("OK")
    key(window, "F1")
    assert all(text in seen[0] for text in ("Shift+PgUp", "Stretch all axes", "turn image 1 about its centre"))


# ---- every field

FIELDS: dict[str, tuple[str, Callable[[Model], Any], Any]] = {
    **{
        f"translation-{axis}": ("-12.25", (lambda model: model.translation), -12.25 * np.eye(3)[k])
        for k, axis in enumerate("zyx")
    },
    **{
        f"rotation-{axis}": ("17.5", (lambda model: model.rotation), 17.5 * np.eye(3)[k])
        for k, axis in enumerate("zyx")
    },
    **{f"stretch-{axis}": ("1.125", stretches, 1 + 0.125 * np.eye(3)[k]) for k, axis in enumerate("zyx")},
    "image1-low": ("900", (lambda model: model.view.contrasts[0].low), 900),
    "image1-high": ("64000.5", (lambda model: model.view.contrasts[0].high), 64000.5),
    "image2-low": ("70000", (lambda model: model.view.contrasts[1]), (70000, 70000)),
    "image2-high": ("-3", (lambda model: model.view.contrasts[1]), (-3, -3)),
    "spread": ("123.5", (lambda model: model.view.spread), 123.5),
}
OTHER_FIELDS = {"turn-z", "turn-y", "turn-x", "turn-angle", "snap-angle"}


def test_every_field_is_tested(window: Window) -> None:
    assert {field.objectName() for field in window.findChildren(Number)} == {*FIELDS, *OTHER_FIELDS}
    lines = {line.objectName() for line in window.findChildren(QLineEdit)} - {"qt_spinbox_lineedit"}
    assert lines == {"name"}
    assert {one.objectName() for one in window.findChildren(QSlider)} == {"image1-slider", "image2-slider"}


@pytest.mark.parametrize("name", FIELDS)
def test_fields(window: Window, name: str) -> None:
    text, look, expected = FIELDS[name]
    give(window, name, text)
    np.testing.assert_allclose(look(the_model(window)), expected, atol=1e-9)
    # the keyboard is the window's again
    field = window.findChild(Number, name)
    assert not field.hasFocus()


def test_keys_in_a_field_are_its_own(window: Window) -> None:
    activate(window)
    field = window.findChild(Number, "translation-y")
    field.setFocus()
    field.selectAll()
    QTest.keyClicks(field, "31")
    QTest.keyClick(field, Qt.Key.Key_Backspace)
    assert the_model(window).view.across == 0
    assert the_model(window).translation.tolist() == [0, 0, 0]
    QTest.keyClick(field, Qt.Key.Key_Return)
    assert the_model(window).translation.tolist() == [0, 3, 0]
    field.setFocus()
    QTest.keyClick(field, Qt.Key.Key_Up)
    assert the_model(window).translation.tolist() == [0, 4, 0]
    # those with Ctrl, F1 … and Escape stay the window's
    QTest.keyClick(field, Qt.Key.Key_I, CTRL)
    assert the_model(window).translation.tolist() == [0, 0, 0]
    window.save.name.setFocus()
    QTest.keyClick(window.save.name, Qt.Key.Key_Up)
    assert the_model(window).translation.tolist() == [0, 0, 0]


def test_a_field_changes_its_own_component_only(window: Window) -> None:
    """The others keep digits that no field shows, and what no field holds: shear."""
    model = the_model(window)
    phi = deformation.compute_phi(
        (0.123456789, 1.23456789, 2.3), (3.3333333, 4, 5), [[1.1, 0.05, 0], [0.05, 0.9, 0.03], [0, 0.03, 1.0123456]]
    )
    model.load(phi)
    window.refresh()
    field = window.findChild(Number, "translation-x")
    field.setFocus()
    QTest.keyClick(field, Qt.Key.Key_Return)
    np.testing.assert_array_equal(model.phi, phi)
    give(window, "translation-x", "7")
    np.testing.assert_array_equal(model.translation, [0.123456789, 1.23456789, 7])
    give(window, "stretch-z", "1.2")
    U = deformation.polar(phi[:3, :3])[1]
    U[0, 0] = 1.2
    np.testing.assert_allclose(model.stretch, U, atol=1e-12)
    give(window, "rotation-z", "0")
    np.testing.assert_allclose(model.rotation, [0, 4, 5], atol=1e-9)


def test_what_is_no_number_is_not_taken(window: Window) -> None:
    """spam takes the translation for the rotation then."""
    give(window, "rotation-z", "abc")
    np.testing.assert_array_equal(the_model(window).phi, np.eye(4))


def test_refused_stretch(window: Window) -> None:
    give(window, "stretch-y", "-1")
    assert "stretches are from 0.1 to 10" in window.message.text()
    assert window.findChild(Number, "stretch-y").value() == 1
    np.testing.assert_array_equal(the_model(window).phi, np.eye(4))


def test_turn_about_any_axis(window: Window) -> None:
    for name, text in (("turn-z", "2"), ("turn-y", "-1"), ("turn-x", "2"), ("turn-angle", "30")):
        give(window, name, text)
    click(window, "turn")
    np.testing.assert_allclose(the_model(window).rotation, [20, -10, 20], atol=1e-9)
    for name in ("turn-z", "turn-y", "turn-x"):
        give(window, name, "0")
    click(window, "turn")
    np.testing.assert_allclose(the_model(window).rotation, [20, -10, 20], atol=1e-9)


@pytest.mark.parametrize("which", [0, 1])
def test_sliders(window: Window, which: int) -> None:
    slider = window.findChild(QSlider, f"image{which + 1}-slider")
    slider.setValue(7)
    assert the_model(window).view.slices[0] == [7, 7]
    assert window.columns[1 - which].slider.value() == 7
    assert window.columns[which].label.text() == "z = 7"
    # a click on the right end of the groove moves it on
    QTest.mouseClick(slider, LEFT, pos=QPoint(slider.width() - 3, slider.height() // 2))
    assert the_model(window).view.slice1 > 7


def test_offset_of_unlinked_slices(window: Window) -> None:
    model = the_model(window)
    assert not window.bar.apply.isVisible()
    click(window, "link")
    window.columns[1].slider.setValue(31)
    assert model.view.slices[0] == [25, 31]
    assert window.bar.apply.text() == "Apply Δz = +6"
    click(window, "apply-offset")
    assert model.translation.tolist() == [6, 0, 0]
    assert model.view.slices[0] == [31, 31]
    click(window, "link")
    assert not window.bar.apply.isVisible()


# ---- the mouse


@pytest.mark.parametrize("canvas", ["image1-canvas", "comparison-canvas"])
def test_dragging_moves_the_image(window: Window, canvas: str) -> None:
    model = the_model(window)
    shown = window.findChild(Canvas, canvas)
    zoom = model.view.zoom
    start = QPointF(200, 180)
    drag(shown, start, start + QPointF(10 * zoom, -6 * zoom))
    np.testing.assert_allclose(model.translation, [0, -6, 10], atol=0.6 / zoom)
    assert model.undone == "translation"
    key(window, "Ctrl+Z")
    np.testing.assert_array_equal(model.phi, np.eye(4))


def test_dragging_with_shift_turns(window: Window) -> None:
    model = the_model(window)
    canvas = window.columns[0].canvas
    centre = canvas.pixel_of(Place(*model.centre[1:]))
    drag(canvas, centre + QPointF(120, 0), centre + QPointF(0, 120), SHIFT)
    # from x to y is against the rotation vector along z
    np.testing.assert_allclose(model.rotation, [-90, 0, 0], atol=0.8)
    assert model.translation.tolist() == [0, 0, 0]


def test_dragging_with_ctrl_stretches(window: Window) -> None:
    model = the_model(window)
    canvas = window.columns[0].canvas
    centre = canvas.pixel_of(Place(*model.centre[1:]))
    drag(canvas, centre + QPointF(100, 0), centre + QPointF(120, 0), CTRL)
    np.testing.assert_allclose(model.stretch, np.diag([1, 1.2, 1.2]), atol=0.01)


def test_panning(window: Window) -> None:
    model = the_model(window)
    for canvas, button in ((window.columns[1].canvas, LEFT), (window.columns[0].canvas, Qt.MouseButton.MiddleButton)):
        before, zoom = model.view.middle.copy(), model.view.zoom
        drag(canvas, QPointF(100, 100), QPointF(160, 130), button=button)
        np.testing.assert_allclose(model.view.middle - before, [0, -30 / zoom, -60 / zoom], atol=1e-6)
        # all three pictures
        middles = {one.place_at(QPointF(one.width() / 2, one.height() / 2)) for one in window._canvases}
        assert middles == {Place(*model.view.middle[1:])}
    np.testing.assert_array_equal(model.phi, np.eye(4))


def test_wheel_zooms_where_the_mouse_is(window: Window) -> None:
    model = the_model(window)
    canvas = window.columns[0].canvas
    point, zoom = QPointF(90, 140), model.view.zoom
    before = canvas.place_at(point)
    event = QWheelEvent(
        *(point, canvas.mapToGlobal(point), QPoint(), QPoint(0, 240), Qt.MouseButton.NoButton),
        *(Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False),
    )
    QApplication.sendEvent(canvas, event)
    assert model.view.zoom == pytest.approx(zoom * 1.15**2)
    np.testing.assert_allclose(canvas.place_at(point), before, atol=1e-9)


def test_box_zooms_and_double_click_shows_all(window: Window) -> None:
    model = the_model(window)
    canvas = window.columns[1].canvas
    zoom = model.view.zoom
    first, second = QPointF(100, 100), QPointF(200, 180)
    middle = canvas.place_at((first + second) / 2)
    drag(canvas, first, second, button=Qt.MouseButton.RightButton)
    assert model.view.zoom > 2 * zoom
    np.testing.assert_allclose(model.view.middle[1:], middle, atol=1e-9)
    QTest.mouseDClick(canvas, Qt.MouseButton.RightButton, pos=QPoint(50, 50))
    assert model.view.zoom == pytest.approx(zoom)
    # a small box is a slip
    drag(canvas, first, first + QPointF(2, 2), button=Qt.MouseButton.RightButton)
    assert model.view.zoom == pytest.approx(zoom)


def test_what_is_under_the_mouse_is_told(window: Window) -> None:
    canvas = window.columns[0].canvas
    point = canvas.pixel_of(Place(20.0, 30.0))
    QTest.mouseMove(canvas, point.toPoint())
    text = window.pointed.text()
    assert text.startswith("z 25.0  y ")
    places = [float(text.split()[k]) for k in (3, 5)]
    np.testing.assert_allclose(places, [20, 30], atol=0.15)
    one, two = (float(PAIR_IMAGES[k][25, 20, 30]) for k in (0, 1))
    told = [float(part.split()[0]) for part in text.split(": ")[1:]]
    np.testing.assert_allclose(told, [one, two], rtol=1e-3)
    QTest.mouseMove(canvas, QPoint(2, 2))
    assert "image 1: –" in window.pointed.text()


PAIR_IMAGES = PAIR.image1(), PAIR.image2()


def test_histograms(window: Window) -> None:
    model = the_model(window)
    for which, name in enumerate(("image1-histogram", "image2-histogram")):
        bar = window.findChild(HistogramBar, name)
        low, high = model.view.contrasts[which]
        y = bar.height() // 2
        QTest.mousePress(bar, LEFT, pos=QPoint(round(bar.pixel_of(low)) + 2, y))
        QTest.mouseMove(bar, QPoint(bar.width() // 3, y))
        QTest.mouseRelease(bar, LEFT, pos=QPoint(bar.width() // 3, y))
        assert model.view.contrasts[which].low == pytest.approx(bar.grey_at(bar.width() // 3))
        assert model.view.contrasts[which].high == high
        # never beyond the other one
        QTest.mousePress(bar, LEFT, pos=QPoint(round(bar.pixel_of(high)) - 1, y))
        QTest.mouseMove(bar, QPoint(2, y))
        QTest.mouseRelease(bar, LEFT, pos=QPoint(2, y))
        assert model.view.contrasts[which].low < model.view.contrasts[which].high
        assert window.columns[which].high.value() == pytest.approx(model.view.contrasts[which].high, abs=1e-3)
    bar = window.findChild(HistogramBar, "comparison-histogram")
    QTest.mouseClick(bar, LEFT, pos=QPoint(bar.width() * 3 // 4, 20))
    assert model.view.spread == pytest.approx(bar.grey_at(bar.width() * 3 // 4))
    assert window.comparison.spread.value() == pytest.approx(model.view.spread, abs=1e-3)


def test_pictures_are_those_of_the_model(window: Window) -> None:
    """Pixel by pixel, where a voxel is on the screen."""
    model = the_model(window)
    window.refresh()
    first, _, third = model.pictures()
    for canvas, picture in ((window.columns[0].canvas, first), (window.comparison.canvas, third)):
        image = canvas.grab().toImage()
        for place in ((10, 12), (40, 33), (20, 50)):
            at = canvas.pixel_of(Place(*map(float, place)))
            colour = image.pixelColor(at.toPoint())
            expected = np.broadcast_to(picture[place], 3)
            np.testing.assert_allclose([colour.red(), colour.green(), colour.blue()], expected, atol=24)


# ---- steps


def test_steps(window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = the_model(window)
    assert not window.steps.undo.isEnabled()
    assert not window.steps.loaded.isEnabled()
    file = tmp_path / "phi.tsv"
    save_phi(file, field_of(SHEARED, model.centre, 1, model.numbers()))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *given: (str(file), ""))
    click(window, "load")
    np.testing.assert_allclose(model.phi, SHEARED, atol=1e-6)
    loaded = model.phi
    click(window, "translation-z+5")
    click(window, "undo")
    np.testing.assert_array_equal(model.phi, loaded)
    click(window, "redo")
    assert model.translation[0] == pytest.approx(8)
    click(window, "identity")
    np.testing.assert_array_equal(model.phi, np.eye(4))
    click(window, "loaded")
    np.testing.assert_array_equal(model.phi, loaded)
    for keys, expected in (("Ctrl+Z", np.eye(4)), ("Ctrl+Y", loaded), ("Ctrl+I", np.eye(4)), ("Ctrl+R", loaded)):
        key(window, keys)
        np.testing.assert_array_equal(model.phi, expected)
    key(window, "Ctrl+Z")
    key(window, "Ctrl+Shift+Z")
    np.testing.assert_array_equal(model.phi, loaded)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *given: (str(tmp_path / "none.tsv"), ""))
    key(window, "Ctrl+L")
    assert "none.tsv" in window.message.text()
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *given: ("", ""))
    key(window, "Ctrl+L")
    np.testing.assert_array_equal(model.phi, loaded)


# ---- jobs


@pytest.mark.parametrize("by", ["button", "key"])
def test_snaps(window: Window, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = the_model(window)
    asked = []

    def search(one: np.ndarray, two: np.ndarray, *, max_angle: float, progress: Any) -> Found:
        asked.append(max_angle)
        progress(1, 2)
        return Found(Candidate(9.0, 0.9, 1.0, phi_of(PAIR)), None)

    # test_snap.py has the search itself
    monkeypatch.setattr("mpidvc.core.coarse.search", search)
    give(window, "snap-angle", "90")
    act = click if by == "button" else key
    for name in ("snap-search", "snap-reg") if by == "button" else ("F6", "F7"):
        act(window, name)
        assert window.busy
        assert not window.translation.isEnabled()
        wait(window)
        assert window.translation.isEnabled()
    assert asked == [90]
    np.testing.assert_allclose(model.phi, phi_of(PAIR), atol=0.03)
    assert "reg: converged after" in window.message.text()
    assert model.undone == "snap: reg"
    model.set_phi("guess", deformation.compute_phi((0, 0, 0), (11, -6, 8)))
    window.refresh()
    act(window, "snap-translation" if by == "button" else "F5")
    wait(window)
    np.testing.assert_allclose(model.translation, PAIR.translation, atol=1.5)
    click(window, "undo")
    assert model.translation.tolist() == [0, 0, 0]


def test_doubtful_search(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    best, second = Candidate(9.0, 0.9, 1.0, phi_of(PAIR)), Candidate(8.9, 0.9, 1.0, np.eye(4))
    monkeypatch.setattr("mpidvc.core.coarse.search", lambda one, two, **given: Found(best, second))
    key(window, "F6")
    wait(window)
    assert window.message.text().startswith("search: doubtful: another motion is nearly as good. Look whether")
    assert window_module._COLOURS["bad"] in window.message.styleSheet()
    np.testing.assert_allclose(the_model(window).phi, phi_of(PAIR), atol=1e-9)


def test_snap_that_finds_nothing(window: Window) -> None:
    the_model(window).set_phi("truth", phi_of(PAIR))
    key(window, "F5")
    wait(window)
    assert "no translation matches better" in window.message.text()
    np.testing.assert_array_equal(the_model(window).phi, phi_of(PAIR))


@pytest.mark.parametrize("by", ["button", "key"])
def test_cancel(window: Window, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = the_model(window)

    def endless(pair: Any, phi: Any, progress: snap.Progress) -> Any:
        for k in range(10_000):
            progress(k % 100 / 100, "for ever")
            time.sleep(0.002)

    monkeypatch.setattr(snap, "register", endless)
    assert not window.snap.cancel.isEnabled()
    key(window, "F7")
    end = time.monotonic() + LONGEST
    while window.snap.bar.value() == 0:
        assert time.monotonic() < end
        QTest.qWait(5)
    assert window.busy
    assert window.message.text() == "for ever …"
    # nothing moves meanwhile, and nothing else begins; looking goes on
    key(window, "Right")
    key(window, "F5")
    middle = model.view.middle.copy()
    drag(window.columns[0].canvas, QPointF(100, 100), QPointF(150, 150))
    np.testing.assert_array_equal(model.phi, np.eye(4))
    # the left button pans then
    np.testing.assert_allclose(middle - model.view.middle, [0, *[50 / model.view.zoom] * 2], atol=1e-6)
    key(window, "PgUp")
    assert model.view.slice1 == 26
    if by == "button":
        click(window, "cancel")
    else:
        key(window, "Escape")
    wait(window)
    assert window.message.text() == "cancelled; nothing is changed"
    key(window, "Right")
    assert model.translation[2] == 1


def test_error_in_a_job_is_told(
    window: Window, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*given: Any) -> Any:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(snap, "register", broken)
    key(window, "F7")
    wait(window)
    assert "internal error: ZeroDivisionError('a bug')" in window.message.text()
    assert "Traceback" in capfd.readouterr().err
    assert window.snap.reg.isEnabled()


# ---- files and questions


def test_save(window: Window, answer: Answer) -> None:
    model = the_model(window)
    click(window, "translation-y+5")
    click(window, "save")
    path = Path("im1-im2-PhiEye-bin1.tsv")
    assert window.message.text() == f"Φ saved in: {path.resolve()}"
    assert not window.isWindowModified()
    field = read_field(path)
    np.testing.assert_allclose(field.phi[0], model.phi)
    assert float(field["error"][0]) == pytest.approx(model.numbers().error, rel=1e-6)
    # its own file is replaced without a question
    key(window, "Down")
    key(window, "Ctrl+S")
    np.testing.assert_allclose(read_field(path).phi[0][:3, 3], [0, 6, 0])
    assert window.written == [path]
    assert window.saved is not None


@pytest.mark.parametrize(("pressed", "replaced"), [("Cancel", False), ("Replace", True)])
def test_files_of_others_are_not_replaced_without_a_question(
    window: Window, answer: Answer, pressed: str, replaced: bool
) -> None:
    path = Path("mine.tsv")
    path.write_text("precious")
    line = window.findChild(QLineEdit, "name")
    line.setFocus()
    line.selectAll()
    QTest.keyClicks(line, "mine")
    QTest.keyClick(line, Qt.Key.Key_Return)
    assert not line.hasFocus()
    key(window, "Right")
    seen = answer(pressed)
    key(window, "Ctrl+S")
    assert "mine.tsv is there already" in seen[0]
    assert (path.read_text() != "precious") is replaced
    assert window.isWindowModified() is not replaced


def test_save_as(window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "other.tsv"
    target.write_text("the dialog has asked")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *given: (str(target), ""))
    key(window, "Right")
    click(window, "browse")
    assert read_field(target).phi[0, 2, 3] == 1
    assert window.save.name.text() == str(target)
    key(window, "Right")
    key(window, "Ctrl+Shift+S")
    assert read_field(target).phi[0, 2, 3] == 2
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *given: ("", ""))
    key(window, "Ctrl+Shift+S")
    assert window.save.name.text() == str(target)


@pytest.mark.parametrize(("name", "told"), [("", "no name"), ("nowhere/x.tsv", "there is no folder")])
def test_names_that_cannot_be_written(window: Window, name: str, told: str) -> None:
    window.save.name.setText(name)
    key(window, "Right")
    key(window, "Ctrl+S")
    assert told in window.message.text()
    assert window.isWindowModified()
    key(window, "Ctrl+E")
    wait(window)
    assert told in window.message.text()


@pytest.mark.parametrize("by", ["button", "key"])
def test_deformed_image(window: Window, by: str) -> None:
    the_model(window).set_phi("truth", phi_of(PAIR))
    window.refresh()
    if by == "button":
        click(window, "save-deformed")
    else:
        key(window, "Ctrl+E")
    wait(window)
    found = tifffile.imread("im1-im2-PhiEye-bin1-def.tif")
    assert found.dtype == PAIR_IMAGES[0].dtype
    inside = found > 0
    assert inside.mean() > 0.5
    error = (found.astype(float) - PAIR_IMAGES[1])[inside]
    assert error.std() < 0.05 * PAIR_IMAGES[1].std()
    assert "Deformed image 1 saved in" in window.message.text()


@pytest.mark.parametrize(
    ("pressed", "closes", "saved"), [("Cancel", False, False), ("Discard", True, False), ("Save", True, True)]
)
def test_closing_asks_before_phi_is_lost(
    app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, pressed: str, closes: bool, saved: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    window = Window()
    window.show()
    window.read(opened_pair())
    wait(window)
    key(window, "Right")
    seen = answer(pressed)
    key(window, "Ctrl+Q")
    assert "Φ is not saved" in seen[0]
    assert window.isVisible() is not closes
    assert Path("im1-im2-PhiEye-bin1.tsv").exists() is saved
    assert (window.saved is not None) is saved
    if not closes:
        key(window, "Ctrl+Z")
    # nothing is lost: no question
    window.close()
    assert not window.isVisible()


def test_closing_ends_a_job(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(pair: Any, phi: Any, progress: snap.Progress) -> Any:
        while True:
            progress(None)
            time.sleep(0.002)

    monkeypatch.setattr(snap, "register", endless)
    window = Window()
    window.show()
    window.read(opened_pair())
    wait(window)
    key(window, "F7")
    assert window.close()
    assert not window._job.isRunning()  # type: ignore[union-attr]
    wait(window)


# ---- opening


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, image in zip("ab", PAIR_IMAGES, strict=True):
        tifffile.imwrite(f"{name}.tif", image, photometric="minisblack")
    tifffile.imwrite("flat.tif", PAIR_IMAGES[0][0], photometric="minisblack")
    save_phi(Path("phi.tsv"), field_of(SHEARED, (np.array(PAIR.shape) - 1) / 2, 1, Model(_display()).numbers()))
    return tmp_path


def _display() -> Any:
    from mpidvc.gui.display import DisplayPair

    return DisplayPair.of(opened_pair().images)


def test_open_dialog(app: Any, files: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images and Phi are chosen by the buttons of the dialog; the window then begins with them."""
    window = Window()
    window.show()
    chosen = iter([str(files / "a.tif"), str(files / "phi.tsv"), str(files / "b.tif")])
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *given: (next(chosen), ""))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *given: str(files))

    def fill(dialog: Any) -> None:
        button = next(one for one in dialog.findChildren(QPushButton) if one.text() == "Open")
        assert not button.isEnabled()
        click(dialog, "open-image1-file")
        click(dialog, "open-image2-folder")
        assert dialog.fields["image2"].text() == str(files)
        click(dialog, "open-image1-folder")
        assert dialog.fields["image1"].text() == str(files)
        click(dialog, "open-phi-file")
        click(dialog, "open-image2-file")
        line = dialog.findChild(QLineEdit, "open-image1")
        line.selectAll()
        QTest.keyClicks(line, "a.tif")
        dialog.binning.setValue(1)
        assert button.isEnabled()

    answer("Open", fill)
    key(window, "Ctrl+O")
    wait(window)
    np.testing.assert_allclose(the_model(window).phi, SHEARED, atol=1e-6)
    assert window.save.name.text() == "a-b-PhiEye-bin1.tsv"
    assert "a.tif" in window.windowTitle()
    assert window.steps.loaded.isEnabled()
    # another pair: what is not saved is asked about
    key(window, "Right")
    assert the_model(window).unsaved, (window.focusWidget(), window.message.text())

    def swap(dialog: Any) -> None:
        dialog.fields["image1"].setText("b.tif")
        dialog.fields["image2"].setText("a.tif")

    seen = answer("Open", swap, then=("Cancel",))
    key(window, "Ctrl+O")
    assert "Φ is not saved" in seen[1]
    assert not window.busy
    assert window.save.name.text() == "a-b-PhiEye-bin1.tsv"
    answer("Cancel")
    key(window, "Ctrl+O")
    answer("Open", lambda dialog: (dialog.fields["image1"].setText("no.tif"), dialog.fields["image2"].setText("a.tif")))
    key(window, "Ctrl+O")
    assert "no.tif: does not exist" in window.message.text()
    window.model = None
    window.close()


def test_2d_images(app: Any, files: Path) -> None:
    window = Window()
    window.show()
    window.read(open_images("flat.tif", "flat.tif", 1))
    wait(window)
    model = the_model(window)
    assert model.two_d
    for name in (
        "translation-z+1",
        "rotation-y+1",
        "rotation-x+5",
        "stretch-z+0.01",
        "turn",
        "across-y",
        "image1-after",
    ):
        assert not window.findChild(QPushButton, name).isEnabled(), name
    click(window, "rotation-z+5")
    click(window, "translation-x+1")
    click(window, "stretch-all+0.01")
    key(window, "2")
    assert "across z only" in window.message.text()
    key(window, "End")
    assert model.phi[0].tolist() == [1, 0, 0, 0]
    np.testing.assert_allclose(model.translation, [0, 0, 1])
    window.model = None
    window.close()


def test_reduced_and_binned_images_are_noted(app: Any, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copies that are shown change no unit; -bin does."""
    monkeypatch.setattr("mpidvc.gui.display.MOST_VOXELS", 3000)
    window = Window()
    window.show()
    window.read(open_images("a.tif", "b.tif", 2))
    wait(window)
    assert window.bar.note.text() == "binned by 2, shown reduced by 2"
    assert window.columns[0].label.text() == "z = 12.5"
    key(window, "Right")
    key(window, "Ctrl+S")
    field = read_field("a-b-PhiEye-bin2.tsv")
    assert field.positions[0].tolist() == [12, 13.5, 14.5]
    assert field.phi[0, :3, 3].tolist() == [0, 0, 1]
    assert field["bin"][0] == 2
    window.close()
