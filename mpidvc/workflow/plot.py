"""Pictures of fields and of images: slices, with colour bars; the one place where matplotlib draws them.

matplotlib is loaded where a picture is drawn. The same input gives the same bytes: no date goes into a file.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mpidvc.arrays import Array, Ints, Triple
from mpidvc.atomic import replacing
from mpidvc.core.statuses import FLAGS, Status
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image
from mpidvc.workflow.quantities import MAGNITUDE, Quantities, Quantity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FORMATS",
    "MAGNITUDE",
    "Arrows",
    "Plane",
    "Row",
    "Slice",
    "add_image",
    "arrows_row",
    "check_picture",
    "check_plot",
    "draw",
    "image_rows",
    "limits_of",
    "need_matplotlib",
    "new_figure",
    "planes_of",
    "plot_images",
    "plot_slices",
    "row_of",
    "save",
    "slices_row",
    "to_bytes",
]

#: Forms of pictures, by the ends of their names.
FORMATS = ("png", "svg", "pdf")
#: Most columns of a field in a picture of ``--plot``.
MOST = 9
#: Different values up to which all of them are shown.
FEW = 12
#: Colours of amounts, of values of both signs (0 is the middle), and of grey levels; and of points without a value.
AMOUNT, SIGNED, GREY, NOTHING = "viridis", "RdBu_r", "gray", "0.85"
#: Colours of the return statuses; others are black.
STATUS_COLOURS = {
    2: "#2166ac",
    1: "#92c5de",
    0: "#d9d9d9",
    -1: "#d6604d",
    -2: "#fdae61",
    -3: "#b2182b",
    -4: "#762a83",
    -5: "#f0f0f0",
    -7: "#bdbdbd",
}
#: Colours of the values of `FLAGS`.
FLAG_COLOURS = ("#2166ac", "#fdae61", "#b2182b")
#: Inches: width of a picture, most height of a slice (of one of three, and of a single one), room around a slice
#: (left, below, above), for a colour bar, and for the notes below.
WIDTH, TALL, TALL_ALONE, LEFT, BELOW, ABOVE, BAR, NOTES = 10.0, 2.3, 3.5, 0.55, 0.45, 0.42, 1.4, 0.34
#: Least edge of a slice, inches; pixels of an inch.
THIN, DPI = 0.35, 110
#: What the colours of a picture mean.
COLOURS = (
    "Colours span 1–99 % of the values shown, symmetric about 0 where both signs occur; pointed colour bars: values "
    "beyond. Grey: no value."
)
#: Arrows along a slice's longer edge, and the width of their shafts, inches.
ARROWS, SHAFT = 16, 0.02


def need_matplotlib(option: str) -> None:
    """Check that matplotlib, which an option (or, if "", the command) needs, is installed.

    Raises
    ------
    UserError
        If it is not.
    """
    if importlib.util.find_spec("matplotlib") is None:
        what = f"{option}: " if option else ""
        raise UserError(f'{what}matplotlib is not installed; pip install "mpidvc[plots]", or matplotlib alone')


def check_picture(option: str, path: str) -> None:
    """Check, before anything is done, that a picture can be drawn and written there.

    Raises
    ------
    UserError
        If matplotlib is missing, or there is no such folder.
    """
    need_matplotlib("" if option == "--output" else option)
    if not Path(path).resolve().parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {Path(path).resolve().parent}; make it")


def check_plot(path: str | None, is_grid: bool = True) -> None:
    """Check the picture of ``--plot``, if there is one.

    Parameters
    ----------
    path : str or None
        None: there is no picture.
    is_grid : bool
        Whether the points are those of a grid.

    Raises
    ------
    UserError
        If matplotlib is missing, there is no such folder, or there are no slices.
    """
    if path is None:
        return
    check_picture("--plot", path)
    if not is_grid:
        raise UserError(f"--plot {path}: slices need the nodes of a grid; drop it")


# ---- what is drawn


class Plane(NamedTuple):
    """Some points of a field in a plane across an axis.

    Attributes
    ----------
    axis : int
    place : float
        Of the plane, voxels.
    points : (a, b) or (k,) int64
        Indices: of nodes by their place down and to the right, or of scattered points.
    across, down : same shape, float64
        Coordinates of the points along the axes to the right and down, voxels.
    """

    axis: int
    place: float
    points: Ints
    across: Array
    down: Array


class Arrows(NamedTuple):
    """Arrows on a slice: where they begin, and where they lead, voxels (k,) each."""

    x: Array
    y: Array
    u: Array
    v: Array


class Slice(NamedTuple):
    """A slice as it is drawn.

    Attributes
    ----------
    axis : int
    place : float
        Voxels.
    values : (a, b) float64, or (k,) of scattered points
    extent : 4 floats
        Its edges: left, right, bottom, top, voxels.
    scatter : (2, k) float64 or None
        Places of scattered points: across and down.
    under : (c, d) float64 or None
        Grey levels beneath it.
    edges : 4 floats or None
        The edges of these.
    arrows : Arrows or None
    """

    axis: int
    place: float
    values: Array
    extent: tuple[float, float, float, float]
    scatter: Array | None = None
    under: Array | None = None
    edges: tuple[float, float, float, float] | None = None
    arrows: Arrows | None = None


class Row(NamedTuple):
    """Slices of one quantity, with the limits and the map of its colours.

    Attributes
    ----------
    title, unit : str
    slices : list of Slice
    limits : 2 floats
    colours : str
        Name of a map; "status" for return statuses and flags.
    beyond : 2 bools
        Whether there are values below and above the limits.
    statuses : mapping of int to Status
        Return statuses, or values of a flag, that the points may have.
    """

    title: str
    unit: str
    slices: list[Slice]
    limits: tuple[float, float]
    colours: str
    beyond: tuple[bool, bool] = (False, False)
    statuses: Mapping[int, Status] = {}


def _sliced(dims: Sequence[int]) -> list[int]:
    """Axes across which slices have an area."""
    return [axis for axis in range(3) if all(n > 1 for k, n in enumerate(dims) if k != axis)] or [0]


def planes_of(field: PhiField, places: Mapping[int, float] | None = None) -> list[Plane]:
    """Planes of the points of a field.

    Parameters
    ----------
    field : PhiField
        A grid, labels or points.
    places : mapping of int to float, optional
        Axes, and where along them (voxels): the nearest layer of nodes is taken. The middle ones if not given.
        Of scattered points those that are less than their mean distance away.
    """
    if field.dims is None:
        return _scattered_planes(field, places)
    numbers = np.arange(len(field)).reshape(field.dims)
    axes = [np.moveaxis(field.grid(field.positions), axis, 0)[:, 0, 0, axis] for axis in range(3)]
    found = []
    for axis in _sliced(field.dims) if places is None else sorted(places):
        layer = field.dims[axis] // 2
        if places is not None:
            layer = int(np.argmin(np.abs(axes[axis] - places[axis])))
        down, right = (k for k in range(3) if k != axis)
        points = np.take(numbers, layer, axis)
        across, along = field.positions[points, right], field.positions[points, down]
        found.append(Plane(axis, float(axes[axis][layer]), points, across, along))
    return found


def _scattered_planes(field: PhiField, places: Mapping[int, float] | None) -> list[Plane]:
    known = np.array(np.isfinite(field.positions).all(axis=1))
    if field.layout == "labels":
        # the background
        known[0] = False
    positions = field.positions[known]
    if len(positions) == 0:
        positions = np.zeros((1, 3))
    low, high = positions.min(axis=0), positions.max(axis=0)
    extents = high - low
    wide = extents > 0
    distance = float(np.prod(extents[wide]) / len(positions)) ** (1 / max(wide.sum(), 1))
    found = []
    for axis in _sliced([1 + int(w) for w in wide]) if places is None else sorted(places):
        place = float(low[axis] + high[axis]) / 2 if places is None else places[axis]
        near = known & (np.abs(np.where(known, field.positions[:, axis], 0) - place) <= max(distance, 1e-9))
        down, right = (k for k in range(3) if k != axis)
        points = np.flatnonzero(near)
        found.append(Plane(axis, place, points, field.positions[points, right], field.positions[points, down]))
    return found


def limits_of(values: Array, kind: str) -> tuple[tuple[float, float], str, tuple[bool, bool]]:
    """Limits and map of the colours of values, and whether some are below and above the limits.

    Amounts from the quantile of 1 % to that of 99 %; for values of both signs 0 has the middle colour.
    """
    finite = values[np.isfinite(values)]
    if kind == "status":
        return (0.0, 1.0), "status", (False, False)
    if len(different := np.unique(finite[:: 1 + len(finite) // 10**6])) <= FEW:
        # statuses and their kind: rare ones count, too
        low, high = (float(finite.min()), float(finite.max())) if len(different) else (0.0, 1.0)
    else:
        low, high = (float(v) for v in np.percentile(finite, [1, 99]))
    colours = GREY if kind == "grey" else AMOUNT
    if (kind != "amount" and low < 0 < high) or kind == "difference":
        low, high = -max(-low, high), max(-low, high)
        colours = SIGNED
    if not low < high:
        low, high = low - 0.5, high + 0.5
    return (low, high), colours, (bool((finite < low).any()), bool((finite > high).any()))


def row_of(
    quantity: Quantity,
    planes: Sequence[Plane],
    values: Array,
    statuses: Mapping[int, Status] | None = None,
    limits: tuple[float, float] | None = None,
) -> Row:
    """A row with the slices of a quantity.

    Parameters
    ----------
    quantity : Quantity
    planes : sequence of Plane
    values : (k,) float64
        At the points of all planes, one after the other.
    statuses : mapping of int to Status, optional
        Return statuses that the points may have.
    limits : 2 floats, optional
        Of the colours, instead of those of `limits_of`; not of return statuses.
    """
    slices, start = [], 0
    for plane in planes:
        part = values[start : start + plane.points.size].reshape(plane.points.shape)
        start += plane.points.size
        slices.append(Slice(plane.axis, plane.place, part, _extent(plane), _places(plane)))
    return slices_row(quantity, slices, limits, statuses)


def slices_row(
    quantity: Quantity,
    slices: list[Slice],
    limits: tuple[float, float] | None = None,
    statuses: Mapping[int, Status] | None = None,
) -> Row:
    """A row of slices, with the colours of their values; parameters as of `row_of`."""
    values = np.concatenate([part.values.ravel() for part in slices])
    found, colours, beyond = limits_of(values, quantity.kind)
    if limits is not None and quantity.kind != "status":
        found, finite = limits, values[np.isfinite(values)]
        beyond = bool((finite < limits[0]).any()), bool((finite > limits[1]).any())
        signed = quantity.kind in ("signed", "difference") and limits[0] == -limits[1]
        colours = SIGNED if signed else AMOUNT
    return Row(quantity.title, quantity.unit, slices, found, colours, beyond, FLAGS.get(quantity.name, statuses or {}))


def _places(plane: Plane) -> Array | None:
    return None if plane.points.ndim == 2 else np.stack([plane.across, plane.down])


def _extent(plane: Plane) -> tuple[float, float, float, float]:
    """Edges of the cells around the nodes of a plane; of scattered points those of all of them."""
    if plane.points.size == 0:
        return -0.5, 0.5, 0.5, -0.5
    if plane.points.ndim == 1:
        wide = max(float(np.ptp(plane.across)), float(np.ptp(plane.down)), 1.0) / 20
        x, y = plane.across, plane.down
        return float(x.min()) - wide, float(x.max()) + wide, float(y.max()) + wide, float(y.min()) - wide
    x, y = plane.across[0], plane.down[:, 0]
    dy, dx = ((line[1] - line[0]) / 2 if len(line) > 1 else 0.5 for line in (y, x))
    return float(x[0] - dx), float(x[-1] + dx), float(y[-1] + dy), float(y[0] - dy)


def add_image(row: Row, image: Image) -> Row:
    """The row with slices of an image beneath."""
    found = []
    for part in row.slices:
        plane = int(np.clip(round(part.place), 0, image.shape[part.axis] - 1))
        under, edges = image_plane(image, part.axis, plane)
        found.append(part._replace(under=under, edges=edges))
    return row._replace(slices=found)


def arrows_row(title: str, planes: Sequence[Plane], vectors: Array) -> Row:
    """A row of arrows: the parts of vectors in the planes, at every so many nodes, and longer by a factor of 1, 2 or 5.

    Parameters
    ----------
    title : str
    planes : sequence of Plane
    vectors : (k, 3) float64
        At the points of all planes, one after the other; voxels.
    """
    drawn: list[tuple[Plane, Arrows]] = []
    room, longest, start = np.inf, [], 0
    for plane in planes:
        part = vectors[start : start + plane.points.size].reshape(*plane.points.shape, 3)
        start += plane.points.size
        down, right = (k for k in range(3) if k != plane.axis)
        every: tuple[slice, ...] = (slice(None),)
        if plane.points.ndim == 2:
            step = 1 + (max(plane.points.shape) - 1) // ARROWS
            every = (slice(step // 2, None, step),) * 2
        x, y, u, v = (a[every].ravel() for a in (plane.across, plane.down, part[..., right], part[..., down]))
        good = np.isfinite(u) & np.isfinite(v)
        drawn.append((plane, Arrows(x[good], y[good], u[good], v[good])))
        if good.any():
            left, right_edge, bottom, top = _extent(plane)
            room = min(room, float(np.sqrt(abs(right_edge - left) * abs(bottom - top) / x.size)))
            longest.append(np.hypot(u[good], v[good]))
    lengths = np.concatenate([*longest, np.zeros(1)])
    long = float(np.quantile(lengths, 0.9))
    factor = 1.0
    if long > 0 and np.isfinite(room):
        # the decade, and 1, 2 or 5 of it; longer ones would hide the next in their direction
        ratio = room / long
        decade = 10.0 ** np.floor(np.log10(ratio))
        factor = float(max(step for step in (1, 2, 5) if step * decade <= ratio * (1 + 1e-9)) * decade)
    slices = []
    for plane, arrows in drawn:
        longer = Arrows(arrows.x, arrows.y, factor * arrows.u, factor * arrows.v)
        slices.append(Slice(plane.axis, plane.place, np.hypot(arrows.u, arrows.v), _extent(plane), arrows=longer))
    limits = (0.0, long if long > 0 else 1.0)
    told = f"{title}, in the plane: arrows {factor:g} times as long" if factor != 1 else f"{title}, in the plane"
    return Row(told, "voxels", slices, limits, "plasma", (False, bool((lengths > limits[1]).any())))


#: Pixels of a plane of an image along its longer edge: more are not seen.
PIXELS = 1200


def image_plane(image: Image, axis: int, place: int) -> tuple[Array, tuple[float, float, float, float]]:
    """Grey levels of a plane of an image, every so many voxels where it is large, and its edges."""
    low, high = [0, 0, 0], list(image.shape)
    low[axis], high[axis] = place, place + 1
    values = np.take(image.read_box(_triple(low), _triple(high))[0], 0, axis)
    ny, nx = values.shape
    step = 1 + max(ny, nx) // PIXELS
    return values[::step, ::step].astype(np.float64), (-0.5, nx - 0.5, ny - 0.5, -0.5)


def _triple(numbers: list[int]) -> Triple:
    z, y, x = numbers
    return z, y, x


def image_rows(images: Mapping[str, Image]) -> list[Row]:
    """A row with the middle slices of each image, by its title; those of both signs, as residuals, in colours."""
    rows = []
    for name, image in images.items():
        slices = []
        for axis in _sliced(image.shape):
            middle = image.shape[axis] // 2
            values, edges = image_plane(image, axis, middle)
            slices.append(Slice(axis, middle, values, edges))
        rows.append(slices_row(Quantity(name, name, "grey levels", "grey"), slices))
    return rows


def plot_slices(path: str, field: PhiField, columns: Sequence[str]) -> None:
    """Write the middle slices of columns of a field: a row for each; nan is grey.

    Parameters
    ----------
    path : str
    field : PhiField
        On a grid.
    columns : sequence of str
        Names of quantities; the first `MOST` are drawn.
    """
    quantities = Quantities(field, all_points=True)
    planes = planes_of(field)
    names = columns[:MOST]
    values = quantities.compute(names, np.concatenate([plane.points.ravel() for plane in planes]))
    save(path, draw([row_of(quantities.about(name), planes, values[name]) for name in names]))


def plot_images(path: str, images: Mapping[str, Image]) -> None:
    """Write the middle slices of images: a row for each, by its title; nan is grey."""
    save(path, draw(image_rows(images)))


# ---- drawing


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(made)
    return made


def save(path: str | Path, figure: Figure) -> None:
    """Write a figure in the form that the end of its name tells (PNG if it tells none)."""
    kind = Path(path).suffix[1:].lower()
    with replacing(path) as temporary:
        temporary.write_bytes(to_bytes(figure, kind if kind in FORMATS else "png"))


def to_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as PNG, SVG or PDF, the same bytes for the same figure."""
    import matplotlib

    # dates, and the numbers of today's process, are no part of a picture
    metadata: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None},
    }
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "mpidvc", "svg.fonttype": "path"}):
        figure.savefig(buffer, format=kind, metadata=metadata[kind])
    return buffer.getvalue()


