"""A user brings two images together that reg alone does not: by the tools of the window, and what they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PySide6.QtCore import QPointF, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QPushButton

from mpidvc.core import deformation
from mpidvc.fields.read import read_field
from mpidvc.gui.canvas import Place
from mpidvc.gui.files import open_images
from mpidvc.gui.window import Window
from mpidvc.main import main
from tests.gui.pairs import WidePair, phi_of
from tests.gui.user import drag, give, key, the_model, wait

pytestmark = pytest.mark.usefixtures("no_errors")

AXIS = np.array([2.0, -1.0, 2.0]) / 3
#: Turned by 40° about an oblique axis, shifted by 60 voxels, stretched by 3 %.
PAIR = WidePair((150, 150, 150), 3, 40 * AXIS, (0.03,) * 3, (34, -36, 34), amplitude=0, spacing=9, radii=(7, 13))


def press(window: Window, name: str) -> None:
    QTest.mouseClick(window.findChild(QPushButton, name), Qt.MouseButton.LeftButton)


def zncc(window: Window) -> float:
    return float(window.bar.numbers.values["zncc"].text())


def improve(window: Window, names: tuple[str, ...]) -> None:
    """Press buttons as long as the ZNCC that is shown grows; take a step back where it does not."""
    for name in names:
        best = zncc(window)
        while True:
            press(window, name)
            if zncc(window) <= best:
                press(window, "undo")
                break
            best = zncc(window)


def test_user(app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, image in (("a", PAIR.image1()), ("b", PAIR.image2())):
        tifffile.imwrite(f"{name}.tif", image, photometric="minisblack")
    truth = phi_of(PAIR)
    assert np.linalg.norm(PAIR.translation) >= 60
    # reg alone fails, or finds something else
    status = main(["reg", "a.tif", "b.tif", "-pre", "blind", "-np", "1"])
    assert status == 1 or np.abs(read_field("blind-registration.tsv").phi[0] - truth).max() > 1

    window = Window()
    window.show()
    window.read(open_images("a.tif", "b.tif", 1))
    wait(window)
    model = the_model(window)
    # the specimen is seen to be turned about an axis between z and x, by something between 30° and 50°
    for name, text in (("turn-z", "1"), ("turn-y", "-0.4"), ("turn-x", "0.9"), ("turn-angle", "35")):
        give(window, name, text)
    press(window, "turn")
    # and to have moved: image 1 is dragged, in two views, to where it is seen
    for keys, by in (("1", (-33.0, 30.0)), ("3", (37.0, 0.0))):
        key(window, keys)
        canvas = window.columns[0].canvas
        start = Place(*model.view.middle[list(model.view.axes[1:])])
        end = Place(start.rows + by[0], start.columns + by[1])
        drag(canvas, canvas.pixel_of(start), QPointF(canvas.pixel_of(end)))
    key(window, "1")
    # phase correlation puts the translation right, the buttons the rest: the ZNCC says which way
    turns = tuple(f"rotation-{axis}{step}" for axis in "zyx" for step in ("+1", "-1"))
    for _ in range(2):
        key(window, "F5")
        wait(window)
        improve(window, (*turns, "stretch-all+0.01", "stretch-all-0.01"))
    assert zncc(window) > 0.9
    key(window, "Ctrl+S")
    window.close()
    eye = read_field("a-b-PhiEye-bin1.tsv").phi[0]
    # an eye's guess, and no more: the exact Phi is reg's
    assert 0.05 < np.abs(eye[:3, 3] - truth[:3, 3]).max() < 5

    assert main(["reg", "a.tif", "b.tif", "-pf", "a-b-PhiEye-bin1.tsv", "-np", "1"]) == 0
    found = read_field("a-b-registration.tsv").phi[0]
    np.testing.assert_allclose(found[:3, 3], truth[:3, 3], atol=0.02)
    R, U = deformation.polar(found[:3, :3])
    turned = deformation.rotation_vector(R @ deformation.rotation_matrix(40 * AXIS).T)
    assert np.linalg.norm(turned) < 0.02
    np.testing.assert_allclose(U, 1.03 * np.eye(3), atol=2e-4)
