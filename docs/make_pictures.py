#!/usr/bin/env python3
"""Make the pictures of the documentation from a demonstration run: python docs/make_pictures.py"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from mpidvc.main import main

IMAGES = Path(__file__).resolve().parent / "images"


def make() -> None:
    """Run the demonstration on one process and keep its picture."""
    with tempfile.TemporaryDirectory() as folder:
        if main(["demo", folder, "-np", "1"]) != 0:
            raise SystemExit("the demonstration failed: no picture")
        IMAGES.mkdir(exist_ok=True)
        shutil.copyfile(Path(folder, "im1-im2-field.png"), IMAGES / "demo.png")


if __name__ == "__main__":
    make()
