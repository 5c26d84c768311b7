"""Work in the background of the window: one job at a time, with progress and an end on demand."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, QThread, Signal

from mpidvc.errors import UserError
from mpidvc.gui.snap import CancelledError, NothingFoundError, Progress

__all__ = ["Job"]


class Job(QThread):
    """A function of a `Progress` that runs in a thread of its own.

    Parameters
    ----------
    parent : QObject
    function : callable

    Attributes
    ----------
    told : Signal(object, str)
        The share that is done, or None, and a line.
    done : Signal(object)
        The result.
    refused : Signal(str)
        There is no result; the line for the user, "" if the job was cancelled.
    """

    told = Signal(object, str)
    done = Signal(object)
    refused = Signal(str)

    def __init__(self, parent: QObject, function: Callable[[Progress], Any]) -> None:
        super().__init__(parent)
        self._function = function
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End it as soon as it looks."""
        self._cancelled.set()

    def run(self) -> None:
        """The thread."""
        try:
            result = self._function(Progress(self.told.emit, self._cancelled.is_set))
        except CancelledError:
            self.refused.emit("")
        except (UserError, NothingFoundError) as error:
            self.refused.emit(str(error))
        except MemoryError:
            self.refused.emit("there is not enough memory; bin the images (-bin)")
        except Exception as error:
            # the window stays, and Phi with it
            traceback.print_exc()
            self.refused.emit(f"internal error: {error!r}; the terminal shows more")
        else:
            self.done.emit(result)
