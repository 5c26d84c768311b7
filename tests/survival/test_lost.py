"""Jobs that lose workers, or whose workers hang, while they measure."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mpidvc.runtime.launch import Mpiexec
from tests.outputs import outputs
from tests.survival.conftest import LINES, Make
from tests.survival.jobs import LONG, Started, drivers, interrupted, same, seeds, state, wait
from tests.waiting import state_of, until

Oracle = Callable[[str], Path]


@pytest.mark.parametrize("seed", seeds(4, 20))
@pytest.mark.usefixtures("survivor")
def test_lost_workers(seed: int, make: Make, oracle: Oracle) -> None:
    """The run finishes with the bytes of an undisturbed one, and says what happened."""
    chance = random.Random(seed)
    line = list(LINES.values())[seed % len(LINES)]
    n, foreign = (2, 3, 4)[seed % 3], seed % 2 == 1
    driver = drivers()[seed // 2 % len(drivers())]
    job = make(line)
    share = chance.uniform(0.0, 0.6)
    with job.start(n, "--hdf5-driver", driver, foreign=foreign, lasts=share) as started:
        wait(job, started, share)
        workers = [pid for rank, pid in started.ranks().items() if rank != 0]
        killed = workers if seed % 4 == 1 else [chance.choice(workers)]
        started.send(signal.SIGKILL, killed)
        started.hurry()
        status = started.end()
    print(f"{len(killed)} of {n} ranks killed")
    assert status == 0, started.err
    assert "Traceback" not in started.err
    same(job.out, oracle(line))
    lost = json.loads(job.log.read_text())["lost"]
    assert len(lost) == len(killed)
    for pid in killed:
        assert sum(f"(pid {pid})" in text for text in lost) == 1
        assert f"(pid {pid}) was lost" in started.out + started.err


@pytest.mark.parametrize("foreign", [False, True])
def test_lost_worker_where_that_ends_the_job(foreign: bool, make: Make, oracle: Oracle, launcher: Mpiexec) -> None:
    """With MPIs that end the job then, the journal remains, and the user is told."""
    if launcher.fault_tolerant:
        pytest.skip("this MPI lets a job go on that loses a rank")
    job = make(LINES["pixelSearch"])
    with job.start(3, foreign=foreign, lasts=0.2) as started:
        wait(job, started, 0.2)
        started.send(signal.SIGKILL, [started.ranks()[2]])
        assert started.end() != 0
    assert "Traceback" not in started.err
    if not foreign:
        assert "--resume" in started.err
    job.resume(oracle(LINES["pixelSearch"]), n=2)


#: Suspends rank 1 before it has done anything in the given method; there are pieces of the finished file for all ranks.
ASLEEP = """
import os, signal
from mpidvc.workflow import finishing, text
finishing.ROWS = text.ROWS = 64
if os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK")) == "1":
    from mpidvc.runtime.journal import JournalTask
    from mpidvc.tasks.propagation import GuidedSearch
    from mpidvc.workflow.finishing import OrderedRows
    from mpidvc.workflow.text import TextRows
    def asleep(*given, run={name}):
        os.kill(os.getpid(), signal.SIGSTOP)
        return run(*given)
    {name} = asleep
"""


def sleeping(started: Started) -> list[int]:
    """Wait until rank 1 is suspended by `ASLEEP`; its id, if the job has not ended before."""
    until(lambda: "T" in map(state_of, started.everybody()) or not started.running, "it sleeps")
    return [pid for pid in started.everybody() if state_of(pid) == "T"]


@pytest.mark.parametrize("name", LINES if LONG else ["ldic"])
@pytest.mark.parametrize("foreign", [False, True] if LONG else [False])
@pytest.mark.usefixtures("launcher")
def test_suspended_worker(name: str, foreign: bool, make: Make, oracle: Oracle) -> None:
    """Its work goes to others; when it is continued in the end it changes nothing."""
    line = LINES[name]
    job = make(line)
    where = "GuidedSearch.search" if name == "pixelSearchPropagate" else "JournalTask.run"
    with job.start(3, foreign=foreign, code=ASLEEP.format(name=where), MPIDVC_LEASE="3") as started:
        asleep = sleeping(started)
        until(lambda: job.tsv.exists() or not started.running, "the others finish")
        started.send(signal.SIGCONT, asleep)
        status = started.end()
    assert "Traceback" not in started.err
    same(job.out, oracle(line))
    assert f"(pid {asleep[0]}) does not answer" in started.out + started.err
    assert status == 0, started.err


@pytest.mark.usefixtures("launcher")
def test_worker_that_sleeps_while_others_finish(make: Make, oracle: Oracle) -> None:
    """Others do its work meanwhile; it writes its own records after the points are complete."""
    line = LINES["ldic"]
    job = make(line)
    with job.start(3, foreign=True, code=ASLEEP.format(name="JournalTask.run"), MPIDVC_LEASE="3") as started:
        asleep = sleeping(started)
        wait(job, started, "finish")
        started.send(signal.SIGCONT, asleep)
        status = started.end()
    assert asleep
    assert "Traceback" not in started.err
    same(job.out, oracle(line))
    assert status == 0, started.err


@pytest.mark.parametrize("name", ["OrderedRows.run", "TextRows.write"], ids=["rows", "text"])
@pytest.mark.usefixtures("launcher")
def test_worker_that_is_late_to_write(name: str, make: Make, oracle: Oracle) -> None:
    """The others have finished the file and it has its name when the worker wakes up; this ends no job."""
    line = LINES["pixelSearch"]
    job = make(line)
    with job.start(3, foreign=True, tolerant=False, code=ASLEEP.format(name=name), MPIDVC_LEASE="3") as started:
        asleep = sleeping(started)
        until(lambda: state(job.results) == "end" or not started.running, "the others finish")
        started.send(signal.SIGCONT, asleep)
        status = started.end()
    assert asleep
    assert "Traceback" not in started.err
    assert "error" not in started.err
    same(job.out, oracle(line))
    assert status == 0, started.err


#: Makes rank 1 one of another host, where the results lie on NFS.
ELSEWHERE = """
import os, platform
if os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK")) == "1":
    from mpidvc.workflow import begin as module
    platform.node = lambda: "other"
    module.file_system = lambda path: "nfs4"
