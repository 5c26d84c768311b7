"""Trials of windows of several sizes at the nodes of small groups that are spread over an image.

A group reads one box of each image, whatever the sizes. `TrialTask` looks at the texture, sums up what the random
errors of all windows follow from, and correlates with other images; `register` correlates at the nodes of a group.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Ints, Records, Triple, is_two_d
from mpidvc.core.boxes import data_voxels
from mpidvc.core.grey import ANY_VALUE
from mpidvc.core.grey_texture import line_sums
from mpidvc.core.nested_windows import nested_sums
from mpidvc.core.pixel_search import SearchSettings
from mpidvc.core.registration import RegistrationSettings
from mpidvc.core.uncertainty import FRAME, LAGS, lag_sums
from mpidvc.core.virtual import doubled, noise_like
from mpidvc.images.image import ArrayImage, Image
from mpidvc.images.pair import ImagePair
from mpidvc.kernels import correlation
from mpidvc.tasks.boxes import around_samples
from mpidvc.tasks.deform import sample_places
from mpidvc.tasks.ldic import LdicSettings, LdicTask
from mpidvc.tasks.pixel_search import AT_LIMIT, PixelSearch
from mpidvc.tasks.points import inputs_of

__all__ = [
    "Group",
    "LocalPair",
    "Look",
    "Registered",
    "TrialTask",
    "Virtual",
    "VirtualTask",
    "groups_in",
    "groups_of",
    "largest_window",
    "local_image",
    "register",
]

#: Least and largest half-window sizes that are tried, in 3D and in 2D.
SMALLEST, LARGEST, LARGEST_2D = 5, 25, 40
#: Voxels along each axis of the smallest image that windows are tried in.
FRAMED = 4 * SMALLEST + 2 * FRAME
#: Half-window size in which residuals are looked at: smaller windows fit a part of the noise.
PILOT = 13
#: Voxels that a window of image 2 reaches beyond that of image 1, and that it is searched in besides.
MARGIN, SEARCH = 3, 8
#: Voxels at the ends of a virtual state that are not exact.
BESIDE = 6
#: Groups along an axis, and nodes of a group along an axis, in 3D and in 2D; their distance at most.
GROUPS, GROUPS_2D, NODES, NODES_2D, APART = 3, 5, 2, 3, 12
#: Groups along y and x that there are at least.
FEWEST = 2
#: Share of an image's voxels that are decoded at most, where the groups do not cover it anyway, and voxels that always
#: are.
SHARE, ALWAYS = 0.045, 40_000_000
#: Share of a window that has to be unmasked, as by default in ldic.
COVERAGE = 0.5
#: Largest lag (voxels) along an axis at which the texture is looked at; edge (voxels) of the blocks whose mean grey
#: levels tell air from material, and voxels of a group that enter a histogram.
LONGEST, BLOCK, SAMPLE = 36, 9, 4096
#: Columns of a registration.
STATUS, ITERATIONS, ZNCC = (correlation.RESULT.index(name) for name in ("returnStatus", "iterations", "zncc"))


@dataclass(frozen=True)
class Group:
    """Nodes that share boxes.

    Attributes
    ----------
    nodes : (k, 3) int64
        Voxels of image 1.
    """

    nodes: Ints

    @property
    def centre(self) -> Ints:
        """Voxel in their middle."""
        middle: Ints = (self.nodes.min(axis=0) + self.nodes.max(axis=0)) // 2
        return middle


def largest_window(shape: Triple) -> int:
    """Largest half-window size that is tried in an image of this shape; may be below `SMALLEST`."""
    two_d = is_two_d(shape)
    fits = (min(shape[1:] if two_d else shape) - 2 * FRAME) // 4
    return min(fits, LARGEST_2D if two_d else LARGEST)


def groups_of(shape: Triple, hws: int, grain: Triple = (1, 1, 1)) -> list[Group]:
    """Groups of nodes, spread evenly, so that windows of this size fit into the image.

    Parameters
    ----------
    shape : 3 ints
        Of the image.
    hws : int
        Largest half-window size.
    grain : 3 ints
        Pieces that the image is decoded in: groups lie on the borders of pieces, and there are fewer of them, so that
        few pieces are decoded; but four groups at least.
    """
    two_d = is_two_d(shape)
    per_axis = GROUPS_2D if two_d else GROUPS
    nodes = NODES_2D if two_d else NODES
    first = hws + FRAME
    room = np.array([1 if two_d and axis == 0 else n - 2 * first for axis, n in enumerate(shape)])
    counts = np.array([1 if two_d and axis == 0 else per_axis for axis in range(3)])
    most = max(SHARE * math.prod(shape), ALWAYS)
    edge = 2 * np.array([0 if two_d and axis == 0 else _reach2(hws, 3) for axis in range(3)]) + APART * (nodes - 1) + 1
    pieces = np.where(np.array(grain) > 1, edge // np.array(grain) + 2, edge)
    decoded = np.prod(np.minimum(pieces * np.array(grain), shape))
    least = np.array([1, FEWEST, FEWEST])
    # planes that are decoded as a whole are read once more for every layer of groups
    ease = np.array([9.0, 0.25, 0.5]) if grain[0] < grain[1] else np.array([0.0, 0.25, 0.5])
    while (counts > least).any() and np.prod(counts) * decoded > most:
        axis = int(np.argmax(np.where(counts > least, counts + ease, 0)))
        counts[axis] -= 1
    axes = []
    for axis in range(3):
        if two_d and axis == 0:
            axes.append([np.zeros(1, np.int64)])
            continue
        apart = min(APART, int(room[axis] // (counts[axis] * nodes)))
        offsets = np.rint((np.arange(nodes) - (nodes - 1) / 2) * apart).astype(np.int64)
        centres = first + (2 * np.arange(counts[axis]) + 1) * room[axis] // (2 * counts[axis])
        if grain[axis] > 1:
            low, high = first - offsets[0], shape[axis] - 1 - first - offsets[-1]
            centres = np.clip(np.rint(centres / grain[axis]).astype(np.int64) * grain[axis], low, high)
        axes.append([centre + offsets for centre in np.unique(centres)])
    return [
        Group(np.stack([a.ravel() for a in np.meshgrid(z, y, x, indexing="ij")], axis=-1).astype(np.int64))
        for z in axes[0]
        for y in axes[1]
        for x in axes[2]
    ]


def groups_in(image: Image, hws: int) -> list[Group]:
    """`groups_of` an image, which may be decoded in pieces."""
    return groups_of(image.shape, hws, getattr(image, "grain", (1, 1, 1)))


def _reach2(hws: int, order: int) -> int:
    """Voxels of image 2 that are read around the nodes."""
    return hws + MARGIN + SEARCH + around_samples(order)


def local_image(image: Image, low: Ints, high: Ints) -> tuple[ArrayImage, Ints]:
    """The box ``[low, high)`` of an image as far as it exists, in memory, and its first voxel."""
    start = np.clip(low, 0, np.array(image.shape) - 1)
    stop = np.clip(high, start + 1, image.shape)
    part, _ = image.read_box([int(v) for v in start], [int(v) for v in stop])
    local = ArrayImage(np.array(part), image.path)
    local.limits, local.base = image.limits, image.base
    return local, start


@dataclass(frozen=True)
class LocalPair:
    """Boxes of two images around the nodes of a group.

    Attributes
    ----------
    images : ImagePair
        In memory.
    nodes : (k, 3) int64
        Voxels of the box of image 1.
    offset : (3,) int64
        First voxel of the box of image 1 less that of image 2: added to displacements between the boxes, as it is in
        the guess.
    """

    images: ImagePair
    nodes: Ints
    offset: Ints


@dataclass(frozen=True)
class Registered:
    """What windows of several sizes found at the nodes of a group.

    Attributes
    ----------
    displacements : (k, sizes, 3) float64
        Voxels; nan where the registration has not converged.
    F : (k, sizes, 3, 3) float64
    status : (k, sizes) float64
        Return status.
    seconds : (sizes,) float64
        CPU seconds of all nodes; nothing follows from them but a time.
    squares, voxels : (k,) float64
        Sum of squares of the residual in windows of the pilot size, less gain and bias of the grey levels, and their
        number; nan where it has not converged.
    products, pairs : (2 l + 1, …) float64
        Of the residuals at all lags.
    moved : (3,) float64
        Displacement of the group that a search found, whole voxels; 0 without a search.
    lost : bool
        Whether the best place of the search is at an end of its range.
    """

    displacements: Array
    F: Array
    status: Array
    seconds: Array
    squares: Array
    voxels: Array
    products: Array
    pairs: Array
    moved: Array
    lost: bool


class _Block:
    """The points of one block."""

    n_blocks = 1

    def __init__(self, nodes: Ints, phi: Array) -> None:
        self._inputs = inputs_of(nodes.astype(np.float64), phi)

    def inputs(self, block: int) -> Records:
        return self._inputs


def register(
    pair: LocalPair, phi: Array, sizes: Sequence[int], pilot: int, settings: RegistrationSettings
) -> Registered:
    """Correlate at the nodes of a group with windows of several sizes.

    Parameters
    ----------
    pair : LocalPair
    phi : (k, 4, 4) float64
        First guesses, displacements between the images.
    sizes : sequence of int
        Half-window sizes.
    pilot : int
        Half-window size in which residuals are looked at; the other sizes start from its result.
    settings : RegistrationSettings
    """
    count, two_d = len(pair.nodes), pair.images.two_d
    start = np.array(phi)
    start[:, :3, 3] += pair.offset
    found = {}
    seconds = []
    for hws in (pilot, *sizes):
        if hws not in found:
            windows: Triple = (0 if two_d else hws, hws, hws)
            margin: Triple = (0 if two_d else MARGIN, MARGIN, MARGIN)
            task = LdicTask(pair.images, _Block(pair.nodes, start), LdicSettings(settings, windows, margin))
            begun = time.process_time()
            found[hws] = task.run(0), time.process_time() - begun
            if hws == pilot:
                records = found[hws][0]
                good = records["result"][:, STATUS] == 2
                start[good, :3] = records["phi"][good]
    displacements, F = np.full((count, len(sizes), 3), np.nan), np.full((count, len(sizes), 3, 3), np.nan)
    status = np.zeros((count, len(sizes)))
    for k, hws in enumerate(sizes):
        records, spent = found[hws]
        seconds.append(spent)
        status[:, k] = records["result"][:, STATUS]
        good = status[:, k] == 2
        displacements[good, k] = records["phi"][good, :, 3] - pair.offset
        F[good, k] = records["phi"][good, :, :3]
    squares, voxels = np.full(count, np.nan), np.full(count, np.nan)
    lags = 2 * LAGS + 1
    products, pairs = np.zeros((1 if two_d else lags, lags, lags)), np.zeros((1 if two_d else lags, lags, lags))
    records = found[pilot][0]
    for k in np.flatnonzero(records["result"][:, STATUS] == 2).tolist():
        left = _residual(pair.images, pair.nodes[k], records["phi"][k], pilot, settings.order)
        if left is None:
            continue
        residual, counts = left
        squares[k], voxels[k] = float((residual**2).sum()), counts.sum()
        sums = lag_sums(residual, counts)
        products += sums[0]
        pairs += sums[1]
    return Registered(
        displacements, F, status, np.array(seconds), squares, voxels, products, pairs, np.zeros(3), lost=False
    )


def _residual(images: ImagePair, node: Ints, phi: Array, hws: int, order: int) -> tuple[Array, Array] | None:
    """Image 1 less the deformed image 2 in a window, in grey levels of image 1, and 1 where it is not masked, else 0.

    None where a voxel that is not masked is no data.
    """
    half = np.array([0 if images.two_d else hws - 1, hws - 1, hws - 1])
    X = np.indices([int(n) for n in 2 * half + 1]).astype(np.float64) - half[:, None, None, None]
    places = np.einsum("ij,jzyx->izyx", phi[:, :3], X) + (phi[:, 3] + node)[:, None, None, None]
    warped = sample_places(images.image2, np.ascontiguousarray(places), order)
    box = [int(v) for v in node - half], [int(v) for v in node + half + 1]
    part, _ = images.image1.read_box(*box)
    if part.shape != warped.shape:
        return None
    counts = np.ones(part.shape, bool) if images.mask1 is None else images.mask1.read_box(*box)[0] != 0
    if not (np.isfinite(warped) & data_voxels(part, images.image1.limits))[counts].all():
        return None
    f, g = part[counts].astype(np.float64), warped[counts]
    f, g = f - f.mean(), g - g.mean()
    deviation = g.std()
    if not deviation > 0:
        return None
    residual = np.zeros(part.shape)
    residual[counts] = f - g * (f.std() / deviation)
    return residual, counts.astype(np.float64)


@dataclass(frozen=True)
class Look:
    """What a group shows of image 1, and of its registrations.

    Attributes
    ----------
    lines : (k, 3, LONGEST + 1) float64
        `core.grey_texture.line_sums` of the largest windows at the nodes; nan where a voxel is no data.
    line_pairs : (3, LONGEST + 1) float64
        Of each of them.
    mean : float
        Of the box.
    sample : (SAMPLE,)
        Grey levels.
    blocks : (b,) float64
        Mean grey levels of blocks of `BLOCK` voxels.
    means : (k,) float64
        Mean grey levels of the windows of the pilot size at the nodes.
    sums : (k, half + 1, 15, 10) float64
        `core.nested_windows.nested_sums` at the nodes; nan where a voxel is no data.
    gradients, gradient_pairs : (3, 2 l + 1, …), (2 l + 1, …) float64
        Of image 1's gradients at all lags, in windows of the pilot size.
    registered : tuple of Registered
        With each of the other images.
    """

    lines: Array
    line_pairs: Array
    mean: float
    sample: npt.NDArray[np.generic]
    blocks: Array
    means: Array
    sums: Array
    gradients: Array
    gradient_pairs: Array
    registered: tuple[Registered, ...]


class TrialTask:
    """Looks at groups of nodes; a chunk is a group.

    Parameters
    ----------
    image1 : Image
    others : sequence of (Image, RegistrationSettings)
        Images that image 1 is correlated with, of its shape.
    groups : sequence of Group
    guesses : sequence of (groups, k, 4, 4) float64
        First guesses at the nodes of every group, for each of the others; a search goes before.
    sizes : sequence of int
        Half-window sizes that are correlated, in rising order.
    largest : int
        Half-window size up to which random errors are predicted.
    order : {1, 3}
        Of the interpolation of image 2.
    mask : Image, optional
        Of image 1: voxels where it is 0 do not count, nor do nodes with more than half of their window there.
    """

    def __init__(
        self,
        image1: Image,
        others: Sequence[tuple[Image, RegistrationSettings]],
        groups: Sequence[Group],
        guesses: Sequence[Sequence[Array]],
        sizes: Sequence[int],
        largest: int,
        order: int = 3,
        mask: Image | None = None,
    ) -> None:
        self._image1, self._others, self._groups, self._guesses = image1, others, groups, guesses
        self._mask = mask
        self._sizes, self._largest, self._order = sizes, largest, order
        self.pilot = min(PILOT, largest)
        self.n_chunks = len(groups)

    def run(self, chunk: int) -> Look:
        """What the group of this number shows."""
        group = self._groups[chunk]
        flat = np.array([0 if self._image1.two_d else 1, 1, 1])
        around = flat * (self._largest - 1 + FRAME)
        box = group.nodes.min(axis=0) - around, group.nodes.max(axis=0) + around + 1
        local, low = local_image(self._image1, *box)
        mask = None if self._mask is None else local_image(self._mask, *box)[0]
        nodes = group.nodes - low
        values = local.array
        usable = data_voxels(values, local.limits)
        counts = usable if mask is None else usable & (mask.array != 0)
        inner = values[counts]
        lines, line_pairs = np.full((len(nodes), 3, LONGEST + 1), np.nan), np.zeros((3, LONGEST + 1))
        lags = 2 * LAGS + 1
        shape = (lags if flat[0] else 1, lags, lags)
        gradients, pairs = np.zeros((3, *shape)), np.zeros(shape)
        means = np.full(len(nodes), np.nan)
        sums = np.full((len(nodes), self._largest, 15, 10), np.nan)
        pilot = flat * (self.pilot - 1)
        for k, node in enumerate(nodes):
            window = _around(node, around)
            if min(s.start for s in window) < 0 or not usable[window].all():
                continue
            if counts[_around(node, pilot)].mean() < COVERAGE:
                continue
            sums[k], G = nested_sums(values[window], self._order)
            lines[k], line_pairs = line_sums(values[window], LONGEST)
            cut = _around(np.array(G.shape[1:]) // 2, pilot)
            for axis in range(3):
                found = lag_sums(G[axis][cut])
                gradients[axis] += found[0]
            pairs += found[1]
            means[k] = values[_around(node, pilot)].mean(dtype=np.float64)
        return Look(
            lines=lines,
            line_pairs=line_pairs,
            mean=float(inner.mean(dtype=np.float64)) if inner.size else math.nan,
            sample=inner[:: max(1, inner.size // SAMPLE)],
            blocks=_block_means(np.where(counts, values, np.nan)),
            means=means,
            sums=sums,
            gradients=gradients,
            gradient_pairs=pairs,
            registered=tuple(
                self._registered(chunk, other, settings, self._guesses[k][chunk], local, mask, low, nodes)
                for k, (other, settings) in enumerate(self._others)
            ),
        )

    def _registered(
        self,
        chunk: int,
        other: Image,
        settings: RegistrationSettings,
        guess: Array,
        local: ArrayImage,
        mask: ArrayImage | None,
        low: Ints,
        nodes: Ints,
    ) -> Registered:
        """The registrations with another image, from a search at the middle of the group on."""
        group = self._groups[chunk]
        flat = np.array([0 if other.two_d else 1, 1, 1])
        given = np.rint(np.median(guess[:, :3, 3], axis=0)).astype(np.int64) * flat
        around = flat * _reach2(self._largest, self._order)
        second, low2 = local_image(
            other, group.nodes.min(axis=0) + given - around, group.nodes.max(axis=0) + given + around + 1
        )
        images, offset = ImagePair(local, second, mask), low - low2
        triple: Triple = (SEARCH if flat[0] else 0, SEARCH, SEARCH)
        z, y, x = (int(v) for v in flat * self.pilot)
        back: Triple = (-triple[0], -SEARCH, -SEARCH)
        search = PixelSearch(images, SearchSettings((z, y, x), back, triple, "no", zero_mean=True))
        begin = np.eye(4)[None].copy()
        begin[0, :3, 3] = given + offset
        middle = group.centre - low
        record = search.search(middle[None].astype(np.float64), begin)[0]
        lost = bool(record["result"][AT_LIMIT]) or not np.isfinite(record["phi"]).all()
        moved = np.zeros(3) if lost else record["phi"][:, 3] - offset - given
        phi = guess.copy()
        phi[:, :3, 3] += moved
        pair = LocalPair(images, nodes, offset)
        found = register(pair, phi, self._sizes, self.pilot, settings)
        return replace(found, moved=given + moved, lost=lost)


@dataclass(frozen=True)
class Virtual:
    """Virtual second states of an image, each with its own noise in both images.

    Attributes
    ----------
    phis : (cases, 4, 4) float64
        About the middle of each group.
    noise : (2 l + 1, …) float64
        Autocovariance of the noise that is added to each image; 1 along z in 2D.
    """

    phis: Array
    noise: Array


class VirtualTask:
    """Correlates groups of nodes with virtual second states of their own surroundings; a chunk is a group.

    Parameters
    ----------
    image : Image
    virtual : Virtual
    groups : sequence of Group
    sizes : sequence of int
        Half-window sizes.
    largest : int
        The largest of them.
    settings : RegistrationSettings
    """

    def __init__(
        self,
        image: Image,
        virtual: Virtual,
        groups: Sequence[Group],
        sizes: Sequence[int],
        largest: int,
        settings: RegistrationSettings,
    ) -> None:
        self._image, self._virtual, self._groups = image, virtual, groups
        self._sizes, self._largest, self._settings = sizes, largest, settings
        self.pilot = min(PILOT, largest)
        self.n_chunks = len(groups)

    def run(self, chunk: int) -> list[Registered]:
        """The registrations of a group, one for each case."""
        group, two_d = self._groups[chunk], self._image.two_d
        flat = np.array([0 if two_d else 1, 1, 1])
        around = flat * (self._largest + MARGIN + BESIDE)
        local, low = local_image(self._image, group.nodes.min(axis=0) - around, group.nodes.max(axis=0) + around + 1)
        values = local.array.astype(np.float64) - local.base
        usable = data_voxels(local.array, local.limits)
        values = np.where(usable, values, values[usable].mean() if usable.any() else 0.0)
        fine = ArrayImage(doubled(values).astype(np.float32), self._image.path)
        nodes, centre = group.nodes - low, group.centre - low
        grid = np.indices(values.shape).astype(np.float64)
        found = []
        for case, phi in enumerate(self._virtual.phis):
            inverse = np.linalg.inv(phi)
            back = grid - centre[:, None, None, None]
            places = np.einsum("ij,jzyx->izyx", inverse[:3, :3], back) + (inverse[:3, 3] + centre)[:, None, None, None]
            if two_d:
                places[0] = 0
            moved = sample_places(fine, np.ascontiguousarray(2 * places), 3)
            first, second = (
                ArrayImage((state + self._noise(values.shape, (chunk, case, k))).astype(np.float32), f"state {k}")
                for k, state in enumerate((values, moved))
            )
            # what lies outside is no data
            second.limits = ANY_VALUE
            guess = np.tile(np.eye(4), (len(nodes), 1, 1))
            guess[:, :3, :3] = phi[:3, :3]
            guess[:, :3, 3] = (nodes - centre) @ (phi[:3, :3] - np.eye(3)).T + phi[:3, 3]
            pair = LocalPair(ImagePair(first, second), nodes, np.zeros(3, np.int64))
            found.append(register(pair, guess, self._sizes, self.pilot, self._settings))
        return found

    def _noise(self, shape: tuple[int, ...], seed: tuple[int, ...]) -> Array:
        """A realisation in a box, which may be smaller than the lags."""
        size = [max(n, m) for n, m in zip(shape, self._virtual.noise.shape, strict=True)]
        return noise_like(self._virtual.noise, size, seed)[tuple(slice(0, n) for n in shape)]


def _around(node: Ints, half: Ints) -> tuple[slice, ...]:
    """The window about a voxel of an array."""
    return tuple(slice(int(a), int(b)) for a, b in zip(node - half, node + half + 1, strict=True))


def _block_means(values: Array) -> Array:
    """Mean grey levels of blocks without missing voxels."""
    edges = [min(BLOCK, n) for n in values.shape]
    counts = [n // edge for n, edge in zip(values.shape, edges, strict=True)]
    cut = values[tuple(slice(0, n * edge) for n, edge in zip(counts, edges, strict=True))]
    (a, b, c), (i, j, k) = counts, edges
    means: Array = cut.reshape(a, i, b, j, c, k).mean(axis=(1, 3, 5)).ravel()
    return means[np.isfinite(means)]
