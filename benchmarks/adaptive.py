"""Windows per point (ldic --adaptive): the random error that is asked for, against the one that is there.

    python benchmarks/adaptive.py > table.md
    python benchmarks/adaptive.py --orders 1 --second-scan >> table.md

The contrast of a texture falls by 10 : 1 along a volume, evenly in its logarithm. Both images get noise of their own,
40 times; the error of a node is the deviation of its displacement over these realisations, as the root mean square of
the three components. It is to be from 0.7 to 1.3 of the error that was asked for. Runs with one window for all nodes,
of the median size, stand beside. The motion is that of trust.py, a linear field of 1 % strain, and known to the guess.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import tifffile
import trust
from numpy.typing import NDArray
from scipy import ndimage

import mpidvc
from mpidvc.fields.phifield import PhiField
from mpidvc.main import main as command
from mpidvc.tasks import noise

Array = NDArray[Any]

#: Voxels of the volume, and of that of the tests.
LARGE, SMALL = (64, 64, 300), (45, 45, 200)
#: Kinds of noise, and their deviations in deviations of the texture where its contrast is full.
NOISES = (("white", 0.05), ("tomogram", 0.03), ("correlated", 0.015))
#: Deviation of the white noise.
LEVEL = 0.05
#: Error that is asked for (voxels), and half-window sizes.
TARGET, LEAST, MOST = 0.014, 4, 25
#: Half-window size of a run with the same window for all nodes.
FIXED = 8
#: Voxels between the ends of the volume and the nodes, along x and besides; distance of the nodes.
ENDS, SIDES, SPACING = 20, 18, 9


class Volume:
    """A texture of the correlation 1.6 in both states, and its nodes.

    Parameters
    ----------
    shape : 3 ints
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        kz, ky, kx = trust.wave_numbers(shape)
        texture = trust.made(shape, 1, np.exp(-(kz**2 + ky**2 + kx**2) * 1.6**2 / 2))
        centre = (np.array(shape) - 1) / 2
        x = np.indices(shape).reshape(3, -1) - centre[:, None]
        back = np.linalg.inv(trust.FIELD) @ (x - trust.SHIFT[:, None]) + centre[:, None]
        moved = ndimage.map_coordinates(texture, back, order=5, mode="grid-wrap").reshape(shape)
        self.states = self._contrast(np.arange(shape[2])) * texture, self._contrast(back[2]).reshape(shape) * moved
        sides = (range(SIDES, n - SIDES + 1, SPACING) for n in shape[:2])
        grid = np.meshgrid(*sides, range(ENDS, shape[2] - ENDS + 1, SPACING), indexing="ij")
        nodes = np.stack(grid, axis=-1).reshape(-1, 3).astype(float)
        phi = np.tile(np.eye(4), (len(nodes), 1, 1))
        phi[:, :3, :3] = trust.FIELD
        phi[:, :3, 3] = (nodes - centre) @ (trust.FIELD - np.eye(3)).T + trust.SHIFT
        self.guess = PhiField(nodes, phi)

    def _contrast(self, x: Array) -> Array:
        return np.asarray(10 ** (-(x - ENDS) / (self.shape[2] - 2 * ENDS)))

    def noisy(self, kind: str, level: float, seed: int) -> list[Array]:
        """Both images with noise of their own."""
        noises = (trust.noise(self.shape, kind, 1000 + 2 * seed + k) for k in range(2))
        return [trust.image(state + level * noise) for state, noise in zip(self.states, noises, strict=True)]


class Outcome(NamedTuple):
    """Of the runs with one kind of noise.

    Attributes
    ----------
    nodes : int
        That have converged in all of them, and have the error that is asked for by prediction in most.
    sizes : tuple of int
        Least, median and largest half-window size.
    met : float
        Share of the nodes for which a window was found.
    within : float
        Share of these whose error is from 0.7 to 1.3 of the one that is asked for.
    median, low, high : float
        Median, and 5 % and 95 % points, of the error over the one that is asked for.
    seconds : float
        CPU seconds of a run.
    """

    nodes: int
    sizes: tuple[int, int, int]
    met: float
    within: float
    median: float
    low: float
    high: float
    seconds: float


