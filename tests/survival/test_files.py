"""Results files that are damaged, of another run, or in use, under --resume and --overwrite."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpidvc.kernels.correlation import instruction_sets
from mpidvc.runtime.launch import find_mpiexec
from tests.conftest import Job as Run
from tests.outputs import outputs
from tests.survival.conftest import LINES, Make
from tests.survival.jobs import JOURNAL, LONG, Job, interrupted, marks, same, seeds, wait
from tests.waiting import until

Oracle = Callable[[str], Path]
LDIC = LINES["ldic"]


def refused(job: Job, options: Sequence[str], *words: str) -> None:
    """It ends with one line that has these words and the file's name, and leaves everything as it is."""
    before = outputs(job.out)
    line = job.refuse(*options)
    for word in (*words, str(job.results)):
        assert word in line
    assert outputs(job.out) == before


def stored(results: Path, name: str) -> bool:
    """Whether the journal has this dataset."""
    with h5py.File(results, "r", locking=False) as file:
        return name in file[JOURNAL]


def slot(results: Path, name: str) -> tuple[int, int]:
    """Offset and number of bytes of a dataset of the journal."""
    with h5py.File(results, "r", locking=False) as file:
        data = file[f"{JOURNAL}/{name}"]
        return data.id.get_offset(), data.id.get_storage_size()


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


# ---- options


def test_unfinished_without_options(make: Make, oracle: Oracle) -> None:
    job = make(LDIC)
    interrupted(job)
    refused(job, [], "--resume", "--overwrite")
    assert "--resume --overwrite" in job.refuse("--resume", "--overwrite")
    again = job.run(1, "--overwrite")
    assert again.process.returncode == 0, again.err
    assert "Going on" not in again.out
    same(job.out, oracle(LDIC))


def test_overwrite_takes_whatever_is_there(make: Make, oracle: Oracle) -> None:
    """Also a file of another version, and an unreadable one."""
    job = make(LDIC)
    interrupted(job)
    with h5py.File(job.results, "r+") as file:
        file[JOURNAL].attrs["format"] = 99
    refused(job, ["--resume"], "another version of mpidvc", "--overwrite")
    assert job.run(1, "--overwrite").process.returncode == 0
    same(job.out, oracle(LDIC))
    job.results.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    refused(job, [], "is damaged")
    assert job.run(1, "--overwrite").process.returncode == 0
    same(job.out, oracle(LDIC))


def test_resume_where_nothing_is_and_where_nothing_is_left(make: Make, oracle: Oracle) -> None:
    job = make(LDIC)
    assert "Going on" not in job.resume(oracle(LDIC)).out
    before = job.results.stat().st_mtime_ns
    job.tsv.unlink()
    assert "nothing is left to be measured" in job.resume(oracle(LDIC)).out
    assert job.results.stat().st_mtime_ns == before
    refused(job, ["--resume", "-hws", "7"], "-hws")
    # a finished run may be run anew
    assert job.run(1).process.returncode == 0
    assert job.results.stat().st_mtime_ns > before
    same(job.out, oracle(LDIC))


def test_noh5(make: Make, oracle: Oracle, tmp_path: Path) -> None:
    job = make(LDIC)
    interrupted(job, 0.3, "-noh5")
    ended = job.run(1, "-noh5", "--resume")
    assert ended.process.returncode == 0, ended.err
    assert "Going on" in ended.out
    assert [path.name for path in job.out.iterdir()] == [job.tsv.name]
    assert job.tsv.read_bytes() == (oracle(LDIC) / job.tsv.name).read_bytes()


def test_two_runs_of_one_journal(make: Make, oracle: Oracle) -> None:
    job = make(LDIC)
    with job.start(1, lasts=0.1) as first:
        wait(job, first, 0.1)
        for options in ([], ["--resume"], ["--overwrite"]):
            refused(job, options, "another run is writing it", "wait for its end")
        first.hurry()
        assert first.end() == 0
    same(job.out, oracle(LDIC))


