# cython: boundscheck=False, wraparound=False
"""Images deformed by a field: the Cython side of ``deform.hpp``. Arrays are (z, y, x), lengths voxels."""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t

import numpy as np

from mpidvc.kernels.processor import level

cdef extern from *:
    """
    #include "deform_places.hpp"
    static const mpidvc_places_kernels *mpidvc_places_table(int level) {
    #ifdef MPIDVC_X86_DISPATCH
        if (level == 1) return mpidvc_places_kernels_avx2();
        if (level == 2) return mpidvc_places_kernels_avx512();
    #endif
        return mpidvc_places_kernels_baseline();
    }
    """
    struct mpidvc_places_kernels:
        pass
    const mpidvc_places_kernels* mpidvc_places_table(int) nogil

cdef extern from "point_tree.hpp" namespace "point_tree" nogil:
    cdef cppclass Node:
        pass

    cdef cppclass Tree:
        void view(const double *points, const int64_t *order, int64_t n, const Node *nodes, int64_t n_nodes)

cdef extern from "deform.hpp" namespace "deform" nogil:
    struct CPoints "deform::Points":
        const double *deformed
        const double *phi
        int64_t n
        bint displacements_only

    struct CMesh "deform::Mesh":
        const double *deformed
        const double *reference
        const double *inverse
        const double *edges
        const int64_t *low
        const int64_t *high
        const double *factor
        int64_t n

    struct Box:
        const float *data
        int64_t pitch_y
        int64_t pitch_z
        int64_t size[3]
        double origin[3]
        double last[3]

    void c_places "deform::places" (const mpidvc_places_kernels*, const Tree&, const CPoints&, int64_t,
                                    const int64_t *, const int64_t *, const int64_t *, const uint8_t *,
                                    double *) except +
    void c_mesh_places "deform::mesh_places" (const CMesh&, const int64_t *, const int64_t *, double *, double *)
    double c_least_value "deform::least_value" (const int64_t *, const double *, const int32_t *, const int32_t *,
                                                int64_t, int64_t) except +
    int64_t extent "deform::extent<3>" (const double *, int64_t, const double *, double *, double *)
    int64_t extent_plane "deform::extent<2>" (const double *, int64_t, const double *, double *, double *)
    int64_t c_settle "deform::settle" [T] (const double *, int64_t, double, double, T *)
    bint sample_linear "deform::sample<1, 3>" (const Box&, const double *, int64_t, double *)
    bint sample_linear_plane "deform::sample<1, 2>" (const Box&, const double *, int64_t, double *)
    bint sample_cubic "deform::sample<3, 3>" (const Box&, const double *, int64_t, double *)
    bint sample_cubic_plane "deform::sample<3, 2>" (const Box&, const double *, int64_t, double *)


ctypedef fused Grey:
    int8_t
    int16_t
    int32_t
    uint8_t
    uint16_t
    uint32_t
    float


