"""``mpidvc ereg`` as a command: options, what is missing for a window, from the command line to the files, Python."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import mpidvc
from mpidvc.commands import COMMANDS
from mpidvc.errors import UserError
from mpidvc.gui import check
from mpidvc.main import main
from tests.gui.pairs import WidePair
from tests.waiting import LONGEST

PAIR = WidePair((24, 30, 36), 3, (5, 0, 0), (0, 0, 0), (2, -1, 3), amplitude=0, spacing=6, radii=(4, 7))
NAME = "im1-im2-PhiEye-bin1.tsv"
TEXT = "Zpos\tYpos\tXpos\tZdisp\tYdisp\tXdisp\n11.5\t14.5\t17.5\t1\t2\t3\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    tifffile.imwrite("im1.tif", PAIR.image1(), photometric="minisblack")
    tifffile.imwrite("im2.tif", PAIR.image2(), photometric="minisblack")
    Path("phi.tsv").write_text(TEXT)
    return tmp_path


@pytest.fixture
def acting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Any], None]], None]]:
    """Let a user act on the window as soon as its images are read; the window is closed then."""
    from PySide6.QtCore import QTimer

    from mpidvc.gui import start
    from mpidvc.gui.window import Window

    caught: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: caught.append(error))

    def let(act: Callable[[Any], None], when: Callable[[Any], bool] = lambda window: window.model is not None) -> None:
        class Watched(Window):
            def __init__(self, *given: Any) -> None:
                super().__init__(*given)
                self._timer = QTimer(self)
                self._timer.timeout.connect(self._look)
                self._timer.start(5)

            def _look(self) -> None:
                if self.busy or not when(self):
                    return
                self._timer.stop()
                try:
                    act(self)
                finally:
                    self.model = None
                    self.close()

        monkeypatch.setattr(start, "Window", Watched)

    yield let
    assert caught == []


# ---- options


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("im1.tif", "image 2 is missing"),
        ("im1.tif im2.tif -bin 0", "-bin 0: has to be at least 1"),
        ("im1.tif im2.tif phi.tsv -pf other.tsv", "the first Phi is given twice: phi.tsv and other.tsv"),
        ("im1.tif none.tif", "image none.tif: does not exist"),
        ("im1.tif im2.tif none.tsv", "none.tsv"),
        ("im1.tif im2.tif -df nowhere", "-df nowhere: is no folder"),
        ("im1.tif im2.tif -bin 20", "-bin 20: leaves fewer than 2 voxels"),
        ("im1.tif im2.tif -pf phi.tsv -pfb 0", "-pfb 0.0: has to be above 0"),
        ("im1.tif im2.tif -ns 5", "unknown option -ns"),
    ],
)
def test_mistakes(here: Path, words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ereg", *words.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mpidvc ereg: error: ")
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", ["phi.tsv", "-pf phi.tsv", "-phiFile phi.tsv", "--phiFile phi.tsv"])
def test_phi_is_an_argument_or_an_option(words: str) -> None:
    args = COMMANDS["ereg"].parse(["a", "b", *words.split()])
    assert (args.im1, args.im2, args.phi_file, args.binning) == ("a", "b", "phi.tsv", 1)
    assert COMMANDS["ereg"].parse([]).phi_file is None


def test_plan_refuses_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "ereg", "im1.tif", "im2.tif"]) == 2
    assert "ereg: is not estimated" in capsys.readouterr().err


# ---- what a window needs


def test_help_needs_no_qt_and_other_commands_neither(environment: dict[str, str]) -> None:
    """Nor numpy for the help; and no module but those of the widgets loads Qt."""
    code = (
        "import sys, pkgutil, importlib; from mpidvc.main import main; main(['ereg', '--help']); "
        "assert not {'numpy', 'PySide6'} & set(sys.modules); import mpidvc; "
        "widgets = {'canvas', 'dialogs', 'histogram', 'panels', 'start', 'window', 'worker'}; "
        "names = [m.name for m in pkgutil.walk_packages(mpidvc.__path__, 'mpidvc.') "
        "if 'ewoks' not in m.name and not m.name.endswith('__main__')]; "
        "[importlib.import_module(n) for n in names if n.split('.')[1] != 'gui' or n.split('.')[-1] not in widgets]; "
        "assert len(names) > 100; assert 'PySide6' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_pyside(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "PySide6" else found(name))
    assert main(["ereg", "im1.tif", "im2.tif"]) == 2
    line = 'mpidvc ereg: error: the window needs PySide6, which is not installed; pip install "mpidvc[gui]"\n'
    assert capsys.readouterr().err == line


def test_without_a_display(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("QT_QPA_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["ereg", "im1.tif", "im2.tif"]) == 2
    assert "there is no display for the window; run it on a desktop, or log in by ssh -X" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trial", "told"),
    [
        (None, "Qt cannot show a window here (qt.qpa.plugin"),
        ("import libEGL_is_not_there", "(ModuleNotFoundError: No module named 'libEGL_is_not_there')"),
        ("import os; os.abort()", "(it was ended)"),
        ("import sys; sys.exit('one\\nxcb-cursor0 is needed to load it\\nmore')", "(xcb-cursor0 is needed to load it)"),
        ("import time; time.sleep(600)", "Qt has not begun within 1 s"),
    ],
)
def test_a_qt_that_does_not_work(
    trial: str | None, told: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It would end the process: it is tried in another one."""
    monkeypatch.setenv("QT_QPA_PLATFORM", "no-such-platform" if trial is None else "offscreen")
    if trial is not None:
        monkeypatch.setattr(check, "TRIAL", trial)
        monkeypatch.setattr(check, "PATIENCE", 1.0 if "sleep" in trial else LONGEST)
    with pytest.raises(UserError) as caught:
        check.need_window()
    assert told in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("python", "pyside", "refused"),
    [((3, 11), "6.12.0", True), ((3, 11), "6.11.3", False), ((3, 12), "6.12.0", False), ((3, 10), "6.6", False)],
)
def test_a_pyside_that_loses_references(
    python: tuple[int, int], pyside: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.setattr(sys, "version_info", python)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: pyside)
    if refused:
        with pytest.raises(UserError, match=r"PySide6 6\.12 loses references before Python 3\.12"):
            check.need_window()
    else:
        check.need_window()


