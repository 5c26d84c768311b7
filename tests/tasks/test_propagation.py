"""Batches of a propagation: every point is a pixel search of its own, from its own guess."""

from __future__ import annotations

import numpy as np

from mpidvc.core.propagation import GUESS
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.tasks.pixel_search import RECORD, PixelSearch
from mpidvc.tasks.propagation import GuidedLabelSearch, GuidedSearch
from tests.tasks.given import Watched, phi_of
from tests.tasks.test_label_search import MOTION as OF_LABELS
from tests.tasks.test_label_search import images_of as labelled_images
from tests.tasks.test_label_search import searcher
from tests.tasks.test_pixel_search import MOTION, images_of, pair, settings_of


def batch_of(positions: np.ndarray, guesses: np.ndarray) -> np.ndarray:
    batch = np.zeros(len(positions), GUESS)
    batch["point"] = np.arange(len(positions)) + 100
    batch["position"], batch["guess"] = positions, guesses
    return batch


def test_every_point_from_its_own_guess() -> None:
    """As searched one by one, in any order; guesses that are off by more than the range find something else."""
    random = np.random.default_rng(1)
    positions = random.integers(8, 18, (12, 3)).astype(float)
    guesses = MOTION + random.integers(-2, 3, (12, 3))
    guesses[5] += 9
    search = GuidedSearch(images_of(*pair()), settings_of())
    records = search.search(batch_of(positions, guesses))
    assert records.dtype == RECORD
    single = PixelSearch(images_of(*pair()), settings_of())
    expected = [single.search(positions[k : k + 1], phi_of(guesses[k : k + 1])) for k in range(12)]
    assert records.tobytes() == np.concatenate(expected).tobytes()
    order = random.permutation(12)
    assert search.search(batch_of(positions, guesses)[order]).tobytes() == records[order].tobytes()
    near = np.abs(MOTION - guesses).max(axis=1) <= 2
    np.testing.assert_array_equal((records["phi"][:, :, 3] == MOTION).all(axis=1), near)


def test_every_point_has_boxes_of_its_own() -> None:
    """Points of a front lie far apart: a shared box would be much of the image."""
    one, two = (np.pad(image, 40, mode="wrap") for image in pair())
    images = ImagePair(ArrayImage(one), Watched(two))
    positions = np.array([[20, 20, 20], [80, 80, 80], [20, 80, 50]], float)
    GuidedSearch(images, settings_of()).search(batch_of(positions, np.zeros((3, 3))))
    assert images.image2.boxes == [(7 + 5) * (9 + 5) * (7 + 6)] * 3  # type: ignore[attr-defined]


def test_nothing_ready() -> None:
    assert len(GuidedSearch(images_of(*pair()), settings_of()).search(np.zeros(0, GUESS))) == 0


def test_every_label_from_its_own_guess() -> None:
    """Point k is the k-th label of the propagation; a guess that is off by more than the range finds something else."""
    search = searcher(labelled_images("uint16"))
    numbers = search.labels.numbers[::-1].copy()
    random = np.random.default_rng(2)
    guesses = OF_LABELS + random.integers(-2, 3, (len(numbers), 3)) + random.uniform(-0.4, 0.4, (len(numbers), 3))
    guesses[1] += 9
    batch = batch_of(search.labels.centre[numbers], guesses)
    batch["point"] = np.arange(len(numbers))
    order = random.permutation(len(numbers))
    records = GuidedLabelSearch(search, numbers).search(batch[order])
    assert records.dtype == RECORD
    for k, record in zip(order, records, strict=True):
        found = (record["phi"][:, 3] == OF_LABELS).all()
        # label 5 is too small to be searched
        assert found == (k != 1 and numbers[k] != 5), numbers[k]
        np.testing.assert_array_equal(record["phi"][:, :3], np.eye(3))
