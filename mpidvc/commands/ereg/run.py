"""The run of ``mpidvc ereg``: what is given is checked, then the window is shown until it is closed."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from mpidvc.arrays import Array
from mpidvc.cli import command
from mpidvc.cli.command import Outcome
from mpidvc.errors import UserError
from mpidvc.gui.check import need_window
from mpidvc.gui.files import OpenedPair, open_images, read_phi
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.ranks import Team

__all__ = ["Plan"]


@dataclass(frozen=True, kw_only=True)
class Plan(command.Plan):
    """A window to be shown.

    Attributes
    ----------
    opened : OpenedPair or None
        None: the window asks for images.
    phi : (4, 4) float64 or None
        Phi to begin with.
    phi_file : str
        That of images which the window asks for; "" for none.
    folder : str
        Where dialogs begin.
    binning : int
    """

    #: The user takes the time.
    timed = False

    opened: OpenedPair | None
    phi: Array | None
    phi_file: str
    folder: str
    binning: int

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        folder = args.default_folder or ""
        if folder and not Path(folder).is_dir():
            raise UserError(f"-df {folder}: is no folder; give one that is there")
        opened = phi = None
        if args.im1 is not None:
            opened = open_images(args.im1, args.im2, args.binning)
            if args.phi_file is not None:
                phi = read_phi(args.phi_file, args.phi_file_bin_ratio, opened.images)
        need_window()
        return cls(
            opened=opened,
            phi=phi,
            phi_file=str(args.phi_file or "") if opened is None else "",
            folder=folder,
            binning=args.binning,
        )

    def execute(self, executor: Executor, console: Console) -> Outcome:
        # one user has one window, however many ranks there are
        if executor.rank != 0:
            return Outcome(0)
        from mpidvc.gui.start import show

        saved, files = show(self.opened, self.phi, self.folder, self.binning, self.phi_file)
        for path in files:
            console.print(f"Written: {path}")
        if saved is None:
            console.note("no Phi was saved")
        return Outcome(0 if saved is not None else 1, saved, tuple(files))
