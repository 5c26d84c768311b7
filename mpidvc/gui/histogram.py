"""A histogram of grey levels with two handles: what is drawn black, and what white."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QWidget

from mpidvc.gui.pictures import Contrast, Histogram

__all__ = ["HistogramBar"]

_BACKGROUND, _BARS, _INSIDE, _HANDLE = (
    QColor(30, 34, 41),
    QColor(88, 98, 114),
    QColor(126, 164, 214),
    QColor(255, 214, 120),
)


class HistogramBar(QWidget):
    """A histogram; the handle that is nearer to the mouse is dragged.

    Parameters
    ----------
    name : str
        Of the widget.
    symmetric : bool
        Whether both handles are as far from 0: those of a difference.

    Attributes
    ----------
    changed : Signal(float, float)
        The limits that the user dragged the handles to.
    """

    changed = Signal(float, float)

    def __init__(self, name: str, symmetric: bool = False) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setToolTip("drag the handles to change the contrast")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._symmetric = symmetric
        self._shown = Histogram(0.0, 1.0, np.zeros(1, np.int64))
        self._limits = Contrast(0.0, 1.0)
        self._held: int | None = None

    def sizeHint(self) -> QSize:
        """As Qt asks for it."""
        return QSize(200, 46)

    def minimumSizeHint(self) -> QSize:
        """As Qt asks for it."""
        return QSize(80, 46)

    def show_histogram(self, shown: Histogram, limits: Contrast) -> None:
        """Draw a histogram and its limits."""
        self._shown, self._limits = shown, limits
        self.update()

    def pixel_of(self, grey: float) -> float:
        """The column of this widget where a grey level is."""
        low, high = self._shown.low, self._shown.high
        return float((grey - low) / (high - low) * self.width())

    def grey_at(self, pixel: float) -> float:
        """The grey level at a column of this widget."""
        low, high = self._shown.low, self._shown.high
        return float(low + pixel / max(self.width(), 1) * (high - low))

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), _BACKGROUND)
        # logarithmic: a background may hold most of the voxels
        counts = np.log1p(self._shown.counts)
        most, n = float(counts.max(initial=0)), len(counts)
        height, width = self.height(), self.width() / n
        low, high = (self.pixel_of(value) for value in self._limits)
        for k, count in enumerate(counts.tolist() if most > 0 else []):
            tall = (height - 8) * count / most
            inside = low <= (k + 0.5) * width <= high
            painter.fillRect(QRectF(k * width, height - tall, width, tall), _INSIDE if inside else _BARS)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(_HANDLE, 1.5))
        painter.setBrush(_HANDLE)
        for x in (low, high):
            x = min(max(x, 1.0), self.width() - 1.0)
            painter.drawLine(QPointF(x, 0), QPointF(x, height))
            painter.drawPolygon(QPolygonF([QPointF(x - 4, 0), QPointF(x + 4, 0), QPointF(x, 7)]))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Take the nearer handle."""
        if event.button() == Qt.MouseButton.LeftButton:
            x = event.position().x()
            distances = [abs(self.pixel_of(value) - x) for value in self._limits]
            self._held = 0 if distances[0] <= distances[1] else 1
            self._move(x)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Drag it."""
        if self._held is not None:
            self._move(event.position().x())

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Let it go."""
        self._held = None

    def _move(self, pixel: float) -> None:
        grey = self.grey_at(min(max(pixel, 0.0), float(self.width())))
        least = (self._shown.high - self._shown.low) / 500
        if self._symmetric:
            spread = max(abs(grey), least)
            low, high = -spread, spread
        elif self._held == 0:
            low, high = min(grey, self._limits.high - least), self._limits.high
        else:
            low, high = self._limits.low, max(grey, self._limits.low + least)
        self._limits = Contrast(low, high)
        self.update()
        self.changed.emit(low, high)
