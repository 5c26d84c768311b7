"""Work for the programs that run on several ranks."""

from __future__ import annotations

import time

import numpy as np

DTYPE = np.dtype([("position", "f8", 3), ("phi", "f4", (4, 4)), ("status", "i4")])


class Uneven:
    """Chunks of 0 to 6 records that cost from nothing to much more than the mean."""

    def __init__(self, n_chunks: int) -> None:
        self.n_chunks = n_chunks

    def run(self, chunk: int) -> np.ndarray:
        time.sleep((0, 0, 0.001, 0.01)[chunk * 7 % 11 % 4] if chunk % 3 else 0)
        rng = np.random.default_rng(chunk)
        records = np.zeros(chunk % 7, dtype=DTYPE)
        records["position"] = rng.normal(size=(records.size, 3))
        records["phi"] = rng.normal(size=(records.size, 4, 4))
        records["status"] = chunk
        return records

    def run_sum(self, chunk: int, argument: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(chunk)
        return argument * rng.normal(size=argument.size) * 10.0 ** rng.integers(-12, 12, argument.size)


class Sums:
    """Pieces that become ready when the piece of half their number is done, and are made from its result."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.results: dict[int, int] = {}
        self._ready = [0] if n else []
        self._taken = 0
        self.batches: list[int] = []

    @property
    def ready(self) -> int:
        return len(self._ready)

    @property
    def exhausted(self) -> bool:
        return self._taken == self.n

    def take(self, most: int) -> list[tuple[int, int]]:
        assert self._ready
        assert most > 0
        pieces, self._ready = self._ready[:most], self._ready[most:]
        self._taken += len(pieces)
        self.batches.append(len(pieces))
        return [(k, self.results[(k - 1) // 2] if k else 1) for k in pieces]

    def finished(self, batch: list[tuple[int, int]], result: list[int]) -> None:
        for (k, _), value in zip(batch, result, strict=True):
            assert k not in self.results
            self.results[k] = value
            self._ready += [child for child in (2 * k + 1, 2 * k + 2) if child < self.n]


def work(batch: list[tuple[int, int]]) -> list[int]:
    time.sleep(1e-3 * (batch[0][0] % 3))
    return [(value * 31 + k) % 1_000_003 for k, value in batch]


class Tens:
    """Pieces that follow chunks: one for every ten of them, and another when this one and all before it are done."""

    def __init__(self, n_chunks: int) -> None:
        self.n = -(-n_chunks // 10)
        self._undone = [min(10, n_chunks - 10 * k) for k in range(self.n)]
        self._ready: list[tuple[str, int]] = []
        self._taken = 0
        self.results: dict[tuple[str, int], int] = {}
        self._following = 0

    def done(self, chunk: int) -> None:
        self._undone[chunk // 10] -= 1
        if self._undone[chunk // 10] == 0:
            self._ready.append(("ten", chunk // 10))

    @property
    def ready(self) -> int:
        return len(self._ready)

    @property
    def exhausted(self) -> bool:
        return self._taken == 2 * self.n

    def take(self, most: int) -> list[tuple[str, int]]:
        pieces, self._ready = self._ready[:most], self._ready[most:]
        self._taken += len(pieces)
        return pieces

    def finished(self, batch: list[tuple[str, int]], result: list[int]) -> None:
        for piece, value in zip(batch, result, strict=True):
            assert piece not in self.results
            self.results[piece] = value
        while ("ten", self._following) in self.results:
            self._ready.append(("after", self._following))
            self._following += 1

    @property
    def expected(self) -> dict[tuple[str, int], int]:
        """The results of all pieces."""
        return {(kind, k): weight(kind, k) for kind in ("ten", "after") for k in range(self.n)}


def weight(kind: str, k: int) -> int:
    return 7 * k + len(kind)


def follow(batch: list[tuple[str, int]]) -> list[int]:
    time.sleep(1e-3 * (batch[0][1] % 3))
    return [weight(*piece) for piece in batch]