cdef class NearestPoints:
    """Deformed points, and the motions back to the reference that they stand for. Nothing is copied.

    Parameters
    ----------
    deformed : (n, 3) float64
        Positions in the deformed configuration; finite.
    phi : (n, 4, 4) float64
        The motions, about these.
    tree : (order, nodes)
        `neighbours.Points.tree` of the positions.
    displacements_only : bool
        Whether F of the motions counts for nothing.
    """

    cdef Tree tree
    cdef const double[:, ::1] deformed
    cdef const double[:, :, ::1] phi
    cdef const int64_t[::1] order
    cdef const uint8_t[::1] nodes
    cdef bint displacements_only

    def __init__(self, const double[:, ::1] deformed, const double[:, :, ::1] phi, tree, bint displacements_only):
        cdef int64_t n = deformed.shape[0]
        if n < 1 or deformed.shape[1] != 3 or phi.shape[0] != n or phi.shape[1] != 4 or phi.shape[2] != 4:
            raise ValueError("positions have to be (n, 3), Phi (n, 4, 4), of one point at least")
        self.order, self.nodes = tree
        if self.order.shape[0] != n or self.nodes.shape[0] % sizeof(Node) or not self.nodes.shape[0]:
            raise ValueError("the tree is not one of these points")
        self.deformed, self.phi, self.displacements_only = deformed, phi, displacements_only
        self.tree.view(
            &deformed[0, 0], &self.order[0], n, <const Node *> &self.nodes[0], self.nodes.shape[0] // sizeof(Node)
        )

    def places(self, int64_t nearest, low, size, edge, const uint8_t[:, :, ::1] wanted=None):
        """Find the place in the undeformed image of every voxel of a box.

        The motions of the nearest points are averaged with the weights 1 / (distance + 1e-6); of equally near points
        the one with the lower index counts.

        Parameters
        ----------
        nearest : int
            Number of points, from 1 to n.
        low, size : 3 ints
            First voxel of the box and its size.
        edge : 3 ints
            Size of the blocks that share a search; it changes no result.
        wanted : (z, y, x) uint8, optional
            0 for voxels that are left out; their place is nan.

        Returns
        -------
        (3, z, y, x) float64
        """
        cdef int64_t a
        cdef const mpidvc_places_kernels *kernels = mpidvc_places_table(level())
        cdef int64_t[3] first, n, step
        cdef const uint8_t *mask = NULL
        if not 1 <= nearest <= self.deformed.shape[0]:
            raise ValueError(f"{nearest} nearest points: there are {self.deformed.shape[0]}")
        for a in range(3):
            first[a], n[a], step[a] = low[a], size[a], edge[a]
            if n[a] < 1 or step[a] < 1:
                raise ValueError("boxes and blocks have at least one voxel")
        if wanted is not None:
            for a in range(3):
                if wanted.shape[a] != n[a]:
                    raise ValueError("the map of wanted voxels has to have the shape of the box")
            mask = &wanted[0, 0, 0]
        out = np.empty((3, n[0], n[1], n[2]))
        cdef double[:, :, :, ::1] target = out
        cdef CPoints points
        points.deformed, points.phi = &self.deformed[0, 0], &self.phi[0, 0, 0]
        points.displacements_only = self.displacements_only
        points.n = self.deformed.shape[0]
        with nogil:
            c_places(kernels, self.tree, points, nearest, first, n, step, mask, &target[0, 0, 0, 0])
        return out


def mesh_places(const double[:, ::1] deformed, const double[:, ::1] reference, const double[:, :, ::1] inverse,
                const double[:, :, ::1] edges, const int64_t[:, ::1] begin, const int64_t[:, ::1] end,
                const double[::1] factor, low, size):
    """Find the place in the undeformed image of every voxel of a box that lies in a tetrahedron.

    Parameters
    ----------
    deformed, reference : (m, 3) float64
        First vertex of each tetrahedron in both configurations.
    inverse : (m, 3, 3) float64
        Map from positions in the deformed configuration, about the first vertex, to barycentric coordinates 1 to 3.
    edges : (m, 3, 3) float64
        Edges from the first vertex in the reference, as columns.
    begin, end : (m, 3) int64
        Box of voxels about each tetrahedron.
    factor : (m,) float64
        Number that belongs to each.
    low, size : 3 ints
        First voxel of the box and its size.

    Returns
    -------
    places : (3, z, y, x) float64
        nan where there is no tetrahedron; the first one counts where several meet.
    factors : (z, y, x) float64
    """
    cdef int64_t a, m = deformed.shape[0]
    cdef int64_t[3] first, n
    for a in range(3):
        first[a], n[a] = low[a], size[a]
    out, factors = np.full((3, n[0], n[1], n[2]), np.nan), np.ones((n[0], n[1], n[2]))
    for rows in (reference.shape[0], inverse.shape[0], edges.shape[0], begin.shape[0], end.shape[0], factor.shape[0]):
        if rows != m:
            raise ValueError("all arrays need a row for each tetrahedron")
    cdef double[:, :, :, ::1] target = out
    cdef double[:, :, ::1] numbers = factors
    cdef CMesh mesh
    if m and out.size:
        mesh.deformed, mesh.reference = &deformed[0, 0], &reference[0, 0]
        mesh.inverse, mesh.edges, mesh.factor = &inverse[0, 0, 0], &edges[0, 0, 0], &factor[0]
        mesh.low, mesh.high, mesh.n = &begin[0, 0], &end[0, 0], m
        with nogil:
            c_mesh_places(mesh, first, n, &target[0, 0, 0, 0], &numbers[0, 0, 0])
    return out, factors


