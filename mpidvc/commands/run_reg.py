"""The run of ``mpidvc reg``: from its options to its files."""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mpidvc.arrays import Array
from mpidvc.atomic import replacing
from mpidvc.commands import files
from mpidvc.commands.options import image_mode
from mpidvc.commands.run import Stages, WithInstructionSet, WithPlacement, describe_criterion, settings_of
from mpidvc.core import deformation
from mpidvc.core.grey import choose_criterion
from mpidvc.core.registration import STATUS, RegistrationSettings
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import write_tsv
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.images.source import CACHE
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.grey import grey_levels, region_windows
from mpidvc.tasks.memory import looking_bytes, registration_bytes, tile_bytes, warp_bytes
from mpidvc.tasks.placement import Needs, placed
from mpidvc.tasks.registration import LevelSettings, Outcome, mask_centre, register_multiscale
from mpidvc.tasks.warp import WarpTask

__all__ = ["RegPlan", "execute", "prepare"]


#: Rough CPU seconds per voxel: some iterations on every level.
COST = {1: 4.0e-8, 3: 1.2e-7}


@dataclass(frozen=True)
class RegPlan(WithInstructionSet, WithPlacement):
    """What is to be done."""

    image1: Image
    image2: Image
    mask1: Image | None
    settings: RegistrationSettings
    levels: LevelSettings
    guess: Array
    report_at: Array
    folder: Path
    stem: str
    deformed_stem: str | None
    slices: bool
    journal: bool
    graph: bool
    criterion: str
    estimated_seconds: float

    def needs(self) -> Needs:
        """What the run needs of memory."""
        images = (self.image1, self.image2, self.mask1)
        chunk = registration_bytes(ImagePair(*images), self.settings, self.guess[:3, :3] - np.eye(3))
        if self.deformed_stem is not None:
            chunk = max(chunk, warp_bytes(self.image1))
        begin = self.levels.begin
        tiles = [tile_bytes(self.image1, begin, False), tile_bytes(self.image2, begin, False)]
        if self.mask1 is not None:
            tiles.append(tile_bytes(self.mask1, begin, True))
        return Needs([images], chunk, rank0=looking_bytes(None), tiles=tiles, less="a coarser last level (-be)")


def prepare(args: argparse.Namespace, notes: list[str], console: Console) -> RegPlan:
    """Open and check everything; print the settings."""
    guess = files.read_guess(args.phi_file, args.phi_file_bin_ratio)
    if guess is not None and guess.layout != "registration":
        raise UserError(
            f"-pf {args.phi_file}: is a field of {len(guess)} points; reg starts from a single registration"
        )
    image1, image2 = files.open_pair(args.im1, args.im2)
    mask1 = files.open_mask(args.mask1, image1)
    if args.graph:
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise UserError("-g: matplotlib is not installed; pip install matplotlib") from None
    centre = (np.array(image1.shape) - 1) / 2
    report_at = mask_centre(mask1) if args.return_phi_mask_centre and mask1 is not None else centre
    start = np.eye(4)
    if guess is not None:
        start = deformation.move_centre(guess.phi[0], guess.positions[0], centre)
    folder = files.make_folder(args.out_dir, files.folder_of(args.im1, real=True), args.prefix)
    names = f"{files.base_name(args.im1)}-{files.base_name(args.im2)}"
    stem = f"{names if args.prefix is None else args.prefix}-registration"
    console.print("")
    console.settings("mpidvc reg", settings_of(args))
    console.print("")
    for note in notes:
        console.note(note)
    if guess is not None:
        console.print(files.describe_guess(guess, args.phi_file, args.phi_file_bin_ratio))
    levels = LevelSettings(args.bin_begin, args.bin_end, args.margin)
    windows = region_windows(image1.shape, levels.margin_of(image1.shape, 1), start)
    grey = grey_levels(ImagePair(image1, image2, mask1), windows)
    choice = choose_criterion(args.criterion, grey)
    settings = RegistrationSettings(
        order=args.interpolation_order,
        max_iterations=args.max_iterations,
        min_delta_phi=args.min_delta_phi,
        rigid=args.rigid,
        update_gradient=args.update_gradient,
        sigma=args.gaussian_sigma if args.gradient_method == "gaussian" else None,
        shift=args.shift,
        criterion=choice.criterion,
        gain=choice.gain,
        bias=choice.bias,
        level=grey.mean1,
    )
    levels.usable(image1, settings)
    return RegPlan(
        image1,
        image2,
        mask1,
        settings,
        levels,
        start,
        report_at,
        folder,
        stem,
        # spam ignores -pre here too
        f"{files.base_name(args.im1)}-reg-def" if args.save_deformed_image1 else None,
        Path(args.im1).is_dir(),
        args.journal,
        args.graph,
        describe_criterion(choice),
        math.prod(image1.shape) * COST[args.interpolation_order] / args.bin_end**3,
        image_mode=image_mode(args),
        memory=args.memory,
    )


def execute(plan: RegPlan, executor: Executor, console: Console) -> int:
    """Register, write the files, and return the exit status: 0 if there is a result to trust."""
    images = (plan.image1, plan.image2, plan.mask1)
    with placed(executor, plan.placement, images, console.note) as (image1, image2, mask1):
        return _register(replace(plan, image1=image1, image2=image2, mask1=mask1), executor, console)


