# cython: boundscheck=False, wraparound=False
"""Labels of voxels: sums of every label over a box, and the mask of one label."""

from cpython.buffer cimport PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy
from libcpp cimport bool as cpp_bool
from libcpp.vector cimport vector

import numpy as np

__all__ = ["MOST_RADIUS", "SUMS", "Tally", "mask"]

cdef extern from "label_passes.hpp" namespace "label_passes" nogil:
    struct Box:
        const char *data
        char kind
        int size
        int64_t pitch_z
        int64_t pitch_y
        int64_t shape[3]

    struct Row:
        int64_t label

    cdef cppclass Sums "label_passes::Tally":
        vector[Row] rows
        int64_t add(const Box& box, int64_t largest) except +
        void clear()

    void fill_mask "label_passes::mask"(
        const Box& box, int64_t label, int radius, cpp_bool keep_others, uint8_t *out
    ) except +

#: Longest radius of a dilation or erosion: squares of distances are held in 16 bits.
MOST_RADIUS = 127

#: Types of values that can be labels.
TYPES = frozenset(map(np.dtype, ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")))

#: Sums of a label: `volume` in voxels, `moment` the sum of their indices, `lowest` and `highest` the extreme ones.
SUMS = np.dtype([
    ("label", np.int64),
    ("volume", np.int64),
    ("moment", np.int64, (3,)),
    ("lowest", np.int64, (3,)),
    ("highest", np.int64, (3,)),
])


cdef class Part:
    """Voxels of a box, held while the loops read them."""

    cdef Py_buffer view
    cdef bint held
    cdef Box box

    def __cinit__(self, part):
        if part.ndim != 3 or part.dtype not in TYPES or not part.dtype.isnative or not part.flags.aligned:
            raise ValueError(f"labels have to be 3D, aligned and of a type that can hold labels, not {part.dtype}")
        if part.strides[2] != part.itemsize:
            part = np.ascontiguousarray(part)
        PyObject_GetBuffer(part, &self.view, PyBUF_STRIDES)
        self.held = True
        self.box.data = <const char *> self.view.buf
        self.box.kind, self.box.size = ord(part.dtype.kind), part.dtype.itemsize
        self.box.pitch_z, self.box.pitch_y = part.strides[0], part.strides[1]
        for axis in range(3):
            self.box.shape[axis] = part.shape[axis]

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef class Tally:
    """Sums of the labels of a box.

    Its memory is kept from one box to the next: 4 bytes for each number up to the largest label.
    """

    cdef Sums sums

    def of(self, part, int64_t largest):
        """Sums of all labels of a box except 0, the background.

        Parameters
        ----------
        part : (z, y, x) array
            Integers of up to 64 bits, float32 or float64; aligned, in native byte order.
        largest : int
            Largest label that is accepted.

        Returns
        -------
        sums : (n,) array of `SUMS`
            Indices count from the first voxel of the box; labels are in the order in which they are met.
        wrong : int
            Index, in C order, of the first voxel whose value is no label: negative, above `largest`, or with a
            fraction; -1 if there is none. The sums are empty if there is one.
        """
        cdef Part held = Part(part)
        cdef int64_t wrong = -1
        if part.size:
            with nogil:
                wrong = self.sums.add(held.box, largest)
        cdef Py_ssize_t n = self.sums.rows.size() if wrong < 0 else 0
        found = np.empty((n, SUMS.itemsize // 8), np.int64)
        cdef int64_t[:, ::1] target = found
        if n:
            memcpy(&target[0, 0], self.sums.rows.data(), n * sizeof(Row))
        self.sums.clear()
        return found.view(SUMS).reshape(n), wrong


def mask(part, int64_t label, int radius=0, bint keep_others=False):
    """Mask of a label in a box, dilated or eroded by the digital ball ``z² + y² + x² <= radius²``.

    Nothing lies beyond the box: the frame that a dilation comes from, or an erosion, has to be in it.

    Parameters
    ----------
    part : (z, y, x) array
        Labels, as in `Tally.of`.
    label : int
    radius : int
        Of the dilation; negative for an erosion.
    keep_others : bool
        Whether a dilated mask may hold voxels of other labels.

    Returns
    -------
    (z, y, x) uint8
        1 in the mask.

    Raises
    ------
    ValueError
        If the radius is longer than `MOST_RADIUS`, or the box cannot hold the label.
    """
    if abs(radius) > MOST_RADIUS:
        raise ValueError(f"radius {radius}: at most {MOST_RADIUS}")
    if label < 0 or (part.dtype.kind in "iu" and label > np.iinfo(part.dtype).max):
        raise ValueError(f"label {label}: not in {part.dtype}")
    cdef Part held = Part(part)
    out = np.empty(part.shape, np.uint8)
    cdef uint8_t[:, :, ::1] target = out
    if part.size:
        with nogil:
            fill_mask(held.box, label, radius, keep_others, &target[0, 0, 0])
    return out
