#!/usr/bin/env python3
"""Make the reference of passPhiField: what spam 0.9.1 answers to a small field, a registration and three balls.

    python tests/reference/make_pass_reference.py --spam /path/to/venv/bin            # results only
    python tests/reference/make_pass_reference.py --spam /path/to/venv/bin --inputs   # fields and labels as well

Inputs are committed. Every case runs in `pass` as `spam-passPhiField <args> -pre <case>`; its TSV file is named as the
case. The points of field.tsv are
scattered: of equally near neighbours spam takes others. Those of nodes.tsv, which labels are merged into, are whole
numbers, since spam moves the Phi of a label to the truncated position.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "pass"
sys.path.insert(0, str(HERE.parents[1]))

SIZE = "-im1shape 40 50 48"
CASES = {
    "radius": f"-pf field.tsv -ns3 11 12 13 {SIZE}",
    "nearest": f"-pf field.tsv -ns 15 -nn 4 {SIZE}",
    "rigid": f"-pf field.tsv -ns 15 -nn 6 -F rigid -rst 2 {SIZE}",
    "surrounded": f"-pf field.tsv -ns 12 -nr 13 -cps -F no {SIZE}",
    "labels": "-pf field.tsv -lab1 labels.tif",
    "registration": f"-pf registration.tsv -ns 15 {SIZE}",
    "registration-labels": "-pf registration.tsv -lab1 labels.tif -F rigid",
    "less": "-pf field.tsv -regs registration.tsv",
    "less-all": "-pf field.tsv -regs registration.tsv -regsF all",
    "less-no": "-pf field.tsv -regs registration.tsv -regsF no",
    "merged": "-pf nodes.tsv -pf2 labels.tsv -lab1 labels.tif",
    "merged-labels": "-pf nodes.tsv -pf2 labels.tsv -lab1 labels.tif -mpl",
}
CENTRES = np.array([[12.0, 14, 16], [26, 25, 14], [25, 36, 33]])


def write(name, positions, phi, status, first="NodeNumber", begin=0):
    from mpidvc.fields.phifield import PHI, POSITIONS

    names = (first, *POSITIONS, *PHI, "error", "iterations", "returnStatus", "deltaPhiNorm")
    with (FOLDER / name).open("w") as file:
        file.write("\t".join(names) + "\n")
        for k in range(len(positions)):
            row = [begin + k, *positions[k], *phi[k, :3].ravel(), 0.5, 4, status[k], 1e-4]
            file.write("\t".join(f"{value:.7f}" for value in row) + "\n")


def make_inputs():
    from mpidvc.core.deformation import compute_phi

    random = np.random.default_rng(11)
    axes = np.arange(9, 40, 9), np.arange(11, 50, 11), np.arange(13, 48, 13)
    positions = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    positions = positions + np.round(random.uniform(-1, 1, positions.shape), 3)
    phi = np.tile(np.eye(4), (len(positions), 1, 1))
    phi[:, :3] += random.normal(0, 0.02, (len(positions), 3, 4)) * [1, 1, 1, 30]
    status = random.choice([2, 2, 2, 1, -1, -5], len(positions))
    write("field.tsv", positions, phi, status)
    write("nodes.tsv", np.rint(positions), phi, status)
    registration = compute_phi((1, 2, -1), (3, -2, 4), np.diag([1.01, 0.98, 1.03]))
    write("registration.tsv", np.array([[19.5, 24.5, 23.5]]), registration[None], [2], begin=1)
    z, y, x = np.indices((40, 50, 48))
    labels = np.zeros((40, 50, 48), np.uint8)
    rows, values = np.zeros((4, 3)), np.tile(np.eye(4), (4, 1, 1))
    for k, centre in enumerate(CENTRES, 1):
        labels[(z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= 64] = k
        rows[k], values[k] = centre, compute_phi((k, -k, 0.5 * k), (k, 2, -1), np.diag([1.01, 1.0, 0.99]))
    tifffile.imwrite(FOLDER / "labels.tif", labels, photometric="minisblack", compression="zlib")
    write("labels.tsv", rows, values, [0, 2, 1, 2], "Label")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spam", type=Path, required=True, help="folder of spam's scripts")
    parser.add_argument("--inputs", action="store_true", help="make the inputs as well")
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    if args.inputs:
        make_inputs()
    for name, line in CASES.items():
        with tempfile.TemporaryDirectory() as out:
            command = [args.spam / "spam-passPhiField", *line.split(), "-np", "1", "-od", out, "-pre", name]
            subprocess.run(command, cwd=FOLDER, check=True, stdout=subprocess.DEVNULL)
            (written,) = Path(out).glob("*.tsv")
            (FOLDER / f"answer-{name}.tsv").write_bytes(written.read_bytes())


if __name__ == "__main__":
    main()
