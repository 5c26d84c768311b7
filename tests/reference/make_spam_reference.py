#!/usr/bin/env python3
"""Make the reference of the parity tests: what spam 0.9.1 answers to our small images.

    python tests/reference/make_spam_reference.py --spam /path/to/venv/bin            # results only
    python tests/reference/make_spam_reference.py --spam /path/to/venv/bin --inputs   # images and masks as well
    python tests/reference/make_spam_reference.py --spam /path/to/venv/bin --only pixelSearch   # of one command

The images are committed, so that the reference never hangs on the last digit of a sum. Every case runs in this
directory as `spam-<command> <args> -od results/<name>`; `cases.json` tells the tests the same.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

SHAPE_3D, SHAPE_2D = (60, 64, 68), (1, 150, 160)
MOTION = {"rotation": (1.0, 0.8, -0.8), "strain": (0.006, -0.008, 0.004), "translation": (0.4, -0.5, 0.6)}
HEADER = ["NodeNumber", "Zpos", "Ypos", "Xpos", "Fzz", "Fzy", "Fzx", "Zdisp", "Fyz", "Fyy", "Fyx", "Ydisp"]
HEADER += ["Fxz", "Fxy", "Fxx", "Xdisp", "error", "iterations", "returnStatus", "deltaPhiNorm"]

# What a test may ask for, at nodes whose windows 1 and 2 lie wholly inside the images.
AGREEMENT = {
    "tight": "same formulas: Phi to single precision, equal iterations and status",
    "spline": "order 3: each program has its own border of the spline prefilter; iterations equal at nearly all nodes",
    "converged": "another way to the same minimum: Phi to the convergence threshold, iterations may differ",
    "status": "status equal; Phi where the status is 2",
    "search": "pixel search of images around grey level 0: displacements and F equal, CC to spam's square root, error",
    "ignored": "spam takes the option but does nothing with it (NOTES.md): no parity",
}

REG = "results/reg/im1-im2-registration.tsv"
REG_2D = "results/reg-2d-bb1/flat1-flat2-registration.tsv"
GRID = "-ns 10 -hws 6"
REG_CASES = [
    # name, arguments, agreement
    ("reg", "im1 im2", "tight"),
    ("reg-rig", "im1 im2 -rig", "tight"),
    ("reg-ug", "im1 im2 -ug -bb 1", "tight"),
    ("reg-o3", "im1 im2 -o 3", "spline"),
    ("reg-bb1-m5", "im1 im2 -bb 1 -m 5", "tight"),
    ("reg-gaussian", "im1 im2 -gm gaussian -gs 1.5", "ignored"),
    ("reg-mask", "im1 im2 -mf1 images/mask.tif", "tight"),
    ("reg-shift", "im1 im2 -shift", "tight"),
    ("reg-shift-o3-ug", "im1 im2 -shift -o 3 -ug -bb 1", "spline"),
    ("reg-pf", "im1 im2 -pf guess-registration.tsv", "tight"),
    ("reg-pf-rig", "im1 im2 -pf guess-registration.tsv -rig -bb 1", "tight"),
    ("reg-it2", "im1 im2 -bb 1 -it 2", "tight"),
    ("reg-2d", "flat1 flat2", "converged"),  # spam bins 2D images without averaging
    ("reg-2d-bb1", "flat1 flat2 -bb 1", "tight"),
    ("reg-2d-o3", "flat1 flat2 -bb 1 -o 3", "spline"),
    ("reg-2d-shift", "flat1 flat2 -bb 1 -shift", "tight"),
]
LDIC_CASES = [
    ("ldic", f"im1 im2 {GRID} -pf {REG}", "tight"),
    ("ldic-noguess", f"im1 im2 {GRID}", "tight"),
    ("ldic-o3", f"im1 im2 {GRID} -pf {REG} -o 3", "spline"),
    ("ldic-ug", f"im1 im2 {GRID} -pf {REG} -ug", "tight"),
    ("ldic-rig", f"im1 im2 {GRID} -pf {REG} -rig", "tight"),
    ("ldic-F-no", f"im1 im2 {GRID} -pf {REG} -F no", "tight"),
    ("ldic-F-rigid", f"im1 im2 {GRID} -pf {REG} -F rigid", "tight"),
    ("ldic-mask-mc03", f"im1 im2 {GRID} -pf {REG} -mf1 images/mask.tif -mc 0.3", "tight"),
    ("ldic-mask-mc05", f"im1 im2 {GRID} -pf {REG} -mf1 images/mask.tif -mc 0.5", "tight"),
    ("ldic-grey", f"im1 im2 {GRID} -pf {REG} -glt 22500 -ght 23400", "tight"),
    ("ldic-m4", f"im1 im2 {GRID} -pf {REG} -m 4", "tight"),
    ("ldic-m3", f"im1 im2 {GRID} -pf {REG} -m3 2 3 4", "tight"),
    ("ldic-anisotropic", f"im1 im2 -ns3 12 14 10 -hws3 4 6 7 -pf {REG}", "tight"),
    ("ldic-it3", f"im1 im2 {GRID} -it 3 -dp 1e-5", "tight"),
    ("ldic-shift", f"im1 im2 {GRID} -pf {REG} -shift", "tight"),
    ("ldic-field", "im1 im2 -hws 6 -pf guess-field.tsv", "tight"),
    ("ldic-skip", "im1 im2 -hws 6 -pf guess-skip.tsv -skp", "tight"),
    ("ldic-pfb2", f"im1 im2 {GRID} -pf guess-binned.tsv -pfb 2", "tight"),
    ("ldic-series", f"im1 im2 im3 -ns 15 -hws 6 -pf {REG}", "tight"),
    ("ldic-series-sei", "im1 im2 im3 -ns 15 -hws 6 -sei", "tight"),
    ("ldic-far", "im1 im3 -ns 15 -hws 6", "status"),
    ("ldic-files", f"im1 im2 -ns 14 -hws 6 -pf {REG} -vtk -tif", "tight"),
    ("ldic-2d", f"flat1 flat2 -ns 15 -hws 9 -pf {REG_2D}", "tight"),
    ("ldic-2d-o3", f"flat1 flat2 -ns 15 -hws 9 -pf {REG_2D} -o 3", "spline"),
    ("ldic-2d-ns3", f"flat1 flat2 -ns3 7 20 25 -hws3 4 9 7 -pf {REG_2D}", "tight"),
    ("ldic-2d-files", f"flat1 flat2 -ns 20 -hws 9 -pf {REG_2D} -vtk -tif", "tight"),
]
# images around 0, where spam's approximate square root (0.2 %) does not change the order of the candidates
SEARCH_CASES = [
    ("search", "float1 float2 -ns 10 -hws 5", "search"),
    ("search-sr", "float1 float2 -ns 10 -hws 5 -sr -1 4 -5 2 0 3", "search"),
    ("search-registration", "float1 float2 -ns 10 -hws 5 -pf guess-search.tsv -sr -2 2 -2 2 -2 2", "search"),
    ("search-F-rigid", "float1 float2 -ns 10 -hws 5 -pf guess-search.tsv -F rigid", "search"),
    ("search-F-no", "float1 float2 -ns 10 -hws 5 -pf guess-search.tsv -F no", "search"),
    ("search-field", "float1 float2 -hws 5 -pf guess-search-field.tsv -sr -2 2 -2 2 -2 2", "search"),
    (
        "search-masks",
        "float1 float2 -ns 8 -hws 4 -mf1 images/floatmask1.tif -mf2 images/floatmask2.tif -mc 0.4",
        "search",
    ),
    ("search-grey", "float1 float2 -ns 8 -hws 4 -glt -3 -ght 4", "search"),
    ("search-anisotropic", "float1 float2 -ns3 9 11 8 -hws3 3 5 4 -sr -3 4 -3 3 -4 3", "search"),
    ("search-files", "float1 float2 -ns 12 -hws 5 -vtk -tif", "search"),
    ("search-2d", "floatflat1 floatflat2 -ns 12 -hws 8 -sr -9 9 -4 4 -3 5", "search"),
    ("search-2d-files", "floatflat1 floatflat2 -ns 20 -hws 8 -vtk -tif", "search"),
]
SEARCH_MASKS = "-mf1 images/floatmask1.tif -mf2 images/floatmask2.tif"
# spam cannot do 2D images nor -gp
PROPAGATE_CASES = [
    ("propagate", "float1 float2 -sp 17 19 21 1 -1 1 -hws 5 -ns 8", "search"),
    ("propagate-far", "float1 float2 -sp 12 28 30 1 0 1 -hws 4 -ns 7 -sr -2 2 -2 2 -2 2 -nr 15 -gwd 6", "search"),
    (
        "propagate-masks",
        f"float1 float2 -sp 17 19 21 1 -1 1 -ns 8 -hws 4 {SEARCH_MASKS} -mc 0.4 -cct 0.8 -nr 9",
        "search",
    ),
    ("propagate-files", "float1 float2 -sp 17 19 21 1 -1 1 -hws 5 -ns 12 -vtk -tif", "search"),
]


def write_tsv(name, rows):
    lines = ["\t".join(HEADER), *("\t".join(f"{v:.7f}" for v in row) for row in rows)]
    (HERE / name).write_text("\n".join(lines) + "\n")


def read_tsv(name):
    return np.loadtxt(HERE / name, skiprows=1, delimiter="\t", ndmin=2)


def registration_row(centre, F, t):
    return [1.0, *centre, *np.column_stack([F, t]).ravel(), 1.0, 1.0, 2.0, 1e-4]


def save_image(name, array):
    axes = "ZYX" if array.ndim == 3 else "YX"
    options = {"photometric": "minisblack", "compression": "zlib", "compressionargs": {"level": 9}}
    tifffile.imwrite(HERE / "images" / name, array, metadata={"axes": axes}, **options)


def make_images():
    """Write the images, the mask and the guess that is no result of spam's."""
    from mpidvc.core.analytic import AnalyticPair

    (HERE / "images").mkdir(exist_ok=True)
    for names, shape in ((("im1", "im2", "im3"), SHAPE_3D), (("flat1", "flat2"), SHAPE_2D)):
        for step, name in enumerate(names):
            motion = {key: tuple(0.8 * max(step - 1, 0) * v + v for v in value) for key, value in MOTION.items()}
            pair = AnalyticPair(shape, seed=7, amplitude=0.15, wavelength=60.0, mean=0.35, contrast=0.09, **motion)
            image = pair.image2() if step else pair.image1()
            save_image(f"{name}.tif", image if shape[0] > 1 else image[0])
    z, y, x = np.indices(SHAPE_3D) - np.reshape([29.5, 31.5, 33.5], (3, 1, 1, 1))
    save_image("mask.tif", ((z / 40) ** 2 + (y / 24) ** 2 + (x / 30) ** 2 < 1).astype(np.uint8))
    F = [[1.0, 0.01, 0.01], [-0.015, 0.995, -0.02], [-0.01, 0.015, 1.005]]
    write_tsv("guess-registration.tsv", [registration_row((29.5, 31.5, 33.5), F, (0.8, -0.9, 0.2))])