@pytest.mark.parametrize("options", [[], ["--resume"], ["--overwrite"]])
def test_two_runs_begun_at_once(options: list[str], make: Make, oracle: Oracle) -> None:
    """As when a job is submitted twice: the later one is refused."""
    job = make(LINES["pixelSearch"])
    job.out.mkdir()
    folder = os.open(job.out, os.O_RDONLY)
    try:
        # both have checked everything when they wait for the folder
        fcntl.flock(folder, fcntl.LOCK_EX)
        with job.start(1, *options, lasts=0.5) as first, job.start(1, *options, lasts=0.5) as second:
            until(lambda: all(waits_for_a_lock(run.process.pid) for run in (first, second)), "both wait")
            fcntl.flock(folder, fcntl.LOCK_UN)
            until(lambda: not (first.running and second.running), "one of them is refused")
            first.hurry()
            ends = [first.end(), second.end()]
    finally:
        os.close(folder)
    assert sorted(ends) == [0, 2], first.err + second.err
    (line,) = (first.err + second.err).splitlines()
    assert str(job.results) in line
    assert "another run is writing it" in line
    assert "wait for its end" in line
    same(job.out, oracle(LINES["pixelSearch"]))


def waits_for_a_lock(pid: int) -> bool:
    return any(f" {pid} " in line and "->" in line for line in Path("/proc/locks").read_text().splitlines())


# ---- other inputs


@pytest.mark.usefixtures("guesses")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-hws", "7"], ["-hws", "8 8 8", "7 7 7"]),
        (["-ns", "5"], ["-ns", "4 4 4", "5 5 5"]),
        (["-o", "1"], ["-o 3", "1"]),
        (["-dp", "1e-4"], ["-dp", "1e-05", "0.0001"]),
        (["--criterion", "znssd"], ["--criterion"]),
        (["-mf1", "@mask.tif"], ["mask (-mf1)"]),
        (["-pf", "@field.tsv"], ["-pf"]),
        (["-ug"], ["-ug"]),
        (["-F", "no"], ["-F"]),
    ],
)
def test_another_run(
    options: list[str], words: list[str], make: Make, images: Path, begun: Callable[[Job], None]
) -> None:
    job = make(LDIC)
    begun(job)
    refused(job, ["--resume", *(option.replace("@", f"{images}/") for option in options)], "--resume", *words)


@pytest.mark.parametrize("changed", ["image 1", "image 2", "version", "instructions"])
def test_other_images_or_programs(
    changed: str, make: Make, images: Path, tmp_path: Path, begun: Callable[[Job], None]
) -> None:
    shutil.copytree(images, tmp_path / "im")
    job = make(LDIC.replace("@", f"{tmp_path}/im/"))
    begun(job)
    if changed.startswith("image"):
        # one voxel in the middle
        path = tmp_path / "im" / ("a.tif" if changed == "image 1" else "b.tif")
        flip(path, path.stat().st_size // 2)
    else:
        with h5py.File(job.results, "r+", locking=False) as file:
            told = json.loads(file["mpidvc"].attrs["determines"])
            told["instruction set" if changed == "instructions" else changed] = "none"
            file["mpidvc"].attrs["determines"] = json.dumps(told)
    refused_or_named = job.refuse("--resume")
    assert changed in refused_or_named
    assert "--resume" in refused_or_named


def test_instruction_set_is_kept(make: Make, oracle: Oracle, images: Path, tmp_path: Path) -> None:
    """A run that was begun on an old processor is resumed with that instruction set."""
    line = LINES["ldic"]
    if len(instruction_sets()) < 2:
        pytest.skip("this processor has one instruction set")
    old = make(line, out="old")
    assert old.run(1, MPIDVC_ISA="baseline").process.returncode == 0
    job = make(line)
    interrupted(job, 0.5, MPIDVC_ISA="baseline")
    job.resume(old.out)


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Job], None]:
    """Put the files of a killed run of `LDIC` where a job has its results."""
    kept = tmp_path_factory.mktemp("begun")

    def put(job: Job) -> None:
        if not list(kept.iterdir()):
            interrupted(job)
            for path in job.out.iterdir():
                shutil.copy(path, kept)
        job.out.mkdir(exist_ok=True)
        for path in kept.iterdir():
            shutil.copy(path, job.out)

    return put


# ---- damage


