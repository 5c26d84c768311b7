"""Phase correlation: of the 2D images of a stack with its first one, and of two volumes.

Kuglin and Hines, Proc. IEEE Int. Conf. Cybernetics and Society (1975) 163–165. The score of a stack is that of
ewoksndreg 0.5.0.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpidvc.kernels.phases import cross_phases
from mpidvc.kernels.pixel_search import fft_length

__all__ = ["Match", "Ranking", "Reference", "StackScore", "ranked", "shifts_between", "working_dtype"]

#: A transformed value below this multiple of the norm of its image, times the precision, is rounding.
ROUNDING = 8.0
#: Bytes of freed memory that a process keeps; glibc learns no more than 32 MiB.
KEPT = 30 * 2**20
#: Probability that two images without a relation have a distinct peak.
CHANCE = 1e-3
#: Share of the greatest magnitude below which a frequency of a volume tells nothing.
SILENT = 1e-4
#: Voxels around a peak that belong to it, along each axis.
AROUND = 2
#: Displacements, in sizes of the image, up to which a part of it is still seen.
FARTHEST = 0.9


class Match(NamedTuple):
    """The phase correlation of an image with the first one.

    Attributes
    ----------
    peak, mean : float
        Greatest and mean magnitude.
    y, x : float
        Displacement from the first image to this one, whole voxels.
    distinct : float
        1 if the peak is higher than that of unrelated images, with a probability of 1 - `CHANCE`; otherwise 0.
    """

    peak: float
    mean: float
    y: float
    x: float
    distinct: float


#: The match of an image that holds nan or infinity.
NO_MATCH = Match(math.nan, math.nan, math.nan, math.nan, 0.0)


def working_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Precision of the transforms: float32 where it holds every value of the image."""
    return np.result_type(dtype, np.float32)