def make_search_images():
    """Write the images of the pixel search, whole numbers around 0 stored as floats, their masks and guesses."""
    from mpidvc.core.analytic import AnalyticPair

    motion = {"rotation": (1.0, 0.5, -0.5), "strain": (0.01, -0.01, 0.005), "translation": (1.2, -0.8, 0.7)}
    for name, shape in (("float", (36, 40, 44)), ("floatflat", (1, 90, 96))):
        pair = AnalyticPair(shape, seed=9, amplitude=0.15, wavelength=60.0, mean=0.35, contrast=0.09, **motion)
        for k, image in enumerate((pair.image1(), pair.image2())):
            grey = np.rint((image.astype(np.float64) - 23000) / 200).astype(np.float32)
            save_image(f"{name}{k + 1}.tif", grey if shape[0] > 1 else grey[0])
    z, y, x = np.indices((36, 40, 44)) - np.reshape([17.5, 19.5, 21.5], (3, 1, 1, 1))
    save_image("floatmask1.tif", ((z / 30) ** 2 + (y / 17) ** 2 + (x / 18) ** 2 < 1).astype(np.uint8))
    save_image("floatmask2.tif", ((z / 17) ** 2 + (y / 30) ** 2 + (x / 20) ** 2 < 1).astype(np.uint8))
    F = [[1.02, 0.03, -0.02], [-0.03, 0.99, 0.03], [0.02, -0.03, 1.01]]
    write_tsv("guess-search.tsv", [registration_row((17.5, 19.5, 21.5), F, (1.4, -0.6, 0.8))])
    nodes = [(z, y, x) for z in (10, 18, 26) for y in (12, 22) for x in (14, 22, 30)]
    rows = []
    for k, node in enumerate(nodes):
        grow = np.array(F) if k % 2 else np.eye(3)
        t = (1.5, -0.5 - 0.1 * k, 2.5) if k % 3 else (0.5, -1.5, 0.6)
        rows.append([float(k), *registration_row(node, grow, t)[1:]])
    write_tsv("guess-search-field.tsv", rows)


