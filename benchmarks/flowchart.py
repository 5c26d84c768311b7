#!/usr/bin/env python3
"""The documented flowchart, end to end, on a whole specimen of sandstone: what each step leaves between the images.

    python benchmarks/flowchart.py --data DIR --work /tmp/flow     # writes the table into docs/workflow.md

DIR holds V4_bin2_Intact.tif and V4_bin2_Deformed.tif (289 x 225 x 225 voxels). After every step that gives a
displacement field, deformImage deforms image 1 by it. The residual is that deformed image less image 2, inside the
specimen of image 2: voxels whose neighbourhood of 15³ voxels has a mean of at least `--grey`. Its standard deviation is
told of the grey levels as they are, and after those of image 2 have been mapped to the mean and deviation of the
deformed image. This script computes both from the images, not from what deformImage prints.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from compare import measure, options_for, table

from mpidvc.fields.read import read_field

#: Edge of the neighbourhood that tells the specimen, voxels: the window of `HWS`.
HWS = 7
BEGIN, END = "<!-- flowchart: written by benchmarks/flowchart.py -->\n", "<!-- flowchart: end -->\n"


@dataclass
class Row:
    """A step: its points, its CPU seconds, and the residual that its field leaves (None where it gives none)."""

    step: str
    points: str
    seconds: float
    raw: float | None = None
    mapped: float | None = None


def local_mean(image, half):
    """Mean of the cube around each voxel, as far as it lies in the image."""
    total, count = image.astype(np.float64), np.ones(image.shape)
    for axis in range(3):
        total, count = (_sums(a, half, axis) for a in (total, count))
    return total / count


def _sums(values, half, axis):
    """Sums over 2 half + 1 voxels along an axis, cut off at the border."""
    n = values.shape[axis]
    sums = np.concatenate([np.zeros_like(values.take([0], axis)), values.cumsum(axis)], axis)
    at = np.arange(n)
    return sums.take(np.minimum(at + half + 1, n), axis) - sums.take(np.maximum(at - half, 0), axis)


class Residual:
    """Standard deviations of a deformed image less image 2, in the specimen."""

    def __init__(self, image2, grey):
        self.image2 = image2.astype(np.float64)
        self.specimen = local_mean(image2, HWS) >= grey

    def of(self, deformed, known):
        """Raw and mapped."""
        take = self.specimen & known
        ours, other = deformed[take].astype(np.float64), self.image2[take]
        mapped = (other - other.mean()) * ours.std() / other.std() + ours.mean()
        return float((ours - other).std()), float((ours - mapped).std())


def points_of(path):
    """Words about the return statuses of a field, without its background."""
    status = read_field(path)["returnStatus"]
    counts = [(name, int((status == value).sum())) for name, value in (("RS 2", 2), ("RS 1", 1))]
    present = int((status >= -4).sum())
    told = [f"{name}: {count / present:.1%}" for name, count in counts if count]
    return ", ".join([f"{present:,} points", *told])


def main():
    parser = options_for(__doc__, "workflow.md", spam=False)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--grey", type=float, default=5000.0, help="least mean grey level (default: %(default)s)")
    parser.add_argument("-np", dest="ranks", type=int, default=1)
    args = parser.parse_args()
    work = args.work
    images = [args.data.resolve() / f"V4_bin2_{name}.tif" for name in ("Intact", "Deformed")]
    image1, image2 = (tifffile.imread(path) for path in images)
    residual = Residual(image2, args.grey)
    rows = [Row("images as they are", "", 0.0, *residual.of(image1, np.ones(image1.shape, bool)))]

    def run(step, command, result=None, field=None):
        words = [*command.format(im1=images[0], im2=images[1], grey=args.grey).split(), "-np", str(args.ranks)]
        # reg replaces its files anyhow
        again = [] if words[0] == "reg" else ["--overwrite"]
        done = measure([args.mpidvc, *words, "-od", ".", *again], work)
        row = Row(step, points_of(work / field) if field else "", done.cpu)
        if result is not None:
            deform = f"deformImage {images[0]} -pf {result} -rst 1 -pre check --residual {images[1]} -od ."
            measure([args.mpidvc, *deform.split(), "-np", str(args.ranks)], work)
            name = "check-reg-def" if "registration" in result else "check-def"
            known = np.isfinite(tifffile.imread(work / f"{name}-residual.tif"))
            row.raw, row.mapped = residual.of(tifffile.imread(work / f"{name}.tif"), known)
        rows.append(row)
        print(row, flush=True)

    windows = f"-hws {HWS} -glt {{grey:g}}"
    run("reg", "reg {im1} {im2} -pre s", "s-registration.tsv")
    search = f"pixelSearch {{im1}} {{im2}} -pf s-registration.tsv -ns 10 {windows} -sr -2 2 -2 2 -2 2 -pre s"
    run("pixelSearch", search, "s-pixelSearch.h5", "s-pixelSearch.h5")
    run(
        "filterPhiField -slqc -clqf",
        "filterPhiField -pf s-pixelSearch.h5 -slqc -clqf -pre p",
        *["p-filtered-LQC.h5"] * 2,
    )
    run("ldic", f"ldic {{im1}} {{im2}} -pf p-filtered-LQC.h5 {windows} -pre s", *["s-ldic.h5"] * 2)
    last = "l-filtered-LQC.h5"
    run(
        "filterPhiField -srs --outliers -clqf",
        "filterPhiField -pf s-ldic.h5 -srs --outliers -clqf -pre l",
        *[last] * 2,
    )
    run("regularStrain -g -rst 1", f"regularStrain {last} -g -rst 1 -comp vol dev GL -pre l", None, "l-strain-Geers.h5")
    text = table(
        rows,
        {
            "step": "step",
            "points": "points",
            "residual, raw": lambda row: None if row.raw is None else f"{row.raw:.0f}",
            "residual, mapped": lambda row: None if row.mapped is None else f"{row.mapped:.0f}",
        },
    )
    print(text)
    page = args.report.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    if not after:
        sys.exit(f"{args.report}: has no place for the table ({BEGIN.strip()})")
    args.report.write_text(f"{before}{BEGIN}{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
