"""What the kernels take, and what this processor allows: pieces of a registration and of a search, one by one.

Part of benchmarks/kernels.py. The pieces of benchmarks/pieces/ are compiled with the kernels' own sources and flags. A
piece is timed (the least of many calls), and its instructions are counted: the processor stops after each of them.
"""

from __future__ import annotations

import ast
import ctypes
import json
import os
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import compare
import numpy as np
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.kernels import correlation

SOURCES = compare.REPOSITORY / "benchmarks" / "pieces"
PARTS = ("peaks", "registration", "search")
HWS, REACH = compare.HWS, 4
#: Edge of the boxes that pieces are timed in; the first window in them, the spacing and number of windows along an
#: axis: as a chunk of ldic has them. Both boxes are 14 MB of floats, more than the second cache holds.
BOX, FIRST_WINDOW, SPACING, ALONG = 120, 25, 20, 4
#: Compared voxels of a block of reg; edge of a box that is prefiltered. Counting instructions takes ten microseconds
#: for each of them: that is done on fewer planes, and on a small box.
BLOCK, COUNTED_BLOCK = (64, 64, 64), (2, 64, 64)
PREFILTERED, COUNTED_PREFILTER = 100, 32

#: Functions of a piece that are listed.
MOST_FUNCTIONS = 4

PEAKS = ("clock", "ticks", "lanes", "fma", "fma_and_add", "shuffles", "l1", "l1_off", "l2", "l2_off", "l3", "memory")
PEAKS += ("copy_l2", "copy_l3", "copy_memory", "gathers")
STAGES = ("read", "first", "next", "last", "solve")
SEARCH_PIECES = ("prepare", "folds", "blocks", "whole", "direct")


# ---- the operations of a voxel, from the code


@dataclass(frozen=True)
class Work:
    """What a voxel of a piece needs: floating-point operations, floats loaded and stored by instructions, and bytes
    that come from beyond the nearest cache or go there.

    Counted where no group of lanes lies in two voxels, without the lanes that are idle, and without what is done once a
    column of groups, a plane or a window.
    """

    flop: float
    loads: float
    stores: float
    outside: float
    how: str
    memory: float = 0  # bytes that come from memory, in rows too short to be foreseen


#: Interpolation at t: positions along the three axes, whose step from lane to lane is known; then linear: seven times
#: a + t (b - a).
LINEAR = 3 + 7 * 3
#: Cubic: weights of three axes; 16 lines of four taps, 4 planes of four lines, four planes.
CUBIC = 3 + 3 * 12 + 16 * 7 + 16 * 2 + 4 * 2
#: r = f - (value * gain + bias); sums of r, r^2 and f r.
RESIDUAL = 3 + 5
#: sum r G, and its running sums.
MOMENTS = 3 * 2 + 3

PASS, LAST = "3 positions, {}, 8 residual and its sums, 9 moments", "the same without moments"
INTERPOLATED = {"linear": "21 interpolation", "cubic": "36 weights, 152 sums of 64 taps"}
OF_BLOCK = "those of a pass, 3 differences, 1 grey level"

WORK = {
    "pass, linear": Work(LINEAR + RESIDUAL + MOMENTS, 8 + 4, 0, 4 * 5, PASS.format(INTERPOLATED["linear"])),
    "last pass, linear": Work(LINEAR + RESIDUAL, 8 + 1, 0, 4 * 2, LAST),
    "pass, cubic": Work(CUBIC + RESIDUAL + MOMENTS, 64 + 4, 0, 4 * 5, PASS.format(INTERPOLATED["cubic"])),
    "last pass, cubic": Work(CUBIC + RESIDUAL, 64 + 1, 0, 4 * 2, LAST),
    "window, gradients, Hessian": Work(
        *(6 + 1 + 12 + 12 + 3, 7, 4, 4 + 4 * 4),
        "6 gradients, 1 grey level, 12 products, 12 running sums of them, 3 sums of grey levels",
    ),
    "prefilter": Work(2 * 5 + 37, 6 + 25, 5, 2 * 8, "5 recursions along z, 5 along y, 37 along x (25 taps)"),
    "cast": Work(0, 0.5, 1, 2 + 4, "a conversion, which is no FLOP", memory=2),
    "reg, linear": Work(LINEAR + RESIDUAL + MOMENTS + 3 + 1, 8 + 7, 0, 4 * 2, OF_BLOCK),
    "reg, cubic": Work(CUBIC + RESIDUAL + MOMENTS + 3 + 1, 64 + 7, 0, 4 * 2, OF_BLOCK),
}


