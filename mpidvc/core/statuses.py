"""Return statuses: the numbers of the column ``returnStatus``, their names and their meanings."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CORRELATION", "FLAGS", "LABELS", "LABEL_SEARCH", "PASSED", "SEARCH", "STRAIN", "Status"]


class Status(NamedTuple):
    """A return status: its short name, and its meaning in words."""

    name: str
    meaning: str


#: Return statuses of a correlation (Gauss–Newton registration of a window or of a whole image).
CORRELATION = {
    2: Status("converged", "converged: the change of Phi fell below the limit"),
    1: Status("not converged", "not converged: maximum number of iterations reached"),
    0: Status("not computed", "not computed"),
    -1: Status("diverged", "diverged: the error grew"),
    -2: Status("singular system", "singular system: too little texture"),
    -3: Status("volume change", "diverged: volume change too large, or moved off the data"),
    -4: Status("singular Phi", "singular Phi"),
    -5: Status("skipped", "skipped: mask, grey level threshold, or outside image 2"),
    -7: Status("no guess", "skipped: no finite initial guess"),
}
#: Return statuses of labels.
LABELS = {
    **CORRELATION,
    0: Status("background", "background (row 0)"),
    -5: Status("skipped", "skipped: too small (-vt), or outside image 2"),
    -7: Status("no guess", "skipped: no such label, or no finite initial guess"),
}
#: Return statuses of a pixel search.
SEARCH = {
    1: Status("found", "found"),
    -5: Status("skipped", "skipped: grey level, mask coverage, outside image 2, or nothing correlates"),
    -7: Status("no guess", "skipped: the first guess is not finite or cannot be applied"),
}
#: Return statuses of a pixel search of labels.
LABEL_SEARCH = {
    1: SEARCH[1],
    0: LABELS[0],
    -5: Status("skipped", "skipped: too small (-lvt), outside image 2, or nothing correlates"),
    -7: Status("no guess", "skipped: no such label, or the first guess is not finite or cannot be applied"),
}
#: Return statuses of a point that a field was passed to.
PASSED = {
    1: Status("passed", "passed: a mean of neighbours, or the registration"),
    0: LABELS[0],
    -7: Status("no neighbour", "no neighbour in the field, not surrounded (-cps), or no such label"),
}
#: Return statuses of a strain.
STRAIN = {
    2: Status("computed", "computed"),
    -5: Status("no strain", "none: the point or a node of the cell does not count, or too few neighbours do"),
}


def _named(*names: str) -> dict[int, Status]:
    return {value: Status(name, name) for value, name in enumerate(names)}


#: Further columns whose numbers are names, and these.
FLAGS = {
    "outlier": _named("no outlier", "outlier"),
    "correction": _named("not corrected", "mean or linear fit", "quadratic fit"),
    "atLimit": _named("within the range", "at its end"),
    "windowLimit": _named("error met", "largest window", "curvature"),
}
