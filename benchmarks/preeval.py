"""Ranking of stacks by `mpidvc preeval` and by ewoksndreg, on the same files: times, CPU seconds, and scores.

    python -m venv ndreg && ndreg/bin/pip install ewoksndreg==0.5.0
    python benchmarks/preeval.py ndreg/bin/python --images 1000 --size 512

The stacks are made in a temporary folder, which is removed. Both programs are run as processes, one after the other,
once for each round; each round gives a ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from scipy.ndimage import gaussian_filter

#: ewoksndreg's own functions, and the scores that its ranking is made of.
OTHER = """
import json, sys
from ewoksndreg.evaluation.eval_metrics import peak_eval
from ewoksndreg.io.input_stack import input_context
with input_context(json.loads(sys.argv[1])) as stacks:
    scores = {name: float(peak_eval(stack, 0)) for name, stack in stacks.items()}
print(json.dumps(scores))
"""


def make(path: Path, images: int, size: int, dtype: str) -> dict[str, str]:
    """Four stacks of a drifting texture with more and more noise."""
    rng = np.random.default_rng(13)
    texture = gaussian_filter(rng.normal(size=(size, size)), 1.5, mode="wrap")
    texture /= texture.std()
    noises = {"Fe": 0.3, "Ca": 1.0, "Zn": 3.0, "Ti": 10.0}
    with h5py.File(path, "w") as file:
        for name, noise in noises.items():
            stack = file.create_dataset(name, (images, size, size), dtype)
            for k in range(images):
                drift = (round(8 * np.sin(k / 90)), k // 25)
                image = np.roll(texture, drift, (0, 1)) + noise * rng.standard_normal((size, size), np.float32)
                stack[k] = 1000 + 50 * image if dtype != "uint8" else np.clip(128 + 10 * image, 0, 255)
    return {name: f"{path}::/{name}" for name in noises}


def run(words: list[str]) -> tuple[float, float, str]:
    """Seconds, CPU seconds of all processes, and the output."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - begun, cpu, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("python", help="interpreter of the environment that ewoksndreg is installed in")
    parser.add_argument("--images", type=int, default=1000, help="of each of the four stacks")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("-np", dest="ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="preeval-") as folder:
        uris = make(Path(folder) / "stacks.h5", args.images, args.size, args.dtype)
        result = Path(folder) / "ranking.json"
        ours = [sys.executable, "-m", "mpidvc", "preeval", *(f"{name}={uri}" for name, uri in uris.items())]
        print(
            f"4 stacks of {args.images} images of {args.size}², {args.dtype}; mpidvc on {args.ranks} ranks", flush=True
        )
        for number in range(1, args.rounds + 1):
            theirs = run([args.python, "-c", OTHER, json.dumps(uris)])
            mine = run([*ours, "-np", str(args.ranks), "--json", str(result)])
            print(
                f"round {number}: ewoksndreg {theirs[0]:.1f} s ({theirs[1]:.1f} CPU s), mpidvc {mine[0]:.1f} s "
                f"({mine[1]:.1f} CPU s): {theirs[0] / mine[0]:.1f} × in time, {theirs[1] / mine[1]:.1f} × in CPU time",
                flush=True,
            )
        scores = {one["stack"]: one["score"] for one in json.loads(result.read_text())["stacks"]}
        for name, score in json.loads(theirs[2]).items():
            print(f"{name}: ewoksndreg {score:.9f}, mpidvc {scores[name]:.9f}, difference {scores[name] - score:.1e}")


if __name__ == "__main__":
    main()
