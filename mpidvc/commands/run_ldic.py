"""The run of ``mpidvc ldic``: from its options to its files."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from mpidvc.arrays import Ints, Records, Triple
from mpidvc.commands import files
from mpidvc.commands.options import image_mode
from mpidvc.commands.results import Output, Results, Work, check_results, digest, registration_options
from mpidvc.commands.run import (
    Stages,
    WithInstructionSet,
    WithPlacement,
    describe_criterion,
    displacements_of,
    first_guess,
    gradient_of,
    settings_of,
    warn_of_texture,
)
from mpidvc.core.grey import choose_criterion
from mpidvc.core.registration import STATUS, RegistrationSettings
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import read_hdf5
from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tiff import write_field_tiffs
from mpidvc.fields.vtk import write_grid_vtk, write_points_vtk
from mpidvc.images.fingerprint import fingerprint
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.kernels.correlation import RESULT
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.grey import Windows, grey_levels
from mpidvc.tasks.ldic import RECORD, LdicSettings, LdicTask, make_chunks
from mpidvc.tasks.memory import field_bytes, ldic_bytes, looking_bytes
from mpidvc.tasks.placement import Needs, placed

__all__ = ["LdicPlan", "execute", "prepare"]


#: Statuses of nodes that -skp correlates again.
AGAIN = (1, -1, -2, -3)
#: Rough CPU seconds per compared voxel of a point, by interpolation order: five iterations.
COST = {1: 1.0e-8, 3: 3.0e-8}


@dataclass(frozen=True)
class Pair:
    """Two images of the run and the stem of the files that their result goes to."""

    image1: Image
    image2: Image
    stem: Path
    settings: LdicSettings
    criterion: str


@dataclass(frozen=True)
class LdicPlan(WithInstructionSet, WithPlacement):
    """What is to be done."""

    pairs: list[Pair]
    mask1: Image | None
    guess: PhiField | None
    stored_f: str
    skip: bool
    spacing: Triple | None
    hws: Triple
    tsv: bool
    tif: bool
    vtk: bool
    output: Output
    estimated_seconds: float

    def for_workers(self) -> LdicPlan:
        """What the other ranks need of it: they read what their points start from in the results file."""
        return replace(self, guess=None)

    def needs(self) -> Needs:
        """What the run needs of memory."""
        image1 = self.pairs[0].image1
        layout, positions, spacing = files.nodes_to_measure(self.guess, image1.shape, self.spacing, RESULT)
        moved, gradient = displacements_of(self.guess), gradient_of(self.guess)
        n, regular = len(positions), layout.dims is not None
        chunk = max(
            ldic_bytes(
                ImagePair(pair.image1, pair.image2, self.mask1), *(n, spacing, pair.settings, regular, moved, gradient)
            )
            for pair in self.pairs
        )
        finishing, rank0 = field_bytes(n)
        images = [(pair.image1, pair.image2, self.mask1) for pair in self.pairs]
        return Needs(images, max(chunk, finishing), rank0=rank0 + looking_bytes(self.hws))


def prepare(args: argparse.Namespace, notes: list[str], console: Console) -> LdicPlan:
    """Open and check everything; print the settings."""
    guess = files.read_guess(args.phi_file, args.phi_file_bin_ratio)
    names = [str(path) for path in args.images]
    firsts = names[:-1] if args.series_incremental else [names[0]] * (len(names) - 1)
    opened = [files.open_pair(first, second) for first, second in zip(firsts, names[1:], strict=True)]
    image1 = opened[0][0]
    mask1 = files.open_mask(args.mask1, image1)
    two_d = image1.two_d
    hws, spacing = files.window_sizes(args.half_window_size, args.node_spacing, image1.shape)
    # beyond the image there is nothing to compare
    z, y, x = (min(m, n) for m, n in zip(args.margin, image1.shape, strict=True))
    margin = (0 if two_d else z, y, x)
    if args.skip and guess is not None and guess.layout == "registration":
        raise UserError(f"-skp: {args.phi_file} is a registration; it needs the field that it continues")
    files.check_guess("ldic", guess, args.phi_file, spacing)
    field = guess if guess is not None and guess.layout != "registration" else None
    positions = files.nodes_of(image1.shape, spacing)[0] if field is None else field.positions
    output = Output.of(args)
    if not (args.tsv or args.tif or args.vtk or output.keep):
        raise UserError("-notsv -noh5: without -tif or -vtk nothing would be written; drop one or add one of these")
    stems = _stems(args, firsts, names[1:])
    for stem in stems:
        check_results(stem, output, args.phi_file)
    console.settings("mpidvc ldic", settings_of(args))
    for note in notes:
        console.note(note)
    if guess is not None and field is None:
        console.print(files.describe_guess(guess, args.phi_file, args.phi_file_bin_ratio))
    if field is not None and field.layout == "points" and args.tif:
        console.note("the nodes of -pf are no full grid: no TIFF is written")

    registration = RegistrationSettings(
        order=args.interpolation_order,
        max_iterations=args.max_iterations,
        min_delta_phi=args.min_delta_phi,
        rigid=args.rigid,
        update_gradient=args.update_gradient,
        shift=args.shift,
    )
    pairs = []
    for (one, two), stem in zip(opened, stems, strict=True):
        windows = Windows(
            positions,
            first_guess(guess, args.apply_F, positions),
            *(hws, args.mask_coverage, args.grey_low_threshold, args.grey_high_threshold),
        )
        levels = grey_levels(ImagePair(one, two, mask1), windows)
        choice = choose_criterion(args.criterion, levels)
        settings = LdicSettings(
            replace(registration, criterion=choice.criterion, gain=choice.gain, bias=choice.bias),
            hws,
            margin,
            args.mask_coverage,
            args.grey_low_threshold,
            args.grey_high_threshold,
        )
        pairs.append(Pair(one, two, stem, settings, describe_criterion(choice)))
    voxels = float(np.prod([2 * h + 1 for h in hws]))
    return LdicPlan(
        pairs,
        mask1,
        guess,
        args.apply_F,
        args.skip,
        spacing,
        hws,
        args.tsv,
        args.tif,
        args.vtk,
        output,
        len(pairs) * len(positions) * voxels * COST[args.interpolation_order] * (3 if args.update_gradient else 1),
        image_mode=image_mode(args),
        memory=args.memory,
    )


def _stems(args: argparse.Namespace, firsts: list[str], seconds: list[str]) -> list[Path]:
    folder = files.make_folder(args.out_dir, files.folder_of(firsts[0], real=False), args.prefix)
    stems = []
    for first, second in zip(firsts, seconds, strict=True):
        name = f"{files.base_name(first)}-{files.base_name(second)}-ldic"
        if args.prefix is not None:
            name = f"{args.prefix}-ldic" if len(seconds) == 1 else f"{args.prefix}-{files.base_name(second)}-ldic"
        stems.append(folder / name)
    double = next((stem for stem in stems if stems.count(stem) > 1), None)
    if double is not None:
        raise UserError(f"{double}.tsv: two pairs of the series would be written there; give the images distinct names")
    return stems


def execute(plan: LdicPlan, executor: Executor, console: Console) -> int:
    """Correlate pair after pair, write each one's files as soon as it is done, and return the exit status."""
    stages = Stages(executor)
    status = 0
    points = 0
    done = []
    for pair in plan.pairs:
        results = Results(executor, console, plan.output, pair.stem, stages)
        results.open(partial(_work, plan, pair))
        if results.journal is not None:
            images = (pair.image1, pair.image2, plan.mask1)
            with placed(executor, plan.placement, images, console.note) as (image1, image2, mask1):
                here = replace(pair, image1=image1, image2=image2)
                _correlate(replace(plan, mask1=mask1), here, results, executor, console, stages)
        results.finish()
        if results.work is not None:
            status = status or _summary(results, console)
            points += len(results.work.order)
        with stages.stage("write"):
            _write(plan, pair, results, executor, console)
        done.append(results)
    # not one by one: an interrupted series goes on after the pairs that are finished
    for results in done:
        results.close()
    stages.report(points)
    return status


