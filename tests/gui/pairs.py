"""Pairs of images for the tests of the window: ramps, and textures whose motion is large."""

from __future__ import annotations

import numpy as np

from mpidvc.core import deformation
from mpidvc.core.analytic import AnalyticPair
from mpidvc.gui.display import DisplayPair
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.tasks.grey import with_limits

__all__ = ["PHI", "PLANE", "SHEARED", "SLOPE", "WidePair", "pair_of", "phi_of", "ramp"]

SLOPE = np.array([0.7, -0.3, 0.5])
PHI = deformation.compute_phi((3.0, -2.0, 4.5), (8.0, -5.0, 12.0), [[1.05, 0.02, 0], [0.02, 0.97, 0.01], [0, 0.01, 1]])
PLANE = deformation.compute_phi((0, -2.0, 4.5), (12.0, 0, 0), [[1, 0, 0], [0, 0.97, 0.03], [0, 0.03, 1.04]])
#: With shear, and a rotation: what a file may bring.
SHEARED = deformation.compute_phi(
    (3, 2, -1), (10, -20, 5), [[1.1, 0.05, -0.02], [0.05, 0.9, 0.03], [-0.02, 0.03, 1.02]]
)


def ramp(shape: tuple[int, int, int], level: float = 50.0) -> np.ndarray:
    return (np.tensordot(np.indices(shape), SLOPE, (0, 0)) + level).astype(np.float32)


def pair_of(one: np.ndarray, two: np.ndarray, most: int | None = None) -> DisplayPair:
    images = (with_limits(ArrayImage(array, name)) for array, name in ((one, "im1"), (two, "im2")))
    return DisplayPair.of(ImagePair(*images), most=most)


class WidePair(AnalyticPair):
    """An analytic pair whose texture goes on around the image as far as half its size."""

    @property
    def _margin(self) -> float:
        return 0.75 * max(self.shape) + 2 * self.radii[1]


def phi_of(pair: AnalyticPair) -> np.ndarray:
    """Phi (4, 4) of a pair without a sinusoid, about its centre."""
    assert pair.amplitude == 0
    return deformation.compute_phi(pair.translation, pair.rotation, np.diag(1 + np.array(pair.strain)))
