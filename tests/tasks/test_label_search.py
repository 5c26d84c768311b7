"""Pixel search of labels: each against a brute-force search in float64 of the whole images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from mpidvc.core import deformation
from mpidvc.core.pixel_search import RESULT, LabelSearchSettings
from mpidvc.images.image import ArrayImage
from mpidvc.images.pair import ImagePair
from mpidvc.kernels import pixel_search as kernels
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks import memory
from mpidvc.tasks.grey import with_limits
from mpidvc.tasks.label_search import LabelSearch, LabelSearchTask, background, make_chunks, missing, search_boxes
from mpidvc.tasks.labels import measure_labels
from tests.kernels.oracle import search_oracle
from tests.tasks.given import Given, Watched, phi_of
from tests.tasks.test_memory import Copied, peak

SHAPE, FLAT = (34, 40, 46), (1, 60, 66)
#: Of image 2 against image 1, the same for all labels.
MOTION = np.array([1, -2, 3])
#: Voxels that the oracle's images have around.
AROUND = 14


def balls(shape: tuple[int, int, int]) -> np.ndarray:
    """Labels 1, 2, 4, …: some touch one another, some the image's faces; 3 is missing, 5 small, 8 an even box."""
    two_d = shape[0] == 1
    z, y, x = np.indices(shape)
    labels = np.zeros(shape, np.uint8)
    centres = {1: (10, 10, 10, 5.3), 2: (12, 19, 11, 4.2), 4: (20, 28, 30, 6.4), 6: (0, 12, 30, 5.5), 7: (25, 8, 40, 7)}
    for label, (cz, cy, cx, radius) in centres.items():
        inside = (y - cy) ** 2 + (x - cx) ** 2 + (0 if two_d else (z - cz) ** 2) <= radius**2
        # not round, so that an orientation tells
        labels[inside & (x - cx > -0.6 * radius) & (labels == 0)] = label
    labels[:1, 36:37, 10:12] = 5
    labels[..., 30:36, 12:22] = 8
    return labels


def moved(image: np.ndarray, motion: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return np.roll(image, motion, (0, 1, 2)) + random.normal(size=image.shape)


def images_of(dtype: str, shape: tuple[int, int, int] = SHAPE, holes: bool = False, seed: int = 1) -> ImagePair:
    two_d = shape[0] == 1
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.normal(size=shape), [0 if two_d else 1.2, 1.2, 1.2], mode="wrap")
    one = (130 if dtype == "uint8" else 30000) + 30 * noise / noise.std() + random.normal(size=shape)
    two = moved(one, MOTION * [not two_d, 1, 1], random)
    if dtype != "float32":
        one, two = np.rint(one), np.rint(two)
    one, two = one.astype(dtype), two.astype(dtype)
    if holes:
        one[..., 8:10, 9:12] = np.nan
        two[..., 20:22, 28:34] = np.inf
    return ImagePair(with_limits(ArrayImage(one)), with_limits(ArrayImage(two)), ArrayImage(balls(shape)), None)


def searcher(images: ImagePair, **more: Any) -> LabelSearch:
    low, high = (-2, -3, -2), (3, 2, 4)
    if images.two_d:
        low, high = (0, -3, -2), (0, 2, 4)
    assert images.mask1 is not None
    labels = measure_labels(InlineExecutor(), images.mask1)
    return LabelSearch(
        images, labels, LabelSearchSettings(**{"low": low, "high": high, "volume_threshold": 20, **more})
    )


def whole(image: Any) -> np.ndarray:
    return image.read_box((0, 0, 0), image.shape)[0]