class _Cell(NamedTuple):
    """A row's place: the scale of its slices (inches of a voxel), and its size, inches."""

    row: Row
    sizes: list[tuple[float, float]]
    width: float
    height: float


def _cell(row: Row) -> _Cell:
    n = len(row.slices)
    sizes = [(abs(e[1] - e[0]), abs(e[3] - e[2])) for e in (part.edges or part.extent for part in row.slices)]
    room = WIDTH - n * LEFT - BAR
    tall = TALL if n > 1 else TALL_ALONE
    scale = min(room / sum(w for w, _ in sizes), tall / max(h for _, h in sizes))
    drawn = [(max(w * scale, THIN), max(h * scale, THIN)) for w, h in sizes]
    width = sum(w for w, _ in drawn) + n * LEFT + BAR
    return _Cell(row, drawn, max(width, LEFT + 0.075 * len(row.title) + 0.1), max(h for _, h in drawn) + ABOVE + BELOW)


def draw(rows: Sequence[Row], notes: str = "") -> Figure:
    """A figure with rows of slices, from the top; rows of one slice stand beside each other where there is room.

    Parameters
    ----------
    rows : sequence of Row
        At least one.
    notes : str
        A line below, besides what the colours mean.
    """
    lines: list[list[_Cell]] = []
    cells = [_cell(row) for row in rows]
    # in columns where several stand in a line
    widest = max(cell.width for cell in cells)
    for cell in cells if 2 * widest > WIDTH else [cell._replace(width=widest) for cell in cells]:
        if lines and sum(one.width for one in lines[-1]) + cell.width <= WIDTH + 1e-9:
            lines[-1].append(cell)
        else:
            lines.append([cell])
    width = max(sum(cell.width for cell in line) for line in lines)
    width = max(width, 5.2)
    text = "\n".join(_wrapped(f"{notes}\n{COLOURS}" if notes else COLOURS, int(width * 14.5)))
    below = NOTES + 0.13 * text.count("\n")
    height = sum(max(cell.height for cell in line) for line in lines) + below
    figure = new_figure(width, height)
    top = height
    for line in lines:
        left = 0.0
        for cell in line:
            _draw_cell(figure, cell, left, top, width, height)
            left += cell.width
        top -= max(cell.height for cell in line)
    figure.text(0.08 / width, 0.07 / height, text, fontsize=7, color="0.35", va="bottom")
    return figure


