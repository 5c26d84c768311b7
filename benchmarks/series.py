"""Series of states: a plate followed in one command, killed and resumed; a specimen that turns and changes its texture.

    python benchmarks/series.py --data DIR --work /tmp/series      # writes docs/benchmarks-series.md; some minutes
    python benchmarks/series.py --work /tmp/series --states 10 --turn 6 --replaced 0.5 --report /tmp/series.md

`DIR` has the twelve frames of an open-hole plate (DIC Challenge, sample 12) with DICe's gold results in
`2d/dic_challenge_12`. Without it that part is left out.

The grey levels of the made series are sums of waves that turn with the specimen: the motion is exact, nothing is
interpolated. Patches of the texture are replaced by those of an independent one, more of them in every state: the ZNCC
of two states, without their motion, is 1 less the share replaced between them.

Replaced patches are noise for the correlation, whatever the reference: the errors at the changes of the reference add
up as independent ones do. They fall with the size of the windows and with the wavelengths of the texture.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

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
#: Frames of the plate, and the options that it is followed with.
FRAMES, PLATE = 12, "-hws 14 -o 3 --warm-start"


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


# ---- a plate, in one command


class Plate(NamedTuple):
    """How the twelve frames were followed.

    Attributes
    ----------
    points : int
    seconds, resumed : float
        Wall time of the undisturbed run, and of the one that went on after the kill.
    finished : int
        States that were finished when it was killed.
    same : bool
        Whether all files have the bytes of the undisturbed run.
    converged : float
        Share of the points at the last frame.
    apart : (2,) float64
        Median of the differences from DICe there, along x and y, pixels.
    """

    points: int
    seconds: float
    resumed: float
    finished: int
    same: bool
    converged: float
    apart: np.ndarray


def follow_plate(data: Path, folder: Path, mpidvc: str) -> Plate:
    """Follow the plate twice, undisturbed and killed in the middle, and compare it with DICe."""
    told = np.genfromtxt(data / "dice_gold/DICe_solution_11.txt", delimiter=",", comments="*")[1:, :4]
    points = np.column_stack([np.zeros(len(told)), told[:, 1], told[:, 0]])
    nodes = folder / "plate.tsv"
    write_tsv(nodes, PhiField.from_positions(points, None, {"returnStatus": np.ones(len(points))}), "LDIC")
    frames = [str(data / f"oht_cfrp_{frame:02d}.tiff") for frame in range(FRAMES)]
    command = [mpidvc, "ldic", *frames, "-pf", str(nodes), *PLATE.split(), "-np", "1", "-od"]
    whole, again = folder / "plate", folder / "plate-killed"
    for old in (whole, again):
        shutil.rmtree(old, ignore_errors=True)

    def timed(*words: str) -> float:
        begun = time.monotonic()
        subprocess.run([*command, *words], check=True, capture_output=True)
        return time.monotonic() - begun

    seconds = timed(str(whole))
    process = subprocess.Popen([*command, str(again)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (again / f"oht_cfrp_00-oht_cfrp_{FRAMES // 2:02d}-ldic.tsv").exists():
        time.sleep(1e-3)
    process.kill()
    if process.wait() == 0:
        raise SystemExit("the run ended before it could be killed")
    finished = len(list(again.glob("*-ldic.tsv")))
    resumed = timed(str(again), "--resume")
    field = read_field(whole / f"oht_cfrp_00-oht_cfrp_{FRAMES - 1:02d}-ldic.h5")
    good = field["returnStatus"] == 2
    apart = np.abs(field.displacements[:, :0:-1] - told[:, 2:4])[good]
    same = contents(whole) == contents(again)
    return Plate(len(field), seconds, resumed, finished, same, float(good.mean()), np.median(apart, axis=0))


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder but those that tell how a run went."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".run.json")}


# ---- the page


class Row(NamedTuple):
    """How the made series was followed: the options, and the errors of the last state."""

    options: str
    changes: int
    converged: str
    median: float
    rms: float
    most: float
    seconds: float


def page(about: str, plate: Plate | None, series: Turning, hws: int, nodes: int, rows: str) -> str:
    """The text of the page."""
    successive, whole = series.zncc(0, 1), series.zncc(0, series.states - 1)
    shown = "Not measured."
    if plate is not None:
        x, y = plate.apart
        shown = f"""`mpidvc ldic oht_cfrp_00.tiff … oht_cfrp_{FRAMES - 1}.tiff -pf nodes.tsv {PLATE}`
