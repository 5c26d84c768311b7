"""The verdict on a finished run: whether its result is one to trust, where it failed, and what helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mpidvc.arrays import Array, Triple
from mpidvc.core.failures import WEAK, Mask, describe_place, sample
from mpidvc.core.outliers import error_outliers
from mpidvc.core.registration import RegistrationSettings
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.console import Console
from mpidvc.workflow.summary import count_statuses

__all__ = ["NOT_COMPARED", "Judgement", "judge", "judge_correlation", "judge_labels", "note_outliers"]

#: Default of -it.
DEFAULT_ITERATIONS = 50
#: Statuses of windows that were not compared.
NOT_COMPARED = (-5, -7)
#: A result is one to trust if at least this share of the compared windows converged.
LEAST_CONVERGED = 0.5
#: A verdict is given from this share of failures on, and images that may not belong together below this convergence.
MUCH, HARDLY_ANY = 0.1, 0.1
#: Correlation of a window that is surely matched with its place.
MATCHED = 0.95
#: Share of windows stopped by -it from which on the criterion is mentioned.
MANY_STOPPED = 0.1


def judge_correlation(
    console: Console,
    images: ImagePair,
    positions: Array,
    status: Array,
    hws: Triple,
    settings: RegistrationSettings,
    statuses: Mapping[str, int] | None = None,
) -> int:
    """Say where a correlation failed and what helps, where much of it failed.

    Parameters
    ----------
    console : Console
    images : ImagePair
    positions : (n, 3) float64
        Points that this run has measured, voxels; some that stand for them where there are many.
    status : (n,) float64
        Their return statuses.
    hws : 3 ints
        Half-window size, voxels.
    settings : RegistrationSettings
    statuses : mapping of str to int, optional
        Number of all points by return status; of those that are given otherwise.

    Returns
    -------
    int
        Exit status: 0 if at least half of the windows that were compared converged, else 1. Windows that were skipped
        (return status -5 or -7) do not count; windows stopped by a smaller ``-it`` than the default are as asked for.
        1 also if all were skipped.
    """

    found = judge(
        images.image1.shape,
        images.image1,
        positions,
        status,
        hws,
        settings.max_iterations,
        settings.criterion,
        statuses=statuses,
    )
    return _tell(console, found)


def judge_labels(
    console: Console,
    images: ImagePair,
    centres: Array,
    status: Array,
    size: Triple,
    settings: RegistrationSettings,
) -> int:
    """Say which labels of a discrete correlation failed and what helps, where much of it failed.

    Parameters
    ----------
    console : Console
    images : ImagePair
    centres : (n, 3) float64
        Centres of mass of the labels that this run has measured, voxels.
    status : (n,) float64
        Their return statuses.
    size : 3 ints
        Half the size of a typical label, voxels.
    settings : RegistrationSettings

    Returns
    -------
    int
        Exit status, as in `judge_correlation`.
    """
    image = images.image1
    found = judge(image.shape, None, centres, status, size, settings.max_iterations, settings.criterion, labels=True)
    return _tell(console, found)


class Judgement(NamedTuple):
    """A verdict.

    Attributes
    ----------
    status : int
        Exit status: 0 for a result to trust, else 1.
    warning : str
        Where much of it failed; "" otherwise.
    advice : list of str
        What helps, the most likely first.
    """

    status: int
    warning: str = ""
    advice: Sequence[str] = ()


class _Kind(NamedTuple):
    """What points are called, the options by which they are skipped, and whether their texture is looked at."""

    points: str
    skipping: str
    texture: bool


_WINDOWS = _Kind("windows", "-mf1, -mc, -glt, -ght", True)
_LABELS = _Kind("labels", "-vt and -ld", False)


class _Failures(NamedTuple):
    """What is known of the points that failed: how many by status, of how many compared, and where."""

    counts: Counter[int]
    n: int
    converged: float
    weak: bool
    place: str


def judge(
    shape: Triple,
    image: Image | None,
    positions: Array,
    status: Array,
    hws: Triple,
    max_iterations: int,
    criterion: str,
    labels: bool = False,
    statuses: Mapping[str, int] | None = None,
) -> Judgement:
    """The verdict on the points of a correlation, as of `judge_correlation` and `judge_labels`.

    Parameters
    ----------
    shape : 3 ints
        Of image 1.
    image : Image or None
        Image 1, whose texture is looked at; None: it is not.
    positions : (n, 3) float64
        Points that were measured, voxels.
    status : (n,) float64
        Their return statuses.
    hws : 3 ints
        Half-window size, or half the size of a typical label, voxels.
    max_iterations : int
    criterion : {"ssd", "znssd"}
    labels : bool
        Whether the points are labels.
    statuses : mapping of str to int, optional
        As of `judge_correlation`.
    """
    kind = _LABELS if labels else _WINDOWS
    if len(status) == 0:
        return Judgement(0)
    ended = count_statuses(status) if statuses is None else statuses
    # in an order of their own: that of equal numbers would be the one in which ranks were done
    known = [value for value in ended if not np.isnan(float(value))]
    counts = Counter({int(float(value)): ended[value] for value in sorted(known, key=float)})
    n = sum(ended.values()) - sum(counts.pop(value, 0) for value in NOT_COMPARED)
    if n == 0:
        told = f"all {kind.points} were skipped: see {kind.skipping}, and whether the guess leads out of image 2"
        return Judgement(1, told)
    accepted = (2, 1) if max_iterations < DEFAULT_ITERATIONS else (2,)
    n_good = sum(counts.pop(value, 0) for value in accepted)
    converged = n_good / n
    trusted = converged >= LEAST_CONVERGED
    if n - n_good < MUCH * n:
        return Judgement(0)
    compared, good = ~np.isin(status, NOT_COMPARED), np.isin(status, accepted)
    failed: Mask = compared & ~good
    listed = ", ".join(f"RS={value:+d}: {count}" for value, count in counts.most_common())
    place = describe_place(positions[compared], failed[compared], shape, hws)
    weak = kind.texture and image is not None and _weak(image, positions, failed, compared & good, hws)
    texture = ", where image 1 has little texture" if weak else ""
    distrust = "" if trusted else ": the result is not one to trust"
    told = f"{100 * converged:.1f}% of {n} compared {kind.points} converged{distrust}"
    found = _Failures(counts, n, converged, weak, place)
    advice = _advice_on_labels(found) if labels else _advice(found, criterion)
    return Judgement(0 if trusted else 1, f"{told}; the others ({listed}) are {place}{texture}", advice)


def _tell(console: Console, found: Judgement) -> int:
    """Print a verdict; return its exit status."""
    if found.warning:
        console.warn(found.warning)
    for line in found.advice:
        console.note(line)
    return found.status


def note_outliers(
    console: Console,
    status: Array,
    error: Array,
    zncc: Array,
    points: str = "windows",
    of: Mapping[str, int] | None = None,
) -> None:
    """Warn of converged windows whose error the others do not explain: they may have converged to a wrong place.

    Parameters
    ----------
    console : Console
    status, error, zncc : (n,) float64
        Columns of the points that this run has measured; of some that stand for them where there are many.
    points : str
        What the points are called.
    of : mapping of str to int, optional
        Number of all points by return status; of those that are given otherwise.
    """
    converged = status == 2
    if not converged.any():
        return
    # a window that matches so well is right, whatever the others are like
    doubtful = ~(zncc[converged] >= MATCHED)
    if not doubtful.any():
        return
    count = int((error_outliers(error[converged], zncc[converged]) & doubtful).sum())
    if count:
        n = looked_at = int(converged.sum())
        if of is not None:
            n = of.get("2", 0)
        told = f"{count} of {n}" if n == looked_at else f"about {round(count * n / looked_at)} of {n}"
        console.warn(
            f"{told} {points} that converged have an error far above that of the others, and may be wrong: "
            "look at error, and at zncc in the results file (.h5); a better first guess (-pf) helps"
        )


def _advice_on_labels(found: _Failures) -> list[str]:
    """What helps labels, the most likely first."""
    counts, lines = found.counts, []
    if sum(counts[value] for value in (-1, -3, -4)) >= MUCH * found.n:
        lines.append(
            "labels diverge where the first guess is too far off: start from mpidvc reg (-pf, or -regbb), and give "
            "them more room to move (-m)"
        )
    if counts[-2]:
        lines.append("labels without texture cannot be followed: take in their rims (-ld 2)")
    if counts[1] >= MANY_STOPPED * found.n:
        lines.append(f"{counts[1]} labels were stopped by -it before they converged: more iterations (-it) help")
    return lines


def _advice(found: _Failures, criterion: str) -> list[str]:
    """What helps windows, the most likely first."""
    counts, n, converged, weak, place = found
    lines = []
    lost = sum(counts[value] for value in (-1, -3, -4))
    if converged < HARDLY_ANY:
        lines.append(
            "the images may not belong together: check their order of axes (z, y, x) and orientation; if they do, find "
            "the motion of the whole first (mpidvc reg) and give it by -pf"
        )
    elif lost >= MUCH * n and not weak:
        lines.append(
            "windows diverge where the first guess is too far off: start from mpidvc reg, or from mpidvc pixelSearch "
            "where the motion differs from place to place (-pf)"
        )
    if weak or counts[-2] >= MUCH * n:
        lines.append(
            "windows without texture cannot be followed: skip them by their grey level (-glt, -ght) or a mask (-mf1), "
            "or enlarge them (-hws)"
        )
    if counts[1] >= MANY_STOPPED * n:
        contrast = ", and --criterion znssd where brightness or contrast drift" if criterion == "ssd" else ""
        lines.append(
            f"{counts[1]} windows were stopped by -it before they converged: more iterations (-it) help{contrast}"
        )
    if place.endswith("border of the image"):
        lines.append("windows at the border leave image 2: -mc asks for more of a window to lie inside image 1")
    return lines


def _weak(image: Image, positions: Array, failed: Mask, good: Mask, hws: Triple) -> bool:
    """Whether the windows that failed have clearly less contrast than those that converged, by a sample of both."""
    found = []
    for chosen in (failed, good):
        deviations = []
        for node in positions[sample(chosen)].astype(np.int64):
            part, _ = image.read_box(tuple(node - np.array(hws)), tuple(node + np.array(hws) + 1))
            values = part[np.isfinite(part)] if part.dtype.kind == "f" else part
            if values.size:
                deviations.append(float(np.std(values, dtype=np.float64)))
        found.append(deviations)
    weak, strong = found
    return bool(weak and strong and np.median(weak) <= WEAK * np.median(strong))
