#!/usr/bin/env python3
"""How fluid the window of ereg is on large volumes: python benchmarks/ereg.py [--size 1000]

Makes two volumes of so many voxels along each axis in a temporary folder, opens them in a window without a display, and
times steps of the user until everything is drawn again: image 1 dragged and turned, another slice, zoom.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ["QT_QPA_PLATFORM"] = "offscreen"

import numpy as np
import tifffile
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from mpidvc.gui.files import open_images
from mpidvc.gui.start import application
from mpidvc.gui.window import Window

#: Steps of each kind.
STEPS = 25
#: Voxels of a grain of the texture.
GRAIN = 8


def make(folder: Path, size: int) -> None:
    """Two volumes of blocks, the second shifted."""
    rng = np.random.default_rng(0)
    n = size // GRAIN + 2
    coarse = rng.integers(0, 256, (n, n, n), np.uint8)
    for name, shift in (("im1", 0), ("im2", 5)):
        volume = tifffile.memmap(
            folder / f"{name}.tif",
            shape=(size,) * 3,
            dtype=np.uint8,
            photometric="minisblack",
            metadata={"axes": "ZYX"},
        )
        for z in range(size):
            plane = np.kron(coarse[(z + shift) // GRAIN], np.ones((GRAIN, GRAIN), np.uint8))
            volume[z] = plane[shift : shift + size, shift : shift + size]
        volume.flush()
        del volume


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--cpu", action="store_true", help="CPU time, where other processes run")
    args = parser.parse_args()
    size, clock = args.size, time.process_time if args.cpu else time.perf_counter
    app = application()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, size)
        window = Window()
        window.show()
        begun = time.perf_counter()
        window.read(open_images(str(folder / "im1.tif"), str(folder / "im2.tif"), 1))
        while window.busy:
            app.processEvents()
            time.sleep(0.005)
        read = time.perf_counter() - begun
        model = window.model
        assert model is not None
        shape = " × ".join(map(str, model.pair.small))
        print(f"{size}³ voxels of 8 bits, two images: read in {read:.1f} s, shown as {shape}")
        canvas = window.columns[0].canvas
        model.rotate((12, -5, 8))
        window.refresh()

        def drag(keys: Qt.KeyboardModifier) -> list[float]:
            found = []
            QTest.mousePress(canvas, Qt.MouseButton.LeftButton, keys, QPoint(200, 200))
            for k in range(STEPS):
                begun = clock()
                QTest.mouseMove(canvas, QPoint(201 + 3 * k, 200 - 2 * k))
                QApplication.processEvents()
                found.append(clock() - begun)
            QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, keys, QPoint(300, 150))
            return found

        def each(act: object) -> list[float]:
            found = []
            for k in range(STEPS):
                begun = clock()
                act(k)  # type: ignore[operator]
                QApplication.processEvents()
                found.append(clock() - begun)
            return found

        kinds = {
            "image 1 is dragged": drag(Qt.KeyboardModifier.NoModifier),
            "image 1 is turned": drag(Qt.KeyboardModifier.ShiftModifier),
            "another slice across z": each(lambda k: window.columns[0].slider.setValue(20 + k)),
            "another axis": each(lambda k: window._actions[f"across-{'zyx'[k % 3]}"].trigger()),
            "checkerboard, overlay": each(lambda k: window._actions[("checkerboard", "overlay")[k % 2]].trigger()),
            "zoom": each(lambda k: window._actions[("zoom-in", "zoom-out")[k % 2]].trigger()),
        }
        for kind, seconds in kinds.items():
            print(f"  {kind:24} median {1e3 * np.median(seconds):5.0f} ms, largest {1e3 * max(seconds):5.0f} ms")
        window.model = None
        window.close()


if __name__ == "__main__":
    main()
