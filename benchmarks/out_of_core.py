"""An ldic over images many times larger than the memory it may use, against the same run with the images in memory.

    python benchmarks/out_of_core.py --scratch DIR [--gigabytes 2.4] [--memory 600M] [-np 2] [-o 1]

Both runs begin with the images out of the page cache. Prints times, their ratio, and the peak memory of every rank;
ends with an error if the results differ in a byte or the ranks have used more than they may.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tifffile

from mpidvc.runtime.launch import find_mpiexec
from mpidvc.runtime.memory import parse_size

#: Edge of the texture that is repeated, voxels.
TILE = 128
SHIFT = (0.4, -0.3, 0.6)

RANK = """\
import os, sys
from mpidvc.main import main
status = main()
lines = open("/proc/self/status").read().splitlines()
os.write(2, ("peak " + next(line.split()[1] for line in lines if line.startswith("VmHWM")) + "\\n").encode())
sys.exit(status)
"""


def tiles() -> list[np.ndarray]:
    """A periodic texture, and the same moved by `SHIFT`."""
    k = np.meshgrid(*[np.fft.fftfreq(TILE)] * 2, np.fft.rfftfreq(TILE), indexing="ij")
    noise = np.fft.rfftn(np.random.default_rng(7).normal(size=(TILE,) * 3))
    noise *= np.exp(-2 * (np.pi * 1.6) ** 2 * sum(f**2 for f in k))
    phase = np.exp(-2j * np.pi * sum(f * s for f, s in zip(k, SHIFT, strict=True)))
    values = [np.fft.irfftn(spectrum, s=(TILE,) * 3, axes=(0, 1, 2)) for spectrum in (noise, noise * phase)]
    return [np.clip(20000 + 4000 * v / values[0].std(), 0, 65535).astype(np.uint16) for v in values]


def write(path: Path, tile: np.ndarray, edge: int) -> None:
    volume = tifffile.memmap(path, shape=(edge,) * 3, dtype=np.uint16, photometric="minisblack")
    repeat = -(-edge // TILE)
    for z in range(0, edge, TILE):
        slab = np.tile(tile, (1, repeat, repeat))[: edge - z, :edge, :edge]
        volume[z : z + TILE] = slab
    volume.flush()


def forget(paths: list[Path]) -> None:
    """Take files out of the page cache."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def on_ranks(processes: int, words: list[str]) -> tuple[float, list[int], str]:
    """Run mpidvc on ranks: seconds, peak bytes of the ranks, and its output."""
    mpiexec = find_mpiexec()
    if mpiexec is None:
        sys.exit("no mpiexec")
    command = [*mpiexec.command(processes), sys.executable, "-c", RANK, *words]
    environment = mpiexec.environment(os.environ, processes)
    del environment["MPIDVC_STARTED_RANKS"]
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    peaks = [int(kb) * 1024 for kb in re.findall(r"^peak (\d+)$", done.stderr, re.MULTILINE)]
    return seconds, peaks, done.stdout


def run(options: argparse.Namespace, paths: list[Path], name: str, *more: str) -> tuple[float, list[int], bytes]:
    """Seconds, peak bytes of the ranks, and the result."""
    forget(paths)
    words = ["ldic", *map(str, paths), "-ns", str(options.spacing), "-hws", "10", "-o", str(options.order)]
    seconds, peaks, told = on_ranks(options.processes, [*words, "-pre", name, *more])
    said = next(line for line in told.splitlines() if line.startswith("Memory:"))
    print(f"{name:10} {seconds:6.1f} s   peaks {' '.join(f'{p / 1e6:.0f}' for p in peaks)} MB   {said}", flush=True)
    return seconds, peaks, (options.scratch / f"{name}-ldic.tsv").read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the images")
    parser.add_argument("--gigabytes", type=float, default=2.4, help="size of each image (default: %(default)s)")
    parser.add_argument("--memory", default="600M")
    parser.add_argument("--spacing", type=int, default=25, help="of the nodes (default: %(default)s)")
    parser.add_argument("-np", dest="processes", type=int, default=2)
    parser.add_argument("-o", dest="order", type=int, default=1)
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    edge = round((options.gigabytes * 1e9 / 2) ** (1 / 3))
    paths = [options.scratch / f"out-of-core-{edge}-{k}.tif" for k in (1, 2)]
    for path, tile in zip(paths, tiles(), strict=True):
        if not path.exists():
            write(path, tile, edge)
    size = sum(path.stat().st_size for path in paths)
    limit = parse_size(options.memory)
    print(f"two images of {edge}³ voxels, {size / 1e9:.1f} GB, {size / limit:.1f} times the memory", flush=True)
    inside, _, wanted = run(options, paths, "in-memory", "--image-mode", "shared", "--memory", "1T")
    outside, peaks, found = run(options, paths, "boxes", "--memory", options.memory)
    print(f"ratio {outside / inside:.2f}")
    if found != wanted:
        sys.exit("the results differ")
    if sum(peaks) > limit:
        sys.exit(f"the ranks have used {sum(peaks) / 1e6:.0f} MB, more than {limit / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
