"""Fixtures of the tests of the window: Qt without a display, and a window that any error in it spoils."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.waiting import LONGEST


@pytest.fixture(scope="session")
def app() -> Iterator[Any]:
    """The application."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QT_QPA_PLATFORM", "offscreen")
        from mpidvc.gui.start import application

        yield application()


@pytest.fixture
def no_errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Exceptions in what Qt calls, which would only be printed."""
    caught: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: caught.append(error))
    yield
    assert caught == []


@pytest.fixture
def answer(app: Any) -> Callable[[str], list[str]]:
    """Press a button of the dialog that appears next, and of those after it; gives a list that their texts go into."""
    from PySide6.QtCore import Qt, QTimer
    from PySide6.QtTest import QTest
    from PySide6.QtWidgets import QLabel, QPushButton

    def press(
        text: str, before: Callable[[Any], object] = lambda dialog: None, then: tuple[str, ...] = ()
    ) -> list[str]:
        seen: list[str] = []

        texts = [text, *then]

        def look(left: int = int(LONGEST / 0.01)) -> None:
            dialog = app.activeModalWidget()
            if dialog is None:
                assert left > 0, "no dialog has appeared"
                QTimer.singleShot(10, lambda: look(left - 1))
                return
            if not seen:
                before(dialog)
            wanted = texts[len(seen)]
            seen.append(" ".join(label.text() for label in dialog.findChildren(QLabel)))
            button = next(one for one in dialog.findChildren(QPushButton) if one.text().replace("&", "") == wanted)
            if len(seen) < len(texts):
                QTimer.singleShot(0, look)
            QTest.mouseClick(button, Qt.MouseButton.LeftButton)

        QTimer.singleShot(0, look)
        return seen

    return press
