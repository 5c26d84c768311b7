"""A run on two hosts, each with a network and a name of its own, joined by ssh: the bytes of a local run."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.main import main
from mpidvc.runtime.launch import Mpiexec
from tests.outputs import outputs
from tests.waiting import LONGEST

PROGRAMS = ("ip", "unshare", "sshd", "ssh", "ssh-keygen")
PORT = 2222


def missing() -> str | None:
    """The reason why there can be no hosts here, None if there is none."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    name = f"t{os.getpid()}"
    for words in (["netns", "add", name], ["-n", name, "link", "add", "v", "type", "veth"], ["netns", "del", name]):
        tried = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if tried.returncode:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
            return f"network namespaces are not allowed ({tried.stderr.strip()})"
    return None


_WHY = missing()
pytestmark = pytest.mark.skipif(_WHY is not None, reason=_WHY or "")


class Hosts:
    """Two hosts: their names, addresses, and the program that runs a command on one of them."""

    def __init__(self, folder: Path) -> None:
        number = os.getpid() % 200
        self.folder = folder
        self.names = [f"h{k}x{os.getpid()}" for k in (1, 2)]
        self.addresses = [f"10.77.{number}.{k}" for k in (1, 2)]
        self.agent = folder / "agent"
        self.daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Make the networks, and a daemon of ssh in each."""
        key, own = self.folder / "id", self.folder / "hostkey"
        for path in (key, own):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
        (self.folder / "id.pub").rename(self.folder / "authorized_keys")
        Path("/run/sshd").mkdir(exist_ok=True)
        for name in self.names:
            _ip("netns", "add", name)
        _ip("link", "add", "v1", "netns", self.names[0], "type", "veth", "peer", "name", "v2", "netns", self.names[1])
        hosts = "127.0.0.1 localhost\n"
        hosts += "".join(f"{address} {name}\n" for name, address in zip(self.names, self.addresses, strict=True))
        for k, name in enumerate(self.names):
            told = Path("/etc/netns") / name
            told.mkdir(parents=True)
            (told / "hosts").write_text(hosts)
            _ip("-n", name, "addr", "add", f"{self.addresses[k]}/24", "dev", f"v{k + 1}")
            for link in (f"v{k + 1}", "lo"):
                _ip("-n", name, "link", "set", link, "up")
            options = [f"AuthorizedKeysFile={self.folder}/authorized_keys", "StrictModes=no", "UsePAM=no"]
            options += ["PermitRootLogin=yes", f"ListenAddress={self.addresses[k]}", "PidFile=none"]
            words = ["/usr/sbin/sshd", "-D", "-e", "-p", str(PORT), "-h", str(own), *(f"-o{o}" for o in options)]
            begin = f"hostname {name}; exec {' '.join(words)}"
            command = ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", begin]
            with (self.folder / f"{name}.log").open("wb") as log:
                self.daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes"]
        words = ["ssh", "-q", "-p", str(PORT), "-i", str(key), *(f"-o{o}" for o in options)]
        self.agent.write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n')
        self.agent.chmod(0o755)
        deadline = time.monotonic() + LONGEST
        while any(self.on_first([str(self.agent), name, "true"], {}).returncode for name in self.names):
            assert time.monotonic() < deadline, [path.read_text() for path in self.folder.glob("*.log")]
            time.sleep(0.2)

    def on_first(self, words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command on the first host."""
        command = ["ip", "netns", "exec", self.names[0], "unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"']
        return subprocess.run(
            [*command, self.names[0], *words],
            env=dict(os.environ) | environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )

    def stop(self) -> None:
        """Take the hosts away."""
        for daemon in self.daemons:
            daemon.terminate()
        for daemon in self.daemons:
            daemon.wait(LONGEST)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    found = Hosts(tmp_path)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def test_two_hosts(hosts: Hosts, tmp_path: Path, launcher: Mpiexec, environment: dict[str, str]) -> None:
    """Images are in memory once on each host, and every rank writes its points into one file."""
    pair = AnalyticPair((30, 40, 50), seed=5, amplitude=0.1, wavelength=60.0, translation=(0.6, -0.4, 0.7))
    for name, image in (("a", pair.image1()), ("b", pair.image2())):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.asarray(image), photometric="minisblack")
    line = ["ldic", str(tmp_path / "a.tif"), str(tmp_path / "b.tif"), "-ns", "8", "-hws", "6", "-tif", "-vtk"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*line, "-np", "1", "-od", str(tmp_path / "here")]) == 0
    if launcher.openmpi:
        start = [launcher.path, "--allow-run-as-root", "--prtemca", "plm_ssh_agent", str(hosts.agent)]
        start += ["--host", ",".join(f"{name}:2" for name in hosts.names), "--map-by", "ppr:2:node:oversubscribe"]
    else:
        start = [launcher.path, "-launcher", "ssh", "-launcher-exec", str(hosts.agent)]
        start += ["-hosts", ",".join(f"{name}:2" for name in hosts.names)]
    log = tmp_path / "run.log"
    line += ["--image-mode", "shared", "--log", str(log), "-od", str(tmp_path / "there")]
    done = hosts.on_first([*start, "-n", "4", sys.executable, "-m", "mpidvc", *line], environment)
    assert done.returncode == 0, done.stdout + done.stderr
    # two of the four processes are on the first host, and share its copy of the images
    told = log.read_text()
    assert "(with 4 processes)" in told
    assert "copied once, 2 processes" in told
    here, there = outputs(tmp_path / "here"), outputs(tmp_path / "there")
    assert sorted(here) == sorted(there)
    assert [name for name, content in here.items() if there[name] != content] == []
