"""Arrays and fields that every rank reads, once per node; a field has a search of neighbours among its points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.arrays import Triple
from mpidvc.errors import AgreedError
from mpidvc.fields.phifield import Layout, PhiField
from mpidvc.kernels.neighbours import Points
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.nodes import NodeGroup, copying, ranks_per_node_asked

__all__ = ["Source", "moving_bytes", "share_arrays", "share_source", "source_bytes"]

#: Bytes of an array that are sent at a time, and bytes of the tree for each point: leaves hold four or more.
PIECE, TREE = 2**24, 56
#: Fields of at most so many bytes are copied to every rank: agreement on shared memory would take longer.
SMALL = 2**19


@dataclass(frozen=True)
class Source:
    """A field with a search of neighbours.

    Attributes
    ----------
    field : PhiField
        With finite positions.
    tree : arrays, optional
        Of its points, where it is made already.
    """

    field: PhiField
    tree: tuple[NDArray[np.int64], NDArray[np.uint8]] | None = None

    @cached_property
    def points(self) -> Points:
        """The search of neighbours."""
        return Points(self.field.positions, self.tree, self.field.dims)


def source_bytes(field: PhiField, tree: bool = True) -> int:
    """Bytes of a field, and of the tree of its points, if there is one."""
    return sum(array.nbytes for array in _arrays(field).values()) + TREE * len(field) * tree


def moving_bytes(field: PhiField) -> int:
    """Bytes that are needed besides while it moves to shared memory: its largest array is held twice then."""
    return max(array.nbytes for array in _arrays(field).values())


def _arrays(field: PhiField) -> dict[str, NDArray[Any]]:
    return {"positions": field.positions, "phi": field.phi, **{f"column {k}": v for k, v in field.columns.items()}}


def share_source(executor: Executor, field: PhiField | None, search: bool = True) -> Source | None:
    """Give every rank the field of rank 0; collective.

    A large field is in memory once on each node. Where there is no shared memory, every rank has a copy. A field that
    is shared moves there array by array: those of `field` itself are replaced, so that they are not held twice.

    Parameters
    ----------
    executor : Executor
    field : PhiField or None
        On rank 0; None there if there is none.
    search : bool
        Whether neighbours are searched among its points: rank 0 makes their tree for all ranks then.

    Raises
    ------
    ResourceError
        On all ranks, if one was lost meanwhile.
    """
    if executor.size == 1:
        return None if field is None else Source(field)
    if executor.broadcast(field is None or source_bytes(field) <= SMALL or bool(executor.losses)):
        # the other ranks give nothing
        small: PhiField | None = executor.broadcast(field)
        return None if small is None else Source(small)
    arrays: dict[str, NDArray[Any]] | None = None
    about: tuple[Layout, Triple | None, tuple[float, float, float] | None] | None = None
    if field is not None:
        arrays = {}
        if search:
            arrays["order"], arrays["nodes"] = Points(field.positions).tree
        arrays |= _arrays(field)
        about = field.layout, field.dims, field.spacing
    layout, dims, spacing = executor.broadcast(about)
    copies = _copies(executor, arrays, lambda name, copy: _replace(field, name, copy))
    columns = {name.removeprefix("column "): copy for name, copy in copies.items() if name.startswith("column ")}
    shared = PhiField(copies["positions"], copies["phi"], columns, layout, dims, spacing)
    return Source(shared, (copies["order"], copies["nodes"]) if search else None)


def _replace(field: PhiField | None, name: str, copy: NDArray[Any]) -> None:
    """Let an array of a field be this copy."""
    if field is None:
        return
    if name in ("positions", "phi"):
        setattr(field, name, copy)
    elif name.startswith("column "):
        # the dictionary may be that of another field, too
        field.columns = {**field.columns, name.removeprefix("column "): copy}


def share_arrays(executor: Executor, arrays: Mapping[str, NDArray[Any]] | None) -> dict[str, NDArray[Any]]:
    """Give every rank the arrays of rank 0, by name; collective, as `share_source`.

    Parameters
    ----------
    executor : Executor
    arrays : mapping or None
        On rank 0.

    Raises
    ------
    ResourceError
        On all ranks, if one was lost meanwhile.
    """
    given = None if arrays is None else dict(arrays)
    if executor.size == 1 and given is not None:
        return given
    small = given is not None and sum(array.nbytes for array in given.values()) <= SMALL
    if executor.broadcast(small or bool(executor.losses)):
        found: dict[str, NDArray[Any]] = executor.broadcast(given)
        return found
    return _copies(executor, given)


def _copies(
    executor: Executor,
    arrays: dict[str, NDArray[Any]] | None,
    replace: Callable[[str, NDArray[Any]], None] | None = None,
) -> dict[str, NDArray[Any]]:
    """Copies in the memory of each node, one array after the other; `replace` is called with each.

    They are taken out of `arrays`: none is held twice for longer than it is copied.
    """
    with copying("the field was"):
        node = NodeGroup(executor.communicator, ranks_per_node_asked())
        given = arrays or {}
        kinds = executor.broadcast({name: (array.dtype, array.shape) for name, array in given.items()})
        copies: dict[str, NDArray[Any]] = {}
        for name, kind in kinds.items():
            copies[name] = _copied(executor, node, given.pop(name, None), *kind)
            if replace is not None:
                replace(name, copies[name])
        node.agree(None)
        node.close()
        return copies


def _copied(
    executor: Executor, node: NodeGroup, given: NDArray[Any] | None, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    """An array of rank 0 in memory of this node, sent piece by piece."""
    size = int(np.prod(shape)) * dtype.itemsize
    writes = node.rank == 0
    try:
        memory = node.allocate(max(size, 1))
    except AgreedError:
        memory, writes = np.zeros(max(size, 1), np.uint8), True
    source = None if given is None else np.ascontiguousarray(given).reshape(-1).view(np.uint8)
    for start in range(0, size, PIECE):
        stop = min(start + PIECE, size)
        piece = executor.broadcast(None if source is None else source[start:stop])
        if writes:
            memory[start:stop] = piece
    copy = memory[:size].view(dtype).reshape(shape)
    copy.flags.writeable = False
    return copy
