"""The window: it gives what the user does to the model, and shows what the model says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QCloseEvent, QKeySequence
from PySide6.QtWidgets import (
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QMessageBox,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from mpidvc.arrays import Array
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.gui import snap
from mpidvc.gui.canvas import Canvas, Place
from mpidvc.gui.dialogs import PHI, PairDialog
from mpidvc.gui.display import DisplayPair
from mpidvc.gui.files import OpenedPair, deformed_path, field_of, open_images, read_phi, save_deformed, save_phi
from mpidvc.gui.model import Model, RefusedError
from mpidvc.gui.panels import (
    AXES,
    AxisRows,
    Comparison,
    ImageColumn,
    PhiPanel,
    SavePanel,
    SnapPanel,
    TurnRow,
    ViewBar,
)
from mpidvc.gui.pictures import MODES, Contrast
from mpidvc.gui.snap import Progress, Snapped
from mpidvc.gui.worker import Job

__all__ = ["Window"]

#: Steps of the buttons and keys: voxels, degrees, and stretch.
PIXELS, DEGREES, STRETCHES = (1.0, 5.0), (1.0, 5.0), (0.01, 0.05)
#: Slices that the keys skip with Shift.
SLICES = 10
#: Share of a canvas that the whole image fills, and zoom of a key.
WHOLE, ZOOM = 0.97, 1.25
_COLOURS = {"": "#c8ccd4", "good": "#8fd694", "bad": "#ff8a80", "open": "#ffd678"}


class _Entry(NamedTuple):
    """A line of a menu."""

    menu: str
    name: str
    text: str
    keys: tuple[str, ...]
    act: Callable[[], None]
    needs: str = "model"


class Window(QMainWindow):
    """The window of ``mpidvc ereg``.

    Parameters
    ----------
    folder : str
        Where dialogs begin.
    binning : int
    phi_file : str
        What the window proposes when it asks for images.

    Attributes
    ----------
    model : Model or None
        None until two images are read.
    saved : PhiField or None
        The Phi that was saved last.
    written : list of Path
        The files written.
    """

    def __init__(self, folder: str = "", binning: int = 1, phi_file: str = "") -> None:
        super().__init__()
        self.model: Model | None = None
        self.saved: PhiField | None = None
        self.written: list[Path] = []
        self._folder, self._binning, self._phi_file = folder, binning, phi_file
        self._opened: OpenedPair | None = None
        self._job: Job | None = None
        self._then: Callable[[Any], None] = lambda result: None
        self._whole = True
        self._ours: set[Path] = set()
        self._actions: dict[str, QAction] = {}
        self._needs: dict[str, str] = {}
        self._build()
        self._fill_menus()
        self._connect()
        self._allow()
        self.say("Open two images (Ctrl+O)")

    # ---- building

    def _build(self) -> None:
        self.bar, self.comparison = ViewBar(), Comparison()
        self.columns = ImageColumn("image1", True), ImageColumn("image2", False)
        self.translation = AxisRows(
            "Translation (px)", "translation", PIXELS, 3, "of the centre of image 1; arrow keys, or drag the image"
        )
        self.rotation = AxisRows(
            "Rotation (°)", "rotation", DEGREES, 3, "buttons turn image 1 as it lies; fields are the rotation vector"
        )
        self.stretch = AxisRows(
            "Stretch", "stretch", STRETCHES, 4, "diagonal of U; keys W and S for all axes", together=True
        )
        self.turn, self.snap, self.steps, self.save = TurnRow(), SnapPanel(), PhiPanel(), SavePanel()
        self.rotation.rows.addWidget(self.turn, 3, 0, 1, 6)
        pictures, panels = QHBoxLayout(), QHBoxLayout()
        for column in (*self.columns, self.comparison):
            pictures.addWidget(column, 1)
        panels.setContentsMargins(0, 0, 0, 0)
        panels.setSpacing(4)
        for panel, share in (
            (self.translation, 0),
            (self.rotation, 0),
            (self.stretch, 0),
            (self.snap, 2),
            (self.steps, 0),
            (self.save, 3),
        ):
            panels.addWidget(panel, share)
        self._centre = centre = QWidget()
        # takes the keyboard back from a field that is left
        centre.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        whole = QVBoxLayout(centre)
        whole.setContentsMargins(8, 6, 8, 2)
        whole.addWidget(self.bar)
        whole.addLayout(pictures, 1)
        # a small screen scrolls them sideways
        row, scrolled = QWidget(), QScrollArea()
        row.setLayout(panels)
        scrolled.setWidget(row)
        scrolled.setWidgetResizable(True)
        scrolled.setFrameShape(QFrame.Shape.NoFrame)
        scrolled.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scrolled.setFixedHeight(row.sizeHint().height() + 4)
        scrolled.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        whole.addWidget(scrolled)
        self.setCentralWidget(centre)
        self.message, self.pointed = QLabel(), QLabel()
        self.message.setObjectName("message")
        self.pointed.setObjectName("pointed")
        self.statusBar().addWidget(self.message, 1)
        self.statusBar().addPermanentWidget(self.pointed)
        self.resize(1500, 930)

    def _fill_menus(self) -> None:
        menus = {name: self.menuBar().addMenu(name) for name in ("&File", "&Edit", "&View", "&Move", "&Snap", "&Help")}
        for entry in self._entries():
            action = QAction(entry.text, self)
            action.setObjectName(f"action-{entry.name}")
            action.setShortcuts([QKeySequence(key) for key in entry.keys])
            action.triggered.connect(entry.act)
            menus[entry.menu].addAction(action)
            self._actions[entry.name] = action
            self._needs[entry.name] = entry.needs

    def _entries(self) -> list[_Entry]:
        """All commands with their keys."""
        made = [
            _Entry("&File", "open", "Open images…", ("Ctrl+O",), self.open, "idle"),
            _Entry("&File", "load", "Load Φ…", ("Ctrl+L",), self.load, "moves"),
            _Entry("&File", "save", "Save Φ", ("Ctrl+S",), self.save_phi),
            _Entry("&File", "save-as", "Save Φ as…", ("Ctrl+Shift+S",), self.save_as),
            _Entry("&File", "save-deformed", "Save deformed image 1", ("Ctrl+E",), self.save_deformed, "moves"),
            _Entry("&File", "quit", "Quit", ("Ctrl+Q",), self._quit, ""),
            _Entry("&Edit", "undo", "Undo", ("Ctrl+Z",), lambda: self._move(Model.undo), "moves"),
            _Entry("&Edit", "redo", "Redo", ("Ctrl+Shift+Z", "Ctrl+Y"), lambda: self._move(Model.redo), "moves"),
            _Entry("&Edit", "identity", "Reset to identity", ("Ctrl+I",), lambda: self._move(Model.reset), "moves"),
            _Entry(
                *("&Edit", "loaded", "Reset to loaded Φ", ("Ctrl+R",)),
                lambda: self._move(Model.reset_to_loaded),
                "moves",
            ),
            _Entry("&Snap", "snap-translation", "Translation", ("F5",), self.snap_translation, "moves"),
            _Entry("&Snap", "snap-search", "Search rotation and stretch", ("F6",), self.snap_search, "moves"),
            _Entry("&Snap", "snap-reg", "reg from here", ("F7",), self.snap_reg, "moves"),
            _Entry("&Snap", "cancel", "Cancel", ("Escape",), self.cancel, "job"),
            _Entry("&Help", "keys", "Keys and mouse", ("F1",), self.show_keys, ""),
        ]
        for axis, name in enumerate(AXES):
            made.append(_Entry("&View", f"across-{name}", f"Along {name}", (f"{axis + 1}",), partial(self._look, axis)))
        for mode, key in zip(MODES, "DACO", strict=True):
            made.append(_Entry("&View", mode, mode.capitalize(), (key,), partial(self._set_view, "mode", mode)))
        made += [
            _Entry("&View", "after", "Next slice", ("PgUp",), lambda: self._step_slice(1)),
            _Entry("&View", "before", "Slice before", ("PgDown",), lambda: self._step_slice(-1)),
            _Entry("&View", "far-after", f"{SLICES} slices on", ("Shift+PgUp",), lambda: self._step_slice(SLICES)),
            _Entry(
                "&View", "far-before", f"{SLICES} slices back", ("Shift+PgDown",), lambda: self._step_slice(-SLICES)
            ),
            _Entry("&View", "link", "Link slices", ("L",), self.bar.link.click),
            _Entry("&View", "match", "Match grey levels", ("M",), self.bar.match.click),
            _Entry("&View", "tint", "Tint image 1", ("T",), self.comparison.tint.click),
            _Entry("&View", "fewer", "Fewer squares", ("B",), lambda: self._change_squares(-2)),
            _Entry("&View", "more", "More squares", ("N",), lambda: self._change_squares(2)),
            _Entry("&View", "zoom-in", "Zoom in", ("+", "="), lambda: self._zoom_middle(ZOOM)),
            _Entry("&View", "zoom-out", "Zoom out", ("-",), lambda: self._zoom_middle(1 / ZOOM)),
            _Entry("&View", "show-all", "Show all", ("F",), self.show_all),
        ]
        for number, shift in enumerate(("", "Shift+")):
            step, turn, more = PIXELS[number], DEGREES[number], STRETCHES[number]
            of = f"by {step:g}"
            for key, name, rows, columns in (
                ("Left", "left", 0, -1),
                ("Right", "right", 0, 1),
                ("Up", "up", -1, 0),
                ("Down", "down", 1, 0),
            ):
                text = f"{name.capitalize()} {of} px"
                act = partial(self._shift, rows * step, columns * step, 0.0)
                made.append(_Entry("&Move", f"{name}-{step:g}", text, (f"{shift}{key}",), act, "moves"))
            for key, name, sign in (("Home", "back", -1), ("End", "forth", 1)):
                text = f"{'Against' if sign < 0 else 'Along'} the view {of} px"
                act = partial(self._shift, 0.0, 0.0, sign * step)
                made.append(_Entry("&Move", f"{name}-{step:g}", text, (f"{shift}{key}",), act, "moves"))
            for key, name, sign in (("Q", "turn-back", -1), ("E", "turn", 1)):
                text = f"Turn about the view by {sign * turn:+g}°"
                act = partial(self._turn_view, sign * turn)
                made.append(_Entry("&Move", f"{name}-{turn:g}", text, (f"{shift}{key}",), act, "moves"))
            for key, name, sign in (("W", "larger", 1), ("S", "smaller", -1)):
                act = partial(self._stretch_all, sign * more)
                text = f"Stretch all axes by {sign * more:+g}"
                made.append(_Entry("&Move", f"{name}-{more:g}", text, (f"{shift}{key}",), act, "moves"))
        return made

    def _connect(self) -> None:
        for canvas in self._canvases:
            canvas.panned.connect(self._pan)
            canvas.zoomed.connect(self._zoom)
            canvas.boxed.connect(partial(self._box, canvas))
            canvas.whole.connect(self.show_all)
            canvas.hovered.connect(self._point)
            canvas.dragged.connect(self._drag)
            canvas.dropped.connect(self._drop)
        self.columns[0].canvas.resized.connect(self._resized)
        for which, column in enumerate(self.columns):
            column.sliced.connect(partial(self._show_slice, which))
            column.contrasted.connect(partial(self._set_contrast, which))
            column.auto.clicked.connect(partial(self._auto_contrast, which))
        self.bar.across.idClicked.connect(self._look)
        self.bar.link.toggled.connect(self._link)
        self.bar.apply.clicked.connect(lambda: self._move(Model.apply_slice_offset))
        self.bar.match.toggled.connect(partial(self._set_view, "matched"))
        self.bar.whole.clicked.connect(self.show_all)
        comparison = self.comparison
        comparison.modes.idClicked.connect(lambda k: self._set_view("mode", MODES[k]))
        comparison.fewer.clicked.connect(lambda: self._change_squares(-2))
        comparison.more.clicked.connect(lambda: self._change_squares(2))
        comparison.tint.toggled.connect(partial(self._set_view, "tinted"))
        comparison.histogram.changed.connect(lambda low, high: self._set_view("spread", high))
        comparison.spread.given.connect(partial(self._set_view, "spread"))
        comparison.auto.clicked.connect(self._auto_spread)
        self.translation.stepped.connect(lambda by: self._move(lambda model: model.translate(by)))
        self.rotation.stepped.connect(lambda by: self._move(lambda model: model.rotate(by)))
        self.stretch.stepped.connect(lambda by: self._move(lambda model: model.stretch_by(by)))
        self.turn.turned.connect(lambda vector: self._move(lambda model: model.rotate(vector)))
        self.translation.given.connect(partial(self._give, "translation"))
        self.rotation.given.connect(partial(self._give, "rotation"))
        self.stretch.given.connect(partial(self._give, "stretch"))
        for button, name in (
            (self.snap.translation, "snap-translation"),
            (self.snap.search, "snap-search"),
            (self.snap.reg, "snap-reg"),
            (self.snap.cancel, "cancel"),
            (self.steps.undo, "undo"),
            (self.steps.redo, "redo"),
            (self.steps.identity, "identity"),
            (self.steps.loaded, "loaded"),
            (self.steps.load, "load"),
            (self.save.phi, "save"),
            (self.save.browse, "save-as"),
            (self.save.deformed, "save-deformed"),
        ):
            button.clicked.connect(self._actions[name].trigger)

    @property
    def _canvases(self) -> tuple[Canvas, Canvas, Canvas]:
        return self.columns[0].canvas, self.columns[1].canvas, self.comparison.canvas

    # ---- opening

    def open(self) -> None:
        """Ask for two images, and read them."""
        dialog = PairDialog(self, self._folder, self._binning, self._phi_file)
        wanted = dialog.exec()
        one, two, phi, binning = dialog.chosen
        dialog.deleteLater()
        if not wanted:
            return
        try:
            opened = open_images(one, two, binning)
            start = read_phi(phi, 1.0, opened.images) if phi else None
        except UserError as error:
            self.say(str(error), "bad")
            return
        if self._may_lose():
            self._binning = binning
            self.read(opened, start)

    def read(self, opened: OpenedPair, phi: Array | None = None) -> None:
        """Read two images, in the background, and begin with a Phi."""

        def begin(pair: DisplayPair) -> None:
            self._opened = opened
            self.model = Model(pair, phi)
            self.save.name.setText(opened.name)
            self.save.name.setCursorPosition(0)
            self._whole = True
            one, two = (Path(str(image.path)).name for image in opened.images[:2])
            self.setWindowTitle(f"mpidvc ereg: {one}, {two}[*]")
            self.columns[0].title.setText(f"<b>Image 1, deformed</b> &nbsp; {one}")
            self.columns[1].title.setText(f"<b>Image 2</b> &nbsp; {two}")
            notes = [f"binned by {opened.binning}"] if opened.binning > 1 else []
            notes += [f"shown reduced by {pair.factor}"] if pair.factor > 1 else []
            self.bar.note.setText(", ".join(notes))
            in_plane = [not pair.two_d, True, True]
            self.translation.allow(in_plane)
            self.stretch.allow(in_plane)
            self.rotation.allow([True, not pair.two_d, not pair.two_d])
            self.turn.setEnabled(not pair.two_d)
            for button in self.bar.across.buttons()[1:]:
                button.setEnabled(not pair.two_d)
            # the keys are for the images, not for the first field
            self._centre.setFocus()
            self.say("Bring image 1 upon image 2: drag it, use the keys (F1), or snap")
            self.refresh()

        images = opened.images
        self._start(
            "reading the images",
            lambda progress: DisplayPair.of(images, lambda share: progress(share, "reading the images")),
            begin,
        )

    def load(self) -> None:
        """Ask for a file, and take its Phi."""
        name = QFileDialog.getOpenFileName(self, "Load Φ", self._folder, PHI)[0]
        opened = self._opened
        if name and opened is not None:
            self._move(lambda model: model.load(read_phi(name, 1.0, opened.images)))

    # ---- saving

    def save_phi(self) -> None:
        """Write the text file of Phi."""
        model, opened = self.model, self._opened
        if model is None or opened is None:
            return
        path = self._path()
        if path is None or not self._may_replace(path):
            return
        field = field_of(model.phi, model.centre, opened.binning, model.numbers())
        try:
            save_phi(path, field)
        except UserError as error:
            self.say(str(error), "bad")
            return
        model.saved()
        self.saved = field
        self._note_written(path)
        self.refresh()
        self.say(f"Φ saved in: {path.resolve()}", "good")

    def save_as(self) -> None:
        """Ask for folder and name, and write the text file of Phi."""
        path = self._path()
        start = str(Path(self._folder) / (path.name if path else ""))
        name = QFileDialog.getSaveFileName(self, "Save Φ", start, PHI)[0]
        if name:
            self.save.name.setText(name)
            # the dialog has asked whether to replace it
            self._ours.add(Path(name).resolve())
            self.save_phi()

    def save_deformed(self) -> None:
        """Write image 1 deformed by Phi, in the background."""
        model, opened, path = self.model, self._opened, self._path()
        if model is None or opened is None or path is None:
            return
        target, phi = deformed_path(path), model.phi
        if not self._may_replace(target):
            return

        def written(_: object) -> None:
            self._note_written(target)
            self.say(f"Deformed image 1 saved in: {target.resolve()}", "good")

        self._start("image 1 is deformed", lambda progress: save_deformed(target, opened, phi, progress), written)

    def _path(self) -> Path | None:
        name = self.save.name.text().strip()
        if not name:
            self.say("the file has no name; give one", "bad")
            return None
        return Path(name) if Path(name).suffix else Path(f"{name}.tsv")

    def _note_written(self, path: Path) -> None:
        self._ours.add(path.resolve())
        if path not in self.written:
            self.written.append(path)

    def _may_replace(self, path: Path) -> bool:
        """Whether a file may be written; the user is asked about one that was there before."""
        if not path.exists() or path.resolve() in self._ours:
            return True
        return self._ask(f"{path.name} is there already.", {"Replace": True, "Cancel": False}) is True

    def _may_lose(self) -> bool:
        """Whether the present Phi may be lost; the user is asked if it is not saved, and may save it now."""
        if self.model is None or not self.model.unsaved:
            return True
        answer: str | None = self._ask("Φ is not saved.", {"Save": "save", "Discard": "discard", "Cancel": None})
        if answer == "save":
            self.save_phi()
            return not self.model.unsaved
        return answer == "discard"

    def _ask(self, text: str, answers: dict[str, Any]) -> Any:
        """The answer that the user chooses; the last one if the question is closed."""
        box = QMessageBox(self)
        box.setWindowTitle("mpidvc ereg")
        box.setText(text)
        buttons = {box.addButton(name, QMessageBox.ButtonRole.ActionRole): name for name in answers}
        box.setEscapeButton(list(buttons)[-1])
        box.exec()
        answer = answers[buttons[box.clickedButton()]]  # type: ignore[index, unused-ignore]
        box.deleteLater()
        return answer

    def closeEvent(self, event: QCloseEvent) -> None:
        """Ask before a Phi is lost; end what is running."""
        if not self._may_lose():
            event.ignore()
            return
        self.end()
        event.accept()

    def end(self) -> None:
        """End what is running."""
        if self._job is not None:
            self._job.cancel()
            self._job.wait()

    def _quit(self) -> None:
        self.close()

    # ---- jobs in the background

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._job is not None

    def snap_translation(self) -> None:
        """Set the translation with which both images match best."""
        self._snap("translation", snap.translate)

    def snap_search(self) -> None:
        """Set the rotation, translation and stretch with which both images match best."""
        self.snap.angle.interpretText()
        self._snap("search", partial(snap.search, max_angle=self.snap.angle.value()))

    def snap_reg(self) -> None:
        """Register from the present Phi."""
        self._snap("reg", snap.register)

    def _snap(self, name: str, function: Callable[..., Snapped]) -> None:
        model = self.model
        if model is None:
            return
        pair, phi = model.pair, model.phi

        def take(found: Snapped) -> None:
            self._move(lambda model: model.set_phi(f"snap: {name}", found.phi))
            self.say(f"{name}: {found.text}. Φ needs to be saved", "bad" if found.doubtful else "good")

        self._start(name, lambda progress: function(pair, phi, progress), take)

    def _start(self, text: str, function: Callable[[Progress], Any], then: Callable[[Any], None]) -> None:
        if self.busy:
            return
        self._then = then
        self._job = Job(self, function)
        self._job.told.connect(self._job_told)
        self._job.done.connect(self._job_done)
        self._job.refused.connect(self._job_refused)
        self.say(f"{text} …")
        self.snap.show_progress(True)
        self._allow()
        self._job.start()

    def cancel(self) -> None:
        """End the job that is running."""
        if self._job is not None:
            self._job.cancel()

    def _job_told(self, share: float | None, text: str) -> None:
        if self.busy:
            self.snap.show_progress(True, share)
            if text:
                self.say(f"{text} …")

    def _job_done(self, result: Any) -> None:
        self._end_job()
        self._then(result)
        self._allow()

    def _job_refused(self, text: str) -> None:
        self._end_job()
        self.say(text or "cancelled; nothing is changed", "bad" if text else "")

    def _end_job(self) -> None:
        if self._job is not None:
            self._job.wait()
            self._job.deleteLater()
        self._job = None
        self.snap.show_progress(False)
        self._allow()

    def _allow(self) -> None:
        """Enable what can be done now: nothing moves while a job is running."""
        there, idle = self.model is not None, not self.busy
        given = {"": True, "idle": idle, "model": there, "moves": there and idle, "job": not idle}
        for name, action in self._actions.items():
            action.setEnabled(given[self._needs[name]])
        moving: list[QWidget] = [self.translation, self.rotation, self.stretch, self.steps, self.bar.apply]
        for widget in moving:
            widget.setEnabled(there and idle)
        looking: list[QWidget] = [self.bar, self.comparison, *self.columns]
        for widget in looking:
            widget.setEnabled(there)
        self.save.setEnabled(there)
        self.save.deformed.setEnabled(there and idle)
        self.snap.allow(there and idle)
        for canvas in self._canvases:
            canvas.locked = not idle

    # ---- moving

    def _move(self, act: Callable[[Model], None]) -> None:
        """Let the model do something; a refusal is told."""
        if self.model is None or self.busy:
            return
        try:
            act(self.model)
        except (RefusedError, UserError) as error:
            self.refresh()
            self.say(str(error), "bad")
        else:
            self.refresh()
            self._tell_state()

    def _give(self, what: str, axis: int, value: float) -> None:
        """A field was filled in: the others stay as they are, with all their digits."""

        def act(model: Model) -> None:
            values = getattr(model, what)
            values = values.diagonal().copy() if what == "stretch" else values
            values[axis] = value
            getattr(model, f"set_{what}")(values)

        self._move(act)

    def _shift(self, rows: float, columns: float, across: float) -> None:
        if self.model is not None:
            by = np.zeros(3)
            by[list(self.model.view.axes)] = across, rows, columns
            self._move(lambda model: model.translate(by))

    def _stretch_all(self, by: float) -> None:
        self._move(lambda model: model.stretch_by(np.full(3, by)))

    def _turn_view(self, angle: float) -> None:
        self._move(lambda model: model.rotate(angle * np.eye(3)[model.view.across]))

    def _drag(self, kind: str, start: Place, end: Place) -> None:
        if self.model is None or self.busy:
            return
        if kind == "translation":
            self.model.drag_translation(end.rows - start.rows, end.columns - start.columns)
        elif kind == "rotation":
            self.model.drag_rotation(start, end)
        else:
            self.model.drag_stretch(start, end)
        self.refresh()

    def _drop(self, kind: str) -> None:
        self._move(lambda model: model.release(kind))

    # ---- looking

    def _look(self, axis: int) -> None:
        if self.model is not None:
            try:
                self.model.look_across(axis)
            except RefusedError as error:
                self.say(str(error), "bad")
            if self._whole:
                self.show_all()
            self.refresh()

    def _set_view(self, name: str, value: Any) -> None:
        if self.model is not None:
            setattr(self.model.view, name, value)
            self.refresh()

    def _change_squares(self, by: int) -> None:
        if self.model is not None:
            self.model.view.change_squares(by)
            self.refresh()

    def _set_contrast(self, which: int, low: float, high: float) -> None:
        if self.model is not None:
            self.model.view.contrasts[which] = Contrast(low, high)
            self.refresh()

    def _auto_contrast(self, which: int) -> None:
        if self.model is not None:
            self._set_contrast(which, *self.model.usual_contrast(which))

    def _auto_spread(self) -> None:
        if self.model is not None:
            self._set_view("spread", self.model.usual_spread())

    def _show_slice(self, which: int, k: int) -> None:
        if self.model is not None:
            self.model.show_slice(which, k)
            self.refresh()

    def _step_slice(self, by: int) -> None:
        if self.model is not None:
            self._show_slice(0, self.model.view.slice1 + by)

    def _link(self, linked: bool) -> None:
        if self.model is not None:
            self.model.link(linked)
            self.refresh()

    def _pan(self, rows: float, columns: float) -> None:
        if self.model is not None:
            self._whole = False
            self.model.view.pan(rows, columns)
            self._look_there()

    def _zoom(self, factor: float, place: Place) -> None:
        if self.model is not None:
            self._whole = False
            self.model.view.zoom_at(factor, *place)
            self._look_there()

    def _zoom_middle(self, factor: float) -> None:
        if self.model is not None:
            axes = self.model.view.axes
            self._zoom(factor, Place(self.model.view.middle[axes.rows], self.model.view.middle[axes.columns]))

    def _box(self, canvas: Canvas, first: Place, second: Place) -> None:
        if self.model is not None:
            self._whole = False
            self.model.view.show_box(first, second, canvas.height(), canvas.width())
            self._look_there()

    def show_all(self) -> None:
        """Fit the image into the view, and keep it so."""
        if self.model is not None:
            self._whole = True
            view, shape, canvas = self.model.view, self.model.pair.shape, self.columns[0].canvas
            view.middle[:] = self.model.centre
            view.zoom = WHOLE * min(canvas.height() / shape[view.axes.rows], canvas.width() / shape[view.axes.columns])
            self._look_there()

    def _resized(self) -> None:
        if self._whole:
            self.show_all()

    def _point(self, place: Place | None) -> None:
        """Tell what is under the mouse."""
        if self.model is None or place is None:
            self.pointed.setText("")
            return
        view, pair = self.model.view, self.model.pair
        position = np.zeros(3)
        position[list(view.axes)] = pair.position(np.full(3, view.slice2))[view.across], *place
        one, two = self.model.grey_at(position)
        where = "  ".join(f"{axis} {value:.1f}" for axis, value in zip(AXES, position.tolist(), strict=True))
        self.pointed.setText(f"{where}   image 1: {_grey(one)}   image 2: {_grey(two)}")

    # ---- showing

    def refresh(self) -> None:
        """Show what the model says."""
        model = self.model
        if model is None:
            return
        if self._whole:
            self.show_all()
        view, pair, axes = model.view, model.pair, model.view.axes
        first = pair.position(np.zeros(3)) - pair.factors / 2
        corner = Place(first[axes.rows], first[axes.columns])
        voxel = Place(float(pair.factors[axes.rows]), float(pair.factors[axes.columns]))
        names = AXES[axes.rows], AXES[axes.columns]
        at = model.centre + model.phi[:3, 3]
        pivot = Place(float(at[axes.rows]), float(at[axes.columns]))
        for canvas, pixels in zip(self._canvases, model.pictures(), strict=True):
            canvas.show_picture(pixels, corner, voxel, names, pivot if canvas.moves else None)
        self._look_there()
        for which, column in enumerate(self.columns):
            k = view.slices[view.across][which]
            position = pair.position(np.full(3, k))[view.across]
            column.show_slice(k, pair.small[view.across], f"{AXES[view.across]} = {position:g}")
            column.show_contrast(model.histogram_of(which), view.contrasts[which])
        self._show_view(model)
        self.translation.show_values(model.translation)
        self.rotation.show_values(model.rotation)
        self.stretch.show_values(model.stretch.diagonal())
        self.steps.show_phi(model.phi, model.undone, model.redone, model.loaded is not None)
        self.bar.numbers.show_numbers(model.numbers())
        self.setWindowModified(model.unsaved)

    def _show_view(self, model: Model) -> None:
        view, comparison = model.view, self.comparison
        self.bar.across.button(view.across).setChecked(True)
        self.bar.apply.setVisible(not view.linked)
        self.bar.apply.setText(f"Apply Δ{AXES[view.across]} = {model.slice_offset:+g}")
        comparison.modes.button(MODES.index(view.mode)).setChecked(True)
        comparison.squares.setText(f"{view.squares} squares")
        for widget in (comparison.fewer, comparison.more, comparison.squares, comparison.tint):
            widget.setEnabled(view.mode == "checkerboard")
        comparison.spread.setSingleStep(max(model.usual_spread() / 50, 1e-3))
        comparison.spread.show_value(view.spread)
        comparison.histogram.show_histogram(model.histogram_of_difference(), Contrast(-view.spread, view.spread))
        for tick, on in ((self.bar.link, view.linked), (self.bar.match, view.matched), (comparison.tint, view.tinted)):
            tick.blockSignals(True)
            tick.setChecked(on)
            tick.blockSignals(False)

    def _look_there(self) -> None:
        if self.model is not None:
            view = self.model.view
            middle = Place(float(view.middle[view.axes.rows]), float(view.middle[view.axes.columns]))
            for canvas in self._canvases:
                canvas.look_at(middle, view.zoom)

    def say(self, text: str, kind: str = "") -> None:
        """Show a line: ``good``, ``bad``, ``open`` (something is to be done), or plain."""
        self.message.setStyleSheet(f"color: {_COLOURS[kind]}")
        self.message.setText(text)

    def _tell_state(self) -> None:
        if self.model is not None:
            unsaved = self.model.unsaved
            self.say("Φ needs to be saved" if unsaved else "", "open" if unsaved else "")

    def show_keys(self) -> None:
        """Show what keys and mouse do."""
        rows = [
            ("drag image 1, or the comparison", "move image 1"),
            ("Shift + drag", "turn image 1 about its centre"),
            ("Ctrl + drag", "stretch image 1 in the plane of the view"),
            ("wheel; right button + drag", "zoom; zoom to a box"),
            ("middle button + drag; drag image 2", "pan"),
            ("double click", "show all"),
        ]
        for action in self._actions.values():
            keys = ", ".join(key.toString() for key in action.shortcuts())
            rows.append((keys, action.text()))
        lines = "".join(f"<tr><td><b>{keys}</b> &nbsp;</td><td>{text}</td></tr>" for keys, text in rows)
        box = QMessageBox(self)
        box.setWindowTitle("Keys and mouse")
        half = len(rows) // 2 + 1
        cells = lines.split("</tr>")
        tables = [f"<table>{'</tr>'.join(part)}</table>" for part in (cells[:half], cells[half:])]
        box.setText(f"<table><tr><td>{tables[0]}</td><td width='30'></td><td>{tables[1]}</td></tr></table>")
        box.exec()
        box.deleteLater()


def _grey(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.5g}"
