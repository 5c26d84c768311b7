import numpy.typing as npt

from mpidvc.arrays import Array, Ints

def polar(gradients: Array) -> tuple[Array, Array, Array, Array]: ...
def fit_gradients(
    centres: Array, positions: Array, displacements: Array, start: Ints, found: Ints, flat: bool
) -> tuple[Array, Array, Ints]: ...
def fit_gradient_errors(
    positions: Array, errors: Array, start: Ints, found: Ints, window: npt.ArrayLike, flat: bool
) -> Array: ...
