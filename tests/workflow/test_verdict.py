"""The verdict after the summary: what it says, and the exit status of a result that is not one to trust."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.core.grey import Criterion
from mpidvc.core.registration import RegistrationSettings
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.main import main
from mpidvc.runtime.console import Console
from mpidvc.workflow.verdict import judge, judge_correlation, judge_labels, note_outliers

SHAPE = (60, 60, 60)
HWS = (4, 4, 4)


def nodes() -> np.ndarray:
    axis = np.arange(3.0, 60, 6)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def judged(status: np.ndarray, criterion: Criterion = "ssd") -> tuple[int, list[str], str]:
    """Exit status, warnings, and notes, in an image whose part with x < 20 is air."""
    image = np.random.default_rng(1).normal(1000, 100, SHAPE).astype(np.float32)
    image[:, :, :20] = 10 + 0.01 * image[:, :, :20]
    pair = ImagePair(ArrayImage(image, "a"), ArrayImage(image, "b"))
    told: list[str] = []
    console = Console(silent=True)
    console.note = told.append  # type: ignore[method-assign]
    result = judge_correlation(console, pair, nodes(), status, HWS, RegistrationSettings(criterion=criterion))
    return result, console.warnings, " ".join(told)


def test_good_result_has_no_verdict() -> None:
    assert judged(np.full(1000, 2.0)) == (0, [], "")


def test_air_is_named() -> None:
    status = np.where(nodes()[:, 2] < 16, -2.0, 2.0)
    exit_status, (warning,), notes = judged(status)
    assert exit_status == 0
    assert "where image 1 has little texture" in warning
    assert "70.0% of 1000 compared windows converged" in warning
    assert "-glt" in notes


def test_order_of_equal_numbers() -> None:
    """Statuses are counted in the order in which ranks are done, which the words do not tell."""
    given = {"2": 60, "-1": 20, "-3": 20}
    status = np.repeat([float(value) for value in given], list(given.values()))
    image = ArrayImage(np.ones(SHAPE, np.float32), "a")
    told = {
        judge(SHAPE, image, nodes()[:100], status, HWS, 50, "ssd", statuses=dict(order)).warning
        for order in permutations(given.items())
    }
    (warning,) = told
    assert "(RS=-3: 20, RS=-1: 20)" in warning


def test_outliers_of_the_error_are_counted() -> None:
    random = np.random.default_rng(2)
    error = np.exp(random.normal(-3, 0.2, 1000))
    zncc = 1 - 0.01 * np.exp(random.normal(0, 0.2, 1000))
    status = np.full(1000, 2.0)
    console = Console(silent=True)
    note_outliers(console, status, error, zncc)
    assert console.warnings == []
    error[:120] *= 100
    zncc[:120] = 0.2
    status[:20] = 1
    note_outliers(console, status, error, zncc)
    assert console.warnings[0].startswith("100 of 980 windows that converged have an error far above")


def judged_labels(status: np.ndarray, max_iterations: int = 50) -> tuple[int, list[str], list[str]]:
    """Exit status, warnings, and notes, of labels of which only the places matter: no grey level is read."""
    pair = ImagePair(ArrayImage(np.zeros(SHAPE, np.uint8), "a"), ArrayImage(np.zeros(SHAPE, np.uint8), "b"))
    told: list[str] = []
    console = Console(silent=True)
    console.note = told.append  # type: ignore[method-assign]
    settings = RegistrationSettings(criterion="ssd", max_iterations=max_iterations)
    return judge_labels(console, pair, nodes(), status, HWS, settings), console.warnings, told


def test_labels_that_converged_have_no_verdict() -> None:
    assert judged_labels(np.full(1000, 2.0)) == (0, [], [])
    # one in ten is much, fewer are not; small and missing labels do not count
    status = np.full(1000, 2.0)
    status[:500] = -5
    status[500:600] = -7
    status[600:639] = -3
    assert judged_labels(status) == (0, [], [])
    status[639] = -3
    exit_status, (warning,), _ = judged_labels(status)
    assert exit_status == 0
    assert warning.startswith("90.0% of 400 compared labels converged; the others (RS=-3: 40) are ")


@pytest.mark.parametrize(
    ("failure", "says"), [(-1, "(-pf, or -regbb)"), (-3, "room to move (-m)"), (-2, "(-ld 2)"), (1, "iterations (-it)")]
)
def test_labels_that_failed_are_advised(failure: float, says: str) -> None:
    """Where most failed the result is not one to trust, and of the options of ddic those are named that help."""
    status = np.where(np.arange(1000) % 5 < 3, failure, 2.0)
    exit_status, (warning,), notes = judged_labels(status)
    assert exit_status == 1
    assert "40.0% of 1000 compared labels converged: the result is not one to trust" in warning
    assert f"RS={failure:+.0f}: 600" in warning
    (note,) = notes
    assert says in note
    # fewer iterations than usual are as asked for
    assert (judged_labels(status, 3)[0] == 0) == (failure == 1)


def test_labels_that_were_all_skipped() -> None:
    exit_status, (warning,), notes = judged_labels(np.where(np.arange(1000) % 2, -5.0, -7.0))
    assert (exit_status, notes) == (1, [])
    assert warning.startswith("all labels were skipped: see -vt and -ld")


def test_outliers_among_labels() -> None:
    """Twenty converged labels are needed; one whose zncc shows that it is matched with its place is none."""
    error, zncc = np.exp(np.random.default_rng(3).normal(-4, 0.2, 20)), np.full(20, 0.99)
    error[7], zncc[7] = 1.0, 0.3
    for n, count in ((20, 1), (19, 0)):
        console = Console(silent=True)
        note_outliers(console, np.full(n, 2.0), error[:n], zncc[:n], "labels")
        assert [text.split(" have ")[0] for text in console.warnings] == [f"1 of {n} labels that converged"] * count
    zncc[7] = 0.96
    console = Console(silent=True)
    note_outliers(console, np.full(20, 2.0), error, zncc, "labels")
    assert console.warnings == []


def test_skipped_windows_do_not_count() -> None:
    status = np.where(nodes()[:, 2] < 40, -7.0, 2.0)
    assert judged(status) == (0, [], "")
    exit_status, (warning,), _ = judged(np.full(1000, -5.0))
    assert (exit_status, "all windows were skipped" in warning) == (1, True)


@pytest.mark.parametrize(("converged", "status"), [(0.49, 1), (0.51, 0)])
def test_half_of_the_windows_have_to_converge(converged: float, status: int) -> None:
    given = np.where(np.arange(1000) % 100 < 100 * converged, 2.0, 1.0)
    exit_status, (warning,), notes = judged(given)
    assert exit_status == status
    assert ("not one to trust" in warning) == bool(status)
    assert "--criterion znssd" in notes
    assert "znssd" not in judged(given, "znssd")[2]


def test_swapped_axes_are_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = AnalyticPair((50, 54, 58), seed=4)
    tifffile.imwrite(tmp_path / "a.tif", pair.image1()[:50, :50, :50], photometric="minisblack")
    swapped = np.ascontiguousarray(pair.image2()[:50, :50, :50].transpose(2, 1, 0))
    tifffile.imwrite(tmp_path / "b.tif", swapped, photometric="minisblack")
    assert main(["ldic", f"{tmp_path}/a.tif", f"{tmp_path}/b.tif", "-ns", "8", "-hws", "5", "-np", "1"]) == 1
    told = capsys.readouterr()
    assert "the result is not one to trust" in told.err
    assert "order of axes" in told.out
    assert (tmp_path / "a-b-ldic.tsv").exists()


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["0 5 5", "0 5 10", "0 10 5", "0 10 10"], "is of 2D images, but these are 3D"),
        (
            ["90 5 5", "90 5 10", "90 10 5", "90 10 10"],
            "all of its 4 points lie outside of an image of 24 × 26 × 28 voxels",
        ),
    ],
)
def test_guess_of_other_images(tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[str], says: str) -> None:
    pair = AnalyticPair((24, 26, 28), seed=4)
    tifffile.imwrite(tmp_path / "a.tif", pair.image1(), photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", pair.image2(), photometric="minisblack")
    names = "NodeNumber Zpos Ypos Xpos Fzz Fzy Fzx Zdisp Fyz Fyy Fyx Ydisp Fxz Fxy Fxx Xdisp error iterations "
    names += "returnStatus deltaPhiNorm"
    phi = "1 0 0 0 0 1 0 0 0 0 1 0 0 5 2 0"
    lines = [f"{k} {row} {phi}".replace(" ", "\t") for k, row in enumerate(rows)]
    (tmp_path / "guess.tsv").write_text("\n".join([names.strip().replace(" ", "\t"), *lines]) + "\n")
    assert main(["ldic", f"{tmp_path}/a.tif", f"{tmp_path}/b.tif", "-pf", f"{tmp_path}/guess.tsv", "-hws", "4"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
