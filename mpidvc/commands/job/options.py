"""``mpidvc job``: a job script for a cluster."""

from __future__ import annotations

import argparse
import re

from mpidvc.cli.parser import Parser
from mpidvc.errors import UserError

HELP = "print a job script that runs commands on a cluster, stops before its time limit, is started again and goes on"
EXAMPLES = """\
examples:
  mpidvc job slurm -- ldic im1.tif im2.tif -ns 5 -hws 10 > job.sh; sbatch job.sh
  mpidvc job slurm --submit -- reg im1.tif im2.tif -- ldic im1.tif im2.tif -pf im1-im2-registration.tsv
      two steps in one job; the second begins when the first is finished
  mpidvc job pbs --cores-per-node 64 --nodes 2 --time 4:00:00 --mail me@site.org -- ldic im1.tif im2.tif -ns 5 -hws 10
  mpidvc job workstation -- ldic im1.tif im2.tif -ns 5 -hws 10 > run.sh
  mpidvc job apptainer > mpidvc.def
      definition of a container

Nodes, ranks, memory and time come from the estimate of mpidvc plan. Every command line follows a "--", as it will be
typed.
"""

SCHEDULERS = ("slurm", "pbs", "lsf", "sge", "workstation", "apptainer")


def add_options(parser: Parser) -> None:
    """Add the options of the command."""
    parser.usage = "%(prog)s [options] SCHEDULER -- COMMAND ... [-- COMMAND ...]"
    parser.add_argument("scheduler", metavar="SCHEDULER", choices=SCHEDULERS, help=", ".join(SCHEDULERS))
    parser.add_argument("run", metavar="COMMAND ...", nargs=argparse.REMAINDER, help="command lines, without mpidvc")
    size = parser.add_argument_group("size of the job (default: from the estimate)")
    size.add_argument("--nodes", type=int, metavar="N", help="nodes")
    size.add_argument("--ranks-per-node", type=int, metavar="N", help="ranks on each (default: its cores)")
    size.add_argument("--time", metavar="H:MM:SS", help="time limit; work that is left then goes on in a further part")
    size.add_argument("--memory-per-node", metavar="SIZE", help="memory of a node, such as 64G")
    size.add_argument("--stop-before", type=int, metavar="S", help="seconds from the stop signal to the time limit")
    site = parser.add_argument_group("site (default: as it is found here)")
    site.add_argument("--cores-per-node", type=int, metavar="N", help="cores of a node (default: those of the "
                      "partition, or of this host)")  # fmt: skip
    site.add_argument("--partition", metavar="NAME", help="partition or queue (default: the scheduler's)")
    site.add_argument("--account", metavar="NAME", help="account or project (default: yours)")
    site.add_argument("--parallel-environment", metavar="NAME", default="mpi", help="of Grid Engine (default: mpi)")
    site.add_argument("--launcher", choices=("mpiexec", "srun"), help="how ranks on several nodes are started "
                      "(default: mpiexec of the MPI in use; srun where none is found)")  # fmt: skip
    site.add_argument("--mpi", choices=("pmix", "pmi2"), help="how srun connects ranks: --mpi (default: pmix with "
                      "Open MPI, pmi2 with others)")  # fmt: skip
    site.add_argument("--local", metavar="FOLDER", help="copy the Python environment to this folder on each node "
                      "before the run, such as /tmp: quick starts of many ranks")  # fmt: skip
    site.add_argument("--container", metavar="FILE", help="run in this Apptainer image")
    output = parser.add_argument_group("output")
    output.add_argument("--name", metavar="NAME", help="name of the job (default: mpidvc-COMMAND)")
    output.add_argument("--mail", metavar="ADDRESS", help="mail at the end, and at failures")
    output.add_argument("--submit", action="store_true", help="write the script to NAME.sh and submit it")
    parser.set_defaults(processes=None, log=None)


def check(args: argparse.Namespace) -> list[str]:
    """Check the options without their files; return notes for the user."""
    steps: list[list[str]] = [[]]
    for word in args.run:
        if word == "--":
            steps.append([])
        else:
            steps[-1].append(word)
    args.steps = [step for step in steps if step]
    if args.scheduler == "apptainer":
        if args.steps or args.submit:
            raise UserError("apptainer: prints the definition of a container; it takes no command and no --submit")
        return []
    if not args.steps:
        raise UserError(f"a command is missing: mpidvc job {args.scheduler} -- ldic im1.tif im2.tif -ns 20 -hws 10")
    for name in ("nodes", "ranks_per_node", "cores_per_node", "stop_before"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: has to be 1 or more")
    for name in ("name", "partition", "account", "mail", "parallel_environment"):
        value = getattr(args, name)
        if value is not None and not re.fullmatch(r"[\w.@,+:-]+", value):
            raise UserError(f"--{name.replace('_', '-')} {value!r}: letters, digits and . @ , + : - _ only")
    if args.scheduler == "workstation" and (args.nodes or 1) > 1:
        raise UserError(f"--nodes {args.nodes}: a workstation is one node")
    if args.launcher == "srun" and args.scheduler != "slurm":
        raise UserError("--launcher srun: is Slurm's; drop it")
    if args.local and args.container:
        raise UserError("--local --container: a container is one file, and need not be copied; give one of them")
    args.seconds = None if args.time is None else seconds_of(args.time)
    if args.seconds and args.stop_before and args.stop_before >= args.seconds:
        raise UserError(f"--stop-before {args.stop_before}: has to be less than --time {args.time}")
    return []


def seconds_of(text: str) -> int:
    """Seconds of ``D-HH:MM:SS``, ``HH:MM:SS``, ``MM:SS`` or minutes, as Slurm reads them.

    Raises
    ------
    UserError
        If it is no time above 0.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    seconds = 0
    if found:
        days, *rest = found.groups()
        first, second, third = (int(part or 0) for part in rest)
        if days is not None or rest[2] is not None:
            seconds = 86400 * int(days or 0) + 3600 * first + 60 * second + third
        else:
            seconds = 60 * first + second
    if seconds <= 0:
        raise UserError(f"--time {text}: is no time; give for example 4:00:00, 1-12:00:00, or minutes")
    return seconds
