"""Pictures of the commands on fields."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import write_tsv
from mpidvc.main import main
from mpidvc.workflow import plot


@pytest.fixture
def field(tmp_path: Path) -> str:
    """A grid with one node that has not converged."""
    positions = 10.0 * np.stack(np.unravel_index(np.arange(120), (4, 5, 6)), axis=1)
    phi = np.tile(np.eye(4), (120, 1, 1))
    phi[:, 0, 3] = np.sin(positions[:, 1] / 20)
    columns = {"error": np.zeros(120), "iterations": np.zeros(120), "returnStatus": np.full(120, 2)}
    columns["returnStatus"][47] = 1
    path = tmp_path / "f.tsv"
    write_tsv(path, PhiField.from_positions(positions, phi, columns | {"deltaPhiNorm": np.zeros(120)}), "LDIC")
    return str(path)


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ("passPhiField -ns 10 -im1shape 40 50 60 -nn 1", 2),
        ("filterPhiField -srs -cint", 2),
        ("filterPhiField -srs -cint --outliers", 3),
    ],
)
def test_a_row_for_each_quantity(line: str, rows: int, field: str, tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    assert main([*line.split(), "-pf", field, "--plot", str(picture), "-np", "1", "-noh5"]) == 0
    assert imread(picture).shape[:2] == (round(120 * (0.4 + 3.0 * rows)), 120 * 11)


def test_colours_show_rare_statuses_and_no_outliers() -> None:
    rare = np.zeros(1000)
    rare[3] = 1
    assert plot._row("a", [], rare, "viridis").limits == (0, 1)
    assert plot._row("a", [], rare[5:], "viridis").limits == (-0.5, 0.5)
    assert plot._row("a", [], np.full(5, np.nan), "viridis").limits == (0, 1)
    wide = np.linspace(-1, 3, 1000)
    wide[0] = -1e6
    row = plot._row("a", [], wide, "viridis")
    assert row.colours == "RdBu_r"
    np.testing.assert_allclose(row.limits, (-2.96, 2.96), atol=0.01)


def test_labels_have_no_slices(field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(field).write_text("\n".join(Path(field).read_text().splitlines()[:-7]) + "\n")
    assert main(["filterPhiField", "-srs", "-cint", "-pf", field, "--plot", str(tmp_path / "p.png")]) == 2
    assert "slices need the nodes of a grid" in capsys.readouterr().err
    assert not list(tmp_path.glob("f-*"))
