"""Costs of messages, chunks and files on this machine, measured for `scaling.py`, and the programs of its ranks."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "benchmarks")]

from mpidvc.kernels import correlation  # noqa: E402
from mpidvc.runtime import executor as executors  # noqa: E402
from mpidvc.runtime import messages, schedule  # noqa: E402
from mpidvc.runtime.comm import connect, find_launcher, install_abort_hook  # noqa: E402
from mpidvc.runtime.launch import find_mpiexec  # noqa: E402
from mpidvc.tasks.points import record_of  # noqa: E402
from mpidvc.workflow.scaling import CHUNK_POINTS as POINTS  # noqa: E402
from mpidvc.workflow.scaling import FINGERPRINT, SIZES  # noqa: E402
from mpidvc.workflow.summary import MOST_JUDGED  # noqa: E402

#: Nodes along the edge of the field with which rank 0's own work is timed.
FIELD_EDGE = 80
N_REPORTS = 1500
#: How often a cost is measured: the least counts, as other work only adds to it.
TIMES = 3
#: Record of a point of ldic.
RECORD = record_of(correlation.RESULT)


def run_ranks(n: int, *arguments: str) -> str:
    """Run a program of this file on ranks of this host, and return its output."""
    mpiexec = find_mpiexec()
    if mpiexec is None:
        raise SystemExit("no MPI in this environment")
    environment = mpiexec.environment(os.environ, n) | {"PYTHONPATH": str(REPOSITORY)}
    del environment["MPIDVC_STARTED_RANKS"]
    command = [*mpiexec.command(n), sys.executable, str(Path(__file__).resolve()), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout


# ---- on ranks


def _make_executor() -> executors.MPIExecutor:
    communicator = connect(find_launcher())
    install_abort_hook(communicator)
    made = executors.make_executor(communicator)
    assert isinstance(made, executors.MPIExecutor)
    return made


def _journal(folder: Path, n_blocks: int) -> Any:
    from mpidvc.runtime import journal
    from mpidvc.tasks.points import inputs_of

    n = n_blocks * POINTS
    positions = np.zeros((n, 3))

    layout = journal.JournalLayout(
        determines={"command": "ldic"},
        columns=correlation.RESULT,
        records=RECORD,
        order=np.arange(n),
        starts=np.arange(n_blocks + 1) * POINTS,
        positions=lambda rows: positions[rows],
        inputs=lambda rows: inputs_of(positions[rows], np.zeros((len(rows), 3, 4))),
    )
    return journal.create_journal(folder / "messages.h5", layout)


class _Instant:
    """Chunks that take no time and return bytes of records, as those of `JournalTask`."""

    def __init__(self, n_chunks: int, rows: int) -> None:
        self.n_chunks = n_chunks
        self._records = np.zeros(rows, RECORD)

    def run(self, chunk: int) -> Any:
        return self._records.tobytes()


def _count_idle_turns(executor: executors.MPIExecutor, spent: dict[str, float]) -> None:
    """Add up the CPU seconds of rank 0's turns without a message, and of sending."""
    clock = time.thread_time
    now, send = executor.now, executor.mail.send
    began = [clock()]

    def beginning() -> float:
        began[0] = clock()
        return now()

    class Idle(messages.Backoff):
        def __call__(self) -> None:
            super().__call__()
            spent["idle"] += clock() - began[0]
            began[0] = clock()

    def timed_send(value: Any, to: int, tag: int) -> None:
        begun = clock()
        send(value, to, tag)
        spent["send"] += clock() - begun

    executors.Backoff = Idle  # type: ignore[misc]
    executor.now, executor.mail.send = beginning, timed_send  # type: ignore[method-assign]


