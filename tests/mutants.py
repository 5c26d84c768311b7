"""Damaged files: seeded mutants of good ones, and a trial of a reader on each, which nothing may bring down.

`mutants` damages bytes anywhere, and fields: of headers (`tiff_fields`, `hdf5_fields`) or of text (`text_fields`).
`trials` runs a function on files in another process, with bounds on time and memory, and says how each one ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

#: How many mutants of each kind are tried.
COUNT = 200 if os.environ.get("MPIDVC_LONG") == "1" else 20

#: Seconds that a trial may take, and bytes of address space that its process may add to what it starts with.
SECONDS, MEMORY = 60.0, 2**30


class Field(NamedTuple):
    """Place of a number, or of a piece of text, in a file."""

    name: str
    offset: int
    size: int
    #: Byte order of a number; "" for text.
    order: str


class Mutant(NamedTuple):
    """Damaged content, and what was done to it."""

    damage: str
    content: bytes


def mutants(content: bytes, count: int, seed: int, fields: Sequence[Field] = ()) -> Iterator[Mutant]:
    """Mutants of a file, the same for the same seed; every other one has another field, if there are fields.

    Parameters
    ----------
    content : bytes
        The file.
    count : int
    seed : int
    fields : sequence of Field
        Fields to change; without any, bytes alone are damaged.
    """
    damages: list[Callable[[bytes, np.random.Generator], Mutant]] = [_flip, _truncate, _insert, _overwrite, _remove]
    for number in range(count):
        random = np.random.default_rng([seed, number])
        mutant = Mutant("", content)
        while mutant.content == content:
            if fields and number % 2 == 0:
                mutant = _change(content, fields, random)
            else:
                mutant = damages[number // (2 if fields else 1) % len(damages)](content, random)
        yield mutant


def _flip(content: bytes, random: np.random.Generator) -> Mutant:
    changed = bytearray(content)
    bits = random.integers(0, 8 * len(content), random.integers(1, 9)).tolist()
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return Mutant(f"bits {bits} flipped", bytes(changed))


def _truncate(content: bytes, random: np.random.Generator) -> Mutant:
    kept = int(random.integers(0, len(content)))
    return Mutant(f"cut after byte {kept}", content[:kept])


def _insert(content: bytes, random: np.random.Generator) -> Mutant:
    place, more = int(random.integers(0, len(content))), random.bytes(int(random.integers(1, 65)))
    return Mutant(f"{len(more)} bytes inserted at {place}", content[:place] + more + content[place:])


def _overwrite(content: bytes, random: np.random.Generator) -> Mutant:
    place, size = int(random.integers(0, len(content))), int(random.integers(1, 513))
    size = min(size, len(content) - place)
    more = [bytes(size), b"\xff" * size, random.bytes(size)][int(random.integers(3))]
    return Mutant(f"{size} bytes at {place} are {more[:4].hex()}…", content[:place] + more + content[place + size :])


def _remove(content: bytes, random: np.random.Generator) -> Mutant:
    place, size = int(random.integers(0, len(content))), int(random.integers(1, 65))
    return Mutant(f"{size} bytes removed at {place}", content[:place] + content[place + size :])


def _change(content: bytes, fields: Sequence[Field], random: np.random.Generator) -> Mutant:
    field = fields[int(random.integers(len(fields)))]
    end = field.offset + field.size
    before = content[field.offset : end]
    after = _other_number(before, field, random) if field.order else _other_text(random)
    return Mutant(f"{field.name} {before!r} → {after!r}", content[: field.offset] + after + content[end:])


def _other_number(before: bytes, field: Field, random: np.random.Generator) -> bytes:
    top = 1 << 8 * field.size
    value = int.from_bytes(before, "little" if field.order == "<" else "big")
    others = [0, 1, 2, 3, 7, 255, top - 1, top - 2, top // 2, top // 2 - 1, value + 1, value - 1, 2 * value, value // 2]
    others += [value ^ 1 << int(random.integers(8 * field.size)), int.from_bytes(random.bytes(field.size), "little")]
    different = [other % top for other in others if other % top != value]
    other = different[int(random.integers(len(different)))]
    return other.to_bytes(field.size, "little" if field.order == "<" else "big")


def _other_text(random: np.random.Generator) -> bytes:
    others = ["nan", "inf", "-inf", "1e999", "-1", "0", "", "null", "true", "{}", "[]", '"x"', "1_0", "1,5", "0x10"]
    others += ["1e30", "99999999999999999999", "-0.0", "٣", "\t", "\n", "#", "\0", "é"]
    return others[int(random.integers(len(others)))].encode()


# Fields


def text_fields(content: bytes) -> list[Field]:
    """Numbers, words and strings of a text: a table, or JSON."""
    return [
        Field(f"text at {found.start()}", found.start(), len(found[0]), "")
        for found in re.finditer(rb'"[^"\n]*"|[\w.+-]+', content)
    ]


def tiff_fields(content: bytes) -> list[Field]:
    """Header, and tag, type, count and value of every entry of all directories of a TIFF or BigTIFF file."""
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", content, 2)[0] == 43
    long, wide, counted = (8, 20, 8) if big else (4, 12, 2)
    unpack = {8: "Q", 4: "I", 2: "H"}
    fields = [Field("version", 2, 2, order), Field("first directory", 8 if big else 4, long, order)]
    (place,) = struct.unpack_from(order + unpack[long], content, fields[1].offset)
    while place:
        fields.append(Field("number of entries", place, counted, order))
        (n,) = struct.unpack_from(order + unpack[counted], content, place)
        for entry in range(place + counted, place + counted + n * wide, wide):
            (tag,) = struct.unpack_from(f"{order}H", content, entry)
            fields += [
                Field(f"tag {tag}", entry, 2, order),
                Field(f"type of tag {tag}", entry + 2, 2, order),
                Field(f"count of tag {tag}", entry + 4, long, order),
                Field(f"value of tag {tag}", entry + 4 + long, long, order),
                Field(f"short value of tag {tag}", entry + 4 + long, 2, order),
            ]
        place = place + counted + n * wide
        fields.append(Field("next directory", place, long, order))
        (place,) = struct.unpack_from(order + unpack[long], content, place)
    return fields


#: Signatures of the structures of an HDF5 file, and how many bytes after them are header.
HDF5_STRUCTURES = {b"TREE": 96, b"HEAP": 32, b"SNOD": 88, b"GCOL": 32, b"\x89HDF\r\n\x1a\n": 96}


def hdf5_fields(path: Path) -> list[Field]:
    """Superblock, trees, heaps, and messages of the object headers (version 1) of an HDF5 file."""
    content = path.read_bytes()
    fields = []
    for signature, size in HDF5_STRUCTURES.items():
        for found in re.finditer(re.escape(signature), content):
            start, end = found.end(), min(found.start() + size, len(content) - 8)
            fields += [Field(f"{signature!r} + {at - start}", at, 8, "<") for at in range(start, end, 8)]
            fields += [Field(f"{signature!r} + {at - start}", at, 1, "<") for at in range(start, start + 8)]
    addresses: set[int] = set()
    with h5py.File(path, "r") as file:
        addresses.add(h5py.h5o.get_info(file.id).addr)
        file.visititems(lambda _, item: addresses.add(h5py.h5o.get_info(item.id).addr))
    for address in sorted(addresses):
        fields += _object_header(content, address)
    return fields


def _object_header(content: bytes, address: int) -> Iterator[Field]:
    version, messages, size = content[address], *struct.unpack_from("<H4xI", content, address + 2)
    if version != 1:
        return
    yield from (Field(f"object {address} + {at}", address + at, 1 if at == 0 else 4, "<") for at in (0, 2, 4, 8))
    pieces = [(address + 16, size)]
    while pieces and messages:
        place, size = pieces.pop(0)
        end = place + size
        while place + 8 <= end and messages:
            kind, length = struct.unpack_from("<HH", content, place)
            name = f"object {address} message {kind}"
            yield Field(f"{name}: kind", place, 2, "<")
            yield Field(f"{name}: size", place + 2, 2, "<")
            yield Field(f"{name}: flags", place + 4, 1, "<")
            for width in (1, 2, 8):
                for at in range(place + 8, place + 8 + length - width + 1, min(width, 2)):
                    yield Field(f"{name} + {at - place - 8}", at, width, "<")
            if kind == 16:
                pieces.append(struct.unpack_from("<QQ", content, place + 8))
            place, messages = place + 8 + length, messages - 1


# Trials

#: Runs in the other process: reads paths, one a line, and says how the function ended on each.
WORKER = """\
import importlib, json, os, resource, sys, traceback
module, _, name = sys.argv[1].partition(":")
function = getattr(importlib.import_module(module), name)
from mpidvc.errors import UserError
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * os.sysconf("SC_PAGE_SIZE") + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
print("ready", file=out, flush=True)
for line in sys.stdin:
    try:
        kind, text = "read", str(function(json.loads(line)))
    except UserError as error:
        kind, text = "refused", str(error)
    except BaseException:
        kind, text = "failed", traceback.format_exc()
    print(json.dumps([kind, text]), file=out, flush=True)
