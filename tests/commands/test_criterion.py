"""The criterion that a run chooses by itself, by the voxels that it will compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.main import main


@pytest.mark.parametrize("command", ["ldic -ns 15 -hws 6", "reg -bb 1"])
def test_masked_voxels_do_not_choose_it(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """White surroundings in image 1 alone: grey levels differ, but not under the mask."""
    pair = AnalyticPair((40, 42, 44), seed=1, amplitude=0, translation=(0.2, 0.1, -0.2))
    one, mask = pair.image1(), np.ones(pair.shape, np.uint8)
    one[:, :, 30:], mask[:, :, 30:] = 65535, 0
    for name, image in {"one": one, "two": pair.image2(), "mask": mask}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", image, photometric="minisblack")
    name, *options = command.split()
    line = [name, f"{tmp_path}/one.tif", f"{tmp_path}/two.tif", *options, "-it", "1", "-np", "1"]
    chosen = []
    for out, more in (("all", []), ("masked", ["-mf1", f"{tmp_path}/mask.tif"])):
        # one iteration need not converge
        assert main([*line, *more, "-od", str(tmp_path / out)]) in (0, 1)
        chosen += [words.split()[1] for words in capsys.readouterr().out.splitlines() if words.startswith("Criterion")]
    assert chosen == ["znssd", "ssd"]
