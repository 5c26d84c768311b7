#!/usr/bin/env python3
"""Compare what `mpidvc suggest` says with the errors that windows really have, on made volumes.

    python benchmarks/suggest.py                    # writes docs/benchmarks-suggest.md; some minutes on a quiet machine
    python benchmarks/suggest.py --realisations 4 --large 0 --print

The images are a closed form, nothing is interpolated; noise is added to both, anew in every realisation. Random errors
are the standard deviations over the realisations at each node, true errors are against the exact displacement.
"""

import argparse
import shlex
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tifffile

import mpidvc
from mpidvc.core.analytic import AnalyticPair
from mpidvc.fields.phifield import PhiField

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks-suggest.md"
EDGE = 150
#: Half-window sizes that are measured; between them the logarithm of an error is interpolated.
SIZES = (5, 6, 7, 8, 10, 12, 14, 17, 20, 25)
#: Motion of all volumes but for the wave: small, so that no first guess is needed.
MOTION = {"rotation": (0.3, 0.2, -0.1), "strain": (-0.006, 0.002, 0.002), "translation": (0.3, -0.2, 0.4)}
#: What is promised: the window of a target within so many voxels of the smallest that meets it, the true error without
#: a target at most so many times the least one, and the random errors within this share.
NEAR, WORSE, WITHIN = 2, 1.1, 0.2
#: Features of the texture that fit into the edge of a window whose error is predicted as promised.
FEATURES = 2
#: Random error that is aimed at, voxels.
TARGETS = (0.01, 0.02)


@dataclass(frozen=True)
class Volume:
    """A made volume: its texture, its field, and the noise of its images."""

    name: str
    pair: dict
    noise: str
    level: float
    uneven: float = 0.0
    seed: int = 1


#: Noise levels are standard deviations over that of the texture.
VOLUMES = (
    Volume("white noise", {"amplitude": 0.5, "wavelength": 120.0}, "white", 0.1),
    Volume(
        "coarse texture, noise correlated over 2 voxels",
        {"amplitude": 0.6, "wavelength": 200.0, "radii": (5.0, 9.0), "spacing": 6.0},
        "gaussian",
        0.1,
    ),
    Volume(
        "noise of a tomogram, contrast that falls to a half",
        {"amplitude": 0.3, "wavelength": 150.0},
        "tomogram",
        0.2,
        uneven=0.5,
    ),
)


def noise_field(shape, kind, seed):
    """Noise of a standard deviation of 1; it is periodic, so that moved parts of it are other realisations."""
    k = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(n) for n in shape), indexing="ij", sparse=True)
    plane = np.sqrt(k[1] ** 2 + k[2] ** 2)
    amplitude = {
        "white": 1.0,
        "gaussian": np.exp(-sum(q**2 for q in k) / 2),
        # the ramp of a filtered back projection, a window of Hann, and the blur of a detector along the axis
        "tomogram": np.sqrt(plane) * np.cos(np.clip(plane, 0, np.pi) / 2) * np.exp(-(k[0] ** 2) / 8),
    }[kind]
    values = np.fft.ifftn(np.fft.fftn(np.random.default_rng(seed).normal(size=shape)) * amplitude).real
    return (values / values.std()).astype(np.float32)


@dataclass
class Made:
    """A volume with as many realisations of its noise as are asked for."""

    volume: Volume
    edge: int
    images: tuple = field(init=False)

    def __post_init__(self):
        shape = (self.edge,) * 3
        self.pair = AnalyticPair(shape, seed=self.volume.seed, dtype=np.float32, **MOTION, **self.volume.pair)
        fade = 1 - self.volume.uneven * np.linspace(0, 1, self.edge)[:, None, None]
        level = 1000 * self.pair.mean
        # in image 2 the contrast moves with the material, by less than two voxels
        self.images = tuple(
            (level + (1000 * image - level) * fade).astype(np.float32)
            for image in (self.pair.image1(), self.pair.image2())
        )
        self._noise = 1000 * self.pair.contrast * self.volume.level * noise_field(shape, self.volume.noise, 7)

    def realisation(self, number):
        """Images 1 and 2, and image 1 again, with their noise."""
        rng = np.random.default_rng([self.volume.seed, number])
        moved = (np.roll(self._noise, rng.integers(0, self.edge, 3), (0, 1, 2)) for _ in range(3))
        return tuple(f + e for f, e in zip((*self.images, self.images[0]), moved, strict=True))

    def nodes(self, per_axis):
        """Nodes (n, 3) whose largest windows are inside."""
        axis = np.rint(np.linspace(SIZES[-1] + 5, self.edge - SIZES[-1] - 6, per_axis))
        return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)


