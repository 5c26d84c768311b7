"""Lines that a run prints before it begins."""

from __future__ import annotations

import argparse

from mpidvc.arrays import Array
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.images.slices import SliceImage
from mpidvc.runtime.console import Console
from mpidvc.tasks.texture import WindowSettings, texture_of

__all__ = ["announce", "describe_slices", "warn_of_texture"]

#: Not settings of the correlation.
_UNSHOWN = ("processes", "command_line", "notes", "defaults", "all_settings", "states")


def announce(console: Console, command: str, args: argparse.Namespace, **used: object) -> None:
    """Print the settings of a run, those of which the defaults do not tell, then the notes on its options.

    Parameters
    ----------
    console : Console
    command : str
    args : Namespace
        The options.
    **used
        Values that stand for options that were not given.
    """
    shown = {name: value for name, value in vars(args).items() if name not in _UNSHOWN}
    console.settings(f"mpidvc {command}", {**shown, **used}, None if args.all_settings else args.defaults)
    for note in args.notes:
        console.note(note)


def describe_slices(console: Console, *images: Image) -> None:
    """Print first slice, last slice and number of slices of images that are folders: their order is z."""
    for image in images:
        if isinstance(image, SliceImage):
            console.print(image.describe())


def warn_of_texture(console: Console, images: ImagePair, positions: Array, windows: WindowSettings) -> None:
    """Warn if a large share of the windows has too little texture to be followed; on rank 0."""
    text = texture_of(images.image1, images.mask1, positions, windows).warning()
    if text is not None:
        console.warn(text)
