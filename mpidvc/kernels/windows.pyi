import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array, Float32Array, Ints

SUMS: int

def shell_sums(
    f: Float32Array,
    g: Float32Array,
    usable: npt.NDArray[np.uint8] | None,
    whole: npt.NDArray[np.uint8] | None,
    centres: Ints,
    first: int,
    last: int,
    two_d: bool,
) -> Array: ...
