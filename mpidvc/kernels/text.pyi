from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Columns = Iterable[NDArray[np.float64]]

def columns_length(columns: Columns) -> int: ...
def format_columns(columns: Columns, separator: bytes = ..., prefix: bytes = ...) -> bytearray: ...
