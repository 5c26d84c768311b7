"""What a run chooses where its recipe is silent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mpidvc.arrays import Triple
from mpidvc.commands.run.recipe import Recipe
from mpidvc.workflow.suggest import Suggestion

__all__ = ["Choice", "complete", "without_images"]

#: Spacing of the pixel search, in spacings of the correlation.
COARSER = 2
#: Filters: of nodes, whose neighbours move alike; of labels, which move each by itself; and of a pixel search, where 1
#: is the return status of what was found.
OF_NODES: Mapping[str, Any] = {"select_status": True, "outliers": True, "correct_interpolation": True}
OF_LABELS: Mapping[str, Any] = {"select_status": True, "correct_interpolation": True}
OF_SEARCH: Mapping[str, Any] = {**OF_NODES, "select_status_threshold": 0}


class Choice(NamedTuple):
    """What a run takes of a suggestion.

    Attributes
    ----------
    hws, spacing : int
        Voxels.
    order : int
        Of the interpolation.
    grey_low : float or None
        Mean grey level below which windows are skipped.
    search : list of 6 ints or None
        Range of a pixel search, if one is needed.
    """

    hws: int
    spacing: int
    order: int
    grey_low: float | None
    search: list[int] | None

    @classmethod
    def of(cls, found: Suggestion) -> Choice:
        """That of a suggestion."""
        search = None if found.search is None else list(found.search)
        return cls(found.hws, found.spacing, found.order, found.grey_low, search)


def without_images(given: Recipe, labels: bool, two_d: bool) -> Recipe:
    """Complete a recipe as far as that needs no voxel.

    Parameters
    ----------
    given : Recipe
        What it holds is kept.
    labels : bool
        Whether labels are followed.
    two_d : bool
    """
    usual: dict[str, dict[str, Any] | bool] = {"reg": {}, "deformImage": {}}
    if labels:
        usual |= {"ddic": {"interpolation_order": 3, "sigma": True}, "filterPhiField": dict(OF_LABELS)}
    else:
        strain = {"strain_components": ["vol", "dev", "e"]}
        usual |= {"filterSearch": dict(OF_SEARCH), "filterPhiField": dict(OF_NODES), "regularStrain": strain}
        # a node gets a guess however much coarser the search is: from the corners of the cell around it
        usual["passPhiField"] = {"number_of_neighbours": 4 if two_d else 8}
    return _with(given, usual)


def complete(given: Recipe, found: Choice, two_d: bool) -> Recipe:
    """Complete a recipe by what is suggested for its images.

    Parameters
    ----------
    given : Recipe
        What it holds is kept.
    found : Choice
    two_d : bool
    """
    window, spacing = _along(found.hws, two_d, 0), _along(found.spacing, two_d, 1)
    skipping = {} if found.grey_low is None else {"grey_low_threshold": found.grey_low}
    usual: dict[str, dict[str, Any] | bool] = {
        "ldic": {
            "node_spacing": spacing,
            "half_window_size": window,
            "interpolation_order": found.order,
            "sigma": True,
            **skipping,
        }
    }
    own = given.options("ldic")
    if found.search is None and not given.asked("pixelSearch"):
        usual["pixelSearch"] = False
    else:
        coarser = [COARSER * step for step in own.get("node_spacing", spacing)]
        usual["pixelSearch"] = {
            "node_spacing": (1 if two_d else coarser[0], coarser[1], coarser[2]),
            "half_window_size": own.get("half_window_size", window),
            **({} if found.search is None else {"search_range": found.search}),
            **skipping,
        }
    return _with(given, usual)


def _with(given: Recipe, usual: Mapping[str, dict[str, Any] | bool]) -> Recipe:
    """A recipe, and what is usual where it is silent."""
    steps = {**given.steps}
    for step, options in usual.items():
        own = steps.get(step)
        if own is None:
            steps[step] = options
        elif isinstance(own, dict) and isinstance(options, dict):
            steps[step] = {**options, **own}
    return Recipe(steps)


def _along(value: int, two_d: bool, z: int) -> Triple:
    """A length along all axes, of which z does not count in 2D."""
    return (z if two_d else value, value, value)
