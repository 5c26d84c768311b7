"""A real Slurm on this host: a controller and two emulated nodes of two CPUs, started for the tests."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.waiting import LONGEST

__all__ = ["Slurm", "missing", "running"]

#: Programs of Slurm that the tests need.
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel", "sinfo", "srun")

_CONF = """\
ClusterName=mpidvc
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
TmpFS={folder}/tmp-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SwitchType=switch/none
ReturnToService=2
KillWait=5
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=low Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=15
PartitionName=high Nodes=n1,n2 MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str | None:
    """The reason why no cluster can be started here, None if there is none."""
    if os.geteuid() != 0:
        return "starting a Slurm needs root"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"Slurm is not installed ({', '.join(absent)})" if absent else None


class Slurm:
    """A cluster that runs.

    Parameters
    ----------
    environment : dict
        For its clients, and so for its jobs.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def ask(self, *command: str, folder: Path | None = None, check: bool = True) -> str:
        """Output of a client's command."""
        done = subprocess.run(
            command, env=self.environment, cwd=folder, capture_output=True, text=True, timeout=LONGEST, check=False
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip()

    def state(self, job: str) -> dict[str, str]:
        """Facts of a job as ``scontrol show job`` tells them."""
        told = self.ask("scontrol", "-o", "show", "job", job)
        return dict(word.split("=", 1) for word in told.split() if "=" in word)

    def until(
        self, condition: Callable[[], object], what: str, log: Path | None = None, longest: float = LONGEST
    ) -> None:
        """Wait until a condition holds, and tell what the cluster does if it never does."""
        deadline = time.monotonic() + longest
        while not condition():
            output = log.read_text() if log is not None and log.exists() else ""
            assert time.monotonic() < deadline, f"waited in vain: {what}\n{output}\n{self.ask('squeue', check=False)}"
            time.sleep(0.1)

    def end(self, job: str, log: Path, longest: float = LONGEST) -> dict[str, str]:
        """Let a job run to its end, with all its parts at once: a requeued job would wait two minutes."""
        found: dict[str, str] = {}

        def ended() -> bool:
            found.update(self.state(job))
            if found["JobState"] == "PENDING" and found["Reason"] == "BeginTime":
                # the nodes refuse a job that comes back in the second in which it was revoked
                time.sleep(3)
                self.ask("scontrol", "update", f"jobid={job}", "starttime=now", check=False)
            return found["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

        self.until(ended, f"the end of job {job}", log, longest)
        return found


def _ports(n: int) -> list[int]:
    """Ports that nobody has; below those that the system gives to every process that asks for any."""
    found: list[int] = []
    while len(found) < n:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("", port))
            found += [port] if port not in found else []
    return found


@contextlib.contextmanager
def running(folder: Path, environment: dict[str, str]) -> Iterator[Slurm]:
    """Start a cluster in a folder; it ends with the block, with all its jobs."""
    for name in ("state", "spool-n1", "spool-n2", "tmp-n1", "tmp-n2"):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    configuration.write_text(_CONF.format(host=platform.node().partition(".")[0], ports=_ports(3), folder=folder))
    environment = environment | {"SLURM_CONF": str(configuration)}
    slurm = Slurm(environment)
    daemons = []
    try:
        for command in (["slurmctld", "-D", "-c"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]):
            out = (folder / f"{'-'.join(command)}.out").open("w")
            with out:
                daemons.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
        slurm.until(
            lambda: slurm.ask("sinfo", "-h", "-p", "low", "-t", "idle", "-o", "%D", check=False) == "2", "idle nodes"
        )
        yield slurm
        slurm.ask("scancel", "--user=root", check=False)
        slurm.until(lambda: slurm.ask("squeue", "-h") == "", "the end of all jobs")
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in daemons:
            try:
                daemon.wait(60)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
