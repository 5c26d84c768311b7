#!/usr/bin/env python3
"""Make the reference of filterPhiField: what spam 0.9.1 answers to a small field.

    python tests/reference/make_filter_reference.py --spam /path/to/venv/bin            # answers only
    python tests/reference/make_filter_reference.py --spam /path/to/venv/bin --inputs   # the field as well

Inputs are committed. Every case runs in `filter` as `spam-filterPhiField -pf field.tsv <args>`; its TSV file is named
as the case. Nodes are a regular grid, so that neighbours are told by a radius: of equally near ones spam takes others.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "filter"
sys.path.insert(0, str(HERE.parents[1]))

CASES = {
    "fit": "-srs -clqf",
    "mean": "-srs -cint -nr 21",
    "mean-displacements": "-srs -srst 0 -cint -F no",
    "low-cc": "-scc -scct 0.9 -cint",
    "incoherent": "-slqc -cint -nr 12",
    "median": "-fm",
    "median-displacements": "-fm -fmr 2 -F no",
}
DIMS, SPACING = (5, 5, 6), 10.0


def make_field():
    from mpidvc.fields.phifield import PhiField
    from mpidvc.fields.tsv import write_tsv

    random = np.random.default_rng(4)
    n = int(np.prod(DIMS))
    nodes = SPACING * (1 + np.stack(np.unravel_index(np.arange(n), DIMS), axis=1))
    z, y, x = nodes.T / 100
    phi = np.tile(np.eye(4), (n, 1, 1))
    phi[:, :3, 3] = np.stack([1 + z - y * x, 2 + x * x - z * y, y * y + 0.5 * x], axis=1)
    phi[:, :3] += random.normal(0, 0.01, (n, 3, 4))
    status = np.where(random.random(n) < 0.12, random.choice([1, 0, -1, -3], n), 2.0)
    phi[status < 2, :3, 3] += random.normal(0, 2, ((status < 2).sum(), 3))
    status[random.random(n) < 0.05] = -5
    phi[status == -5, :3, 3], phi[status == -5, :3, :3] = np.nan, np.eye(3)
    columns = {
        "pixelSearchCC": np.where(status == 2, 0.99, 0.8) + random.uniform(-0.01, 0.01, n),
        "returnStatus": status,
        "error": random.uniform(1, 2, n),
        "deltaPhiNorm": np.full(n, 0.0005),
        "iterations": np.full(n, 6.0),
    }
    write_tsv(FOLDER / "field.tsv", PhiField.from_positions(nodes, phi, columns), "SEARCH")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spam", type=Path, required=True)
    parser.add_argument("--inputs", action="store_true")
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    if args.inputs:
        make_field()
    for name, options in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            command = [args.spam / "spam-filterPhiField", "-pf", "field.tsv", *options.split(), "-np", "1"]
            subprocess.run([*command, "-od", folder, "-pre", "p"], cwd=FOLDER, check=True, capture_output=True)
            (answer,) = Path(folder).glob("*.tsv")
            (FOLDER / f"answer-{name}.tsv").write_bytes(answer.read_bytes())


if __name__ == "__main__":
    main()
