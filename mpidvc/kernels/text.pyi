from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

def columns_length(columns: Iterable[NDArray[np.float64]]) -> int: ...
def format_columns(columns: Iterable[NDArray[np.float64]], separator: bytes = ..., prefix: bytes = ...) -> bytes: ...
