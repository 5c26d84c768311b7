"""Pairs of images whose motion is large: texture reaches as far as it brings in."""

from __future__ import annotations

import numpy as np

from mpidvc.core import deformation
from mpidvc.core.analytic import AnalyticPair

__all__ = ["WidePair", "phi_of"]


class WidePair(AnalyticPair):
    """An analytic pair whose texture goes on around the image as far as half its size."""

    @property
    def _margin(self) -> float:
        return 0.75 * max(self.shape) + 2 * self.radii[1]


def phi_of(pair: AnalyticPair) -> np.ndarray:
    """Phi (4, 4) of a pair without a sinusoid, about its centre."""
    assert pair.amplitude == 0
    return deformation.compute_phi(pair.translation, pair.rotation, np.diag(1 + np.array(pair.strain)))
