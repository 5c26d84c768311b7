"""Reading a field from a file of any format that holds a whole one."""

from __future__ import annotations

import os

from mpidvc.fields.hdf5 import is_hdf5, read_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import read_tsv

__all__ = ["read_field"]


def read_field(path: str | os.PathLike[str], bin_ratio: float = 1.0) -> PhiField:
    """Read a field from a text file (TSV) or a results file (HDF5); the content tells which, not the name.

    Parameters
    ----------
    path : path-like
        A TSV file of mpidvc or of spam, also of old versions, or a results file of a finished run: ``.h5``, or a copy
        of it under any name, such as ``.vtkhdf``.
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
    return (read_hdf5 if is_hdf5(path) else read_tsv)(path, bin_ratio)
