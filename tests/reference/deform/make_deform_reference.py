"""Deformed images as ``spam-deformImage`` 0.9.1 makes them: ``python make_deform_reference.py FOLDER-OF-SPAM``.

Writes ``image.tif`` and ``field.tsv``, and spam's ``def.tif``, ``disp-def.tif`` (cubic) and ``tetMesh-def.tif``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter

HERE = Path(__file__).parent
SHAPE = (18, 20, 22)
COLUMNS = (
    "NodeNumber Zpos Ypos Xpos Fzz Fzy Fzx Zdisp Fyz Fyy Fyx Ydisp Fxz Fxy Fxx Xdisp error iterations returnStatus "
    "deltaPhiNorm"
)


def main() -> None:
    """Make image and field, and run spam."""
    rng = np.random.default_rng(4)
    image = gaussian_filter(rng.standard_normal(SHAPE), 1.2)
    image = ((image - image.min()) / np.ptp(image) * 40000 + 5000).astype(np.uint16)
    tifffile.imwrite(HERE / "image.tif", image, photometric="minisblack", metadata={"axes": "ZYX"}, compression="zlib")
    positions = np.stack(np.meshgrid(*[np.arange(3, n, 5) for n in SHAPE], indexing="ij"), -1).reshape(-1, 3)
    rows = ["\t".join(COLUMNS.split())]
    for k, position in enumerate(positions):
        F = np.eye(3) + 0.03 * rng.standard_normal((3, 3))
        phi = np.column_stack([F, rng.standard_normal(3)])
        status = 1 if k % 9 == 4 else 2
        rows.append(
            "\t".join([*map(str, [k + 1, *position]), *(f"{v:.7f}" for v in phi.ravel()), f"0\t5\t{status}\t0"])
        )
    (HERE / "field.tsv").write_text("\n".join(rows) + "\n")
    for line in ("", "-disp -o 3", "-tet"):
        words = [
            f"{sys.argv[1]}/spam-deformImage",
            "image.tif",
            "-pf",
            "field.tsv",
            "-np",
            "1",
            "-od",
            ".",
            *line.split(),
        ]
        subprocess.run(words, cwd=HERE, check=True)
    for path in HERE.glob("image-*.tif"):
        tifffile.imwrite(HERE / path.name.removeprefix("image-"), tifffile.imread(path), compression="zlib")
        path.unlink()


if __name__ == "__main__":
    main()
