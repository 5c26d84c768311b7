"""The field that points are computed from, once per node, with a search of neighbours among its points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpidvc.errors import AgreedError
from mpidvc.fields.phifield import PhiField
from mpidvc.kernels.neighbours import Points
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.nodes import NodeGroup, copying, ranks_per_node_asked

__all__ = ["Source", "moving_bytes", "share_source", "source_bytes"]

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
        return Points(self.field.positions, self.tree)


def source_bytes(field: PhiField) -> int:
    """Bytes of a field, and of the tree of its points."""
    return sum(array.nbytes for array in _arrays(field).values()) + TREE * len(field)


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
    with copying("the field was"):
        return _shared(executor, field, search)


def _shared(executor: Executor, field: PhiField | None, search: bool) -> Source:
    node = NodeGroup(executor.communicator, ranks_per_node_asked())
    arrays: dict[str, NDArray[Any]] = {}
    about: dict[str, Any] = {}
    if field is not None:
        if search:
            arrays["order"], arrays["nodes"] = Points(field.positions).tree
        arrays |= _arrays(field)
        about = {"layout": field.layout, "dims": field.dims, "spacing": field.spacing}
        about["arrays"] = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    about = executor.broadcast(about or None)
    copies: dict[str, NDArray[Any]] = {}
    for name, kind in about["arrays"].items():
        copies[name] = _copied(executor, node, arrays.pop(name, None), *kind)
        if field is not None:
            _replace(field, name, copies[name])
    node.agree(None)
    node.close()
    columns = {name.removeprefix("column "): copy for name, copy in copies.items() if name.startswith("column ")}
    shared = PhiField(copies["positions"], copies["phi"], columns, about["layout"], about["dims"], about["spacing"])
    return Source(shared, (copies["order"], copies["nodes"]) if search else None)


def _replace(field: PhiField, name: str, copy: NDArray[Any]) -> None:
    """Let an array of a field be this copy."""
    if name in ("positions", "phi"):
        setattr(field, name, copy)
    elif name.startswith("column "):
        # the dictionary may be that of another field, too
        field.columns = {**field.columns, name.removeprefix("column "): copy}


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
