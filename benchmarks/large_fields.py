#!/usr/bin/env python3
"""Large fields: times of reading and writing text, and commands on fields of many points with several ranks.

    python benchmarks/large_fields.py --work /tmp/large                        # text of a million rows
    python benchmarks/large_fields.py --work /tmp/large --points 1e7 -np 2     # the commands, too

The memory of a command is that of all its ranks: pages that they share count once, those of mapped files as well.
"""

import time

import numpy as np
from compare import facts_table, machine, measure, options_for, table

from mpidvc.fields.hdf5 import write_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import read_tsv, write_tsv
from mpidvc.tasks.source import source_bytes

SPACING = 10
COMMANDS = {
    "pass, 8 nearest": "passPhiField -pf {field} -ns 10 -nn 8 -im1shape {size}",
    "filter, inverse distance": "filterPhiField -pf {field} -srs --outliers -cint -nr 15",
    "strain, Q8": "regularStrain {field} -comp vol dev",
    "strain, Geers": "regularStrain {field} -g -comp vol dev",
}


def field_of(edge):
    """A smooth field on a cube of nodes, 2 % of which did not converge."""
    random = np.random.default_rng(1)
    n = edge**3
    positions = SPACING * (1.0 + np.stack(np.unravel_index(np.arange(n), (edge,) * 3), axis=1))
    phi = np.tile(np.eye(4), (n, 1, 1))
    phi[:, :3, 3] = np.sin(positions / 300) + random.normal(0, 0.003, (n, 3))
    columns = {name: random.random(n) for name in ("error", "iterations", "deltaPhiNorm")}
    columns["returnStatus"] = np.where(random.random(n) < 0.02, 1.0, 2.0)
    return PhiField(positions, phi, columns, "grid", (edge,) * 3, (float(SPACING),) * 3)


def timed(name, work):
    """Do some work; print how long it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    done = work()
    print(f"{name}: {time.perf_counter() - wall:.1f} s, CPU {time.process_time() - cpu:.1f} s", flush=True)
    return done


def main():
    parser = options_for(__doc__, spam=False)
    parser.add_argument("--points", type=float, help="of the field that the commands take")
    parser.add_argument("-np", dest="ranks", type=int, default=2)
    args = parser.parse_args()
    work = args.work
    print(facts_table(machine()))
    if args.points is None:
        field, path = field_of(100), work / "million.tsv"
        timed("writing 1 000 000 rows of text", lambda: write_tsv(path, field, "LDIC"))
        back = timed("reading them", lambda: read_tsv(path))
        worst = np.abs(back.phi - field.phi).max()
        print(f"{path.stat().st_size / 1e6:.0f} MB, largest difference of Phi {worst:.1e}")
        return
    edge = round(args.points ** (1 / 3))
    large, path = field_of(edge), work / "field.h5"
    write_hdf5(path, large)
    size = " ".join([str(SPACING * (edge + 1))] * 3)
    print(f"{edge**3:,} points; the field and the tree of its points take {source_bytes(large) / 1e6:,.0f} MB")
    del large
    rows = []
    for name, line in COMMANDS.items():
        words = [*line.format(field=path, size=size).split(), "-np", str(args.ranks), "-notsv", "--overwrite"]
        run = measure([args.mpidvc, *words, "-od", "."], work)
        rows.append((name, run.wall, run.cpu, run.timings["points_cpu"], run.memory))
        print(rows[-1], {name: round(t, 1) for name, t in run.timings["stages"].items()}, flush=True)
    columns = ("command", "wall s", "CPU s", "of it computing s", "peak MB")
    print(table(rows, {name: lambda row, k=k: row[k] for k, name in enumerate(columns)}))


if __name__ == "__main__":
    main()
