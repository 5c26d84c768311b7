"""The run of ``mpidvc job``: prints a job script, or submits it."""

from __future__ import annotations

import argparse
import math
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mpidvc
from mpidvc.atomic import replacing
from mpidvc.cli import command
from mpidvc.cli.command import Outcome
from mpidvc.commands import COMMANDS
from mpidvc.commands.job.script import render
from mpidvc.commands.job.site import Partition, Site, find_partition
from mpidvc.errors import UserError
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.runtime.launch import Mpiexec
from mpidvc.runtime.memory import parse_size
from mpidvc.tasks.ranks import Team
from mpidvc.workflow.estimate import SENSIBLE, Estimate, NotEstimatedError, estimate

__all__ = ["Plan"]

#: Nodes are added until a job is expected to end within so many seconds.
TARGET = 3600.0
#: Factor on the expected time, and seconds more for waiting file systems.
SLACK, START = 2.0, 300.0
#: Factor on the memory of a node: mpidvc takes four fifths of what is granted.
MEMORY_SLACK = 1.5
#: Bytes of a process besides.
PER_RANK = 200e6
#: Seconds from the stop signal to the time limit.
MARGIN = 120
#: How a script is submitted.
SUBMIT = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub", "sge": "qsub", "workstation": "bash"}
_MAIL = {"slurm": "END,FAIL", "pbs": "ae", "lsf": "-N", "sge": "ea", "workstation": ""}


@dataclass(frozen=True)
class _Step:
    """A command of the job.

    Attributes
    ----------
    words : list of str
    expected : Estimate or None
        None if it works on files of an earlier step that are not there yet, or its command is not estimated.
    """

    words: list[str]
    expected: Estimate | None


@dataclass(frozen=True, kw_only=True)
class Plan(command.Plan):
    """A script, ready.

    Attributes
    ----------
    script : str
    path : Path or None
        Where to write it before it is submitted; None: it is printed.
    scheduler : str
    """

    timed = False

    script: str
    path: Path | None
    scheduler: str

    @classmethod
    def prepare(cls, args: argparse.Namespace, console: Console, team: Team) -> Plan:
        if args.scheduler == "apptainer":
            return cls(script=_container(), path=None, scheduler=args.scheduler)
        for words in args.steps:
            if words[0] not in COMMANDS:
                raise UserError(f"{words[0]}: is no command of mpidvc; see mpidvc --help")
        site = Site.find()
        if args.submit and shutil.which(SUBMIT[args.scheduler]) is None:
            raise UserError(f"--submit: {SUBMIT[args.scheduler]} is not found here; leave it out to print the script")
        partition, notes = find_partition(args.scheduler, args.partition, args.cores_per_node)
        for text in notes:
            console.note(text, sys.stderr)
        values = _values(args, site, partition, _expect(args.steps, console), console)
        path = Path(f"{values['name']}.sh") if args.submit else None
        return cls(script=render(f"{args.scheduler}.sh", values), path=path, scheduler=args.scheduler)

    def execute(self, executor: Executor, console: Console) -> Outcome:
        if executor.rank != 0:
            return Outcome(0)
        if self.path is None:
            console.print(self.script)
            return Outcome(0, self.script)
        with replacing(self.path) as made:
            Path(made).write_text(self.script + "\n", encoding="utf-8")
        line = [SUBMIT[self.scheduler], str(self.path)]
        with self.path.open() as script:
            # bsub reads the script from there
            told = subprocess.run(
                line[:1] if self.scheduler == "lsf" else line, stdin=script, text=True, capture_output=True
            )
        if told.returncode != 0:
            reason = " ".join(told.stderr.split())[:300]
            raise UserError(f"{shlex.join(line)}: was refused ({reason}); the script stays, to be submitted by hand")
        console.print(told.stdout.strip())
        console.print(f"Written: {self.path}")
        return Outcome(0, self.script)


def _container() -> str:
    mpiexec = Site.find().mpiexec
    return render(
        "apptainer.def",
        {
            "version": mpidvc.__version__,
            "python_version": ".".join(platform.python_version_tuple()[:2]),
            "mpi": "openmpi" if mpiexec is None or mpiexec.openmpi else "mpich",
        },
    )


