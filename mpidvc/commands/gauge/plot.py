"""The picture of gauges: their readings over the states, with standard errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpidvc.atomic import replacing
from mpidvc.commands.gauge.reading import Reading

__all__ = ["draw"]

#: Gauges that are drawn in a panel.
MOST = 8
#: Quantities of a panel by its title; those of other columns have one each.
PANELS = {
    "strain of extensometers": ("strain",),
    "mean displacement (voxels)": ("Zdisp", "Ydisp", "Xdisp"),
    "mean Green–Lagrange strain": ("GLzz", "GLyy", "GLxx"),
}
DRAWN_ELSEWHERE = ("elongation", "GLzy", "GLzx", "GLyx")
LINES = ("-", "--", ":")


def draw(path: str, readings: Sequence[Reading]) -> None:
    """Write a PNG: a panel for each kind of quantity, a line for each gauge.

    Parameters
    ----------
    path : str
    readings : sequence of Reading
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    quantities = list(dict.fromkeys(one.quantity for one in readings))
    panels = {title: [name for name in names if name in quantities] for title, names in PANELS.items()}
    known = {*DRAWN_ELSEWHERE, *(name for names in PANELS.values() for name in names)}
    panels |= {f"mean {name}": [name] for name in quantities if name not in known}
    panels = {title: names for title, names in panels.items() if names}
    figure = Figure(figsize=(1 + 4.6 * len(panels), 4), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        gauges = list(dict.fromkeys(one.gauge for one in readings if one.quantity in names))
        for k, gauge in enumerate(gauges[:MOST]):
            for name, line in zip(names, LINES, strict=False):
                found = [one for one in readings if one.gauge == gauge and one.quantity == name]
                states, values = [one.state for one in found], np.array([one.value for one in found])
                errors = np.nan_to_num([one.error for one in found])
                label = gauge if len(names) == 1 else f"{gauge}, {name}"
                axes.errorbar(states, values, errors, fmt=f"o{line}", ms=3, capsize=2, color=f"C{k}", label=label)
        more = f" ({MOST} of {len(gauges)} gauges)" if len(gauges) > MOST else ""
        axes.set_title(f"{title}{more}", fontsize=10)
        axes.set_xlabel("state")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.axhline(0, color="0.8", lw=0.8, zorder=0)
        # long enough to tell dashes
        axes.legend(fontsize=7, handlelength=3.5)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
