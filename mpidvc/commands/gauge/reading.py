"""A reading of a gauge."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Reading"]


class Reading(NamedTuple):
    """A quantity of a gauge in a state.

    Attributes
    ----------
    state : int
        From 1 on.
    file, gauge : str
        Names of the file and of the gauge.
    points : int
        That count.
    independent : float
        Points without common windows that would tell as much; nan for an extensometer.
    quantity : str
        ``strain`` and ``elongation`` (voxels) of an extensometer; ``Zdisp``, ``Ydisp``, ``Xdisp`` (voxels), ``GLzz`` …
        (Green-Lagrange strain) and columns of a region.
    value, error : float
        With its standard error; nan where there is none.
    """

    state: int
    file: str
    gauge: str
    points: int
    independent: float
    quantity: str
    value: float
    error: float