@dataclass
class Measured:
    """Errors by size: random ones at half and at 95 % of the nodes, true ones, converged share."""

    median: np.ndarray
    most: np.ndarray
    true: np.ndarray
    converged: np.ndarray

    def at(self, name, hws):
        """Between the sizes that were measured."""
        return float(np.exp(np.interp(np.log(hws), np.log(SIZES), np.log(getattr(self, name)))))


def measure(made, realisations, per_axis):
    """Correlate all realisations with windows of all sizes."""
    nodes = made.nodes(per_axis)
    truth = made.pair.displacement(nodes)
    found = np.full((realisations, len(SIZES), len(nodes), 3), np.nan)
    guess = PhiField(nodes, np.tile(np.eye(4), (len(nodes), 1, 1)), {})
    for number in range(realisations):
        first, second, _ = made.realisation(number)
        for k, hws in enumerate(SIZES):
            result = mpidvc.ldic(
                [first, second], half_window_size=hws, interpolation_order=3, phi_file=guess, processes=1
            )
            good = result["returnStatus"] == 2
            found[number, k, good] = result.displacements[good]
    error = found - truth
    sigma = np.sqrt(np.nanvar(error, axis=0, ddof=1).mean(axis=2))
    return Measured(
        median=np.median(sigma, axis=1),
        most=np.quantile(sigma, 0.95, axis=1),
        true=np.sqrt(np.nanmean(error**2, axis=(0, 2, 3))),
        converged=np.isfinite(error[..., 0]).mean(axis=(0, 2)),
    )


def smallest(measured, target):
    """The smallest window that meets a target at 95 % of the nodes; None if there is none."""
    return next((hws for hws in range(SIZES[0], SIZES[-1] + 1) if measured.at("most", hws) <= target), None)


def compare(volume, edge, realisations, per_axis):
    """Lines of the table of targets, of that without, and the largest deviation of the predicted errors."""
    made = Made(volume, edge)
    measured = measure(made, realisations, per_axis)
    first, second, again = made.realisation(realisations)
    sources = {"repeat scan": {"repeat": again}, "image 2": {"im2": second}}
    targets, free, ratios = [], [], []
    for source, images in sources.items():
        for target in TARGETS:
            least = smallest(measured, target)
            found = mpidvc.suggest(first, **images, target_sigma=target, processes=1)
            if least is not None:
                good = abs(found.hws - least) <= NEAR
                targets.append((volume.name, source, target, least, found.hws, "yes" if good else "no"))
        rows = {row.hws: row for row in found.rows}
        for hws, median, most in zip(SIZES, measured.median, measured.most, strict=True):
            if hws in rows:
                features = (2 * hws - 1) / found.texture.feature
                ratio, ratio95 = rows[hws].sigma / median, rows[hws].sigma95 / most
                ratios.append((volume.name, source, hws, float(features), float(ratio), float(ratio95)))
    found = mpidvc.suggest(first, second, processes=1)
    errors = [measured.at("true", hws) for hws in range(SIZES[0], SIZES[-1] + 1)]
    best = int(np.argmin(errors)) + SIZES[0]
    ratio = measured.at("true", found.hws) / min(errors)
    free.append((volume.name, best, min(errors), found.hws, ratio, "yes" if ratio <= WORSE else "no"))
    return targets, free, ratios


