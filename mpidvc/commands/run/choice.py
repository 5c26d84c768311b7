"""What a run chooses where its recipe is silent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpidvc.arrays import Triple
from mpidvc.commands.run.recipe import Recipe
from mpidvc.images.pair import ImagePair
from mpidvc.tasks.texture import texture_of
from mpidvc.workflow.guess import grid_nodes

__all__ = ["choose"]

#: Features of the texture along the edge of a window (iDICs: A Good Practices Guide for DIC, 2018, asks for three), and
#: the least and the largest half window, in 3D and in 2D.
GRAINS, HALF_3D, HALF_2D = 5, (6, 20), (10, 40)
#: Points at which is looked whether one motion is enough; how far a pixel search goes, in half windows and at least in
#: voxels; and its spacing where it gives the first guess, in spacings of the correlation.
LOOKED_AT, REACH, LEAST_REACH, COARSER = 300, 0.5, 6, 2


@dataclass(frozen=True)
class _Windows:
    hws: Triple
    min_coverage: float = 0.5
    grey_low: float = -math.inf
    grey_high: float = math.inf


def choose(pair: ImagePair, given: Recipe, labels: bool) -> tuple[Recipe, list[str]]:
    """Complete a recipe.

    Parameters
    ----------
    pair : ImagePair
    given : Recipe
        What it holds is kept.
    labels : bool
        Whether labels are followed.

    Returns
    -------
    Recipe
        With options for every step that is not left out.
    reasons : list of str
        Why, for the user.
    """
    two_d, reasons = pair.two_d, []
    steps: dict[str, dict[str, Any] | bool] = {"reg": {}, "filterPhiField": _good_neighbours(), "deformImage": {}}
    if labels:
        # grains move each by itself
        steps["filterPhiField"] = {"select_status": True, "correct_interpolation": True}
        steps["ddic"] = {"interpolation_order": 3}
    else:
        half, why = _half_window(pair)
        reasons.append(why)
        window, spacing = _along(half, two_d, 0), _along(half, two_d, 1)
        search = {"half_window_size": window, "search_range": _range(max(LEAST_REACH, math.ceil(REACH * half)), two_d)}
        look = _along(max(half, _spacing(pair.image1.shape)), two_d, 1)
        steps["pixelSearchCheck"] = {"node_spacing": look, **search}
        steps["pixelSearch"] = {"node_spacing": _along(COARSER * half, two_d, 1), **search}
        # 1 is the status of what a search has found
        steps["filterSearch"] = {**_good_neighbours(), "select_status_threshold": 0}
        steps["passPhiField"] = {}
        steps["ldic"] = {"node_spacing": spacing, "half_window_size": window, "interpolation_order": 3}
        steps["regularStrain"] = {"strain_components": ["vol", "dev", "e"]}
    chosen = {**given.steps, **steps}
    for step, own in given.steps.items():
        options = steps.get(step)
        chosen[step] = {**options, **own} if isinstance(options, dict) and isinstance(own, dict) else own
    return Recipe(chosen), reasons


def _good_neighbours() -> dict[str, Any]:
    return {"select_status": True, "outliers": True, "correct_interpolation": True}


def _half_window(pair: ImagePair) -> tuple[int, str]:
    least, most = HALF_2D if pair.two_d else HALF_3D
    half = (least + most) // 2
    windows = _Windows((0 if pair.two_d else half, half, half))
    nodes = grid_nodes(pair.image1.shape, (1 if pair.two_d else half, half, half))
    grain = texture_of(pair.image1, pair.mask1, nodes.positions, windows).grain
    chosen = int(np.clip(math.ceil((GRAINS * grain + 1) / 2), least, most))
    return chosen, f"-hws {chosen} and -ns {chosen}: a feature of the texture measures about {grain:.1f} voxels"


def _along(value: int, two_d: bool, z: int) -> Triple:
    """A length along all axes, of which z does not count in 2D."""
    return (z if two_d else value, value, value)


def _spacing(shape: Triple) -> int:
    """Spacing of about `LOOKED_AT` nodes."""
    extent = [n for n in shape if n > 1]
    return max(1, int(np.rint((np.prod(extent) / LOOKED_AT) ** (1 / len(extent)))))


def _range(reach: int, two_d: bool) -> list[int]:
    along = [-reach, reach]
    return ([0, 0] if two_d else along) + along * 2
