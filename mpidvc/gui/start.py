"""The application: it begins, shows the window until that is closed, and ends."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QTimer
from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QApplication

from mpidvc.arrays import Array
from mpidvc.fields.phifield import PhiField
from mpidvc.gui.files import OpenedPair
from mpidvc.gui.window import Window
from mpidvc.runtime.stop import Ended, graceful

__all__ = ["application", "show"]

#: Milliseconds after which a signal is noticed: Python's handlers do not run while Qt waits.
LOOK = 200
#: Dark, so that grey levels are seen and not the window.
_COLOURS = {
    QPalette.ColorRole.Window: "#2b2f37",
    QPalette.ColorRole.WindowText: "#d7dae0",
    QPalette.ColorRole.Base: "#1e2229",
    QPalette.ColorRole.AlternateBase: "#262a32",
    QPalette.ColorRole.Text: "#e6e8ec",
    QPalette.ColorRole.Button: "#3a404b",
    QPalette.ColorRole.ButtonText: "#e6e8ec",
    QPalette.ColorRole.ToolTipBase: "#3a404b",
    QPalette.ColorRole.ToolTipText: "#e6e8ec",
    QPalette.ColorRole.Highlight: "#3f7fd0",
    QPalette.ColorRole.HighlightedText: "#ffffff",
    QPalette.ColorRole.PlaceholderText: "#8a919e",
}
#: A button that is chosen among others.
_CHOSEN = """
QPushButton:checked { background: #3f7fd0; color: white; border: 1px solid #2c5f9f; border-radius: 3px; padding: 4px; }
QPushButton:checked:disabled { background: #3a4a60; color: #9aa3b0; }
"""


def application() -> QApplication:
    """The application of this process, in the colours of the window."""
    app = QApplication.instance()
    if not isinstance(app, QApplication):
        app = QApplication(["mpidvc ereg"])
    app.setStyle("Fusion")
    palette = QPalette()
    for role, colour in _COLOURS.items():
        palette.setColor(role, QColor(colour))
    for role in (QPalette.ColorRole.WindowText, QPalette.ColorRole.Text, QPalette.ColorRole.ButtonText):
        palette.setColor(QPalette.ColorGroup.Disabled, role, QColor("#737a87"))
    app.setPalette(palette)
    app.setStyleSheet(_CHOSEN)
    return app


def show(
    opened: OpenedPair | None, phi: Array | None, folder: str, binning: int, phi_file: str = ""
) -> tuple[PhiField | None, list[Path]]:
    """Show the window until the user closes it.

    Parameters
    ----------
    opened : OpenedPair or None
        None: the window asks for images.
    phi : (4, 4) float64 or None
        Phi to begin with.
    folder : str
        Where dialogs begin.
    binning : int
    phi_file : str
        File of Phi that the window proposes when it asks for images.

    Returns
    -------
    saved : PhiField or None
        The Phi that was saved last.
    files : list of Path
        What was written.

    Raises
    ------
    Ended
        If a signal ended it.
    """
    app = application()
    window = Window(folder, binning, phi_file)
    window.show()
    if opened is not None:
        window.read(opened, phi)
    else:
        QTimer.singleShot(0, window.open)
    with graceful(lambda number: app.quit()) as request:
        look = QTimer()
        look.timeout.connect(lambda: None)
        look.start(LOOK)
        app.exec()
        look.stop()
    if request.signal is not None:
        window.end()
        raise Ended(request.signal)
    return window.saved, window.written