def messages_program(folder: str, n_reports: str = str(N_REPORTS)) -> None:
    """CPU seconds of rank 0 for each report, by driver and number of chunks in it; times of writing a block."""
    executor = _make_executor()
    schedule.SCHEDULER_ONLY_FROM = 2
    spent = {"idle": 0.0, "send": 0.0}
    if executor.rank == 0:
        _count_idle_turns(executor, spent)
    clock = time.thread_time
    journal = executor.broadcast(_journal(Path(folder), 64) if executor.rank == 0 else None)
    dtype = journal.record_dtype
    found: dict[str, Any] = {}
    for driver, rows in (("posix", 1), ("gather", POINTS)):
        for size in SIZES:

            class Even(schedule.Schedule):
                def take(self, rank: int, in_hand: int, size: int = size) -> range | None:
                    if rank == 0 or in_hand > 1 or self.exhausted:
                        return None
                    self.handed_out += size
                    return range(self.handed_out - size, self.handed_out)

            executors.Schedule = Even  # type: ignore[misc]
            many = int(n_reports) if rows < POINTS else int(n_reports) // 5

            def sink(chunk: int, data: Any, rows: int = rows) -> None:
                # as the sink of a command
                records = np.frombuffer(data, dtype)
                if rows == POINTS:
                    journal.record(chunk % 64, records)
                last = dict(zip(("a", "b", "c", "d", "e", "f"), records[-1:]["result"][-1], strict=True))
                f"it={last['a']:02.0f} dPhiNorm={last['b']:.3e} rs={last['c']:+.0f}"

            chosen = sink if executor.rank == 0 else None
            executor.map(_Instant(size, rows), chosen)
            spent.update(idle=0.0, send=0.0)
            begun = clock()
            executor.map(_Instant(many * size, rows), chosen)
            busy = clock() - begun - spent["idle"]
            found[f"{driver} {size}"] = {
                "report": (busy - spent["send"]) / many,
                "send": spent["send"] / many,
            }
    import h5py

    records = np.zeros(POINTS, journal.slots["mpidvc/journal/records"].dtype)
    times = {"posix": _record_seconds(journal, executor, records)}
    if h5py.get_config().mpi:
        journal.open_parallel(executor.communicator.mpi)
        times["mpio"] = _record_seconds(journal, executor, records)
        journal.close_parallel()
    if executor.rank == 0:
        print(json.dumps({"reports": found, "record": times}))
    executor.finish(0)


def _record_seconds(journal: Any, executor: Any, records: Any) -> float:
    journal.record(executor.rank, records)
    times = []
    for k in range(200):
        begun = time.perf_counter()
        journal.record((executor.size * k + executor.rank) % 64, records)
        times.append(time.perf_counter() - begun)
    return min(times)


def ping_program() -> None:
    """Latency of a short message and bytes per second of a long one, between two ranks."""
    executor = _make_executor()
    comm = executor.communicator.mpi  # type: ignore[attr-defined]
    found = {}
    for n, times in ((8, 300), (2**22, 30)):
        data = bytearray(n)
        spans = []
        for _ in range(times):
            begun = time.perf_counter()
            if executor.rank == 0:
                comm.Send(data, 1)
                comm.Recv(data, 1)
            else:
                comm.Recv(data, 0)
                comm.Send(data, 0)
            spans.append((time.perf_counter() - begun) / 2)
        found[n] = min(spans)
    if executor.rank == 0:
        print(json.dumps({"latency": found[8], "bytes_per_second": 2**22 / found[2**22]}))
    executor.finish(0)


class _Sleeping:
    """Chunks that sleep for their time in the simulation."""

    def __init__(self, seconds: Any) -> None:
        self._seconds = seconds
        self.n_chunks = len(seconds)
        self._result = np.zeros(1, RECORD).tobytes()

    def run(self, chunk: int) -> Any:
        if self._seconds[chunk] > 0:
            time.sleep(self._seconds[chunk])
        return self._result


def sleep_program(work: str, chunk: str, seed: str) -> None:
    """Wall time of a map of chunks that sleep."""
    from mpidvc.runtime.simulation import Case, chunk_costs

    executor = _make_executor()
    case = Case(executor.size, float(work), float(chunk), seed=int(seed))
    task = _Sleeping(chunk_costs(case.n_chunks, case.chunk, case.even, case.seed))
    executor.map(_Sleeping(np.full(2 * executor.size, 0.01)), None)
    begun = time.perf_counter()
    executor.map(task, (lambda chunk, result: None) if executor.rank == 0 else None)
    if executor.rank == 0:
        print(json.dumps({"seconds": time.perf_counter() - begun}))
    executor.finish(0)


def count_program(*arguments: str) -> None:
    """Run a command; print the numbers of rank 0's messages by tag, of rounds and of broadcasts."""
    import mpidvc.main

    counts: Counter[str] = Counter()
    send, poll = messages.Mailbox.send_bytes, messages.Mailbox.poll

    def counting_send(self: Any, data: Any, to: int, tag: int) -> None:
        counts[f"sent {tag}"] += 1
        send(self, data, to, tag)

    def counting_poll(self: Any) -> Any:
        message = poll(self)
        if message is not None:
            counts[f"got {message[1]}"] += 1
        return message

    messages.Mailbox.send_bytes = counting_send  # type: ignore[method-assign]
    messages.Mailbox.poll = counting_poll  # type: ignore[method-assign]
    for name in ("reduce", "broadcast", "map"):
        method = getattr(executors.MPIExecutor, name)

        def counted(self: Any, *args: Any, method: Any = method, name: str = name) -> Any:
            counts[name] += 1
            return method(self, *args)

        setattr(executors.MPIExecutor, name, counted)
    rank = find_launcher()
    with contextlib.redirect_stdout(io.StringIO()):
        status = mpidvc.main.main(list(arguments))
    if rank is not None and rank.rank == 0:
        print(json.dumps(counts))
    sys.exit(status)


