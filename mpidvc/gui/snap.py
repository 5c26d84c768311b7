"""Help for the eye: Phi improved by a translation, by a search over rotations, and by reg; each can be cancelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mpidvc.arrays import Array
from mpidvc.core import deformation
from mpidvc.core.grey import choose_criterion
from mpidvc.core.phase_correlation import shifts_between
from mpidvc.core.registration import RegistrationSettings
from mpidvc.core.statuses import CORRELATION
from mpidvc.gui.display import DisplayPair
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.executor import InlineExecutor, SumTask
from mpidvc.tasks.grey import grey_levels, region_windows, with_limits
from mpidvc.tasks.registration import LevelSettings, register_multiscale

__all__ = ["CancelledError", "NothingFoundError", "Progress", "Snapped", "register", "search", "translate"]

#: Most voxels that a translation, and a search over rotations, look at; and pixels in 2D.
TRANSLATION_VOXELS, SEARCH_VOXELS, SEARCH_PIXELS = 8_000_000, 8_000_000, 1_200_000
SEARCHING = "rotations are searched"
#: Degrees from which on every rotation is within reach.
ANY_ANGLE = 180.0
#: Share of image 2 that image 1 has to cover.
LEAST_OVERLAP = 0.1
#: Convergence of a registration: reg's.
ITERATIONS, MIN_DELTA_PHI = 50, 1e-4


class CancelledError(Exception):
    """The user does not want it any more."""


class NothingFoundError(Exception):
    """There is no better Phi; the message says why."""


@dataclass(frozen=True)
class Progress:
    """How far a job is: called by the job, from its own thread.

    Attributes
    ----------
    tell : callable
        Called with the share that is done, 0 to 1 or None where it is not known, and a line of text.
    cancelled : callable
        Whether the user does not want it any more.
    """

    tell: Callable[[float | None, str], None] = lambda share, text: None
    cancelled: Callable[[], bool] = lambda: False

    def __call__(self, share: float | None, text: str = "") -> None:
        """Tell how far it is.

        Raises
        ------
        CancelledError
        """
        if self.cancelled():
            raise CancelledError
        self.tell(share, text)


class Snapped(NamedTuple):
    """A new Phi (4, 4) about the centre of the images, a line about it, and whether the user has to look at it."""

    phi: Array
    text: str
    doubtful: bool = False


def translate(pair: DisplayPair, phi: Array, progress: Progress) -> Snapped:
    """The translation with which image 1, as it lies, matches image 2 best: phase correlation.

    Raises
    ------
    NothingFoundError
        If no translation is better than the present one.
    """
    progress(None, "phase correlation")
    reduced = pair.reduced(TRANSLATION_VOXELS, phi)
    shifts = shifts_between(reduced.image1, reduced.image2)
    best, score = phi, _score(pair, phi)
    for k, shift in enumerate(shifts):
        progress(k / len(shifts), "translations are compared")
        moved = phi.copy()
        moved[:3, 3] += reduced.factor * shift
        value = _score(pair, moved)
        if value > score:
            best, score = moved, value
    if best is phi:
        raise NothingFoundError("no translation matches better than the present one")
    by = " ".join(f"{value:+.0f}" for value in best[:3, 3] - phi[:3, 3])
    return Snapped(best, f"moved by {by} px (z y x)")


def _score(pair: DisplayPair, phi: Array) -> float:
    found = pair.numbers(phi)
    return found.zncc if found.overlap >= LEAST_OVERLAP and np.isfinite(found.zncc) else -1.0


def search(pair: DisplayPair, phi: Array, progress: Progress, max_angle: float = ANY_ANGLE) -> Snapped:
    """Rotation, translation and uniform stretch with which image 1 matches image 2 best.

    Image 1 is taken as it lies; where any rotation is allowed as it is in its file, so that nothing of it lies outside.

    Parameters
    ----------
    pair : DisplayPair
    phi : (4, 4) float64
    progress : Progress
    max_angle : float
        Greatest rotation from the present one, degrees; from 180 on the present Phi does not count.

    Raises
    ------
    NothingFoundError
        If nothing is better than the present Phi.
    UserError
        If an image has no texture, or nothing fits.
    """
    from mpidvc.core import coarse

    progress(None, SEARCHING)
    there = np.eye(4) if max_angle >= ANY_ANGLE else phi
    reduced = pair.reduced(SEARCH_PIXELS if pair.two_d else SEARCH_VOXELS, there)
    found = coarse.search(
        reduced.image1,
        reduced.image2,
        max_angle=max_angle,
        progress=lambda done, steps: progress(done / steps, SEARCHING),
    )
    progress(None, "the best rotation is compared with the present one")
    # what was found comes after what is there
    new = deformation.compose(reduced.phi_from(found.best.phi, pair.centre), there)
    if _score(pair, new) <= _score(pair, phi):
        raise NothingFoundError("no rotation matches better than the present one")
    if found.doubtful:
        return Snapped(new, "doubtful: another motion is nearly as good. Look whether the images match", True)
    return Snapped(new, "the best rotation, translation and stretch are set")


def register(pair: DisplayPair, phi: Array, progress: Progress) -> Snapped:
    """Phi from reg, which starts from the present one; on the copies that are displayed.

    Raises
    ------
    NothingFoundError
        If it fails.
    UserError
        If the images are too small.
    """
    whole = pair.reduced(int(np.prod(pair.small)))
    images = ImagePair(
        with_limits(ArrayImage(whole.image1, "image 1")), with_limits(ArrayImage(whole.image2, "image 2"))
    )
    start = whole.phi_to(phi, pair.centre)
    levels = LevelSettings()
    grey = grey_levels(images, region_windows(pair.small, levels.margin_of(pair.small, 1), start))
    choice = choose_criterion("auto", grey)
    settings = RegistrationSettings(
        order=1,
        max_iterations=ITERATIONS,
        min_delta_phi=MIN_DELTA_PHI,
        criterion=choice.criterion,
        gain=choice.gain,
        bias=choice.bias,
        level=grey.mean1,
    )
    executor = _Watched(lambda: progress(None))
    found = register_multiscale(executor, images, settings, levels, start, lambda line: progress(None, line.strip()))
    status = found.last.status
    if status < 1:
        raise NothingFoundError(f"reg fails from here ({CORRELATION[status].meaning}); bring the images nearer first")
    new = whole.phi_from(found.phi, pair.centre)
    if status == 1:
        return Snapped(new, f"not converged in {found.last.iterations} iterations; the last Phi is set")
    return Snapped(new, f"converged after {found.last.iterations} iterations")


class _Watched(InlineExecutor):
    """An executor that looks between two blocks whether it is still wanted."""

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self._check = check

    def reduce(self, task: SumTask, argument: Any) -> Array:
        return super().reduce(_WatchedTask(task, self._check), argument)


class _WatchedTask:
    def __init__(self, task: SumTask, check: Callable[[], None]) -> None:
        self._task, self._check = task, check
        self.n_chunks = task.n_chunks

    def run_sum(self, chunk: int, argument: Any) -> Array:
        self._check()
        return self._task.run_sum(chunk, argument)
