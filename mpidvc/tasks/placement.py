"""Placement of the images of a run: mapped from their files, copied to memory once per node, or read box by box.

The choice follows from sizes and from the memory that may be used; the results do not depend on it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy.typing as npt

from mpidvc.errors import AgreedError, ResourceError, UserError, is_passing
from mpidvc.images.image import Image
from mpidvc.images.source import CACHE, PIECE, Box, Source, in_pieces
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.filesystems import network_file_system
from mpidvc.runtime.memory import memory_limit, memory_total, release, size_text
from mpidvc.runtime.nodes import NodeGroup, copying, ranks_per_node_asked

__all__ = [
    "Mode",
    "Needs",
    "Placement",
    "SharedImage",
    "base_bytes",
    "choose",
    "decide",
    "forget",
    "least_memory",
    "placed",
]

Mode = Literal["shared", "mapped", "boxes"]

#: Private memory of a process before it has any data: Python, numpy, MPI, the kernels; and without MPI.
BASE, ALONE = 62_000_000, 46_000_000
#: Least and most bytes of decoded values that a reader keeps.
LEAST_CACHE, MOST_CACHE = 8 * 2**20, 2**30


class _Console(Protocol):
    def tell(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True)
class Needs:
    """Images and memory that a run needs, besides the memory that every process takes.

    Attributes
    ----------
    images : sequence of sequences of Image or None
        For every part of the run, the images that are used at the same time.
    chunk : int
        Bytes that a rank needs for its largest piece of work.
    rank0 : int
        Further bytes that rank 0 needs.
    looking : int
        Bytes that rank 0 needs to look at the images before the work begins, besides their decoded parts.
    ending, ending0 : int
        Bytes that a rank needs after the work, when the images are closed, and further bytes of rank 0 then.
    tiles : sequence of int
        Bytes of each binned image, which all ranks together keep if there is room.
    swept : bool
        Whether every rank has a share of its own of the images, which it goes through again and again.
    less : str
        Things that a user can make smaller, for messages.
    """

    images: Sequence[Sequence[Image | None]]
    chunk: int
    rank0: int = 0
    looking: int = 0
    ending: int = 0
    ending0: int = 0
    tiles: Sequence[int] = ()
    swept: bool = False
    less: str = "smaller windows (-hws)"


@dataclass(frozen=True)
class Placement:
    """Way in which the ranks of a run read their images.

    Attributes
    ----------
    mode : {"shared", "mapped", "boxes"}
    ranks : int
        Ranks of the node for which it was decided.
    cache_bytes : int
        Decoded bytes that each reader, and each binned image, may keep on every rank.
    per_node : int or None
        As in `NodeGroup`.
    private : int
        Expected bytes of every rank.
    first : int
        Further bytes that rank 0 takes.
    shared : int
        Bytes of the images that are in memory as a whole.
    """

    mode: Mode = "mapped"
    ranks: int = 1
    cache_bytes: int = CACHE
    per_node: int | None = None
    private: int = 0
    first: int = 0
    shared: int = 0


def decide(
    needs: Needs, ranks: int, mode: str, memory: str | None, console: _Console, may_take_fewer: bool = False
) -> Placement:
    """Choose the way to read images, and print the memory that is expected on this node.

    Parameters
    ----------
    needs : Needs
    ranks : int
        Ranks of this node.
    mode : {"auto", "shared", "mapped", "boxes"}
        The value of ``--image-mode``.
    memory : str or None
        The value of ``--memory``.
    console : Console
    may_take_fewer : bool
        Whether fewer ranks may be taken if there is no room for so many.

    Raises
    ------
    UserError
        If there is not enough memory for any way.
    ResourceError
        If there would be enough, were it not used by others at the moment.
    """
    limit, why = memory_limit(memory)
    sources = _all_sources(needs)
    wanted = _preferences(sources, mode)
    numbers = range(ranks, 0, -1) if may_take_fewer else (ranks,)
    for n in numbers:
        for choice in wanted:
            placement = _placement(needs, choice, n, limit, mode)
            if placement is None:
                continue
            if n < ranks:
                console.note(f"{n} of {ranks} CPUs are used: more processes do not fit into the memory")
            _explain(placement, mode, sources, limit, console)
            _say(placement, needs, limit, why, console)
            return placement
    total = memory_total()
    used = memory is None and any(_placement(needs, wanted[-1], n, total, mode) is not None for n in numbers)
    raise (ResourceError if used else UserError)(_advice(needs, wanted[-1], ranks, limit, why))


def choose(needs: Needs, mode: str) -> Mode:
    """The way to read the images where memory does not limit it; `mode` is the value of ``--image-mode``."""
    return _preferences(_all_sources(needs), mode)[0]


def least_memory(needs: Needs, mode: Mode, ranks: int) -> tuple[int, int]:
    """Least bytes that a run takes on a node, its images included, and those of its largest rank alone.

    Parameters
    ----------
    needs : Needs
    mode : {"shared", "mapped", "boxes"}
    ranks : int
        Ranks of the node.
    """
    node = rank = 0
    for images in needs.images or [()]:
        sources = _distinct(images)
        least = _private(needs, mode, sources, LEAST_CACHE, ranks)
        first = _first(needs, sources, least - base_bytes(ranks))
        node = max(node, ranks * least + first + sum(source.nbytes for source in _whole(sources, mode)))
        rank = max(rank, least + first)
    last, more = _last(needs, ranks)
    return max(node, ranks * last + more), max(rank, last + more)


def _all_sources(needs: Needs) -> list[Source]:
    return list({id(image): image for images in needs.images for image in images if isinstance(image, Source)}.values())


def _whole(sources: Sequence[Source], mode: Mode) -> Sequence[Source]:
    """Images that are in memory as a whole."""
    return sources if mode == "shared" else [source for source in sources if mode == "mapped" and source.plain]


def _preferences(sources: Iterable[Source], mode: str) -> list[Mode]:
    """Ways to read the images, the best first."""
    if mode == "boxes":
        return ["boxes"]
    if mode == "mapped":
        return ["mapped"]
    if mode == "shared":
        return ["shared", "boxes"]
    plain = all(source.plain for source in sources)
    network = any(network_file_system(file) for source in sources for file in source.files)
    return ["mapped" if plain and not network else "shared", "boxes"]


def _placement(needs: Needs, mode: Mode, ranks: int, limit: int, asked: str) -> Placement | None:
    """The placement, None if it does not fit."""
    last, more = _last(needs, ranks)
    if ranks * last + more > limit:
        return None
    found = []
    for images in needs.images or [()]:
        sources = _distinct(images)
        shared = sum(source.nbytes for source in _whole(sources, mode))
        # the system takes mapped pages back when it needs memory: on request, images larger than memory are mapped
        held = 0 if asked == "mapped" else shared
        least = _private(needs, mode, sources, LEAST_CACHE, ranks)
        room = limit - _first(needs, sources, least - base_bytes(ranks)) - held - ranks * least
        if room < 0:
            return None
        n_caches = len(needs.tiles) + sum(not source.plain for source in sources if mode != "shared")
        cache_bytes = LEAST_CACHE + min(int(0.9 * room / ranks / max(n_caches, 1)), MOST_CACHE)
        private = _private(needs, mode, sources, cache_bytes, ranks)
        private, first = _throughout(needs, sources, private, ranks)
        found.append(Placement(mode, ranks, cache_bytes, ranks_per_node_asked(), private, first, shared))
    largest = max(found, key=lambda one: ranks * one.private + one.first + one.shared)
    return replace(largest, cache_bytes=min(one.cache_bytes for one in found))


def _private(needs: Needs, mode: Mode, sources: Sequence[Source], cache_bytes: int, ranks: int) -> int:
    """Bytes of a rank whose readers may keep `cache_bytes` each."""
    # tiles where the shares of two ranks meet are kept by both
    work, kept = needs.chunk, sum(min(int(1.5 * tile / ranks), cache_bytes) for tile in needs.tiles)
    if mode == "shared":
        # copied before there is any other work
        work = max([work, *map(_fill_bytes, sources)])
    else:
        for source in sources:
            held = source.boxed(cache_bytes).held
            if needs.swept:
                # but one piece that is being decoded, and its result
                piece = 2 * math.prod(source.grain) * source.dtype.itemsize
                held = min(held, max(int(1.5 * source.nbytes / ranks), piece))
            kept += held
    return base_bytes(ranks) + work + kept


def _first(needs: Needs, sources: Sequence[Source], work: int) -> int:
    """Bytes that rank 0 needs beyond those of every rank, which has `work` for its work and what it keeps."""
    # it looks before it works
    looking = needs.looking + sum(source.held for source in sources)
    return needs.rank0 + max(looking - work, 0)


def _last(needs: Needs, ranks: int) -> tuple[int, int]:
    """Bytes of every rank after the work, and further ones of rank 0."""
    return base_bytes(ranks) + needs.ending, needs.rank0 + needs.ending0


def _throughout(needs: Needs, sources: Sequence[Source], private: int, ranks: int) -> tuple[int, int]:
    """Most bytes of every rank, which needs `private` for the work, and further ones of rank 0."""
    last, more = _last(needs, ranks)
    each = max(private, last)
    return each, max(private + _first(needs, sources, private - base_bytes(ranks)), last + more) - each


def base_bytes(ranks: int) -> int:
    """Private memory of a process before it has any data."""
    return BASE if ranks > 1 or "mpi4py.MPI" in sys.modules else ALONE


def _distinct(images: Iterable[Image | None]) -> list[Source]:
    return list({image.path: image for image in images if isinstance(image, Source)}.values())


def _largest(needs: Needs) -> int:
    return max((sum(s.nbytes for s in _distinct(images)) for images in needs.images), default=0)


def _fill_bytes(source: Source) -> int:
    """Bytes that a rank needs while it fills its share of a copy."""
    piece = min(source.nbytes, max(PIECE, math.prod(source.grain) * source.dtype.itemsize))
    return piece + source.boxed(LEAST_CACHE).held


def _explain(placement: Placement, mode: str, sources: Iterable[Source], limit: int, console: _Console) -> None:
    """Tell the user where the way is not the one that was asked for."""
    if mode == "mapped":
        encoded = [source.path for source in sources if not source.plain]
        if placement.mode == "mapped" and encoded:
            more = f" and {len(encoded) - 1} more" if len(encoded) > 1 else ""
            console.note(f"{encoded[0]}{more}: is compressed or chunked and cannot be mapped; it is read in boxes")
    if mode == "shared" and placement.mode == "boxes":
        console.note(
            f"--image-mode shared: the images do not fit into the memory that may be used ({size_text(limit)}); they "
            "are read in boxes"
        )


def _say(placement: Placement, needs: Needs, limit: int, why: str, console: _Console) -> None:
    how = {"shared": "copied once", "mapped": "mapped", "boxes": "read in boxes"}[placement.mode]
    if placement.ranks == 1:
        processes = f"one process of {size_text(placement.private + placement.first)}"
    else:
        processes = f"{placement.ranks} processes of {size_text(placement.private)} each"
        processes += f", the first with {size_text(placement.first)} more," if placement.first else ""
    images = f"images of {size_text(_largest(needs))} {how}"
    console.tell(f"Memory: {images}, {processes} on this node (limit {size_text(limit)}: {why})")


def _advice(needs: Needs, mode: Mode, ranks: int, limit: int, why: str) -> str:
    parts = [_distinct(images) for images in needs.images or [()]]
    each, sources = max(
        ((_private(needs, mode, part, LEAST_CACHE, ranks), part) for part in parts), key=lambda one: one[0]
    )
    each, first = _throughout(needs, sources, each, ranks)
    fitting = (limit - first) // each
    need = f"one process needs {size_text(each + first)}"
    if ranks > 1:
        need = f"{ranks} processes need {size_text(each)} each and the first {size_text(first)} more"
    told = f"not enough memory: {need} on this node, the limit is {size_text(limit)} ({why})"
    if fitting >= 1:
        return f"{told}; start at most {fitting} on a node (-np {fitting}), or give more by --memory"
    return f"{told}; give more by --memory, or take {needs.less}"


class SharedImage(Source):
    """Copy of an image that the ranks of a node share; pickled, or closed, it is the image in its file again.

    Parameters
    ----------
    source : Source
    values : (nz, ny, nx) array
        Grey levels in the dtype of the source.
    """

    def __init__(self, source: Source, values: npt.NDArray[Any]) -> None:
        super().__init__(source.path, source.shape, source.dtype)
        self.limits, self.base = source.limits, source.base
        self._source = source
        self._values: npt.NDArray[Any] | None = values

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self._source,)

    def mapped(self) -> Source:
        return self._source.mapped()

    def boxed(self, cache_bytes: int = CACHE) -> Source:
        return self._source.boxed(cache_bytes)

    def close(self) -> None:
        self._values = None
        self._source.close()

    def _read(self, box: Box) -> npt.NDArray[Any]:
        return self._source._read(box) if self._values is None else self._values[box]


def _itself(source: Source) -> Source:
    return source


def forget(images: Iterable[Image | None]) -> None:
    """Drop the parts of images that were decoded to look at them: the work reads them in a way of its own."""
    for image in images:
        if isinstance(image, Source):
            image.close()
    release()


@contextmanager
def placed(
    executor: Executor,
    placement: Placement | None,
    images: Sequence[Image | None],
    note: Callable[[str], None] | None = None,
) -> Iterator[list[Any]]:
    """Give the images as they are read during a part of the run; collective.

    Parameters
    ----------
    executor : Executor
    placement : Placement or None
        The same on all ranks; None: mapped where they can be.
    images : sequence of Image or None
        An image without a file is given back as it is.
    note : callable, optional
        Called with a line for the user if there is no shared memory.

    Raises
    ------
    AgreedError
        On all ranks, if an image cannot be read.
    """
    placement = placement or Placement()
    if placement.mode == "shared":
        copies = _copies(executor, placement, images)
        if copies is not None:
            try:
                yield [copies[image.path] if isinstance(image, Source) else image for image in images]
            finally:
                # a reference to one that is left must not hold its memory while the next ones are copied
                for copy in copies.values():
                    copy.close()
            return
        if note is not None:
            note("the processes of a node cannot share memory here; images are mapped or read in boxes")
        placement = replace(placement, mode="mapped")
    ways: list[Image | None] = []
    for image in images:
        if not isinstance(image, Source):
            ways.append(image)
        elif placement.mode == "mapped" and image.plain:
            ways.append(image.mapped())
        else:
            ways.append(image.boxed(placement.cache_bytes))
    try:
        yield ways
    finally:
        for way in ways:
            if isinstance(way, Source):
                way.close()


def _copies(executor: Executor, placement: Placement, images: Sequence[Image | None]) -> dict[str, SharedImage] | None:
    """Copies by path, made by all ranks of the node together; None if there is no shared memory."""
    if executor.broadcast(bool(executor.losses)):
        return None  # nothing collective works any more
    copies: dict[str, SharedImage] | None
    with copying("images were"):
        node = NodeGroup(executor.communicator, placement.per_node)
        try:
            copies = {source.path: _copy(node, source.boxed(LEAST_CACHE)) for source in _distinct(images)}
        except _NoMemoryError:
            copies = None
        # not in a `finally`: where a rank alone fails, the others do not come here
        node.close()
    return copies


class _NoMemoryError(Exception):
    """There is no shared memory; raised on all ranks of the node."""


def _copy(node: NodeGroup, source: Source) -> SharedImage:
    try:
        memory = node.allocate(source.nbytes)
    except AgreedError as error:
        raise _NoMemoryError from error
    values = memory.view(source.dtype).reshape(source.shape)
    failure: UserError | None = None
    try:
        pieces = list(in_pieces(source.shape, source.grain, source.dtype.itemsize))
        first, end = (len(pieces) * rank // node.size for rank in (node.rank, node.rank + 1))
        for low, high in pieces[first:end]:
            part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            values[part] = source.read_box(low, high)[0]
    except UserError as error:
        failure = error
    except (OSError, MemoryError) as error:
        kind = ResourceError if is_passing(error) else UserError
        failure = kind(f"{source.path}: cannot be copied to memory ({error}); try --image-mode boxes")
    source.close()
    node.agree(failure)
    values.flags.writeable = False
    return SharedImage(source, values)