def _register(plan: RegPlan, executor: Executor, console: Console) -> int:
    stages = Stages(executor)
    console.print(plan.criterion)
    watch = None
    if plan.graph:
        from mpidvc.commands.plots import RegistrationPlot

        watch = RegistrationPlot(plan.image1, plan.image2, plan.settings.order)
    with stages.stage("points", count_cpu=True):
        outcome = register_multiscale(
            executor,
            ImagePair(plan.image1, plan.image2, plan.mask1),
            plan.settings,
            plan.levels,
            plan.guess,
            console.print,
            watch.show if watch is not None and watch.live else None,
            CACHE if plan.placement is None else plan.placement.cache_bytes,
        )
    last = outcome.last
    with stages.stage("write"):
        path = plan.folder / f"{plan.stem}.tsv"
        if executor.rank == 0:
            write_tsv(path, _result(plan, outcome), "LDIC")
        console.print(f"Written: {path}")
        if executor.rank == 0 and plan.journal:
            journal = plan.folder / f"{plan.stem}-iterations.npy"
            _write_journal(journal, outcome)
            console.print(f"Written: {journal}")
        if executor.rank == 0 and watch is not None:
            plot = plan.folder / f"{plan.stem}.png"
            watch.save(plot, outcome.phi)
            console.print(f"Written: {plot}")
        if plan.deformed_stem is not None and last.status > 0:
            _write_deformed(plan, outcome, executor, console)
    stages.report(1)
    if last.status == 2:
        console.print("Registration converged")
    elif last.status == 1:
        console.warn(
            f"the registration has not converged at binning {outcome.binning} (return status 1: {STATUS[1]}); the last "
            "Phi is saved"
        )
    else:
        console.warn(
            f"the registration failed (return status {last.status}: {STATUS[last.status]}); Phi is saved, but do not "
            "trust it"
        )
    # stopped by -it on the last level is what was asked for; on a coarser one it is no result for the images
    return 0 if last.status == 2 or (last.status == 1 and outcome.binning == plan.levels.end) else 1


def _result(plan: RegPlan, outcome: Outcome) -> PhiField:
    last = outcome.last
    columns = {
        "error": last.error,
        "iterations": last.iterations,
        "returnStatus": last.status,
        "deltaPhiNorm": last.delta_phi_norm,
    }
    phi = deformation.move_centre(outcome.phi, outcome.centre, plan.report_at)
    return PhiField(
        plan.report_at[None], phi[None], {name: np.array([value]) for name, value in columns.items()}, "registration"
    )


def _write_journal(path: Path, outcome: Outcome) -> None:
    """History of the last level: lists t, r, z, error, deltaPhiNorm, the start first, as a pickled dictionary."""
    steps = outcome.last.history
    R, U = deformation.polar(np.array([step.phi[:3, :3] for step in steps]).reshape(-1, 3, 3))
    record = {
        "t": [step.phi[:3, 3].tolist() for step in steps],
        "r": [deformation.rotation_vector(one).tolist() if np.isfinite(one).all() else [math.nan] * 3 for one in R],
        "z": [np.diag(one).tolist() for one in U],
        "error": [step.error for step in steps],
        "deltaPhiNorm": [step.delta_phi_norm for step in steps],
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.array(record, dtype=object), allow_pickle=True)


def _write_deformed(plan: RegPlan, outcome: Outcome, executor: Executor, console: Console) -> None:
    """Image 1 deformed by Phi: trilinear in 3D, cubic in 2D; one TIFF, or a folder of slices for a folder."""
    two_d = plan.image1.two_d
    task = WarpTask(plan.image1, outcome.phi, outcome.centre, 3 if two_d else 1)
    name = str(plan.deformed_stem)
    if executor.rank != 0:
        executor.map(task, None)
        return
    target = plan.folder / (name if plan.slices else f"{name}.tif")
    with _planes_to(target, plan.image1, name, plan.slices) as put:
        executor.map(task, lambda chunk, planes: put(chunk * task.planes, planes))
    console.print(f"Written: {target}")


@contextmanager
def _planes_to(
    target: Path, image: Image, name: str, slices: bool
) -> Iterator[Callable[[int, npt.NDArray[np.generic]], None]]:
    """Give a function ``put(first plane, planes)``; the file, or folder of slices, appears whole or not at all."""
    import tifffile

    if not slices:
        shape = image.shape[1:] if image.two_d else image.shape
        with replacing(target) as temporary:
            volume = tifffile.memmap(
                temporary,
                shape=shape,
                dtype=image.dtype,
                photometric="minisblack",
                metadata={"axes": "YX" if len(shape) == 2 else "ZYX"},
            )

            def put_planes(first: int, planes: npt.NDArray[np.generic]) -> None:
                volume.reshape(image.shape)[first : first + len(planes)] = planes

            yield put_planes
            volume.flush()
        return

    folder = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    digits = len(str(image.shape[0] - 1))

    def put_slices(first: int, planes: npt.NDArray[np.generic]) -> None:
        for k, plane in enumerate(planes):
            tifffile.imwrite(folder / f"{name}-{first + k:0{digits}d}.tif", plane, photometric="minisblack")

    try:
        folder.mkdir()
        yield put_slices
        if target.is_dir():
            shutil.rmtree(target)
        folder.replace(target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); check the output directory") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
