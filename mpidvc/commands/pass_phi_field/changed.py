"""A field at its own points, changed: less the displacements of a registration, or merged with those of labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpidvc.arrays import Array, Ints, Records
from mpidvc.core import deformation
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image
from mpidvc.images.source import Source, in_pieces
from mpidvc.tasks.passing import RESULT, records_of

__all__ = ["less", "merged", "read_status"]


def read_status(field: PhiField) -> Array:
    """Return statuses (n,); 1 in a field without."""
    return np.asarray(field.columns.get("returnStatus", np.ones(len(field))), np.float64)


def less(field: PhiField, registration: PhiField, apply_f: str) -> Records:
    """A field as records, its displacements less those of a registration at the same points; all else stays.

    Parameters
    ----------
    field, registration : PhiField
    apply_f : {"all", "rigid", "no"}
        Displacements to subtract: those of the whole Phi, of its translation and rotation, or of its translation.

    Returns
    -------
    (n,) records
    """
    phi = registration.phi[0]
    if apply_f == "rigid":
        phi = deformation.rigid_part(phi)
    elif apply_f == "no":
        phi = deformation.compute_phi(phi[:3, 3])
    records = _records(field, field.phi, np.arange(len(field)))
    records["phi"][:, :, 3] -= deformation.apply(phi, registration.positions[0], field.positions)
    return records


def merged(
    field: PhiField, others: Sequence[PhiField], images: Sequence[Image], prefer_labels: bool
) -> tuple[Records, int]:
    """A field as records, nodes in labels with the Phi and the numbers of the label.

    A label without a finite Phi changes nothing.

    Parameters
    ----------
    field : PhiField
    others : sequence of PhiField
        Of labels.
    images : sequence of Image
        The labels of each.
    prefer_labels : bool
        Whether nodes with the return status 2 change, too.

    Returns
    -------
    (n,) records
    int
        Number of nodes that changed.

    Raises
    ------
    UserError
        If a node lies in a label that its field does not have.
    """
    records, changed = _records(field, field.phi, np.arange(len(field))), np.zeros(len(field), bool)
    status = records["result"][:, RESULT.index("returnStatus")]
    for other, image in zip(others, images, strict=True):
        numbers = _labels_at(image, field.positions)
        last = int(numbers.max(initial=0))
        if last >= len(other):
            raise UserError(
                f"-lab1 {image.path}: has the label {last}, but its field of -pf2 ends with {len(other) - 1}; give the "
                "labels of the field"
            )
        take = (numbers > 0) & other.finite[numbers]
        if not prefer_labels:
            take &= status != 2
        rows, k = np.flatnonzero(take), numbers[take]
        phi = deformation.move_centre(other.phi[k], other.positions[k], field.positions[rows])
        records[rows] = _records(other, phi, k)
        changed[rows] = True
    return records, int(changed.sum())


def _records(field: PhiField, phi: Array, rows: Ints) -> Records:
    """Records of Phi (k, 4, 4) with the numbers of these rows (k,) of a field, as far as it has them."""
    records = records_of(phi, np.ones(len(rows)))
    for k, name in enumerate(RESULT):
        if name in field.columns:
            records["result"][:, k] = field.columns[name][rows]
    return records


def _labels_at(image: Image, positions: Array) -> Ints:
    """Labels (n,) of the voxels that points (n, 3) lie in; 0 outside of the image. The image is read piece by piece."""
    voxels = np.full(positions.shape, -1)
    finite = np.isfinite(positions).all(axis=1)
    voxels[finite] = np.floor(positions[finite] + 0.5)
    numbers = np.zeros(len(positions), np.int64)
    by_z = np.argsort(voxels[:, 0], kind="stable")
    z = voxels[by_z, 0]
    grain = image.grain if isinstance(image, Source) else (1, 1, 1)
    for low, high in in_pieces(image.shape, grain, image.dtype.itemsize):
        first, last = np.searchsorted(z, (low[0], high[0]))
        near = by_z[first:last]
        here = near[((voxels[near, 1:] >= low[1:]) & (voxels[near, 1:] < high[1:])).all(axis=1)]
        if len(here):
            part, _ = image.read_box(low, high)
            numbers[here] = part[tuple((voxels[here] - low).T)]
    return numbers
