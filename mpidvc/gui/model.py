"""The model of the window: Phi with its history, what is looked at, and how it is moved. It knows no widgets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Float32Array
from mpidvc.core import deformation
from mpidvc.core.grey import GreyLevels, choose_criterion
from mpidvc.gui.display import DisplayPair, Numbers
from mpidvc.gui.pictures import Contrast, Histogram, Mode, compare, grey, histogram, robust_limits

__all__ = ["FEWEST_SQUARES", "Axes", "Model", "RefusedError", "View", "axes_of"]

#: Least and greatest zoom, pixels of the screen for a voxel, and squares of the checkerboard.
LEAST_ZOOM, MOST_ZOOM = 0.01, 64.0
FEWEST_SQUARES, MOST_SQUARES = 3, 101
#: Least and greatest stretch.
LEAST_STRETCH, MOST_STRETCH = 0.1, 10.0
#: Values of a copy that its limits and histogram are taken from.
SAMPLE = 500_000


class RefusedError(Exception):
    """A move that would leave no deformation; the message is for the user."""


class Axes(NamedTuple):
    """Directions of a view: across it, down (rows), and to the right (columns)."""

    across: int
    rows: int
    columns: int


def axes_of(across: int) -> Axes:
    """The view along an axis: rows and columns are the others, in the order z, y, x."""
    rows, columns = (axis for axis in range(3) if axis != across)
    return Axes(across, rows, columns)


class _Step(NamedTuple):
    what: str
    phi: Array


@dataclass
class View:
    """What is looked at, and how: the same for all three pictures.

    Attributes
    ----------
    across : int
        Axis that the slices are across.
    slices : 3 lists of 2 ints
        Slice of image 1 and of image 2, for each axis, in voxels of the copies.
    linked : bool
        Whether both are the same.
    middle : (3,) float64
        Point in the middle of the pictures, voxels of the images.
    zoom : float
        Pixels of the screen for a voxel.
    mode : Mode
    squares : int
        Of the checkerboard.
    tinted : bool
        Whether the squares of image 1 are tinted.
    contrasts : list of 2 Contrast
    spread : float
        Difference of grey levels that gets the last colour.
    matched : bool
        Whether the grey levels of image 2 are mapped to those of image 1, for differences.
    """

    across: int
    slices: list[list[int]]
    middle: Array
    zoom: float = 1.0
    linked: bool = True
    mode: Mode = "difference"
    squares: int = 5
    tinted: bool = False
    contrasts: list[Contrast] = field(default_factory=lambda: [Contrast(0.0, 1.0), Contrast(0.0, 1.0)])
    spread: float = 1.0
    matched: bool = False

    @property
    def axes(self) -> Axes:
        return axes_of(self.across)

    @property
    def slice1(self) -> int:
        return self.slices[self.across][0]

    @property
    def slice2(self) -> int:
        return self.slices[self.across][1]

    def pan(self, rows: float, columns: float) -> None:
        """Move the pictures by so many voxels."""
        self.middle[self.axes.rows] -= rows
        self.middle[self.axes.columns] -= columns

    def zoom_at(self, factor: float, rows: float, columns: float) -> None:
        """Zoom by a factor; the point at these voxels stays where it is on the screen."""
        before = self.zoom
        self.zoom = min(max(before * factor, LEAST_ZOOM), MOST_ZOOM)
        ratio = before / self.zoom
        for axis, place in ((self.axes.rows, rows), (self.axes.columns, columns)):
            self.middle[axis] = place + (self.middle[axis] - place) * ratio

    def show_box(self, first: tuple[float, float], second: tuple[float, float], height: float, width: float) -> None:
        """Zoom to the box between two points (rows, columns) in a picture of so many pixels."""
        for axis, a, b in zip(self.axes[1:], first, second, strict=True):
            self.middle[axis] = (a + b) / 2
        extents = [abs(a - b) for a, b in zip(first, second, strict=True)]
        zooms = [pixels / max(extent, 1e-3) for pixels, extent in zip((height, width), extents, strict=True)]
        self.zoom = min(max(min(zooms), LEAST_ZOOM), MOST_ZOOM)

    def change_squares(self, by: int) -> None:
        """More or fewer squares."""
        self.squares = min(max(self.squares + by, FEWEST_SQUARES), MOST_SQUARES)


class Model:
    """A pair of images, and the Phi that brings image 1 upon image 2.

    Phi is about the centre of the images, in their voxels. Moves act on image 1 as it lies deformed: translations add
    up, rotations turn it about its own centre, after what is there; stretches change the diagonal of U in F = R U.
    What is loaded is kept whole, shear included. In 2D motions stay in the plane.

    Parameters
    ----------
    pair : DisplayPair
    loaded : (4, 4) float64, optional
        Phi to begin with; the identity if not given.

    Attributes
    ----------
    view : View
    loaded : (4, 4) float64 or None
    """

    def __init__(self, pair: DisplayPair, loaded: Array | None = None) -> None:
        self.pair = pair
        self.loaded = None if loaded is None else np.array(loaded, np.float64)
        start = np.eye(4) if self.loaded is None else self.loaded
        self._steps = [_Step("", start)]
        self._now = 0
        self._held: Array | None = None
        self._saved: Array = start
        self._difference: Float32Array = np.zeros((1, 1), np.float32)
        self._counted: tuple[Array, bool, Numbers] | None = None
        self._plane = np.array([0.0, 1.0, 1.0]) if pair.two_d else np.ones(3)
        middles = [n // 2 for n in pair.small]
        self.view = View(0, [[k, k] for k in middles], pair.centre.copy())
        self.view.contrasts = [self.usual_contrast(0), self.usual_contrast(1)]
        self.view.matched = not self.grey_levels.agree
        self.view.spread = self.usual_spread()

    # ---- Phi and its history

    @property
    def two_d(self) -> bool:
        """Whether the images are 2D."""
        return self.pair.two_d

    @property
    def centre(self) -> Array:
        """Centre (3,) of Phi, voxels."""
        return self.pair.centre

    @property
    def phi(self) -> Array:
        """The present Phi (4, 4)."""
        return self._steps[self._now].phi if self._held is None else self._held

    @property
    def translation(self) -> Array:
        """Translation (3,) of the centre, voxels."""
        return np.array(self.phi[:3, 3])

    @property
    def rotation(self) -> Array:
        """Rotation vector (3,), degrees."""
        return np.asarray(deformation.rotation_vector(deformation.polar(self.phi[:3, :3])[0]))

    @property
    def stretch(self) -> Array:
        """Symmetric stretch U (3, 3)."""
        return deformation.polar(self.phi[:3, :3])[1]

    @property
    def unsaved(self) -> bool:
        """Whether Phi is not the one that was saved last, or begun with."""
        return not np.array_equal(self.phi, self._saved)

    def saved(self) -> None:
        """Note that the present Phi is saved."""
        self._saved = self.phi

    @property
    def undone(self) -> str | None:
        """What `undo` would take back; None if there is nothing."""
        return self._steps[self._now].what if self._now > 0 else None

    @property
    def redone(self) -> str | None:
        """What `redo` would do again; None if there is nothing."""
        return self._steps[self._now + 1].what if self._now + 1 < len(self._steps) else None

    def undo(self) -> None:
        """Take the last step back."""
        self._now = max(self._now - 1, 0)

    def redo(self) -> None:
        """Do again what was taken back last."""
        self._now = min(self._now + 1, len(self._steps) - 1)

    def set_phi(self, what: str, phi: npt.ArrayLike) -> None:
        """Make a Phi the present one, as a step that can be taken back.

        Raises
        ------
        RefusedError
            If it is no deformation.
        """
        new = self._checked(np.array(phi, np.float64))
        self._held = None
        if np.array_equal(new, self.phi):
            return
        del self._steps[self._now + 1 :]
        self._steps.append(_Step(what, new))
        self._now += 1

    def _checked(self, phi: Array) -> Array:
        F = phi[:3, :3]
        if not (np.isfinite(phi).all() and np.linalg.det(F) > 0):
            raise RefusedError("this would be no deformation: the determinant of F is not above 0")
        values = np.linalg.svd(F, compute_uv=False)
        if values[-1] < LEAST_STRETCH or values[0] > MOST_STRETCH:
            raise RefusedError(f"stretches are from {LEAST_STRETCH:g} to {MOST_STRETCH:g}")
        return phi

    def load(self, phi: Array) -> None:
        """Take a Phi from a file: all of it, as a step, and as what `reset_to_loaded` returns to."""
        self.set_phi("load Phi", phi)
        self.loaded = np.array(phi, np.float64)

    def reset(self) -> None:
        """Return to the identity."""
        self.set_phi("identity", np.eye(4))

    def reset_to_loaded(self) -> None:
        """Return to the Phi that was loaded.

        Raises
        ------
        RefusedError
            If none was.
        """
        if self.loaded is None:
            raise RefusedError("no Phi was loaded")
        self.set_phi("loaded Phi", self.loaded)

    # ---- moves

    def translate(self, by: npt.ArrayLike) -> None:
        """Add a translation (3,), voxels."""
        self.set_phi("translation", _with_translation(self.phi, self.translation + self._plane * np.asarray(by)))

    def rotate(self, vector: npt.ArrayLike) -> None:
        """Turn image 1 as it lies about its own centre, by a rotation vector (3,) in degrees."""
        turn = deformation.rotation_matrix(self._about(np.asarray(vector, np.float64)))
        self.set_phi("rotation", _with_F(self.phi, turn @ self.phi[:3, :3]))

    def stretch_by(self, by: npt.ArrayLike) -> None:
        """Add to the stretches (3,) along z, y, x: the diagonal of U."""
        self.set_stretch(self.stretch.diagonal() + self._plane * np.asarray(by))

    def set_translation(self, values: npt.ArrayLike) -> None:
        """Set the translation (3,), voxels."""
        self.set_phi("translation", _with_translation(self.phi, self._plane * np.asarray(values)))

    def set_rotation(self, vector: npt.ArrayLike) -> None:
        """Set the rotation vector (3,), degrees; the stretch U stays."""
        R = deformation.rotation_matrix(self._about(np.asarray(vector, np.float64)))
        self.set_phi("rotation", _with_F(self.phi, R @ self.stretch))

    def set_stretch(self, values: npt.ArrayLike) -> None:
        """Set the stretches (3,): the diagonal of U, whose other components stay."""
        R, U = deformation.polar(self.phi[:3, :3])
        U[np.diag_indices(3)] = np.where(self._plane > 0, np.asarray(values, np.float64), U.diagonal())
        if np.linalg.eigvalsh(U)[0] <= 0:
            raise RefusedError(f"stretches are from {LEAST_STRETCH:g} to {MOST_STRETCH:g}")
        self.set_phi("stretch", _with_F(self.phi, R @ U))

    def _about(self, vector: Array) -> Array:
        """In 2D rotations are about z."""
        return vector * np.array([1.0, 0.0, 0.0]) if self.two_d else vector

    # ---- dragging: Phi follows the mouse, and the whole of it is one step

    def hold(self, phi: Array) -> None:
        """Show a Phi that is not yet a step; a refused one leaves the last."""
        try:
            self._held = self._checked(phi)
        except RefusedError:
            return

    def release(self, what: str) -> None:
        """Make the Phi that is held a step."""
        if self._held is not None:
            held, self._held = self._held, None
            self.set_phi(what, held)

    def drag_translation(self, rows: float, columns: float) -> None:
        """Hold Phi moved by so many voxels in the plane of the view, from the last step."""
        base = self._steps[self._now].phi
        t = base[:3, 3].copy()
        t[self.view.axes.rows] += rows
        t[self.view.axes.columns] += columns
        self.hold(_with_translation(base, t))

    def drag_rotation(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Hold Phi turned about the axis of the view as a point (rows, columns) of image 1 moves about its centre."""
        base = self._steps[self._now].phi
        axes = self.view.axes
        if self.two_d and axes.across != 0:
            return
        arms = [self._arm(base, place) for place in (start, end)]
        axis = np.eye(3)[axes.across]
        angle = math.degrees(math.atan2(float(axis @ np.cross(arms[0], arms[1])), float(arms[0] @ arms[1])))
        self.hold(_with_F(base, deformation.rotation_matrix(angle * axis) @ base[:3, :3]))

    def drag_stretch(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Hold Phi stretched along rows and columns of the view by the ratio of two distances from its centre."""
        base = self._steps[self._now].phi
        first, last = (float(np.linalg.norm(self._arm(base, place))) for place in (start, end))
        if first < 1:
            return
        R, U = deformation.polar(base[:3, :3])
        axes = list(self.view.axes[1:])
        U[axes, axes] *= last / first
        if np.linalg.eigvalsh(U)[0] > 0:
            self.hold(_with_F(base, R @ U))

    def _arm(self, phi: Array, place: tuple[float, float]) -> Array:
        """From the centre of image 1 as it lies to a point (rows, columns) of the view."""
        arm = np.zeros(3)
        for axis, value in zip(self.view.axes[1:], place, strict=True):
            arm[axis] = value - self.centre[axis] - phi[axis, 3]
        return arm

    # ---- slices

    def look_across(self, axis: int) -> None:
        """Look along another axis."""
        if self.two_d and axis != 0:
            raise RefusedError("a 2D image has slices across z only")
        self.view.across = axis

    def show_slice(self, which: int, k: int) -> None:
        """Show a slice of image 1 (0) or 2 (1), or of both if they are linked."""
        k = min(max(k, 0), self.pair.small[self.view.across] - 1)
        shown = self.view.slices[self.view.across]
        shown[which] = k
        if self.view.linked:
            shown[1 - which] = k

    def link(self, linked: bool) -> None:
        """Link the slices of both images, at that of image 1, or let each have its own."""
        self.view.linked = linked
        if linked:
            for shown in self.view.slices:
                shown[1] = shown[0]

    @property
    def slice_offset(self) -> float:
        """From the slice of image 1 to that of image 2, voxels of the images."""
        return float((self.view.slice2 - self.view.slice1) * self.pair.factors[self.view.across])

    def apply_slice_offset(self) -> None:
        """Move image 1 across the view so that its slice lies in that of image 2, and look at that."""
        by = np.zeros(3)
        by[self.view.across] = self.slice_offset
        self.translate(by)
        self.view.slices[self.view.across][0] = self.view.slice2

    # ---- grey levels

    @cached_property
    def samples(self) -> tuple[Float32Array, Float32Array]:
        """Grey levels from all over both images, as they are in their files."""
        found = []
        for image, base in ((self.pair.image1, self.pair.base1), (self.pair.image2, self.pair.base2)):
            step = max(1, math.ceil((image.size / SAMPLE) ** (1 / (2 if self.two_d else 3))))
            values = image[:: 1 if self.two_d else step, ::step, ::step]
            found.append((values[np.isfinite(values)] + base).astype(np.float32))
        return found[0], found[1]

    @cached_property
    def grey_levels(self) -> GreyLevels:
        """Statistics of the grey levels of both images."""
        if min(len(values) for values in self.samples) == 0:
            return GreyLevels.of([])
        # they need not be of the same voxels
        n = min(map(len, self.samples))
        one, two = (values[np.linspace(0, len(values) - 1, n).astype(np.int64)] for values in self.samples)
        return GreyLevels.of([(one.astype(np.float64), two.astype(np.float64))], alone=False)

    @property
    def grey_map(self) -> tuple[float, float]:
        """Gain and bias of the map of image 2's grey levels to image 1's: none unless they are matched."""
        if not self.view.matched:
            return 1.0, 0.0
        choice = choose_criterion("znssd", self.grey_levels)
        return choice.gain, choice.bias

    def usual_contrast(self, which: int) -> Contrast:
        """Limits between which nearly all grey levels of image 1 (0) or 2 (1) lie."""
        return self._limits[which]

    @cached_property
    def _limits(self) -> tuple[Contrast, Contrast]:
        return robust_limits(self.samples[0]), robust_limits(self.samples[1])

    @cached_property
    def _histograms(self) -> tuple[Histogram, Histogram]:
        one, two = (histogram(values, limits) for values, limits in zip(self.samples, self._limits, strict=True))
        return one, two

    def usual_spread(self) -> float:
        """Half of the contrast of image 1: differences of this size get the last colour."""
        low, high = self._limits[0]
        return (high - low) / 2

    def histogram_of(self, which: int) -> Histogram:
        """Histogram of image 1 (0) or 2 (1)."""
        return self._histograms[which]

    # ---- what is shown

    def pictures(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Image 1 deformed and image 2 in greys (rows, columns), and their comparison (rows, columns, 3)."""
        view = self.view
        one = self.pair.slice1(self.phi, view.across, view.slice1)
        two = self.pair.slice2(view.across, view.slice2)
        # grey levels are drawn less the bases
        base1, base2 = self.pair.base1, self.pair.base2
        contrasts = _less(view.contrasts[0], base1), _less(view.contrasts[1], base2)
        gain, bias = self.grey_map
        bias += gain * base2 - base1
        self._difference = np.float32(gain) * two + np.float32(bias) - one
        third = compare(
            one,
            two,
            view.mode,
            contrasts,
            view.spread,
            gain,
            bias,
            view.squares,
            view.tinted,
        )
        return grey(one, contrasts[0]), grey(two, contrasts[1]), third

    def histogram_of_difference(self) -> Histogram:
        """Histogram of the differences in the slices that `pictures` showed last."""
        reach = max(1.2 * self.usual_spread(), 1.05 * self.view.spread)
        return histogram(self._difference, Contrast(-reach, reach))

    def numbers(self) -> Numbers:
        """How well the images agree."""
        now = self.phi, self.view.matched
        if self._counted is None or self._counted[0] is not now[0] or self._counted[1] != now[1]:
            self._counted = *now, self.pair.numbers(self.phi, *self.grey_map)
        return self._counted[2]

    def grey_at(self, position: npt.ArrayLike) -> tuple[float, float]:
        """Grey levels of image 1 deformed and of image 2 at a point in voxels of the images; nan outside."""
        k = np.rint(self.pair.index(position)).astype(np.int64)
        if (k < 0).any() or (k >= np.array(self.pair.small)).any():
            return math.nan, math.nan
        return self.pair.grey1(self.phi, k), float(self.pair.image2[tuple(k.tolist())]) + self.pair.base2


def _less(contrast: Contrast, base: float) -> Contrast:
    return Contrast(contrast.low - base, contrast.high - base)


def _with_translation(phi: Array, t: npt.ArrayLike) -> Array:
    new: Array = phi.copy()
    new[:3, 3] = t
    return new


def _with_F(phi: Array, F: npt.ArrayLike) -> Array:
    new: Array = phi.copy()
    new[:3, :3] = F
    return new
