"""What a user does to the window: real clicks, keys and drags."""

from __future__ import annotations

import time
from typing import Any

from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QKeySequence
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QCheckBox, QPushButton

from mpidvc.gui.canvas import Canvas
from mpidvc.gui.model import Model
from mpidvc.gui.panels import Number
from mpidvc.gui.window import Window
from tests.waiting import LONGEST

__all__ = ["CTRL", "LEFT", "SHIFT", "activate", "click", "drag", "give", "key", "the_model", "wait"]

LEFT, SHIFT, CTRL = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier


def wait(window: Window) -> None:
    """Until nothing runs in the background."""
    end = time.monotonic() + LONGEST
    while window.busy:
        assert time.monotonic() < end, "a job does not end"
        QApplication.processEvents()
        time.sleep(0.002)
    QApplication.processEvents()


def the_model(window: Window) -> Model:
    assert window.model is not None
    return window.model


def click(window: Window, name: str) -> None:
    button = window.findChild(QPushButton, name) or window.findChild(QCheckBox, name)
    assert button is not None, name
    assert button.isEnabled(), name
    # a tick reacts to its box
    QTest.mouseClick(button, LEFT, pos=QPoint(8, button.height() // 2))


def activate(window: Window) -> None:
    """Give the keyboard to a window, as after a dialog, or another window."""
    end = time.monotonic() + LONGEST
    while QApplication.activeWindow() is not window or QApplication.focusWindow() is not window.windowHandle():
        assert time.monotonic() < end, "the window does not become active"
        window.activateWindow()
        QTest.qWait(5)


def key(window: Window, keys: str) -> None:
    activate(window)
    QTest.keySequence(window, QKeySequence(keys))


def give(window: Window, name: str, text: str) -> None:
    field = window.findChild(Number, name)
    assert field is not None, name
    activate(window)
    field.setFocus()
    field.selectAll()
    QTest.keyClicks(field, text)
    QTest.keyClick(field, Qt.Key.Key_Return)


def drag(canvas: Canvas, start: QPointF, end: QPointF, keys: Any = Qt.KeyboardModifier.NoModifier, button: Any = LEFT):
    middle = (start + end) / 2
    QTest.mousePress(canvas, button, keys, start.toPoint())
    QTest.mouseMove(canvas, middle.toPoint())
    QTest.mouseMove(canvas, end.toPoint())
    QTest.mouseRelease(canvas, button, keys, end.toPoint())
