"""A series that turns while its texture is replaced little by little: followed with and without a changing reference.

    python benchmarks/series.py                 # 100 states that turn by 60 degrees; some minutes
    python benchmarks/series.py --states 10 --turn 6 --replaced 0.5

Grey levels are sums of waves that turn with the specimen: the motion is exact, nothing is interpolated. Patches of the
texture are replaced by those of an independent one, more of them in every state: the ZNCC of two states, without their
motion, is 1 less the share replaced between them.

Replaced patches are noise for the correlation, whatever the reference: the errors at the changes of the reference add
up as independent ones do. They fall with the size of the windows and with the wavelengths of the texture.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
from scipy.special import ndtr

from mpidvc.core.deformation import rotation_matrix
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.read import read_field
from mpidvc.fields.tsv import write_tsv
from mpidvc.main import main

#: Wavelengths of the textures, and of the field that says when a place is replaced; pixels.
TEXTURE, PATCHES = (4.0, 12.0), (15.0, 40.0)
WAVES = 400


class Waves:
    """A sum of waves of random directions and phases, with mean 0 and variance 1."""

    def __init__(self, lengths: tuple[float, float], random: np.random.Generator) -> None:
        # the spectrum is even between the largest and the smallest wavelength
        number = np.sqrt(random.uniform(lengths[1] ** -2, lengths[0] ** -2, WAVES))
        direction = random.uniform(0, 2 * np.pi, WAVES)
        self._waves = 2 * np.pi * number * np.stack([np.sin(direction), np.cos(direction)])
        self._phases = random.uniform(0, 2 * np.pi, WAVES)

    def image(self, turn: np.ndarray, size: int) -> np.ndarray:
        """Values (size, size) of the sum turned by a matrix (2, 2) about the middle."""
        along = np.arange(size) - (size - 1) / 2
        y, x = (np.exp(1j * np.outer(wave, along)) for wave in turn @ self._waves)
        x *= np.exp(1j * self._phases)[:, None]
        return np.asarray((y.real.T @ x.real - y.imag.T @ x.imag) / np.sqrt(WAVES / 2))


class Turning:
    """States of a flat specimen that turns about the middle of the image, and whose texture is replaced.

    Parameters
    ----------
    size : int
        Of the images, pixels.
    states : int
    turn : float
        Of the last state, degrees.
    replaced : float
        Share of the texture that is another one in the last state.
    """

    def __init__(self, size: int, states: int, turn: float, replaced: float) -> None:
        self.size, self.states, self.turn, self.replaced = size, states, turn, replaced
        random = np.random.default_rng(0)
        self._before, self._after, self._when = (Waves(lengths, random) for lengths in (TEXTURE, TEXTURE, PATCHES))

    def _turn(self, state: int) -> np.ndarray:
        return rotation_matrix((self.turn * state / (self.states - 1), 0, 0))[1:, 1:]

    def image(self, state: int, texture: int | None = None) -> np.ndarray:
        """Grey levels of a state, with the texture of another one if this is given."""
        turn = self._turn(state)
        share = self.replaced * (state if texture is None else texture) / (self.states - 1)
        before, after, when = (waves.image(turn, self.size) for waves in (self._before, self._after, self._when))
        grey = np.where(ndtr(when) < share, after, before)
        return np.clip(np.rint(30000 + 6000 * grey), 0, 65535).astype(np.uint16)

    def zncc(self, first: int, second: int) -> float:
        """ZNCC of two states without their motion."""
        return float(np.corrcoef(self.image(0, first).ravel(), self.image(0, second).ravel())[0, 1])

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

    def write_nodes(self, path: Path, spacing: int, within: float) -> None:
        """Write nodes up to a distance from the middle, where windows stay inside at any angle."""
        middle = self.size // 2
        along = middle + spacing * np.arange(-(middle // spacing), middle // spacing + 1)
        nodes = np.stack(np.meshgrid([0], along, along, indexing="ij"), axis=-1).reshape(-1, 3).astype(float)
        nodes = nodes[np.linalg.norm(nodes[:, 1:] - middle, axis=1) <= within]
        write_tsv(path, PhiField.from_positions(nodes, None, {"returnStatus": np.ones(len(nodes))}), "LDIC")

    def errors(self, field: PhiField, state: int) -> tuple[float, np.ndarray]:
        """Share of the points that converged, and lengths of the errors of these, voxels."""
        good = field["returnStatus"] == 2
        apart = field.displacements[good, 1:] - self.displacement(field.positions[good], state)
        return float(good.mean()), np.linalg.norm(apart, axis=1)


def follow(images: list[str], nodes: Path, hws: int, folder: Path, options: list[str]) -> tuple[PhiField, str]:
    """The field of the last state since the first one, and the messages of ldic."""
    told = io.StringIO()
    words = ["-pf", str(nodes), "-hws", str(hws), "-o", "3", "-np", "1", "-notsv", "-od", str(folder)]
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        main(["ldic", *images, *words, *options])
    ending = "-total" if "--update-reference" in options else ""
    first, last = (Path(image).stem for image in (images[0], images[-1]))
    return read_field(folder / f"{first}-{last}-ldic{ending}.h5"), told.getvalue()


def compare() -> None:
    """Print the errors of the last state, found in both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=100)
    parser.add_argument("--turn", type=float, default=60.0)
    parser.add_argument("--replaced", type=float, default=0.9)
    parser.add_argument("--hws", type=int, default=50)
    parser.add_argument("--within", type=int, default=140)
    given = parser.parse_args()
    series = Turning(2 * (given.within + int(1.5 * given.hws)), given.states, given.turn, given.replaced)
    successive, whole = series.zncc(0, 1), series.zncc(0, given.states - 1)
    print(
        f"{given.states} states of {series.size}^2 pixels; ZNCC of the first two {successive:.3f}, of first and last "
        f"{whole:.3f}; windows of {2 * given.hws - 1}^2 pixels"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = series.write(folder)
        series.write_nodes(folder / "nodes.tsv", 20, given.within)
        for options in (["--warm-start", "--update-reference"], ["--warm-start"]):
            begun = time.monotonic()
            field, told = follow(images, folder / "nodes.tsv", given.hws, folder / options[-1][2:], options)
            share, errors = series.errors(field, series.states - 1)
            print(
                f"{' '.join(options):34} {told.count('becomes the reference')} changes; {len(field)} nodes, "
                f"{100 * share:.1f}% converged; error: median {np.median(errors):.4f}, "
                f"rms {np.sqrt(np.mean(errors**2)):.4f}, 95% below {np.quantile(errors, 0.95):.4f} voxel; "
                f"{time.monotonic() - begun:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    compare()
