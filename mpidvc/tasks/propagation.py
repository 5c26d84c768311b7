"""Work of every rank in a propagation: pixel search of points that come with a guess each."""

from __future__ import annotations

import numpy as np

from mpidvc.arrays import Ints, Records
from mpidvc.core.pixel_search import SearchSettings
from mpidvc.images.pair import ImagePair
from mpidvc.tasks.label_search import LabelSearch
from mpidvc.tasks.pixel_search import RECORD, PixelSearch

__all__ = ["GuidedLabelSearch", "GuidedSearch"]


class GuidedSearch:
    """Searches batches of `mpidvc.core.propagation.GUESS`; parameters as in `PixelSearch`.

    Points that are ready at the same time lie on a front, far from one another: each gets boxes of its own.

    Parameters
    ----------
    images : ImagePair
    settings : SearchSettings
    """

    def __init__(self, images: ImagePair, settings: SearchSettings) -> None:
        self._search = PixelSearch(images, settings)

    def search(self, batch: Records) -> Records:
        """Records (`mpidvc.tasks.pixel_search.RECORD`) of a batch, in its order."""
        records = np.zeros(len(batch), RECORD)
        phi = np.eye(4)[None]
        for k, guess in enumerate(batch["guess"]):
            phi[0, :3, 3] = guess
            records[k : k + 1] = self._search.search(batch["position"][k : k + 1], phi)
        return records


class GuidedLabelSearch:
    """Searches batches of `mpidvc.core.propagation.GUESS` whose points are labels.

    Parameters
    ----------
    search : LabelSearch
    numbers : (n,) int64
        The labels in the order of the propagation.
    """

    def __init__(self, search: LabelSearch, numbers: Ints) -> None:
        self._search, self._numbers = search, numbers

    def search(self, batch: Records) -> Records:
        """Records (`mpidvc.tasks.pixel_search.RECORD`) of a batch, in its order."""
        records = np.zeros(len(batch), RECORD)
        phi = np.eye(4)
        for k, point in enumerate(batch):
            phi[:3, 3] = point["guess"]
            label = int(self._numbers[point["point"]])
            records[k : k + 1] = self._search.search(label, point["position"], phi)
        return records
