"""The picture of a study: errors against the edge of the windows."""

from __future__ import annotations

import numpy as np

from mpidvc.atomic import replacing
from mpidvc.workflow.study import Study, rms

__all__ = ["draw"]


def draw(path: str, found: Study) -> None:
    """Write a PNG: random errors of displacement and F, observed, predicted and as a power law, and the bias."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    edges = np.array([2 * row.hws - 1 for row in found.rows])
    figure = Figure(figsize=(9, 3.8), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    rows = found.rows
    panels = (
        (left, "u (voxels)", [rms(row.sigma) for row in rows], [rms(row.predicted) for row in rows], found.law),
        (right, "F", [row.sigma_f for row in rows], [row.predicted_f for row in rows], found.law_f),
    )
    for panel, name, observed, predicted, (factor, exponent) in panels:
        panel.loglog(edges, observed, "o", color="tab:blue", label="observed")
        panel.loglog(edges, predicted, "-", color="tab:orange", label="predicted")
        panel.loglog(edges, factor * edges**exponent, ":", color="0.4", label=f"{factor:.2g} n^{exponent:.2f}")
        panel.set_xlabel("edge of the window n (voxels)")
        panel.set_ylabel(f"random error of {name}")
    if found.drift is None:
        bias = [float(np.max(row.bias)) for row in rows]
        left.loglog(edges, bias, "s", color="tab:green", markersize=4, label="bias")
    for panel in (left, right):
        panel.set_xticks(edges, [str(edge) for edge in edges])
        panel.minorticks_off()
        panel.legend(fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
