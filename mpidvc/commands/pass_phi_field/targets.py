"""The points that a field is passed to: nodes of a grid, or centres of mass of labels."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpidvc.arrays import Ints, Triple, is_two_d
from mpidvc.cli.options import require
from mpidvc.core.labels import Labels
from mpidvc.images.fingerprint import fingerprint
from mpidvc.images.image import open_image
from mpidvc.runtime.console import Console
from mpidvc.tasks.ranks import Team
from mpidvc.workflow.guess import Nodes, grid_nodes
from mpidvc.workflow.labels import labels_of

__all__ = ["Targets", "targets_of"]


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The new points.

    Attributes
    ----------
    nodes : Nodes
    suffix : str
        Of the names of the files.
    two_d : bool
    radius : float
        Distance within which neighbours are taken by default, voxels.
    missing : (k,) int64
        Rows without a position.
    determines : dict
        What determines the points.
    """

    nodes: Nodes
    suffix: str
    two_d: bool
    radius: float
    missing: Ints
    determines: dict[str, Any]


def targets_of(args: argparse.Namespace, console: Console, team: Team) -> Targets:
    """The points that ``-lab1``, or ``-ns`` with ``-im1`` or ``-im1shape``, ask for.

    Raises
    ------
    UserError
        If a file cannot be opened, or there is no point.
    """
    if args.labels1 is not None:
        return _labels(args.labels1[0], console, team)
    z, y, x = args.image1_shape or (0, 0, 0)
    shape: Triple = (z, y, x) if args.image1 is None else open_image(args.image1).shape
    spacing: Triple = args.node_spacing
    suffix = "-ns" + "-".join(map(str, spacing[:1] if len({*spacing}) == 1 else spacing))
    two_d = is_two_d(shape)
    if two_d:
        spacing = (1, *spacing[1:])
    else:
        require(spacing[0] >= 1, "-ns", spacing, "has to be at least 1 along z in 3D")
    return Targets(
        nodes=grid_nodes(shape, spacing),
        suffix=suffix,
        two_d=two_d,
        # z is no direction of a photograph
        radius=2.0 * int(np.mean(spacing[1:] if two_d else spacing)),
        missing=np.zeros(0, np.int64),
        determines={"size of the image (-im1, -im1shape)": shape, "-ns": spacing},
    )


def _labels(path: str, console: Console, team: Team) -> Targets:
    image = open_image(path, "labels")
    labels = labels_of(image, console, team)
    return Targets(
        nodes=Nodes.of_labels(labels.centre),
        suffix="-labelled",
        two_d=labels.two_d,
        radius=5 * _mean_radius(labels),
        missing=labels.missing,
        determines={"labels (-lab1)": fingerprint(image)},
    )


def _mean_radius(labels: Labels) -> float:
    """Mean radius of the balls (in 2D discs) as large as the labels, voxels."""
    volume = labels.volume[labels.numbers]
    radii = np.sqrt(volume / math.pi) if labels.two_d else np.cbrt(3 * volume / (4 * math.pi))
    return float(radii.mean())
