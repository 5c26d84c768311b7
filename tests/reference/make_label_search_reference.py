#!/usr/bin/env python3
"""Make the reference of the pixel search of labels: what spam 0.9.1 answers to a small packing of analytic grains.

    python tests/reference/make_label_search_reference.py --spam /path/to/venv/bin            # results only
    python tests/reference/make_label_search_reference.py --spam /path/to/venv/bin --inputs   # images as well

Images, labels and guesses are committed. Every case runs in `label-search` as `spam-pixelSearch im1.tif im2.tif -lab1
labels.tif <args>`, those with a guess of F with full.tif, which misses no number; its TSV file is named as the case.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "label-search"
sys.path.insert(0, str(HERE.parents[1]))

CASES = {
    "plain": "",
    "ld0": "-ld 0 -F no",
    "ld2": "-ld 2 -sr 0 0 0 0 0 0 -F no",
    "range": "-sr -1 4 -4 1 -2 3 -F no",
    "threshold": "-lvt 700 -F no",
    "registration": "-pf guess.tsv -sr -2 2 -2 2 -2 2 -F no",
    "rotated": "-pf guess.tsv -sr -2 2 -2 2 -2 2 -F all",
    "rigid": "-pf guess.tsv -sr -2 2 -2 2 -2 2 -F rigid",
    "vtk": "-vtk",
}


def labels_of(line):
    """Image of the labels of a case."""
    return "full.tif" if "-pf" in line else "labels.tif"


def save(name, array):
    options = {"photometric": "minisblack", "compression": "zlib", "compressionargs": {"level": 9}}
    tifffile.imwrite(FOLDER / name, array, **options)


def make_inputs():
    from mpidvc.core.deformation import rotation_matrix
    from mpidvc.core.grains import AnalyticGrains

    grains = AnalyticGrains(
        (48, 52, 56), 16, seed=4, radii=(4.5, 6.5), displacement=1.5, translation=(1.0, -1.0, 2.0), margin=5.0, gap=1.0
    )
    for name, image in (("im1.tif", grains.image1()), ("im2.tif", grains.image2())):
        save(name, np.rint((image.astype(np.float64) - 12000) / 150).astype(np.float32))
    labels = grains.labels1()
    save("full.tif", labels.astype(np.uint8))
    # a number without a voxel: spam takes no guess with it
    labels[labels == 7] = 0
    save("labels.tif", labels.astype(np.uint8))
    header = "NodeNumber Zpos Ypos Xpos Fzz Fzy Fzx Zdisp Fyz Fyy Fyx Ydisp Fxz Fxy Fxx Xdisp error iterations"
    F = rotation_matrix((2.0, -3.0, 4.0)) @ np.diag([1.02, 0.98, 1.01])
    row = [1.0, 23.5, 25.5, 27.5, *np.column_stack([F, [1.2, -0.9, 1.8]]).ravel(), 0, 1, 2, 1e-4]
    names = [*header.split(), "returnStatus", "deltaPhiNorm"]
    (FOLDER / "guess.tsv").write_text("\t".join(names) + "\n" + "\t".join(f"{v:.7f}" for v in row) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spam", type=Path, required=True, help="directory of spam-pixelSearch, version 0.9.1")
    parser.add_argument("--inputs", action="store_true", help="make the images again, too")
    options = parser.parse_args()
    if options.inputs:
        FOLDER.mkdir(exist_ok=True)
        make_inputs()
    for name, line in CASES.items():
        words = ["im1.tif", "im2.tif", "-lab1", labels_of(line), *line.split(), "-np", "1", "-od", ".", "-pre", name]
        done = subprocess.run([options.spam / "spam-pixelSearch", *words], cwd=FOLDER, capture_output=True, text=True)
        found = FOLDER / f"{name}-pixelSearch.tsv"
        if done.returncode or not found.exists():
            raise SystemExit(f"{name}: spam-pixelSearch failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        found.rename(FOLDER / f"{name}.tsv")
        if "-vtk" in words:
            (FOLDER / f"{name}-pixelSearch.vtk").rename(FOLDER / f"{name}.vtk")
        print(name, flush=True)


if __name__ == "__main__":
    main()