class _Spectra:
    """Spectra of images of one shape and precision, in memory that is used again and again.

    Parameters
    ----------
    shape : (ny, nx)
    dtype : float32 or float64
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        # the allocator of the C library keeps as much from now on, and does not ask the system for each image anew
        np.empty(KEPT, np.uint8)
        self._values = np.empty(shape, dtype)
        self._least = ROUNDING * float(np.finfo(dtype).eps)
        # squares of such values, summed, are numbers
        self._exponents = np.finfo(dtype).maxexp // 4

    def spectrum(self, image: NDArray[Any]) -> tuple[NDArray[Any], float] | None:
        """Spectrum of an image less its least value, (ny, nx // 2 + 1, 2), and the level of its rounding errors.

        None if the image holds nan or infinity.
        """
        # slow to import, and only this command needs it
        from scipy.fft import fft, rfft

        values = self._values
        with np.errstate(invalid="ignore"):
            low, high = image.min(), image.max()
        # the difference of the limits may be beyond the greatest number
        extent = float(high) / 2 - float(low) / 2
        if not math.isfinite(extent):
            return None
        exponent = math.frexp(extent)[1]
        if extent == 0:
            # only the mean is not 0
            values[:] = high != 0
        elif abs(exponent) < self._exponents:
            np.subtract(image, low, out=values, dtype=values.dtype, casting="unsafe")
        else:
            np.copyto(values, image, casting="unsafe")
            np.ldexp(values, -exponent, out=values)
            values -= values.min()
        norm = math.sqrt(float(np.vdot(values, values)))
        # axis by axis the second transform takes place in the memory of the first
        spectrum = fft(rfft(values, axis=1), axis=0, overwrite_x=True)
        return spectrum.view(values.dtype).reshape(values.shape[0], -1, 2), self._least * norm


class Reference:
    """The first image of a stack, transformed once.

    Parameters
    ----------
    image : (ny, nx) array
        Integers or floats.
    """

    def __init__(self, image: NDArray[Any]) -> None:
        self._shape = image.shape
        self._spectra = _Spectra(image.shape, working_dtype(image.dtype))
        self._phases: NDArray[Any] | None = None
        found = self._spectra.spectrum(image)
        if found is not None:
            spectrum, least = found
            one = np.zeros_like(spectrum)
            one[..., 0] = 1
            cross_phases(spectrum, one, least)
            self._phases = spectrum

    def match(self, image: NDArray[Any]) -> Match:
        """Phase correlation with another image of the same shape and dtype; nan if one holds nan or infinity."""
        from scipy.fft import ifft, irfft

        found = self._spectra.spectrum(image)
        if self._phases is None or found is None:
            return NO_MATCH
        spectrum, least = found
        kept = cross_phases(spectrum, self._phases, least)
        ny, nx = self._shape
        cross = spectrum.view(np.result_type(spectrum.dtype, np.complex64))[..., 0]
        correlation = irfft(ifft(cross, axis=0, overwrite_x=True), n=nx, axis=1)
        np.abs(correlation, out=correlation)
        place = int(correlation.argmax())
        peak = float(correlation.flat[place])
        y, x = divmod(place, nx)
        # half of the frequencies are stored; those of the first column, and of the last one if nx is even, stand once
        frequencies = int(kept.sum() + kept[1 : (nx + 1) // 2].sum())
        # by Parseval, unrelated images give normal values of this standard deviation
        deviation = math.sqrt(frequencies) / (ny * nx)
        threshold = deviation * math.sqrt(2 * math.log(ny * nx / CHANCE))
        return Match(
            peak,
            float(correlation.mean()),
            float(y if y <= (ny - 1) // 2 else y - ny),
            float(x if x <= (nx - 1) // 2 else x - nx),
            float(peak > threshold),
        )


class StackScore(NamedTuple):
    """Phase correlation of all images of a stack with its first one.

    Attributes
    ----------
    name : str
    score : float
        Mean over the images of mean minus peak: -1 is best, 0 is worst; nan if an image holds nan.
    ratio : float
        Mean over the images, without the first, of peak divided by mean.
    distinct : float
        Share of the images, without the first, with a distinct peak.
    matches : (n,) list of Match
    """

    name: str
    score: float
    ratio: float
    distinct: float
    matches: list[Match]

    @classmethod
    def of(cls, name: str, matches: list[Match]) -> StackScore:
        """From the matches of all images, the first one's with itself included."""
        # a stack of one image has no other
        others = np.array(matches[1:] or matches)
        peaks, means = others[:, 0], others[:, 1]
        ratios = np.divide(peaks, means, out=np.full(len(peaks), np.nan), where=means > 0)
        score = math.fsum(match.mean - match.peak for match in matches) / len(matches)
        return cls(name, score, float(ratios.mean()), float(others[:, 4].mean()), matches)


def ranked(scores: list[StackScore]) -> list[StackScore]:
    """Stacks from best to worst: the least score first, nan last; the order given among equals."""
    return sorted(scores, key=lambda one: (math.isnan(one.score), one.score))


class Ranking(NamedTuple):
    """Stacks from best to worst.

    Attributes
    ----------
    reference : str or None
        The stack that was asked for, or the best one.
    stacks : list of StackScore or None
        From best to worst; None if nothing was ranked.
    """

    reference: str | None
    stacks: list[StackScore] | None

    @property
    def names(self) -> list[str] | None:
        """Names from best to worst."""
        return None if self.stacks is None else [one.name for one in self.stacks]


def shifts_between(one: NDArray[Any], two: NDArray[Any], peaks: int = 4) -> NDArray[np.float64]:
    """Translations that may lead from an image to another one: to be tried, since a peak may be one of chance.

    They are at the highest peaks of the phase correlation, and at those of the cross-correlation, which bears more of
    a remaining rotation or stretch. A shift s is as well one of s - n where images of n voxels are periodic, as they
    are for a discrete Fourier transform: both are given.

    Parameters
    ----------
    one, two : (nz, ny, nx) float32
        Of the same shape; nan where there is no grey level.
    peaks : int
        Of each correlation.

    Returns
    -------
    (n, 3) float64
        Displacements (z, y, x) from `one` to `two`, whole voxels, without duplicates.
    """
    size = [fft_length(n) for n in one.shape]
    spectra = []
    for image in (one, two):
        data = np.isfinite(image)
        mean = image[data].mean(dtype=np.float64) if data.any() else 0.0
        spectra.append(np.fft.rfftn(np.where(data, image - np.float32(mean), np.float32(0)), size, (0, 1, 2)))
    cross = spectra[1] * np.conj(spectra[0])
    del spectra
    found: dict[tuple[int, ...], None] = {}
    magnitude = np.abs(cross)
    least = SILENT * float(magnitude.max(initial=0.0))
    phases = np.divide(cross, magnitude, out=np.zeros_like(cross), where=magnitude > least)
    for spectrum in (phases, cross):
        correlation = np.fft.irfftn(spectrum, size, (0, 1, 2))
        for _ in range(peaks):
            place = np.unravel_index(int(correlation.argmax()), correlation.shape)
            around = [np.arange(int(p) - AROUND, int(p) + AROUND + 1) % n for p, n in zip(place, size, strict=True)]
            correlation[np.ix_(*around)] = -np.inf
            sides = [(int(p), int(p) - n) for p, n in zip(place, size, strict=True)]
            for shift in itertools.product(*sides):
                if all(abs(s) <= FARTHEST * (n - 1) for s, n in zip(shift, one.shape, strict=True)):
                    found[shift] = None
    return np.array(list(found), np.float64).reshape(-1, 3)
