"""What a rank of `test_source` does: prints a line for each field that it gets."""

from __future__ import annotations

import hashlib
import os

import numpy as np

from mpidvc.arrays import Array, Ints
from mpidvc.fields.phifield import PhiField
from mpidvc.runtime.comm import connect, find_launcher
from mpidvc.runtime.executor import make_executor
from mpidvc.tasks import source

__all__ = ["CENTRES", "LARGE", "LITTLE", "PIECE", "digest", "field_of"]

LITTLE, LARGE, PIECE = 50, 4096, 100_000
CENTRES: Array = np.random.default_rng(3).uniform(0, 17, (20, 3))


def field_of(n: int) -> PhiField:
    """Scattered points, or a grid if there are 16³."""
    random = np.random.default_rng(n)
    positions = np.stack(np.unravel_index(np.arange(n), (16, 16, 16)), axis=1).astype(float)
    grid = n == 16**3
    if not grid:
        positions += random.uniform(0, 0.5, (n, 3))
    phi = np.tile(np.eye(4), (n, 1, 1))
    phi[:, :3] += random.normal(size=(n, 3, 4))
    columns = {"error": random.normal(size=n), "returnStatus": random.integers(-3, 3, n).astype(np.int8)}
    if grid:
        return PhiField(positions, phi, columns, "grid", (16, 16, 16), (1.0, 1.0, 1.0))
    return PhiField(positions, phi, columns)


def digest(field: PhiField, near: Ints) -> str:
    """Of all bytes of a field, and of neighbours that were found in it."""
    made = hashlib.sha256(repr((field.layout, field.dims, field.spacing)).encode())
    for array in (field.positions, field.phi, *(field.columns[name] for name in sorted(field.columns)), near):
        made.update(f"{array.dtype} {array.shape}".encode())
        made.update(np.ascontiguousarray(array).tobytes())
    return made.hexdigest()


if __name__ == "__main__":
    source.PIECE = PIECE
    executor = make_executor(connect(find_launcher()))
    for name, field in (("none", None), ("little", field_of(LITTLE)), ("large", field_of(LARGE))):
        got = source.share_source(executor, field if executor.rank == 0 else None)
        told = "None"
        if got is not None:
            told = f"{digest(got.field, got.points.nearest(CENTRES, 4))} {not got.field.phi.flags.writeable}"
        os.write(1, f"{executor.rank} {name}: {told}\n".encode())
