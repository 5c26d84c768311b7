"""How often the coarse search finds random motions, and its CPU time.

    python benchmarks/coarse.py > table.md            # 20 pairs of planes and 5 of volumes
    python benchmarks/coarse.py --volumes 20 --only air

Every pair has a texture in closed form and a random motion: any rotation, a shift by a quarter of the side and a
uniform stretch up to 5 %, unless the kind says more. A motion is found if its rotation is within 1° and its translation
within 2 % of the side: near enough for the levels of reg. In pairs of strangers nothing can be found; the search has to
say that another motion is nearly as good, or to refuse.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np

from mpidvc.core import deformation
from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.coarse import search
from mpidvc.errors import UserError


class Kind(NamedTuple):
    """Pairs of one kind."""

    name: str
    shape: tuple[int, int, int]
    shift: float = 0.25
    stretch: float = 0.05
    noise: float = 0.0
    specimen: bool = False
    scale: float = 1.0
    strangers: bool = False


PLANE, CUBE, PLATE = (1, 240, 240), (96, 96, 96), (30, 120, 140)
KINDS = [
    Kind("fills the image", PLANE),
    Kind("fills the image", CUBE),
    Kind("fine texture", PLANE, scale=0.75),
    Kind("fine texture", CUBE, scale=0.75),
    Kind("coarse texture", PLANE, scale=3),
    Kind("coarse texture", CUBE, scale=2),
    Kind("noise as strong as the texture", PLANE, noise=0.08),
    Kind("noise as strong as the texture", CUBE, noise=0.08),
    Kind("shift of 45 %", PLANE, shift=0.45),
    Kind("shift of 45 %", CUBE, shift=0.45),
    Kind("stretch up to 10 %", PLANE, stretch=0.1),
    Kind("stretch up to 10 %", CUBE, stretch=0.1),
    Kind("thin volume", PLATE),
    Kind("box-shaped specimen in air", PLANE, shift=0.15, specimen=True),
    Kind("box-shaped specimen in air", CUBE, shift=0.15, specimen=True),
    Kind("the same, noise as strong as the texture", PLANE, shift=0.15, specimen=True, noise=0.08),
    Kind("the same, noise as strong as the texture", CUBE, shift=0.15, specimen=True, noise=0.08),
    Kind("strangers", PLANE, strangers=True),
    Kind("strangers", CUBE, strangers=True),
    Kind("strangers in air", CUBE, shift=0.15, specimen=True, strangers=True),
]
#: Half sides of the specimen, shares of the side of the image.
BODY = np.array([0.36, 0.22, 0.26])
#: Largest error of a motion that is found: degrees, and share of the side.
ANGLE, PLACE = 1.0, 0.02


def motion(rng: np.random.Generator, kind: Kind) -> dict[str, object]:
    """A random motion, by the parameters of `AnalyticPair`."""
    two_d = kind.shape[0] == 1
    side = float(np.prod(kind.shape[two_d:]) ** (1 / (2 if two_d else 3)))
    strain = rng.uniform(-kind.stretch, kind.stretch)
    if two_d:
        turn = np.array([rng.uniform(-180, 180), 0, 0])
    else:
        # a uniform unit quaternion
        q = rng.standard_normal(4)
        q *= np.sign(q[0]) / np.linalg.norm(q)
        turn = 2 * np.degrees(np.arccos(q[0])) * q[1:] / np.linalg.norm(q[1:])
    shift = rng.standard_normal(3) * (np.array([not two_d, 1, 1]))
    shift *= kind.shift * side / np.linalg.norm(shift)
    return {"rotation": turn, "strain": (strain * (not two_d), strain, strain), "translation": shift}


def images(kind: Kind, seed: int, moved: dict[str, object]) -> tuple[AnalyticPair, list[np.ndarray]]:
    """A pair of such a kind as float32."""
    texture = {"spacing": 5.0 * kind.scale, "radii": (4.0 * kind.scale, 7.0 * kind.scale)}
    settings = {"amplitude": 0.0, "noise": kind.noise, "dtype": np.float32, "around": 0.9, **texture}
    pair = AnalyticPair(kind.shape, seed=seed, **settings, **moved)
    other = AnalyticPair(kind.shape, seed=seed + 1000, **settings, **moved) if kind.strangers else pair
    found = [pair.image1(), other.image2()]
    if kind.specimen:
        grid = np.stack(np.meshgrid(*[np.arange(n, dtype=float) for n in kind.shape], indexing="ij"), axis=-1)
        centre = (np.array(kind.shape) - 1) / 2
        body = BODY * max(kind.shape) + (1e9 * (kind.shape[0] == 1), 0, 0)
        for k, places in enumerate((grid, pair.inverse_phi(grid))):
            # an edge two voxels wide
            depth = (body - np.abs(places - centre)).min(axis=-1)
            inside = np.clip(depth / 2 + 0.5, 0, 1)
            found[k] = found[k] * inside
            if kind.noise:
                found[k] += np.random.default_rng([seed, k]).normal(0, kind.noise, kind.shape) * (1 - inside)
    return pair, [np.ascontiguousarray(image, np.float32) for image in found]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planes", type=int, default=20, help="2D pairs of every kind (default: %(default)s)")
    parser.add_argument("--volumes", type=int, default=5, help="3D pairs of every kind (default: %(default)s)")
    parser.add_argument("--only", default="", help="kinds whose name contains this")
    args = parser.parse_args()
    print("| kind | voxels | pairs | found | wrong and said so | wrong | doubted but right | CPU seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for number, kind in enumerate(KINDS):
        if args.only not in kind.name:
            continue
        counts = {"found": 0, "told": 0, "wrong": 0, "doubted": 0}
        seconds = 0.0
        pairs = args.planes if kind.shape[0] == 1 else args.volumes
        for seed in range(pairs):
            rng = np.random.default_rng([number, seed])
            pair, (im1, im2) = images(kind, seed, motion(rng, kind))
            begun = time.process_time()
            try:
                result = search(im1, im2)
            except UserError:
                result = None
            seconds += time.process_time() - begun
            counts[verdict(kind, pair, result)] += 1
            counts["doubted"] += result is not None and result.doubtful and verdict(kind, pair, result) == "found"
        shape = " × ".join(map(str, kind.shape[kind.shape[0] == 1 :]))
        cells = (kind.name, shape, pairs, *counts.values(), f"{seconds / pairs:.1f}")
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def verdict(kind: Kind, pair: AnalyticPair, result: object) -> str:
    """What became of a search."""
    if result is None:
        return "told"
    phi = result.best.phi
    centre = (np.array(kind.shape) - 1) / 2
    turn = deformation.polar(pair.gradient(centre))[0].T @ deformation.polar(phi[:3, :3])[0]
    angle = np.linalg.norm(deformation.rotation_vector(turn))
    place = np.linalg.norm(phi[:3, 3] - pair.displacement(centre))
    if angle < ANGLE and place < PLACE * max(kind.shape) and not kind.strangers:
        return "found"
    return "told" if result.doubtful else "wrong"


if __name__ == "__main__":
    main()