# ---- on one process


def oversleeping() -> float:
    """Seconds by which a sleep is too long."""
    spans = []
    for _ in range(200):
        begun = time.perf_counter()
        time.sleep(1e-3)
        spans.append(time.perf_counter() - begun - 1e-3)
    return float(np.median(spans))


def bookkeeping(size: int) -> dict[str, float]:
    """Seconds of the real classes for a report with `size` ranks (mean, median), and for the other calls."""
    ledger = schedule.Ledger(schedule.Schedule(200 * size, size), range(1, size), schedule.Lease())
    now, held = 0.0, []
    begun = time.perf_counter()
    for rank, number, _ in ledger.hand_out(now):
        held.append((rank, number))
    first = (time.perf_counter() - begun) / max(len(held), 1)
    spans = []
    for step in range(max(20_000, 3 * size) if size > 2 else 150):
        if step >= len(held):
            break
        rank, number = held[step]
        now += 1e-4
        begun = time.perf_counter()
        ledger.returned(rank, number, 0.3, now)
        for other, given, _ in ledger.hand_out(now):
            held.append((other, given))
        spans.append(time.perf_counter() - begun)
    looks = []
    for _ in range(5):
        now += 2
        begun = time.perf_counter()
        ledger.expire(now)
        looks.append(time.perf_counter() - begun)
    return {
        "report": float(np.mean(spans)),
        "median": float(np.median(spans)),
        "first": first,
        "expire": min(looks),
    }


