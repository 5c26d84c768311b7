"""The picture of a ranking: scores of the stacks, and the shifts found in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpidvc.atomic import replacing
from mpidvc.core.phase_correlation import StackScore

__all__ = ["draw"]

#: Stacks whose shifts are drawn.
MOST = 4


def draw(path: str, stacks: Sequence[StackScore]) -> None:
    """Write a PNG: the score of every stack, best first, and the shifts of the first `MOST`.

    Parameters
    ----------
    path : str
    stacks : sequence of StackScore
        From best to worst.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = stacks[:MOST]
    figure = Figure(figsize=(4 + 3.2 * len(shown), max(3.2, 0.3 * len(stacks))), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    bars, *panels = figure.subplots(1, 1 + len(shown), width_ratios=[1.2, *[1] * len(shown)])
    scores = [-one.score for one in stacks]
    bars.barh(range(len(stacks)), np.nan_to_num(scores), color="tab:blue")
    bars.set_yticks(range(len(stacks)), [one.name for one in stacks])
    bars.invert_yaxis()
    bars.set_xlim(0, 1)
    bars.set_xlabel("peak less mean (minus the score)")
    for panel, one in zip(panels, shown, strict=True):
        matches = np.array(one.matches)
        distinct = matches[:, 4] == 1
        for axis, name, colour in ((2, "y", "tab:orange"), (3, "x", "tab:green")):
            images = np.arange(len(matches))
            panel.plot(images[distinct], matches[distinct, axis], ".", color=colour, label=f"shift {name}")
            told = "not distinct" if axis == 3 else None
            panel.plot(images[~distinct], matches[~distinct, axis], "x", color="0.7", markersize=4, label=told)
        panel.set_title(one.name, fontsize=9)
        panel.set_xlabel("image")
    if panels:
        panels[0].set_ylabel("shift (pixels)")
        panels[0].legend(fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