def _wrapped(text: str, columns: int) -> list[str]:
    import textwrap

    return [line for part in text.split("\n") for line in textwrap.wrap(part, columns)]


def _draw_cell(figure: Figure, cell: _Cell, left: float, top: float, width: float, height: float) -> None:
    """Draw a row with its upper left corner at `left`, `top` (inches from the lower left of the figure)."""
    from matplotlib.ticker import MaxNLocator

    row = cell.row
    figure.text((left + 0.08) / width, (top - 0.06) / height, row.title, fontsize=9, weight="bold", va="top")
    settings, ticks = _colours(row)
    shown: Any = None
    x = left
    tallest = max(h for _, h in cell.sizes)
    for part, (w, h) in zip(row.slices, cell.sizes, strict=True):
        x += LEFT
        panel = figure.add_axes((x / width, (top - ABOVE - h) / height, w / width, h / height))
        shown = _draw_slice(panel, part, settings, row) or shown
        # a thin slice has no room for a name as long as that
        if len(row.slices) > 1 or part.place != 0:
            # no title: its place would be sought among all labels
            figure.text(x / width, (top - ABOVE + 0.04) / height, f"{'zyx'[part.axis]} = {part.place:.4g}", fontsize=7)
        x += w
    if shown is None:
        return
    place = ((x + 0.12) / width, (top - ABOVE - tallest) / height, 0.11 / width, tallest / height)
    bar: Any = figure.colorbar(shown, cax=figure.add_axes(place), extend=_extend(row.beyond), extendfrac=0.04)
    bar.ax.tick_params(labelsize=7)
    if ticks is not None:
        bar.set_ticks(ticks[0], labels=ticks[1])
        bar.ax.tick_params(length=0)
    else:
        values = np.concatenate([part.values.ravel() for part in row.slices])
        if (np.mod(values[np.isfinite(values)], 1) == 0).all():
            bar.locator = MaxNLocator("auto", integer=True)
        bar.formatter.set_powerlimits((-3, 5))
        bar.ax.yaxis.get_offset_text().set_fontsize(7)
        bar.ax.yaxis.set_offset_position("left")
        bar.update_ticks()
    if row.unit:
        bar.set_label(row.unit, fontsize=7.5)


