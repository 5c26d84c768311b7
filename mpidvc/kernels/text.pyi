import numpy as np
from numpy.typing import NDArray

def format_rows(table: NDArray[np.float64], separator: bytes = ..., prefix: bytes = ...) -> bytes: ...
