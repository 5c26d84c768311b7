"""The run of ``mpidvc deformImage``: from its options to its files."""

from __future__ import annotations

import argparse
import contextlib
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array
from mpidvc.cli.command import Outcome
from mpidvc.cli.options import image_mode
from mpidvc.core import deformation
from mpidvc.core.grey import Criterion, choose_criterion
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image, open_image
from mpidvc.images.pair import ImagePair
from mpidvc.images.planes import DATASET, planes_to
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.deform import (
    DeformTask,
    Mesh,
    MeshMotion,
    Motion,
    NearestMotion,
    Residual,
    Slab,
    WholeMotion,
    grey_map,
    statistics,
)
from mpidvc.tasks.grey import grey_levels, region_windows, with_limits
from mpidvc.tasks.memory import LIBRARIES, PLOT, SLICED, deform_bytes, middle_slices
from mpidvc.tasks.placement import Needs, placed
from mpidvc.tasks.ranks import Team, on_leader
from mpidvc.workflow.announce import announce, describe_slices
from mpidvc.workflow.calibration import Cost, time_chunks
from mpidvc.workflow.determines import made_with, texts_of
from mpidvc.workflow.guess import read_guess, status_threshold
from mpidvc.workflow.inputs import by, open_mask
from mpidvc.workflow.motion import removed_motions
from mpidvc.workflow.output import base_name, folder_of, make_folder, output_folder
from mpidvc.workflow.plan import CorrelationPlan
from mpidvc.workflow.plot import check_plot, plot_images
from mpidvc.workflow.registration import describe_criterion
from mpidvc.workflow.stages import Stages

__all__ = ["Deformed", "Plan"]

#: Rough CPU seconds per voxel.
COST = {1: 4.0e-7, 3: 5.0e-7}
#: Voxels of a slab that is timed.
SAMPLED = 100_000


