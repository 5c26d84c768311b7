"""Registration of whole images: one sum over blocks per iteration, from coarse to fine.

Blocks are fixed by the image's size and added in their order in double precision, so that the result has the same bits
on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mpidvc.arrays import Array, Float32Array, Triple, is_two_d
from mpidvc.core import deformation
from mpidvc.core.binning import binned_shape
from mpidvc.core.boxes import Scratch
from mpidvc.core.registration import BlockSums, GaussNewton, RegistrationSettings, Step
from mpidvc.errors import UserError
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.images.source import CACHE, Decoded
from mpidvc.kernels import correlation
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.binned import BinnedImage
from mpidvc.tasks.boxes import Ints, Map, around_samples, read_reference_box, read_sampled_box

__all__ = ["LevelSettings", "RegistrationResult", "RegistrationTask", "block_of", "mask_centre", "register_multiscale"]


#: Compared voxels of a block, and of one whose gradients are stored: in a smaller block what surrounds it counts for
#: more, a larger one leaves the cache.
BLOCK, STORED_BLOCK, BLOCK_2D = (64, 64, 128), (32, 64, 128), (1, 256, 512)


#: Bytes that a rank keeps, at most, of the sums of image 1 alone, which are the same in every pass over a block.
KEPT = 64 * 2**20

#: Fewest voxels to compare along an axis: on the last level, and on coarser levels, which are left out with fewer.
FEWEST_VOXELS, FEWEST_COARSE = 3, 6


#: Voxels of a mask that are read at a time.
SLAB_VOXELS = 16_000_000


class Pass(NamedTuple):
    """State of the present iteration, as every block needs it."""

    phi: Array
    gain: float
    bias: float


def block_of(settings: RegistrationSettings, two_d: bool) -> Triple:
    """Compared voxels of a block."""
    stored = settings.sigma is not None or settings.shift or settings.update_gradient
    return BLOCK_2D if two_d else STORED_BLOCK if stored else BLOCK


def _not_yet(chunk: int) -> Array:
    """Sums of image 1 alone, to be made by the kernel."""
    return np.full(correlation.SUMS, np.nan)


class RegistrationTask:
    """Sums of one Gauss–Newton pass over an image, block by block.

    Parameters
    ----------
    images : ImagePair
        Two images of equal shape; mask 2 is not used.
    settings : RegistrationSettings
    margin : 3 ints
        Voxels at every face of image 1 that are not compared.
    """

    def __init__(self, images: ImagePair, settings: RegistrationSettings, margin: Triple) -> None:
        self.images = images
        self.settings = settings
        self._two_d = images.two_d
        self._kernel_settings = settings.for_kernels(self._two_d)
        # samples beside the block's voxels: the frame of gradients of -ug, and a quarter of a voxel of Shift-DVC
        beside = settings.update_gradient or settings.shift
        self._around2 = self._kernel_settings.gradient_reach + 1 if beside else 0
        self._scratch = (Scratch(), Scratch())
        self._whole = Decoded(KEPT)
        shape = images.image1.shape
        self.centre = (np.array(shape) - 1) / 2
        self._low = np.array(margin)
        self._high = np.array(shape) - self._low
        self._block = np.array(block_of(settings, self._two_d))
        self._counts = -(-(self._high - self._low) // self._block)
        self.n_chunks = int(np.prod(self._counts))

    def run_sum(self, chunk: int, argument: Pass) -> Array:
        """Sums of a block about the image's centre (`BlockSums.packed`)."""
        low = self._low + np.array(np.unravel_index(chunk, self._counts)) * self._block
        n = np.minimum(low + self._block, self._high) - low
        F, t = argument.phi[:3, :3], argument.phi[:3, 3]
        offset = low + (n - 1) / 2 - self.centre
        target = self.centre + F @ offset + t
        shape2 = np.array(self.images.image2.shape)
        reach = np.abs(F) @ ((n - 1) / 2 + self._around2)
        first = np.maximum(np.floor(target - reach), 0)
        last = np.minimum(np.ceil(target + reach), shape2 - 1)
        if self._two_d:
            first[0] = last[0] = 0
        if (first > last).any():
            return BlockSums.of(np.zeros(correlation.SUMS)).packed()
        box2, valid2, start2 = read_sampled_box(
            self.images.image2, first.astype(np.int64), last.astype(np.int64), self.settings.order, self._scratch[1]
        )
        box1, usable, sampled1, start1 = self._reference(low, n)
        base1, base2 = self.images.image1.base, self.images.image2.base
        _, ny, nx = self.images.image1.shape
        index = (int((low[0] * ny + low[1]) * nx + low[2]), nx, ny * nx)
        sums = correlation.block_sums(
            self._kernel_settings,
            box1,
            usable,
            sampled1,
            box2,
            valid2,
            low - start1,
            n,
            F,
            target - start2,
            first - start2,
            last - start2,
            # of grey levels less the bases
            self.settings.level - base1,
            argument.gain,
            argument.bias + argument.gain * base2 - base1,
            index,
            self._whole.get(chunk, _not_yet),
        )
        return BlockSums.of(sums).moved(offset).packed()

    def _reference(self, low: Ints, n: Ints) -> tuple[Float32Array, Map, Float32Array | None, Ints]:
        """Image 1 around a block: grey levels, usable voxels, samples for Shift-DVC, and the origin."""
        settings = self.settings
        reach = self._kernel_settings.gradient_reach
        around = np.full(3, reach)
        if settings.shift:
            around += around_samples(settings.order)
        if self._two_d:
            around[0] = 0
        start, stop = low - around, low + n + around
        box, (usable, _, _), sampled1 = read_reference_box(
            self.images.image1, self.images.mask1, start, stop, settings, reach, self._scratch[0]
        )
        return box, usable, sampled1, start


