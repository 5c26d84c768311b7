"""The run of ``mpidvc reg``: from its options to its files."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mpidvc.arrays import Array
from mpidvc.atomic import replacing
from mpidvc.cli.command import Outcome
from mpidvc.cli.options import image_mode
from mpidvc.core import deformation
from mpidvc.core.coarse import Found
from mpidvc.core.coarse_refinement import Candidate
from mpidvc.core.grey import Choice, choose_criterion
from mpidvc.core.registration import RegistrationSettings
from mpidvc.core.statuses import CORRELATION
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import write_tsv
from mpidvc.images.pair import ImagePair
from mpidvc.images.planes import planes_to
from mpidvc.images.source import CACHE
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor, InlineExecutor
from mpidvc.tasks.coarse import coarse_motion
from mpidvc.tasks.deform import DeformTask, WholeMotion
from mpidvc.tasks.grey import grey_levels, region_windows
from mpidvc.tasks.memory import (
    COMPARED,
    LIBRARIES,
    PLOT,
    deform_bytes,
    looking_bytes,
    middle_slices,
    registration_bytes,
    tile_bytes,
)
from mpidvc.tasks.placement import Needs, placed
from mpidvc.tasks.ranks import Team, on_leader
from mpidvc.tasks.registration import (
    LevelSettings,
    RegistrationResult,
    RegistrationTask,
    mask_centre,
    register_multiscale,
)
from mpidvc.workflow.announce import announce, describe_slices
from mpidvc.workflow.calibration import Cost
from mpidvc.workflow.guess import read_guess
from mpidvc.workflow.inputs import open_pair
from mpidvc.workflow.output import base_name, folder_of, make_folder, output_folder, pair_name
from mpidvc.workflow.plan import CorrelationPlan
from mpidvc.workflow.plot import need_matplotlib
from mpidvc.workflow.registration import describe_criterion, registration_settings
from mpidvc.workflow.stages import Stages

__all__ = ["Plan"]

#: Rough CPU seconds per voxel: some iterations on every level.
COST = {1: 1.0e-8, 3: 4.0e-8}
#: CPU seconds of a coarse search in 2D and in 3D; the images do not count.
SEARCH_2D, SEARCH = 1.5, 12.0
#: Bytes that a coarse search takes on every rank, and again on rank 0: some 100³ voxels of both images, and copies.
SEARCH_BYTES = 30_000_000
#: Bound of the entries of F for any rotation: the diagonal of a registration's block is at most this share of the sum
#: of its sides.
ANY_ROTATION = 0.75
#: Without a guess a registration may have converged to a wrong place if its ZNCC is below this, or a stretch so far
#: from 1: the outline of a specimen fits nearly as well when the specimen is turned.
WEAK, STRETCHED = 0.95, 0.15
#: Usual number of iterations, and coarsest binning that is tried for its time.
USUAL, COARSEST = 10, 16


#: What is said where a coarse search has found two motions that are nearly as good.
DOUBTFUL = (
    "the coarse search found another motion that is nearly as good (next best, above): the images may not belong "
    "together, or the specimen looks the same from two sides. Check the result (-g, deformImage --residual); "
    "--max-angle, a mask (-mf1) or mpidvc ereg settle it"
)


@dataclass(frozen=True, kw_only=True)
class Plan(CorrelationPlan):
    """Two images to be registered.

    Attributes
    ----------
    images : ImagePair
    settings : RegistrationSettings
    levels : LevelSettings
    guess : (4, 4) float64
        First Phi, about the centre of the image, voxels.
    guessed : bool
        Whether the user gave it.
    max_angle : float or None
        Largest rotation of a coarse search that finds it, degrees; None: there is no search.
    asked_criterion : str
        The value of ``--criterion``.
    report_at : (3,) float64
        Point about which Phi is written, voxels.
    stem : Path
        Of the files that are written.
    deformed : Path or None
        Stem of the deformed image 1, if it is asked for.
    slices : bool
        Whether that is a folder of slices.
    history, graph : bool
        Whether the iterations, and a picture, are written.
    criterion : str
        The line about it.
    """

    images: ImagePair
    settings: RegistrationSettings
    levels: LevelSettings
    guess: Array
    guessed: bool
    max_angle: float | None
    asked_criterion: str
    report_at: Array
    stem: Path
    deformed: Path | None
    slices: bool
    history: bool
    graph: bool
    criterion: str

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        guess = read_guess(args.phi_file, args.phi_file_bin_ratio)
        if guess.field is not None:
            raise UserError(
                f"-pf {guess.name}: is a field of {len(guess.field)} points; reg starts from a single registration"
            )
        images = open_pair(args.im1, args.im2, args.mask1)
        image1, mask1 = images.image1, images.mask1
        if args.graph:
            need_matplotlib("-g")
        centre = (np.array(image1.shape) - 1) / 2
        start = np.eye(4)
        if guess.registration is not None:
            start = deformation.move_centre(guess.registration.phi[0], guess.registration.positions[0], centre)
        report_at = mask_centre(mask1) if args.return_phi_mask_centre and mask1 is not None else centre
        folder = output_folder(args, folder_of(args.im1, real=True))
        console.print("")
        announce(console, "reg", args)
        describe_slices(console, images.image1, images.image2)
        guess.announce(console, image1.shape, tif=False)
        levels = LevelSettings(args.bin_begin, args.bin_end, args.margin)
        choice, mean = _criterion(args.criterion, images, levels, start)
        settings = replace(
            registration_settings(args, choice, args.rigid, args.shift),
            sigma=args.gaussian_sigma if args.gradient_method == "gaussian" else None,
            level=mean,
        )
        levels.usable(image1, settings)
        return cls(
            images=images,
            settings=settings,
            levels=levels,
            guess=start,
            guessed=guess.registration is not None,
            max_angle=args.max_angle if args.coarse else None,
            asked_criterion=args.criterion,
            report_at=report_at,
            stem=folder / pair_name(args, "registration"),
            # spam ignores -pre here too
            deformed=folder / f"{base_name(args.im1)}-reg-def" if args.save_deformed_image1 else None,
            slices=isinstance(args.im1, str) and Path(args.im1).is_dir(),
            history=args.journal,
            graph=args.graph,
            criterion=describe_criterion(choice),
            estimated_seconds=math.prod(image1.shape)
            * COST[args.interpolation_order]
            / args.bin_end ** (2 if image1.two_d else 3)
            + (0.0 if not args.coarse else SEARCH_2D if image1.two_d else SEARCH),
            image_mode=image_mode(args),
            memory=args.memory,
        )

    def needs(self) -> Needs:
        images, begin = self.images, self.levels.begin
        F = self.guess[:3, :3] if self.max_angle is None else np.full((3, 3), ANY_ROTATION)
        chunk = registration_bytes(images, self.settings, F - np.eye(3), self.levels.end)
        if self.deformed is not None:
            chunk = max(chunk, deform_bytes(images.image1, self._motion(np.eye(4), np.zeros(3)), residual=False)[0])
        search = 0 if self.max_angle is None else SEARCH_BYTES
        tiles = [tile_bytes(image, begin, False) for image in (images.image1, images.image2)]
        if images.mask1 is not None:
            tiles.append(tile_bytes(images.mask1, begin, True))
        return Needs(
            [images],
            max(chunk, search),
            rank0=LIBRARIES + search + (PLOT + COMPARED * middle_slices(images.image1.shape) if self.graph else 0),
            looking=looking_bytes(None),
            tiles=tiles,
            swept=self.max_angle is None,
            less="a coarser last level (-be)",
        )

    def cost(self, budget: float) -> Cost:
        """Coarse levels are registered; a finer one takes as many iterations as the last of them, of more voxels."""
        image, levels = self.images.image1, self.levels
        larger = 4 if image.two_d else 8
        blocks = RegistrationTask(self.images, self.settings, levels.margin_of(image.shape, 1)).n_chunks
        blocks = max(1, blocks // levels.end ** (2 if image.two_d else 3))
        if budget == 0:
            return Cost(self.estimated_seconds, blocks * USUAL, rounds=USUAL)
        end, expected = levels.end, self.estimated_seconds
        while expected > budget and end < COARSEST:
            end, expected = 2 * end, expected / larger
        executor, searched, guess = InlineExecutor(), 0.0, self.guess
        begun = time.process_time()
        if self.max_angle is not None:
            guess = coarse_motion(executor, self.images, self.max_angle).best.phi
            searched = time.process_time() - begun
        coarse = replace(levels, begin=max(levels.begin, end), end=end)
        found = register_multiscale(executor, self.images, self.settings, coarse, guess, lambda line: None)
        spent = time.process_time() - begun - searched
        # the coarser levels before took an eighth each time
        last = spent if coarse.begin == end else spent * (1 - 1 / larger)
        seconds, remark = spent, ""
        if end > levels.end:
            remark = f"levels up to binning {end} were measured; finer ones are taken to need as many iterations"
        while end > levels.end:
            end, last = end // 2, last * larger
            seconds += last
        rounds = max(found.last.iterations, 1)
        one = seconds / blocks / rounds
        return Cost(seconds + searched, blocks * rounds, (one,), 1, {f"{found.last.status}": 1}, rounds, remark)

    def written(self) -> tuple[list[tuple[Path, int]], int]:
        found = [(Path(f"{self.stem}.tsv"), 500)]
        if self.deformed is not None:
            target = self.deformed if self.slices else self.deformed.with_name(f"{self.deformed.name}.tif")
            found.append((target, math.prod(self.images.image1.shape) * self.images.image1.dtype.itemsize))
        return found, 0

    def execute(self, executor: Executor, console: Console) -> Outcome:
        on_leader(executor, lambda: make_folder(self.stem.parent))
        stages = Stages(executor)
        with placed(executor, self.placement, self.images, console.note) as images:
            plan = replace(self, images=ImagePair._make(images))
            if self.max_angle is None:
                return plan._register(executor, console, stages, doubtful=False)
            with stages.stage("search", count_cpu=True):
                plan, found = plan._searched(executor, console)
            return plan._register(executor, console, stages, found.doubtful)

    def _searched(self, executor: Executor, console: Console) -> tuple[Plan, Found]:
        """The plan with the guess that a coarse search finds; every rank calls it."""
        assert self.max_angle is not None
        with console.progress(1, "coarse search", "steps") as progress:

            def show(done: int, total: int) -> None:
                progress.total = total
                progress.advance(done - progress.done)

            found = coarse_motion(executor, self.images, self.max_angle, show)
        console.tell(f"Coarse search: {_motion(found.best, self.images.two_d)}")
        if found.second is not None:
            console.tell(f"    next best: {_motion(found.second, self.images.two_d)}")
        guess = found.best.phi
        choice, mean = on_leader(executor, lambda: _criterion(self.asked_criterion, self.images, self.levels, guess))
        settings = replace(self.settings, criterion=choice.criterion, gain=choice.gain, bias=choice.bias, level=mean)
        return replace(self, guess=guess, settings=settings, criterion=describe_criterion(choice)), found

    def _register(self, executor: Executor, console: Console, stages: Stages, doubtful: bool) -> Outcome:
        console.tell(self.criterion)
        watch = None
        if self.graph:
            from mpidvc.commands.reg.plot import RegistrationPlot

            watch = RegistrationPlot(self.images.image1, self.images.image2, self.settings.order)
        with stages.stage("points", count_cpu=True):
            found = register_multiscale(
                executor,
                self.images,
                self.settings,
                self.levels,
                self.guess,
                console.tell,
                watch.show if watch is not None and watch.live else None,
                CACHE if self.placement is None else self.placement.cache_bytes,
            )
        field = self._result(found)
        with stages.stage("write"):
            if executor.rank == 0:
                write_tsv(f"{self.stem}.tsv", field, "LDIC")
            console.print(f"Written: {self.stem}.tsv")
            if executor.rank == 0 and self.history:
                _write_history(Path(f"{self.stem}-iterations.npy"), found)
                console.print(f"Written: {self.stem}-iterations.npy")
            if executor.rank == 0 and watch is not None:
                watch.save(Path(f"{self.stem}.png"), found.phi)
                console.print(f"Written: {self.stem}.png")
            if self.deformed is not None and found.last.status > 0:
                self._write_deformed(self.deformed, found, executor, console)
        stages.report(1)
        status = found.last.status
        told = f"return status {status}: {CORRELATION[status].meaning}"
        if status == 2:
            console.print("Registration converged")
            if self.max_angle is None and not self.guessed:
                self._note_wrong_place(found, console)
        elif status == 1:
            console.warn(
                f"the registration has not converged at binning {found.binning} ({told}); the last Phi is saved"
                f"{self._remedy(found)}"
            )
        else:
            console.warn(f"the registration failed ({told}); Phi is saved, but do not trust it{self._remedy(found)}")
        if doubtful:
            console.warn(DOUBTFUL)
        # stopped by -it on the last level is what was asked for; on a coarser one it is no result for the images
        good = status == 2 or (status == 1 and found.binning == self.levels.end)
        return Outcome(0 if good and not doubtful else 1, field, (Path(f"{self.stem}.tsv"),))

    def _note_wrong_place(self, found: RegistrationResult, console: Console) -> None:
        """Say what speaks against a registration that has converged without a guess."""
        stretches = np.linalg.eigvalsh(deformation.polar(found.phi[:3, :3])[1])
        against = []
        if found.last.zncc < WEAK:
            against.append(f"the ZNCC is {found.last.zncc:.2f} only")
        if np.abs(stretches - 1).max() > STRETCHED:
            against.append(f"the stretches are {stretches[0]:.2f} to {stretches[2]:.2f}")
        if against:
            console.note(
                f"{' and '.join(against)}: noise or a large strain, or a wrong place. Look at the difference (-g); "
                "if the scans may be turned or shifted far, try --coarse, or mpidvc ereg and its file with -pf"
            )

    def _remedy(self, found: RegistrationResult) -> str:
        """What helps a registration that did not converge where the motion may be too large for it."""
        if found.last.status == 1 and found.binning == self.levels.end:
            return ""
        if self.max_angle is not None:
            return ". Look at both images: mpidvc ereg aligns them by eye, for -pf"
        if self.guessed:
            return ". If the guess may be wrong, let --coarse look for another one, or align the images in mpidvc ereg"
        return (
            ". If the scans are turned or shifted far, let --coarse look for the motion, or align them by eye in "
            "mpidvc ereg and give its file with -pf"
        )

    def _result(self, found: RegistrationResult) -> PhiField:
        """Phi at the point asked for, and what became of the registration."""
        last = found.last
        columns = {
            "error": last.error,
            "iterations": last.iterations,
            "returnStatus": last.status,
            "deltaPhiNorm": last.delta_phi_norm,
        }
        phi = deformation.move_centre(found.phi, found.centre, self.report_at)
        values = {name: np.array([value]) for name, value in columns.items()}
        return PhiField(self.report_at[None], phi[None], values, "registration")

    def _write_deformed(self, stem: Path, found: RegistrationResult, executor: Executor, console: Console) -> None:
        """Image 1 deformed by Phi: trilinear in 3D, cubic in 2D; one TIFF, or a folder of slices for a folder."""
        image = self.images.image1
        task = DeformTask(image, self._motion(found.phi, np.asarray(found.centre, np.float64)))
        if executor.rank != 0:
            executor.map(task, None)
            return
        target = stem if self.slices else stem.with_name(f"{stem.name}.tif")
        with planes_to(target, image, stem.name, self.slices) as put:
            executor.map(task, lambda chunk, slab: put(chunk * task.planes, slab.planes))
        console.print(f"Written: {target}")

    def _motion(self, phi: Array, centre: Array) -> WholeMotion:
        """The motion of image 1 that the deformed image shows."""
        return WholeMotion(phi, centre, 3 if self.images.image1.two_d else 1)


def _criterion(asked: str, images: ImagePair, levels: LevelSettings, guess: Array) -> tuple[Choice, float]:
    """Criterion for images that are compared from this guess, and the mean grey level of image 1 there."""
    shape = images.image1.shape
    grey = grey_levels(images, region_windows(shape, levels.margin_of(shape, 1), guess))
    return choose_criterion(asked, grey), grey.mean1


def _motion(one: Candidate, two_d: bool) -> str:
    """A motion that a coarse search tried, in words."""
    R, U = deformation.polar(one.phi[:3, :3])
    rotation = deformation.rotation_vector(R)
    angle = float(np.linalg.norm(rotation))
    if two_d:
        turn = f"{rotation[0]:.1f}°"
    else:
        turn = f"{angle:.1f}° about [" + " ".join(f"{v / max(angle, 1e-9):.2f}" for v in rotation) + "]"
    shift = " ".join(f"{v:.1f}" for v in one.phi[two_d:3, 3])
    return (
        f"rotation {turn}, translation [{shift}] voxels, stretch {U[2, 2]:.3f}; "
        f"ZNCC {one.zncc:.2f} on {100 * one.overlap:.0f} % of image 1"
    )


def _write_history(path: Path, found: RegistrationResult) -> None:
    """History of the last level: lists t, r, z, error, deltaPhiNorm, the start first, as a pickled dictionary."""
    steps = found.last.history
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
