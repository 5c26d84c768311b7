"""A pair of 2D images of two pieces that move apart, one of them by far more than a registration bridges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpidvc.core.analytic import AnalyticPair

__all__ = ["Jump"]


@dataclass
class Jump:
    """The two pieces meet at row `row` of image 2; both displacements are known in closed form.

    The lower piece moves by some (-3, 12) voxels: without a guess its windows find nothing (grey levels are correlated
    over some 3 voxels).
    """

    size: int = 240
    row: int = 120
    noise: float = 0.0

    def __post_init__(self) -> None:
        motion = {"rotation": (0.6, 0.0, 0.0), "strain": (0.0, 0.004, -0.003), "amplitude": 0.0, "noise": self.noise}
        shape = (1, self.size, self.size)
        self.upper = AnalyticPair(shape, seed=5, translation=(0.0, 0.8, -0.6), **motion)
        self.lower = AnalyticPair(shape, seed=5, translation=(0.0, -3.3, 12.2), **motion)

    @property
    def image1(self) -> np.ndarray:
        return np.asarray(self.upper.image1())

    @property
    def image2(self) -> np.ndarray:
        rows = np.arange(self.size)[None, :, None] < self.row
        return np.where(rows, self.upper.image2(), self.lower.image2())

    def displacement(self, points: np.ndarray) -> np.ndarray:
        """Closed form at points (n, 3) of a piece."""
        return np.where(
            self.is_upper(points)[:, None], self.upper.displacement(points), self.lower.displacement(points)
        )

    def is_upper(self, points: np.ndarray) -> np.ndarray:
        return np.asarray(self.upper.phi(points)[:, 1] < self.row)

    def clear(self, points: np.ndarray, reach: int) -> np.ndarray:
        """Points whose windows, of so many voxels to each side, lie in both images, in one piece."""
        moved = points + self.displacement(points)
        inside = np.ones(len(points), bool)
        for at in (points[:, 1:], moved[:, 1:]):
            inside &= ((at >= reach) & (at <= self.size - 1 - reach)).all(axis=1)
        away = np.where(self.is_upper(points), self.row - moved[:, 1], moved[:, 1] - self.row + 1)
        return np.asarray(inside & (away > reach))
