"""The pass over an image of labels, by pieces and on ranks, and masks that are read."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from scipy import ndimage

from mpidvc.core.labels import LARGEST_LABEL, Labels
from mpidvc.errors import AgreedError
from mpidvc.images import source
from mpidvc.images.image import ArrayImage, open_image
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.runtime.stop import Stopped, StopRequest
from mpidvc.tasks.labels import chunk_labels, measure_labels, read_label_mask
from mpidvc.tasks.placement import Placement, placed
from tests.conftest import Job
from tests.kernels.test_labels import ball_mask, some_labels
from tests.tasks import label_program
from tests.tasks.given import Watched

SHAPE = (20, 33, 47)


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PIECE", 3000)


def check(found: Labels, values: np.ndarray) -> None:
    values = values.astype(np.int64)
    assert len(found) == values.max() + 1
    numbers = np.unique(values[values > 0])
    np.testing.assert_array_equal(found.numbers, numbers)
    np.testing.assert_array_equal(found.volume[1:], np.bincount(values.ravel())[1:])
    centres = np.array(ndimage.center_of_mass(values > 0, values, numbers))
    np.testing.assert_allclose(found.centre[numbers], centres, rtol=1e-14)
    boxes = ndimage.find_objects(values)
    for label in numbers:
        np.testing.assert_array_equal(found.lowest[label], [s.start for s in boxes[label - 1]])
        np.testing.assert_array_equal(found.highest[label], [s.stop - 1 for s in boxes[label - 1]])


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i4", "f4", ">i8"])
@pytest.mark.parametrize("storage", ["plain", "zipped", "slices", "chunks", "memory"])
def test_every_storage(tmp_path: Path, dtype: str, storage: str) -> None:
    values = some_labels(1, SHAPE, 90).astype(dtype)
    name = str(tmp_path / "labels.tif")
    if storage == "plain":
        tifffile.imwrite(name, values, photometric="minisblack", byteorder=">" if dtype[0] == ">" else "<")
    elif storage == "zipped":
        tifffile.imwrite(name, values, photometric="minisblack", compression="zlib", rowsperstrip=7)
    elif storage == "slices":
        (tmp_path / "slices").mkdir()
        for z, plane in enumerate(values):
            tifffile.imwrite(tmp_path / "slices" / f"s{z}.tif", plane)
        name = str(tmp_path / "slices")
    elif storage == "chunks":
        with h5py.File(tmp_path / "labels.h5", "w") as file:
            file.create_dataset("v", data=values, chunks=(7, 8, 9), compression="gzip")
        name = f"{tmp_path}/labels.h5::/v"
    image = ArrayImage(values) if storage == "memory" else open_image(name, "labels")
    for mode in ("boxes", "mapped", "shared"):
        with placed(InlineExecutor(), Placement(mode), [image]) as (one,):
            check(measure_labels(InlineExecutor(), one), values)
            if storage == "memory":
                break


@pytest.mark.usefixtures("_small_pieces")
def test_the_image_is_never_read_whole_and_no_voxel_twice() -> None:
    image = Watched(some_labels(2, SHAPE).astype(np.uint8))
    check(measure_labels(InlineExecutor(), image), image.array)
    assert max(image.boxes) <= 3000
    assert sum(image.boxes) == image.array.size


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_threads_share_the_pass(tmp_path: Path, compression: str | None) -> None:
    """Each reads pieces of its own; the labels, and the value that is refused, are those of one pass."""
    values = some_labels(8, SHAPE, 50).astype(np.uint16)
    file = tmp_path / "labels.tif"
    tifffile.imwrite(file, values, photometric="minisblack", compression=compression)
    image, one = open_image(str(file)), measure_labels(InlineExecutor(), ArrayImage(values))
    names: set[str] = set()
    read = type(image).read_box

    def read_box(self: Any, low: Any, high: Any) -> Any:
        names.add(threading.current_thread().name)
        return read(self, low, high)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(image), "read_box", read_box)
        found = measure_labels(InlineExecutor(), image, threads=3)
    assert names
    assert threading.current_thread().name not in names
    check(found, values)
    assert pickle.dumps(found) == pickle.dumps(one)
    wrong = values.astype(np.int32)
    wrong[3, 5, 7] = wrong[19, 0, 0] = -2
    with pytest.raises(AgreedError, match=r"the value -2 at voxel \(z, y, x\) = \(3, 5, 7\)"):
        measure_labels(InlineExecutor(), ArrayImage(wrong), threads=3)


def test_plane() -> None:
    values = some_labels(3, (1, 40, 50), 9).astype(np.uint8)
    found = measure_labels(InlineExecutor(), ArrayImage(values[0]))
    check(found, values)
    assert found.two_d
    edge = np.unique(np.concatenate([values[0, 0], values[0, -1], values[0, :, 0], values[0, :, -1]]))
    np.testing.assert_array_equal(np.flatnonzero(found.touches_edge), edge[edge > 0])


def test_one_label_none_and_the_largest() -> None:
    values = np.zeros((3, 4, 5), np.uint32)
    assert len(measure_labels(InlineExecutor(), ArrayImage(values))) == 1
    values = np.zeros((3, 4, 5), np.uint32)
    values[1, 2:4, 3] = 1
    found = measure_labels(InlineExecutor(), ArrayImage(values))
    assert (found.volume.tolist(), found.centre.tolist()) == ([0, 2], [[0, 0, 0], [1, 2.5, 3]])
    values = values.copy()
    values[0, 0, 0] = 2_000_000
    found = measure_labels(InlineExecutor(), ArrayImage(values))
    assert (len(found), found.missing.size, found.volume[-1]) == (2_000_001, 1_999_998, 1)


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize(
    ("dtype", "value", "told"),
    [
        ("i4", -7, "the value -7"),
        ("i8", -7, "the value -7"),
        ("i8", 2**40, "the label 1099511627776"),
        ("u8", 2**63 + 5, "the label 9223372036854775813"),
        ("f4", 2.5, "the value 2.5"),
        ("f8", np.nan, "the value nan"),
        ("f4", np.inf, "the value inf"),
        ("u4", LARGEST_LABEL + 1, "the label 16777216"),
        ("f8", 1e12, "the label 1000000000000"),
    ],
)
def test_values_that_are_no_labels(dtype: str, value: float, told: str) -> None:
    values = some_labels(4, SHAPE).astype(dtype)
    # the first one is told, whatever piece comes first
    values[3, 5, 7] = values[2, 30, 46] = values[19, 0, 0] = value
    with pytest.raises(AgreedError) as refused:
        measure_labels(InlineExecutor(), ArrayImage(values, "labels.tif"))
    message = str(refused.value)
    assert message.startswith(f"labels.tif: has {told} at voxel (z, y, x) = (2, 30, 46), ")
    assert ("relabel the image" if "label " in told else "give integers from 0") in message
    assert "\n" not in message


def test_image_of_another_world() -> None:
    image = ArrayImage(np.zeros((2, 2, 2), np.uint8), "huge.tif")
    image.shape = (2**21, 2**21, 2**21)
    with pytest.raises(AgreedError, match=r"^huge.tif: an image of .* is too large .*; take a part of it"):
        measure_labels(InlineExecutor(), image)


def test_stop() -> None:
    stop = StopRequest()
    stop.signal = 15
    for threads in (1, 2):
        with pytest.raises(Stopped):
            measure_labels(InlineExecutor(), ArrayImage(np.ones((2, 2, 2), np.uint8)), stop, threads)


def test_ranks_give_the_same_bits(mpiexec: Job, tmp_path: Path) -> None:
    values = some_labels(7, SHAPE, 50).astype(np.uint16)
    tifffile.imwrite(tmp_path / "labels.tif", values, photometric="minisblack")
    values = values.astype(np.int16)
    values[5, 6, 7] = values[15, 6, 7] = -4
    tifffile.imwrite(tmp_path / "negative.tif", values, photometric="minisblack")
    files = [str(tmp_path / name) for name in ("labels.tif", "negative.tif")]
    expected = [label_program.digest(InlineExecutor(), file) for file in files]
    assert "(5, 6, 7)" in expected[1]
    for n in (1, 3):
        done = mpiexec(n, label_program.__file__, *files)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(done.stdout.splitlines()) == sorted(expected * n)


def test_chunks_of_labels() -> None:
    """Large labels alone and first, then chunks about as large as each other, and small ones in the end."""
    n, edge = 8000, 20
    numbers = np.arange(1, n + 1)
    places = np.stack(np.unravel_index(np.arange(n), (edge, edge, edge)), axis=1) * 10.0
    centre = np.concatenate([np.zeros((1, 3)), places])
    rows = np.zeros((n + 1, 3), np.int64)
    labels = Labels((200, 200, 200), np.ones(n + 1, np.int64), rows, rows, centre)
    voxels = np.random.default_rng(4).integers(2000, 6000, n)
    voxels[[70, 4000]] = 10**6, 2 * 10**6
    chunks = chunk_labels(labels, numbers, voxels, 10**5)
    np.testing.assert_array_equal(np.sort(chunks.order), numbers)
    parts = [chunks.points(k) for k in range(len(chunks))]
    assert [part.tolist() for part in parts[:2]] == [[4001], [71]]
    sizes = np.array([voxels[part - 1].sum() for part in parts[2:]])
    counts = np.array([len(part) for part in parts[2:]])
    late = np.cumsum(sizes) > 0.88 * sizes.sum()
    # cut by the number of labels, at which neither part has many voxels; the last chunks may be shorter
    assert counts[~late].max() == 64
    assert counts[late].max() == 16
    assert np.median(counts[late]) == 16


@pytest.mark.parametrize("dilate", [-1, 0, 2])
@pytest.mark.parametrize("keep_others", [False, True])
def test_masks(dilate: int, keep_others: bool) -> None:
    values = ndimage.zoom(np.random.default_rng(1).integers(0, 6, (3, 3, 3)), 5, order=0).astype(np.uint32)
    image = Watched(values)
    labels = measure_labels(InlineExecutor(), image)
    around = np.pad(values, 3)
    for label in labels.numbers.tolist():
        low, high = labels.box(label, max(dilate, 0) + 1)
        whole = ball_mask(around, label, dilate, keep_others)
        whole &= np.pad(np.ones(values.shape, bool), 3)
        expected = whole[tuple(slice(a + 3, b + 3) for a, b in zip(low, high, strict=True))]
        image.boxes.clear()
        mask = read_label_mask(image, labels, label, low, high, dilate, keep_others)
        np.testing.assert_array_equal(mask, expected)
        least = labels.box(label, 2 * max(dilate, 0) if dilate >= 0 else 1)
        assert image.boxes[0] <= np.prod(least[1] - least[0])
        # by blocks, each of which is read for itself
        middle = (low[2] + high[2]) // 2
        halves = [(low, [*high[:2], middle]), ([*low[:2], middle], high)]
        parts = [read_label_mask(image, labels, label, *half, dilate, keep_others) for half in halves]
        np.testing.assert_array_equal(np.concatenate(parts, axis=2), expected)
        far = read_label_mask(image, labels, label, (-9, -9, -9), (-6, -6, -6), dilate, keep_others)
        assert not far.any()


def test_labels_can_be_sent() -> None:
    found = measure_labels(InlineExecutor(), ArrayImage(some_labels(9).astype(np.uint8)))
    again = pickle.loads(pickle.dumps(found))
    assert again.shape == found.shape
    np.testing.assert_array_equal(again.centre, found.centre)