"""


class Outcome(NamedTuple):
    """How a trial ended.

    Attributes
    ----------
    kind : {"read", "refused", "failed", "killed", "late"}
        The function returned; raised a `UserError`; raised something else; its process died; it did not end in time.
    text : str
        What it returned, the message, or the traceback.
    """

    kind: str
    text: str
    seconds: float


def trials(
    function: str, paths: Sequence[str | Path], seconds: float = SECONDS, memory: int = MEMORY
) -> Iterator[Outcome]:
    """Run a function on one path after the other in another process, which is started again where it has died.

    Parameters
    ----------
    function : str
        ``module:name`` of a function of a path. What it writes to the terminal is not looked at.
    paths : sequence of str or Path
    seconds : float
        Time for each of them; most are much faster.
    memory : int
        Bytes of address space for all of them.
    """
    worker: subprocess.Popen[str] | None = None
    try:
        for path in paths:
            if worker is None:
                worker = subprocess.Popen(
                    [sys.executable, "-c", WORKER, function, str(memory)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    cwd=Path(__file__).parents[1],
                    env={**os.environ, "PYTHONWARNINGS": "error"},
                    text=True,
                )
                assert worker.stdout is not None
                assert worker.stdout.readline() == "ready\n"
            assert worker.stdin is not None
            assert worker.stdout is not None
            began = time.monotonic()
            worker.stdin.write(json.dumps(str(path)) + "\n")
            worker.stdin.flush()
            in_time = bool(select.select([worker.stdout], [], [], seconds)[0])
            line = worker.stdout.readline() if in_time else ""
            took = time.monotonic() - began
            if line:
                yield Outcome(*json.loads(line), took)
                continue
            if not in_time:
                worker.kill()
            status = worker.wait()
            _close(worker)
            worker = None
            yield Outcome("killed", f"exit status {status}", took) if in_time else Outcome("late", "", took)
    finally:
        if worker is not None:
            worker.kill()
            worker.wait()
            _close(worker)


def _close(worker: subprocess.Popen[str]) -> None:
    for stream in (worker.stdin, worker.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
