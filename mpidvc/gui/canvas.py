"""A picture that the mouse moves, pans and zooms."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QEvent, QPoint, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent, QPen, QResizeEvent, QWheelEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

__all__ = ["Canvas", "Place"]

#: Zoom of a step of the wheel.
WHEEL = 1.15
#: Pixels that the mouse moves before a press is a drag.
STILL = 3
_BACKGROUND, _SHADE = QColor(24, 27, 33), QColor(24, 27, 33, 180)
_INK, _MARK = QColor(255, 214, 120), QColor(255, 214, 120, 170)


class Place(NamedTuple):
    """A point of the view, in voxels of the images."""

    rows: float
    columns: float


class Canvas(QWidget):
    """A slice, drawn around a point with a zoom.

    With the left button the image is dragged (`moves`), with Shift turned, with Ctrl stretched; otherwise the left
    button pans, as the middle one does always. The right button zooms to a box, a double click shows all, the wheel
    zooms.

    Parameters
    ----------
    name : str
        Of the widget.
    moves : bool
        Whether the left button moves the image.

    Attributes
    ----------
    dragged : Signal(str, Place, Place)
        ``translation``, ``rotation`` or ``stretch``: where the drag began, and where it is.
    dropped : Signal(str)
        The drag has ended.
    panned : Signal(float, float)
        By so many voxels.
    zoomed : Signal(float, Place)
        By a factor, at a point.
    boxed : Signal(Place, Place)
        A box was drawn.
    whole : Signal()
        All is to be shown.
    hovered : Signal(object)
        The `Place` under the mouse, or None.
    resized : Signal()
    """

    dragged = Signal(str, object, object)
    dropped = Signal(str)
    panned = Signal(float, float)
    zoomed = Signal(float, object)
    boxed = Signal(object, object)
    whole = Signal()
    hovered = Signal(object)
    resized = Signal()

    def __init__(self, name: str, moves: bool) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(160, 160)
        self.moves = moves
        self.locked = False
        self._image: QImage | None = None
        self._pixels: npt.NDArray[np.uint8] | None = None
        self._first = Place(0, 0)
        self._voxel = Place(1, 1)
        self._middle = Place(0, 0)
        self._zoom = 1.0
        self._names = ("y", "x")
        self._pivot: Place | None = None
        self._kind = ""
        self._pressed = QPointF()
        self._last = QPointF()

    def sizeHint(self) -> QSize:
        """As Qt asks for it."""
        return QSize(420, 420)

    # ---- what is drawn

    def show_picture(
        self, pixels: npt.NDArray[np.uint8], first: Place, voxel: Place, names: tuple[str, str], pivot: Place | None
    ) -> None:
        """Draw a picture.

        Parameters
        ----------
        pixels : (rows, columns) or (rows, columns, 3) uint8
        first : Place
            Upper left corner of the picture.
        voxel : Place
            Size of a pixel.
        names : 2 str
            Names of the axes along rows and columns.
        pivot : Place or None
            Centre of image 1, which is marked.
        """
        self._pixels = np.ascontiguousarray(pixels)
        form = QImage.Format.Format_RGB888 if pixels.ndim == 3 else QImage.Format.Format_Grayscale8
        height, width = pixels.shape[:2]
        # the image is a view of the array, which is kept
        self._image = QImage(self._pixels.data, width, height, self._pixels.strides[0], form)
        self._first, self._voxel, self._names, self._pivot = first, voxel, names, pivot
        self.update()

    def look_at(self, middle: Place, zoom: float) -> None:
        """Draw this point in the middle, with so many pixels for a voxel."""
        self._middle, self._zoom = middle, zoom
        self.update()

    def place_at(self, point: QPointF | QPoint) -> Place:
        """The point of the view at a pixel of this widget."""
        x = self._middle.columns + (point.x() - self.width() / 2) / self._zoom
        return Place(self._middle.rows + (point.y() - self.height() / 2) / self._zoom, x)

    def pixel_of(self, place: Place) -> QPointF:
        """The pixel of this widget where a point of the view is."""
        return QPointF(
            self.width() / 2 + (place.columns - self._middle.columns) * self._zoom,
            self.height() / 2 + (place.rows - self._middle.rows) * self._zoom,
        )

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), _BACKGROUND)
        if self._image is None:
            return
        size = QPointF(self._image.width() * self._voxel.columns, self._image.height() * self._voxel.rows) * self._zoom
        target = QRectF(self.pixel_of(self._first), self.pixel_of(self._first) + size)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, self._voxel.columns * self._zoom < 3)
        painter.drawImage(target, self._image)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self._pivot is not None:
            at = self.pixel_of(self._pivot)
            painter.setPen(QPen(_MARK, 1.5))
            painter.drawLine(at - QPointF(9, 0), at + QPointF(9, 0))
            painter.drawLine(at - QPointF(0, 9), at + QPointF(0, 9))
        self._draw_axes(painter)
        if self._kind == "box":
            painter.setPen(QPen(_INK, 1, Qt.PenStyle.DashLine))
            painter.drawRect(QRectF(self._pressed, self._last))

    def _draw_axes(self, painter: QPainter) -> None:
        """Arrows that name the axes, in the lower left corner."""
        corner = QPointF(14, self.height() - 46)
        painter.fillRect(QRectF(corner - QPointF(10, 10), corner + QPointF(42, 44)), _SHADE)
        painter.setPen(QPen(_INK, 1.5))
        rows, columns = self._names
        for end, wings, name, at in (
            (QPointF(24, 0), (QPointF(-5, -4), QPointF(-5, 4)), columns, QPointF(28, 4)),
            (QPointF(0, 24), (QPointF(-4, -5), QPointF(4, -5)), rows, QPointF(-4, 38)),
        ):
            painter.drawLine(corner, corner + end)
            for wing in wings:
                painter.drawLine(corner + end, corner + end + wing)
            painter.drawText(corner + at, name)

    # ---- what the mouse does

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Begin a drag."""
        button, keys = event.button(), event.modifiers()
        self._pressed = self._last = event.position()
        if button == Qt.MouseButton.RightButton:
            self._kind = "box"
        elif button == Qt.MouseButton.LeftButton and self.moves and not self.locked:
            self._kind = "translation"
            if keys & Qt.KeyboardModifier.ShiftModifier:
                self._kind = "rotation"
            elif keys & Qt.KeyboardModifier.ControlModifier:
                self._kind = "stretch"
        else:
            self._kind = "pan"

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Follow a drag, or tell what is under the mouse."""
        before, self._last = self._last, event.position()
        if self._kind == "pan":
            by = (self._last - before) / self._zoom
            self.panned.emit(by.y(), by.x())
        elif self._kind == "box":
            self.update()
        elif self._kind:
            self.dragged.emit(self._kind, self.place_at(self._pressed), self.place_at(self._last))
        self.hovered.emit(self.place_at(self._last))

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End a drag."""
        kind, self._kind = self._kind, ""
        if kind == "box":
            moved = event.position() - self._pressed
            if min(abs(moved.x()), abs(moved.y())) > STILL:
                self.boxed.emit(self.place_at(self._pressed), self.place_at(event.position()))
            self.update()
        elif kind and kind != "pan":
            self.dropped.emit(kind)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Show all."""
        self._kind = ""
        self.whole.emit()

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Zoom where the mouse is."""
        steps = event.angleDelta().y() / 120
        if steps:
            self.zoomed.emit(WHEEL**steps, self.place_at(event.position()))
        event.accept()

    def leaveEvent(self, event: QEvent) -> None:
        """Nothing is under the mouse."""
        self.hovered.emit(None)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Tell."""
        self.resized.emit()