def make_guesses():
    """Write the guesses that are made of spam's own results."""
    row = read_tsv(REG)[0]
    row[[1, 2, 3, 7, 11, 15]] /= 2
    write_tsv("guess-binned.tsv", [row])
    field = read_tsv("results/ldic/im1-im2-ldic.tsv")
    column = {name: i for i, name in enumerate(HEADER)}
    displacement = [column[f"{axis}disp"] for axis in "ZYX"]
    nan_rows = field.copy()
    nan_rows[np.ix_([3, 40, 77], displacement)] = np.nan
    nan_rows[90, column["Ydisp"]] = np.nan
    write_tsv("guess-field.tsv", nan_rows)
    skip = field.copy()
    for k, status in enumerate((1, -1, -2, -3, -4, -5, -7, 0)):
        skip[40 + 3 * k, column["returnStatus"]] = status
        skip[40 + 3 * k, displacement] += 0.2
    skip[43, column["Xdisp"]] = np.nan
    skip[10, column["iterations"]] = 33
    write_tsv("guess-skip.tsv", skip)


def run(spam, name, command, args):
    """Run one case; the names of its outputs, sorted."""
    out = HERE / "results" / name
    shutil.rmtree(out, ignore_errors=True)
    workers = ["-np", "1"] if command in ("ldic", "pixelSearch") else []
    done = subprocess.run(
        [spam / f"spam-{command}", *args, *workers, "-od", out], cwd=HERE, capture_output=True, text=True
    )
    if done.returncode or not out.is_dir():
        raise SystemExit(f"{name}: spam-{command} failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    for vtk in out.glob("*.vtk"):  # the second line holds the path of the file
        lines = vtk.read_text().split("\n")
        lines[1] = "VTK file from spam: " + vtk.name
        vtk.write_text("\n".join(lines))
    return sorted(path.name for path in out.iterdir())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spam", type=Path, required=True, help="directory of spam-reg and spam-ldic, version 0.9.1")
    parser.add_argument("--inputs", action="store_true", help="make the images again, too")
    parser.add_argument(
        "--only",
        choices=("reg", "ldic", "pixelSearch", "pixelSearchPropagate"),
        help="leave the other commands' cases as they are",
    )
    options = parser.parse_args()
    if options.inputs:
        if options.only not in ("pixelSearch", "pixelSearchPropagate"):
            make_images()
        make_search_images()
    cases = []
    commands = {
        "reg": REG_CASES,
        "ldic": LDIC_CASES,
        "pixelSearch": SEARCH_CASES,
        "pixelSearchPropagate": PROPAGATE_CASES,
    }
    for command, listed in commands.items():
        if options.only not in (None, command):
            known = json.loads((HERE / "cases.json").read_text())["cases"]
            cases += [case for case in known if case["command"] == command]
            continue
        for name, line, agreement in listed:
            if name == "ldic-field":
                make_guesses()
            images = {"im1", "im2", "im3", "flat1", "flat2", "float1", "float2", "floatflat1", "floatflat2"}
            args = [f"images/{word}.tif" if word in images else word for word in line.split()]
            outputs = run(options.spam, name, command, args)
            inputs = [word for word in args if word.endswith((".tif", ".tsv"))]
            cases.append(
                {
                    "name": name,
                    "command": command,
                    "args": args,
                    "inputs": inputs,
                    "outputs": outputs,
                    "agreement": agreement,
                }
            )
            print(name, *outputs, flush=True)
    text = json.dumps({"spam": "0.9.1", "agreement": AGREEMENT, "cases": cases}, indent=1)
    (HERE / "cases.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
