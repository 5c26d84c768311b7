"""`read_field`: every format, whatever the name of the file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import write_hdf5
from mpidvc.fields.read import read_field
from mpidvc.fields.tsv import write_tsv
from mpidvc.fields.vtk import write_grid_vtk

from .test_phifield import marked

REFERENCE = Path(__file__).parents[1] / "reference"


def assert_same(field, other, digits):
    assert (field.layout, field.dims, field.spacing) == (other.layout, other.dims, other.spacing)
    np.testing.assert_allclose(field.positions, other.positions, rtol=0, atol=digits)
    np.testing.assert_allclose(field.phi, other.phi, rtol=0, atol=digits)
    for name in other.columns:
        np.testing.assert_allclose(field[name], other[name], rtol=0, atol=digits)


@pytest.mark.parametrize("name", ["a.h5", "a.vtkhdf", "a.tsv", "a"])
def test_results_file_under_any_name(tmp_path, name):
    write_hdf5(tmp_path / "results", marked())
    shutil.copy(tmp_path / "results", tmp_path / name)
    assert_same(read_field(tmp_path / name), marked(), 0)


@pytest.mark.parametrize("name", ["a.tsv", "a.txt", "a.h5", "a"])
def test_text_under_any_name(tmp_path, name):
    write_tsv(tmp_path / name, marked(), "LDIC")
    assert_same(read_field(str(tmp_path / name)), marked(), 6e-8)


@pytest.mark.parametrize("suffix", ["h5", "tsv"])
def test_bin_ratio(tmp_path, suffix):
    write_hdf5(tmp_path / "a.h5", marked())
    write_tsv(tmp_path / "a.tsv", marked(), "LDIC")
    field = read_field(tmp_path / f"a.{suffix}", 2)
    np.testing.assert_allclose(field.positions, 2 * marked().positions)
    np.testing.assert_allclose(field.displacements, 2 * marked().displacements, atol=1e-6)
    np.testing.assert_allclose(field.F, marked().F, atol=1e-6)
    assert field.spacing == (20, 40, 9)


def test_fields_of_spam():
    """The numbers are numpy's reading of spam's files."""
    for path, good in (("ldic-mask-mc03/im1-im2-ldic.tsv", 2), ("search-masks/float1-float2-pixelSearch.tsv", 1)):
        table = np.genfromtxt(REFERENCE / "results" / path, names=True)
        field = read_field(REFERENCE / "results" / path)
        assert field.layout == "grid"
        for name in ("Ypos", "Xdisp", "Fzy", "returnStatus"):
            np.testing.assert_array_equal(field[name], table[name])
        np.testing.assert_array_equal(field.good, table["returnStatus"] == good)
        assert 0 < field.good.sum() < len(field)
    assert read_field(REFERENCE / "guess-registration.tsv").layout == "registration"


def test_old_names_and_discrete_correlation_of_spam(tmp_path):
    f = "\t".join(f"F{i}{j}" for i in (1, 2, 3) for j in (1, 2, 3, 4))
    old = "SubPixReturnStat\tSubPixDeltaPhiNorm\tSubPixIterations\tPSCC\tLabelDilate"
    head = f"Label\tZpos\tYpos\tXpos\t{f}\t{old}\n"
    rows = "".join(
        "\t".join(map(str, (i, i, i, i, *range(12), status, 0, 3, 0.9, 1))) + "\n" for i, status in enumerate((0, 2, 1))
    )
    (tmp_path / "a.tsv").write_text(head + rows)
    field = read_field(tmp_path / "a.tsv")
    assert field.layout == "labels"
    assert field["Xdisp"].tolist() == [11] * 3
    assert field["Fzy"].tolist() == [1] * 3
    # of a correlation: a status of 1 has not converged, although there is a CC
    assert field.good.tolist() == [False, True, False]


def test_files_without_a_field(tmp_path):
    write_grid_vtk(tmp_path / "a.vtk", (1, 1, 1), (1, 1, 1), (0, 0, 0), [("error", [1.0])])
    (tmp_path / "empty").touch()
    for name in ("a.vtk", "empty", "missing", "missing.h5", "."):
        with pytest.raises(UserError) as caught:
            read_field(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_package_stays_free_of_numpy():
    code = "import sys, mpidvc; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": ""})
