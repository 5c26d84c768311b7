#!/usr/bin/env python3
"""Make the reference of regularStrain: what spam 0.9.1 answers to two small fields.

    python tests/reference/make_strain_reference.py --spam /path/to/venv/bin            # results only
    python tests/reference/make_strain_reference.py --spam /path/to/venv/bin --inputs   # fields as well

Fields and results are committed. Every case runs in `strain` as `spam-regularStrain -pf <field>.tsv <args> -np 1`, with
all components; its TSV file is named as the case. Spacing is the same along all axes and stretches differ, and a test
may compare Geers strain only at nodes with all their neighbours: elsewhere spam's answer is wrong.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "strain"
sys.path.insert(0, str(HERE.parents[1]))

COMPONENTS = "vol dev volss devss r z Up U e"
#: Field and options of every case.
CASES = {
    "solid-Q8": ("solid", ""),
    "solid-Geers": ("solid", "-g"),
    "solid-raw": ("solid", "-raw"),
    "solid-all-Q8": ("solid", "-nomaskBad"),
    "flat-Q4": ("flat", ""),
    "flat-Geers": ("flat", "-g"),
    "flat-raw": ("flat", "-raw"),
}


def make_field(name, dims, spacing, seed):
    from mpidvc.fields.phifield import PhiField
    from mpidvc.fields.tsv import write_tsv

    rng = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(*map(np.arange, dims), indexing="ij"), axis=-1).reshape(-1, 3)
    positions = (index + 1.0) * spacing
    if dims[0] == 1:
        positions[:, 0] = 0
    phi = np.tile(np.eye(4), (len(positions), 1, 1))
    gradient = np.array([[0.03, 0.12, -0.05], [-0.10, -0.06, 0.04], [0.02, -0.07, 0.09]])
    local = 0.02 * rng.normal(size=(len(positions), 3, 3))
    if dims[0] == 1:
        gradient[0] = gradient[:, 0] = local[:, 0] = local[:, :, 0] = 0
    phi[:, :3, :3] += gradient + local
    phi[:, :3, 3] = positions @ gradient.T + np.sin(positions[:, ::-1] / 17) * (1.0, 0.6, 0.8) + (1.5, -2.0, 0.5)
    phi[:, 0, 3] *= dims[0] > 1
    status = np.full(len(positions), 2.0)
    # most of them at corners, so that enough nodes have all their neighbours
    status[[0, 2, 20, -1]] = 1, -1, -3, -5
    phi[status == -5, :3, 3] = np.nan
    columns = {
        "error": 0.1 * status**2,
        "iterations": 5 + status,
        "returnStatus": status,
        "deltaPhiNorm": 1e-4 * status,
    }
    write_tsv(FOLDER / f"{name}.tsv", PhiField.from_positions(positions, phi, columns), "LDIC")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spam", required=True, type=Path, help="folder of spam's scripts")
    parser.add_argument("--inputs", action="store_true", help="make the fields as well")
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    if args.inputs:
        make_field("solid", (4, 5, 5), 12.0, 3)
        make_field("flat", (1, 6, 7), 10.0, 4)
    for name, (field, options) in CASES.items():
        words = [args.spam / "spam-regularStrain", "-pf", f"{field}.tsv", *options.split(), "-np", "1"]
        subprocess.run([*words, "-comp", *COMPONENTS.split(), "-pre", "out"], cwd=FOLDER, check=True)
        (written,) = FOLDER.glob("out-strain-*.tsv")
        written.rename(FOLDER / f"{name}.tsv")


if __name__ == "__main__":
    main()
