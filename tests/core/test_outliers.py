"""Points that converged to a wrong place: mixtures of known shares, and an open-hole plate without a first guess."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mpidvc.core.outliers import DISTANCE, LOW, LOWEST, error_outliers
from mpidvc.fields.hdf5 import read_hdf5
from mpidvc.main import main

DATA = Path(os.environ.get("MPIDVC_DATA", ""))


def test_distance_of_the_quantiles() -> None:
    assert pytest.approx(stats.norm.ppf(LOW) - stats.norm.ppf(LOWEST), abs=1e-4) == DISTANCE


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.25, 0.4, 0.5, 0.6])
@pytest.mark.parametrize("n", [90, 500, 20_000])
@pytest.mark.parametrize("spread", [0.05, 0.1, 0.2])
def test_mixtures(share: float, n: int, spread: float) -> None:
    """Right errors vary by a factor of 1.6 to 6 (±2 deviations), wrong ones are 50 to 500 times as large."""
    random = np.random.default_rng(n + round(1000 * (share + spread)))
    wrong = np.zeros(n, bool)
    wrong[: round(share * n)] = True
    error = 0.06 * 10 ** random.normal(0, spread, n)
    error[wrong] = 0.06 * 10 ** random.uniform(1.7, 2.7, wrong.sum())
    order = random.permutation(n)
    found = error_outliers(error[order])
    if wrong.any():
        assert found[wrong[order]].mean() > 0.95
    assert found[~wrong[order]].mean() < 2e-4


def test_contrast_is_no_mismatch() -> None:
    """A third of the windows has fifty times the error of the others, because their contrast is as much larger."""
    random = np.random.default_rng(2)
    error, zncc = 10 ** random.normal(0, 0.1, 900), 1 - 0.02 * 10 ** random.normal(0, 0.1, 900)
    error[:300] *= 50
    assert error_outliers(error)[:300].all()
    assert not error_outliers(error, zncc).any()
    error[300:330] *= 100
    zncc[300:330] = random.uniform(0, 0.6, 30)
    zncc[330:340] = np.nan
    error[335:340] *= 100
    np.testing.assert_array_equal(np.flatnonzero(error_outliers(error, zncc)), [*range(300, 330), *range(335, 340)])
    assert not error_outliers(np.ones(900), zncc).any()


def test_scale_does_not_matter() -> None:
    random = np.random.default_rng(1)
    error = 10 ** random.normal(0, 0.1, 300)
    error[:30] *= 100
    found = error_outliers(error)
    assert found.sum() == 30
    for factor in (1e-12, 1e6, -3.0):
        np.testing.assert_array_equal(error_outliers(factor * error), found)


def test_a_constant_core() -> None:
    """Of equal errors the factor alone decides."""
    error = np.full(60, 2.0)
    error[:3] = 19.9, 20.1, 0.0
    np.testing.assert_array_equal(np.flatnonzero(error_outliers(error)), [1])


def test_too_few_or_none() -> None:
    assert not error_outliers([]).any()
    assert not error_outliers([1.0] * 18 + [1e9]).any()
    assert error_outliers([1.0] * 19 + [1e9]).sum() == 1
    error = np.full(60, np.inf)
    error[:19] = 1.0
    assert not error_outliers(error).any()
    error[19:21] = 1.0, 1e300
    np.testing.assert_array_equal(np.flatnonzero(error_outliers(error)), [20])
    assert error_outliers(np.zeros(30)).shape == (30,)
    assert not error_outliers(np.zeros(30)).any()


@pytest.mark.skipif("MPIDVC_DATA" not in os.environ, reason="needs data")
@pytest.mark.parametrize(("ns", "hws"), [(20, 10), (30, 10), (30, 15)])
def test_open_hole_plate(ns: int, hws: int, tmp_path: Path) -> None:
    """Without a first guess many nodes converge to a wrong place; a run that begins with one tells which."""
    images = [str(DATA / "2d" / "dic_challenge_12" / f"oht_cfrp_{frame}.tiff") for frame in ("00", "11")]
    where = ["-od", str(tmp_path), "-np", "1"]
    assert main(["reg", *images, "--criterion", "znssd", *where, "-pre", "guess"]) == 0
    fields = {}
    for name, more in (("alone", []), ("guided", ["-pf", str(tmp_path / "guess-registration.tsv")])):
        sizes = ["-ns", str(ns), "-hws", str(hws), "-o", "3"]
        # the run that begins with nothing is not one to trust
        assert main(["ldic", *images, *sizes, *more, *where, "-pre", name]) in (0, 1)
        fields[name] = read_hdf5(tmp_path / f"{name}-ldic.h5")
    alone, guided = fields["alone"], fields["guided"]
    both = (alone.columns["returnStatus"] == 2) & (guided.columns["returnStatus"] == 2)
    apart = np.abs(alone.displacements - guided.displacements).max(axis=1)
    converged = alone.columns["returnStatus"] == 2
    wrong, right = both & (apart > 0.3), both & (apart <= 0.3)
    assert wrong.sum() > 25
    for zncc in (None, alone.columns["zncc"][converged]):
        outliers = np.zeros(len(both), bool)
        outliers[converged] = error_outliers(alone.columns["error"][converged], zncc)
        print(f"{wrong.sum()} wrong, found {outliers[wrong].sum()}; {right.sum()} right, found {outliers[right].sum()}")
        assert outliers[wrong].mean() > 0.9
        assert not outliers[right].any()
    # and the field that began well has none
    good = guided.columns["returnStatus"] == 2
    assert not error_outliers(guided.columns["error"][good]).any()
