"""Make ``preeval/scores.json``: scores of small stacks by ewoksndreg 0.5.0, run as it is installed.

    python -m venv ndreg && ndreg/bin/pip install ewoksndreg==0.5.0
    ndreg/bin/python tests/reference/make_preeval_reference.py

The stacks are made here by `stacks`, which the tests call, too: numpy keeps the stream of `RandomState` for ever.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

SCORES = Path(__file__).parent / "preeval" / "scores.json"
#: Noise of the stacks, as a multiple of the texture's deviation.
NOISES = {"clean": 0.02, "good": 0.3, "fair": 1.0, "bad": 4.0}
DTYPES = ("float64", "float32", "uint16", "int16", "uint8", "int64")
N = 6


def stacks(dtype: str, shape: tuple[int, int] = (40, 36)) -> dict[str, np.ndarray]:
    """Stacks of a texture that drifts beneath the frame, with noise."""
    random = np.random.RandomState(13)
    texture = random.standard_normal((shape[0] + 30, shape[1] + 30))
    # no frequency of this filter is 0
    for axis in (0, 1):
        texture = (np.roll(texture, 1, axis) + 3 * texture + np.roll(texture, -1, axis)) / 5
    texture /= texture.std()
    level, contrast = (100.0, 14.0) if dtype == "uint8" else (1000.0, 150.0)
    found = {}
    for name, noise in NOISES.items():
        images = []
        for k in range(N):
            y, x = 3 * k, 15 - 2 * k
            image = texture[y : y + shape[0], x : x + shape[1]] + noise * random.standard_normal(shape)
            values = level + contrast * image / (1 + noise)
            images.append(values if dtype.startswith("float") else np.clip(np.rint(values), 0, None))
        found[name] = np.array(images).astype(dtype)
    return found


def more_stacks() -> dict[str, np.ndarray]:
    """Stacks with images of odd shape, some constant, all constant, and with nan."""
    odd = stacks("float64", (37, 45))["good"]
    partly, constant, broken = odd.copy(), np.full_like(odd, 7), odd.copy()
    partly[2], broken[3, 5, 5] = 4.5, np.nan
    return {"odd": odd, "partly constant": partly, "constant": constant, "zero": 0 * constant, "nan": broken}


def main() -> None:
    from ewoksndreg.evaluation.eval_metrics import peak_eval
    from ewoksndreg.io.input_stack import input_context

    def scores(given: dict[str, np.ndarray]) -> dict[str, str]:
        with input_context(given) as opened:
            return {name: repr(float(peak_eval(stack, 0))) for name, stack in opened.items()}

    found = {dtype: scores(stacks(dtype)) for dtype in DTYPES}
    found["more"] = scores(more_stacks())
    SCORES.parent.mkdir(exist_ok=True)
    SCORES.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
