"""The motions that were removed from a field, as its results file keeps them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from mpidvc.core.deformation import polar, rotation_vector
from mpidvc.core.motion import CommonMotion
from mpidvc.runtime.console import Console
from mpidvc.workflow.determines import texts_of

__all__ = ["REMOVED", "as_removed", "removed_motions", "show_motion"]

#: Attribute of a results file: a JSON list of the motions that were removed, the first one first.
REMOVED = "removed_motion"


def as_removed(motion: CommonMotion) -> dict[str, Any]:
    """A motion as it is kept: its kind, Phi and centre."""
    return {"kind": motion.kind, "phi": motion.phi.tolist(), "centre": motion.centre.tolist()}


def removed_motions(name: str, bin_ratio: float = 1.0) -> list[dict[str, Any]]:
    """The motions that were removed from the field of a file, in voxels times `bin_ratio`; none if it does not say."""
    found: list[dict[str, Any]] = json.loads(texts_of(name).get(REMOVED, "[]"))
    for one in found:
        phi = np.array(one["phi"], np.float64)
        phi[:3, 3] *= bin_ratio
        one["phi"], one["centre"] = phi.tolist(), [bin_ratio * float(x) for x in one["centre"]]
    return found


def show_motion(console: Console, motion: CommonMotion) -> None:
    """Print a motion that is removed."""

    def text(values: Any, digits: int) -> str:
        return " ".join(f"{value:.{digits}f}" for value in values)

    R, U = polar(motion.phi[:3, :3])
    lines = [
        f"Removed motion ({motion.kind}), z y x, about {text(motion.centre, 1)}:",
        f"  translation {text(motion.phi[:3, 3], 4)} voxels, rotation vector {text(rotation_vector(R), 4)} degrees",
    ]
    if motion.kind == "similarity":
        lines.append(f"  stretch {U[2, 2]:.6f}")
    elif motion.kind == "affine":
        lines.append(f"  stretch U (zz zy zx yy yx xx) {text(U[np.triu_indices(3)], 6)}")
    lines.append(
        f"  scatter about it {motion.scatter:.4f} voxels; {1 - motion.share:.1%} of the good points are far from it"
    )
    console.print("\n".join(lines))
