from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MOST_RADIUS: Final[int]
SUMS: Final[np.dtype[np.void]]

class Tally:
    def of(self, part: NDArray[Any], largest: int) -> tuple[NDArray[np.void], int]: ...

def mask(part: NDArray[Any], label: int, radius: int = 0, keep_others: bool = False) -> NDArray[np.uint8]: ...