def search_work(hws: int = HWS, reach: int = REACH) -> dict[str, Work]:
    """The same of a point of a search: in all, not per voxel."""
    n, d = 2 * hws + 1, 2 * reach + 1
    part, blocks = n + d - 1, hws + 1
    products = d**3 * blocks**3
    # of sums and of sums of squares: n + 2 (d - 1) additions a line along y and along z, n - 1 an offset along x
    line = n + 2 * (d - 1)
    folds = 2 * (part**2 * line + d * part * line + d**3 * (n - 1)) + part**3
    # blocks begin at two places along z and y each: sums of four rows and of their squares; pairs along x, and what
    # they leave of the squares
    made = 4 * (part / 2) ** 2 * part * (3 + 7 + 2 + 4)
    return {
        "box sums": Work(
            folds, 0, 0, 0, f"twice: {line} additions a line along y and z, {n - 1} an offset along x; squares"
        ),
        "products of blocks": Work(
            *(2 * products + made, 0, 0, 0),
            f"{d}³ offsets × {blocks}³ products and additions; 16 for each of the blocks at 4 places of {part}³ voxels",
        ),
        "products of all voxels": Work(2 * d**3 * n**3, 0, 0, 0, f"{d}³ offsets × {n}³ products and additions"),
    }


# ---- the instructions of a piece, as they were executed

_LINE = re.compile(r"^\s*([0-9a-f]+):\s+(?:\{evex\} )?([a-z]\w*)\s*(.*?)\s*(?:#.*)?$")
_WIDTH = (("zmm", 16), ("ymm", 8), ("xmm", 4))


