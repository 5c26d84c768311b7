"""Search for the motion between two images without any guess: translation, rotation and a uniform stretch.

The pair is binned to some ten thousand voxels. Every rotation of a uniform grid (in 3D the quaternions of Alexa 2022,
doi 10.1109/CVPR52688.2022.00811) is tried with every whole translation at once, by correlation through FFTs. Amplitudes
of both images are divided by the root of their radial average first: neither the outline of a specimen nor the noise
decides alone. The best of them are refined by Gauss–Newton with the unknowns of a similarity, then the best of these on
finer images less their local means, then on finer ones as they are. The most significant correlation wins: Fisher's z
of the ZNCC times the root of the number of compared voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from mpidvc.arrays import Array, Float32Array, Triple, is_two_d
from mpidvc.core import deformation
from mpidvc.core.binning import bin_data, binned_shape, first_voxel
from mpidvc.core.boxes import TAPS, gradient_voxels
from mpidvc.core.registration import BlockSums, GaussNewton, RegistrationSettings
from mpidvc.errors import UserError
from mpidvc.kernels import correlation

__all__ = ["Candidate", "CoarseSearch", "Found", "binning_of", "coarse_search", "in_steps"]

#: Mean side of the binned images, voxels: the largest that is taken for the refinement, in 2D and in 3D.
SIDE_2D, SIDE = 240.0, 100.0
#: The scan sees images that are binned further, so that its FFTs have no more points than this, in 2D and in 3D.
POINTS_2D, POINTS = 20_000, 70_000
#: Fewest voxels of the binned image along an axis, for the refinement and for the scan.
THINNEST, THINNEST_SCAN = 4, 3
#: Rotations of the scan: the step of angles in 2D (degrees), and the number of all rotations in 3D.
STEP_2D, ROTATIONS = 2.0, 6000
#: Largest distance of a rotation from the grid, degrees.
REACH_2D, REACH = STEP_2D / 2, 13.0
#: Uniform stretches of the scan. In 3D the scan is too coarse to tell them apart.
STRETCHES_2D, STRETCHES = (0.93, 1.0, 1.07), (1.0,)
#: Width of the neighbourhood whose mean is taken off in the second refinement, voxels; least deviation that counts as
#: texture, as a part of the largest.
WIDTH, LEAST_TEXTURE = 3.0, 0.01
#: Motions that a chunk of the scan tries, and how many are refined on each of the three levels.
CHUNK = 100
REFINED = (128, 24, 6)
#: Motions nearer to each other than this (degrees; share of the image's mean side) are one candidate.
SAME_ANGLE, SAME_PLACE = 4.0, 0.06
#: Least part of image 1 that has to be compared.
LEAST_OVERLAP = 0.1
#: A second candidate whose score is so large a part of the best one's makes the result doubtful.
RIVAL = 0.9
#: The same for a best ZNCC below the second figure, which chance can reach.
RIVAL_WEAK, WEAK = 0.7, 0.5
#: Degrees that a refined rotation may be beyond the largest angle.
TOLERANCE = 1.0


class Level(NamedTuple):
    """Two images of one binning, (z, y, x) float32 without nan, and where they are data (uint8; None: everywhere)."""

    im1: Float32Array
    data1: Any
    im2: Float32Array
    data2: Any

    @classmethod
    def of(cls, im1: Float32Array, im2: Float32Array) -> Level:
        """From images that are nan where they are not data."""
        return cls(*_filled(im1), *_filled(im2))

    def levelled(self, sigma: float) -> Level:
        """The images less their local mean, in units of the local deviation (of this width, voxels)."""
        one, two = _levelled(self.im1, self.data1, sigma), _levelled(self.im2, self.data2, sigma)
        return Level(one, self.data1, two, self.data2)


class Candidate(NamedTuple):
    """A refined motion.

    Attributes
    ----------
    score : float
        Fisher's z of the ZNCC times the root of the number of compared voxels; 0 for a refinement that failed.
    zncc : float
    overlap : float
        Part of image 1 that was compared.
    phi : (4, 4) float64
        About the centre of the image, in its voxels.
    """

    score: float
    zncc: float
    overlap: float
    phi: Array


@dataclass(frozen=True)
class Found:
    """The result of a search: the best candidate, and the best one of another motion, if any."""

    best: Candidate
    second: Candidate | None

    @property
    def doubtful(self) -> bool:
        """Whether another motion is nearly as good."""
        least = RIVAL_WEAK if self.best.zncc < WEAK else RIVAL
        return self.second is not None and self.second.score > least * self.best.score


class StepTask(Protocol):
    """A step of the search in numbered chunks, as an executor takes it."""

    @property
    def n_chunks(self) -> int: ...

    def run(self, chunk: int) -> Any:
        """Return the result of a chunk."""


def coarse_search(
    im1: Float32Array,
    im2: Float32Array,
    *,
    max_angle: float = 180.0,
    progress: Callable[[int, int], None] | None = None,
) -> Array:
    """Phi between two images, without any guess: rotation, translation and a uniform stretch of some per cent.

    Parameters
    ----------
    im1, im2 : (nz, ny, nx) float32
        Images of equal shape; 2D: nz = 1. Voxels that are nan are not data.
    max_angle : float
        Largest rotation, degrees.
    progress : callable, optional
        Called with the steps that are done and with all of them.

    Returns
    -------
    (4, 4) float64
        Phi about the centre of the image, voxels: good to a fraction of a voxel of the binned image.

    Raises
    ------
    UserError
        If an image has no texture, or nothing fits.
    """
    return search(im1, im2, max_angle=max_angle, progress=progress).best.phi


def search(
    im1: Float32Array,
    im2: Float32Array,
    *,
    max_angle: float = 180.0,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """As `coarse_search`, with the ZNCC, and with the best one of the other candidates."""
    if im1.shape != im2.shape:
        raise ValueError(f"images of one shape are needed, not {im1.shape} and {im2.shape}")
    factor = binning_of(im1.shape)
    small1, small2 = (_binned(image, factor) for image in (im1, im2))
    return in_steps(CoarseSearch(small1, small2, im1.shape, factor, max_angle), _here, progress)


def _here(task: StepTask, told: Callable[[], None]) -> list[Any]:
    results = []
    for chunk in range(task.n_chunks):
        results.append(task.run(chunk))
        told()
    return results


def in_steps(
    search: CoarseSearch,
    run: Callable[[StepTask, Callable[[], None]], list[Any]],
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Run the steps of a search: `run` takes one and a function to call after each chunk, and returns all results."""
    done = 0

    def told() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, search.total), search.total)

    steps = search.steps()
    task = next(steps)
    while True:
        results = run(task, told)
        try:
            task = steps.send(results)
        except StopIteration as end:
            if progress is not None:
                progress(search.total, search.total)
            found: Found = end.value
            return found


