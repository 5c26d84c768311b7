"""Discrete correlation of labels: chunks, the two ways to the same Phi, and what is read of image 2."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.arrays import Records
from mpidvc.core.grains import AnalyticGrains
from mpidvc.core.grid import Chunks
from mpidvc.core.labels import Labels
from mpidvc.core.registration import RegistrationSettings
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks import ddic
from mpidvc.tasks.ddic import COLUMNS, DdicSettings, DdicTask, make_chunks, missing, together
from mpidvc.tasks.labels import measure_labels
from mpidvc.tasks.points import inputs_of
from tests.tasks.given import phi_of

GRAINS = AnalyticGrains((70, 72, 74), 8, kind="clumps", radii=(8.0, 9.0), gap=3.0, touching=0.0, seed=3)
FAR = replace(GRAINS, translation=(5.0, -5.0, 5.0), displacement=0.5, rotation=2.0, margin=9.0)
SETTINGS = DdicSettings(RegistrationSettings(order=3, rigid=True, min_delta_phi=1e-3, criterion="ssd"))


class Given:
    """Centres of mass of labels, and the identity as their guess."""

    def __init__(self, labels: Labels, chunks: Chunks) -> None:
        self.labels, self.chunks, self.n_blocks = labels, chunks, len(chunks)

    def inputs(self, block: int) -> Records:
        numbers = self.chunks.points(block)
        return inputs_of(self.labels.centre[numbers], np.tile(np.eye(4), (len(numbers), 1, 1)))


def task_of(grains: AnalyticGrains, settings: DdicSettings = SETTINGS) -> DdicTask:
    images = ImagePair(
        ArrayImage(grains.image1(), "one"), ArrayImage(grains.image2(), "two"), ArrayImage(grains.labels1(), "labels")
    )
    assert images.mask1 is not None
    labels = measure_labels(InlineExecutor(), images.mask1)
    chunks = make_chunks(labels, labels.numbers, settings)
    return DdicTask(images, labels, chunks, Given(labels, chunks), settings)


def measured(task: DdicTask) -> Records:
    """Records in the order of the labels."""
    records = np.concatenate([task.run(chunk) for chunk in range(task.n_chunks)])
    return records[np.argsort(task.chunks.order)]


def test_every_label_is_in_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of more voxels than `TOGETHER` come first, each by itself."""
    image = ArrayImage(GRAINS.labels1(), "labels")
    labels = measure_labels(InlineExecutor(), image)
    low, high = labels.mask_boxes(labels.numbers, SETTINGS.dilate)
    voxels = np.prod(high - low, axis=1)
    monkeypatch.setattr(ddic, "TOGETHER", int(np.sort(voxels)[-3]))
    chunks = make_chunks(labels, labels.numbers, SETTINGS)
    np.testing.assert_array_equal(np.sort(chunks.order), labels.numbers)
    large = labels.numbers[np.argsort(-voxels, kind="stable")[:2]]
    assert together(labels, chunks, SETTINGS) == [0, 1]
    assert [chunks.points(k).tolist() for k in (0, 1)] == [[n] for n in large]


def test_blocks_and_window_agree() -> None:
    """A label by sums over blocks, as a large one is, has the Phi of its window in memory; both have the true one."""
    task = task_of(GRAINS)
    numbers = task.labels.numbers
    task.chunks = Chunks(numbers, np.arange(len(numbers) + 1))
    task.points = Given(task.labels, task.chunks)
    true = GRAINS.phi()[numbers, :3]
    window = np.concatenate([task.run(k) for k in range(len(numbers))])
    blocks = np.concatenate([task.run_together(InlineExecutor(), k) for k in range(len(numbers))])
    for records in (window, blocks):
        np.testing.assert_array_equal(records["result"][:, COLUMNS.index("returnStatus")], 2)
        np.testing.assert_allclose(records["phi"][:, :, 3], true[:, :, 3], rtol=0, atol=0.02)
    np.testing.assert_allclose(window["phi"][:, :, :3], blocks["phi"][:, :, :3], rtol=0, atol=1e-3)
    np.testing.assert_allclose(window["phi"][:, :, 3], blocks["phi"][:, :, 3], rtol=0, atol=5e-3)
    # all of the dilated mask stays on data
    for records in (window, blocks):
        np.testing.assert_allclose(records["result"][:, COLUMNS.index("coverage")], 1.0, rtol=0, atol=1e-6)


