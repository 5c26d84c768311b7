#!/usr/bin/env python3
"""Make the reference of ddic: the answers of spam 0.9.1 to a small packing of analytic spheroids.

    python tests/reference/make_ddic_reference.py --spam /path/to/venv/bin            # results only
    python tests/reference/make_ddic_reference.py --spam /path/to/venv/bin --inputs   # images as well

Images, labels and the guess are committed. Every case runs in `ddic` as `spam-ddic im1.tif labels.tif im2.tif <args>`;
its TSV file is named as the case. Spheroids are point-symmetric, and no grain comes near another one's window: spam's
F is free of its faults there, and its displacement is that of the middle of the bounding box.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "ddic"
sys.path.insert(0, str(HERE.parents[1]))

CASES = {
    "rigid": "",
    "rigid-o3": "-o 3",
    "nr": "-nr",
    "nr-o3": "-nr -o 3",
    "moved": "-pf guess.tsv -ld 0 -m 3",
    "threshold": "-ld 2 -vt 1500 -it 3",
}


def save(name, array):
    options = {"photometric": "minisblack", "compression": "zlib", "compressionargs": {"level": 9}}
    tifffile.imwrite(FOLDER / name, array, **options)


def make_inputs():
    from mpidvc.core.deformation import rotation_matrix
    from mpidvc.core.grains import AnalyticGrains

    motion = {"displacement": 1.2, "rotation": 4.0, "translation": (0.6, -0.4, 0.5)}
    apart = {"touching": 0.0, "gap": 3.0, "margin": 8.0}
    grains = AnalyticGrains((84, 88, 92), 30, seed=2, kind="ellipsoids", radii=(5.0, 6.0), **motion, **apart)
    for name, image in (("im1.tif", grains.image1()), ("im2.tif", grains.image2())):
        save(name, np.rint(image.astype(np.float64) / 400).astype(np.float32))
    labels = grains.labels1()
    # a number without a voxel
    labels[labels == 7] = 0
    save("labels.tif", labels.astype(np.uint8))
    names = "NodeNumber Zpos Ypos Xpos Fzz Fzy Fzx Zdisp Fyz Fyy Fyx Ydisp Fxz Fxy Fxx Xdisp"
    row = [1.0, 41.5, 43.5, 45.5, *np.column_stack([rotation_matrix((0.5, -1.0, 0.8)), [1.0, -0.4, 1.0]]).ravel()]
    more = {"error": 0, "iterations": 1, "returnStatus": 2, "deltaPhiNorm": 1e-4}
    text = ["\t".join([*names.split(), *more]), "\t".join(f"{v:.7f}" for v in [*row, *more.values()])]
    (FOLDER / "guess.tsv").write_text("\n".join(text) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spam", type=Path, required=True, help="directory of spam-ddic, version 0.9.1")
    parser.add_argument("--inputs", action="store_true", help="make the images again, too")
    options = parser.parse_args()
    if options.inputs:
        FOLDER.mkdir(exist_ok=True)
        make_inputs()
    for name, line in CASES.items():
        words = ["im1.tif", "labels.tif", "im2.tif", *line.split(), "-np", "1", "-od", ".", "-pre", name]
        done = subprocess.run([options.spam / "spam-ddic", *words], cwd=FOLDER, capture_output=True, text=True)
        found = FOLDER / f"{name}-ddic.tsv"
        if done.returncode or not found.exists():
            raise SystemExit(f"{name}: spam-ddic failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        found.rename(FOLDER / f"{name}.tsv")
        (FOLDER / f"{name}-ddic.vtk").unlink()
        print(name, flush=True)


if __name__ == "__main__":
    main()