def _expect(steps: Sequence[list[str]], console: Console) -> list[_Step]:
    """Estimates of the steps; a step may read files that an earlier one writes."""
    found: list[_Step] = []
    made: set[str] = set()
    for words in steps:
        expected: Estimate | None
        try:
            expected = estimate(words, COMMANDS)
        except NotEstimatedError:
            # the estimate has parsed it
            expected = None
            console.note(f"{words[0]}: is not estimated: --time should leave it enough", sys.stderr)
        except UserError:
            reduced = _without(words, made)
            if not made.intersection(_files(words[1:])):
                raise
            # a line that is wrong is refused now, and not by the job
            COMMANDS[words[0]].parse(words[1:])
            expected = estimate(reduced, COMMANDS) if reduced is not None else None
            if expected is None:
                text = "reads what an earlier step writes, and cannot be estimated yet: --time should leave it some"
                console.note(f"{words[0]}: {text}", sys.stderr)
        if expected is not None:
            made.update(str(path.resolve()) for path, _ in expected.outputs)
            for text in expected.warnings:
                console.warn(f"{words[0]}: {text}")
        found.append(_Step(words, expected))
    return found


def _files(words: Sequence[str]) -> set[str]:
    """Words that may be files, with `=` as well, as absolute paths."""
    return {str(Path(part).resolve()) for word in words for part in (word, word.partition("=")[2]) if part}


def _without(words: list[str], made: set[str]) -> list[str] | None:
    """The line without the first guess, if that is what an earlier step makes; else None."""
    kept: list[str] = []
    position, dropped = 0, False
    while position < len(words):
        following = words[position + 1 : position + 2]
        if words[position].startswith("-pf") and following and made & _files(following):
            position, dropped = position + 2, True
            continue
        kept.append(words[position])
        position += 1
    return kept if dropped and not made & _files(kept[1:]) else None


