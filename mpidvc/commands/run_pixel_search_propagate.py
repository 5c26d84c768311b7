"""The run of ``mpidvc pixelSearchPropagate``: from its options to its files."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mpidvc.commands import files, search
from mpidvc.commands.options import image_mode
from mpidvc.commands.run import Stages, WithInstructionSet, WithPlacement, write_field
from mpidvc.core.pixel_search import RESULT, SearchSettings
from mpidvc.core.propagation import GUESS, Propagation, rank_points
from mpidvc.errors import UserError
from mpidvc.fields.phifield import PhiField
from mpidvc.images.image import Image
from mpidvc.runtime.console import Console, Progress
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.memory import field_bytes, search_bytes
from mpidvc.tasks.placement import Needs, placed
from mpidvc.tasks.propagation import GuidedSearch

__all__ = ["PropagatePlan", "execute", "prepare"]

Triple = tuple[int, int, int]
Floats = npt.NDArray[np.float64]

#: Half-window size where none is given, voxels.
HALF_WINDOW = 5
#: A front narrower than this many points for each process is worth a note.
NARROW = 2.0


@dataclass(frozen=True)
class PropagatePlan(WithInstructionSet, WithPlacement):
    """What is to be done.

    The starting point is one of the points (the first of a file), or comes before them and is not written.
    """

    image1: Image
    image2: Image
    mask1: Image | None
    mask2: Image | None
    settings: SearchSettings
    points: Floats
    dims: Triple | None
    spacing: Triple | None
    start_point: Floats
    start_is_first: bool
    start_displacement: Triple
    ranking: str
    radius: float
    weighting_distance: float
    threshold: float
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
        chunk = search_bytes(*images, 1, 1, self.settings, False, None, np.zeros((3, 3)))
        # the other ranks get their points with every batch
        return Needs(
            [images], chunk, rank0=sum(field_bytes(len(self.points))), less="smaller windows or ranges (-hws, -sr)"
        )

    def search(self) -> GuidedSearch:
        """What searches points."""
        return GuidedSearch(self.image1, self.image2, self.mask1, self.mask2, self.settings)


def prepare(args: argparse.Namespace, notes: list[str], console: Console) -> PropagatePlan:
    """Open and check everything, search the starting point; print the settings."""
    listed = None if args.guiding_points is None else files.read_points("-gp", args.guiding_points)
    image1, image2, mask1, mask2 = search.open_images(args)
    two_d = image1.shape[0] == 1
    given_hws = args.half_window_size or (HALF_WINDOW,) * 3
    given_spacing = args.node_spacing or (2 * min(given_hws[1:] if two_d else given_hws),) * 3
    hws, spacing = files.window_sizes(given_hws, given_spacing, image1.shape)
    settings = search.search_settings(args, hws, two_d, "no")
    points, dims = (listed, None) if listed is not None else files.nodes_of(image1.shape, spacing)
    if not (args.tsv or args.vtk or (args.tif and dims is not None)):
        raise UserError("-notsv: without -tif or -vtk nothing would be written; drop it or add one of them")
    axes = slice(1, 3) if two_d else slice(0, 3)
    if args.start is not None and two_d and (args.start[0] != 0 or args.start[3] != 0):
        shown = " ".join(map(str, args.start))
        raise UserError(f"-sp {shown}: the images are 2D; Z and its displacement have to be 0")
    start = [*points[0], 0, 0, 0] if args.start is None else args.start
    radius = args.radius
    if radius is None:
        radius = float(np.mean(hws[axes]) + np.mean(settings.high[axes]))
    distance = args.weighting_distance
    if distance is None:
        distance = float(sum(hws) + sum(settings.high))
    for value, option in ((radius, "-nr"), (distance, "-gwd")):
        if value <= 0:
            raise UserError(f"{option}: its default, {value:g}, is not above 0 with this -hws and -sr; give {option}")
    plan = PropagatePlan(
        *(image1, image2, mask1, mask2, settings),
        points,
        dims,
        spacing,
        np.array(start[:3], np.float64),
        args.start is None,
        (int(start[3]), int(start[4]), int(start[5])),
        args.ranking,
        radius,
        distance,
        args.threshold,
        Path(search.stem_name(args, "pixelSearchPropagate")),
        args.tsv,
        args.tif,
        args.vtk,
        len(points) * search.seconds_of_point(settings),
        image_mode=image_mode(args),
        memory=args.memory,
    )
    _check_start(args, plan)
    folder = files.make_folder(args.out_dir, files.folder_of(args.im1, real=True), args.prefix)
    used = {"node_spacing": spacing, "half_window_size": hws, "radius": radius, "weighting_distance": distance}
    settings_of_run = {**vars(args), **used}
    console.settings("mpidvc pixelSearchPropagate", {k: v for k, v in settings_of_run.items() if k != "processes"})
    for note in notes:
        console.note(note)
    return replace(plan, stem=folder / plan.stem)


def _check_start(args: argparse.Namespace, plan: PropagatePlan) -> None:
    """Search the starting point: without it nothing is worth starting."""
    batch = np.zeros(1, GUESS)
    batch["position"], batch["guess"] = plan.start_point, plan.start_displacement
    (result,) = plan.search().search(batch)["result"]
    found = dict(zip(RESULT, result, strict=True))
    named = f"-gp {args.guiding_points}: the starting point {' '.join(f'{p:g}' for p in plan.start_point)}"
    if args.start is not None:
        named = f"-sp {' '.join(map(str, args.start))}: the starting point"
    if found["returnStatus"] != 1:
        raise UserError(
            f"{named} is refused: its window is outside an image, masked (-mc) or of a mean grey level beyond -glt or "
            "-ght; choose another by -sp"
        )
    if not found["pixelSearchCC"] >= plan.threshold:
        raise UserError(
            f"{named} is not found: the best CC, {found['pixelSearchCC']:.4f}, is below -cct {plan.threshold:g}; give "
            "its displacement by -sp, enlarge -sr, or lower -cct"
        )


class _Feed:
    """The propagation, whose results go to the field as they come."""

    def __init__(
        self, propagation: Propagation, order: npt.NDArray[np.int64], plan: PropagatePlan, progress: Progress
    ) -> None:
        self._propagation = propagation
        # rows of the field; -1: the starting point, which is none of them
        self._rows = order if plan.start_is_first else order - 1
        self._progress = progress
        self.field = _empty_field(plan)
        self.at_limit = np.zeros(len(plan.points), bool)

    @property
    def ready(self) -> int:
        return self._propagation.ready

    @property
    def exhausted(self) -> bool:
        return self._propagation.exhausted

    def take(self, most: int) -> npt.NDArray[np.void]:
        return self._propagation.take(most)

    def finished(self, batch: npt.NDArray[np.void], records: npt.NDArray[np.void]) -> None:
        found = records["result"]
        displacement, cc = records["phi"][:, :, 3], found[:, RESULT.index("pixelSearchCC")]
        # with a threshold of 0 or less, too, points without a displacement guide no others
        searched = found[:, RESULT.index("returnStatus")] == 1
        self._propagation.finished(batch, displacement, np.where(searched, cc, -np.inf))
        rows = self._rows[batch["point"]]
        mine, rows = rows >= 0, rows[rows >= 0]
        self.field.phi[rows, :3, 3] = displacement[mine]
        for name in ("pixelSearchCC", "returnStatus", "error"):
            self.field.columns[name][rows] = found[mine, RESULT.index(name)]
        self.at_limit[rows] = records["at_limit"][mine]
        self._progress.advance(len(rows), f"CC={cc[-1]:.5f}")


def _empty_field(plan: PropagatePlan) -> PhiField:
    n = len(plan.points)
    columns: dict[str, npt.NDArray[np.generic]] = {
        "pixelSearchCC": np.zeros(n),
        "returnStatus": np.zeros(n),
        "error": np.zeros(n),
        "deltaPhiNorm": np.ones(n),
        "iterations": np.zeros(n),
    }
    phi = np.tile(np.eye(4), (n, 1, 1))
    if plan.dims is None or plan.spacing is None:
        return PhiField(plan.points, phi, columns, "points")
    spacing = (float(plan.spacing[0]), float(plan.spacing[1]), float(plan.spacing[2]))
    return PhiField(plan.points, phi, columns, "grid", plan.dims, spacing)


def execute(plan: PropagatePlan, executor: Executor, console: Console) -> int:
    """Search from point to point, write the files, and return the exit status."""
    images = (plan.image1, plan.image2, plan.mask1, plan.mask2)
    with placed(executor, plan.placement, images, console.note) as (image1, image2, mask1, mask2):
        here = replace(plan, image1=image1, image2=image2, mask1=mask1, mask2=mask2)
        return _propagate(here, executor, console)


def _propagate(plan: PropagatePlan, executor: Executor, console: Console) -> int:
    stages = Stages(executor)
    processes = f" (with {executor.size} processes)" if executor.size > 1 else ""
    if executor.rank != 0:
        with stages.stage("points", count_cpu=True):
            executor.flow(plan.search().search, None)
        if plan.tsv:
            write_field(executor, plan.stem, None, "SEARCH")
        return 0
    with stages.stage("rank"):
        positions = plan.points
        if not plan.start_is_first:
            positions = np.concatenate([plan.start_point[None], positions])
        order = rank_points(positions, plan.ranking, plan.radius)
        propagation = Propagation(
            positions[order], plan.start_displacement, plan.radius, plan.weighting_distance, plan.threshold
        )
    console.print(f"Correlating: {plan.stem.name}")
    console.print(f"Starting Pixel Search from point to point for {len(plan.points)} points{processes}")
    with (
        stages.stage("points", count_cpu=True),
        console.progress(len(plan.points), "search", "points") as progress,
    ):
        feed = _Feed(propagation, order, plan, progress)
        executor.flow(plan.search().search, feed)
    _summary(plan, feed, console)
    width = propagation.mean_width
    console.print(f"Mean width of the front: {width:.1f} points")
    if width < NARROW * executor.size and executor.size > 1:
        hint = "--ranking distance has a wider front" if plan.ranking == "walk" else "a smaller -nr widens it"
        console.note(f"the front is too narrow to keep {executor.size} processes busy; {hint}")
    with stages.stage("write"):
        search.write(plan, plan.stem, feed.field, plan.settings.hws, executor, console)
    stages.report(len(plan.points))
    return 0


def _summary(plan: PropagatePlan, feed: _Feed, console: Console) -> None:
    cc = np.asarray(feed.field.columns["pixelSearchCC"], np.float64)
    searched = np.asarray(feed.field.columns["returnStatus"], np.float64) == 1
    found = searched & (cc >= plan.threshold)
    limit = int(np.sum(found & feed.at_limit))
    counts = [
        ("Found", int(found.sum()), f"CC of at least {plan.threshold:g}"),
        ("Below the CC threshold", int(np.sum(searched & ~found)), "written, but guides no other point"),
        ("Skipped", int(np.sum(~searched)), "outside an image, masked, or grey level beyond -glt or -ght"),
        ("Found at the limit of -sr", limit, "the true displacement may lie beyond"),
    ]
    total = len(cc)
    rows = [[name, count, f"{100 * count / total:.1f}%", meaning] for name, count, meaning in counts]
    console.table("Pixel search summary", ["Result", "Points", "Percent", "Meaning"], rows)
    if limit:
        console.note(f"{limit} points were found at the limit of the search range: enlarge -sr if they look wrong")