def _extend(beyond: tuple[bool, bool]) -> Any:
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[beyond]


def _colours(row: Row) -> tuple[dict[str, Any], tuple[list[float], list[str]] | None]:
    """Settings of the colours, and ticks with their names where these are return statuses or flags."""
    from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize

    if row.colours != "status":
        return {"cmap": row.colours, "norm": Normalize(*row.limits)}, None
    values = np.concatenate([part.values.ravel() for part in row.slices])
    present = sorted({int(v) for v in np.unique(values[np.isfinite(values)])}) or [0]
    edges = [present[0] - 0.5, *((a + b) / 2 for a, b in itertools.pairwise(present)), present[-1] + 0.5]
    flags = row.statuses in FLAGS.values()
    colours = dict(enumerate(FLAG_COLOURS)) if flags else STATUS_COLOURS
    chosen = ListedColormap([colours.get(value, "black") for value in present])
    middles = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    names = [row.statuses[value].name if value in row.statuses else "" for value in present]
    labels = names if flags else [f"{value:+d} {name}".strip() for value, name in zip(present, names, strict=True)]
    return {"cmap": chosen, "norm": BoundaryNorm(edges, len(present))}, (middles, labels)


def _ticks(first: float, last: float) -> list[float]:
    """Three to five round numbers between the edges of a slice."""
    low, high = sorted((first, last))
    step = 10.0 ** np.floor(np.log10((high - low) / 3))
    step *= next(factor for factor in (5, 2, 1) if (high - low) / (factor * step) >= 3)
    return [float(step * k) for k in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def _draw_slice(panel: Any, part: Slice, settings: dict[str, Any], row: Row) -> Any:
    """Draw a slice; return what the colour bar is of, None where there is nothing."""
    down, right = (k for k in range(3) if k != part.axis)
    panel.set_facecolor(NOTHING)
    edges = part.edges or part.extent
    shown = None
    if part.under is not None:
        finite = part.under[np.isfinite(part.under)]
        low, high = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
        grey: dict[str, Any] = {"cmap": GREY, "vmin": low, "vmax": high, "interpolation": "antialiased"}
        panel.imshow(part.under, extent=edges, aspect="auto", **grey)
    alpha = None if part.under is None else 0.72
    if part.arrows is not None:
        shown = panel.quiver(
            *(*part.arrows, part.values),
            angles="xy",
            scale_units="xy",
            scale=1,
            units="inches",
            width=SHAFT,
            **settings,
        )
    elif part.scatter is not None:
        x, y = part.scatter
        size = 1500 / max(len(x), 12) if len(x) else 1.0
        shown = panel.scatter(
            x, y, c=part.values, s=min(size, 60), edgecolors="0.4", linewidths=0.3, plotnonfinite=False, **settings
        )
    else:
        shown = panel.imshow(
            part.values, extent=part.extent, interpolation="nearest", aspect="auto", alpha=alpha, **settings
        )
    panel.set(xlim=edges[:2], ylim=edges[2:])
    panel.set_ylabel(f"{'zyx'[down]} (voxels)", fontsize=7, labelpad=1)
    panel.set_xlabel(f"{'zyx'[right]} (voxels)", fontsize=7, labelpad=1)
    panel.tick_params(labelsize=6.5, pad=1.5, length=2)
    panel.set_xticks(_ticks(*edges[:2]))
    panel.set_yticks(_ticks(*edges[2:]))
    return shown
