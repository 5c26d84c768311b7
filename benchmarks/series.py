"""A series that turns while its texture is replaced little by little: followed with and without a changing reference.

    python benchmarks/series.py                 # 100 states that turn by 60 degrees; some minutes
    python benchmarks/series.py --states 9 --turn 24

Every image is a sum of waves that is known at any point: the motion is exact, nothing is interpolated. State k shows
cos(a) A + sin(a) B for two independent textures A and B, where a grows from 0 to 80 degrees: the ZNCC of two states is
the cosine of the difference of their a.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import tifffile

from mpidvc.core.deformation import rotation_matrix
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.read import read_field
from mpidvc.main import main

#: Angle between the first texture and that of the last state, degrees.
REPLACED = 80.0
WAVES = 150


class Turning:
    """States of a flat specimen that turns about the middle of the image, and whose texture changes.

    Parameters
    ----------
    size : int
        Of the images, pixels.
    states : int
    turn : float
        Of the last state, degrees.
    seed : int
    """

    def __init__(self, size: int, states: int, turn: float, seed: int = 0) -> None:
        self.size, self.states, self.turn = size, states, turn
        random = np.random.default_rng(seed)
        # wavelengths of 5 to 12 pixels
        length, direction = random.uniform(5, 12, (2, WAVES)), random.uniform(0, 2 * np.pi, (2, WAVES))
        self._waves = 2 * np.pi / length * np.stack([np.sin(direction), np.cos(direction)])
        self._phases = random.uniform(0, 2 * np.pi, (2, WAVES))

    def _turn(self, state: int) -> np.ndarray:
        return rotation_matrix((self.turn * state / (self.states - 1), 0, 0))[1:, 1:]

    def image(self, state: int) -> np.ndarray:
        """Grey levels of a state."""
        middle = (self.size - 1) / 2
        y, x = np.indices((self.size, self.size)) - middle
        back = self._turn(state).T
        places = np.stack([(back @ np.stack([y.ravel(), x.ravel()]))], 0)[0]
        share = np.radians(REPLACED * state / (self.states - 1))
        grey = np.zeros(self.size**2)
        for texture, weight in enumerate((np.cos(share), np.sin(share))):
            angle = self._waves[:, texture].T @ places
            grey += weight * np.cos(angle + self._phases[texture][:, None]).sum(axis=0)
        level = 30000 + 6000 * grey / np.sqrt(WAVES / 2)
        return np.clip(np.rint(level), 0, 65535).astype(np.uint16).reshape(self.size, self.size)

    def displacement(self, positions: np.ndarray, state: int) -> np.ndarray:
        """Displacements (n, 2) along y and x of points (n, 3), voxels."""
        arm = positions[:, 1:] - (self.size - 1) / 2
        return np.asarray(arm @ self._turn(state).T - arm)

    def write(self, folder: Path) -> list[str]:
        """Write all states."""
        paths = [folder / f"s{state:03d}.tif" for state in range(self.states)]
        for state, path in enumerate(paths):
            tifffile.imwrite(path, self.image(state), photometric="minisblack")
        return [str(path) for path in paths]

    def errors(self, field: PhiField, state: int, within: float) -> tuple[float, np.ndarray]:
        """Share of converged points up to a distance from the middle, and the errors of these, voxels."""
        inside = np.linalg.norm(field.positions[:, 1:] - (self.size - 1) / 2, axis=1) <= within
        good = inside & (field["returnStatus"] == 2)
        apart = field.displacements[good, 1:] - self.displacement(field.positions[good], state)
        return float(good.sum() / inside.sum()), np.linalg.norm(apart, axis=1)


def follow(series: Turning, folder: Path, images: list[str], options: list[str]) -> PhiField:
    """The last state as ldic finds it."""
    words = ["-ns", "12", "-hws", "30", "-o", "3", "-np", "1", "-notsv", "-od", str(folder)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(["ldic", *images, *words, *options])
    ending = "-total" if "--update-reference" in options else ""
    return read_field(folder / f"s000-s{series.states - 1:03d}-ldic{ending}.h5")


def compare() -> None:
    """Print what both ways find at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=100)
    parser.add_argument("--turn", type=float, default=60.0)
    parser.add_argument("--size", type=int, default=240)
    given = parser.parse_args()
    series = Turning(given.size, given.states, given.turn)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = series.write(folder)
        for options in (["--warm-start"], ["--update-reference"]):
            out = folder / options[0][2:]
            field = follow(series, out, images, options)
            # windows there stay inside at any angle
            share, errors = series.errors(field, series.states - 1, given.size / 2 - 45)
            rms, median = float(np.sqrt(np.mean(errors**2))), float(np.median(errors))
            print(
                f"{options[0]:20} converged {100 * share:5.1f}%  error: median {median:.4f}, rms {rms:.4f} voxels, "
                f"95% below {np.quantile(errors, 0.95):.4f}"
            )


if __name__ == "__main__":
    compare()
