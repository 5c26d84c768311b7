"""Random errors of a run: where the noise comes from, how it is measured and told."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mpidvc.arrays import Array
from mpidvc.core.adaptive import NoiseFacts
from mpidvc.core.uncertainty import (
    Noise,
    Pooled,
    Sample,
    interpolation_bias,
    noise_of_residual,
    own_share,
    passed,
    pool,
    residual_of_noise,
)
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import NOISE, ResultsFile
from mpidvc.images.fingerprint import fingerprint
from mpidvc.images.image import Image
from mpidvc.kernels.correlation import ERRORS
from mpidvc.runtime.console import Console
from mpidvc.tasks.noise import RegionNoise, lags_of
from mpidvc.tasks.ranks import on_leader
from mpidvc.workflow.determines import checksum
from mpidvc.workflow.inputs import open_like
from mpidvc.workflow.measurement import Measurement
from mpidvc.workflow.output import base_name
from mpidvc.workflow.summary import spread, values_at

__all__ = ["SHOWN", "NoiseSource", "measure_noise", "read_source", "show_errors"]

#: Columns that TIFF and VTK files show.
SHOWN = ERRORS[:3]
#: Fewest windows that tell the correlations of the noise.
FEWEST = 10


class SampleTask(Protocol):
    """Windows that tell the noise of a run."""

    n_chunks: int

    def run(self, chunk: int) -> Sample | None: ...


@dataclass(frozen=True)
class NoiseSource:
    """Where the noise of a run comes from.

    Attributes
    ----------
    told : str
        The source in words, without folders: where files lie changes no byte of a result.
    determines : dict
        What it adds to what determines the result.
    covariance : array or None
        Autocovariance of the noise of one image, from a repeated scan.
    mask : Image or None
        A uniform region of image 1.
    """

    told: str
    determines: dict[str, Any]
    covariance: Array | None = None
    mask: Image | None = None


def read_source(args: argparse.Namespace, image: Image) -> NoiseSource | None:
    """The source of the noise that is asked for; None without ``--sigma``.

    Raises
    ------
    UserError
        If the file has no noise, or it or the mask is not for this image.
    """
    if not args.sigma:
        return None
    if args.noise_from is not None:
        with ResultsFile(args.noise_from) as file:
            found = file.noise()
        if found is None:
            raise UserError(
                f"--noise-from {args.noise_from}: holds no noise; give the .h5 of an ldic of two scans of the same "
                "state, made with --sigma"
            )
        covariance = found["noiseCovariance"]
        if covariance.shape != lags_of(image.two_d):
            raise UserError(f"--noise-from {args.noise_from}: is of images with another number of dimensions")
        return NoiseSource(
            f"from {Path(args.noise_from).name}", {"--sigma": True, "--noise-from": checksum(covariance)}, covariance
        )
    if args.noise_mask is not None:
        mask = open_like(image, args.noise_mask, "--noise-mask", grey=False)
        assert mask is not None
        told = f"of the region {base_name(args.noise_mask)}"
        return NoiseSource(told, {"--sigma": True, "--noise-mask": fingerprint(mask)}, mask=mask)
    return NoiseSource("from the residual", {"--sigma": True})


def measure_noise(
    measurement: Measurement,
    source: NoiseSource,
    task: SampleTask,
    image: Image,
    order: int,
    window: Sequence[int] | None = None,
) -> NoiseFacts:
    """The noise of a run, decided once; on every rank.

    Parameters
    ----------
    measurement : Measurement
        Gets the datasets of the noise.
    source : NoiseSource
    task : SampleTask
        Windows of this run.
    image : Image
        Image 1.
    order : {1, 3}
        Of the interpolation.
    window : 3 ints, optional
        Compared voxels along z, y, x of the windows of this run; None: they are no boxes.

    Raises
    ------
    AgreedError
        If the mask has no region that is large enough.
    """
    executor = measurement.executor
    with measurement.stages.stage("noise"):
        samples: dict[int, Sample] = {}
        region: dict[int, tuple[Array, Array]] = {}

        def take(chunk: int, found: Any) -> None:
            if found is not None:
                samples[chunk] = found

        def take_brick(chunk: int, found: Any) -> None:
            if found is not None:
                region[chunk] = found

        executor.map(task, take)
        if source.mask is not None:
            executor.map(RegionNoise(image, source.mask), take_brick)

        def decide() -> tuple[NoiseFacts, dict[str, Array]]:
            bricks = [region[k] for k in sorted(region)]
            windows = [samples[k] for k in sorted(samples)]
            return _decide(measurement.console, source, windows, bricks, image, order, window)

        facts, measurement.noise = on_leader(executor, decide)
    return facts


def _decide(
    console: Console,
    source: NoiseSource,
    windows: list[Sample],
    bricks: Sequence[tuple[Array, Array]],
    image: Image,
    order: int,
    window: Sequence[int] | None,
) -> tuple[NoiseFacts, dict[str, Array]]:
    """The noise, and the datasets that tell it."""
    lags = lags_of(image.two_d)
    single = source.covariance
    if source.mask is not None:
        if not bricks:
            raise UserError(
                f"--noise-mask {source.mask.path}: no cube of 32 voxels lies in it by half; give a larger region"
            )
        products, pairs = (np.sum([brick[k] for brick in bricks], axis=0) for k in (0, 1))
        single = products / np.maximum(pairs, 1)
    if not windows:
        console.warn("no window that tells the noise has converged: it is taken for white, and sigma may be too small")
        white = np.zeros(lags)
        white[tuple(n // 2 for n in lags)] = 1
        unknown = np.full((1, 3), np.nan)
        pooled = Pooled(white, np.stack([white] * 3), np.zeros(3), unknown, np.full((3, 33), np.nan))
    else:
        pooled = pool(windows)
        if len(windows) < FEWEST and single is None:
            console.warn(
                f"only {len(windows)} windows tell the noise: sigma is uncertain; --noise-from or --noise-mask help"
            )
    covariance = pooled.covariance
    spectrum = passed(order, pooled.places, image.two_d)
    if single is not None:
        covariance = residual_of_noise(single, spectrum)
    else:
        single = noise_of_residual(covariance, spectrum)
    own = own_share(single, float(covariance[tuple(n // 2 for n in lags)]), pooled.power)
    known = source.covariance is not None or source.mask is not None
    noise = Noise.of(covariance, pooled.gamma, own, known, window)
    bias = interpolation_bias(pooled.spectra, single, order)
    if not windows and not known:
        # the windows' own variance, and no correlation
        single = covariance = np.full(lags, np.nan)
    deviation = float(np.sqrt(max(float(covariance[tuple(n // 2 for n in lags)]), 0.0)))
    kappa = noise.kappa[3::4]  # of the displacement
    counted = kappa[1:] if image.two_d else kappa
    console.print(
        f"Noise {source.told}, {len(windows)} windows: residual ± {deviation:.4g} grey levels; "
        f"{' '.join(f'{k:.2f}' for k in counted)} voxels count as one along {'y x' if image.two_d else 'z y x'}"
    )
    arrays = {
        "noiseCovariance": single,
        "residualCovariance": covariance,
        "kappa": kappa,
        "interpolationBias": bias,
    }
    variance = float(covariance[tuple(n // 2 for n in lags)])
    facts = NoiseFacts(noise, single, pooled.gamma, own, variance)
    return facts, {NOISE[name]: np.asarray(values) for name, values in arrays.items()}


def show_errors(console: Console, results: ResultsFile, order: int, two_d: bool) -> None:
    """Print median and 95 % point of the random errors of the displacement, and the bias of the interpolation.

    Where there are many points, of some that stand for them.

    Parameters
    ----------
    console : Console
    results : ResultsFile
        Of a run with random errors.
    order : {1, 3}
        Of the interpolation.
    two_d : bool
    """
    axes = ("y", "x") if two_d else ("z", "y", "x")
    status, *errors = values_at(results, spread(results.layout.n), "returnStatus", *SHOWN[-len(axes) :])
    told, medians = [], []
    for axis, values in zip(axes, errors, strict=True):
        known = values[(status == 2) & np.isfinite(values)]
        if len(known):
            middle, high = np.quantile(known, [0.5, 0.95])
            told.append(f"{axis} {middle:.2g} ({high:.2g})")
            medians.append(float(middle))
    if not told:
        return
    console.print(
        f"Random error of the displacement, 1 sigma, median (95 % of the points below): {', '.join(told)} voxels"
    )
    noise = results.noise()
    bias = np.nanmax(noise["interpolationBias"], initial=0.0) if noise is not None else 0.0
    if bias > 0:
        console.print(f"Besides, the interpolation (-o {order}) errs by up to {bias:.2g} voxel")
    if bias > max(medians) and order == 1:
        console.warn(
            f"linear interpolation errs by up to {bias:.2g} voxel on this texture, more than the random error "
            f"({max(medians):.2g}): take a cubic spline (-o 3)"
        )