def _work(plan: LdicPlan, pair: Pair) -> Work:
    """The nodes, and those rows of the file of -pf that -skp keeps."""
    layout, positions, distance = files.nodes_to_measure(plan.guess, pair.image1.shape, plan.spacing, RESULT)
    guess = plan.guess
    field = guess if guess is not None and guess.layout != "registration" else None
    keep = np.zeros(len(positions), bool)
    if plan.skip and field is not None:
        status = np.asarray(field.columns.get("returnStatus", np.zeros(len(field))), np.float64)
        keep = ~np.isin(status, AGAIN)
    again, kept = np.flatnonzero(~keep), np.flatnonzero(keep)
    two_d = pair.image1.two_d
    chunks = make_chunks(positions[again], distance, pair.settings, two_d, layout.dims is not None)
    registration = pair.settings.registration
    determines = {
        "command": "ldic",
        "image 1": fingerprint(pair.image1),
        "image 2": fingerprint(pair.image2),
        "mask (-mf1)": None if plan.mask1 is None else fingerprint(plan.mask1),
        "first guess (-pf)": digest(guess),
        "-F": plan.stored_f,
        "-skp": plan.skip,
        "-ns": plan.spacing,
        "-hws": plan.hws,
        "-m": pair.settings.margin,
        "-mc": pair.settings.min_coverage,
        "-glt": pair.settings.grey_low,
        "-ght": pair.settings.grey_high,
        **registration_options(registration),
    }
    at = first_guess(guess, plan.stored_f, positions)
    work = Work(determines, layout, positions, at, again[chunks.order], chunks.start, RECORD)
    work.keep(kept, lambda rows: _kept(field, rows))
    return work


