"""Suggestion of a window: from the texture, the noise, and the field that is to be measured."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpidvc.arrays import Array, Triple
from mpidvc.core.grey import choose_criterion
from mpidvc.core.grey_texture import correlation_length, otsu, period_of, saturated_share, uneven
from mpidvc.core.grid import make_grid
from mpidvc.core.registration import RegistrationSettings
from mpidvc.core.window_choice import Bias, best, damped_wavelength, smallest
from mpidvc.errors import UserError
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.launch import available_cpus
from mpidvc.tasks.grey import Windows, grey_levels
from mpidvc.tasks.ranks import on_leader
from mpidvc.tasks.trial import (
    COVERAGE,
    MARGIN,
    PILOT,
    SEARCH,
    SMALLEST,
    Group,
    Look,
    TrialTask,
    groups_in,
    largest_window,
)
from mpidvc.workflow.guess import Guess
from mpidvc.workflow.inputs import by
from mpidvc.workflow.output import base_name, folder_of
from mpidvc.workflow.window_trials import (
    FEWEST,
    Errors,
    Noise,
    ladder,
    mask_noise,
    noise_of_pair,
    predicted,
    white_noise,
)

__all__ = ["Inputs", "Row", "Suggestion", "Texture", "registration_settings", "suggest"]

#: Interpolation that is suggested.
ORDER = 3
#: Share of the nodes whose error may not be above the target.
MOST_NODES = 0.95
#: Error (voxels) that is aimed at where nothing is known of the field, and no target is given.
TARGET = 0.01
#: Features of the texture that should fit into the edge of a window, and periods, where nothing is known of the noise.
FEATURES, PERIODS = 3, 1.5
#: Least share of air that windows are skipped for.
LEAST_AIR = 0.01
#: Variance of the grey levels of a window, over the median, above which it shows the face of a specimen; and the share
#: of saturated voxels that is warned of.
LARGEST_VARIANCE, LEAST_SATURATED = 1.3, 1e-3
#: Random error of a node, over the median, above which its displacement tells nothing of what windows smooth away.
LARGEST_SPREAD = 5.0
#: Displacement (voxels) from the guess up to which a correlation finds its way without a search.
NEAR = 2.0
#: CPU seconds per compared voxel of a point, and per point, where nothing was measured.
COST, COST_OF_POINT = 3.5e-8, 1e-4


@dataclass(frozen=True)
class Inputs:
    """What a suggestion is made for.

    Attributes
    ----------
    image1 : Image
    mask1 : Image or None
        Of image 1.
    image2 : Image or None
        The state that will be measured.
    repeat : Image or None
        A second scan of the state of image 1.
    names : tuple of (str, str)
        Images 1 and 2 in the command line.
    noise : float or None
        Standard deviation of white noise, grey levels.
    noise_mask : Image or None
        Mask of a uniform region of image 1.
    guess : Guess
        A registration, or nothing.
    target_sigma : float or None
        Random error of the displacement that is aimed at, voxels.
    target_strain : float or None
        Random error of F.
    """

    image1: Image
    mask1: Image | None = None
    image2: Image | None = None
    repeat: Image | None = None
    names: tuple[str, str] = ("im1.tif", "im2.tif")
    noise: float | None = None
    noise_mask: Image | None = None
    guess: Guess = field(default_factory=Guess)
    target_sigma: float | None = None
    target_strain: float | None = None


@dataclass(frozen=True)
class Texture:
    """Texture of image 1.

    Attributes
    ----------
    lengths : tuple of 3 floats
        Lag along z, y, x at which the autocorrelation falls to 1/e, voxels.
    periods : tuple of 3 floats or None
        None where there is none.
    mean, contrast : float
        Mean grey level, and median of the standard deviations of the bricks that were looked at.
    contrasts : tuple of float
        Of the bricks.
    saturated : float
        Share of voxels with the first or the last grey level, where they are piled up.
    air : float
        Share of air in the places that were looked at, 0 where there are no two classes. They do not reach the borders
        of the image, where a specimen has most of its air.
    threshold : float or None
        Grey level between air and material, for ``-glt``.
    """

    lengths: tuple[float, ...]
    periods: tuple[float | None, ...]
    mean: float
    contrast: float
    contrasts: tuple[float, ...]
    saturated: float
    air: float
    threshold: float | None

    @property
    def feature(self) -> float:
        """Size of a feature: the full width at half maximum of the autocorrelation, as of a Gaussian one."""
        return 2 * math.sqrt(math.log(2)) * max(length for length in self.lengths if math.isfinite(length))


@dataclass(frozen=True)
class Row:
    """A window of ``ldic -hws`` of this size; errors are those of the largest component, None where no noise is known.

    Attributes
    ----------
    hws : int
    sigma, sigma95 : float or None
        Random error of the displacement at half and at 95 % of the nodes at most, voxels.
    sigma_f, sigma_f95 : float or None
        Of F.
    bias : float or None
        What it smooths away of the displacements of image 2, root mean square of a component, voxels.
    damped : float
        Wavelength (voxels) that is damped by a tenth.
    seconds : float
        Of a run with as many voxels between the nodes, on the CPUs of this host; nothing follows from it.
    """

    hws: int
    sigma: float | None
    sigma95: float | None
    sigma_f: float | None
    sigma_f95: float | None
    bias: float | None
    damped: float
    seconds: float


@dataclass(frozen=True)
class Suggestion:
    """A suggested run.

    Attributes
    ----------
    command : str
        The command line.
    reasons : tuple of 3 str
    hws, spacing : int
        Half-window size and node spacing.
    order : int
        Of the interpolation.
    grey_low : float or None
        ``-glt``.
    search : tuple of 6 int or None
        Search range of a pixel search before, where displacements are large.
    texture : Texture
    noise_source : str or None
    noise_deviation, noise_correlation : float or None
        Standard deviation of an image's noise (grey levels), and correlation of neighbouring voxels.
    rows : tuple of Row
        A row for every size.
    nodes : int
        Nodes that were looked at and are not in air.
    warnings : tuple of str
    """

    command: str
    reasons: tuple[str, str, str]
    hws: int
    spacing: int
    order: int
    grey_low: float | None
    search: tuple[int, ...] | None
    texture: Texture
    noise_source: str | None
    noise_deviation: float | None
    noise_correlation: float | None
    rows: tuple[Row, ...]
    nodes: int
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has neither nan nor infinity."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def registration_settings(
    image1: Image,
    other: Image,
    groups: Sequence[Group],
    guess: Guess,
    order: int = ORDER,
    mask1: Image | None = None,
) -> RegistrationSettings:
    """Settings of the registrations with another image, with the criterion that the grey levels call for."""
    nodes = np.concatenate([group.nodes for group in groups]).astype(np.float64)
    half = min(PILOT, largest_window(image1.shape))
    windows = Windows(
        positions=nodes,
        guess=lambda rows: guess.at(rows, nodes[rows], "all"),
        hws=(0 if image1.two_d else half, half, half),
        min_coverage=0.0 if mask1 is None else COVERAGE,
    )
    choice = choose_criterion("auto", grey_levels(ImagePair(image1, other, mask1), windows))
    return RegistrationSettings(order=order, criterion=choice.criterion, gain=choice.gain, bias=choice.bias)


def suggest(inputs: Inputs, executor: Executor, sink: Callable[[int, Look], None] | None = None) -> Suggestion:
    """Suggest a window; every rank calls it.

    Parameters
    ----------
    inputs : Inputs
        The same on every rank.
    executor : Executor
    sink : callable, optional
        Told on rank 0 of every group that is done.

    Raises
    ------
    AgreedError
        On every rank, if image 1 has no texture, or a mask shows too little of it.
    """
    image1 = inputs.image1
    largest = largest_window(image1.shape)
    groups = groups_in(image1, largest)
    others = [image for image in (inputs.repeat, inputs.image2) if image is not None]
    nodes = np.concatenate([group.nodes for group in groups]).astype(np.float64)
    # a repeat scan has not moved
    guesses = [
        np.split(_at(Guess() if image is inputs.repeat else inputs.guess, nodes), len(groups)) for image in others
    ]
    sizes = ladder(largest, image1.two_d)
    settings = executor.broadcast(
        [
            registration_settings(
                image1, image, groups, Guess() if image is inputs.repeat else inputs.guess, mask1=inputs.mask1
            )
            for image in others
        ]
        if executor.rank == 0
        else None
    )
    task = TrialTask(
        image1, list(zip(others, settings, strict=True)), groups, guesses, sizes, largest, mask=inputs.mask1
    )
    found: dict[int, Look] = {}

    def take(chunk: int, look: Look) -> None:
        found[chunk] = look
        if sink is not None:
            sink(chunk, look)

    executor.map(task, take if executor.rank == 0 else None)
    looks = [found[k] for k in range(len(groups))] if executor.rank == 0 else []
    return on_leader(executor, lambda: _Conclusion(inputs, groups, looks, sizes, task.pilot, largest).suggestion())


def _at(guess: Guess, nodes: Array) -> Array:
    return guess.at(np.arange(len(nodes)), nodes, "all")


class _Conclusion:
    """What follows from the groups."""

    def __init__(
        self,
        inputs: Inputs,
        groups: Sequence[Group],
        looks: Sequence[Look],
        sizes: Sequence[int],
        pilot: int,
        largest: int,
    ) -> None:
        self._inputs, self._looks, self._sizes, self._pilot = inputs, looks, sizes, pilot
        self._groups = groups
        self._two_d = inputs.image1.two_d
        self._shape = inputs.image1.shape
        self._hws = range(SMALLEST, largest + 1)
        self._second = None if inputs.image2 is None else int(inputs.repeat is not None)
        self._warnings: list[str] = []
        self.texture = self._texture()

    def suggestion(self) -> Suggestion:
        """The suggestion."""
        noise = self._noise()
        errors = None if noise is None else predicted(self._looks, noise)
        bias = self._bias(errors)
        rows = [self._row(hws, errors, bias) for hws in self._hws]
        chosen, first = self._choice(rows, noise, bias)
        row = rows[self._hws.index(chosen)]
        search = self._search()
        return Suggestion(
            command=self._command(chosen, search),
            reasons=(first, self._second_reason(row, bias), self._third_reason(chosen, search)),
            hws=chosen,
            spacing=chosen,
            order=ORDER,
            grey_low=self.texture.threshold,
            search=search,
            texture=self.texture,
            noise_source=None if noise is None else noise.source,
            noise_deviation=None if noise is None else noise.deviation,
            noise_correlation=None if noise is None else noise.correlation,
            rows=tuple(rows),
            nodes=int(np.count_nonzero(self._used)),
            warnings=tuple(self._warnings),
        )

    def _texture(self) -> Texture:
        looks = self._looks
        if not len(blocks := np.concatenate([look.blocks for look in looks])):
            raise UserError(f"{self._inputs.image1.path}: has no grey levels where it was looked at; {self._check}")
        classes = otsu(blocks)
        if not classes.two:
            classes = uneven(blocks) or classes._replace(share=0.0)
        air = classes.share >= LEAST_AIR
        threshold = float(f"{classes.threshold:.4g}") if air else None
        lines = np.concatenate([look.lines for look in looks])
        pairs = np.max([look.line_pairs for look in looks], axis=0)
        variances = lines[:, -1, 0] / max(float(pairs[-1, 0]), 1.0)
        self._used = np.isfinite(variances)
        if threshold is not None:
            self._used &= np.concatenate([look.means for look in looks]) > threshold
        if not (variances[self._used] > 0).any():
            raise UserError(f"{self._inputs.image1.path}: has no texture where it was looked at; {self._check}")
        plain = self._used
        if threshold is not None:
            # windows at the face of a specimen show a step, and no texture
            plain = plain & (variances <= LARGEST_VARIANCE * np.median(variances[self._used]))
        products = lines[plain].sum(axis=0)
        lengths, periods = [], []
        for axis in (1, 2) if self._two_d else (0, 1, 2):
            covariance = products[axis] / np.maximum(pairs[axis], 1)
            rho = covariance[pairs[axis] > 0] / covariance[0]
            lengths.append(correlation_length(rho))
            period = period_of(rho)
            periods.append(None if math.isnan(period) else period)
        bricks = np.split(np.where(plain, variances, np.nan), len(looks))
        contrasts = [math.sqrt(float(np.nanmedian(brick))) for brick in bricks if np.isfinite(brick).any()]
        saturated = saturated_share(np.concatenate([look.sample for look in looks]))
        if saturated > LEAST_SATURATED:
            self._warnings.append(
                f"{100 * saturated:.1f} % of the voxels are saturated: their texture is cut off, which the predicted "
                "errors do not know"
            )
        means = np.array([look.mean for look in looks])
        return Texture(
            lengths=tuple(lengths),
            periods=tuple(periods),
            mean=float(means[np.isfinite(means)].mean()),
            contrast=float(np.median(contrasts)),
            contrasts=tuple(contrasts),
            saturated=saturated,
            air=classes.share if air else 0.0,
            threshold=threshold,
        )

    @property
    def _check(self) -> str:
        """What may be wrong with image 1."""
        mask = self._inputs.mask1
        return "check the image" if mask is None else f"check the image, and its mask (-mf1 {mask.path})"

    def _noise(self) -> Noise | None:
        inputs = self._inputs
        if inputs.noise is not None:
            return white_noise(inputs.noise, self._two_d)
        if inputs.noise_mask is not None:
            return mask_noise(inputs.image1, inputs.noise_mask)
        if inputs.repeat is None and inputs.image2 is None:
            return None
        source = "the residual of the repeat scan" if inputs.repeat is not None else "the residual of image 2"
        noise = noise_of_pair(self._looks, 0, self._pilot, source, self._used)
        if noise is None:
            other = (inputs.repeat or inputs.image2).path  # type: ignore[union-attr]
            self._warnings.append(
                f"fewer than {FEWEST} windows converge with {other}: its noise is not known; give a registration of it "
                "(-pf) if it has moved far"
            )
        return noise

    def _converged(self, which: int) -> Array:
        """Share of the nodes that converge, by size."""
        status = np.concatenate([look.registered[which].status for look in self._looks])[self._used]
        return np.asarray((status == 2).mean(axis=0)) if len(status) else np.zeros(len(self._sizes))

    def _bias(self, errors: Errors | None) -> Bias | None:
        """Bias of image 2's field; None if it is not known."""
        if self._second is None or errors is None:
            return None
        share = self._converged(self._second)
        # sizes that fail often show the easy places only
        good = [k for k in range(len(self._sizes)) if share[k] > 0 and share[k] >= share.max() - 0.1]
        # a few windows without texture, as beside a specimen, would hide in their noise what the others smooth away
        spread = np.nan_to_num(errors.displacement[:, [self._sizes[k] for k in good]].max(axis=2), nan=np.inf)
        plain = self._used & (spread <= LARGEST_SPREAD * np.median(spread[self._used], axis=0)).all(axis=1)
        found = np.concatenate([look.registered[self._second].displacements for look in self._looks])[plain]
        if len(good) < 2 or np.isfinite(found[:, good]).all(axis=(1, 2)).sum() < FEWEST:
            return None
        if self._two_d:
            found[:, :, 0] = np.nan
        sizes = [self._sizes[k] for k in good]
        sigma = np.array([errors.mean_square(size, plain) for size in sizes])
        return Bias.of(sizes, found[:, good], sigma, self.texture.feature / 2)

    def _row(self, hws: int, errors: Errors | None, bias: Bias | None) -> Row:
        half: tuple[float, ...] = (math.nan, math.nan)
        most: tuple[float, ...] = (math.nan, math.nan)
        if errors is not None:
            half, most = (errors.quantile(share, hws, self._used) for share in (0.5, MOST_NODES))
        known = errors is not None
        return Row(
            hws=hws,
            sigma=half[0] if known else None,
            sigma95=most[0] if known else None,
            sigma_f=half[1] if known else None,
            sigma_f95=most[1] if known else None,
            bias=None if bias is None else float(bias.at(hws)),
            damped=damped_wavelength(hws),
            seconds=self._seconds(hws),
        )

    def _seconds(self, hws: int) -> float:
        spacing: Triple = (1 if self._two_d else hws, hws, hws)
        points = math.prod(make_grid(self._shape, spacing)[1])
        voxels = (2.0 * hws - 1) ** (2 if self._two_d else 3)
        each = COST_OF_POINT + COST * voxels
        if self._looks[0].registered:
            last = [look.registered[-1].seconds for look in self._looks]
            nodes = len(self._groups[0].nodes)
            measured = np.median(last, axis=0) / nodes
            each = float(np.exp(np.interp(math.log(hws), np.log(self._sizes), np.log(np.maximum(measured, 1e-7)))))
        return points * (1 - self.texture.air) * each / max(available_cpus(), 1)

    def _choice(self, rows: Sequence[Row], noise: Noise | None, bias: Bias | None) -> tuple[int, str]:
        """The half-window size, and the reason for it."""
        inputs = self._inputs
        sizes = list(self._hws)
        if noise is None:
            return self._by_texture()
        sigma = [row.sigma95 for row in rows]
        strain = [row.sigma_f95 for row in rows]
        target, values, unit = inputs.target_sigma, sigma, "voxel"
        if inputs.target_strain is not None:
            target, values, unit = inputs.target_strain, strain, "of F"
        if target is None and bias is not None:
            squares = [(row.sigma or math.nan) ** 2 + float(row.bias or 0) ** 2 for row in rows]
            chosen = best(sizes, np.sqrt(squares))
            row = rows[sizes.index(chosen)]
            return chosen, (
                f"Windows of {self._voxels(chosen)} voxels have the least error of the displacement, "
                f"{math.sqrt(squares[sizes.index(chosen)]):.2g} voxel: {row.sigma:.2g} of it is random (by "
                f"{noise.source}) and {row.bias:.2g} is smoothed away."
            )
        aim = TARGET if target is None else target
        at = smallest(sizes, np.array(values, np.float64), aim)
        if at is None:
            self._warnings.append(
                f"no window up to -hws {sizes[-1]} has a random error of {aim:g} {unit} or less at 95 % of the nodes"
            )
        chosen = sizes[-1] if at is None else at
        row = rows[sizes.index(chosen)]
        how = "is the smallest that meets" if at is not None else "comes nearest to"
        return chosen, (
            f"A window of {self._voxels(chosen)} voxels {how} {aim:g} {unit}: the random error of a displacement is "
            f"{row.sigma95:.2g} voxel or less at 95 % of the nodes, that of F {row.sigma_f95:.2g} (by {noise.source})."
        )

    def _by_texture(self) -> tuple[int, str]:
        """Where nothing is known of the noise: so that some features of the texture fit into a window."""
        texture = self.texture
        least = FEATURES * texture.feature
        what = f"{FEATURES} features of the texture, of {texture.feature:.1f} voxels each,"
        period = max((p for p in texture.periods if p is not None), default=0.0)
        if PERIODS * period > least:
            least, what = PERIODS * period, f"{PERIODS:g} periods of the texture, of {period:.1f} voxels each,"
        sizes = list(self._hws)
        chosen = min(max(math.ceil((least + 1) / 2), sizes[0]), sizes[-1])
        return chosen, (
            f"Into windows of {self._voxels(chosen)} voxels {what} fit; how large the random error is, only a repeat "
            "scan, a second state, or the noise tells."
        )

    def _voxels(self, hws: int) -> str:
        n = 2 * hws - 1
        return by((1, n, n) if self._two_d else (n, n, n))

    def _second_reason(self, row: Row, bias: Bias | None) -> str:
        told = f"Displacements that vary over fewer than {row.damped:.0f} voxels are damped by more than a tenth"
        if bias is None or row.bias is None:
            return f"{told}."
        aim = self._inputs.target_sigma
        if aim is not None and row.bias > aim:
            self._warnings.append(
                f"the field of {self._inputs.names[1]} varies so much that these windows smooth {row.bias:.2g} voxel "
                f"of it away, more than the random error of {aim:g} that was asked for"
            )
        return f"{told}; of the field of image 2 that is {row.bias:.2g} voxel."

    def _third_reason(self, hws: int, search: tuple[int, ...] | None) -> str:
        told = [
            f"With -ns {hws} windows overlap by half, so that every second node is independent",
            "-o 3 has far less bias than linear interpolation",
        ]
        if self.texture.threshold is not None:
            told.append("-glt skips windows whose mean grey level is that of air")
        if search is not None:
            told.append("a pixel search goes first, as displacements are large")
        return f"{'; '.join(told)}."

    def _search(self) -> tuple[int, ...] | None:
        """Range of a pixel search about the guess, if one is needed."""
        if self._second is None:
            return None
        registered = [look.registered[self._second] for look in self._looks]
        used = np.split(self._used, len(registered))
        asked = [(one, rows) for one, rows in zip(registered, used, strict=True) if rows.any()]
        lost = sum(one.lost or not np.isfinite(one.squares[rows]).any() for one, rows in asked)
        if lost > len(asked) / 4:
            self._warnings.append(
                f"{self._inputs.names[1]} was not found within {SEARCH} voxels of the first guess in {lost} of "
                f"{len(asked)} places: register the images first (mpidvc reg), and give the result by -pf"
            )
        nodes = np.concatenate([group.nodes for group in self._groups]).astype(np.float64)
        guess = _at(self._inputs.guess, nodes)[:, :3, 3]
        found = np.concatenate([one.displacements for one in registered])
        pilot = min(range(len(self._sizes)), key=lambda k: abs(self._sizes[k] - self._pilot))
        moved = (found[:, pilot] - guess)[self._used]
        moved = moved[np.isfinite(moved).all(axis=1)]
        if not len(moved) or np.quantile(np.abs(moved).max(axis=1), 0.99) <= NEAR:
            return None
        low, high = np.rint(moved.min(axis=0)) - MARGIN, np.rint(moved.max(axis=0)) + MARGIN
        if self._two_d:
            low[0] = high[0] = 0
        return tuple(int(v) for pair in zip(low, high, strict=True) for v in pair)

    def _command(self, hws: int, search: tuple[int, ...] | None) -> str:
        inputs = self._inputs
        windows = ["-hws", str(hws)]
        windows += [] if inputs.mask1 is None else ["-mf1", str(inputs.mask1.path)]
        windows += [] if self.texture.threshold is None else ["-glt", f"{self.texture.threshold:g}"]
        grid = ["-ns", str(hws)]
        guess = ["-pf", inputs.guess.name] if inputs.guess.registration is not None else []
        if search is None:
            return shlex.join(["mpidvc", "ldic", *inputs.names, *windows, *grid, "-o", str(ORDER), *guess])
        first = ["mpidvc", "pixelSearch", *inputs.names, *windows, *grid, "-sr", *map(str, search), *guess]
        name = "-".join([*(base_name(name) for name in inputs.names), "pixelSearch.h5"])
        field = str(Path(folder_of(inputs.names[0], real=False)) / name)
        then = ["mpidvc", "ldic", *inputs.names, *windows, "-o", str(ORDER), "-pf", field]
        return f"{shlex.join(first)} && {shlex.join(then)}"