def expected(search: LabelSearch, label: int, phi: np.ndarray, F: np.ndarray) -> dict[str, Any]:
    """The record of a label whose mask and image are deformed by F."""
    settings, images = search.settings, search.images
    two_d = images.two_d
    pad = [(0, 0) if two_d else (AROUND, AROUND), (AROUND, AROUND), (AROUND, AROUND)]
    numbers, one, two = (np.pad(whole(i).astype(np.float64), pad) for i in (images.mask1, images.image1, images.image2))
    inside = np.pad(np.ones(images.image1.shape, bool), pad)
    real1, real2 = inside & np.isfinite(one), inside & np.isfinite(two)
    one[~real1] = two[~real2] = 0
    # the mask by the definition of a ball
    own, radius = numbers == label, abs(settings.dilate)
    z, y, x = np.ogrid[-radius * (not two_d) : radius * (not two_d) + 1, -radius : radius + 1, -radius : radius + 1]
    ball = z**2 + y**2 + x**2 <= radius**2
    if settings.dilate < 0:
        mask = ndimage.binary_erosion(own, ball) if radius else own
    else:
        mask = ndimage.binary_dilation(own, ball) & (own | (numbers == 0)) & inside
    volume = mask.sum()
    nothing = {"status": -5, "cc": 0.0, "error": np.inf, "t": None, "limit": 0, "coverage": 0}
    if volume <= settings.volume_threshold:
        return nothing
    usable = mask & real1
    if not np.array_equal(F, np.eye(3)):
        centre = np.argwhere(own).mean(axis=0).reshape(3, 1, 1, 1)
        at = np.einsum("ij,jzyx->izyx", np.linalg.inv(F), np.indices(one.shape) - centre) + centre

        def sampled(values: np.ndarray) -> np.ndarray:
            values = values.astype(float)
            # the kernel works in the plane
            return ndimage.map_coordinates(values[0] if two_d else values, at[int(two_d) :], order=1)

        usable = (sampled(mask) >= 0.5) & (sampled(real1) > 0.9999)
        one = sampled(one)
    nothing["coverage"] = usable.sum() / volume
    if not usable.any():
        return nothing
    where = np.argwhere(usable)
    first, last = where.min(axis=0), where.max(axis=0)
    part = tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))
    rounded = np.array([round(v) for v in phi[:3, 3]])
    low, high = np.array(settings.low), np.array(settings.high)
    region = tuple(slice(a, b) for a, b in zip(first + rounded + low, last + 1 + rounded + high, strict=True))
    cc, error = search_oracle(one[part], usable[part], two[region], real2[region], settings.zero_mean, 0.25)
    if not cc.max() > 0:
        return nothing
    best = np.unravel_index(np.argmax(cc), cc.shape)
    offset = np.array(best) + low
    found = {"status": 1, "cc": cc[best], "error": error[best], "t": rounded + offset}
    return nothing | found | {"limit": (((offset == low) | (offset == high)) & (low < high)).any()}


def check(search: LabelSearch, phi: np.ndarray, F: np.ndarray | None = None) -> dict[int, dict[str, float]]:
    """The records of all labels against the oracle; all start from the same guess."""
    found = {}
    for label in search.labels.numbers.tolist():
        (record,) = search.search(label, search.labels.centre[label], phi)
        got = dict(zip(RESULT, record["result"], strict=True))
        known = expected(search, label, phi, np.eye(3) if F is None else F)
        assert got["returnStatus"] == known["status"], label
        assert got["pixelSearchCC"] == pytest.approx(known["cc"], rel=1e-11 if F is None else 1e-5)
        assert got["error"] == pytest.approx(known["error"], rel=1e-8 if F is None else 1e-2)
        assert (got["deltaPhiNorm"], got["iterations"], got["atLimit"]) == (1, 1, known["limit"])
        if known["status"] == 1:
            assert got["coverage"] == pytest.approx(known["coverage"], abs=1e-12)
            np.testing.assert_array_equal(record["phi"][:, 3], known["t"])
        else:
            assert np.isnan(record["phi"][:, 3]).all()
        np.testing.assert_array_equal(record["phi"][:, :3], phi[:3, :3])
        found[label] = got
    return found


