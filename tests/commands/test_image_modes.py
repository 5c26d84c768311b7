"""However images are stored and read, by however many ranks on however many nodes: the results have the same bytes."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.main import main
from mpidvc.runtime.launch import Mpiexec, available_cpus
from tests import peak_memory
from tests.conftest import Job
from tests.waiting import until

#: Rows of `STORED` and `{1}`, `{2}`, `{m}`, `{l}`: images, mask and labels as they are stored.
CASES = {
    "ldic": "ldic {1} {2} -ns 9 -hws 5 -mf1 {m}",
    "ldic-cubic": "ldic {1} {2} -ns 12 -hws 5 -o 3 -mf1 {m} -mc 0.3",
    "search": "pixelSearch {1} {2} -ns 10 -hws 5 -mf1 {m} -mf2 {m}",
    "search-labels": "pixelSearch {1} {2} -lab1 {l} -sr -1 1 -1 1 -1 1",
    "propagate": "pixelSearchPropagate {1} {2} -ns 12 -hws 5 -sp 22 25 30 0 0 0 -cct 0.3 -mf1 {m}",
    "ddic": "ddic {1} {l} {2}",
    "reg": "reg {1} {2} -mf1 {m} -bb 2",
}
STORED = ("plain", "big-endian", "zlib", "tiles", "slices", "zipped-slices", "hdf5", "gzip")
MODES = ("auto", "shared", "mapped", "boxes")


def _store(folder: Path, name: str, image: np.ndarray) -> None:
    def tiff(kind: str, **options: object) -> None:
        tifffile.imwrite(folder / kind / f"{name}.tif", image, photometric="minisblack", **options)

    tiff("plain")
    tiff("big-endian", byteorder=">")
    tiff("zlib", compression="zlib", rowsperstrip=7)
    tiff("tiles", compression="zlib", tile=(16, 32))
    for kind, compression in (("slices", None), ("zipped-slices", "zlib")):
        (folder / kind / f"{name}").mkdir()
        for k, plane in enumerate(image):
            tifffile.imwrite(folder / kind / name / f"{k:03d}.tif", plane, compression=compression)
    for kind, options in (("hdf5", {}), ("gzip", {"chunks": (8, 16, 10), "compression": "gzip"})):
        with h5py.File(folder / kind / f"{name}.h5", "w") as file:
            file.create_dataset("volume", data=image, **options)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for kind in STORED:
        (folder / kind).mkdir()
    pair = AnalyticPair((44, 52, 61), seed=3, amplitude=0.1, wavelength=60.0, translation=(0.6, -0.4, 0.7))
    z, y, x = np.indices(pair.shape)
    _store(folder, "one", pair.image1())
    _store(folder, "two", pair.image2())
    _store(folder, "mask", ((y - 26) ** 2 + (z - 20) ** 2 < 500).astype(np.uint8))
    blocks = (1 + z // 11 + 4 * (y // 13) + 16 * (x // 13)) * ((y % 13 > 2) & (x % 13 > 3))
    _store(folder, "labels", blocks.astype(np.uint16))
    return folder


def _words(case: str, images: Path, stored: str, out: Path, *more: str) -> list[str]:
    suffix = {"slices": "", "zipped-slices": "", "hdf5": ".h5::/volume", "gzip": ".h5::/volume"}.get(stored, ".tif")
    names = {
        key: f"{images}/{stored}/{name}{suffix}"
        for key, name in (("1", "one"), ("2", "two"), ("m", "mask"), ("l", "labels"))
    }
    line = re.sub(r"\{(.)\}", lambda found: names[found[1]], CASES[case])
    return [*line.split(), "-od", str(out), "-pre", "x", *more]


def _bytes_of(folder: Path) -> bytes:
    (tsv,) = folder.glob("x-*.tsv")
    return tsv.read_bytes()


def _serial(words: list[str]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main([*words, "-np", "1"]) in (0, 1)
    return said.getvalue()


@pytest.fixture(scope="module")
def expected(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every case from plain images, mapped, by one process."""
    found = {}
    for case in CASES:
        out = tmp_path_factory.mktemp(case)
        _serial(_words(case, images, "plain", out, "-lazy"))
        found[case] = _bytes_of(out)
        assert found[case].count(b"\n") > (1 if case == "reg" else 50)
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stored", STORED)
def test_one_process(images: Path, expected: dict[str, bytes], tmp_path: Path, stored: str, mode: str) -> None:
    encoded = stored in ("zlib", "tiles", "zipped-slices", "gzip")
    # these read as another mode does, and say so
    for case in ["ldic"] if mode == "auto" or (mode == "mapped" and encoded) else CASES:
        # dear, and read as labels are searched
        if case == "ddic" and stored not in ("tiles", "big-endian"):
            continue
        said = _serial(_words(case, images, stored, tmp_path / case, "--image-mode", mode))
        assert _bytes_of(tmp_path / case) == expected[case]
        (line,) = re.findall("^Memory: .*$", said, re.MULTILINE)
        way = mode if mode != "auto" else "shared" if encoded else "mapped"
        assert {"shared": "copied once", "mapped": "mapped", "boxes": "read in boxes"}[way] in line
        assert ("cannot be mapped" in said) == (mode == "mapped" and encoded)


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize(
    ("case", "stored", "mode"),
    [
        ("ldic", "plain", "shared"),
        ("ldic-cubic", "tiles", "auto"),
        ("ldic-cubic", "gzip", "shared"),
        ("search", "big-endian", "shared"),
        ("propagate", "zlib", "boxes"),
        ("reg", "zipped-slices", "shared"),
        ("reg", "gzip", "boxes"),
        ("ddic", "tiles", "shared"),
    ],
)
def test_two_ranks_on_one_node_and_on_two(
    mpiexec: Job,
    images: Path,
    expected: dict[str, bytes],
    tmp_path: Path,
    nodes: int,
    case: str,
    stored: str,
    mode: str,
) -> None:
    words = _words(case, images, stored, tmp_path, "--image-mode", mode)
    done = mpiexec(2, "-m", "mpidvc", *words, MPIDVC_RANKS_PER_NODE=str(2 // nodes))
    assert done.returncode in (0, 1), done.stderr
    assert _bytes_of(tmp_path) == expected[case]
    assert ("2 processes of" if nodes == 1 else "one process of") in done.stdout


def test_more_ranks_than_pieces(mpiexec: Job, images: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    """Images of these sizes are one piece: the other ranks of the node have nothing to copy."""
    done = mpiexec(3, "-m", "mpidvc", *_words("ldic", images, "zlib", tmp_path, "--image-mode", "shared"))
    assert done.returncode == 0, done.stderr
    assert _bytes_of(tmp_path) == expected["ldic"]


@pytest.mark.parametrize("per_node", ["1", "2"])
def test_an_image_that_cannot_be_copied_ends_all_ranks(
    mpiexec: Job, images: Path, tmp_path: Path, per_node: str
) -> None:
    """Damaged in its last plane, which only one rank reads."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.tif").write_bytes((images / "zlib" / f"{name}.tif").read_bytes())
    path = tmp_path / "two.tif"
    with tifffile.TiffFile(path) as tif:
        last = tif.pages[-1].dataoffsets[-1]
    content = bytearray(path.read_bytes())
    content[last : last + 20] = bytes(20)
    path.write_bytes(content)
    words = ["ldic", str(tmp_path / "one.tif"), str(path), "-ns", "9", "-hws", "5", "--criterion", "ssd"]
    done = mpiexec(2, "-m", "mpidvc", *words, "--image-mode", "shared", MPIDVC_RANKS_PER_NODE=per_node)
    assert done.returncode == 2
    assert f"mpidvc ldic: error: image {path}: cannot be decoded" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.tsv"))


def test_what_does_not_fit_is_refused_with_advice(command: Job, images: Path, tmp_path: Path) -> None:
    words = _words("ldic", images, "plain", tmp_path)
    done = command(*words, "--memory", "20M", "-np", "1")
    assert done.returncode == 2
    assert re.search(
        r"error: not enough memory: one process needs \d+ MB on this node, the limit is 20 MB \(--memory\); give more "
        r"by --memory, or take smaller windows \(-hws\)",
        done.stderr,
    )
    done = command(*words, "--memory", "200M", "-np", "8")
    assert done.returncode == 2
    assert re.search(r"8 processes need .*; start at most [12] on a node \(-np [12]\)", done.stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(available_cpus() == 1, reason="one CPU")
def test_fewer_processes_where_more_do_not_fit(command: Job, images: Path, tmp_path: Path, launcher: Mpiexec) -> None:
    """Work enough for all CPUs, by the estimate; all windows are skipped."""
    line = "ldic {1} {2} -ns 2 -hws 8 -o 3 -ght 1 --criterion ssd"
    words = line.replace("{1}", f"{images}/plain/one.tif").replace("{2}", f"{images}/plain/two.tif").split()
    told = re.search(r"one process needs (\d+) MB", command(*words, "-np", "1", "--memory", "1M").stderr)
    assert told is not None
    # room for one, and not for two
    limit = int(told[1]) + 20
    done = command(*words, "-od", str(tmp_path), "--memory", f"{limit}M")
    assert f"note: 1 of {available_cpus()} CPUs are used: more processes do not fit" in done.stdout
    assert re.search(
        rf"^Memory: .*, one process of \d+ MB on this node \(limit {limit} MB: --memory\)$", done.stdout, re.M
    )
    assert re.search(r"^Starting Local DIC for \d+ nodes$", done.stdout, re.M)
    done = command(*words, "-od", str(tmp_path))
    assert re.search(rf"^Memory: .* mapped, {available_cpus()} processes of", done.stdout, re.M)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of 158 MB each, uncompressed, and what a search in them finds by one process that maps them."""
    folder = tmp_path_factory.mktemp("large")
    image = np.random.default_rng(1).integers(0, 60000, (200, 600, 660), dtype=np.uint16)
    tifffile.imwrite(folder / "one.tif", image, photometric="minisblack")
    tifffile.imwrite(folder / "two.tif", np.roll(image, (1, -1, 2), (0, 1, 2)), photometric="minisblack")
    _serial([*LARGE, str(folder / "one.tif"), str(folder / "two.tif"), "-pre", "mapped", "-lazy"])
    return folder


LARGE = ["pixelSearch", "-ns", "25", "-hws", "6"]


def _large(folder: Path, prefix: str, *more: str) -> list[str]:
    return [*LARGE, str(folder / "one.tif"), str(folder / "two.tif"), "-pre", prefix, *more]


def _same(folder: Path, prefix: str) -> bool:
    found, wanted = ((folder / f"{name}-pixelSearch.tsv").read_bytes() for name in (prefix, "mapped"))
    return found == wanted


def test_images_larger_than_memory(mpiexec: Job, large: Path) -> None:
    """Peak memory, everything counted, stays below what is allowed; nothing of the images is counted as mapped."""
    limit = 280_000_000
    words = _large(large, "boxes", "--memory", str(limit), "--image-mode", "shared")
    done = mpiexec(2, peak_memory.__file__, *words, MPIDVC_RANKS_PER_NODE="2")
    assert done.returncode == 0, done.stderr
    assert "note: --image-mode shared: the images do not fit" in done.stdout
    peaks = [int(peak) for peak in re.findall(r"^peak (\d+)$", done.stderr, re.MULTILINE)]
    assert len(peaks) == 2
    assert sum(peaks) < limit
    expected = re.search(r"2 processes of (\d+) MB each, the first with (\d+) MB more", done.stdout)
    assert expected is not None
    assert max(peaks) < 1e6 * (int(expected[1]) + int(expected[2]))
    assert _same(large, "boxes")


def _children(pid: int) -> list[int]:
    """All processes below a process."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


def _memory_of(pid: int) -> int:
    """Proportional share of memory of a process in bytes."""
    with contextlib.suppress(OSError):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        pss = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        if pss is not None:
            return int(pss[1]) * 1024
    return 0


def _copies_of(pid: int) -> set[str]:
    """Numbers of the files in memory, each with a copy of an image, that a process maps."""
    with contextlib.suppress(OSError):
        lines = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
        return {words[4] for words in lines if len(words) > 5 and words[5].startswith("/memfd:mpidvc")}
    return set()


def _has(process: Path, copies: set[str]) -> bool:
    """Whether a process maps one of these files, or has it open."""
    numbers = _copies_of(int(process.name))
    with contextlib.suppress(OSError):
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                if "memfd:mpidvc" in str(link.readlink()):
                    numbers.add(str(link.stat().st_ino))
    return bool(numbers & copies)


#: Lets a search last.
SLOW = """
import time
from mpidvc.tasks.pixel_search import PixelSearchTask
def slow(self, chunk, run=PixelSearchTask.run):
    time.sleep(0.2)
    return run(self, chunk)
PixelSearchTask.run = slow
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not tell memory")
def test_two_ranks_share_one_copy_and_leave_nothing(
    launcher: Mpiexec, environment: dict[str, str], large: Path
) -> None:
    """Sampled while they search; then the ranks are killed, and all of their memory is given back."""
    images = sum((large / name).stat().st_size for name in ("one.tif", "two.tif"))
    words = [*_large(large, "shared", "--image-mode", "shared"), "-ns", "12", "-hws", "12"]
    with subprocess.Popen(
        [*launcher.command(2), sys.executable, "-m", "mpidvc", *words],
        env=launcher.environment(environment, 2) | {"MPIDVC_TEST_CODE": SLOW},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as job:
        ranks: list[int] = []
        copies: set[str] = set()
        try:
            assert job.stdout is not None
            # the copies are filled before the search begins
            assert any(b"Starting Pixel Search" in line for line in job.stdout)
            ranks = [pid for pid in _children(job.pid) if _copies_of(pid)]
            assert len(ranks) == 2
            copies = set.union(*map(_copies_of, ranks))
            samples = []
            while len(samples) < 50 and job.poll() is None:
                samples.append(sum(map(_memory_of, ranks)))
            assert len(samples) == 50
            assert images < max(samples) < images + 200_000_000
        finally:
            for pid in [*ranks, job.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    # the system takes such memory back when nobody has it any more
    until(lambda: not any(_has(pid, copies) for pid in Path("/proc").glob("[0-9]*")), "the end of the copies")