@dataclass
class Instructions:
    """Numbers of instructions; `flop` counts all lanes, idle ones too."""

    all: float = 0
    multiply: float = 0  # multiply-adds, multiplications, divisions and roots
    add: float = 0
    load: float = 0  # of vectors, as operands too
    store: float = 0
    move: float = 0  # other ones of vectors: blends, shuffles, comparisons, conversions, integers
    other: float = 0
    flop: float = 0

    def __add__(self, other: Instructions) -> Instructions:
        return Instructions(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def times(self, factor: float) -> Instructions:
        return Instructions(*(factor * value for value in vars(self).values()))


def kind_of(mnemonic: str, operands: str) -> Instructions:
    """One instruction, as objdump writes it in Intel's syntax."""
    vector = mnemonic.startswith("v") and not mnemonic.startswith("vzero")
    if not vector:
        # those of masks belong to vectors, too
        mask = bool(re.match(r"k(mov|or|and|not|xor|shift|unpck|test|ortest|xnor|add)", mnemonic))
        return Instructions(all=1, move=float(mask), other=float(not mask))
    first, _, rest = operands.partition(",")
    one = Instructions(all=1, load=float("[" in rest), store=float("[" in first))
    if mnemonic.startswith("vprefetch"):
        return Instructions(all=1, other=1)
    lanes: float = next((n for name, n in _WIDTH if name in operands), 4)
    single = re.fullmatch(r"v(f?n?m?\w*?)(\d{3})?([ps])([sd])", mnemonic)
    arithmetic = single and re.match(r"(fn?m(add|sub)|fmaddsub|fmsubadd|mul|div|sqrt|add|sub|max|min)", single[1])
    if single and arithmetic:
        lanes = 1 if single[3] == "s" else lanes / (2 if single[4] == "d" else 1)
        name = arithmetic[1]
        fused = name.startswith(("fm", "fnm"))
        if fused or name in ("mul", "div", "sqrt"):
            one.multiply = 1
        else:
            one.add = 1
        one.flop = lanes * (2 if fused else 1)
    elif not (mnemonic.startswith("vmov") and (one.load or one.store)):
        one.move = 1
    return one


def disassembled(library: Path) -> dict[int, tuple[str, Instructions]]:
    """Function and instruction of a library by address."""
    command = ("objdump", "-d", "-C", "-M", "intel", "--no-show-raw-insn", str(library))
    return instructions_in(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def instructions_in(text: str) -> dict[int, tuple[str, Instructions]]:
    """The same from objdump's text."""
    found, function = {}, ""
    for line in text.splitlines():
        if begins := re.match(r"^[0-9a-f]+ <(.*)>:$", line):
            function = short_name(begins[1])
        elif one := _LINE.match(line):
            found[int(one[1], 16)] = function, kind_of(one[2], one[3])
    return found


def short_name(function: str) -> str:
    """A function's name with its first template argument, which are the lanes of many."""
    named = function.replace("(anonymous namespace)::", "").split("(")[0]
    name, _, arguments = named.partition("<")
    first = re.match(r"\w+", arguments)
    return name.split(" ")[-1] + (f"<{first[0]}>" if first else "")


class Counts(ctypes.Structure):
    """`mpidvc_counts`."""

    _fields_ = (
        ("start", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("at", ctypes.c_void_p),
        ("elsewhere", ctypes.c_uint64),
    )


# ---- the pieces


def flags_of_kernels(setup: Path = compare.REPOSITORY / "setup.py") -> tuple[list[str], dict[str, list[str]]]:
    """The flags of the kernels, and those of every instruction set: from the build itself."""
    values: dict[str, Any] = {}
    for node in ast.parse(setup.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("OPTIMISE", "INSTRUCTION_SETS"):
                values[name] = ast.literal_eval(node.value)
    return [flag for flag in values["OPTIMISE"] if "visibility" not in flag], values["INSTRUCTION_SETS"]


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def compiled(part: str, work: Path) -> Path:
    """The object of a source, made with the kernels' flags for this processor unless it is there and not older."""
    optimise, sets = flags_of_kernels()
    name = correlation.instruction_sets()[-1]
    source, made, kernels = SOURCES / f"{part}.cpp", work / f"{part}.o", compare.REPOSITORY / "cython_ext"
    read = [source, SOURCES / "measured.hpp", *kernels.rglob("*.hpp"), *kernels.rglob("*.cpp")]
    if not made.exists() or made.stat().st_mtime < max(path.stat().st_mtime for path in read):
        # as the build has them: those of Python's own extensions come first, and change what is vectorised
        python = (sysconfig.get_config_var("CFLAGS") or "").split()
        flags = (*python, *optimise, *sets[name], f"-DMPIDVC_ISA={name}", "-I", str(kernels), "-fPIC", "-w")
        subprocess.run(("g++", *flags, "-c", str(source), "-o", str(made)), check=True)
    return made


class Pieces:
    """The compiled pieces."""

    def __init__(self, work: Path) -> None:
        self.library = work / "pieces.so"
        made = [compiled(part, work) for part in PARTS]
        subprocess.run(("g++", "-shared", "-o", str(self.library), *map(str, made)), check=True)
        self.calls = ctypes.CDLL(str(self.library))
        for name in ("mpidvc_prefilter_box", "mpidvc_convert_boxes", "mpidvc_block_pass"):
            getattr(self.calls, name).restype = ctypes.c_double
        self._kinds = disassembled(self.library)
        maps = Path("/proc/self/maps").read_text().splitlines()
        self._start = int(next(line for line in maps if line.endswith(str(self.library))).split("-")[0], 16)
        self._size = max(self._kinds) + 1

    def peaks(self) -> dict[str, float]:
        out = np.zeros(len(PEAKS))
        self.calls.mpidvc_peaks(pointer(out))
        return dict(zip(PEAKS, out.tolist(), strict=True))

    def counted(self, call: Callable[[Any], Any], voxels: float = 1) -> tuple[Instructions, dict[str, float]]:
        """The instructions of a call, which gets the place for them, per voxel; shares of its functions."""
        at = np.zeros(self._size, np.uint32)
        counts = Counts(self._start, self._size, at.ctypes.data, 0)
        call(ctypes.byref(counts))
        total = Instructions(all=float(counts.elsewhere), other=float(counts.elsewhere))
        shares: dict[str, float] = {}
        for address in np.flatnonzero(at):
            function, one = self._kinds.get(int(address), ("", Instructions(all=1, other=1)))
            total += one.times(float(at[address]))
            shares[function] = shares.get(function, 0.0) + float(at[address])
        most = sorted(shares, key=lambda name: -shares[name])[:MOST_FUNCTIONS]
        return total.times(1 / float(voxels)), {name: shares[name] / total.all for name in most}


@dataclass
class Piece:
    """A piece as measured: nanoseconds per voxel where everything is near, and one window after the other."""

    name: str
    near: float
    in_turn: float | None
    executed: Instructions
    functions: dict[str, float]
    unit: str = "voxel"


@dataclass
class Measured:
    """All that the tables need."""

    peaks: list[dict[str, float]] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    microseconds: dict[str, float] = field(default_factory=dict)
    #: Share of full groups that lie in two voxels along some axis, were they anywhere.
    split: float = 0

    def best(self, peak: str) -> float:
        """The best rate of the measurements, before and after all others."""
        return max(one[peak] for one in self.peaks)


def measure_pieces(work: Path, files: dict[str, Path], edge: int, quick: bool) -> Measured:
    """Peaks and pieces, of a pair of this edge."""
    pieces, measured = Pieces(work), Measured()
    measured.peaks.append(pieces.peaks())
    repeats = 20 if quick else 100
    data = given(files, edge)
    measure_registration(pieces, measured, data, repeats)
    measure_search(pieces, measured, data, max(3, repeats // 10))
    measured.peaks.append(pieces.peaks())
    return measured


def measure_runs(work: Path, files: dict[str, Path], guess: Path, quick: bool) -> dict[str, dict[str, Any]]:
    """Whole runs whose calls of kernels are timed, by name."""
    return {name: least_run(work, files, guess, arguments, 1 if quick else 3) for name, arguments in RUNS.items()}


@dataclass
class Given:
    """Part of the pair of compare.py as floats; image 1 as it is; the motion at the middle of the part."""

    box1: np.ndarray
    box2: np.ndarray
    image: np.ndarray
    F: np.ndarray
    t: np.ndarray


def given(files: dict[str, Path], edge: int) -> Given:
    """The data of the pieces, from a pair of this edge."""
    low = (edge - BOX) // 2
    images, boxes = [tifffile.imread(files[name]) for name in ("im1-16", "im2-16")], []
    for image in images:
        box = correlation.empty_box((BOX,) * 3)
        box[...] = image[(slice(low, low + BOX),) * 3]
        boxes.append(box)
    middle = np.full(3, low + (BOX - 1) / 2)
    phi = AnalyticPair((edge,) * 3, seed=300).phi(np.vstack([middle, middle + np.eye(3)]))
    F = np.ascontiguousarray((phi[1:] - phi[0]).T)
    return Given(boxes[0], boxes[1], np.ascontiguousarray(images[0]), F, np.ascontiguousarray(phi[0] - middle))


def measure_registration(pieces: Pieces, measured: Measured, data: Given, repeats: int) -> None:
    """Windows one after the other, blocks, and boxes."""
    box1, box2, F, t = data.box1, data.box2.copy(), data.F, data.t
    shape = np.array(box1.shape, np.int64)
    axis = FIRST_WINDOW + SPACING * np.arange(ALONG)
    centres = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3).astype(np.int64)
    middle = np.full((1, 3), BOX // 2, np.int64)
    # where a group begins between two voxels differs from window to window
    each = np.ascontiguousarray(t + (centres - (BOX - 1) / 2) @ (F - np.eye(3)).T)
    voxels = (2 * HWS - 1) ** 3
    lanes = min(measured.best("lanes"), voxels)
    measured.split = 1 - float(np.prod(1 - np.minimum(1, (lanes - 1) * np.abs(F[:, 2] - [0, 0, 1]))))
    for order, name in ((1, "linear"), (3, "cubic")):
        if order == 3:
            correlation.prefilter(box2, (0, 0, 0), box2.shape)

        def stages(count: int, repeats: int, counts: Any = None, stage: int = 0, order: int = order) -> np.ndarray:
            ns = np.zeros(len(STAGES))
            where, moved = (centres, each) if count > 1 else (middle, t)
            failed = pieces.calls.mpidvc_stages(
                *(pointer(box1), pointer(box2), pointer(shape), order, ctypes.c_int64(HWS), ctypes.c_int64(count)),
                *(pointer(where), pointer(F), pointer(moved), repeats, ctypes.c_double(measured.best("ticks"))),
                *(pointer(ns), counts, stage),
            )
            assert failed == 0
            return ns

        near, in_turn = stages(1, 10 * repeats), stages(len(centres), repeats)
        named = [(f"pass, {name}", "next", "first"), (f"last pass, {name}", "last", "last")]
        if order == 1:
            named.append(("window, gradients, Hessian", "read", "read"))
        for label, stage, in_row in named:
            k = STAGES.index(stage)
            counted = pieces.counted(lambda counts, k=k, stages=stages: stages(1, 1, counts, k), voxels)
            turn = float(in_turn[STAGES.index(in_row)] / voxels)
            measured.pieces.append(Piece(label, float(near[k] / voxels), turn, *counted))
        measured.microseconds |= {f"{name} {stage}": float(v) / 1e3 for stage, v in zip(STAGES, in_turn, strict=True)}
        measure_block(pieces, measured, data, box2, order, max(3, repeats // 4))
    measure_boxes(pieces, measured, data, max(3, repeats // 4))


def measure_block(pieces: Pieces, measured: Measured, data: Given, box2: np.ndarray, order: int, repeats: int) -> None:
    """A pass of reg over a block."""
    shape = np.array(box2.shape, np.int64)

    def block(size: tuple[int, int, int], repeats: int, counts: Any = None) -> float:
        n = np.array(size, np.int64)
        low = (shape - n) // 2
        where = pointer(shape), order, pointer(low), pointer(n), pointer(data.F), pointer(data.t)
        return float(pieces.calls.mpidvc_block_pass(pointer(data.box1), pointer(box2), *where, repeats, counts))

    counted = pieces.counted(lambda counts: block(COUNTED_BLOCK, 1, counts), np.prod(COUNTED_BLOCK))
    name = "linear" if order == 1 else "cubic"
    measured.pieces.append(Piece(f"reg, {name}", block(BLOCK, repeats) / float(np.prod(BLOCK)), None, *counted))


def measure_boxes(pieces: Pieces, measured: Measured, data: Given, repeats: int) -> None:
    """The prefilter of a box, and casts out of the volume."""
    whole = data.image

    def prefilter(edge: int, repeats: int, counts: Any = None) -> float:
        raw = np.ascontiguousarray(data.box2[:edge, :edge, :edge])
        shape, box = np.array(raw.shape, np.int64), correlation.empty_box(raw.shape)
        arguments = pointer(raw), pointer(box), pointer(shape), ctypes.c_int64(0), repeats, counts
        return float(pieces.calls.mpidvc_prefilter_box(*arguments)) / edge**3

    counted = pieces.counted(lambda counts: prefilter(COUNTED_PREFILTER, 1, counts), COUNTED_PREFILTER**3)
    measured.pieces.append(Piece("prefilter", prefilter(PREFILTERED, repeats), None, *counted))
    box = correlation.empty_box((40, 40, 40))
    pitch = np.array([whole.shape[1] * whole.shape[2], whole.shape[2], 1], np.int64)
    size = np.array([40, 40, 40], np.int64)
    first = np.arange(0, whole.shape[0] - 40, 40, dtype=np.int64)
    places = np.stack(np.meshgrid(first, first, first, indexing="ij"), -1).reshape(-1, 3) @ pitch

    def convert(where: np.ndarray, repeats: int, counts: Any = None) -> float:
        arguments = pointer(whole), pointer(pitch), pointer(size), ctypes.c_int64(len(where)), pointer(where)
        return float(pieces.calls.mpidvc_convert_boxes(*arguments, pointer(box), repeats, counts))

    voxels = float(size.prod())
    counted = pieces.counted(lambda counts: convert(places[:1], 1, counts), voxels)
    near, far = convert(places[:1], 10 * repeats), convert(places, max(3, repeats // 4))
    measured.pieces.append(Piece("cast", near / voxels, far / voxels, *counted))


def measure_search(pieces: Pieces, measured: Measured, data: Given, repeats: int) -> None:
    box1, box2 = data.box1, data.box2
    shape = np.array(box1.shape, np.int64)
    axis = 30 + SPACING * np.arange(3)
    centres = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3).astype(np.int64)

    def search(repeats: int, counts: Any = None, which: int = 0) -> tuple[np.ndarray, np.ndarray]:
        ns, numbers = np.zeros(len(SEARCH_PIECES)), np.zeros(2)
        failed = pieces.calls.mpidvc_search_pieces(
            *(pointer(box1), pointer(box2), pointer(shape), ctypes.c_int64(HWS), ctypes.c_int64(REACH)),
            *(ctypes.c_int64(len(centres)), pointer(centres), repeats, pointer(ns), pointer(numbers), counts, which),
        )
        assert failed == 0
        return ns, numbers

    ns, numbers = search(repeats)
    names = {"folds": "box sums", "blocks": "products of blocks", "direct": "products of all voxels", "whole": "search"}
    for piece, name in names.items():
        k = SEARCH_PIECES.index(piece)
        # of the products of all voxels one plane of offsets is counted
        share = 1 / (2 * REACH + 1) if piece == "direct" else 1
        counted = pieces.counted(lambda counts, k=k: search(1, counts, k), share)
        measured.pieces.append(Piece(name, float(ns[k]), None, *counted, "point"))
    measured.microseconds |= {f"search {name}": float(v) / 1e3 for name, v in zip(SEARCH_PIECES, ns, strict=True)}
    measured.microseconds |= {"search evaluated": float(numbers[0]), "search summed": float(numbers[1])}


# ---- whole runs, whose calls of kernels are timed

WINDOW = ("-hws", str(HWS), "-np", "1")
RUNS = {
    "ldic `-o 1`": ("ldic", "-o", "1", "-ns", "20", *WINDOW),
    "ldic `-o 3`": ("ldic", "-o", "3", "-ns", "20", *WINDOW),
    "ldic `-o 1 -ns 8`": ("ldic", "-o", "1", "-ns", "8", *WINDOW),
    "search ±4": ("pixelSearch", "-ns", "20", *WINDOW, "-sr", *(f"-{REACH}", str(REACH)) * 3),
    "reg `-o 1`": ("reg", "-o", "1"),
}
#: Functions of the kernels that are timed, and what a call handles: the argument whose size that is.
TIMED = {
    "correlation": {"to_float": 1, "prefilter": 0, "correlate_points": 10, "block_sums": 7, "bin_mean": 0},
    "pixel_search": {"search_points": 9},
}


def spied(path: str, arguments: list[str]) -> int:
    """Run a command in this process; CPU seconds, calls and sizes of the kernels' functions go into a file."""
    import importlib

    from mpidvc.main import main

    seen: dict[str, dict[str, float]] = {}

    def watched(name: str, function: Callable[..., Any], argument: int) -> Callable[..., Any]:
        seen[name] = {"seconds": 0.0, "calls": 0, "size": 0}

        def call(*args: Any, **kwargs: Any) -> Any:
            begun = time.thread_time()
            result = function(*args, **kwargs)
            about = args[argument]
            size = about.shape[0] if name in ("correlate_points", "search_points") else np.size(about)
            if name == "block_sums":
                size = int(np.prod(about))
            seen[name]["seconds"] += time.thread_time() - begun
            seen[name]["calls"] += 1
            seen[name]["size"] += size
            return result

        return call

    for module, functions in TIMED.items():
        kernels = importlib.import_module(f"mpidvc.kernels.{module}")
        for name, argument in functions.items():
            setattr(kernels, name, watched(name, getattr(kernels, name), argument))
    status = main(arguments)
    Path(path).write_text(json.dumps(seen))
    return int(status or 0)


def least_run(
    work: Path, files: dict[str, Path], guess: Path, arguments: tuple[str, ...], turns: int
) -> dict[str, Any]:
    """The run with the least CPU time of its points out of so many."""
    task, *rest = arguments
    program = "import sys, limits; sys.exit(limits.spied(sys.argv[1], sys.argv[2:]))"
    out, seen = work / "out", work / "seen.json"
    command = [sys.executable, "-c", program, str(seen), task, str(files["im1-16"]), str(files["im2-16"]), *rest]
    command += ["-od", str(out), "-pre", "limits", *(("-pf", str(guess)) if task == "ldic" else ())]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(compare.REPOSITORY / "benchmarks"), str(compare.REPOSITORY)])
    found: dict[str, Any] = {}
    try:
        for _ in range(turns):
            for old in out.glob("*"):
                old.unlink()
            timings = compare.measure(command, work, memory=False).timings
            if not found or timings["points_cpu"] < found["points_cpu"]:
                found = {"points_cpu": timings["points_cpu"], "points": timings["points"]}
                found["kernels"] = json.loads(seen.read_text())
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return found
