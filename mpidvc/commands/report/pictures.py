"""The pictures of a report: slices as PNG, curves as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mpidvc.arrays import Array
from mpidvc.commands.report.facts import Material
from mpidvc.commands.report.residual import Compared
from mpidvc.workflow.plot import (
    Row,
    draw,
    limits_of,
    new_figure,
    planes_of,
    row_of,
    slices_row,
    to_bytes,
)
from mpidvc.workflow.quantities import Quantities, Quantity, statuses_of

__all__ = ["Picture", "make_pictures"]

#: Inches of a curve.
CURVE = (3.3, 2.2)
#: Colours that are told apart by those who see few, too (Okabe & Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


class Picture(NamedTuple):
    """A picture: its section, what it shows in words, its form ("png" or "svg"), and its bytes."""

    section: str
    text: str
    form: str
    data: bytes


def make_pictures(material: Material) -> list[Picture]:
    """Make all pictures of a report, in their order."""
    found: list[Picture] = []
    if material.residual is not None:
        found.append(_images(material.residual))
    given, strains = material.given, material.strains
    if given is not None:
        found += _slices(material, given, strains)
        found += _histograms(material.facts)
        found += _profiles(material.facts)
    found += _series(material.facts["series"])
    found += _study(material.facts["study"])
    return found


def _png(section: str, text: str, rows: Sequence[Row]) -> Picture:
    return Picture(section, text, "png", to_bytes(draw(rows), "png"))


def _images(found: Compared) -> Picture:
    """Both images, and their difference before and after."""
    grey = Quantity("grey", "image 1", "grey levels", "grey")
    both = np.concatenate([part.values.ravel() for part in (*found.before, *found.after)])
    limits = limits_of(both, "difference")[0]
    rows = [
        slices_row(grey, found.one),
        slices_row(grey._replace(title="image 2"), found.two),
        slices_row(Quantity("before", "image 1 − image 2", "grey levels", "difference"), found.before, limits),
        slices_row(
            Quantity("after", "image 1 − image 2, pulled back by the result", "grey levels", "difference"),
            found.after,
            limits,
        ),
    ]
    return _png("images", "slices of both images, and of their difference before and after the correlation", rows)


def _slices(material: Material, given: Quantities, strains: Quantities | None) -> list[Picture]:
    """Slices of statuses, displacements, strains and random errors."""
    values = dict(material.values)
    if "returnStatus" in given.field:
        values["returnStatus"] = np.asarray(given.field["returnStatus"], np.float64)
    planes = planes_of(given.field)
    points = np.concatenate([plane.points.ravel() for plane in planes])
    statuses = statuses_of(given.field, given.command)

    def row(name: str) -> Row:
        if not material.labels:
            return row_of(given.about(name), planes, values[name][points], statuses)
        # of each voxel the number of its label
        parts = [part._replace(values=_of_labels(values[name], part.values)) for part in material.labels]
        return slices_row(given.about(name), parts, None, statuses)

    def rows(names: Sequence[str]) -> list[Row]:
        return [row(name) for name in names if name in values]

    axes = "YX" if given.flat else "ZYX"
    sigmas = [name for name in values if name.startswith("sigma")]
    sections = [
        (
            "convergence",
            "return statuses, iterations and match",
            ("returnStatus", "iterations", "zncc", "pixelSearchCC"),
        ),
        ("displacement", "displacements", [f"{axis}disp" for axis in axes]),
        ("displacement", "displacements without the rigid motion", [f"{axis}nonrigid" for axis in axes]),
        ("errors", "random errors", sigmas),
    ]
    found = [_png(section, f"slices of {text}", made) for section, text, names in sections if (made := rows(names))]
    if strains is not None and material.strain_values:
        planes = planes_of(strains.field)
        points = np.concatenate([plane.points.ravel() for plane in planes])
        drawn = {
            name: row_of(strains.about(name), planes, column[points]) for name, column in material.strain_values.items()
        }
        first = [drawn.pop("vol"), drawn.pop("dev")]
        found.append(_png("strain", "slices of the volumetric and of the deviatoric strain", first))
        found.append(_png("strain", "slices of the Green–Lagrange strain", list(drawn.values())))
    return found


def _of_labels(values: Array, labels: Array) -> Array:
    """Values of labels at the voxels that have them; nan elsewhere."""
    known = (labels > 0) & (labels < len(values))
    return np.where(known, values[np.where(known, labels, 0).astype(np.int64)], np.nan)


def _curve(section: str, text: str, plot: Any, xlabel: str, ylabel: str, legend: bool = False) -> Picture:
    """A small picture of curves; `plot` draws them."""
    figure = new_figure(*CURVE)
    panel = figure.add_axes((0.2, 0.22, 0.76, 0.64))
    plot(panel)
    panel.set_title(text, fontsize=8, loc="left")
    panel.set_xlabel(xlabel, fontsize=7.5, labelpad=2)
    panel.set_ylabel(ylabel, fontsize=7.5, labelpad=2)
    panel.tick_params(labelsize=6.5, length=2)
    panel.ticklabel_format(scilimits=(-3, 4), useMathText=True)
    panel.yaxis.get_offset_text().set_fontsize(6.5)
    panel.xaxis.get_offset_text().set_fontsize(6.5)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    if legend:
        panel.legend(fontsize=6.5, frameon=False, loc="best", handlelength=1.2, labelspacing=0.25)
    return Picture(section, text, "svg", to_bytes(figure, "svg"))


def _histograms(facts: Mapping[str, Any]) -> list[Picture]:
    found = []
    for name, told in facts["histograms"].items():
        about = facts["quantities"][name]
        if name in ("disp", "nonrigid") or not told["counts"]:
            continue

        def plot(panel: Any, told: Mapping[str, Any] = told) -> None:
            panel.stairs(told["counts"], told["edges"], fill=True, color=COLOURS[0])
            panel.locator_params(axis="x", nbins=5)

        title = about["title"]
        found.append(_curve("histograms", title, plot, about["unit"] or title, "points"))
    return found


def _profiles(facts: Mapping[str, Any]) -> list[Picture]:
    found = []
    for profile in facts["profiles"]:
        names = list(profile["quantities"])
        places = _numbers(profile["positions"])

        def plot(panel: Any, profile: Mapping[str, Any] = profile, places: Array = places) -> None:
            for colour, (name, told) in zip(COLOURS, profile["quantities"].items(), strict=False):
                mean, sd = _numbers(told["mean"]), _numbers(told["sd"])
                label = f"{name[0].lower()}" if name.endswith("disp") else facts["quantities"][name]["title"]
                panel.fill_between(places, mean - sd, mean + sd, color=colour, alpha=0.2, linewidth=0)
                panel.plot(places, mean, color=colour, lw=1.2, label=label)

        moved = names[0].endswith("disp")
        what, unit = ("displacement", "voxels") if moved else ("strain", "strain")
        title = f"{what} along {profile['axis']}"
        found.append(_curve("profiles", title, plot, f"{profile['axis']} (voxels)", unit, True))
    return found


def _numbers(values: Sequence[float | None]) -> Array:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _series(table: Mapping[str, Any] | None) -> list[Picture]:
    """Curves of a series against its states."""
    if table is None:
        return []
    columns = _columns(table)
    states = columns.get("state")
    if states is None:
        return []
    # in 2D nothing is along z
    axes = "zyx" if columns.get("Zdisp", np.ones(1)).any() else "yx"
    groups: list[tuple[str, str, dict[str, Array]]] = [
        ("share of converged points", "share", _some(columns, {"converged": "converged"})),
        ("median ZNCC", "ZNCC", _some(columns, {"medianZNCC": "ZNCC"})),
        ("mean displacement", "voxels", _some(columns, {f"{axis.upper()}disp": axis for axis in axes})),
        ("mean F − I", "strain", {k: v - 1 for k, v in _some(columns, {f"F{a}{a}": a + a for a in axes}).items()}),
    ]
    found = []
    for title, unit, lines in groups:
        if not lines:
            continue

        def plot(panel: Any, lines: Mapping[str, Array] = lines) -> None:
            # there is no state 1.5
            panel.locator_params(axis="x", integer=True)
            for colour, (label, values) in zip(COLOURS, lines.items(), strict=False):
                panel.plot(states, values, "o-", ms=2.5, lw=1, color=colour, label=label)

        found.append(_curve("series", title, plot, "state", unit, len(lines) > 1))
    return found


def _study(table: Mapping[str, Any] | None) -> list[Picture]:
    """Curves of a study against the size of windows."""
    if table is None:
        return []
    columns = _columns(table)
    hws = columns.get("hws")
    lines = _some(columns, {f"sigma{axis}": axis.lower() for axis in "ZYX"})
    if hws is None or not lines:
        return []

    def plot(panel: Any) -> None:
        for colour, (label, values) in zip(COLOURS, lines.items(), strict=False):
            panel.plot(hws, values, "o-", ms=2.5, lw=1, color=colour, label=label)

    return [_curve("study", "random error against window", plot, "half-window size (voxels)", "voxels", True)]


def _columns(table: Mapping[str, Any]) -> dict[str, Array]:
    """The columns of numbers of a table."""
    found = {}
    for k, name in enumerate(table["columns"]):
        cells = [row[k] for row in table["rows"]]
        if not any(isinstance(cell, str) for cell in cells):
            found[name] = _numbers(cells)
    return found


def _some(columns: Mapping[str, Array], names: Mapping[str, str]) -> dict[str, Array]:
    return {label: columns[name] for name, label in names.items() if name in columns}