@pytest.mark.parametrize("seed", seeds(1, 20))
@pytest.mark.parametrize("name", LINES if LONG else ["ldic", "pixelSearchPropagate"])
def test_flipped_bytes(name: str, seed: int, make: Make, oracle: Oracle) -> None:
    """Records that do not fit their mark are measured again; inputs come from the images and options."""
    chance = random.Random(seed)
    job = make(LINES[name])
    interrupted(job)
    for what in ("records", "marks", "inputs", "positions", "places"):
        if not stored(job.results, what):
            # every rank computes the points of a grid
            assert name == "ldic"
            continue
        offset, size = slot(job.results, what)
        for _ in range(3):
            # only blocks of the first half may be done
            flip(job.results, offset + chance.randrange(size // 2))
    job.resume(oracle(LINES[name]))


@pytest.mark.parametrize(
    ("name", "seed"),
    [(name, seed) for name in LINES for seed in range(30)] if LONG else [("pixelSearchPropagate", 5), ("ldic", 3)],
)
def test_cut_off(name: str, seed: int, make: Make, oracle: Oracle) -> None:
    """A file that lost its end is resumed, or refused in a line; never a traceback, never other bytes."""
    chance = random.Random(seed)
    job = make(LINES[name])
    interrupted(job)
    size = job.results.stat().st_size
    cut = [0, 7, 50, 3000, size - 1, size // 2][seed] if seed < 6 else chance.randrange(size)
    with job.results.open("r+b") as file:
        file.truncate(cut)
    refused(job, [])
    ended = job.run(1, "--resume")
    assert "Traceback" not in ended.err
    if ended.process.returncode != 0:
        assert ended.process.returncode == 2
        assert len(ended.err.splitlines()) == 1
        assert str(job.results) in ended.err
        assert job.results.stat().st_size == cut
        assert cut < size // 2
        assert job.run(1, "--overwrite").process.returncode == 0
    same(job.out, oracle(LINES[name]))


@pytest.mark.parametrize("seed", seeds(2, 200))
def test_any_flipped_byte_of_the_head(seed: int, make: Make, oracle: Oracle, begun: Callable[[Job], None]) -> None:
    """The metadata have no checksums: never a traceback nor a crash, and if it ends well, with the right bytes."""
    chance = random.Random(seed)
    job = make(LDIC)
    begun(job)
    first = min(slot(job.results, name)[0] for name in ("records", "marks", "starts"))
    flip(job.results, chance.randrange(min(first, 8192)))
    for option in ((), ("--resume",)):
        ended = job.run(1, *option)
        assert "Traceback" not in ended.err, ended.err
        assert ended.process.returncode in (0, 2), ended.err
    if ended.process.returncode == 0:
        assert job.tsv.read_bytes() == (oracle(LDIC) / job.tsv.name).read_bytes()


@pytest.fixture(scope="module")
def tally() -> Iterator[Counter[str]]:
    """How damaged files ended; the long form says it."""
    counts: Counter[str] = Counter()
    yield counts
    if LONG:
        print("".join(f"\n{how}: {n}" for how, n in sorted(counts.items())))


def resumes_right_or_refuses(job: Job, oracle: Path) -> str:
    """The files are those of an undisturbed run, or one line says why not and the file stays as it is."""
    before = job.results.read_bytes()
    ended = job.run(1, "--resume")
    assert "Traceback" not in ended.err, ended.err
    if ended.process.returncode == 0:
        same(job.out, oracle)
        return "right bytes"
    assert ended.process.returncode == 2, ended.err
    assert len(ended.err.splitlines()) == 1, ended.err
    assert "--overwrite" in ended.err or "move it away" in ended.err
    assert job.results.read_bytes() == before
    return "refused"


DATASETS = ("marks", "starts", "places", "positions", "inputs", "records")
#: Bits of an offset that are flipped: within a row, a block, the file, and far beyond it.
BITS = (0, 3, 6, 9, 12, 15, 18, 40)


@pytest.mark.parametrize(
    ("name", "bit"),
    [(name, bit) for name in DATASETS for bit in BITS]
    if LONG
    else [(name, BITS[k + 1]) for k, name in enumerate(DATASETS)],
)
def test_flipped_offset_of_a_dataset(
    name: str, bit: int, make: Make, oracle: Oracle, begun: Callable[[Job], None], tally: Counter[str]
) -> None:
    """Places are known without the file; one that tells others is not written to."""
    # every rank computes the points of a grid
    line = LINES["pixelSearchPropagate"] if name in ("places", "positions", "inputs") else LDIC
    job = make(line)
    (begun if line == LDIC else interrupted)(job)
    flip_offset(job.results, f"{JOURNAL}/{name}", bit)
    tally[f"offsets of a journal, {resumes_right_or_refuses(job, oracle(line))}"] += 1


def flip_offset(path: Path, name: str, bit: int) -> None:
    """Flip a bit of a dataset's offset in the metadata."""
    told = offset_of(path, name)
    content = path.read_bytes()
    data = told.to_bytes(8, "little")
    # the same bytes may stand elsewhere
    at = content.find(data)
    while at >= 0:
        changed = bytearray(content)
        changed[at + bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        if offset_of(path, name) != told:
            return
        at = content.find(data, at + 1)
    raise AssertionError(f"the offset of {name} was not found")


def offset_of(path: Path, name: str) -> int:
    """The offset of a dataset, -1 where HDF5 does not open it."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return int(file[name].id.get_offset())
    except (OSError, KeyError, RuntimeError):
        return -1


@pytest.mark.parametrize("seed", seeds(9, 41))
def test_any_other_damage(
    seed: int, make: Make, oracle: Oracle, begun: Callable[[Job], None], tally: Counter[str]
) -> None:
    job = make(LDIC)
    begun(job)
    kind = damage(job.results, seed)
    tally[f"{kind} of a journal, {resumes_right_or_refuses(job, oracle(LDIC))}"] += 1


def damage(path: Path, seed: int) -> str:
    """Damage a journal, and tell how."""
    chance = random.Random(seed)
    content = bytearray(path.read_bytes())
    size = len(content)
    at, other = (chance.randrange(size // 4096) * 4096 for _ in range(2))
    kinds = ("bit of the head", "attributes", "chunks", "marks", "truncation", "zeroed page", "noise", "copy", "more")
    kind = kinds[seed % len(kinds)]
    if kind == "bit of the head":
        content[chance.randrange(8192)] ^= 1 << chance.randrange(8)
    elif kind == "attributes":
        # where HDF5 keeps texts, the heads of their heaps included
        begin = chance.choice([found.start() for found in re.finditer(b"GCOL", content)])
        length = chance.randrange(1, 64)
        begin += chance.randrange(512)
        content[begin : begin + length] = chance.choice([bytes(length), chance.randbytes(length)])
    elif kind in ("chunks", "marks"):
        offset, length = slot(path, "records" if kind == "chunks" else kind)
        content[offset : offset + length // 2] = chance.randbytes(length // 2)
    elif kind == "truncation":
        del content[chance.randrange(size) :]
    elif kind == "zeroed page":
        content[at : at + 4096] = bytes(4096)
    elif kind == "noise":
        content[at : at + 512] = chance.randbytes(512)
    elif kind == "copy":
        content[at : at + 4096] = content[other : other + 4096]
    else:
        content += chance.randbytes(chance.randrange(1, 100_000))
    path.write_bytes(content)
    return kind


@pytest.mark.parametrize("bit", BITS if LONG else BITS[4:6])
@pytest.mark.parametrize("name", ["positions", "displacement", "F", "returnStatus"] if LONG else ["F"])
def test_flipped_offset_in_a_finished_file(
    name: str, bit: int, make: Make, oracle: Oracle, tally: Counter[str]
) -> None:
    job = make(LDIC)
    shutil.copytree(oracle(LDIC), job.out)
    job.tsv.unlink()
    flip_offset(job.results, f"mpidvc/{name}", bit)
    tally[f"offsets of a finished file, {resumes_right_or_refuses(job, oracle(LDIC))}"] += 1
    assert not job.tsv.exists()


#: Changes a byte of a record when it is to be copied.
CHANGE = """
from mpidvc.workflow.finishing import OrderedRows
def changing(self, piece, run=OrderedRows.run):
    if piece == 0:
        slot = self._journal.slots["mpidvc/journal/records"]
        self._journal.write_at(slot.offset + 10 * slot.row_bytes + 3, b"?")
    return run(self, piece)
OrderedRows.run = changing
"""


@pytest.mark.parametrize("driver", ["posix", "gather"])
def test_records_that_change_before_they_are_copied(driver: str, make: Make, oracle: Oracle) -> None:
    job = make(LDIC)
    ended = job.run(2 if find_mpiexec() else 1, "--hdf5-driver", driver, code=CHANGE)
    assert ended.process.returncode == 75
    (line,) = ended.err.splitlines()
    assert "1 of " in line
    assert "do not fit their checksums any more" in line
    assert "Going on" in job.resume(oracle(LDIC)).out


def test_what_takes_its_place(make: Make, oracle: Oracle) -> None:
    """A folder, a text, another program's HDF5 where the results go: refused and left alone."""
    job = make(LDIC)
    job.out.mkdir()
    job.results.mkdir()
    for options in ((), ("--resume",), ("--overwrite",)):
        assert str(job.results) in job.refuse(*options)
        assert [path.name for path in job.out.iterdir()] == [job.results.name]
    job.results.rmdir()
    job.results.write_text("notes\n")
    for options in ((), ("--resume",)):
        refused(job, options, "no results file")
    with h5py.File(job.results, "w") as file:
        file["image"] = np.zeros(3)
    for options in ((), ("--resume",)):
        refused(job, options, "no results file")
    assert job.run(1, "--overwrite").process.returncode == 0
    same(job.out, oracle(LDIC))


# ---- all kinds of runs


@pytest.mark.parametrize(
    "line",
    [
        f"{LDIC} -pf @field.tsv -skp",
        f"{LDIC} -mf1 @mask.tif -mc 0.3 -vtk -tif",
        f"{LDIC} -pf @field.h5",
        "pixelSearch @f.tif @g.tif -ns 5 -hws 9 -sr 0 0 -6 6 -6 6",
        "ldic @f.tif @g.tif -ns 5 -hws 12 -o 3 -dp 1e-5",
        f"{LINES['pixelSearch']} -mf1 @mask.tif -mf2 @mask.tif",
        f"{LINES['pixelSearchPropagate']} -mf1 @mask.tif --ranking distance",
        "pixelSearchPropagate @f.tif @g.tif -ns 5 -hws 9 -sr 0 0 -3 3 -3 3 -sp 0 100 150 0 0 0",
    ][:: 1 if LONG else 3],
)
@pytest.mark.usefixtures("guesses")
def test_every_kind_of_run(line: str, make: Make, oracle: Oracle) -> None:
    flat = "@f.tif" in line
    job = make(line, f"{'f-g' if flat else 'a-b'}-{line.split()[0]}")
    interrupted(job)
    ended = job.resume(oracle(line), "--hdf5-driver", "gather", n=3 if find_mpiexec() else 1)
    assert "Going on" in ended.out


@pytest.fixture(scope="session")
def guesses(images: Path, command: Run) -> None:
    """A field with nodes that are to be correlated again, as TSV and as HDF5."""
    made = [str(images / "a.tif"), str(images / "b.tif"), "-ns", "4", "-hws", "5", "-it", "3", "-np", "1"]
    done = command("ldic", *made, "-od", str(images), "-pre", "made")
    assert done.returncode in (0, 1), done.stderr
    (images / "made-ldic.tsv").rename(images / "field.tsv")
    (images / "made-ldic.h5").rename(images / "field.h5")


def test_begun_by_another_command(make: Make) -> None:
    job, other = make(LDIC, "x-ldic"), make(LINES["pixelSearch"])
    interrupted(other)
    other.results.rename(job.results)
    refused(job, ["--resume", "-pre", "x"], "command pixelSearch")


def test_permissions_are_kept(make: Make) -> None:
    """Those of files that are replaced; new ones have those of the umask."""
    job = make(LDIC)
    assert job.run(1).process.returncode == 0
    ours = job.out / "new"
    ours.touch()
    assert {path: mode(path) for path in (job.results, job.tsv)} == dict.fromkeys((job.results, job.tsv), mode(ours))
    for path in (job.results, job.tsv):
        path.chmod(0o600)
    with job.start(1, lasts=0.1) as started:
        made = [job.results.with_name(f"{job.results.name}.{ending}") for ending in ("part", "new")]
        until(lambda: made[0].exists() and marks(made[1]) is not None, "the files of the new run")
        assert [mode(path) for path in made] == [0o600, 0o600]
        started.hurry()
        assert started.end() == 0, started.err
    assert (mode(job.results), mode(job.tsv), mode(job.log)) == (0o600, 0o600, mode(ours))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_link(make: Make, oracle: Oracle, tmp_path: Path) -> None:
    """A link to a larger disk where the results go: they are written there."""
    job = make(LDIC)
    (tmp_path / "large").mkdir()
    there = tmp_path / "large" / "there.h5"
    job.out.mkdir()
    job.results.symlink_to(there)
    interrupted(job)
    job.resume(oracle(LDIC))
    assert job.results.is_symlink()
    assert [path.name for path in there.parent.iterdir()] == [there.name]
