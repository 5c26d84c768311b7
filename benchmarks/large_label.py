#!/usr/bin/env python3
"""One huge label among many small ones: on two processes mpidvc ddic has the same bytes as on one, and shares the work.

    python benchmarks/large_label.py --work /tmp/bench                        # a cube of 500³ beside 10 000 of 10³
    python benchmarks/large_label.py --work /tmp/bench --edge 160 --small 500

The images are a periodic texture and the same moved by its Fourier series: the displacement of every label is known.
Prints a table, and ends with status 1 if bytes differ or a label is not where it should be.
"""

from pathlib import Path

import numpy as np
import tifffile
from compare import measure, options_for, table
from scipy import ndimage

#: Edge of the texture's period, of small labels, and of the cells in which these lie; voxels around the huge one.
PERIOD, SMALL, CELL, AROUND = 64, 10, 14, 20
DISPLACEMENT = (0.4, -0.3, 0.6)
#: Largest error of a displacement, voxels, with linear interpolation: of the huge label, and of small ones.
HUGE_LIMIT, SMALL_LIMIT = 0.02, 0.1


def textures():
    """A period of image 1 and of image 2, uint8."""
    noise = np.random.default_rng(1).normal(size=(PERIOD,) * 3)
    smooth = ndimage.gaussian_filter(noise, 2.0, mode="wrap")
    series = np.fft.fftn(smooth)
    waves = np.meshgrid(*[np.fft.fftfreq(PERIOD)] * 3, indexing="ij")
    phase = sum(wave * u for wave, u in zip(waves, DISPLACEMENT, strict=True))
    moved = np.fft.ifftn(series * np.exp(-2j * np.pi * phase)).real
    scale = 30 / smooth.std()
    return [np.clip(np.rint(120 + scale * part), 0, 255).astype(np.uint8) for part in (smooth, moved)]


def labels_of(edge, small):
    """The labels: a cube with the number 1, and behind it cells with a smaller one each."""
    side = edge + 2 * AROUND
    across = side // CELL
    layers = -(-small // across**2)
    labels = np.zeros((side, side, side + layers * CELL + AROUND), np.uint16)
    labels[AROUND : AROUND + edge, AROUND : AROUND + edge, AROUND : AROUND + edge] = 1
    cells = np.stack(np.unravel_index(np.arange(small), (layers, across, across)), axis=1)
    for k, (x, z, y) in enumerate((cells * CELL).tolist()):
        labels[z + 2 : z + 2 + SMALL, y + 2 : y + 2 + SMALL, side + x : side + x + SMALL] = k + 2
    return labels


def main():
    parser = options_for(__doc__, spam=False)
    parser.add_argument("--edge", type=int, default=500, help="of the huge label, voxels")
    parser.add_argument("--small", type=int, default=10_000, help="number of small labels")
    args = parser.parse_args()
    work, labels = args.work, labels_of(args.edge, args.small)
    files = [str(work / f"large-{name}.tif") for name in ("im1", "lab1", "im2")]
    times = [-(-n // PERIOD) for n in labels.shape]
    one, two = (np.tile(part, times)[tuple(map(slice, labels.shape))] for part in textures())
    for file, image in zip(files, (one, labels, two), strict=True):
        tifffile.imwrite(file, image, photometric="minisblack", metadata={"axes": "ZYX"})
    del one, two
    print(f"images of {' × '.join(map(str, labels.shape))} voxels", flush=True)
    rows, contents = [], []
    for ranks in (1, 2):
        where = ["-np", str(ranks), "-od", str(work), "-pre", f"large{ranks}", "--overwrite"]
        run = measure([args.mpidvc, "ddic", *files, *where], work)
        contents.append([Path(work / f"large{ranks}-ddic.{end}").read_bytes() for end in ("h5", "tsv", "vtk")])
        rows.append((ranks, run.wall, run.timings["stages"]["points"], run.timings["ranks_cpu"], run.memory))
    field = np.genfromtxt(work / "large1-ddic.tsv", names=True)[1:]
    found = np.stack([field[f"{axis}disp"] for axis in "ZYX"], axis=1)
    errors = np.abs(found - DISPLACEMENT).max(axis=1)
    columns = {"processes": lambda r: r[0], "whole process s": lambda r: r[1], "label stage s": lambda r: r[2]}
    columns |= {"CPU of each s": lambda r: r[3], "peak MB": lambda r: r[4]}
    print(table(rows, columns))
    same, converged = contents[0] == contents[1], int((field["returnStatus"] == 2).sum())
    print(
        f"{converged} of {len(field)} labels converged; largest error of the huge one {errors[0]:.4f} px, of the others"
    )
    print(f"{errors[1:].max():.4f} px; files of one and of two processes: {'the same bytes' if same else 'DIFFERENT'}")
    near = errors[0] <= HUGE_LIMIT and errors[1:].max() <= SMALL_LIMIT
    raise SystemExit(0 if same and near and converged == len(field) else 1)


if __name__ == "__main__":
    main()