"""


#: Notes which ranks write rows or text, of which there are many pieces.
WRITERS = """
from mpidvc.workflow import finishing, text
from mpidvc.workflow.finishing import OrderedRows
from mpidvc.workflow.text import TextRows
finishing.ROWS = text.ROWS = 64
def noted(*given, run={name}):
    with open({path!r}, "a") as file:
        print(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK")), file=file)
    return run(*given)
{name} = noted
"""

#: Takes plain writing for parallel HDF5, which h5py need not have.
PARALLEL = """
from types import SimpleNamespace
import h5py
from mpidvc.rowfile import RowFile
h5py.get_config = lambda: SimpleNamespace(mpi=True)
RowFile.open_parallel = lambda self, communicator: None
"""


@pytest.mark.usefixtures("launcher")
def test_a_file_system_that_differs_on_another_host(make: Make, oracle: Oracle, tmp_path: Path) -> None:
    line = LINES["pixelSearch"]
    job = make(line)
    ended = job.run(2, "--hdf5-driver", "posix", code=ELSEWHERE)
    assert ended.process.returncode == 0, ended.err
    assert "hosts may see a file on this file system differently; gather is safe" in ended.err
    writers = tmp_path / "writers"
    ended = job.run(3, "--overwrite", code=ELSEWHERE + WRITERS.format(name="OrderedRows.run", path=str(writers)))
    assert ended.process.returncode == 0, ended.err
    told = json.loads(job.log.read_text())
    assert (told["driver"], sorted(told["hosts"].values())) == ("gather", [1, 2])
    same(job.out, oracle(line))
    # the other one on rank 0's host writes rows, too, and the one elsewhere does not
    assert set(writers.read_text().split()) == {"0", "2"}


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.usefixtures("launcher")
def test_text_beside_parallel_hdf5(elsewhere: bool, make: Make, oracle: Oracle, tmp_path: Path) -> None:
    """It is written without it: two hosts that see a file differently would write to the same page."""
    line = LINES["pixelSearch"]
    job = make(line)
    writers = tmp_path / "writers"
    code = (
        (ELSEWHERE if elsewhere else "import os") + PARALLEL + WRITERS.format(name="TextRows.write", path=str(writers))
    )
    ended = job.run(3, "--hdf5-driver", "mpio", code=code)
    assert ended.process.returncode == 0, ended.err
    same(job.out, oracle(line))
    assert set(writers.read_text().split()) == ({"0", "2"} if elsewhere else {"0", "1", "2"})


#: Gives rank 1 a folder of its own, which other hosts do not see.
OWN_FOLDER = """
import os
from pathlib import Path
from mpidvc.rowfile import RowFile
if os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK")) == "1":
    def own(self, state, setstate=RowFile.__setstate__):
        setstate(self, state | {{"path": Path({path!r}) / state["path"].name}})
    RowFile.__setstate__ = own
"""


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.usefixtures("launcher")
def test_folders_that_hosts_do_not_share(old: bool, make: Make, oracle: Oracle, tmp_path: Path) -> None:
    """Whether there is nothing on the other host, or the files of an old run of the same line."""
    line = LINES["ldic"]
    own, job = make(line, out="own"), make(line)
    if old:
        interrupted(own)
    before = outputs(own.out)
    ended = job.run(2, code=OWN_FOLDER.format(path=str(own.out)))
    assert ended.process.returncode == 2
    (told,) = ended.err.strip().splitlines()
    assert f"{job.results}: 1 of 2 processes do not see what the first one has put there" in told
    assert "-od" in told
    assert outputs(own.out) == before
    assert list(job.out.iterdir()) == []
    job.resume(oracle(line), n=2)


#: Lets rank 1 see new files late, as a host does whose NFS client keeps what it knows of a folder.
LATE = """
import os
from mpidvc.rowfile import RowFile
if os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK")) == "1":
    tries = {}
    def late(self, hold=RowFile.hold):
        tries[self.path] = tries.get(self.path, 0) + 1
        if tries[self.path] < 4:
            raise FileNotFoundError(str(self.path))
        hold(self)
    RowFile.hold = late
"""


@pytest.mark.usefixtures("launcher")
def test_a_host_that_sees_new_files_late(make: Make, oracle: Oracle) -> None:
    line = LINES["ldic"]
    job = make(line)
    ended = job.run(2, code=ELSEWHERE + LATE)
    assert ended.process.returncode == 0, ended.err
    same(job.out, oracle(line))