def binning_of(shape: Triple) -> Triple:
    """Binning of the images that the search refines its candidates on."""
    flat = is_two_d(shape)
    sides = shape[flat:]
    mean = math.prod(sides) ** (1 / len(sides))
    least = math.ceil(mean / (SIDE_2D if flat else SIDE) - 1e-9)
    factor = max(1, min(least, min(sides) // THINNEST))
    return (1 if flat else factor, factor, factor)


def _scan_factor(shape: Triple) -> Triple:
    """Further binning of the images that are scanned."""
    flat = is_two_d(shape)
    for factor in range(1, max(min(shape[flat:]) // THINNEST_SCAN, 1) + 1):
        bins = (1 if flat else factor, factor, factor)
        if math.prod(_grid(binned_shape(shape, bins))) <= (POINTS_2D if flat else POINTS):
            return bins
    raise UserError("the coarse search cannot turn images that are so thin; give a first guess (-pf)")


def _middle_factor(shape: Triple, scanned: Triple) -> Triple:
    """Binning between that of the scan and none."""
    factor = round(math.sqrt(scanned[1]))
    return (1 if is_two_d(shape) else factor, factor, factor)


def _grid(shape: Triple) -> Triple:
    """Shape of the FFTs for images of a shape: there is room for what a rotation lays across, and for translations."""
    nz, ny, nx = (_fft_size(max(1.5 * n, 0.5 * n + max(shape))) for n in shape)
    return 1 if is_two_d(shape) else nz, ny, nx


def _binned(image: Float32Array, factor: Triple) -> Float32Array:
    first, shape = first_voxel(image.shape, factor), binned_shape(image.shape, factor)
    cut = tuple(slice(f, f + n * b) for f, n, b in zip(first, shape, factor, strict=True))
    return bin_data(image[cut], np.isfinite(image[cut]), factor).astype(np.float32)


def _filled(image: Float32Array) -> tuple[Float32Array, Any]:
    data = np.isfinite(image)
    if data.all():
        return np.ascontiguousarray(image), None
    mean = image[data].mean(dtype=np.float64) if data.any() else 0.0
    return np.where(data, image, np.float32(mean)), data.astype(np.uint8)


def _levelled(image: Float32Array, data: Any, sigma: float) -> Float32Array:
    """Texture everywhere as strong as an outline, where there is any; 0 where no data is."""
    weight = np.ones(image.shape) if data is None else data.astype(np.float64)
    share = np.maximum(_smooth(weight, sigma), 1e-6)
    values = (image - image.mean(dtype=np.float64)) * weight
    rest = (values - _smooth(values, sigma) / share) * weight
    deviation = np.sqrt(_smooth(rest * rest, sigma) / share)
    least = max(float(np.median(deviation)), LEAST_TEXTURE * float(deviation.max()), 1e-30)
    levelled: Float32Array = (rest / (deviation + least)).astype(np.float32)
    return levelled


def _smooth(values: Array, sigma: float) -> Array:
    """Sum with the weights of a Gaussian; 0 outside."""
    reach = math.ceil(3 * sigma)
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(reach + 1)]
    whole = weights[0] + 2 * sum(weights[1:])
    for axis, n in enumerate(values.shape):
        if n == 1:
            continue
        along = np.moveaxis(values, axis, 0)
        total = along * (weights[0] / whole)
        for k in range(1, min(reach, n - 1) + 1):
            total[k:] += along[:-k] * (weights[k] / whole)
            total[:-k] += along[k:] * (weights[k] / whole)
        values = np.moveaxis(total, 0, axis)
    return np.ascontiguousarray(values)


class Stage:
    """A pair binned further, and how Phi in its voxels follows from Phi in those of the pair.

    Parameters
    ----------
    im1, im2 : (z, y, x) float32
        nan where they are not data.
    factor : 3 ints
    """

    def __init__(self, im1: Float32Array, im2: Float32Array, factor: Triple) -> None:
        self.factor = factor
        self.level = Level.of(_binned(im1, factor), _binned(im2, factor))
        self._centre = (np.array(im1.shape) - 1) / 2
        self._own = np.array(first_voxel(im1.shape, factor)) + (np.array(self.level.im1.shape) * factor - 1) / 2

    def to_fine(self, phi: Array) -> Array:
        """Phi about the centre of the pair, in its voxels."""
        return deformation.move_centre(deformation.scale_translation(phi, self.factor[1]), self._own, self._centre)

    def from_fine(self, phi: Array) -> Array:
        """Phi about the centre of the binned pair, in its voxels."""
        return deformation.scale_translation(deformation.move_centre(phi, self._centre, self._own), 1 / self.factor[1])


class CoarseSearch:
    """The steps of a search, for one process or many.

    Parameters
    ----------
    im1, im2 : (z, y, x) float32
        The binned images; nan where they are not data.
    shape : 3 ints
        Shape of the full images.
    factor : 3 ints
        Their binning.
    max_angle : float
        Degrees.

    Attributes
    ----------
    total : int
        Number of chunks of all steps.
    """

    def __init__(
        self, im1: Float32Array, im2: Float32Array, shape: Triple, factor: Triple, max_angle: float = 180.0
    ) -> None:
        self._two_d, self._shape = is_two_d(shape), im1.shape
        self._max_angle = max_angle
        # centre of the binned image in voxels of the full one, less that of the full one
        middle = np.array(first_voxel(shape, factor)) + (np.array(im1.shape) * factor - 1) / 2
        self._away: Array = middle - (np.array(shape) - 1) / 2
        self._bins = factor[1]
        self._scan = Stage(im1, im2, _scan_factor(im1.shape))
        between = Stage(im1, im2, _middle_factor(im1.shape, self._scan.factor))
        # of a body that hardly changes when it is turned about its axis, the texture has to choose
        between.level = between.level.levelled(WIDTH)
        self._stages = [self._scan, between, Stage(im1, im2, (1, 1, 1))]
        self._F = _gradients(self._two_d, max_angle)
        self.total = -(-len(self._F) // CHUNK) + min(REFINED[0], len(self._F)) + sum(REFINED[1:])

    def steps(self) -> Generator[StepTask, list[Any], Found]:
        """Yield every task of the search; take its results, in the order of its chunks; return what was found."""
        fine = self._stages[-1].level
        for image, name in ((fine.im1, "image 1"), (fine.im2, "image 2")):
            if not image.max() > image.min():
                raise UserError(f"the coarse search finds no texture in {name}; look at the image, or at its mask")
        scanned = yield Scan(self._scan.level, self._F)
        rows = np.concatenate(scanned)
        # the order given among equals
        order = np.argsort(-rows[:, 0], kind="stable")
        phis = []
        for k in order:
            phi = np.eye(4)
            phi[:3, :3] = self._F[k]
            phi[:3, 3] = self._F[k] @ rows[k, 1:]
            phis.append(self._scan.to_fine(phi))
        best: list[Candidate] = []
        for stage, number in zip(self._stages, REFINED, strict=True):
            starts = [stage.from_fine(phi) for phi in phis[:number]]
            refined = yield Refinement(stage.level, starts)
            best = self._distinct([one._replace(phi=stage.to_fine(one.phi)) for one in refined if one.score > 0])
            phis = [one.phi for one in best]
            if not best:
                angle = f" up to {self._max_angle:g}°" if self._max_angle < 180 else ""
                raise UserError(f"the coarse search finds no rotation{angle} at which the images correlate")
        final = [one._replace(phi=self._full(one.phi)) for one in best[:2]]
        return Found(final[0], final[1] if len(final) > 1 else None)

    def _full(self, phi: Array) -> Array:
        return deformation.move_centre(deformation.scale_translation(phi, self._bins), self._away, (0, 0, 0))

    def _distinct(self, candidates: list[Candidate]) -> list[Candidate]:
        """Candidates of different motions within the largest angle, from best to worst."""
        kept: list[Candidate] = []
        sides = self._shape[self._two_d :]
        near = SAME_PLACE * math.prod(sides) ** (1 / len(sides))
        for one in sorted(candidates, key=lambda one: -one.score):
            if _angle(one.phi[:3, :3]) > self._max_angle + TOLERANCE:
                continue
            for other in kept:
                turn = other.phi[:3, :3].T @ one.phi[:3, :3]
                if _angle(turn) < SAME_ANGLE and np.linalg.norm(one.phi[:3, 3] - other.phi[:3, 3]) < near:
                    break
            else:
                kept.append(one)
        return kept


def _angle(F: Array) -> float:
    """Angle of the rotation of F, degrees."""
    return float(np.linalg.norm(deformation.rotation_vector(deformation.polar(F)[0])))


def _gradients(two_d: bool, max_angle: float) -> Array:
    """Deformation gradients (n, 3, 3) of the scan: rotations up to the largest angle times stretches."""
    if two_d:
        count = math.ceil(min(max_angle, 180.0) / STEP_2D)
        angles = np.arange(-count, count + 1) * STEP_2D
        if count * STEP_2D >= 180:
            angles = angles[1:]
        rotations = deformation.rotation_matrix(np.stack([angles, 0 * angles, 0 * angles], -1))
        planes = [np.diag([1.0, s, s]) for s in STRETCHES_2D]
    else:
        rotations = np.concatenate([np.eye(3)[None], _all_rotations(ROTATIONS)])
        angles = np.linalg.norm(deformation.rotation_vector(rotations), axis=-1)
        rotations = rotations[angles <= max_angle + REACH]
        planes = [s * np.eye(3) for s in STRETCHES]
    return np.concatenate([rotations @ plane for plane in planes])


def _all_rotations(n: int) -> Array:
    """Rotation matrices (n, 3, 3) spread evenly over all rotations: super-Fibonacci spirals (Alexa 2022)."""
    k = np.arange(n) + 0.5
    share, turn = k / n, 2 * np.pi * k
    alpha, beta = turn / math.sqrt(2), turn / 1.533751168755204288118041
    inner, outer = np.sqrt(share), np.sqrt(1 - share)
    w, a, b, c = inner * np.sin(alpha), inner * np.cos(alpha), outer * np.sin(beta), outer * np.cos(beta)
    R = np.empty((n, 3, 3))
    R[:, 0, 0], R[:, 0, 1], R[:, 0, 2] = 1 - 2 * (b * b + c * c), 2 * (a * b - w * c), 2 * (a * c + w * b)
    R[:, 1, 0], R[:, 1, 1], R[:, 1, 2] = 2 * (a * b + w * c), 1 - 2 * (a * a + c * c), 2 * (b * c - w * a)
    R[:, 2, 0], R[:, 2, 1], R[:, 2, 2] = 2 * (a * c - w * b), 2 * (b * c + w * a), 1 - 2 * (a * a + b * b)
    return R


def _flattened(image: Float32Array, data: Any) -> Float32Array:
    """The image with the root of its mean amplitude at every wave number taken off its spectrum; 0 where no data is."""
    mean = image.mean(dtype=np.float64) if data is None else image[data != 0].mean(dtype=np.float64)
    spectrum = np.fft.rfftn(image.astype(np.float64) - mean)
    axes = [np.fft.fftfreq(n) for n in image.shape[:-1]] + [np.fft.rfftfreq(image.shape[-1])]
    number = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij", sparse=True)))
    shell = np.rint(number * max(image.shape)).astype(np.int64).ravel()
    power = spectrum.real**2 + spectrum.imag**2
    mean_power = np.bincount(shell, power.ravel()) / np.maximum(np.bincount(shell), 1)
    floor = 1e-9 * float(mean_power.max()) + 1e-30
    # square roots are the same on all processors, other powers are not
    factor = 1 / np.sqrt(np.sqrt(mean_power + floor))
    # beyond the largest wave number of an axis a rotated image has nothing
    scaled = spectrum * factor[shell].reshape(spectrum.shape) * (number <= 0.5)
    flat = np.fft.irfftn(scaled, s=image.shape, axes=(0, 1, 2)).astype(np.float32)
    if data is not None:
        flat *= data
    return flat


def _framed(image: Float32Array) -> tuple[Float32Array, Array, Array, Array]:
    """A box of the image with a frame for interpolation; the first voxel of the image in it, its last, its centre."""
    shape = np.array(image.shape)
    frame = np.array([0 if is_two_d(image.shape) else TAPS, TAPS, TAPS])
    z, y, x = (shape + 2 * frame).tolist()
    box = correlation.empty_box((z, y, x))
    box.fill(0)
    box[tuple(slice(f, f + n) for f, n in zip(frame, shape, strict=True))] = image
    return box, frame.astype(np.float64), frame + shape - 1.0, frame + (shape - 1) / 2


class Scan:
    """Correlation of image 1 with image 2, turned by each of many F, at every whole translation.

    Parameters
    ----------
    level : Level
    F : (n, 3, 3) float64
    """

    def __init__(self, level: Level, F: Array) -> None:
        self._one = _flattened(level.im1, level.data1)
        self._two = _flattened(level.im2, level.data2)
        self._F = F
        self.n_chunks = -(-len(F) // CHUNK)

    def run(self, chunk: int) -> Array:
        """Rows of score, and translation of image 1 before it is turned (3, voxels), of every F of the chunk."""
        shape = np.array(self._one.shape)
        flat = is_two_d(self._one.shape)
        grid = _grid(self._one.shape)
        padded = np.zeros(grid, np.float32)
        low = (np.array(grid) - shape) // 2
        padded[tuple(slice(a, a + n) for a, n in zip(low, shape, strict=True))] = self._one
        first = np.conj(np.fft.rfftn(padded))
        norm = _norm(padded)
        box, begin, end, centre = _framed(self._two)
        # middle of the grid, seen from the centre of image 1
        arm = (np.array(grid) - 1) / 2 - (low + (shape - 1) / 2)
        turned = np.empty(grid, np.float32)
        F = self._F[chunk * CHUNK : (chunk + 1) * CHUNK]
        rows = np.zeros((len(F), 4))
        for row, one in zip(rows, F, strict=True):
            at = centre + (one * arm).sum(axis=1)
            correlation.warp(box, 1, flat, one, at, begin, end, turned, 0.0)
            product = np.fft.irfftn(np.fft.rfftn(turned) * first, s=grid, axes=(0, 1, 2))
            place = int(product.argmax())
            shift = np.array(np.unravel_index(place, grid))
            row[1:] = np.where(shift > np.array(grid) // 2, shift - grid, shift)
            energy = norm * _norm(turned)
            row[0] = float(product.flat[place]) / energy if energy > 0 else 0.0
        return rows


def _norm(values: Float32Array) -> float:
    return math.sqrt(float((values.astype(np.float64) ** 2).sum()))


def _fft_size(least: float) -> int:
    """The next even length that FFTs are quick at."""
    size = 2 * math.ceil(least / 2)
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2


class Similarity(GaussNewton):
    """Gauss–Newton with the unknowns of a similarity: translation, rotation, uniform stretch."""

    def __init__(self, settings: RegistrationSettings, phi: Array, two_d: bool) -> None:
        super().__init__(settings, phi, two_d)
        # columns: how the twelve entries of a change of Phi follow from each unknown
        turns = np.zeros((3, 3, 4))
        for axis, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
            turns[axis, i, j], turns[axis, j, i] = -1, 1
        stretch = np.zeros((1, 3, 4))
        moves = np.zeros((3, 3, 4))
        for axis in range(3):
            moves[axis, axis, 3] = 1
            stretch[0, axis, axis] = 0 if two_d and axis == 0 else 1
        basis = [turns[:1], stretch, moves[1:]] if two_d else [turns, stretch, moves]
        self._basis = np.concatenate(basis).reshape(-1, 12).T

    def _solve(self, moments: Array, products: Array) -> Array | None:
        B = self._basis
        M = B.T @ products.transpose(0, 2, 1, 3).reshape(12, 12) @ B
        diagonal = np.diag(M)
        if not (np.isfinite(M).all() and (diagonal > 0).all()):
            return None
        scale = 1 / np.sqrt(diagonal)
        M = M * scale[:, None] * scale[None, :]
        if np.linalg.eigvalsh(M)[0] < correlation.LEAST_PIVOT:
            return None
        delta: Array = B @ (np.linalg.solve(M, B.T @ moments.ravel() * scale) * scale)
        return delta.reshape(3, 4) if np.isfinite(delta).all() else None

    def _update(self, delta: Array) -> None:
        super()._update(delta)
        if not self.finished:
            F = self.phi[:3, :3]
            volume = np.linalg.det(F)
            if not volume > 0:
                self._stop(-3, final=True)
                return
            stretch = volume ** (1 / (2 if self.two_d else 3))
            self.phi[:3, :3] = deformation.polar(F)[0] @ np.diag([1 if self.two_d else stretch, stretch, stretch])


class Refinement:
    """Gauss–Newton from each of many first guesses; a chunk is one of them.

    Parameters
    ----------
    level : Level
    starts : list of (4, 4) float64
        Phi about the centre of the image.
    """

    def __init__(self, level: Level, starts: list[Array]) -> None:
        self._level = level
        self._starts = starts
        self.n_chunks = len(starts)

    def run(self, chunk: int) -> Candidate:
        """Return the refined motion, in voxels of this level."""
        im1, data1, im2, data2 = self._level
        two_d = is_two_d(im1.shape)
        box1 = correlation.empty_box(im1.shape)
        box1[...] = im1
        box, begin, end, centre = _framed(im2)
        valid = None
        if data2 is not None:
            valid = np.ones(box.shape, np.uint8)
            valid[tuple(slice(int(a), int(b) + 1) for a, b in zip(begin, end, strict=True))] = data2
        usable = gradient_voxels(data1, 1, False, two_d)
        low = np.array([0 if two_d else 1, 1, 1])
        n = np.array(im1.shape) - 2 * low
        spread1, spread2 = float(im1.std(dtype=np.float64)), float(im2.std(dtype=np.float64))
        if not (spread1 > 0 and spread2 > 0):
            return Candidate(0.0, math.nan, 0.0, self._starts[chunk])
        gain = spread1 / spread2
        mean1 = float(im1.mean(dtype=np.float64))
        settings = RegistrationSettings(
            max_iterations=60,
            min_delta_phi=2e-4,
            criterion="znssd",
            gain=gain,
            bias=mean1 - gain * float(im2.mean(dtype=np.float64)),
            level=mean1,
        )
        kernel = settings.for_kernels(two_d)
        solver = Similarity(settings, self._starts[chunk], two_d)
        inner = tuple(slice(a, a + k) for a, k in zip(low, n, strict=True))
        voxels = float(n.prod() if usable is None else usable[inner].sum())
        while not solver.finished:
            phi = solver.phi
            place = (centre + phi[:3, 3]).tolist()
            sums = correlation.block_sums(
                kernel, box1, usable, None, box, valid, low, n, phi[:3, :3], place, begin, end,
                settings.level, solver.gain, solver.bias,
            )  # fmt: skip
            if sums[0] < LEAST_OVERLAP * voxels:
                return Candidate(0.0, math.nan, float(sums[0]) / max(voxels, 1.0), phi)
            solver.advance(BlockSums.of(sums))
        if solver.status < 1 or not solver.zncc > 0:
            return Candidate(0.0, solver.zncc, 0.0, solver.phi)
        score = math.atanh(min(solver.zncc, 0.9999)) * math.sqrt(solver.compared)
        return Candidate(score, solver.zncc, solver.compared / voxels, solver.phi)