def _values(
    args: argparse.Namespace, site: Site, partition: Partition, steps: Sequence[_Step], console: Console
) -> dict[str, object]:
    """The placeholders of the templates."""
    known = [step.expected for step in steps if step.expected is not None]
    nodes, per_node = _size(args, partition, known)
    ranks = nodes * per_node
    seconds = args.seconds or _time_limit(steps, ranks, partition)
    if partition.seconds is not None and seconds > partition.seconds:
        raise UserError(f"--time {args.time}: the partition allows {_clock(partition.seconds)}")
    memory = _memory(args, known, per_node, partition)
    margin = args.stop_before or min(MARGIN, seconds // 3)
    name = args.name or f"mpidvc-{steps[0].words[0]}"
    launch, per_node_launch, after = _launch(args, site, nodes, per_node)
    slurm = args.scheduler == "slurm"
    timer = None
    if not slurm and args.scheduler != "workstation":
        timer = f"(sleep {seconds - margin} && kill -USR1 $$) >/dev/null 2>&1 &\ntimer=$!"
    python = [site.python]
    if args.container:
        image = str(Path(args.container).resolve())
        python = ["apptainer", "exec", "--bind", str(Path.cwd()), image, "python"]
    modules = f"module load {shlex.join(site.modules)}" if site.modules else None
    variables = [f"export {key}={shlex.quote(value)}" for key, value in site.variables.items()]
    return {
        "name": name,
        "nodes": nodes,
        "ranks": ranks,
        "ranks_per_node": per_node,
        "memory_mib": math.ceil(memory / 2**20),
        "memory_mib_per_rank": math.ceil(memory / 2**20 / per_node),
        "time": _clock(seconds),
        "time_minutes": math.ceil(seconds / 60),
        "margin": margin,
        "partition": args.partition,
        "account": args.account,
        "mail": args.mail,
        "mail_type": _MAIL[args.scheduler] if args.mail else None,
        "parallel_environment": args.parallel_environment,
        "folder": shlex.quote(str(Path.cwd())),
        "state": shlex.quote(f".{name}.job"),
        "modules": modules,
        "variables": "\n".join(variables) or None,
        "python": shlex.join(python),
        "prefix": shlex.quote(site.prefix),
        "local": shlex.quote(args.local or ""),
        "per_node": shlex.join(per_node_launch),
        "launch": " ".join([*map(shlex.quote, launch), '"${program[@]}"']),
        "after": shlex.join(after),
        "limit_signals": {"slurm": "USR1", "workstation": None}.get(args.scheduler, "USR1 USR2"),
        "cancel_signals": "INT TERM HUP USR1" if args.scheduler == "workstation" else "INT TERM HUP",
        "timer": timer,
        "steps": "\n\n".join(_step(step) for step in steps),
    }


def _size(args: argparse.Namespace, partition: Partition, known: Sequence[Estimate]) -> tuple[int, int]:
    """Nodes, and ranks on each: nodes are doubled while that makes sense, until the job ends within `TARGET`."""
    per_node = args.ranks_per_node or partition.cores
    if args.nodes is not None or args.scheduler == "workstation" or not known:
        return args.nodes or 1, per_node
    most = partition.nodes or 1024

    def seconds(nodes: int) -> float:
        return sum(one.seconds(nodes * per_node) for one in known)

    nodes = 1
    while seconds(nodes) > TARGET and 2 * nodes <= most:
        if seconds(1) / (2 * nodes * seconds(2 * nodes)) < SENSIBLE:
            break
        nodes *= 2
    if args.ranks_per_node is None and nodes == 1:
        # no more than make sense
        per_node = max(1, min(per_node, max(one.sensible_ranks for one in known)))
    return nodes, per_node


def _time_limit(steps: Sequence[_Step], ranks: int, partition: Partition) -> int:
    """Seconds to ask for, within the partition's limit; a step that is not estimated counts as the longest one."""
    known = [step.expected.seconds(ranks) for step in steps if step.expected is not None]
    expected = sum(known) + (len(steps) - len(known)) * max(known, default=TARGET)
    wanted = SLACK * expected + START
    unit = 300 if wanted < 3600 else 900 if wanted < 4 * 3600 else 3600
    return min(math.ceil(wanted / unit) * unit, partition.seconds or 2**31)


def _memory(args: argparse.Namespace, known: Sequence[Estimate], per_node: int, partition: Partition) -> float:
    """Bytes of a node."""
    if args.memory_per_node:
        return parse_size(args.memory_per_node, "--memory-per-node")
    needed = max((one.memory(per_node)[1] for one in known), default=1e9)
    wanted = MEMORY_SLACK * needed + PER_RANK * per_node
    return min(math.ceil(wanted / 2**28) * 2**28, partition.memory or 2**62)


def _launch(args: argparse.Namespace, site: Site, nodes: int, per_node: int) -> tuple[list[str], list[str], list[str]]:
    """What starts all ranks, and what starts a command once on each node; options that follow the command."""
    if nodes == 1 and args.launcher is None:
        # mpidvc's own launcher
        return [], [], ["-np", str(per_node)]
    ranks = nodes * per_node
    launcher = args.launcher or ("mpiexec" if site.mpiexec is not None or args.scheduler != "slurm" else "srun")
    if launcher == "srun":
        openmpi = site.mpiexec is None or site.mpiexec.openmpi
        mpi = args.mpi or ("pmix" if openmpi else "pmi2")
        # the step ends with a lost process, and the job goes on from its results
        start = ["srun", f"--mpi={mpi}", "--kill-on-bad-exit=1", "-N", str(nodes), "-n", str(ranks)]
        once = ["srun", "--mpi=none", "--overlap", "-N", str(nodes), "-n", str(nodes), "--ntasks-per-node=1"]
        return start, once, []
    mpiexec = site.mpiexec or Mpiexec("mpiexec", True)
    if mpiexec.openmpi:
        survival = ["--with-ft", "ulfm"] if mpiexec.fault_tolerant else []
        placing = ["--map-by", f"ppr:{per_node}:node", "-n", str(ranks)]
        once = [mpiexec.path, "--map-by", "ppr:1:node", "-n", str(nodes)]
        return [mpiexec.path, *survival, *placing], once, []
    return (
        [mpiexec.path, "-ppn", str(per_node), "-n", str(ranks)],
        [mpiexec.path, "-ppn", "1", "-n", str(nodes)],
        [],
    )


def _step(step: _Step) -> str:
    """Lines of a step in the script."""
    words = list(step.words)
    if COMMANDS[words[0]].parser().has("--resume") and not {"--resume", "--overwrite"} & {*words}:
        words.append("--resume")
    outputs = [] if step.expected is None else [_shown(path) for path, _ in step.expected.outputs]
    results = [path for path in outputs if path.endswith(".h5")]
    files = [path for path in outputs if not path.endswith(".h5")]
    if words[0] == "run":
        # its folder tells of all its steps
        results = [COMMANDS["run"].parse(words[1:]).out_dir]
    lists = f"results=({shlex.join(results)})\nfiles=({shlex.join(files)})"
    return f"{lists}\nstep {shlex.join(words)}"


def _shown(path: Path) -> str:
    """A path within the folder of the job without that folder."""
    return str(path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path)


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
