from collections.abc import Sequence

from mpidvc.arrays import Array, Ints

def take_groups(table: Array, rows: Ints, groups: Sequence[Sequence[int]]) -> list[Array]: ...