# ---- from the command line to the files


def test_from_the_command_line_to_the_files(here: Path, app: Any, acting: Any, capsys: Any) -> None:
    def act(window: Any) -> None:
        assert window.model.translation.tolist() == [1, 2, 3]
        window._actions["right-5"].trigger()
        window._actions["save"].trigger()

    acting(act)
    assert main(["ereg", "im1.tif", "im2.tif", "phi.tsv"]) == 0
    assert f"Written: {NAME}" in capsys.readouterr().out
    assert mpidvc.read_field(NAME).phi[0, :3, 3].tolist() == [1, 2, 8]


def test_nothing_saved_is_status_1(here: Path, app: Any, acting: Any, capsys: Any) -> None:
    acting(lambda window: window._actions["right-5"].trigger())
    assert main(["ereg", "im1.tif", "im2.tif"]) == 1
    assert "no Phi was saved" in capsys.readouterr().out
    assert not Path(NAME).exists()


def test_phi_of_another_binning(here: Path, app: Any, acting: Any) -> None:
    seen = []
    acting(lambda window: seen.append((window.model.translation.tolist(), window.bar.note.text())))
    main(["ereg", "im1.tif", "im2.tif", "-bin", "2", "-pf", "phi.tsv", "-pfb", "0.5"])
    translation, note = seen[0]
    np.testing.assert_allclose(translation, [0.5, 1, 1.5])
    assert note == "binned by 2"


def test_without_images_the_window_asks(here: Path, app: Any, acting: Any, answer: Any) -> None:
    seen = []

    def fill(dialog: Any) -> None:
        seen.append(dialog.fields["phi"].text())
        dialog.fields["image1"].setText("im1.tif")
        dialog.fields["image2"].setText("im2.tif")

    answer("Open", fill)
    acting(lambda window: seen.append(window.model.translation.tolist()))
    main(["ereg", "-pf", "phi.tsv"])
    assert seen == ["phi.tsv", [1, 2, 3]]


def test_a_signal_ends_it(here: Path, app: Any, acting: Any, monkeypatch: Any, capsys: Any) -> None:
    from PySide6.QtCore import QTimer

    QTimer.singleShot(0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["ereg", "im1.tif", "im2.tif"]) == 128 + signal.SIGTERM
    assert "mpidvc: ended by SIGTERM" in capsys.readouterr().err


def test_from_python(here: Path, app: Any, acting: Any) -> None:
    """With arrays, and a field for the first Phi; the Phi that was saved comes back."""

    def act(window: Any) -> None:
        assert window.model.translation.tolist() == [1, 2, 3]
        window._actions["down-1"].trigger()
        window._actions["save"].trigger()

    acting(act)
    found = mpidvc.ereg(PAIR.image1(), PAIR.image2(), mpidvc.read_field("phi.tsv"))
    assert found.phi[0, :3, 3].tolist() == [1, 3, 3]
    assert Path(NAME).exists()
    again = mpidvc.reg(PAIR.image1(), PAIR.image2(), phi_file=found, processes=1)
    np.testing.assert_allclose(again.phi[0, :3, 3], PAIR.translation, atol=0.05)