follows {plate.points} nodes, those of DICe's gold results, over {FRAMES} frames of an open-hole plate (DIC Challenge,
sample 12).

* At the last frame {100 * plate.converged:.1f} % of the nodes converged. The medians of their differences from DICe's
  displacements are {x:.4f} px along x and {y:.4f} px along y.
* The run takes {plate.seconds:.1f} s on one process. Another one was killed (SIGKILL) when {plate.finished} of
  {FRAMES - 1} states were finished; `--resume` took {plate.resumed:.1f} s for the rest. Its files have
  {"the same bytes as" if plate.same else "OTHER BYTES THAN"} those of the undisturbed run."""
    return f"""# Series

Written by `benchmarks/series.py`: every figure here comes from one run on one machine. Do not edit.

{about}

## A plate in one command

{shown}

## A specimen that turns and changes its texture

{series.states} made states of {series.size} × {series.size} pixels turn by {series.turn:g}°, while
{100 * series.replaced:g} % of the texture is replaced. Without the motion two successive states have a ZNCC of
{successive:.3f}, the first and the last one {whole:.3f}. There are {nodes} nodes, and windows of
{2 * hws - 1} × {2 * hws - 1} pixels. Errors are those of the last state, of the nodes that converged.

{rows}
"""


def run() -> None:
    """Follow both series, and write the page."""
    from compare import facts_table, machine, options_for, table

    parser = options_for(__doc__, "benchmarks-series.md", spam=False)
    parser.add_argument("--data", type=Path, help="directory of the shared data")
    parser.add_argument("--states", type=int, default=100)
    parser.add_argument("--turn", type=float, default=60.0)
    parser.add_argument("--replaced", type=float, default=0.9)
    parser.add_argument("--hws", type=int, default=50)
    parser.add_argument("--within", type=int, default=140)
    given = parser.parse_args()
    folder, about, rows = given.work, facts_table(machine()), []
    plate = None
    if given.data is not None:
        plate = follow_plate(given.data.resolve() / "2d/dic_challenge_12", folder, given.mpidvc)
        print(plate, flush=True)
    series = Turning(2 * (given.within + int(1.5 * given.hws)), given.states, given.turn, given.replaced)
    images = series.write(folder)
    series.write_nodes(folder / "nodes.tsv", 20, given.within)
    for options in (["--warm-start", "--update-reference"], ["--warm-start"]):
        begun = time.monotonic()
        out = folder / options[-1][2:]
        shutil.rmtree(out, ignore_errors=True)
        field, told = follow(images, folder / "nodes.tsv", given.hws, out, options)
        share, errors = series.errors(field, series.states - 1)
        rows.append(
            Row(
                f"`{' '.join(options)}`",
                told.count("becomes the reference"),
                f"{100 * share:.1f} %",
                float(np.median(errors)),
                float(np.sqrt(np.mean(errors**2))),
                float(np.quantile(errors, 0.95)),
                time.monotonic() - begun,
            )
        )
        print(rows[-1], flush=True)
    columns = {
        "options": "options",
        "changes of the reference": "changes",
        "converged": "converged",
        "median error, px": "median",
        "rms": "rms",
        "95 % below": "most",
        "wall s": "seconds",
    }
    text = page(about, plate, series, given.hws, len(field), table(rows, columns))
    given.report.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    run()
