"""The way images are read follows from their sizes, their storage and the memory that may be used."""

from __future__ import annotations

import contextlib
import pickle
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.errors import AgreedError, UserError
from mpidvc.images.image import ArrayImage, Image, open_image
from mpidvc.images.source import CACHE, Source, in_pieces
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks import placement
from mpidvc.tasks.placement import BASE, LEAST_CACHE, Needs, Placement, base_bytes, decide, placed

MB = 1_000_000
VALUES = np.arange(20 * 30 * 40, dtype=np.uint16).reshape(20, 30, 40)


class Said:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []

    def tell(self, text: str) -> None:
        self.lines.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    tifffile.imwrite(folder / "plain.tif", VALUES, photometric="minisblack")
    tifffile.imwrite(folder / "zlib.tif", VALUES, compression="zlib", photometric="minisblack")
    # 400 MB of nothing: only its size is looked at
    tifffile.memmap(folder / "large.tif", shape=(200, 1000, 1000), dtype=np.uint16, photometric="minisblack").flush()
    return folder


@pytest.fixture
def plain(folder: Path) -> Image:
    return open_image(folder / "plain.tif")


@pytest.fixture
def zipped(folder: Path) -> Image:
    return open_image(folder / "zlib.tif")


@pytest.fixture
def large(folder: Path) -> Image:
    return open_image(folder / "large.tif")


def choose(
    images: list[Image | None],
    memory: int,
    mode: str = "auto",
    ranks: int = 2,
    chunk: int = 10 * MB,
    fewer: bool = False,
) -> tuple[Placement, Said]:
    said = Said()
    return decide(Needs([images], chunk, rank0=5 * MB), ranks, mode, str(memory), said, fewer), said


#: What two ranks need without images.
TWO = 2 * (BASE + 10 * MB) + 5 * MB


