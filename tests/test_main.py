"""The command line as a user meets it, on one process and on several ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mpidvc import __version__
from mpidvc.main import main
from mpidvc.runtime.launch import Mpiexec, find_mpiexec
from tests.conftest import Job
from tests.waiting import LONGEST


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "usage: mpidvc COMMAND" in text
    assert "  ldic " in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mpidvc {__version__}\n"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ldci", "did you mean ldic?"),
        ("LDIC", "did you mean ldic?"),
        ("pixelsearch", "did you mean pixelSearch?"),
        ("spam-ldic", "did you mean ldic?"),
        ("EREG", "did you mean ereg?"),
        ("spam-regularStrain", "did you mean regularStrain?"),
        ("discrete", "spam's spam-discreteStrain is not included yet"),
        ("xyz", "see mpidvc --help"),
    ],
)
def test_unknown_command(capsys: pytest.CaptureFixture[str], name: str, hint: str) -> None:
    assert main([name]) == 2
    assert capsys.readouterr().err == f"mpidvc: error: unknown command '{name}' ({hint})\n"


def test_option_of_another_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ldic", "a", "b", "-mf2", "m.tif"]) == 2
    others = "an option of pixelSearch, pixelSearchPropagate and deformImage, but not of ldic"
    assert capsys.readouterr().err == f"mpidvc ldic: error: unknown option -mf2 ({others})\n"


@pytest.mark.parametrize("arguments", [["ldic", "--help"], ["reg", "a", "b", "--nonsense"], ["--version"]])
def test_help_and_errors_load_nothing(environment: dict[str, str], arguments: list[str]) -> None:
    code = (
        "import sys; from mpidvc.main import main; main(sys.argv[1:]); "
        "heavy = {'numpy', 'scipy', 'mpi4py', 'h5py'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_help_in_a_closed_pipe(environment: dict[str, str]) -> None:
    done = subprocess.run(
        f"{sys.executable} -u -m mpidvc ldic --help | true",
        shell=True,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_refusal_is_one_line(command: Job, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = command("fake", "refuse", "-np", "2", "--log", str(log))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mpidvc fake: error: im1.tif: no such file\n"
    assert log.read_text().endswith(done.stderr)


def test_option_error_is_one_line(command: Job) -> None:
    done = command("fake", "work", "--nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mpidvc fake: error: unknown option --nonsense (see mpidvc fake --help)\n"


def test_unexpected_exception_of_one_process(command: Job) -> None:
    done = command("fake", "stumble")
    assert done.returncode == 70
    assert "ValueError: in prepare" in done.stderr


@pytest.mark.parametrize("n", ["1", "2"])
def test_lack_of_memory_is_one_line(command: Job, n: str) -> None:
    if n != "1" and find_mpiexec() is None:
        pytest.skip("no MPI in this environment")
    done = command("fake", "memory", "-np", n, "--at", "1" if n == "2" else "0")
    assert done.returncode == 75
    assert "mpidvc: out of memory (Unable to allocate" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_interrupt(command: Job) -> None:
    done = command("fake", "interrupt")
    assert done.returncode == 130
    assert done.stderr == "mpidvc: interrupted\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_one_process(environment: dict[str, str], tmp_path: Path, number: signal.Signals) -> None:
    """It cleans up, says so, on stderr and in the log, and its status tells the signal."""
    log = tmp_path / "log"
    arguments = ["fake", "sleep", "-np", "1", "--log", str(log)]
    with subprocess.Popen(
        [sys.executable, "-m", "mpidvc", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "sleeping\n" in (process.stdout.readline() for _ in range(3))
        process.send_signal(number)
        _, said = process.communicate(timeout=LONGEST)
    assert process.returncode == 128 + number
    assert said == f"mpidvc: ended by {number.name}\n"
    assert log.read_text().endswith(said)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signal_stops_one_process_between_chunks(environment: dict[str, str], number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "mpidvc", "fake", "long", "-np", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("pids") for line in process.stdout)
        process.send_signal(number)
        out, said = process.communicate(timeout=LONGEST)
    assert (process.returncode, out, said) == (85, "stopped between chunks, go on with --resume\n", "")


@pytest.mark.parametrize("to", ["mpiexec", "worker"])
def test_signal_stops_between_chunks_under_a_launcher(launcher: Mpiexec, environment: dict[str, str], to: str) -> None:
    environ = launcher.environment(environment, 3)
    del environ["MPIDVC_STARTED_RANKS"]
    with subprocess.Popen(
        [*launcher.command(3), sys.executable, "-m", "mpidvc", "fake", "long"],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pids = next(line for line in process.stdout if line.startswith("pids")).split()
        os.kill(process.pid if to == "mpiexec" else int(pids[2]), signal.SIGUSR1)
        out, said = process.communicate(timeout=LONGEST)
    assert process.returncode == 85
    assert "stopped between chunks, go on with --resume\n" in out
    assert "Traceback" not in said


def test_any_locale(command: Job) -> None:
    """What a terminal cannot show must not end a run."""
    done = command("fake", "work", "é√", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert "??" in done.stderr


def test_full_disk_under_the_output(environment: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mpidvc", "fake", "work", "--log", "/dev/full"],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=LONGEST,
            check=False,
        )
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert "log file cannot be written any more" in done.stderr


@pytest.mark.usefixtures("launcher")
def test_exit_status_passes_through(command: Job) -> None:
    assert command("fake", "three", "-np", "2").returncode == 3
    assert command("fake", "three").returncode == 3


@pytest.mark.parametrize("arguments", [["--version"], ["fake", "--help"], ["ldci"], ["fake", "work", "--nonsense"]])
def test_ranks_say_it_once(mpiexec: Job, arguments: list[str]) -> None:
    done = mpiexec(3, "-m", "mpidvc", *arguments)
    text = done.stdout + done.stderr
    assert text.count(f"mpidvc {__version__}") + text.count("usage:") + text.count("error:") == 1


def test_under_a_launcher(mpiexec: Job) -> None:
    done = mpiexec(3, "-m", "mpidvc", "fake", "work", "-np", "7")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("-np 7 is ignored") == 1
    assert done.stdout.count("size 3 processes 3 total 20540") == 1


def test_refusal_under_a_launcher(mpiexec: Job) -> None:
    done = mpiexec(3, "-m", "mpidvc", "fake", "refuse")
    assert done.returncode == 2
    assert done.stderr.count("mpidvc fake: error: im1.tif: no such file\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("rank", [0, 2])
def test_exception_of_a_rank_ends_the_job(mpiexec: Job, rank: int) -> None:
    done = mpiexec(3, "-m", "mpidvc", "fake", "raise", "--at", str(rank))
    assert done.returncode == 70
    assert f"rank {rank} of 3:\nTraceback" in done.stderr
    assert "ValueError: chunk is broken" in done.stderr


def test_exception_of_a_thread_ends_the_job(mpiexec: Job) -> None:
    done = mpiexec(2, "-m", "mpidvc", "fake", "thread", "--at", "1")
    assert done.returncode == 70
    assert "rank 1 of 2:\nTraceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    ("what", "status", "line"),
    [
        ("user", 2, "mpidvc fake: error: mask.tif: wrong shape"),
        ("full", 75, "mpidvc fake: error: a.h5: cannot be written (No space left on device)"),
        ("exit", 5, ""),
    ],
)
def test_user_error_of_a_rank_ends_the_job(mpiexec: Job, what: str, status: int, line: str) -> None:
    done = mpiexec(2, "-m", "mpidvc", "fake", what, "--at", "1")
    assert done.returncode == status
    assert line in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("launcher")
def test_terminal_is_told_to_the_ranks(command: Job) -> None:
    done = command("fake", "progress", "-np", "2", MPIDVC_TERMINAL="80")
    assert done.returncode == 0
    assert "1000000/1000000 points" in done.stdout
    plain = command("fake", "progress", "-np", "2")
    assert "\x1b" not in plain.stdout
    assert "points/s" not in plain.stdout


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("LDIC", "did you mean ldic?"),
        ("spam-ldic", "did you mean ldic?"),
        ("pixelsearch", "did you mean pixelSearch?"),
        ("discrete", "spam's spam-discreteStrain is not included yet"),
        ("spam-ereg", "did you mean ereg?"),
    ],
)
def test_what_may_have_been_meant(typed: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([typed]) == 2
    assert capsys.readouterr().err == f"mpidvc: error: unknown command {typed!r} ({says})\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("ldic a.tif b.tif -outdir x -ns 5 -hws 3", "unknown option -outdir (did you mean -od, --out-dir?)"),
        (
            "ldic a.tif b.tif -mf2 m.tif -ns 5 -hws 3",
            "unknown option -mf2 (an option of pixelSearch, pixelSearchPropagate and deformImage, but not of ldic)",
        ),
        ("ldic a.tif b.tif -ns 5 -hws10", "unknown option -hws10 (did you mean -hws 10?)"),
    ],
)
def test_unknown_options_are_named(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
