"""The run of ``mpidvc pixelSearchPropagate``: from its options to its files."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mpidvc.arrays import Array, Ints, Records, Triple
from mpidvc.commands import files, search
from mpidvc.commands.options import image_mode
from mpidvc.commands.results import Output, Results, Work, check_results, checksum
from mpidvc.commands.run import Stages, WithInstructionSet, WithPlacement, first_guess, settings_of
from mpidvc.core.pixel_search import RESULT, SearchSettings
from mpidvc.core.propagation import GUESS, Propagation, rank_points
from mpidvc.errors import UserError
from mpidvc.fields.hdf5 import FieldLayout
from mpidvc.images.image import Image
from mpidvc.images.pair import ImagePair
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.memory import field_bytes, search_bytes
from mpidvc.tasks.pixel_search import CC, RECORD, RETURN_STATUS
from mpidvc.tasks.placement import Needs
from mpidvc.tasks.propagation import GuidedSearch

__all__ = ["PropagatePlan", "execute", "prepare"]


#: Half-window size where none is given, voxels.
HALF_WINDOW = 5
#: What is recorded of a point: the row of the field that it is, and what is known of it.
LOGGED = np.dtype([("row", np.int64), *((name, RECORD[name]) for name in ("phi", "result"))])
#: Points, and seconds, after which results go to the journal.
MOST_UNWRITTEN, LONGEST_UNWRITTEN = 256, 1.0
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
    points: Array
    dims: Triple | None
    spacing: Triple | None
    start_point: Array
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
    output: Output
    estimated_seconds: float

    def for_workers(self) -> PropagatePlan:
        """What the other ranks need of it: rank 0 tells them the points."""
        return replace(self, points=self.points[:0])

    def needs(self) -> Needs:
        """What the run needs of memory."""
        images = (self.image1, self.image2, self.mask1, self.mask2)
        chunk = search_bytes(ImagePair(*images), 1, 1, self.settings, False, None, np.zeros((3, 3)))
        finishing, rank0 = field_bytes(len(self.points))
        less = "smaller windows or ranges (-hws, -sr)"
        # the propagation itself needs about as much again
        return Needs([images], max(chunk, finishing), rank0=2 * rank0, less=less)

    def search(self) -> GuidedSearch:
        """What searches points."""
        return GuidedSearch(ImagePair(self.image1, self.image2, self.mask1, self.mask2), self.settings)


def prepare(args: argparse.Namespace, notes: list[str], console: Console) -> PropagatePlan:
    """Open and check everything, search the starting point; print the settings."""
    listed = None if args.guiding_points is None else files.read_points("-gp", args.guiding_points)
    image1, image2, mask1, mask2 = search.open_images(args)
    two_d = image1.two_d
    given_hws = args.half_window_size or (HALF_WINDOW,) * 3
    given_spacing = args.node_spacing or (2 * min(given_hws[1:] if two_d else given_hws),) * 3
    hws, spacing = files.window_sizes(given_hws, given_spacing, image1.shape)
    settings = search.search_settings(args, hws, two_d, "no")
    points, dims = (listed, None) if listed is not None else files.nodes_of(image1.shape, spacing)
    if not (args.tsv or args.vtk or args.h5 or (args.tif and dims is not None)):
        raise UserError("-notsv -noh5: without -tif or -vtk nothing would be written; drop one or add one of these")
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
        Output.of(args),
        len(points) * search.seconds_of_point(settings),
        image_mode=image_mode(args),
        memory=args.memory,
    )
    _check_start(args, plan)
    folder = files.make_folder(args.out_dir, files.folder_of(args.im1, real=True), args.prefix)
    plan = replace(plan, stem=folder / plan.stem)
    check_results(plan.stem, plan.output)
    used = {"node_spacing": spacing, "half_window_size": hws, "radius": radius, "weighting_distance": distance}
    console.settings("mpidvc pixelSearchPropagate", {**settings_of(args), **used})
    for note in notes:
        console.note(note)
    return plan


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
    """The propagation, whose results go to the journal in the order in which they come.

    Points that an earlier run has recorded are taken as soon as they are ready, and not searched again.
    """

    def __init__(self, propagation: Propagation, order: Ints, plan: PropagatePlan, results: Results) -> None:
        self._propagation = propagation
        # rows of the field; -1: the starting point, which is none of them
        self._rows = order if plan.start_is_first else order - 1
        self._results = results
        assert results.journal is not None
        self._journal = results.journal
        self._free = results.todo
        recorded = self._journal.records(np.setdiff1d(np.arange(self._journal.n_blocks), self._free))
        self._known = np.full(len(self._journal), -1)
        self._known[recorded["row"]] = np.arange(len(recorded))
        self._recorded = recorded
        self._left = len(recorded)
        self._waiting: list[Records] = []
        self._unwritten: list[Records] = []
        self._since = time.monotonic()
        self._replay()

    @property
    def ready(self) -> int:
        return sum(map(len, self._waiting)) + self._propagation.ready

    @property
    def exhausted(self) -> bool:
        return not self._waiting and self._propagation.exhausted

    def take(self, most: int) -> Records:
        if not self._waiting:
            return self._propagation.take(most)
        batch, rest = self._waiting[0][:most], self._waiting[0][most:]
        self._waiting[:1] = [rest] if len(rest) else []
        return batch

    def finished(self, batch: Records, records: Records) -> None:
        rows = self._rows[batch["point"]]
        mine = (rows >= 0) & (self._known[rows] < 0)
        logged = np.zeros(int(mine.sum()), LOGGED)
        logged["row"], logged["phi"], logged["result"] = rows[mine], records["phi"][mine], records["result"][mine]
        # as spam writes it for a propagation
        logged["result"][:, RESULT.index("iterations")] = 0
        self._unwritten.append(logged)
        if sum(map(len, self._unwritten)) >= MOST_UNWRITTEN or time.monotonic() - self._since > LONGEST_UNWRITTEN:
            self.flush()
        self._tell(batch, records)
        self._results.advance(len(logged), f"CC={records['result'][-1, CC]:.5f}")
        if self._left:
            self._replay()

    def flush(self) -> None:
        """Write what is not in the journal yet."""
        logged = np.concatenate([np.zeros(0, LOGGED), *self._unwritten])
        self._unwritten, self._since = [], time.monotonic()
        while len(logged):
            # what is free begins with one stretch, unless a record was found damaged
            first = int(self._free[0])
            stretch = int(np.argmin(np.append(np.diff(self._free[: len(logged)]) == 1, False))) + 1
            self._journal.record_singles(first, logged[:stretch])
            self._free, logged = self._free[stretch:], logged[stretch:]

    def _tell(self, batch: Records, records: Records) -> None:
        """Tell the propagation; points without a displacement guide no others, whatever the threshold."""
        searched = records["result"][:, RETURN_STATUS] == 1
        cc = np.where(searched, records["result"][:, CC], -np.inf)
        self._propagation.finished(batch, records["phi"][:, :, 3], cc)

    def _replay(self) -> None:
        """Take what is ready and recorded, again and again; what is ready and not recorded waits to be taken."""
        while self._left and self._propagation.ready:
            batch = self._propagation.take(self._propagation.ready)
            rows = self._rows[batch["point"]]
            known = np.where(rows >= 0, self._known[rows], -1)
            if not (known >= 0).all():
                self._waiting.append(batch[known < 0])
            if (known >= 0).any():
                self._left -= int((known >= 0).sum())
                self._tell(batch[known >= 0], self._recorded[known[known >= 0]])


def _work(plan: PropagatePlan) -> Work:
    n = len(plan.points)
    if plan.dims is None or plan.spacing is None:
        layout = FieldLayout(n, "points", columns=RESULT)
    else:
        layout = FieldLayout.of_grid(plan.points[0], plan.dims, plan.spacing, RESULT)
    images = (plan.image1, plan.image2, plan.mask1, plan.mask2)
    determines = {
        **search.determining("pixelSearchPropagate", *images, plan.settings),
        "-ns": plan.spacing if plan.dims is not None else None,
        "points (-gp)": checksum(plan.points),
        "-sp": [*plan.start_point.tolist(), *plan.start_displacement],
        "--ranking": plan.ranking,
        "-nr": plan.radius,
        "-gwd": plan.weighting_distance,
        "-cct": plan.threshold,
    }
    every = np.arange(n)
    identity = first_guess(None, "no", plan.points)
    return Work(determines, layout, plan.points, identity, every, np.arange(n + 1), LOGGED)


def execute(plan: PropagatePlan, executor: Executor, console: Console) -> int:
    """Search from point to point, write the files, and return the exit status."""
    stages = Stages(executor)
    results = Results(executor, console, plan.output, plan.stem, stages)
    results.open(lambda: _work(plan))
    if results.journal is not None:
        with search.placed_images(plan, executor, console) as here:
            _propagate(here, results, executor, console, stages)
    results.finish()
    if results.work is not None:
        _summary(plan, results, console)
    with stages.stage("write"):
        search.write(plan, results, plan.settings.hws, executor, console)
    stages.report(len(plan.points))
    return 0


def _propagate(plan: PropagatePlan, results: Results, executor: Executor, console: Console, stages: Stages) -> None:
    """Search what is not in the results file yet."""
    what = "search"
    if executor.rank != 0:
        with results.measuring(what) as request:
            executor.flow(plan.search().search, None, request)
        return
    with stages.stage("rank"):
        positions = plan.points
        if not plan.start_is_first:
            positions = np.concatenate([plan.start_point[None], positions])
        order = rank_points(positions, plan.ranking, plan.radius)
        propagation = Propagation(
            positions[order], plan.start_displacement, plan.radius, plan.weighting_distance, plan.threshold
        )
        feed = _Feed(propagation, order, plan, results)
    processes = f" (with {executor.size} processes)" if executor.size > 1 else ""
    console.print(f"Correlating: {plan.stem.name}")
    console.print(f"Starting Pixel Search from point to point for {results.left} points{processes}")
    with results.measuring(what) as request:
        try:
            executor.flow(plan.search().search, feed, request)
        finally:
            feed.flush()
    journal = results.journal
    assert journal is not None
    journal.place(np.asarray(journal.records(np.arange(journal.n_blocks))["row"], np.int64))
    width = propagation.mean_width
    console.print(f"Mean width of the front: {width:.1f} points")
    if width < NARROW * executor.size and executor.size > 1:
        hint = "--ranking distance has a wider front" if plan.ranking == "walk" else "a smaller -nr widens it"
        console.note(f"the front is too narrow to keep {executor.size} processes busy; {hint}")


def _summary(plan: PropagatePlan, results: Results, console: Console) -> None:
    cc, searched = results.column("pixelSearchCC"), results.column("returnStatus") == 1
    found = searched & (cc >= plan.threshold)
    limit = int(np.sum(found & (results.column("atLimit") == 1)))
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
