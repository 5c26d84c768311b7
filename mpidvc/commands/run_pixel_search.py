"""The run of ``mpidvc pixelSearch``: from its options to its files."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mpidvc.arrays import Records, Triple
from mpidvc.commands import files, search
from mpidvc.commands.options import image_mode
from mpidvc.commands.results import Output, Results, Work, check_results, digest
from mpidvc.commands.run import (
    Stages,
    WithInstructionSet,
    WithPlacement,
    displacements_of,
    first_guess,
    gradient_of,
    settings_of,
    warn_of_texture,
)
from mpidvc.core.pixel_search import RESULT, SearchSettings
from mpidvc.core.statuses import SEARCH
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.memory import field_bytes, looking_bytes, search_bytes
from mpidvc.tasks.pixel_search import RECORD, PixelSearchTask, make_chunks
from mpidvc.tasks.placement import Needs

__all__ = ["SearchPlan", "execute", "prepare"]


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
    output: Output
    estimated_seconds: float

    @property
    def two_d(self) -> bool:
        return self.image1.two_d

    def for_workers(self) -> SearchPlan:
        """What the other ranks need of it: they read what their points start from in the results file."""
        return replace(self, guess=None)

    def needs(self) -> Needs:
        """What the run needs of memory."""
        images = (self.image1, self.image2, self.mask1, self.mask2)
        layout, positions, spacing = files.nodes_to_measure(self.guess, self.image1.shape, self.spacing, RESULT)
        chunk = search_bytes(
            ImagePair(*images),
            len(positions),
            spacing,
            self.settings,
            layout.dims is not None,
            displacements_of(self.guess),
            gradient_of(self.guess),
        )
        finishing, rank0 = field_bytes(len(positions))
        rank0 += looking_bytes(self.settings.hws, grey=False)
        return Needs([images], max(chunk, finishing), rank0=rank0, less="smaller windows or ranges (-hws, -sr)")


def prepare(args: argparse.Namespace, console: Console) -> SearchPlan:
    """Open and check everything; print the settings."""
    guess = files.read_guess(args.phi_file, args.phi_file_bin_ratio)
    image1, image2, mask1, mask2 = search.open_images(args)
    two_d = image1.two_d
    hws, spacing = files.window_sizes(args.half_window_size, args.node_spacing, image1.shape)
    settings = search.search_settings(args, hws, two_d, args.apply_F)
    files.check_guess("pixelSearch", guess, args.phi_file, spacing)
    field = guess if guess is not None and guess.layout != "registration" else None
    positions = field.positions if field is not None else files.nodes_of(image1.shape, spacing)[0]
    folder = files.make_folder(args.out_dir, files.folder_of(args.im1, real=True), args.prefix)
    stem = folder / search.stem_name(args, "pixelSearch")
    output = Output.of(args)
    check_results(stem, output, args.phi_file)
    console.settings("mpidvc pixelSearch", settings_of(args))
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
        stem,
        args.tsv,
        args.tif,
        args.vtk,
        output,
        len(positions) * search.seconds_of_point(settings),
        image_mode=image_mode(args),
        memory=args.memory,
    )


def execute(plan: SearchPlan, executor: Executor, console: Console) -> int:
    """Search, write the files, and return the exit status."""
    stages = Stages(executor)
    results = Results(executor, console, plan.output, plan.stem, stages)
    results.open(lambda: _work(plan))
    if results.journal is not None:
        with search.placed_images(plan, executor, console) as here:
            _search(here, results, executor, console, stages)
    results.finish()
    status = points = 0
    if results.work is not None:
        status, points = _summary(results, plan.settings, console), len(results.work.order)
    with stages.stage("write"):
        search.write(plan, results, plan.settings.hws, executor, console)
    stages.report(points)
    return status


def _work(plan: SearchPlan) -> Work:
    guess, settings = plan.guess, plan.settings
    layout, positions, distance = files.nodes_to_measure(guess, plan.image1.shape, plan.spacing, RESULT)
    chunks = make_chunks(positions, distance, settings, plan.two_d, layout.dims is not None)
    images = (plan.image1, plan.image2, plan.mask1, plan.mask2)
    determines = search.determining("pixelSearch", *images, settings)
    determines |= {"first guess (-pf)": digest(guess), "-ns": plan.spacing}
    at = first_guess(guess, settings.apply_f, positions)
    return Work(determines, layout, positions, at, chunks.order, chunks.start, RECORD)


def _search(plan: SearchPlan, results: Results, executor: Executor, console: Console, stages: Stages) -> None:
    """Search what is not in the results file yet."""
    assert results.journal is not None
    settings = plan.settings
    task = PixelSearchTask(ImagePair(plan.image1, plan.image2, plan.mask1, plan.mask2), results.journal, settings)
    if results.work is not None:
        processes = f" (with {executor.size} processes)" if executor.size > 1 else ""
        console.print(f"Starting Pixel Search for {results.left} nodes{processes}")
        with stages.stage("texture"):
            limits = (settings.min_coverage, settings.grey_low, settings.grey_high)
            warn_of_texture(console, plan.image1, plan.mask1, results.work.positions, settings.hws, *limits)

    def describe(records: Records) -> str:
        last = dict(zip(RESULT, records["result"][-1], strict=True))
        return f"NCC={last['pixelSearchCC']:.5f} rs={last['returnStatus']:+.0f}"

    results.measure(task, "pixelSearch", describe)


def _summary(results: Results, settings: SearchSettings, console: Console) -> int:
    """Print what became of the points; 1 if windows were tried and none was found."""
    status, at_limit = results.column("returnStatus"), results.column("atLimit")
    rows = []
    for value, known in SEARCH.items():
        count = int(np.sum(status == value))
        if count or value != -7:
            rows.append([f"RS={value:+d}", count, f"{100 * count / len(status):.1f}%", known.meaning])
    found, limit = int(np.sum(status == 1)), int(at_limit.sum())
    share = f"{100 * limit / found:.1f}% of found" if found else "-"
    rows.insert(1, ["at the limit", limit, share, "found at an end of the search range"])
    console.table("Pixel search summary", ["Status", "Points", "Percent", "Meaning"], rows)
    if limit:
        ends = " ".join(f"{low} {high}" for low, high in zip(settings.low, settings.high, strict=True))
        console.note(f"{limit} displacements are at an end of the search range (-sr {ends}): enlarge it there")
    if np.all(status < 0):
        console.warn("no window was found: see -mf1, -mf2, -mc, -glt, -ght, and whether the guess leads out of image 2")
        return 0 if np.all(status == -5) else 1
    return 0