def least_value(const double[::1] value, const int32_t[:, ::1] neighbours, const int32_t[:, ::1] vertices,
                int64_t points):
    """Find the least value up to which tetrahedra make one component, joined by faces, that holds all points.

    Parameters
    ----------
    value : (m,) float64
    neighbours : (m, 4) int32
        Tetrahedra beyond the faces; -1 outside.
    vertices : (m, 4) int32
    points : int
        Number of points.

    Returns
    -------
    float
        Infinite if there is none.
    """
    cdef int64_t[::1] order = np.argsort(value, kind="stable")
    cdef int64_t m = value.shape[0]
    cdef double found
    if m == 0:
        return np.inf
    with nogil:
        found = c_least_value(&order[0], &value[0], &neighbours[0, 0], &vertices[0, 0], m, points)
    return found


def extent_inside(shape, const double[:, ::1] places):
    """Find the extent of those places that are inside an image.

    Parameters
    ----------
    shape : 3 ints
        Of the image; of one plane: 2D, and z counts for nothing.
    places : (3, n) float64

    Returns
    -------
    inside : int
        Number of these places.
    low, high : (3,) float64
        0 along z in 2D.
    """
    cdef int64_t a, inside, n = places.shape[1]
    cdef double[3] last
    low, high = np.zeros(3), np.zeros(3)
    cdef double[::1] least = low, most = high
    for a in range(3):
        last[a] = shape[a] - 1
    if places.shape[0] != 3:
        raise ValueError("places have to be (3, n)")
    if n == 0:
        return 0, low, high
    if shape[0] == 1:
        with nogil:
            inside = extent_plane(&places[0, 0], n, last, &least[0], &most[0])
    else:
        with nogil:
            inside = extent(&places[0, 0], n, last, &least[0], &most[0])
    return inside, low, high


def sample(const float[:, :, ::1] box, origin, shape, const double[:, ::1] places, int order):
    """Interpolate grey levels.

    Parameters
    ----------
    box : (z, y, x) float32
        Part of an image (order 1) or of its spline coefficients (order 3), with the taps of all places in the image.
    origin : 3 ints
        First voxel of the box.
    shape : 3 ints
        Of the image; of one plane: 2D.
    places : (3, n) float64
    order : {1, 3}

    Returns
    -------
    (n,) float64
        nan for places outside the image.

    Raises
    ------
    ValueError
        If the box does not hold the taps of a place.
    """
    cdef int64_t a, n = places.shape[1]
    cdef Box part
    cdef bint held, flat = shape[0] == 1
    out = np.empty(n)
    cdef double[::1] target = out
    if places.shape[0] != 3 or order not in (1, 3):
        raise ValueError("places have to be (3, n), and the order 1 or 3")
    if n == 0:
        return out
    part.data, part.pitch_y, part.pitch_z = &box[0, 0, 0], box.shape[2], box.shape[1] * box.shape[2]
    for a in range(3):
        part.size[a], part.origin[a], part.last[a] = box.shape[a], origin[a], shape[a] - 1
    with nogil:
        if order == 1 and flat:
            held = sample_linear_plane(part, &places[0, 0], n, &target[0])
        elif order == 1:
            held = sample_linear(part, &places[0, 0], n, &target[0])
        elif flat:
            held = sample_cubic_plane(part, &places[0, 0], n, &target[0])
        else:
            held = sample_cubic(part, &places[0, 0], n, &target[0])
    if not held:
        raise ValueError("the box does not hold the taps of all places")
    return out


def settle(const double[::1] values, Grey[::1] out):
    """Write grey levels in the type of an image: integers rounded and clipped, 0 for those that are not finite.

    Returns
    -------
    int
        How many are finite.
    """
    cdef int64_t n = values.shape[0], there
    cdef double low = -np.inf, high = np.inf
    if out.shape[0] != n:
        raise ValueError("both arrays have to be of the same length")
    if n == 0:
        return 0
    if Grey is not float:
        limits = np.iinfo(np.asarray(out).dtype)
        low, high = limits.min, limits.max
    with nogil:
        there = c_settle(&values[0], n, low, high, &out[0])
    return there