def test_voxels_of_a_mask_by_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dilated, eroded, and as it is, against the distance to the voxels of the label."""
    numbers = GRAINS.labels1()
    image = ArrayImage(numbers, "labels")
    labels = measure_labels(InlineExecutor(), image)
    monkeypatch.setattr("mpidvc.images.source.PIECE", 1000)
    for dilate in (-2, 0, 3):
        low, high = (ends[0] for ends in labels.mask_boxes(np.array([1]), dilate))
        mask = ddic.MaskVolume(ddic.LabelPart(image, labels, 1, low, high, replace(SETTINGS, dilate=dilate)))
        assert mask.n_chunks > 2
        own = numbers == 1
        if dilate > 0:
            own = (ndimage.distance_transform_edt(~own) <= dilate) & (own | (numbers == 0))
        elif dilate < 0:
            own = ndimage.distance_transform_edt(own) > -dilate
        assert InlineExecutor().reduce(mask, None)[0] == np.count_nonzero(own)


@pytest.mark.parametrize("order", [1, 3])
def test_division_into_chunks_does_not_matter(order: int) -> None:
    """A label has the same bytes by itself and among others, some of which are not measured."""
    settings = replace(SETTINGS, registration=replace(SETTINGS.registration, order=order))
    task = task_of(GRAINS, settings)
    labels = task.labels
    guess = GRAINS.phi()[labels.numbers]
    guess[2] = np.nan
    guess[5, :3, 3] = 1e300

    class Rows:
        n_blocks = 1

        def __init__(self, rows: list[int]) -> None:
            self.rows = rows

        def inputs(self, block: int) -> Records:
            return inputs_of(labels.centre[labels.numbers[self.rows]], guess[self.rows])

    def run(rows: list[int]) -> Records:
        task.chunks = Chunks(labels.numbers[rows], np.array([0, len(rows)]))
        task.points = Rows(rows)
        return task.run(0)

    rows = list(range(len(guess)))
    together = run(rows)
    assert together["result"][:, COLUMNS.index("returnStatus")].tolist() == [2, 2, -7, 2, 2, -5, 2, 2]
    assert b"".join(run([k]).tobytes() for k in rows) == together.tobytes()


def test_what_is_read_first_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that leave the part of image 2 around their guess are measured again, from their guess, on the whole."""
    settings = replace(SETTINGS, margin=8)
    task = task_of(FAR, settings)
    found = measured(task)
    monkeypatch.setattr(ddic, "LESS", 0.0)
    whole = measured(task)
    assert (whole["result"][:, COLUMNS.index("returnStatus")] == 2).any()
    np.testing.assert_array_equal(
        found["result"][:, COLUMNS.index("iterations")], whole["result"][:, COLUMNS.index("iterations")]
    )
    np.testing.assert_allclose(found["phi"], whole["phi"], rtol=0, atol=1e-5)


def test_labels_that_are_not_measured() -> None:
    records = missing(2, 1)
    assert np.isnan(records["phi"][:, :, 3]).all()
    np.testing.assert_array_equal(records["phi"][:, :, :3], np.tile(np.eye(3), (2, 1, 1)))
    named = dict(zip(COLUMNS, records["result"][0].tolist(), strict=True))
    assert (named["returnStatus"], named["iterations"], named["LabelDilate"], named["error"]) == (-7, 0, 1, np.inf)
    assert (named["deltaPhiNorm"], named["coverage"]) == (np.inf, 0)
    assert np.isnan(named["zncc"])


def test_part_of_image_2_that_is_compared() -> None:
    """The box of a label, grown, moved by its rounded guess, and cut by the faces of image 2."""
    numbers = np.zeros((40, 44, 48), np.uint8)
    boxes = {1: ((0, 9), (12, 20), (0, 9)), 2: ((15, 24), (30, 44), (20, 31)), 3: ((30, 40), (2, 12), (38, 48))}
    for label, box in boxes.items():
        numbers[tuple(slice(*ends) for ends in box)] = label
    images = ImagePair(*(ArrayImage(values) for values in (numbers + 9, numbers + 9, numbers)))
    assert images.mask1 is not None
    labels = measure_labels(InlineExecutor(), images.mask1)
    chunks = make_chunks(labels, labels.numbers, SETTINGS)
    task = DdicTask(images, labels, chunks, Given(labels, chunks), SETTINGS)
    guess = phi_of([[0.4, -0.4, 0.0], [1.6, -2.4, 3.0], [0.0, 0.3, -0.2]])
    windows = task._windows(labels.numbers, guess, labels.centre[labels.numbers])
    for k, (label, box) in enumerate(boxes.items()):
        assert labels.numbers[k] == label
        for axis, (begin, end) in enumerate(box):
            moved = round(guess[k, axis, 3])
            voxels = [v + moved for v in range(begin - SETTINGS.reach, end + SETTINGS.reach)]
            inside = [v for v in voxels if 0 <= v < numbers.shape[axis]]
            assert (windows.low2[k, axis], windows.high2[k, axis]) == (inside[0], inside[-1] + 1)