@dataclass(frozen=True)
class Deformed:
    """A deformed image.

    Attributes
    ----------
    image : Path
        File of the deformed image.
    residual : Path or None
        File of the deformed image less image 2.
    statistics : dict
        Mean and standard deviation of the residual, by ``before``, ``after``, ``before mapped``, ``after mapped``.
    filled : int
        Voxels that have a grey level.
    """

    image: Path
    residual: Path | None
    statistics: dict[str, tuple[float, float]] = field(default_factory=dict)
    filled: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan(CorrelationPlan):
    """An image to be deformed.

    Attributes
    ----------
    image : Image
    mask : Image or None
        In the deformed configuration.
    image2 : Image or None
        To be taken off the result.
    criterion : {"ssd", "znssd"}
        znssd: its grey levels are mapped to those of the image.
    motion : Motion
    target : Path
        File of the deformed image.
    plot : str or None
        File for a picture of the deformed image, and of the residual.
    """

    image: Image
    mask: Image | None
    image2: Image | None
    criterion: Criterion
    motion: Motion
    target: Path
    plot: str | None

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        guess = read_guess(args.phi_file, args.phi_file_bin_ratio)
        image = with_limits(open_image(args.im1))
        mask = open_mask(args.mask2, image, 2)
        image2 = None
        if args.im2 is not None:
            image2 = with_limits(open_image(args.im2))
            if image2.shape != image.shape:
                raise UserError(
                    f"--residual {image2.path}: has {by(image2.shape)} voxels but {image.path} has {by(image.shape)}; "
                    "both need the same shape"
                )
        given = guess.registration or guess.field
        assert given is not None
        if (given.layout == "registration" or len(given) > 1) and image.two_d != bool(
            np.all(given.positions[:, 0] == 0)
        ):
            raise UserError(f"-pf {guess.name}: is of {'3D' if image.two_d else '2D'} images, but {image.path} is not")
        if image2 is not None and removed_motions(guess.name):
            console.warn(
                f"-pf {guess.name}: a motion of the whole was removed from it, so that it does not lead to image 2; "
                "take the field before for a residual"
            )
        check_plot(args.plot)
        folder = output_folder(args, folder_of(args.im1, real=True))
        console.print("")
        announce(console, "deformImage", args)
        describe_slices(console, image)
        name, motion = _motion(given, guess.name, image, args, console)
        criterion: Criterion = "ssd"
        if image2 is not None:
            criterion = _criterion(ImagePair(image, image2, None), args, console)
        stem = args.prefix if args.prefix is not None else base_name(args.im1)
        return cls(
            image=image,
            mask=mask,
            image2=image2,
            criterion=criterion,
            motion=motion,
            target=folder / f"{stem}-{name}{'.h5' if args.as_hdf5 else '.tif'}",
            plot=args.plot,
            estimated_seconds=math.prod(image.shape) * COST[args.interpolation_order],
            image_mode=image_mode(args),
            memory=args.memory,
        )

    def needs(self) -> Needs:
        images = [self.image, self.mask, self.image2]
        chunk, result = deform_bytes(self.image, self.motion, self.image2 is not None)
        rows = 1 if self.image2 is None else 2
        # slabs of other ranks wait there; the arrays of the motion are there, and once more on the node
        return Needs(
            [images],
            chunk,
            rank0=LIBRARIES + 2 * result + 2 * self.motion.nbytes,
            ending0=0 if self.plot is None else PLOT + SLICED * rows * middle_slices(self.image.shape),
            less="an image in HDF5 or uncompressed",
        )

    def cost(self, budget: float) -> Cost:
        residual = None if self.image2 is None else Residual(self.image2, 1.0, 0.0)
        task = DeformTask(self.image, self.motion, self.mask, residual)
        passes = 2 if residual is not None and self.criterion == "znssd" else 1
        if budget == 0:
            return Cost(passes * self.estimated_seconds, task.n_chunks)
        # thinner slabs will do
        nz, ny, nx = self.image.shape
        chunks, task.planes = task.n_chunks, max(1, min(task.planes, SAMPLED // (ny * nx)))
        sample = [passes * seconds for _, seconds, _ in time_chunks(task.run, nz // task.planes, budget)]
        total = sum(sample) / len(sample) / task.planes * nz
        return Cost(total, chunks, (total / chunks,))

    def for_workers(self) -> Plan:
        return replace(super().for_workers(), motion=self.motion.for_workers())

    def written(self) -> tuple[list[tuple[Path, int]], int]:
        n = math.prod(self.image.shape)
        found = [(self.target, n * self.image.dtype.itemsize)]
        return (found if self.image2 is None else [*found, (self._target2, 4 * n)]), 0

    @property
    def _target2(self) -> Path:
        """File of the residual."""
        return self.target.with_name(f"{self.target.stem}-residual{self.target.suffix}")

    def execute(self, executor: Executor, console: Console) -> Outcome:
        on_leader(executor, lambda: make_folder(self.target.parent))
        with placed(executor, self.placement, [self.image, self.mask, self.image2], console.note) as images:
            plan = replace(self, image=images[0], mask=images[1], image2=images[2])
            return plan._deform(executor, console)

    def _deform(self, executor: Executor, console: Console) -> Outcome:
        stages = Stages(executor)
        with stages.stage("source"):
            motion = self.motion.shared(executor)
        image2 = self.image2
        residual = None if image2 is None else Residual(image2, 1.0, 0.0)
        task = DeformTask(self.image, motion, self.mask, residual)
        if image2 is not None and self.criterion == "znssd":
            # the map follows from all voxels that are compared: they are compared twice
            residual = Residual(image2, *grey_map(executor.reduce(task, None)))
            task = DeformTask(self.image, motion, self.mask, residual)
        sums: dict[int, Array] = {}
        filled = 0
        target2 = None if residual is None else self._target2
        with stages.stage("points", count_cpu=True), contextlib.ExitStack() as stack:
            put = put2 = None
            if executor.rank == 0:
                put = stack.enter_context(planes_to(self.target, self.image, self.target.stem, False))
                if target2 is not None:
                    put2 = stack.enter_context(planes_to(target2, self.image, target2.stem, False, np.float32))

            def write(chunk: int, slab: Slab) -> None:
                nonlocal filled
                assert put is not None
                put(chunk * task.planes, slab.planes)
                if put2 is not None and slab.residual is not None and slab.sums is not None:
                    put2(chunk * task.planes, slab.residual)
                    sums[chunk] = slab.sums
                filled += slab.filled

            executor.map(task, write if executor.rank == 0 else None)
        stages.report(math.prod(self.image.shape))
        if executor.rank != 0:
            return Outcome(0)
        told = {}
        n = math.prod(self.image.shape)
        console.print(f"Filled: {filled} of {n} voxels ({100 * filled / n:.1f} %)")
        total = sum((sums[chunk] for chunk in sorted(sums)), np.zeros(1))
        if residual is not None and total[0] > 0:
            told = statistics(total, residual.gain, residual.bias)
            _report(told, self.criterion == "znssd", console)
        for path in (self.target, target2):
            if path is not None:
                console.print(f"Written: {path}")
        if self.plot is not None:
            drawn = {"deformed": self.target} | ({} if target2 is None else {"residual": target2})
            plot_images(self.plot, {name: open_image(_named(path)) for name, path in drawn.items()})
            console.print(f"Written: {self.plot}")
        if filled == 0:
            console.warn("no voxel is filled: the deformed points, or the mask, lie outside of the image")
        images = (self.target,) if target2 is None else (self.target, target2)
        return Outcome(0 if filled else 1, Deformed(self.target, target2, told, filled), images)


def _named(path: Path) -> str:
    """The image in a file written, as `open_image` takes it."""
    return f"{path}::/{DATASET}" if path.suffix == ".h5" else str(path)


def _criterion(pair: ImagePair, args: argparse.Namespace, console: Console) -> Criterion:
    """The criterion asked for, else that of the correlation that measured the field, else that of the grey levels."""
    if args.criterion == "auto" and isinstance(args.phi_file, str):
        found = made_with(texts_of(args.phi_file)).get("--criterion", [None])[0]
        if found in ("ssd", "znssd"):
            console.tell(f"Criterion: {found} (that of {args.phi_file})")
            return "ssd" if found == "ssd" else "znssd"
    choice = choose_criterion(
        args.criterion, grey_levels(pair, region_windows(pair.image1.shape, (0, 0, 0), np.eye(4)))
    )
    console.tell(describe_criterion(choice))
    return choice.criterion


def _report(found: dict[str, tuple[float, float]], mapped: bool, console: Console) -> None:
    """Print the statistics of the residual."""
    for more, title in (("", "grey levels as they are"), (" mapped", "grey levels of image 2 mapped"))[: 1 + mapped]:
        before, after = found[f"before{more}"], found[f"after{more}"]
        console.print(
            f"Residual, {title}: mean {before[0]:.5g}, standard deviation {before[1]:.5g} before; "
            f"mean {after[0]:.5g}, standard deviation {after[1]:.5g} after"
        )


def _motion(given: PhiField, name: str, image: Image, args: argparse.Namespace, console: Console) -> tuple[str, Motion]:
    """End of the file's name, and the motion."""
    if len(given) == 1:
        phi = deformation.rigid_part(given.phi[0]) if args.rigid else given.phi[0]
        if not (np.isfinite(phi).all() and np.linalg.det(phi[:3, :3]) > 0):
            raise UserError(f"-pf {name}: its Phi is no deformation (the determinant of F is not above 0)")
        for option, asked in (("-tet", args.mesh), ("-disp", args.displacements_only)):
            if asked:
                console.note(f"{option}: does not count, -pf is a single Phi")
        return "reg-def", WholeMotion(phi, given.positions[0], 3 if image.two_d else 1)
    if args.rigid:
        console.note("-rr: does not count, -pf is a field")
    used = _used(given, name, image, args, console)
    positions, phi = given.positions[used], given.phi[used]
    if args.mesh and image.two_d:
        console.note("-tet: is for 3D images; the nearest points are taken instead")
    elif args.mesh:
        return "tetMesh-def", _mesh(positions, phi, name, args, console)
    nearest = min(args.neighbours, len(positions))
    if nearest < args.neighbours:
        console.note(f"-nn {args.neighbours}: there are {nearest} points; all of them are averaged")
    motion = NearestMotion(positions, phi, nearest, args.displacements_only, args.interpolation_order, image.two_d)
    return "disp-def" if args.displacements_only else "def", motion


def _used(
    given: PhiField, name: str, image: Image, args: argparse.Namespace, console: Console
) -> npt.NDArray[np.bool_]:
    """Points (n,) of the field that take part.

    Raises
    ------
    UserError
        If there is none.
    """
    finite = given.finite
    singular = finite.copy()
    singular[finite] = np.linalg.det(given.F[finite]) <= 0
    used = finite & ~singular
    if "returnStatus" in given.columns:
        status = np.asarray(given.columns["returnStatus"], np.float64)
        used &= status >= status_threshold(given, args.return_status_threshold, console)
    if args.radius_limit is not None:
        middle = (np.array(image.shape[1:]) - 1) / 2
        used &= np.hypot(*(given.positions[:, 1:] - middle).T) <= args.radius_limit
    n = int(np.count_nonzero(used))
    console.print(f"Points: {n} of {len(used)} are used")
    if singular.any():
        console.note(f"{np.count_nonzero(singular)} points are left out: their F has no inverse")
    if n == 0:
        raise UserError(f"-pf {name}: none of its {len(used)} points is left; lower -rst, or enlarge -rad")
    return np.asarray(used)


def _mesh(positions: Array, phi: Array, name: str, args: argparse.Namespace, console: Console) -> MeshMotion:
    """The motion of ``-tet``.

    Raises
    ------
    UserError
        If there is no mesh.
    """
    displacements = phi[:, :3, 3]
    try:
        mesh = Mesh.of(positions + displacements, args.alpha)
    except ValueError as error:
        raise UserError(f"-tet: there is no mesh of the {len(positions)} points of {name}: {error}") from None
    told = "" if mesh.alpha is None else f", alpha {mesh.alpha:.6g}"
    console.print(f"Mesh: {len(mesh.vertices)} tetrahedra{told}")
    if len(mesh.vertices) == 0:
        raise UserError(f"-a {args.alpha:g}: leaves no tetrahedron; make it larger")
    return MeshMotion(positions, displacements, mesh.vertices, args.conserve)
