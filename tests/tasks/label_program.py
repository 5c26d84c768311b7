"""Run on several ranks: measures the labels of files, and prints a line for each, the same on every rank."""

from __future__ import annotations

import hashlib
import os
import sys

from mpidvc.errors import AgreedError
from mpidvc.images import source
from mpidvc.images.image import open_image
from mpidvc.runtime.comm import connect, find_launcher
from mpidvc.runtime.executor import Executor, make_executor
from mpidvc.tasks.labels import measure_labels


def digest(executor: Executor, file: str) -> str:
    try:
        found = measure_labels(executor, open_image(file))
    except AgreedError as error:
        return str(error)
    arrays = (found.volume, found.lowest, found.highest, found.centre)
    return f"{file}: {hashlib.sha256(b''.join(array.tobytes() for array in arrays)).hexdigest()}"


if __name__ == "__main__":
    source.PIECE = 3000
    executor = make_executor(connect(find_launcher()))
    for file in sys.argv[1:]:
        os.write(1, f"{digest(executor, file)}\n".encode())