def second_scan(volume: Volume, kind: str, level: float, folder: Path) -> str:
    """Results file of two scans of the first state, each with noise of its own."""
    for name, seed in (("one", 1), ("two", 2)):
        noisy = trust.image(volume.states[0] + level * trust.noise(volume.shape, kind, seed))
        tifffile.imwrite(folder / f"{name}.tif", noisy, photometric="minisblack")
    words = f"-ns {SPACING} -hws 12 -o 3 --sigma -np 1 -notsv -pre scan"
    with redirect_stdout(sys.stderr):
        assert command(["ldic", f"{folder}/one.tif", f"{folder}/two.tif", *words.split(), "-od", str(folder)]) == 0
    return str(folder / "scan-ldic.h5")


def judge(
    volume: Volume,
    kind: str,
    level: float,
    realisations: int,
    order: int = 3,
    hws: int | None = None,
    noise_from: str | None = None,
) -> Outcome:
    """Errors over some realisations of the noise; `hws`: the same window for all nodes."""
    displacements, sizes, limits = [], [], []
    begun = time.process_time()
    for k in range(realisations):
        choice: dict[str, Any] = {"half_window_size": hws}
        if hws is None:
            choice = {"half_window_size": MOST, "adaptive": TARGET, "adaptive_from": LEAST, "noise_from": noise_from}
        field = mpidvc.ldic(
            volume.noisy(kind, level, k), phi_file=volume.guess, interpolation_order=order, processes=1, **choice
        )
        displacements.append(np.where((field["returnStatus"] == 2)[:, None], field.displacements, np.nan))
        sizes.append(field["halfWindowSize"] if hws is None else np.full(len(field), float(hws)))
        limits.append(field["windowLimit"] if hws is None else np.zeros(len(field)))
    good = np.isfinite(displacements).all(axis=(0, 2))
    met = good & (np.mean(np.array(limits) == 0, axis=0) > 0.5)
    error = np.sqrt(np.var(displacements, axis=0, ddof=1).mean(axis=1))[met] / TARGET
    chosen = np.median(sizes, axis=0)[met]
    low, median, high = np.quantile(error, [0.05, 0.5, 0.95])
    return Outcome(
        int(met.sum()),
        (int(chosen.min()), int(np.median(chosen)), int(chosen.max())),
        float(met.sum() / good.sum()),
        float(np.mean((error >= 0.7) & (error <= 1.3))),
        float(median),
        float(low),
        float(high),
        (time.process_time() - begun) / realisations,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Windows per point: errors that are asked for, and that are there.")
    parser.add_argument("--realisations", type=int, default=40)
    parser.add_argument("--orders", type=int, nargs="*", default=(3, 1))
    parser.add_argument("--noises", nargs="*", default=[kind for kind, _ in NOISES])
    parser.add_argument("--small", action="store_true", help="the volume of the tests")
    parser.add_argument("--pilots", type=int, help="windows that tell the noise of a run, which take most of its time")
    parser.add_argument("--second-scan", action="store_true", help="two scans of the first state tell the noise")
    args = parser.parse_args()
    if args.pilots is not None:
        noise.PILOTS = args.pilots
    volume = Volume(SMALL if args.small else LARGE)
    titles = ("noise", "order", "nodes", "`-hws` chosen", "error / asked for: median (5 %, 95 %)", "within 0.7…1.3")
    print(f"| {' | '.join(titles)} | one window |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for kind, level in NOISES:
        for order in args.orders:
            if kind not in args.noises:
                continue
            with TemporaryDirectory() as folder:
                known = second_scan(volume, kind, level, Path(folder)) if args.second_scan else None
                one = judge(volume, kind, level, args.realisations, order, noise_from=known)
            same = judge(volume, kind, level, args.realisations, order, one.sizes[1])
            name = f"{kind} {level:g}" + (", second scan" if args.second_scan else "")
            print(
                f"| {name} | {order} | {one.nodes} | {one.sizes[0]}, {one.sizes[1]}, {one.sizes[2]} "
                f"| {one.median:.2f} ({one.low:.2f}, {one.high:.2f}) | {100 * one.within:.0f} % "
                f"| {100 * same.within:.0f} % |",
                flush=True,
            )
            print(f"met {one.met:.2f}, {one.seconds:.1f} s against {same.seconds:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
