"""Local correlation of many points, chunk by chunk.

A chunk is a brick of neighbouring points. It reads one box of each image, converts it once, prefilters the spline once,
and registers all its points on those boxes. Points whose guess departs from the others' get boxes of their own.

Points may start from neighbours (`LdicSettings.spacing`), of their own chunk only: no result depends on another chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Float32Array, Records, Triple
from mpidvc.core.boxes import Scratch
from mpidvc.core.grid import brick_edge
from mpidvc.core.phase_correlation import shifts_between
from mpidvc.core.registration import RegistrationSettings
from mpidvc.core.starts import best_neighbours, kept_table, predicted
from mpidvc.core.uncertainty import Noise
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.kernels import correlation
from mpidvc.tasks.adaptive import AdaptiveSettings, SizeChoice
from mpidvc.tasks.boxes import (
    Ints,
    Map,
    around_samples,
    read_float_box,
    read_reference_box,
    read_sampled_box,
)
from mpidvc.tasks.points import CHOSEN, Points, record_of, rows_as_records

__all__ = ["LdicSettings", "LdicTask", "brick", "columns_of", "records_of"]

Samples = Float32Array | None

#: Most voxels of a box of image 2 that points share.
LARGEST_BOX = 16_000_000
#: Points whose rounded guess is farther than this (voxels) from the chunk's median get boxes of their own.
NEAR = 16
#: A point that has converged is tried again where its ZNCC is below this fraction of its best neighbour's; the start
#: from this neighbour has to correlate by as much.
POOR = 0.8
#: Points are lost that have not converged with this ZNCC at least. Where more than this fraction of a chunk's compared
#: points is lost, their motion as a whole is searched.
LEAST_ZNCC, LOST = 0.7, 1 / 3
#: Most voxels of the box that is searched, and motions that are tried: so many peaks of each of two correlations.
SEARCHED_BOX, PEAKS = 2_000_000, 2


def columns_of(errors: bool, chosen: bool = False) -> tuple[str, ...]:
    """Numbers of a point besides Phi, with random errors or without, and with a window that was chosen or without."""
    return (*correlation.RESULT, *(correlation.ERRORS if errors else ()), *(CHOSEN if chosen else ()))


@dataclass(frozen=True)
class LdicSettings:
    """Settings that determine a local correlation, besides images and points.

    Attributes
    ----------
    registration : RegistrationSettings
    hws : 3 ints
        Half-window size, voxels; ``2 * hws - 1`` voxels per axis are compared. 0 along z in 2D. The largest one, where
        windows are chosen.
    margin : 3 ints
        Voxels by which window 2 reaches beyond window 1 at each side.
    min_coverage : float
        Least fraction of window 1 inside the image and not masked.
    grey_low, grey_high : float
        Limits of the mean grey level of window 1, both excluded.
    spacing : 3 floats, optional
        Typical distance of neighbouring points, voxels: points may start from neighbours that have converged. None:
        they start from their guess.
    adaptive : AdaptiveSettings, optional
        Every point has a window of its own; points start from their guess.
    """

    registration: RegistrationSettings
    hws: Triple
    margin: Triple
    min_coverage: float = 0.5
    grey_low: float = -np.inf
    grey_high: float = np.inf
    spacing: tuple[float, float, float] | None = None
    adaptive: AdaptiveSettings | None = None

    @property
    def compared(self) -> Triple:
        """Voxels along z, y, x that are compared."""
        z, y, x = (max(2 * h - 1, 1) for h in self.hws)
        return z, y, x


def brick(n_points: int, spacing: npt.ArrayLike, settings: LdicSettings, two_d: bool, regular: bool = True) -> Array:
    """Edges (voxels) of the bricks whose points share boxes.

    `spacing` is the typical distance of points, `regular` says whether they are nodes of a grid.
    """
    hws, margin = np.array(settings.hws), np.array(settings.margin)
    frame = 2 * hws + 1 + 2 * margin + 2 * around_samples(settings.registration.order)
    if two_d:
        frame[0] = 1
    spacing = np.maximum(np.asarray(spacing, dtype=np.float64), 1.0)
    return brick_edge(n_points, spacing, frame, LARGEST_BOX, regular)


class LdicTask:
    """Registers the windows of image 1 around points in image 2.

    Parameters
    ----------
    images : ImagePair
        Mask 2 is not used.
    points : Points
        Points in image 1, at whole voxels (fractions are dropped); a guess that is not finite gives return status -7.
    settings : LdicSettings
    noise : Noise, optional
        Asks for the random errors.
    choice : SizeChoice, optional
        Chooses the windows.
    """

    def __init__(
        self,
        images: ImagePair,
        points: Points,
        settings: LdicSettings,
        noise: Noise | None = None,
        choice: SizeChoice | None = None,
    ) -> None:
        self.dtype = record_of(columns_of(noise is not None, choice is not None))
        self._choice = choice
        self._noise = None if noise is None else correlation.Noise(noise.rho, noise.kappa, noise.variance)
        self.images = images
        self.points, self.settings = points, settings
        self.n_chunks = points.n_blocks
        self._two_d = images.two_d
        self._kernel_settings = settings.registration.for_kernels(self._two_d, images.image1.base, images.image2.base)
        self._scratch = (Scratch(), Scratch())

    def run(self, chunk: int) -> Records:
        """Records of the chunk's points, in the chunk's order."""
        inputs = self.points.inputs(chunk)
        records = np.zeros(len(inputs), self.dtype)
        guess = inputs["phi"]
        finite = np.asarray(np.isfinite(guess).all(axis=(1, 2)))
        n = len(correlation.RESULT)
        records["result"][:, :n] = [np.inf, 0, -7, np.inf, 0, np.nan]
        records["result"][:, n:] = np.nan
        usable = np.nonzero(finite)[0]
        if len(usable):
            nodes = inputs["position"][usable].astype(np.int64)
            if self.settings.spacing is None:
                records[usable] = self._registered(nodes, guess[usable])
            else:
                records[usable] = self._from_neighbours(nodes, guess[usable])
        skipped = np.isin(records["result"][:, 2], (-5, -7))
        records["phi"][skipped] = np.eye(4)[:3]
        records["phi"][skipped, :, 3] = np.nan
        return records

    def _from_neighbours(self, nodes: Ints, guess: Array) -> Records:
        """Records of points that start from their guess, or from neighbours before them."""
        table, began = self._table(nodes), np.full(len(nodes), -1)
        records = self._registered(nodes, guess, table, began)
        result = records["result"][records["result"][:, 2] > -5]
        least = max(LEAST_ZNCC, POOR * result[:, 5].max(initial=0))
        if (result[:, 2] == 2).all() and (result[:, 5] >= least).all():
            return records
        seen = np.where(began >= 0, _known(records["result"][began, 5]), -np.inf)
        self._try_again(nodes, records, table, seen)
        status, zncc = records["result"][:, 2], _known(records["result"][:, 5])
        lost = np.flatnonzero((status > -5) & ~((status == 2) & (zncc >= LEAST_ZNCC)))
        if len(lost) > LOST * np.count_nonzero(status > -5):
            second = self._moved_as_a_whole(nodes[lost], guess[lost])
            better = self._correlation(nodes[lost], second) > np.maximum(zncc[lost], POOR * LEAST_ZNCC)
            chosen = lost[better]
            if len(chosen):
                again = self._registered(nodes[chosen], second[better], self._table(nodes[chosen]))
                _take_better(records, chosen, again)
                self._try_again(nodes, records, table, seen)
        return records

    def _table(self, nodes: Ints) -> Ints:
        assert self.settings.spacing is not None
        return kept_table(nodes, self.settings.spacing)

    def _try_again(self, nodes: Ints, records: Records, table: Ints, seen: Array) -> None:
        """Register points that have not converged, or correlate poorly, once more from their best neighbour.

        It has to correlate better than those that they have started from (`seen`: their ZNCC), and the start better
        than the result that it is to replace. Each point is registered again once at most; those that converge become
        neighbours to start from.
        """
        tried = np.zeros(len(nodes), bool)
        while True:
            status, zncc = records["result"][:, 2], _known(records["result"][:, 5])
            best = best_neighbours(table, zncc, status == 2)
            poor = (status != 2) | (zncc < POOR * zncc[best])
            who = np.flatnonzero((status > -5) & poor & ~tried & (best >= 0) & (zncc[best] > seen))
            if not len(who):
                return
            seen[who] = zncc[best[who]]
            starts = predicted(records["phi"][best[who]], (nodes[who] - nodes[best[who]]).astype(np.float64))
            least = np.maximum(zncc[who], POOR * zncc[best[who]])
            again = self._registered(nodes[who], starts, least=least)
            tried[who[again["result"][:, 2] != 0]] = True
            _take_better(records, who, again)

    def _correlation(self, nodes: Ints, phi: Array) -> Array:
        """ZNCC of points at the given Phi, -inf where it is not known."""
        return _known(self._registered(nodes, phi, least=np.full(len(nodes), np.inf))["result"][:, 5])

    def _moved_as_a_whole(self, nodes: Ints, guess: Array) -> Array:
        """Guesses moved by a displacement of the points as a whole: the best for each of them of the likely ones."""
        hws, axes = np.array(self.settings.hws), 2 if self._two_d else 3
        low, high = nodes.min(axis=0) - hws, nodes.max(axis=0) + hws + 1
        beyond = (high - low) * max(0.0, 1 - (SEARCHED_BOX / float(np.prod(high - low))) ** (1 / axes))
        cut = np.ceil(beyond / 2).astype(np.int64) * [not self._two_d, True, True]
        low, high = low + cut, high - cut
        moved = np.rint(np.median(guess[:, :, 3], axis=0)).astype(np.int64)
        one, two = self._grey(self.images.image1, low, high), self._grey(self.images.image2, low + moved, high + moved)
        if self.images.mask1 is not None:
            part, where = self.images.mask1.read_box(*((int(z), int(y), int(x)) for z, y, x in (low, high)))
            one[where][part == 0] = np.nan
        shifts = shifts_between(one, two, PEAKS)
        # about the same displacement as well, beyond half of the box
        shifts = shifts[(np.abs(shifts) <= (high - low) / 2).all(axis=1)]
        starts = np.repeat(guess[None], len(shifts), axis=0)
        starts[..., 3] += shifts[:, None]
        found = np.array([self._correlation(nodes, one) for one in starts])
        return np.asarray(starts[found.argmax(axis=0), np.arange(len(nodes))])

    @staticmethod
    def _grey(image: Image, low: Ints, high: Ints) -> Float32Array:
        """Grey levels of a box, nan where there are none."""
        box, _, real = read_float_box(image, low, high)
        if real is not None:
            box[real == 0] = np.nan
        return box

    def _registered(
        self,
        nodes: Ints,
        guess: Array,
        near: Ints | None = None,
        began: Ints | None = None,
        least: Array | None = None,
    ) -> Records:
        """Records of points; those that share boxes may start from neighbours (`near`) before them.

        `began` gets the neighbours that points have started from, -1 for their guess. Points whose ZNCC at their start
        is not above `least` are left there with status 0.
        """
        records = np.zeros(len(nodes), self.dtype)
        records["phi"] = guess
        # a guess beyond any image must not overflow the integers of its window
        rounded = np.clip(np.rint(guess[:, :, 3]), -(2.0**40), 2.0**40).astype(np.int64)
        far = np.abs(rounded - np.median(rounded, axis=0)).max(axis=1, initial=0) > NEAR
        together = np.nonzero(~far)[0]
        if len(together):
            among = near if near is None or not far.any() else self._table(nodes[together])
            own = np.full(len(together), -1)
            records[together] = self._register(
                nodes[together], rounded[together], records[together], among, own, _of(least, together)
            )
            if began is not None:
                began[together] = np.where(own >= 0, together[own], -1)
        for k in np.nonzero(far)[0]:
            alone = np.array([k])
            records[alone] = self._register(nodes[alone], rounded[alone], records[alone], None, None, _of(least, alone))
        return records

    def _register(
        self,
        nodes: Ints,
        rounded: Ints,
        records: Records,
        near: Ints | None,
        began: Ints | None,
        least: Array | None,
    ) -> Records:
        """Register points that share boxes; `records` hold their guess, the rest is that of `_registered`."""
        settings = self.settings
        hws, margin = np.array(settings.hws), np.array(settings.margin)
        box1, maps, sampled1, origin1 = self._reference_box(nodes)
        chosen = None
        if self._choice is not None:
            chosen = self._choice.choose(box1, maps[0], maps[2], nodes - origin1, nodes)
            hws = chosen[0][:, None] * (hws > 0)
        last = np.array(self.images.image2.shape) - 1
        low2 = np.maximum(nodes + rounded - hws - margin, 0)
        high2 = np.minimum(nodes + rounded + hws + margin, last)
        if self._two_d:
            low2[:, 0] = high2[:, 0] = 0
        meets = (low2 <= high2).all(axis=1)
        box_low = low2[meets].min(axis=0) if meets.any() else np.zeros(3, np.int64)
        box_high = high2[meets].max(axis=0) if meets.any() else np.zeros(3, np.int64)
        order = settings.registration.order
        box2, valid2, origin2 = read_sampled_box(self.images.image2, box_low, box_high, order, self._scratch[1])
        phi = np.ascontiguousarray(records["phi"].reshape(len(nodes), 12))
        ends = np.cumsum([len(correlation.RESULT), len(correlation.ERRORS) if self._noise is not None else 0])
        result, errors, window = (np.ascontiguousarray(part) for part in np.split(records["result"], ends, axis=1))
        centres = np.ascontiguousarray(nodes - origin1)
        # bounds in the wrong order mark a window that misses image 2
        low = np.where(meets[:, None], low2 - origin2, 1.0).astype(np.float64)
        high = np.where(meets[:, None], high2 - origin2, 0.0).astype(np.float64)

        def correlate(rows: Ints | slice, hws: Ints, noise: correlation.Noise | None) -> None:
            """Register the points of these rows, whose windows are of one size."""
            inputs = phi[rows], result[rows], errors[rows]
            correlation.correlate_points(
                self._kernel_settings,
                box1,
                *maps,
                sampled1,
                box2,
                valid2,
                hws,
                origin1 - origin2,
                centres[rows],
                low[rows],
                high[rows],
                *inputs[:2],
                settings.min_coverage,
                settings.grey_low,
                settings.grey_high,
                near=near,
                margin=margin,
                image2=(-origin2, last - origin2),
                at_hand=(box_low - origin2, box_high - origin2),
                least=least,
                began=began if chosen is None else None,
                noise=noise,
                errors=inputs[2],
            )
            if not isinstance(rows, slice):
                phi[rows], result[rows], errors[rows] = inputs

        if chosen is None or self._choice is None:
            correlate(slice(None), hws, self._noise)
        else:
            window[:] = np.stack(chosen, axis=1)
            for size in np.unique(chosen[0]).tolist():
                rows = np.flatnonzero(chosen[0] == size)
                correlate(rows, hws[rows[0]], None if self._noise is None else self._choice.noise(size))
        records["phi"] = phi.reshape(-1, 3, 4)
        records["result"] = np.concatenate([result, errors, window], axis=1)
        return records

    def _reference_box(self, nodes: Ints) -> tuple[Float32Array, tuple[Map, Map, Map], Samples, Ints]:
        """Image 1 around nodes: grey levels, maps (usable, covered, real), samples for Shift-DVC, and the origin."""
        registration = self.settings.registration
        reach = self._kernel_settings.gradient_reach
        around = np.maximum(np.array(self.settings.hws), np.array(self.settings.hws) - 1 + reach)
        if registration.shift:
            around = around + around_samples(registration.order)  # samples and gradients beside the voxels
        if self._choice is not None:
            around = np.maximum(around, self._choice.reach)
        if self._two_d:
            around[0] = 0
        start, stop = nodes.min(axis=0) - around, nodes.max(axis=0) + around + 1
        box, maps, sampled1 = read_reference_box(
            self.images.image1, self.images.mask1, start, stop, registration, reach, self._scratch[0]
        )
        return box, maps, sampled1, start


def _known(zncc: Array) -> Array:
    """ZNCC with -inf where there is none."""
    return np.nan_to_num(zncc, nan=-np.inf)


def _of(values: Array | None, rows: Ints) -> Array | None:
    """Some of the values, if there are any."""
    return None if values is None else values[rows]


def _take_better(records: Records, who: Ints, again: Records) -> None:
    """Replace records by those of a second registration that has converged where the first has not, or not as well."""
    old, new = records["result"][who], again["result"]
    better = (new[:, 2] == 2) & ((old[:, 2] != 2) | (_known(new[:, 5]) > _known(old[:, 5])))
    records[who[better]] = again[better]


def records_of(field: PhiField | None, rows: Ints, errors: bool = False, chosen: bool = False) -> Records:
    """Records of rows of a field as they are; the columns are those of `columns_of`.

    Columns of the text files that the field does not have are 0, as in spam; all others are nan.
    """
    return rows_as_records(field, rows, columns_of(errors, chosen))