def test_auto(plain: Image, zipped: Image, large: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose([plain, plain, None], TWO + 30 * MB)[0].mode == "mapped"
    assert choose([plain, zipped], TWO + 50 * MB)[0].mode == "shared"
    assert choose([large, None], TWO + 401 * MB)[0].mode == "mapped"
    assert choose([large, None], TWO + 399 * MB)[0].mode == "boxes"
    # the same image twice is there once
    assert choose([large, large], TWO + 401 * MB)[0].mode == "mapped"
    monkeypatch.setattr(placement, "network_file_system", lambda path: "nfs4")
    assert choose([plain], TWO + 50 * MB)[0].mode == "shared"
    assert choose([large, None], TWO + 399 * MB)[0].mode == "boxes"


def test_what_is_said(large: Image, zipped: Image) -> None:
    _, said = choose([large], 500_000_000)
    (line,) = said.lines
    assert line == (
        "Memory: images of 400 MB read in boxes, 2 processes of 72 MB each, the first with 5 MB more, on this node "
        "(limit 500 MB: --memory)"
    )
    _, said = choose([large], 500_000_000, "mapped", ranks=1)
    alone = round((base_bytes(1) + 15 * MB) / MB)
    told = f"Memory: images of 400 MB mapped, one process of {alone} MB on this node (limit 500 MB: --memory)"
    assert said.lines == [told]
    found, said = choose([large], 500_000_000, "shared")
    assert found.mode == "boxes"
    (note,) = said.notes
    assert note.startswith("--image-mode shared: the images do not fit")
    found, said = choose([large, zipped], 500_000_000, "mapped")
    assert found.mode == "mapped"
    assert "zlib.tif: is compressed or chunked and cannot be mapped" in said.notes[0]


def test_too_little_memory(large: Image) -> None:
    assert choose([large], TWO)[0].ranks == 2
    with pytest.raises(UserError, match=r"2 processes need 72 MB each and the first 5 MB more .* at most 1 on a node"):
        choose([large], TWO - 1)
    found, said = choose([large], TWO - 1, fewer=True)
    assert found.ranks == 1
    assert said.notes == ["1 of 2 CPUs are used: more processes do not fit into the memory"]
    with pytest.raises(UserError, match=r"give more by --memory, or take smaller windows"):
        choose([large], base_bytes(1), fewer=True)


def test_memory_after_the_work(large: Image) -> None:
    """The images are closed then: either the work counts or what comes after it, not both."""
    images = large.shape[0] * large.shape[1] * large.shape[2] * large.dtype.itemsize
    small, much = (Needs([[large]], 10 * MB, rank0=5 * MB, ending=ending, ending0=7 * MB) for ending in (0, 500 * MB))
    assert placement.least_memory(small, "mapped", 2) == (TWO + images, BASE + 15 * MB)
    assert placement.least_memory(much, "mapped", 2) == (2 * (BASE + 500 * MB) + 12 * MB, BASE + 512 * MB)
    enough = 2 * (BASE + 500 * MB) + 12 * MB
    found = decide(much, 2, "auto", str(enough), Said())
    assert (found.private, found.first) == (BASE + 500 * MB, 12 * MB)
    with pytest.raises(UserError, match=r"2 processes need 562 MB each and the first 12 MB more"):
        decide(much, 2, "auto", str(enough - 1), Said())


@pytest.mark.parametrize(("total", "passing"), [(BASE + 411 * MB, True), (placement.ALONE, False)])
def test_memory_that_others_use_at_the_moment(
    large: Image, total: int, passing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command may run later; not where `--memory` or the machine is too small."""
    monkeypatch.setattr(placement, "memory_limit", lambda asked: (placement.ALONE, "a test"))
    monkeypatch.setattr(placement, "memory_total", lambda: total)
    needs = Needs([[large]], 10 * MB)
    for asked, expected in ((None, passing), ("46M", False)):
        with pytest.raises(UserError, match="not enough memory") as caught:
            decide(needs, 1, "auto", asked, Said())
        assert caught.value.passing == expected


def test_the_first_looks_before_it_works(zipped: Image) -> None:
    """What rank 0 needs to look at images is not added to its work; their decoded parts are a part of it."""
    for looking, more in ((0, 0), (5, 0), (30, 20), (80, 70)):
        needs = Needs([], 10 * MB, rank0=5 * MB, looking=looking * MB)
        found = decide(needs, 2, "auto", "1G", Said())
        assert (found.private, found.first) == (BASE + 10 * MB, (5 + more) * MB)
        with pytest.raises(UserError, match=f"the first {5 + more} MB more"):
            decide(needs, 2, "auto", str(TWO + more * MB - 1), Said())
    decoded = Needs([[zipped]], 10 * MB, looking=10 * MB)
    held = zipped.held  # type: ignore[attr-defined]
    assert held > 0
    assert decide(decoded, 2, "shared", "1G", Said()).first >= held - 10 * MB


def test_without_mpi_a_process_is_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    assert base_bytes(1) == placement.ALONE < BASE
    assert base_bytes(2) == BASE
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", sys)
    assert base_bytes(1) == BASE


def test_the_largest_part_of_the_run_counts(plain: Image, large: Image) -> None:
    needs = Needs([(plain, None), (large, None)], 10 * MB)
    assert decide(needs, 2, "auto", str(2 * BASE + 421 * MB), Said()).mode == "mapped"
    assert decide(needs, 2, "auto", str(2 * BASE + 419 * MB), Said()).mode == "boxes"


def test_what_is_left_is_for_what_is_decoded(folder: Path, large: Image) -> None:
    values = np.zeros((50, 1000, 1000), np.uint16)
    tifffile.imwrite(folder / "tiles.tif", values, tile=(64, 64), compression="zlib", photometric="minisblack")
    tiled = open_image(folder / "tiles.tif")
    # rank 0 has looked at it with a larger cache
    needed = TWO + 2 * LEAST_CACHE + CACHE - 10 * MB - LEAST_CACHE
    least, _ = choose([tiled, large], needed, "boxes")
    more, _ = choose([tiled, large], needed + 100 * MB, "boxes")
    assert least.cache_bytes == LEAST_CACHE
    assert least.private == BASE + 10 * MB + LEAST_CACHE
    assert more.cache_bytes == LEAST_CACHE + 45 * MB
    assert more.private == least.private + 45 * MB
    everything, _ = choose([tiled, large], 10_000 * MB, "boxes")
    assert everything.private == BASE + 10 * MB + 100 * MB


@pytest.mark.parametrize("mode", ["shared", "mapped", "boxes"])
def test_placed(plain: Image, zipped: Image, mode: str) -> None:
    array = ArrayImage(VALUES)
    with placed(InlineExecutor(), Placement(mode), [plain, zipped, None, array]) as (one, two, nothing, same):  # type: ignore[arg-type]
        assert nothing is None
        for image in (one, two, same):
            part, _ = image.read_box((3, 4, 5), (9, 30, 40))
            np.testing.assert_array_equal(part, VALUES[3:9, 4:30, 5:40])
        held = one.read_box((0, 0, 0), (5, 5, 5))[0], one.read_box((0, 0, 0), (5, 5, 5))[0]
        assert np.shares_memory(*held) == (mode != "boxes")
        assert held[0].flags.writeable == (mode == "boxes")
        for image in (one, two):
            again = pickle.loads(pickle.dumps(image))
            assert len(pickle.dumps(image)) < 3000
            np.testing.assert_array_equal(again.read_box((0, 0, 0), (20, 30, 40))[0], VALUES)


def test_a_copy_is_given_back_though_somebody_holds_the_image(plain: Image) -> None:
    with placed(InlineExecutor(), Placement("shared"), [plain]) as (one,):
        memory = weakref.ref(one._values.base.base)
        assert memory() is not None
    assert memory() is None
    np.testing.assert_array_equal(one.read_box((0, 0, 0), (20, 30, 40))[0], VALUES)


def test_copies_do_not_cut_what_is_decoded_together(tmp_path: Path) -> None:
    import h5py

    values = np.random.default_rng(1).integers(0, 255, (70, 300, 310), dtype=np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", data=values, chunks=(32, 100, 64))
    image = open_image(f"{tmp_path}/a.h5::/v")
    assert isinstance(image, Source)
    pieces = list(in_pieces(image.shape, image.grain, image.dtype.itemsize))
    assert len(pieces) > 1
    covered = np.zeros(values.shape, np.uint8)
    for low, high in pieces:
        assert all(a % g == 0 for a, g in zip(low, image.grain, strict=True))
        covered[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] += 1
    assert (covered == 1).all()
    with placed(InlineExecutor(), Placement("shared"), [image]) as (copy,):
        np.testing.assert_array_equal(copy.read_box((0, 0, 0), values.shape)[0], values)


def test_no_shared_memory(zipped: Image, plain: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, size: int) -> None:
        raise AgreedError("no memory")

    monkeypatch.setattr(placement.NodeGroup, "allocate", refuse)
    notes: list[str] = []
    with placed(InlineExecutor(), Placement("shared"), [plain, zipped], notes.append) as (one, two):
        assert one.maps
        np.testing.assert_array_equal(two.read_box((0, 0, 0), VALUES.shape)[0], VALUES)
    assert notes == ["the processes of a node cannot share memory here; images are mapped or read in boxes"]


@pytest.mark.parametrize("mode", ["shared", "mapped", "boxes"])
@pytest.mark.parametrize("ranks", [1, 7])
def test_least_memory_is_what_a_run_is_refused_below(
    plain: Image, zipped: Image, mode: placement.Mode, ranks: int
) -> None:
    needs = Needs([[plain, zipped], [plain, None]], 10 * MB, rank0=5 * MB, looking=30 * MB)
    node, rank = placement.least_memory(needs, mode, ranks)
    # a request for mapped images does not count their pages, which the system can take back
    node -= plain.nbytes if mode == "mapped" else 0  # type: ignore[attr-defined]
    assert decide(needs, ranks, mode, str(node), Said()).mode == mode
    if mode == "shared":
        # boxes may still fit
        with contextlib.suppress(UserError):
            assert decide(needs, ranks, mode, str(node - 1), Said()).mode == "boxes"
    else:
        with pytest.raises(UserError, match="not enough memory"):
            decide(needs, ranks, mode, str(node - 1), Said())
    assert base_bytes(ranks) + 10 * MB < rank <= node


def test_the_way_without_a_limit(plain: Image, zipped: Image) -> None:
    assert placement.choose(Needs([[plain]], 1), "auto") == "mapped"
    assert placement.choose(Needs([[zipped, plain]], 1), "auto") == "shared"
    assert placement.choose(Needs([[zipped]], 1), "boxes") == "boxes"