def large_volume(edge, folder):
    """An image of this edge and its repeat, from pieces of a periodic texture: their names."""
    piece = 125
    k = np.meshgrid(*[2 * np.pi * np.fft.fftfreq(piece)] * 3, indexing="ij", sparse=True)
    spectrum = np.fft.fftn(np.random.default_rng(1).normal(size=(piece,) * 3)) * np.exp(-1.28 * sum(q**2 for q in k))
    moved = np.exp(-1j * (0.3 * k[0] - 0.2 * k[1] + 0.4 * k[2]))
    names = []
    for number, factor in enumerate((1.0, moved)):
        values = np.fft.ifftn(spectrum * factor).real
        values += 0.1 * values.std() * np.random.default_rng([2, number]).normal(size=values.shape)
        grey = np.clip(30000 + 6000 * values / values.std(), 0, 65535).astype(np.uint16)
        times = -(-edge // piece)
        name = str(folder / f"im{number + 1}.tif")
        volume = tifffile.memmap(name, shape=(edge,) * 3, dtype=np.uint16, photometric="minisblack", bigtiff=True)
        for z in range(edge):
            volume[z] = np.tile(grey[z % piece], (times, times))[:edge, :edge]
        volume.flush()
        del volume
        names.append(name)
    return names


def time_of_large(edge):
    """Seconds of `mpidvc suggest` on a large pair, and the share of an image that is decoded."""
    from compare import measure as measured

    from mpidvc.images.image import ArrayImage, open_image
    from mpidvc.images.source import Source
    from mpidvc.main import main

    with tempfile.TemporaryDirectory() as folder:
        names = large_volume(edge, Path(folder))
        decoded = {}
        read = Source.read_box

        def counted(self, low, high):
            part, inside = read(self, low, high)
            if isinstance(self, ArrayImage):
                # a box that has been read
                return part, inside
            decoded[self.path] = decoded.get(self.path, 0) + part.size
            return part, inside

        Source.read_box = counted
        try:
            main(["suggest", *names, "--json", "-np", "1"])
        finally:
            Source.read_box = read
        share = max(decoded.values()) / np.prod(open_image(names[0]).shape, dtype=float)
        mpidvc_command = str(Path(sys.executable).with_name("mpidvc"))
        run = measured([mpidvc_command, "suggest", *names, "-np", "2"], Path(folder))
    return run.wall, run.cpu, share


def table(head, rows):
    """Markdown."""
    cells = [[f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *cells)]
    return "\n".join(lines)


def report(targets, free, ratios, large, realisations, arguments):
    """The text of the page."""
    wide = [value for row in ratios if row[3] >= FEATURES for value in row[4:]]
    inside = np.mean([abs(value - 1) <= WITHIN for value in wide])
    text = f"""# Suggested windows compared with the best ones

Written by `{shlex.join(["benchmarks/suggest.py", *arguments])}`: every figure here comes from one run on one machine.
Do not edit.

Made volumes of {EDGE}³ voxels. "Smallest" is the smallest window whose random error, measured over {realisations}
realisations of the noise, is the target or less at 95 % of the nodes.

{table(("volume", "noise from", "target", "smallest -hws", "suggested", f"within {NEAR}"), targets)}

Without a target, with image 2: the window with the least true error (root mean square against the exact displacement,
voxels), and the true error of the suggested one over it.

{table(("volume", "best -hws", "its error", "suggested", "ratio", f"at most {WORSE:g}"), free)}

Predicted over measured random errors at half and at 95 % of the nodes. In windows of {FEATURES} features of the texture
and more {100 * inside:.0f} % of the ratios are within {100 * WITHIN:.0f} %; they go from {min(wide):.2f} to
{max(wide):.2f}. In smaller ones the nodes that have nearly no texture are predicted too badly.

{table(("volume", "noise from", "-hws", "features", "median", "95 %"), ratios)}
"""
    if large is not None:
        wall, cpu, share = large
        text += f"""
A pair of 1000³ voxels on two processes: {cpu:.1f} CPU seconds, {wall:.0f} s on a machine that had other work to do;
{100 * share:.1f} % of the voxels of an image are decoded.
"""
    return text


def main_of(arguments):
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--realisations", type=int, default=12, help="of the noise (default: 12)")
    parser.add_argument("--per-axis", type=int, default=4, help="nodes along each axis (default: 4)")
    parser.add_argument("--large", type=int, default=1000, help="edge of the large pair, 0: none (default: 1000)")
    parser.add_argument(
        "--volumes", type=int, nargs="+", default=list(range(len(VOLUMES))), help="numbers of the volumes"
    )
    parser.add_argument("--processes", type=int, default=1, help="volumes at the same time (default: 1)")
    parser.add_argument("--print", action="store_true", help="print the page instead of writing it")
    args = parser.parse_args(arguments)
    targets, free, ratios = [], [], []
    with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
        asked = [
            pool.submit(compare, VOLUMES[number], EDGE, args.realisations, args.per_axis) for number in args.volumes
        ]
        for done in asked:
            for into, part in zip((targets, free, ratios), done.result(), strict=True):
                into += part
    large = time_of_large(args.large) if args.large else None
    text = report(targets, free, ratios, large, args.realisations, arguments)
    if args.print:
        print(text)
    else:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main_of(sys.argv[1:])