def per_point(folder: Path) -> dict[str, float]:
    """CPU seconds, bytes and calls of the stages before and after the work: of a point, a chunk, or a run."""
    from mpidvc.core.grid import GridOrder
    from mpidvc.fields import hdf5
    from mpidvc.fields.phifield import PhiField
    from mpidvc.fields.stored import open_stored
    from mpidvc.fields.tsv import column_names
    from mpidvc.rowfile import RowFile
    from mpidvc.runtime import journal as journals
    from mpidvc.tasks.guesses import InputsTask, SurveyTask
    from mpidvc.workflow.finishing import OrderedRows
    from mpidvc.workflow.guess import Guess, Nodes
    from mpidvc.workflow.text import TextPlaces, TextRows
    from mpidvc.workflow.work import Work

    edge, clock = FIELD_EDGE, time.process_time
    columns = correlation.RESULT
    layout = hdf5.FieldLayout.of_grid(np.full(3, 10.0), (edge,) * 3, (10, 10, 10), columns)
    nodes = Nodes(layout, (10.0, 10.0, 10.0))

    def begun(per: int, guess: Guess) -> tuple[journals.Journal, float]:
        """A journal with chunks of per³ points, and the time until its first chunk could be handed out."""
        (folder / "points.h5").unlink(missing_ok=True)
        begin = clock()
        order = GridOrder((edge,) * 3, (per,) * 3)
        work = Work(
            determines={}, nodes=nodes, columns=columns, record=RECORD, guess=guess, order=order, starts=order.starts
        )
        beginning = journals.JournalLayout(
            determines={"command": "ldic"},
            columns=columns,
            records=RECORD,
            order=order,
            starts=work.starts,
            positions=lambda rows: nodes[rows],
            inputs=work.inputs,
            computed=work.computed,
            inputs_follow=guess.stored is not None,
        )
        journal = journals.create_journal(folder / "points.h5", beginning)
        journal.todo()
        return journal, clock() - begin

    n, found = len(nodes), {}
    seconds = {}
    for name, per in (("small chunks", 1), ("files", 8)):
        times = []
        for _ in range(TIMES):
            journal, spent = begun(per, Guess())
            times.append(spent)
            journal.close()
        seconds[name] = min(times)
    found["chunk"] = max(0.0, (seconds["small chunks"] - seconds["files"]) / (n - n // 512))
    given = folder / "points.guess.h5"
    values = {name: np.ones(n) for name in columns}
    field = PhiField.from_positions(nodes.positions, np.tile(np.eye(4), (n, 1, 1)), values)
    hdf5.write_hdf5(given, field)
    stored = open_stored(str(given))
    assert stored is not None
    journal, _ = begun(8, Guess(stored=stored))
    for name, task in (("look", SurveyTask(stored)), ("field", InputsTask(journal, stored))):
        times = []
        for _ in range(TIMES):
            begin = clock()
            for chunk in range(task.n_chunks):
                task.run(chunk)
            times.append(clock() - begin)
        found[name] = min(times) / n
    journal.close()
    stored.close()
    journal, _ = begun(8, Guess())
    rng = np.random.default_rng(1)
    for block in range(journal.n_blocks):
        records = np.zeros(512, RECORD)
        records["phi"] = np.eye(4)[:3] + rng.normal(0, 0.01, (512, 3, 4))
        result = {"error": 100.0, "iterations": 6, "returnStatus": 2, "deltaPhiNorm": 1e-4, "coverage": 1, "zncc": 0.98}
        records["result"] = [result.get(name, 0.0) for name in columns] * rng.uniform(0.99, 1.01, (512, 1))
        for name in ("iterations", "returnStatus", "coverage"):
            if name in columns:
                records["result"][:, columns.index(name)] = result[name]
        journal.record(block, records)
    layout = hdf5.FieldLayout(**{**layout.__dict__, "attributes": {"command": "ldic", "determines": "{}"}})
    part = folder / "points.h5.part"
    times = []
    for _ in range(TIMES):
        begin = clock()
        slots = hdf5.create_results_file(part, layout, folder / "points.h5")
        times.append(clock() - begin)
    found["files"] = seconds["files"] + min(times)
    target = RowFile(part, slots)

    def timed(run: Any, pieces: Sequence[Any]) -> tuple[float, list[Any]]:
        times = []
        for _ in range(TIMES):
            begin = clock()
            done = [run(piece) for piece in pieces]
            times.append(clock() - begin)
        return min(times) / n, done

    names = column_names("LDIC")
    finish = OrderedRows(journal, target, layout, names)
    found["grid order"], told = timed(finish.run, range(finish.n_chunks))
    found["datasets"] = len(slots)
    target.close()
    places = TextPlaces(names, n)
    parts = [
        part
        for piece, (_, _, lengths) in enumerate(told)
        for (start, stop), length in zip(finish.pieces[piece][2], lengths.tolist(), strict=True)
        for part in places.add(start, stop, length)
    ]
    text = folder / "points.tsv"
    text.touch()
    rows, written = TextRows(target, layout, names), RowFile(text, {})
    with _counted_calls() as counts:
        found["TSV"] = timed(lambda part: rows.write(part, written), parts)[0]
    # and a call to write for all that read the datasets once
    found["calls of the TSV"] = counts.total() / TIMES * (1 + 1 / len(slots)) / n
    found["bytes of the TSV"] = places.size / n
    some, times = rng.bytes(2**24), []
    for _ in range(TIMES):
        begin = clock()
        hashlib.sha256(some)
        times.append(clock() - begin)
    found["fingerprint"] = min(times) * FINGERPRINT / len(some)
    found["bytes of the finished file"] = part.stat().st_size / n
    for path in folder.glob("points.*"):
        path.unlink()
    return found


@contextlib.contextmanager
def _counted_calls() -> Iterator[Counter[str]]:
    """The numbers of calls of the methods of `RowFile` that read and write, meanwhile."""
    from mpidvc.rowfile import RowFile

    counts = Counter[str]()
    methods = {name: getattr(RowFile, name) for name in ("read", "write")}

    def counting(name: str) -> Any:
        def counted(self: Any, *arguments: Any) -> Any:
            counts[name] += 1
            return methods[name](self, *arguments)

        return counted

    for name in methods:
        setattr(RowFile, name, counting(name))
    try:
        yield counts
    finally:
        for name, method in methods.items():
            setattr(RowFile, name, method)


def chunk_seconds(folder: Path) -> dict[str, Any]:
    """Points per second and core of ldic, for several windows, and the seconds of a chunk."""
    import tifffile

    from mpidvc.core.analytic import AnalyticPair

    pair = AnalyticPair((100, 100, 100), 1)
    tifffile.imwrite(folder / "one.tif", pair.image1())
    tifffile.imwrite(folder / "two.tif", pair.image2())
    found = {}
    for hws, order in ((5, 1), (10, 1), (10, 3), (15, 3)):
        arguments = ["ldic", "one.tif", "two.tif", "-hws", str(hws), "-o", str(order), "-ns", "8", "-np", "1"]
        arguments += ["-pre", f"h{hws}", "-notsv", "--overwrite"]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MPIDVC_TIMINGS": str(folder / "times.json")}
        command = [sys.executable, "-m", "mpidvc", *arguments]
        rate = 0.0
        for _ in range(TIMES):
            subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, timeout=120)
            times = json.loads((folder / "times.json").read_text())
            rate = max(rate, times["points"] / times["points_cpu"])
        found[f"-hws {hws} -o {order}"] = {"points_per_second": rate, "chunk": POINTS / rate}
    return found


def ends(folder: Path, ranks: Sequence[int] = (1, 2, 3, 4)) -> list[dict[str, Any]]:
    """Real runs of many small windows: points, and CPU seconds of the busiest rank in the stages after the points."""
    import tifffile

    from mpidvc.core.analytic import AnalyticPair

    pair = AnalyticPair((201, 201, 201), 1)
    tifffile.imwrite(folder / "first.tif", pair.image1())
    tifffile.imwrite(folder / "second.tif", pair.image2())
    found = []
    for n in ranks:
        arguments = ["ldic", "first.tif", "second.tif", "-hws", "3", "-o", "1", "-it", "1", "-ns", "2", "-np", str(n)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MPIDVC_TIMINGS": str(folder / "times.json")}
        command = [sys.executable, "-m", "mpidvc", *arguments, "-pre", f"ends{n}", "--overwrite"]
        busiest: dict[str, float] = {}
        for _ in range(TIMES):
            # the windows are to cost little, and few converge
            done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, timeout=600, check=False)
            if done.returncode not in (0, 1):
                raise SystemExit(done.stderr.decode())
            times = json.loads((folder / "times.json").read_text())
            for stage in ("layout", "finish", "summary", "write"):
                busiest[stage] = min(max(times["cpu"][stage]), busiest.get(stage, math.inf))
        found.append({"ranks": n, "points": times["points"], **busiest})
    return found


def start_messages(folder: Path) -> dict[str, float]:
    """Messages of rank 0 for every worker of an ldic, besides assignments and their results: sent and got."""
    counts = {}
    for n in (2, 4):
        arguments = ["ldic", "one.tif", "two.tif", "-hws", "5", "-o", "1", "-ns", "8", "-pre", f"n{n}", "-notsv"]
        folded = ["--overwrite", "--hdf5-driver", "posix", "-od", str(folder)]
        paths = [str(folder / name) if name.endswith(".tif") else name for name in arguments]
        counts[n] = json.loads(run_ranks(n, "count", *paths, *folded).strip().splitlines()[-1])
    # a sum has one assignment for each rank; those of maps belong to the work
    slope = {
        way: (
            sum((counts[4].get(key, 0) - counts[2].get(key, 0)) / 2 for key in counts[4] if key.startswith(way))
            - (counts[4].get(work, 0) - counts[2].get(work, 0)) / 2
            + counts[2].get("reduce", 0)
        )
        for way, work in (("sent", f"sent {messages.Tag.WORK}"), ("got", f"got {messages.Tag.DONE}"))
    }
    # with a single worker each of them has one head
    slope["long broadcasts"] = counts[2].get(f"sent {messages.Tag.HEAD}", 0)
    slope["rounds"] = counts[2].get("map", 0) + counts[2].get("reduce", 0)
    return slope


def measure_messages(folder: Path, times: int = TIMES) -> dict[str, Any]:
    """Results of `messages_program`, the least of several runs: other load only adds."""
    runs = [json.loads(run_ranks(2, "messages", str(folder))) for _ in range(times)]
    reports = {
        name: {part: min(run["reports"][name][part] for run in runs) for part in value}
        for name, value in runs[0]["reports"].items()
    }
    return {
        "reports": reports,
        "record": {name: min(run["record"][name] for run in runs) for name in runs[0]["record"]},
    }


def measure_points(folder: Path) -> dict[str, Any]:
    """What points cost, before, while and after they are measured; and real runs with the costs around them."""
    found: dict[str, Any] = {"points": per_point(folder), "chunks": chunk_seconds(folder), "ends": ends(folder)}
    alone = found["ends"][0]
    found["points"]["summary"] = alone["summary"] / min(alone["points"], MOST_JUDGED)
    found["start"] = start_messages(folder)
    return found


def measure(folder: Path) -> dict[str, Any]:
    """Measure everything, in a few minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"ping": json.loads(run_ranks(2, "ping"))}
    found.update(measure_messages(folder))
    found["bookkeeping"] = {str(size): bookkeeping(size) for size in (8, 128, 2048, 10000)}
    found.update(measure_points(folder))
    found["machine"] = {"processor": _processor(), "python": platform.python_version(), "numpy": np.__version__}
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


PROGRAMS = {"messages": messages_program, "ping": ping_program, "sleep": sleep_program, "count": count_program}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
