"""The parts of the window: fields and buttons, in groups. They tell what the user did, and show what they are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PySide6.QtCore import QEvent, QLocale, Qt, Signal
from PySide6.QtGui import QFont, QFontDatabase, QFontMetrics, QKeyEvent, QWheelEvent
from PySide6.QtWidgets import (
    QAbstractSpinBox,
    QButtonGroup,
    QCheckBox,
    QDoubleSpinBox,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLayout,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from mpidvc.arrays import Array
from mpidvc.gui.canvas import Canvas
from mpidvc.gui.display import Numbers
from mpidvc.gui.histogram import HistogramBar
from mpidvc.gui.pictures import MODES, Contrast, Histogram

__all__ = [
    "AXES",
    "AxisRows",
    "Comparison",
    "ImageColumn",
    "Number",
    "NumbersRow",
    "PhiPanel",
    "SavePanel",
    "SnapPanel",
    "TurnRow",
    "ViewBar",
    "push_button",
]

AXES = "zyx"
#: Names of the ways to compare, and what they do.
_MODES = {
    "difference": ("Difference", "image 2 less image 1: red where image 2 is brighter, blue where it is darker (D)"),
    "absolute": ("|Difference|", "how much the images differ: black where they agree (A)"),
    "checkerboard": ("Checkerboard", "squares of image 1 and image 2 in turn (C)"),
    "overlay": ("Overlay", "image 1 in magenta, image 2 in green; grey where they agree (O)"),
}


class _Group(QGroupBox):
    """A group with narrow margins."""

    def setLayout(self, layout: QLayout) -> None:
        """As Qt does."""
        layout.setContentsMargins(7, 5, 7, 5)
        super().setLayout(layout)


def push_button(name: str, text: str, tip: str = "", toggle: bool = False) -> QPushButton:
    """A button that leaves the keyboard to the window."""
    made = QPushButton(text)
    made.setObjectName(name)
    made.setToolTip(tip)
    made.setCheckable(toggle)
    made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    return made


def _tick(name: str, text: str, tip: str, on: bool = False) -> QCheckBox:
    made = QCheckBox(text)
    made.setObjectName(name)
    made.setToolTip(tip)
    made.setChecked(on)
    made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    return made


def _kept(event: QEvent) -> bool:
    """Whether a field keeps a key that is one of the window as well: all but those with Ctrl or Alt, F1 …, Escape."""
    if event.type() != QEvent.Type.ShortcutOverride or not isinstance(event, QKeyEvent):
        return False
    with_others = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.AltModifier
    if event.modifiers() & with_others or event.key() == Qt.Key.Key_Escape:
        return False
    if Qt.Key.Key_F1 <= event.key() <= Qt.Key.Key_F12:
        return False
    event.accept()
    return True


class _Line(QLineEdit):
    """A field for a text."""

    def event(self, event: QEvent) -> bool:
        """Keys of the field are not those of the window."""
        return _kept(event) or super().event(event)


class Number(QDoubleSpinBox):
    """A field for a number; it tells of those that the user gives only.

    Attributes
    ----------
    given : Signal(float)
        With Enter, when the field is left, and by the arrow keys.
    """

    given = Signal(float)

    def __init__(self, name: str, decimals: int, step: float, low: float = -1e6, high: float = 1e6) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setLocale(QLocale.c())
        self.setGroupSeparatorShown(False)
        self.setDecimals(decimals)
        self.setSingleStep(step)
        self.setRange(low, high)
        self.setKeyboardTracking(False)
        self.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
        self.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.valueChanged.connect(self.given)
        # Enter gives the keyboard back to the window
        self.lineEdit().returnPressed.connect(self.clearFocus)

    def show_value(self, value: float) -> None:
        """Show a number, without telling of it."""
        self.blockSignals(True)
        self.setValue(value if np.isfinite(value) else 0.0)
        self.blockSignals(False)

    def event(self, event: QEvent) -> bool:
        """Keys of the field are not those of the window."""
        return _kept(event) or super().event(event)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """The wheel is for the pictures: a field that it passes does not change."""
        event.ignore()


class AxisRows(_Group):
    """A row for each axis: buttons that take a step back or on, and a field for the value.

    Parameters
    ----------
    title, name : str
    steps : 2 floats
        Of the inner and of the outer buttons.
    decimals : int
    tip : str
    together : bool
        Whether there is a row of buttons for all axes.

    Attributes
    ----------
    stepped : Signal(object)
        Steps (3,) along z, y, x.
    given : Signal(int, float)
        Axis and value.
    """

    stepped = Signal(object)
    given = Signal(int, float)

    def __init__(
        self, title: str, name: str, steps: tuple[float, float], decimals: int, tip: str, together: bool = False
    ) -> None:
        super().__init__(title)
        self.setToolTip(tip)
        self.rows = QGridLayout()
        self.setLayout(self.rows)
        self.rows.setHorizontalSpacing(4)
        self.rows.setVerticalSpacing(4)
        self.fields: list[Number] = []
        self._of_axis: list[list[QWidget]] = []
        for row, axis in enumerate([*AXES, *(["all"] if together else [])]):
            label = QLabel(axis)
            self.rows.addWidget(label, row, 0)
            widgets: list[QWidget] = [label]
            for column, step in ((1, -steps[1]), (2, -steps[0]), (4, steps[0]), (5, steps[1])):
                button = push_button(f"{name}-{axis}{step:+g}", f"{step:+g}".replace("-", "−"))
                button.setFixedWidth(36 if steps[0] >= 1 else 42)
                button.clicked.connect(self._step(row, step))
                self.rows.addWidget(button, row, column)
                widgets.append(button)
            if axis != "all":
                field = Number(f"{name}-{axis}", decimals, steps[0])
                field.setFixedWidth(70)
                field.given.connect(self._give(row))
                self.rows.addWidget(field, row, 3)
                self.fields.append(field)
                widgets.append(field)
            self._of_axis.append(widgets)
        self.rows.setRowStretch(5, 1)

    def _step(self, row: int, step: float) -> Callable[[], None]:
        by = np.full(3, step) if row == 3 else step * np.eye(3)[row]
        return lambda: self.stepped.emit(by)

    def _give(self, axis: int) -> Callable[[float], None]:
        return lambda value: self.given.emit(axis, value)

    def show_values(self, values: Array) -> None:
        """Show the values (3,)."""
        for field, value in zip(self.fields, values.tolist(), strict=True):
            field.show_value(value)

    def allow(self, axes: Sequence[bool]) -> None:
        """Enable the rows of these axes."""
        for widgets, allowed in zip(self._of_axis, axes, strict=False):
            for widget in widgets:
                widget.setEnabled(allowed)


class TurnRow(QWidget):
    """A rotation about any axis.

    Attributes
    ----------
    turned : Signal(object)
        Rotation vector (3,), degrees.
    """

    turned = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(3)
        row.addWidget(QLabel("axis"))
        self.axis = [Number(f"turn-{axis}", 2, 0.1) for axis in AXES]
        for field, value in zip(self.axis, (1, 1, 1), strict=True):
            field.show_value(value)
            field.setFixedWidth(40)
            field.setToolTip("components z, y, x of the axis of rotation; its length does not count")
            row.addWidget(field)
        self.angle = Number("turn-angle", 2, 1.0, -360, 360)
        self.angle.setSuffix("°")
        self.angle.show_value(10)
        self.angle.setFixedWidth(54)
        row.addWidget(self.angle)
        self.button = push_button("turn", "Turn", "turn image 1, as it lies, about this axis")
        self.button.setFixedWidth(44)
        self.button.clicked.connect(self._turn)
        row.addWidget(self.button)

    def _turn(self) -> None:
        for field in (*self.axis, self.angle):
            field.interpretText()
        axis = np.array([field.value() for field in self.axis])
        length = float(np.linalg.norm(axis))
        if length > 0:
            self.turned.emit(self.angle.value() * axis / length)


class SnapPanel(_Group):
    """Help for the eye: three jobs, their progress, and an end to them."""

    def __init__(self) -> None:
        super().__init__("Snap")
        column = QVBoxLayout()
        self.setLayout(column)
        column.setSpacing(4)
        self.translation = push_button(
            "snap-translation", "Translation", "phase correlation: the best translation of image 1 as it lies (F5)"
        )
        self.search = push_button(
            "snap-search", "Search", "look for rotation, translation and stretch, without a guess (F6)"
        )
        self.angle = Number("snap-angle", 0, 10.0, 1, 180)
        self.angle.setPrefix("± ")
        self.angle.setSuffix("°")
        self.angle.show_value(180)
        self.angle.setFixedWidth(54)
        self.angle.setToolTip("greatest rotation from the present one; with 180° the present Phi does not count")
        self.reg = push_button("snap-reg", "reg", "register from the present Phi (F7)")
        row = QHBoxLayout()
        row.setSpacing(4)
        row.addWidget(self.search, 1)
        row.addWidget(self.angle)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(10)
        self.cancel = push_button("cancel", "Cancel", "end what is running (Esc)")
        column.addWidget(self.translation)
        column.addLayout(row)
        column.addWidget(self.reg)
        column.addWidget(self.bar)
        column.addWidget(self.cancel)
        column.addStretch()
        self.show_progress(False)

    def show_progress(self, running: bool, share: float | None = None) -> None:
        """Show how far a job is; None: it is not known."""
        self.cancel.setEnabled(running)
        known = not running or share is not None
        self.bar.setRange(0, 1000 if known else 0)
        self.bar.setValue(round(1000 * (share or 0)) if running else 0)

    def allow(self, allowed: bool) -> None:
        """Enable the jobs."""
        for widget in (self.translation, self.search, self.angle, self.reg):
            widget.setEnabled(allowed)


class NumbersRow(QWidget):
    """How well the images agree."""

    def __init__(self) -> None:
        super().__init__()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self.values: dict[str, QLabel] = {}
        for name, text, tip in (
            ("residual", "residual", "root mean square of image 2 less image 1, grey levels"),
            ("zncc", "ZNCC", "zero-mean normalised cross-correlation: 1 where both images are the same"),
            ("overlap", "overlap", "share of image 2 that image 1 covers"),
        ):
            label, value = QLabel(text), QLabel("–")
            value.setObjectName(name)
            bold = QFont(value.font())
            bold.setBold(True)
            value.setFont(bold)
            value.setMinimumWidth(66)
            for widget in (label, value):
                widget.setToolTip(tip)
                row.addWidget(widget)
            self.values[name] = value

    def show_numbers(self, numbers: Numbers) -> None:
        """Show them."""
        texts = {
            "residual": f"{numbers.residual:.4g}",
            "zncc": f"{numbers.zncc:.4f}",
            "overlap": f"{100 * numbers.overlap:.0f} %",
        }
        for name, text in texts.items():
            self.values[name].setText("–" if "nan" in text else text)


class PhiPanel(_Group):
    """Phi, steps back and on, and where to begin again."""

    def __init__(self) -> None:
        super().__init__("Φ")
        grid = QGridLayout()
        self.setLayout(grid)
        grid.setSpacing(4)
        self.phi = QLabel()
        self.phi.setObjectName("phi")
        self.phi.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.phi.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.phi.setMinimumWidth(QFontMetrics(self.phi.font()).horizontalAdvance("0" * 36))
        self.phi.setToolTip("F and t of Φ about the centre of the image, over (z, y, x), in voxels")
        self.undo = push_button("undo", "Undo", "take the last step back (Ctrl+Z)")
        self.redo = push_button("redo", "Redo", "do again what was taken back (Ctrl+Shift+Z)")
        self.load = push_button("load", "Load Φ…", "start from the Phi of a file, all of it (Ctrl+L)")
        self.identity = push_button("identity", "Identity", "back to no motion at all (Ctrl+I)")
        self.loaded = push_button("loaded", "Loaded Φ", "back to the Phi that was loaded (Ctrl+R)")
        grid.addWidget(self.phi, 0, 0, 1, 3)
        for k, button in enumerate((self.undo, self.redo, self.load)):
            grid.addWidget(button, 1, k)
        reset = QLabel("reset to")
        reset.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        for k, widget in enumerate((reset, self.identity, self.loaded)):
            grid.addWidget(widget, 2, k)
        grid.setRowStretch(3, 1)

    def show_phi(self, phi: Array, undone: str | None, redone: str | None, loaded: bool) -> None:
        """Show Phi, and enable what can be done."""
        self.phi.setText("\n".join("".join(f"{value:9.4f}" for value in row) for row in phi[:3].tolist()))
        self.undo.setEnabled(undone is not None)
        self.redo.setEnabled(redone is not None)
        self.loaded.setEnabled(loaded)
        self.undo.setToolTip(f"take back: {undone} (Ctrl+Z)" if undone else "nothing to take back")
        self.redo.setToolTip(f"do again: {redone} (Ctrl+Shift+Z)" if redone else "nothing to do again")


class SavePanel(_Group):
    """The name of the files, and what is written."""

    def __init__(self) -> None:
        super().__init__("Save")
        column = QVBoxLayout()
        self.setLayout(column)
        column.setSpacing(4)
        self.name = _Line()
        self.name.setObjectName("name")
        self.name.setToolTip("text file of Phi, in the current folder unless it says another one")
        self.name.returnPressed.connect(self.name.clearFocus)
        self.browse = push_button("browse", "…", "choose folder and name (Ctrl+Shift+S)")
        self.browse.setFixedWidth(30)
        row = QHBoxLayout()
        row.addWidget(self.name, 1)
        row.addWidget(self.browse)
        self.phi = push_button("save", "Save Φ", "write the text file, which -pf of the other commands takes (Ctrl+S)")
        self.deformed = push_button(
            "save-deformed", "Save deformed image", "warp all of image 1, at full resolution (Ctrl+E)"
        )
        column.addLayout(row)
        column.addWidget(self.phi)
        column.addWidget(self.deformed)
        column.addStretch()


class ViewBar(QWidget):
    """What is looked at: the axis of view, whether slices are linked, and grey levels."""

    def __init__(self) -> None:
        super().__init__()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(QLabel("View along"))
        self.across = QButtonGroup(self)
        for axis, name in enumerate(AXES):
            button = push_button(f"across-{name}", name, f"look along {name} ({axis + 1})", toggle=True)
            button.setFixedWidth(34)
            self.across.addButton(button, axis)
            row.addWidget(button)
        row.addSpacing(16)
        self.link = _tick("link", "Link slices", "show the same slice of both images (L)", on=True)
        self.apply = push_button("apply-offset", "", "move image 1 so that its slice lies in that of image 2")
        row.addWidget(self.link)
        row.addWidget(self.apply)
        row.addSpacing(16)
        self.match = _tick(
            "match",
            "Match grey levels",
            "map brightness and contrast of image 2 to those of image 1, for differences and the residual (M)",
        )
        row.addWidget(self.match)
        row.addStretch()
        self.note = QLabel()
        self.note.setObjectName("note")
        row.addWidget(self.note)
        row.addSpacing(16)
        self.numbers = NumbersRow()
        row.addWidget(self.numbers)
        row.addSpacing(16)
        self.whole = push_button("show-all", "Show all", "fit the image into the view (F, or a double click)")
        row.addWidget(self.whole)


class _Column(QWidget):
    """A picture with a head above, and rows of controls and a histogram below."""

    def __init__(self, name: str, moves: bool, symmetric: bool = False) -> None:
        super().__init__()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        self.head, self.below, self.limits = QHBoxLayout(), QHBoxLayout(), QHBoxLayout()
        self.canvas = Canvas(f"{name}-canvas", moves)
        self.histogram = HistogramBar(f"{name}-histogram", symmetric)
        column.addLayout(self.head)
        column.addWidget(self.canvas, 1)
        column.addLayout(self.below)
        column.addWidget(self.histogram)
        column.addLayout(self.limits)


class ImageColumn(_Column):
    """Picture, slice and contrast of an image.

    Attributes
    ----------
    sliced : Signal(int)
        The slice that the user chose.
    contrasted : Signal(float, float)
        The limits that the user chose.
    """

    sliced = Signal(int)
    contrasted = Signal(float, float)

    def __init__(self, name: str, moves: bool) -> None:
        super().__init__(name, moves)
        self.title = QLabel()
        self.title.setFixedHeight(push_button("", "x").sizeHint().height())
        # a long name is cut off
        self.title.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.head.addWidget(self.title)
        self.before = push_button(f"{name}-before", "‹", "slice before (Page Down)")
        self.after = push_button(f"{name}-after", "›", "slice after (Page Up)")
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setObjectName(f"{name}-slider")
        self.slider.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.label = QLabel()
        self.label.setObjectName(f"{name}-slice")
        self.label.setMinimumWidth(64)
        for button in (self.before, self.after):
            button.setFixedWidth(28)
        self.below.addWidget(self.before)
        self.below.addWidget(self.slider, 1)
        self.below.addWidget(self.after)
        self.below.addWidget(self.label)
        self.low, self.high = Number(f"{name}-low", 3, 1.0), Number(f"{name}-high", 3, 1.0)
        self.low.setRange(-1e12, 1e12)
        self.high.setRange(-1e12, 1e12)
        self.auto = push_button(f"{name}-auto", "Auto", "limits between which nearly all grey levels lie")
        for text, widget in (("black", self.low), ("white", self.high)):
            self.limits.addWidget(QLabel(text))
            self.limits.addWidget(widget, 1)
        self.limits.addWidget(self.auto)
        self.slider.valueChanged.connect(self.sliced)
        self.before.clicked.connect(lambda: self.sliced.emit(self.slider.value() - 1))
        self.after.clicked.connect(lambda: self.sliced.emit(self.slider.value() + 1))
        self.histogram.changed.connect(self.contrasted)
        self.low.given.connect(lambda value: self.contrasted.emit(value, max(self.high.value(), value)))
        self.high.given.connect(lambda value: self.contrasted.emit(min(self.low.value(), value), value))

    def show_slice(self, k: int, n: int, text: str) -> None:
        """Show which slice of how many it is."""
        self.slider.blockSignals(True)
        self.slider.setRange(0, n - 1)
        self.slider.setValue(k)
        self.slider.blockSignals(False)
        self.label.setText(text)
        for widget in (self.before, self.slider, self.after):
            widget.setEnabled(n > 1)

    def show_contrast(self, shown: Histogram, contrast: Contrast) -> None:
        """Show histogram and limits."""
        self.histogram.show_histogram(shown, contrast)
        # a step is a hundredth of what is there
        for field, value in ((self.low, contrast.low), (self.high, contrast.high)):
            field.setSingleStep((shown.high - shown.low) / 100)
            field.show_value(value)


class Comparison(_Column):
    """The comparison: how, and its colours."""

    def __init__(self) -> None:
        super().__init__("comparison", True, symmetric=True)
        self.modes = QButtonGroup(self)
        for k, mode in enumerate(MODES):
            text, tip = _MODES[mode]
            button = push_button(mode, text, tip, toggle=True)
            self.modes.addButton(button, k)
            self.head.addWidget(button)
        self.fewer = push_button("fewer", "−", "fewer squares (B)")
        self.more = push_button("more", "+", "more squares (N)")
        self.squares = QLabel()
        self.squares.setObjectName("squares")
        for button in (self.fewer, self.more):
            button.setFixedWidth(28)
        self.tint = _tick("tint", "Tint image 1", "give the squares of image 1 another colour (T)")
        self.below.addWidget(self.fewer)
        self.below.addWidget(self.squares)
        self.below.addWidget(self.more)
        self.below.addSpacing(8)
        self.below.addWidget(self.tint)
        self.below.addStretch()
        self.spread = Number("spread", 3, 1.0, 1e-6, 1e12)
        self.auto = push_button("spread-auto", "Auto", "half of the contrast of image 1")
        self.limits.addWidget(QLabel("differences up to ±"))
        self.limits.addWidget(self.spread, 1)
        self.limits.addWidget(self.auto)
