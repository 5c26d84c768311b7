"""Reading a field from a file of any format that holds a whole one."""

from __future__ import annotations

import os

from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import read_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.stream import Stream
from mpidvc.fields.tsv import read_tsv_stream
from mpidvc.rowfile import SIGNATURE

__all__ = ["read_field"]

#: First bytes of files that show a field, but from which it cannot be recovered.
PICTURES = {
    b"# vtk DataFile": "a VTK file",
    b"II*\0": "a TIFF image",
    b"II+\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"MM\0+": "a TIFF image",
}


def read_field(path: str | os.PathLike[str], bin_ratio: float = 1.0) -> PhiField:
    """Read a field from a text file (TSV) or a results file (HDF5); the content tells which, not the name.

    Parameters
    ----------
    path : path-like
        A text file of mpidvc or of spam, also of old versions, or made by hand; or a results file of a finished run:
        ``.h5``, or a copy of it under any name, such as ``.vtkhdf``. Text may come from a pipe.
    bin_ratio : float
        Factor on positions and displacements: binning of the field's images over that of the images to be used.

    Returns
    -------
    PhiField
        Positions and displacements in voxels.

    Raises
    ------
    UserError
        If the file is missing, damaged, that of an unfinished run, or holds no field that can be recovered.
    """
    named = f"field {os.fspath(path)}"
    with Stream(path, named) as stream:
        for first, kind in PICTURES.items():
            if stream.head.startswith(first):
                raise UserError(f"{named}: is {kind}, which holds no whole field; give the .h5 or .tsv file of its run")
        if not stream.head.startswith(SIGNATURE):
            return read_tsv_stream(stream, named, bin_ratio)
        if not stream.plain:
            raise UserError(f"{named}: is HDF5, which cannot be read from a pipe; give the file")
    return read_hdf5(path, bin_ratio)
