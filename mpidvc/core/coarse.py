"""Search for the motion between two images without any guess: translation, rotation and a uniform stretch.

The pair is binned to some ten thousand voxels. Every rotation of a uniform grid is tried with every whole translation
at once (`coarse_scan`). The best of them are refined (`coarse_refinement`), then the best of these on finer images less
their local means, then on finer ones as they are. The most significant correlation wins: Fisher's z of the ZNCC times
the root of the number of compared voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mpidvc.arrays import Array, Float32Array, Triple, is_two_d
from mpidvc.core import deformation
from mpidvc.core.binning import first_voxel
from mpidvc.core.coarse_pair import Stage, binned
from mpidvc.core.coarse_refinement import Candidate, Refinement
from mpidvc.core.coarse_scan import CHUNK, Scan, binning_of_scan, gradients
from mpidvc.errors import UserError

__all__ = ["CoarseSearch", "Found", "binning_of", "in_steps", "search"]

#: Mean side of the binned images, voxels: the largest that is taken for the refinement, in 2D and in 3D.
SIDE_2D, SIDE = 240.0, 100.0
#: Fewest voxels of the binned image along an axis.
THINNEST = 4
#: Width of the neighbourhood whose mean is taken off in the second refinement, voxels.
WIDTH = 3.0
#: How many motions are refined on each of the three levels.
REFINED = (128, 24, 6)
#: Motions nearer to each other than this (degrees; share of the image's mean side) are one candidate.
SAME_ANGLE, SAME_PLACE = 4.0, 0.06
#: A second candidate whose score is so large a part of the best one's makes the result doubtful.
RIVAL = 0.9
#: The same for a best ZNCC below the second figure, which chance can reach.
RIVAL_WEAK, WEAK = 0.7, 0.5
#: Degrees that a refined rotation may be beyond the largest angle.
TOLERANCE = 1.0


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


def search(
    im1: Float32Array,
    im2: Float32Array,
    *,
    max_angle: float = 180.0,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Motion between two images, without any guess: rotation, translation and a uniform stretch of some per cent.

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
    Found
        Phi is good to a fraction of a voxel of the binned image.

    Raises
    ------
    UserError
        If an image has no texture, or nothing fits.
    """
    if im1.shape != im2.shape:
        raise ValueError(f"images of one shape are needed, not {im1.shape} and {im2.shape}")
    factor = binning_of(im1.shape)
    small1, small2 = (binned(image, factor) for image in (im1, im2))
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


def _middle_factor(shape: Triple, scanned: Triple) -> Triple:
    """Binning between that of the scan and none."""
    factor = round(math.sqrt(scanned[1]))
    return (1 if is_two_d(shape) else factor, factor, factor)


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
        self._scan = Stage(im1, im2, binning_of_scan(im1.shape))
        between = Stage(im1, im2, _middle_factor(im1.shape, self._scan.factor))
        # of a body that hardly changes when it is turned about its axis, the texture has to choose
        between.level = between.level.levelled(WIDTH)
        self._stages = [self._scan, between, Stage(im1, im2, (1, 1, 1))]
        self._F = gradients(self._two_d, max_angle)
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