@dataclass(frozen=True)
class LevelSettings:
    """The levels of a registration.

    Attributes
    ----------
    begin, end : int
        Binning of the first and the last level, powers of two.
    margin : 3 ints or None
        Margin in voxels of the full image; None: a tenth of the level's shortest side and one voxel.
    """

    begin: int = 4
    end: int = 1
    margin: Triple | None = None

    def levels(self) -> list[int]:
        """Binning of every level."""
        return [2**k for k in range(self.begin.bit_length() - 1, self.end.bit_length() - 2, -1)]

    def margin_of(self, shape: Triple, binning: int) -> Triple:
        """Margin of a level whose (binned) image has this shape."""
        two_d = is_two_d(shape)
        if self.margin is None:
            m = 1 + int(0.1 * min(shape[1:] if two_d else shape))
            margin = (m, m, m)
        else:
            margin = (self.margin[0] // binning, self.margin[1] // binning, self.margin[2] // binning)
        return (0, *margin[1:]) if two_d else margin

    def usable(self, image: Image, settings: RegistrationSettings) -> dict[int, Triple]:
        """Binning and margin of the levels with voxels to compare.

        Raises
        ------
        UserError
            If the last level has none.
        """
        two_d = image.two_d
        reach = settings.for_kernels(two_d).gradient_reach if settings.sigma is not None else 0
        found = {}
        for binning in self.levels():
            shape = binned_shape(image.shape, (1 if two_d else binning, binning, binning))
            margin = self.margin_of(shape, binning)
            left = [n - 2 * max(m, reach) for n, m in zip(shape, margin, strict=True)]
            if min(left[1:] if two_d else left) >= (FEWEST_VOXELS if binning == self.end else FEWEST_COARSE):
                found[binning] = margin
            elif binning == self.end:
                frame = f"the margin (-m {' '.join(map(str, margin))})"
                if reach > 0:
                    frame += f" and the reach of the Gaussian gradient (-gs {settings.sigma:g}: {reach})"
                raise UserError(
                    f"{image.path}: less {frame}, an image of {_by(shape)} has fewer than {FEWEST_VOXELS} left to "
                    "compare along an axis; take a larger image or smaller options"
                )
        return found


@dataclass(frozen=True)
class RegistrationResult:
    """Result of a registration, in voxels of the full image.

    Attributes
    ----------
    phi : (4, 4) float64
        Phi about `centre`.
    centre : (3,) float64
    last : GaussNewton
        State of the last level that was run, in voxels of this level: error, iterations, status, history …
    binning : int
        Binning of this level.
    """

    phi: Array
    centre: Array
    last: GaussNewton
    binning: int


def register_multiscale(
    executor: Executor,
    images: ImagePair,
    settings: RegistrationSettings,
    levels: LevelSettings,
    guess: Array,
    say: Callable[[str], None],
    watch: Callable[[Array], None] | None = None,
    cache_bytes: int = CACHE,
) -> RegistrationResult:
    """Register image 2 to image 1, from binned images to full ones; every rank calls it.

    A level that does not converge ends the registration; its result is returned.

    Parameters
    ----------
    executor : Executor
    images : ImagePair
        Two images of equal shape; mask 2 is not used.
    settings : RegistrationSettings
    levels : LevelSettings
    guess : (4, 4) float64
        First guess of Phi about the image's centre, translations in voxels of the full image.
    say : callable
        Called with every line to show.
    watch : callable, optional
        Called on rank 0 after every iteration, with Phi about the image's centre in voxels of the full image.
    cache_bytes : int
        Bytes that every rank may keep of each binned image.

    Raises
    ------
    UserError
        If the margin leaves nothing to compare.
    """
    image1, image2, mask1, _ = images
    centre = (np.array(image1.shape) - 1) / 2
    phi = np.array(guess, dtype=np.float64)
    outcome: RegistrationResult | None = None
    usable = levels.usable(image1, settings)
    for binning in levels.levels():
        if binning not in usable:
            say(f"working on binning:  {binning} - too coarse for an image of {_by(image1.shape)}, left out")
            continue
        level = images
        own = centre
        if binning > 1:
            small1, small2 = (BinnedImage(image, binning, False, cache_bytes) for image in (image1, image2))
            small_mask = None if mask1 is None else BinnedImage(mask1, binning, True, cache_bytes)
            level = ImagePair(small1, small2, small_mask)
            # the binned image's own centre, in voxels of the full image
            own = np.array(small1.first) + (np.array(small1.shape) * small1.factor - 1) / 2
        say(f"working on binning:  {binning}")

        def full(phi: Array, own: Array = own, binning: int = binning) -> Array:
            return deformation.move_centre(deformation.scale_translation(phi, binning), own, centre)

        start = deformation.scale_translation(deformation.move_centre(phi, centre, own), 1 / binning)
        task = RegistrationTask(level, settings, usable[binning])
        solver = _run_level(executor, task, start, say, None if watch is None else lambda phi: watch(full(phi)))
        phi = full(solver.phi)
        outcome = RegistrationResult(phi, centre, solver, binning)
        if solver.status != 2:
            break
    assert outcome is not None
    return outcome


def _run_level(
    executor: Executor,
    task: RegistrationTask,
    phi: Array,
    say: Callable[[str], None],
    watch: Callable[[Array], None] | None,
) -> GaussNewton:
    solver = GaussNewton(task.settings, phi, task.images.two_d)
    running = True
    while running:
        vector = executor.reduce(task, Pass(solver.phi, solver.gain, solver.bias))
        # rank 0 alone solves: other processors may round differently
        if executor.rank == 0:
            solver.advance(BlockSums.unpacked(vector))
            if len(solver.history) == 1:
                say(f"Start correlation with Error = {solver.error:0.2f}")
            elif solver.history:
                say(_line(len(solver.history) - 1, solver.history[-1]))
                if watch is not None:
                    watch(solver.history[-1].phi)
        running = executor.broadcast(not solver.finished)
    say(_ENDS[solver.status])
    return executor.broadcast(solver)


_ENDS = {
    2: "\t→ Converged",
    1: "\t→ No convergence before max iterations",
    0: "",
    -1: "\t→ diverging on error condition (returning -1)",
    -2: "\t→ Singular matrix M (most probably image texture problem) (returning -2)",
    -3: "\t→ diverging on volumetric change condition, or moved off the data (returning -3)",
    -4: "\t→ Singular Phi matrix (returning -4)",
}


def _line(iteration: int, step: Step) -> str:
    def three(values: Array, digits: int) -> str:
        return "[" + " ".join(f"{v:{digits + 4}.{digits}f}" for v in values) + "]"

    R, U = deformation.polar(step.phi[:3, :3])
    rotation = deformation.rotation_vector(np.nan_to_num(R))
    return (
        f"It#:{iteration:03d} |δΦ|={step.delta_phi_norm:.5f} error={step.error:7.2f} t={three(step.phi[:3, 3], 3)}px "
        f"r={three(rotation, 3)}° stretch={three(np.diag(U), 4)}"
    )


def _by(shape: Triple) -> str:
    return " × ".join(map(str, shape)) + " voxels"


def mask_centre(mask: Image) -> Array:
    """Centre of mass (voxels) of a mask's voxels that are not 0.

    Raises
    ------
    UserError
        If the mask is empty.
    """
    count = 0
    total = np.zeros(3)
    nz, ny, nx = mask.shape
    rows = max(1, min(ny, SLAB_VOXELS // nx))
    planes = max(1, SLAB_VOXELS // (ny * nx))
    for z in range(0, nz, planes):
        for y in range(0, ny, rows):
            part, _ = mask.read_box((z, y, 0), (min(z + planes, nz), min(y + rows, ny), nx))
            open_ = part != 0
            count += np.count_nonzero(open_)
            for axis, first in enumerate((z, y, 0)):
                along = open_.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.int64)
                total[axis] += int(along @ (first + np.arange(len(along))))
    if count == 0:
        raise UserError(f"{mask.path}: the mask is empty: no voxel of image 1 is left to compare")
    return total / count
