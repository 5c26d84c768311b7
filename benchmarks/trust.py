"""Random errors that ldic --sigma tells, against those that are there.

    python benchmarks/trust.py > table.md                         # 3 textures, 4 noises, 2 orders
    python benchmarks/trust.py --only 1.6 --orders 3 --csv z.csv
    python benchmarks/trust.py --orders 3 --hws 5 7 9 11 21       # windows of 9 to 41 voxels
    python benchmarks/trust.py --strain --only 1.6                # errors of strain in dense and in wide grids
    python benchmarks/trust.py --cost 300 7                       # CPU time of ldic with --sigma and without

A texture of the correlation s has the spectrum exp(-k² s² / 2). Image 2 is that texture under a linear field of 1 %
strain, from a spline of degree five on a grid of twice the voxels, whose error is below 1e-4 of the texture. Both
images get noise of their own. An error is the difference from the same run without noise, less its mean: the bias of an
interpolation differs from node to node and is no noise. It is told besides, against the truth. z = error / sigma has to
have a deviation of 1. The formula for white noise, s² M⁻¹, stands beside.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

import mpidvc
from mpidvc.core.analytic import AnalyticPair

Array = NDArray[Any]

TEXTURES = (1.0, 1.6, 3.0)
#: Kind and deviation, in deviations of the texture.
NOISES = (("white", 0.1), ("white", 0.3), ("correlated", 0.1), ("tomogram", 0.2))
FIELD = np.eye(3) + np.array([[0.010, 0.003, 0.0], [0.0, -0.004, 0.002], [0.001, 0.0, 0.005]])
SHIFT = np.array([0.37, -0.28, 0.45])
#: Grey levels: mean and deviation of the texture.
MEAN, CONTRAST = 20000.0, 4000.0
#: Names of the displacements' and F's components, and of their errors.
DISPLACEMENTS = [(f"{a}disp", f"sigma{a}disp") for a in "ZYX"]
GRADIENTS = [(f"F{a}{b}", f"sigmaF{a}{b}") for a in "zyx" for b in "zyx"]


def shape_of(n: int | tuple[int, int, int]) -> tuple[int, int, int]:
    return (n, n, n) if isinstance(n, int) else n


def wave_numbers(n: int | tuple[int, int, int]) -> tuple[Array, Array, Array]:
    nz, ny, nx = shape_of(n)
    z, y, x = (2 * np.pi * each for each in (np.fft.fftfreq(nz), np.fft.fftfreq(ny), np.fft.rfftfreq(nx)))
    return z[:, None, None], y[None, :, None], x[None, None, :]


def made(n: int | tuple[int, int, int], seed: int, factor: Array) -> Array:
    """Noise of unit deviation with this amplitude spectrum."""
    shape = shape_of(n)
    white = np.random.default_rng(seed).standard_normal(shape)
    values = np.fft.irfftn(np.fft.rfftn(white) * factor, shape, (0, 1, 2))
    return np.asarray(values / values.std())


@lru_cache(maxsize=1)
def texture(n: int, s: float) -> tuple[Array, Array]:
    """A texture in both states."""
    first, second = states(n, s, [(np.eye(3), np.zeros(3)), (FIELD, SHIFT)])
    return first, second


def states(n: int, s: float, fields: list[tuple[Array, Array]]) -> list[Array]:
    """A texture under linear fields: F about the middle, and a shift."""
    kz, ky, kx = wave_numbers(n)
    whole = np.fft.rfftn(made(n, 1, np.exp(-(kz**2 + ky**2 + kx**2) * s * s / 2)))
    # twice the voxels along every axis: zeros beyond the highest wave number
    fine = np.zeros((2 * n, 2 * n, n + 1), complex)
    half = n // 2
    for z in (slice(0, half), slice(-half, None)):
        for y in (slice(0, half), slice(-half, None)):
            fine[z, y, : half + 1] = whole[z, y]
    fine = np.fft.irfftn(8 * fine, (2 * n, 2 * n, 2 * n), (0, 1, 2))
    fine = ndimage.spline_filter(fine, 5, mode="grid-wrap")
    centre = (n - 1) / 2
    x = np.indices((n, n, n)).reshape(3, -1) - centre
    found = []
    for F, shift in fields:
        back = np.linalg.inv(F) @ (x - shift[:, None]) + centre
        taken = ndimage.map_coordinates(fine, 2 * back, order=5, mode="grid-wrap", prefilter=False)
        found.append(taken.reshape(n, n, n))
    return found


def noise(n: int | tuple[int, int, int], kind: str, seed: int) -> Array:
    kz, ky, kx = wave_numbers(n)
    if kind == "white":
        return np.random.default_rng(seed).standard_normal(shape_of(n))
    if kind == "correlated":
        return made(n, seed, np.exp(-(kz**2 + ky**2 + kx**2) / 2))
    # as filtered backprojection leaves it: the ramp in the plane with a window, some blur along the axis
    kr = np.sqrt(ky**2 + kx**2)
    return made(n, seed, np.sqrt(kr) * np.cos(np.clip(kr, 0, np.pi) / 2) * np.exp(-(kz**2) * 0.25 / 2))


def image(values: Array) -> Array:
    return np.clip(np.rint(MEAN + CONTRAST * values), 0, 65535).astype(np.uint16)


class Outcome(NamedTuple):
    """Of one texture, noise and order; ranges over components."""

    texture: float
    noise: str
    level: float
    order: int
    window: int
    nodes: int
    observed: float
    u: tuple[float, float]
    F: tuple[float, float]
    beyond: float
    naive: float
    bias: float
    truth: float


def run(im1: Array, im2: Array, order: int, spacing: int, hws: int, **more: Any) -> Any:
    return mpidvc.ldic(
        [im1, im2], node_spacing=spacing, half_window_size=hws, interpolation_order=order, processes=1, **more
    )


def naive_errors(im1: Array, positions: Array, hws: int, level: Array) -> Array:
    """The formula for white noise: s² M⁻¹ with the gradient of image 1 alone."""
    f = im1.astype(np.float64)
    G = np.stack([(np.roll(f, -1, a) - np.roll(f, 1, a)) / 2 for a in range(3)])
    n = 2 * hws - 1
    X = np.ones((4, n, n, n))
    X[:3] = np.indices((n, n, n)) - (n - 1) / 2
    found = []
    for position, s in zip(positions.astype(int), level, strict=True):
        window = tuple(slice(p - hws + 1, p + hws) for p in position)
        J = (G[(slice(None), *window)][:, None] * X[None]).reshape(12, -1)
        found.append(s * np.sqrt(np.diag(np.linalg.inv(J @ J.T)))[[3, 7, 11]])
    return np.array(found)


def judge(s: float, kind: str, level: float, order: int, n: int, spacing: int, hws: int, clean: Any) -> Outcome:
    """Measure one case; `clean`: the field without noise."""
    first, second = texture(n, s)
    im1 = image(first + level * noise(n, kind, 11))
    im2 = image(second + level * noise(n, kind, 12))
    field = run(im1, im2, order, spacing, hws, sigma=True)
    # windows that lie wholly inside
    inner = ((field.positions >= hws + 3) & (field.positions < n - hws - 3)).all(axis=1)
    good = inner & (field["returnStatus"] == 2) & (clean["returnStatus"] == 2)
    truth = (field.positions - (n - 1) / 2) @ (FIELD - np.eye(3)).T + SHIFT

    def z_of(names: list[tuple[str, str]]) -> Array:
        columns = []
        for name, sigma in names:
            error = (field[name] - clean[name])[good]
            columns.append((error - error.mean()) / field[sigma][good])
        return np.stack(columns, axis=-1)

    zu, zf = z_of(DISPLACEMENTS), z_of(GRADIENTS)
    errors = np.stack([field[name] - clean[name] for name, _ in DISPLACEMENTS], axis=-1)[good]
    off = np.stack([clean[name] for name, _ in DISPLACEMENTS], axis=-1)[good] - truth[good]
    whole = np.stack([field[name] for name, _ in DISPLACEMENTS], axis=-1)[good] - truth[good]
    sigma = np.stack([field[name] for _, name in DISPLACEMENTS], axis=-1)[good]
    some = np.flatnonzero(good)[:: max(1, int(good.sum()) // 150)]
    naive = naive_errors(im1, field.positions[some], hws, field["noise"][some])
    return Outcome(
        *(s, kind, level, order, 2 * hws - 1, int(good.sum())),
        float(errors.std(axis=0).mean()),
        (float(zu.std(axis=0).min()), float(zu.std(axis=0).max())),
        (float(zf.std(axis=0).min()), float(zf.std(axis=0).max())),
        float((np.abs(np.concatenate([zu, zf], axis=1)) > 3).mean()),
        float((errors.std(axis=0) / naive.mean(axis=0)).mean()),
        float(np.sqrt((off**2).mean())),
        float(((whole - whole.mean(axis=0)) / sigma).std()),
    )


def judge_strain(s: float, n: int, spacing: int, hws: int) -> None:
    """Print std(z) of small strains and of the change of volume, of all three computations."""
    first, second = texture(n, s)
    modes: dict[str, dict[str, Any]] = {"Q8": {}, "Geers": {"geers": True}, "raw": {"raw": True}}
    names = [*(f"e{pair}" for pair in ("zz", "zy", "zx", "yy", "yx", "xx")), "vol"]

    def strains(folder: str, im1: Array, im2: Array) -> dict[str, Any]:
        run(im1, im2, 3, spacing, hws, sigma=True, out_dir=folder, prefix="pair", overwrite=True)
        path = Path(folder) / "pair-ldic.h5"
        return {
            mode: mpidvc.regular_strain(path, strain_components=["e", "vol"], processes=1, **options)
            for mode, options in modes.items()
        }

    with tempfile.TemporaryDirectory() as folder:
        clean = strains(folder, image(first), image(second))
        for kind, level in (NOISES[0], *NOISES[2:]):
            noisy = strains(
                folder, image(first + level * noise(n, kind, 11)), image(second + level * noise(n, kind, 12))
            )
            cells = [f"{s:g}", f"{kind} {level:g}", f"{2 * hws - 1}³", spacing]
            for mode, found in noisy.items():
                away = hws + 3 + (0 if mode == "raw" else spacing)
                inner = ((found.positions >= away) & (found.positions < n - away)).all(axis=1)
                good = inner & (found["returnStatus"] == 2) & (clean[mode]["returnStatus"] == 2)
                z = [((found[name] - clean[mode][name]) / found[f"sigma{name}"])[good].std() for name in names]
                cells.append(f"{min(z):.2f}…{max(z):.2f}")
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


def cost(edge: int, spacing: int, turns: int = 3) -> None:
    """CPU time per point of ldic with random errors and without, in turns; the least of each."""
    print(f"| order | points | µs a point | with `--sigma` | more | deciding the noise s |\n|{'---|' * 6}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        pair, paths = AnalyticPair((edge,) * 3, seed=300, noise=0.01), [Path(folder, f"im{k}.tif") for k in (1, 2)]
        for path, make in zip(paths, (pair.image1, pair.image2), strict=True):
            tifffile.imwrite(path, make())
        mpidvc.reg(*paths, out_dir=folder)
        whole = Path(folder, "im1-im2-registration.tsv")
        for order in (1, 3):
            least = {False: np.inf, True: np.inf}
            noise, points = np.inf, 0
            for _, sigma in product(range(turns), least):
                out = Path(folder, "out")
                timings = Path(folder, "timings.json")
                words = [sys.executable, "-m", "mpidvc", "ldic", *map(str, paths), "-pf", str(whole), "-np", "1"]
                words += ["-o", str(order), "-ns", str(spacing), "-hws", "10", "-od", str(out), "--overwrite", "-notsv"]
                told = {**os.environ, "MPIDVC_TIMINGS": str(timings)}
                subprocess.run(
                    words + ["--sigma"] * sigma,
                    env=told,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=True,
                )
                found = json.loads(timings.read_text(encoding="utf-8"))
                points = found["points"]
                least[sigma] = min(least[sigma], found["points_cpu"] / points * 1e6)
                noise = min(noise, found["stages"].get("noise", np.inf))
            more = f"{100 * (least[True] / least[False] - 1):.0f} %"
            cells = order, points, f"{least[False]:.1f}", f"{least[True]:.1f}", more, f"{noise:.2f}"
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Calibration of the random errors of ldic.")
    parser.add_argument("--size", type=int, default=128, help="voxels per axis (default: %(default)s)")
    parser.add_argument("--spacing", type=int, default=9)
    parser.add_argument("--hws", type=int, nargs="*", default=(10,), help="half windows")
    parser.add_argument("--only", type=float, nargs="*", default=TEXTURES, help="textures")
    parser.add_argument("--orders", type=int, nargs="*", default=(1, 3))
    parser.add_argument("--csv", type=Path, help="write the numbers there, too")
    parser.add_argument("--cost", type=int, nargs=2, metavar=("EDGE", "SPACING"), help="CPU time, of such a volume")
    parser.add_argument("--strain", action="store_true", help="errors of strain, of some spacings and windows")
    args = parser.parse_args()
    if args.cost:
        cost(*args.cost)
        return
    if args.strain:
        print("| texture | noise | window | node spacing | std(z) of strain: Q8 | Geers | raw |")
        print(f"|{'---|' * 7}", flush=True)
        for s, (spacing, hws) in product(args.only, ((3, 10), (5, 10), (10, 10), (20, 10), (4, 6))):
            judge_strain(s, args.size, spacing, hws)
        return
    rows = []
    titles = ["texture", "noise", "order", "window", "nodes", "observed error of u", "std(z) of u", "of F"]
    titles += ["\\|z\\| > 3", "white-noise formula"]
    print(f"| {' | '.join(titles)} |")
    print(f"|{'---|' * len(titles)}", flush=True)
    for s in args.only:
        first, second = texture(args.size, s)
        for order, hws in product(args.orders, args.hws):
            clean = run(image(first), image(second), order, args.spacing, hws)
            for kind, level in NOISES:
                begun = time.process_time()
                one = judge(s, kind, level, order, args.size, args.spacing, hws, clean)
                rows.append(one)
                numbers = [f"{low:.2f}…{high:.2f}" for low, high in (one.u, one.F)]
                cells = [f"{s:g}", f"{kind} {level:g}", order, f"{one.window}³", one.nodes, f"{one.observed:.4f}"]
                cells += [*numbers, f"{100 * one.beyond:.2f} %", f"{one.naive:.2f}"]
                print(f"| {' | '.join(map(str, cells))} |", flush=True)
                print(f"{time.process_time() - begun:.1f} s", file=sys.stderr)
    print()
    print("| texture | order | window | bias of u without noise | std(z) against the truth |")
    print("|---|---|---|---|---|")
    for s in args.only:
        for order, hws in product(args.orders, args.hws):
            here = [one for one in rows if (one.texture, one.order, one.window) == (s, order, 2 * hws - 1)]
            against = [one.truth for one in here]
            print(f"| {s:g} | {order} | {2 * hws - 1}³ | {here[0].bias:.4f} | {min(against):.2f}…{max(against):.2f} |")
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(Outcome._fields)
            for one in rows:
                writer.writerow([f"{v[0]}:{v[1]}" if isinstance(v, tuple) else v for v in one])


if __name__ == "__main__":
    main()
