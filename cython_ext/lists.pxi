# Checks of lists of neighbours, for the kernels that take such lists.


cdef void check_points(const int64_t[::1] points, int64_t n) except *:
    if points.shape[0] and (np.min(points) < 0 or np.max(points) >= n):
        raise IndexError(f"there are {n} points, of which these are not all")


cdef void check_lists(int64_t m, const int64_t[::1] start, const int64_t[::1] found, int64_t n) except *:
    """Check that there is a list of neighbours for each of `m` points, and that they are among `n`."""
    if start.shape[0] != m + 1 or start[0] != 0 or start[m] != found.shape[0] or np.any(np.diff(start) < 0):
        raise ValueError("these are no lists of neighbours of the points")
    check_points(found, n)
