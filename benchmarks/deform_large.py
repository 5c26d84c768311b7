#!/usr/bin/env python3
"""A large image deformed by a field within little memory, checked on some planes.

    python benchmarks/deform_large.py --scratch DIR [--edge 1024] [--memory 2G] [-np 2]

The uint16 image and the field are made in DIR. Prints the time and the peak memory of every rank. Planes of the result
are computed again by scipy (its k-d tree and its linear interpolation). Ends with an error if a plane differs by more
than one grey level, or the ranks have used more memory than `--memory`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import tifffile
from out_of_core import on_ranks, tiles, write
from scipy import ndimage
from scipy.spatial import cKDTree

from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import read_tsv, write_tsv
from mpidvc.runtime.memory import parse_size

SPACING, NEAREST = 20, 8


def write_field(path: Path, edge: int) -> None:
    """Displacements of up to 3 voxels with their gradients at the nodes of a grid; noise leaves no two equally near."""
    axis = np.arange(SPACING, edge - 1, SPACING, dtype=np.float64)
    positions = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    k = 2 * np.pi / edge
    phi = np.tile(np.eye(4), (len(positions), 1, 1))
    for a in range(3):
        # each component varies along the next axis
        b = (a + 1) % 3
        phi[:, a, 3] = 3 * np.sin(k * positions[:, b])
        phi[:, a, 3] += np.random.default_rng(a).normal(0, 0.01, len(positions))
        phi[:, a, b] += 3 * k * np.cos(k * positions[:, b])
    n = len(positions)
    columns = {
        "error": np.zeros(n),
        "iterations": np.ones(n),
        "returnStatus": np.full(n, 2),
        "deltaPhiNorm": np.zeros(n),
    }
    write_tsv(path, PhiField.from_positions(positions, phi, columns), "LDIC")


def expected_plane(image: np.ndarray, field: PhiField, z: int) -> np.ndarray:
    """Grey levels of a plane of the deformed image; nan outside of the image."""
    t = field.displacements
    inverse = np.linalg.inv(field.F)
    tree = cKDTree(field.positions + t)
    ny, nx = image.shape[1:]
    out = np.empty((ny, nx))
    for low in range(0, ny, 128):
        rows = np.arange(low, min(low + 128, ny))
        voxels = np.stack(np.meshgrid([z], rows, np.arange(nx), indexing="ij"), -1).reshape(-1, 3).astype(float)
        distance, near = tree.query(voxels, NEAREST)
        weight = 1 / (distance + 1e-6)
        # F⁻¹ (v - X - t) - (v - X) of every neighbour
        about = voxels[:, None] - field.positions[near]
        moved = np.einsum("nkij,nkj->nki", inverse[near], about - t[near]) - about
        places = voxels + (weight[..., None] * moved).sum(axis=1) / weight.sum(axis=1)[:, None]
        first = max(int(np.floor(places[:, 0].min())), 0)
        last = min(int(np.ceil(places[:, 0].max())) + 1, image.shape[0])
        part = image[first:last].astype(np.float32)
        found = ndimage.map_coordinates(part, (places - [first, 0, 0]).T, order=1, cval=np.nan, output=np.float64)
        inside = ((places >= 0) & (places <= np.array(image.shape) - 1)).all(axis=1)
        out[rows] = np.where(inside, found, np.nan).reshape(len(rows), nx)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the images")
    parser.add_argument("--edge", type=int, default=1024, help="of the image, voxels (default: %(default)s)")
    parser.add_argument("--memory", default="2G")
    parser.add_argument("-np", dest="processes", type=int, default=2)
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    edge = options.edge
    image, field = options.scratch / f"large-{edge}.tif", options.scratch / f"large-{edge}.tsv"
    write_field(field, edge)
    if not image.exists():
        write(image, tiles()[0], edge)
    words = ["deformImage", str(image), "-pf", str(field), "--memory", options.memory]
    seconds, peaks, told = on_ranks(options.processes, words)
    print(told)
    print(
        f"{edge}³ voxels, {len(peaks)} ranks: {seconds:.0f} s, {1e9 * seconds / edge**3:.0f} ns/voxel; peaks "
        f"{' '.join(f'{peak / 1e6:.0f}' for peak in peaks)} MB, together {sum(peaks) / 1e6:.0f} MB",
        flush=True,
    )
    found, given = tifffile.memmap(image.with_name(f"{image.stem}-def.tif"), mode="r"), read_tsv(field)
    whole = tifffile.memmap(image, mode="r")
    worst = 0.0
    for z in (0, 1, edge // 3, edge // 2, edge - 2):
        expected = expected_plane(whole, given, z)
        there = np.isfinite(expected)
        apart = np.abs(found[z].astype(float) - np.where(there, expected, 0.0))
        worst = max(worst, float(apart.max()))
        print(f"plane {z}: {100 * there.mean():.1f} % filled, largest difference {apart.max():.3f} grey levels")
    if worst > 1:
        sys.exit("the planes differ")
    if sum(peaks) > parse_size(options.memory):
        sys.exit(f"the ranks have used {sum(peaks) / 1e6:.0f} MB, more than {options.memory}")


if __name__ == "__main__":
    main()
