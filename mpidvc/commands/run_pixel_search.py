"""The run of ``mpidvc pixelSearch``: from its options to its files."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mpidvc.commands import files, search
from mpidvc.commands.options import image_mode
from mpidvc.commands.run import (
    Stages,
    WithInstructionSet,
    WithPlacement,
    gradient_of,
    guess_at,
    typical_spacing,
    warn_of_texture,
)
from mpidvc.core.pixel_search import RESULT, STATUS, SearchSettings
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.memory import field_bytes, looking_bytes, search_bytes
from mpidvc.tasks.pixel_search import PixelSearchTask, make_chunks
from mpidvc.tasks.placement import Needs, placed

__all__ = ["SearchPlan", "execute", "prepare"]

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class SearchPlan(WithInstructionSet, WithPlacement):
    """What is to be done."""

    image1: Image
    image2: Image
    mask1: Image | None
    mask2: Image | None
    guess: PhiField | None
    spacing: Triple | None
    settings: SearchSettings
    stem: Path
    tsv: bool
    tif: bool
    vtk: bool
    estimated_seconds: float

    @property
    def two_d(self) -> bool:
        return self.image1.shape[0] == 1

    def needs(self) -> Needs:
        """What the run needs of memory."""
        images = (self.image1, self.image2, self.mask1, self.mask2)
        field = _empty_field(self)
        given = self.guess is not None and self.guess.layout != "registration"
        chunk = search_bytes(
            *images,
            len(field),
            typical_spacing(field, self.two_d),
            self.settings,
            field.dims is not None,
            field.displacements if given else None,
            gradient_of(self.guess),
        )
        every_rank, rank0 = field_bytes(len(field))
        rank0 += looking_bytes(self.settings.hws, grey=False)
        return Needs([images], chunk, every_rank, rank0, less="smaller windows or ranges (-hws, -sr)")


def prepare(args: argparse.Namespace, console: Console) -> SearchPlan:
    """Open and check everything; print the settings."""
    guess = files.read_guess(args.phi_file, args.phi_file_bin_ratio)
    image1, image2, mask1, mask2 = search.open_images(args)
    two_d = image1.shape[0] == 1
    hws, spacing = files.window_sizes(args.half_window_size, args.node_spacing, image1.shape)
    settings = search.search_settings(args, hws, two_d, args.apply_F)
    files.check_guess("pixelSearch", guess, args.phi_file, spacing)
    field = guess if guess is not None and guess.layout != "registration" else None
    positions = field.positions if field is not None else files.nodes_of(image1.shape, spacing)[0]
    folder = files.make_folder(args.out_dir, files.folder_of(args.im1, real=True), args.prefix)
    console.settings("mpidvc pixelSearch", {k: v for k, v in vars(args).items() if k != "processes"})
    if guess is not None and field is None:
        console.print(files.describe_guess(guess, args.phi_file, args.phi_file_bin_ratio))
    if field is not None and field.layout == "points" and args.tif:
        console.note("the nodes of -pf are no full grid: no TIFF is written")
    return SearchPlan(
        image1,
        image2,
        mask1,
        mask2,
        guess,
        spacing,
        settings,
        folder / search.stem_name(args, "pixelSearch"),
        args.tsv,
        args.tif,
        args.vtk,
        len(positions) * search.seconds_of_point(settings),
        image_mode=image_mode(args),
        memory=args.memory,
    )


def execute(plan: SearchPlan, executor: Executor, console: Console) -> int:
    """Search, write the files, and return the exit status."""
    stages = Stages(executor)
    field = _empty_field(plan)
    images = (plan.image1, plan.image2, plan.mask1, plan.mask2)
    with placed(executor, plan.placement, images, console.note) as (image1, image2, mask1, mask2):
        here = replace(plan, image1=image1, image2=image2, mask1=mask1, mask2=mask2)
        good = _search(here, field, executor, console, stages)
    with stages.stage("write"):
        search.write(plan, plan.stem, field, plan.settings.hws, executor, console)
    stages.report(len(field))
    return 0 if good else 1


def _empty_field(plan: SearchPlan) -> PhiField:
    """The nodes with their first guess, and nothing found."""
    guess = plan.guess
    columns: dict[str, npt.NDArray[np.generic]]
    if guess is not None and guess.layout != "registration":
        columns = {name: np.zeros(len(guess)) for name in RESULT}
        return PhiField(guess.positions, guess.phi.copy(), columns, guess.layout, guess.dims, guess.spacing)
    positions, dims = files.nodes_of(plan.image1.shape, plan.spacing)
    columns = {name: np.zeros(len(positions)) for name in RESULT}
    step = np.array(plan.spacing, np.float64)
    phi = guess_at(guess, plan.settings.apply_f, positions)
    return PhiField(positions, phi, columns, "grid", dims, (float(step[0]), float(step[1]), float(step[2])))


def _search(plan: SearchPlan, field: PhiField, executor: Executor, console: Console, stages: Stages) -> bool:
    """Fill the field; False if windows were tried and none was found."""
    settings = plan.settings
    chunks = make_chunks(
        field.positions, typical_spacing(field, plan.two_d), settings, plan.two_d, field.dims is not None
    )
    images = (plan.image1, plan.image2, plan.mask1, plan.mask2)
    task = PixelSearchTask(*images, field.positions, field.phi.copy(), settings, chunks)
    processes = f" (with {executor.size} processes)" if executor.size > 1 else ""
    console.print(f"Starting Pixel Search for {len(field)} nodes{processes}")
    if executor.rank == 0:
        with stages.stage("texture"):
            limits = (settings.min_coverage, settings.grey_low, settings.grey_high)
            warn_of_texture(console, plan.image1, plan.mask1, field.positions, settings.hws, *limits)
    at_limit = np.zeros(len(field), bool)
    with stages.stage("points", count_cpu=True), console.progress(len(field), "pixelSearch", "points") as progress:

        def sink(chunk: int, records: npt.NDArray[np.void]) -> None:
            index = chunks.points(chunk)
            field.phi[index, :3] = records["phi"]
            for k, name in enumerate(RESULT):
                field.columns[name][index] = records["result"][:, k]
            at_limit[index] = records["at_limit"]
            last = dict(zip(RESULT, records["result"][-1], strict=True))
            progress.advance(len(index), f"NCC={last['pixelSearchCC']:.5f} rs={last['returnStatus']:+.0f}")

        executor.map(task, sink)
    if executor.rank != 0:
        return True
    status = np.asarray(field.columns["returnStatus"], np.float64)
    _summary(status, at_limit, settings, console)
    if np.all(status < 0):
        console.warn("no window was found: see -mf1, -mf2, -mc, -glt, -ght, and whether the guess leads out of image 2")
        return bool(np.all(status == -5))
    return True


def _summary(
    status: npt.NDArray[np.float64], at_limit: npt.NDArray[np.bool_], settings: SearchSettings, console: Console
) -> None:
    rows = []
    for value, meaning in STATUS.items():
        count = int(np.sum(status == value))
        if count or value != -7:
            rows.append([f"RS={value:+d}", count, f"{100 * count / len(status):.1f}%", meaning])
    found, limit = int(np.sum(status == 1)), int(at_limit.sum())
    share = f"{100 * limit / found:.1f}% of found" if found else "-"
    rows.insert(1, ["at the limit", limit, share, "found at an end of the search range"])
    console.table("Pixel search summary", ["Status", "Points", "Percent", "Meaning"], rows)
    if limit:
        ends = " ".join(f"{low} {high}" for low, high in zip(settings.low, settings.high, strict=True))
        console.note(f"{limit} displacements are at an end of the search range (-sr {ends}): enlarge it there")