def _kept(field: PhiField | None, rows: Ints) -> Records:
    """Records of rows as they are in a field; what it does not have is 0."""
    records = np.zeros(len(rows), RECORD)
    if field is not None:
        records["phi"] = field.phi[rows, :3]
        for k, name in enumerate(RESULT):
            if name in field.columns:
                records["result"][:, k] = field.columns[name][rows]
    return records


def _correlate(
    plan: LdicPlan, pair: Pair, results: Results, executor: Executor, console: Console, stages: Stages
) -> None:
    """Measure what is not in the results file yet."""
    assert results.journal is not None
    task = LdicTask(ImagePair(pair.image1, pair.image2, plan.mask1), results.journal, pair.settings)
    if results.work is not None:
        measured, kept = results.work.measured, results.work.n_kept
        processes = f" (with {executor.size} processes)" if executor.size > 1 else ""
        console.print(f"Correlating: {pair.stem.name}")
        console.print(pair.criterion)
        console.print(f"Starting Local DIC for {results.left} nodes{processes}")
        if plan.skip:
            console.print(f"-skp: {kept} nodes are kept as they are in the file")
        with stages.stage("texture"):
            limits = (pair.settings.min_coverage, pair.settings.grey_low, pair.settings.grey_high)
            positions = results.work.positions[measured]
            warn_of_texture(console, pair.image1, plan.mask1, positions, plan.hws, *limits)

    def describe(records: Records) -> str:
        last = dict(zip(RESULT, records["result"][-1], strict=True))
        return f"it={last['iterations']:02.0f} dPhiNorm={last['deltaPhiNorm']:.3e} rs={last['returnStatus']:+.0f}"

    results.measure(task, "ldic", describe)


def _summary(results: Results, console: Console) -> int:
    """Print what became of the points; 1 if windows were tried and none was found."""
    assert results.work is not None
    values = results.column("returnStatus")
    foreground = int(np.sum(values != -5))
    rows = []
    for value, meaning in STATUS.items():
        count = int(np.sum(values == value))
        if count == 0 and value not in (2, 1, -5):
            continue
        share = "" if value == -5 else f"{100 * count / foreground:.1f}%" if foreground else "-"
        rows.append([f"RS={value:+d}", count, share, meaning])
    other = int(np.sum(~np.isin(values, list(STATUS))))
    if other:
        rows.append(["other", other, f"{100 * other / foreground:.1f}%", "kept from the file of -pf as they are"])
    console.table("Local DIC summary", ["Status", "Points", "Percent of non-background", "Meaning"], rows)
    tried = values[results.work.measured]
    if len(tried) and np.all(tried == -5):
        console.warn("all windows were skipped: see -mf1, -mc, -glt, -ght, and whether the guess leads out of image 2")
        return 1
    if not np.any(tried == 2) and np.sum((tried < 0) & (tried != -5)) > np.sum(tried == 1):
        console.warn("no window converged: see the first guess (-pf), the texture of windows (-hws), and -it")
        return 1
    return 0


def _write(plan: LdicPlan, pair: Pair, results: Results, executor: Executor, console: Console) -> None:
    if plan.tsv:
        results.write_tsv("LDIC")
    if executor.rank != 0 or not (plan.tif or plan.vtk):
        return
    field = read_hdf5(results.path)
    two_d = pair.image1.two_d
    told = {name: field.columns[name] for name in ("error", "iterations", "returnStatus", "deltaPhiNorm")}
    if plan.tif and field.dims is not None:
        parts = {f"{axis}disp": field.displacements[:, a] for a, axis in enumerate("ZYX") if not (two_d and a == 0)}
        write_field_tiffs(pair.stem, field.dims, {**parts, **told})
        console.print(f"Written: {pair.stem}-*.tif")
    if plan.vtk:
        path = pair.stem.with_name(pair.stem.name + ".vtk")
        shown = {"displacements": field.displacements, **told}
        if field.dims is not None and field.spacing is not None:
            write_grid_vtk(path, field.dims, field.spacing, field.positions[0] - np.array(plan.hws), shown)
        else:
            write_points_vtk(path, field.positions, shown)
        console.print(f"Written: {path}")