@pytest.mark.parametrize("shape", [SHAPE, FLAT], ids=["3D", "2D"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_label_against_brute_force(dtype: str, shape: tuple[int, int, int]) -> None:
    search = searcher(images_of(dtype, shape))
    found = check(search, phi_of([MOTION * [shape[0] > 1, 1, 1] + [0, 0.5, -0.5]])[0])
    assert {label for label, got in found.items() if got["returnStatus"] == 1} == {1, 2, 4, 6, 7, 8}
    # its box is of an even number of voxels along y and x
    low, high = search.labels.mask_boxes(np.array([8]), 1)
    assert ((high - low)[0, 1:] % 2 == 0).all()


@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize("more", [{"zero_mean": True}, {"dilate": 0}, {"dilate": 3}, {"dilate": -1}])
def test_masks_and_means(more: dict[str, Any], method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = kernels.search_window
    monkeypatch.setattr(kernels, "search_window", lambda *args, **named: original(*args, method=method, **named))
    check(searcher(images_of("uint16"), **more), phi_of([MOTION])[0])


def test_holes_are_not_compared() -> None:
    found = check(searcher(images_of("float32", holes=True)), phi_of([MOTION])[0])
    assert 0 < found[1]["coverage"] < 1


@pytest.mark.parametrize("shape", [SHAPE, FLAT], ids=["3D", "2D"])
@pytest.mark.parametrize("holes", [False, True])
def test_deformed_labels(holes: bool, shape: tuple[int, int, int]) -> None:
    F = deformation.rotation_matrix((12.0, 0.0, 0.0) if shape[0] == 1 else (6.0, -9.0, 11.0))
    F = F @ np.diag([1.0, 1.1, 0.95])
    phi = np.eye(4)
    phi[:3, :3], phi[:3, 3] = F, MOTION * [shape[0] > 1, 1, 1]
    images = images_of("float32", shape, holes)
    check(searcher(images), phi, F)
    check(searcher(images, apply_f="rigid"), phi, deformation.polar(F)[0])
    check(searcher(images, apply_f="no"), phi)


def test_the_truth_of_a_rotated_label() -> None:
    """A label that is rotated by 60° is found only where its window is rotated, too, and exactly in its place."""
    random = np.random.default_rng(3)
    noise = ndimage.gaussian_filter(random.normal(size=(40, 40, 40)), 1.5)
    noise = 100 + 25 * noise / noise.std()
    labels = np.zeros(noise.shape, np.uint8)
    labels[14:27, 15:24, 12:29] = 1
    R = deformation.rotation_matrix((60.0, 0.0, 0.0))
    centre = np.argwhere(labels).mean(axis=0).reshape(3, 1, 1, 1)
    motion = np.array([2, -1, 3]).reshape(3, 1, 1, 1)
    at = np.einsum("ij,jzyx->izyx", R.T, np.indices(noise.shape) - motion - centre) + centre
    two = ndimage.map_coordinates(noise, at, order=3, mode="nearest")
    images = ImagePair(ArrayImage(noise), ArrayImage(two), ArrayImage(labels))
    phi = np.eye(4)
    phi[:3, :3] = R
    search = searcher(images, low=(-4,) * 3, high=(4,) * 3, zero_mean=True)
    (record,) = search.search(1, search.labels.centre[1], phi)
    np.testing.assert_array_equal(record["phi"][:, 3], [2, -1, 3])
    assert record["result"][RESULT.index("pixelSearchCC")] > 0.98
    # none of it is cut off, although the label is almost twice as long as wide
    assert record["result"][RESULT.index("coverage")] == pytest.approx(1, abs=0.02)
    plain = searcher(images, low=(-4,) * 3, high=(4,) * 3, zero_mean=True, apply_f="no")
    (other,) = plain.search(1, plain.labels.centre[1], phi)
    assert other["result"][RESULT.index("pixelSearchCC")] < 0.7


def test_rows_of_labels_that_are_not_found() -> None:
    search = searcher(images_of("uint8"))
    centre = search.labels.centre[4]

    def status(phi: np.ndarray) -> float:
        (record,) = search.search(4, centre, phi)
        assert np.isnan(record["phi"][:, 3]).all()
        assert record["result"].tolist()[:1] + record["result"].tolist()[2:5] == [0, np.inf, 1, 1]
        assert np.isfinite(record["phi"][:, :3]).all()
        return float(record["result"][RESULT.index("returnStatus")])

    assert status(phi_of([[0, 0, 1e300]])[0]) == -5
    assert status(phi_of([[0, 200, 0]])[0]) == -5
    assert status(phi_of([[0, np.nan, 0]])[0]) == -7
    singular = phi_of([[0, 0, 0]])[0]
    singular[2, 2] = 0
    assert status(singular) == -7
    unknown = phi_of([[0, 0, 0]])[0]
    unknown[1, 1] = np.nan
    assert status(unknown) == -7


def test_placeholders() -> None:
    phi = phi_of([[1.5, 2, 3]])[0]
    phi[0, 1] = 0.1
    (row,) = background(phi)
    np.testing.assert_array_equal(row["phi"], phi[:3])
    assert row["result"][:5].tolist() == [0, 0, 0, 1, 1]
    rows = missing(2, np.stack([phi, np.full((4, 4), np.nan)]))
    np.testing.assert_array_equal(rows["phi"][:, :, :3], [phi[:3, :3], np.eye(3)])
    assert np.isnan(rows["phi"][:, :, 3]).all()
    assert rows["result"][:, :5].tolist() == [[0, -7, np.inf, 1, 1]] * 2


def test_tasks_give_every_label_its_own_record_and_read_boxes() -> None:
    plain = images_of("uint8")
    images = ImagePair(*(None if i is None else Watched(whole(i)) for i in plain))
    search = searcher(images)
    numbers = search.labels.numbers
    low, high = search_boxes(search.labels, numbers, search.settings)
    chunks = make_chunks(search.labels, numbers, high - low, search.settings)
    assert sorted(chunks.order.tolist()) == numbers.tolist()
    phi = phi_of([MOTION] * len(search.labels))
    for image in images[:3]:
        image.boxes.clear()  # type: ignore[union-attr]
    given = Given(search.labels.centre, phi, [chunks.points(k) for k in range(len(chunks))])
    task = LabelSearchTask(search, chunks, given)
    for chunk in range(task.n_chunks):
        for label, record in zip(chunks.points(chunk), task.run(chunk), strict=True):
            (alone,) = search.search(int(label), search.labels.centre[label], phi[label])
            assert record.tobytes() == alone.tobytes()
    assert max(images.image1.boxes) < 0.2 * np.prod(SHAPE)  # type: ignore[attr-defined]


@pytest.mark.parametrize("deformed", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_memory(dtype: str, deformed: bool) -> None:
    values = np.random.default_rng(1).integers(0, 255, (90, 100, 110)).astype(dtype)
    numbers = np.zeros(values.shape, np.uint8)
    numbers[20:60, 30:75, 30:80] = 1
    images = ImagePair(Copied(values), Copied(values), Copied(numbers))
    search = searcher(images)
    phi = np.eye(4)
    phi[1, 2] = 0.1 * deformed
    low, high = search_boxes(search.labels, np.array([1]), search.settings, phi[None, :3, :3])
    said = memory.label_search_bytes(images, search.labels, high - low, search.settings, deformed)
    taken = peak(lambda: search.search(1, search.labels.centre[1], phi))
    # the kernel's own arrays are not seen here: they are most of a search
    own = kernels.memory_of((high - low)[0] // 2, search.settings.low, search.settings.high)
    assert taken <= said <= 1.5 * (taken + own)
