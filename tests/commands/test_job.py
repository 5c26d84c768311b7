"""Job scripts: their sizes, what they refuse, and that they are shell; steps are run by a script on this host."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.commands.job.options import seconds_of
from mpidvc.commands.job.script import render
from mpidvc.commands.job.site import Partition, Site, find_partition
from mpidvc.core.analytic import AnalyticPair
from mpidvc.errors import UserError
from mpidvc.main import main
from tests.outputs import outputs
from tests.waiting import LONGEST, until

LINE = ["ldic", "a.tif", "b.tif", "-ns", "12", "-hws", "6"]
STARTS = {"slurm": "#SBATCH", "pbs": "#PBS", "lsf": "#BSUB", "sge": "#$", "workstation": "# A restartable run"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pair = AnalyticPair((24, 40, 48), seed=5, amplitude=0.1, wavelength=60.0, translation=(0.6, -0.4, 0.7))
    for name, image in (("a", pair.image1()), ("b", pair.image2())):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.asarray(image), photometric="minisblack")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def script(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["job", *words]) == 0
    return capsys.readouterr().out


def checked(text: str) -> None:
    """It is shell, and ShellCheck finds nothing."""
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", "-"], input=text, text=True, capture_output=True, check=False)
        assert done.stdout == ""


def directives(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


@pytest.mark.parametrize("scheduler", STARTS)
def test_scripts_are_shell(scheduler: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [] if scheduler == "workstation" else ["--nodes", "2"]
    text = script(capsys, scheduler, *options, "--time", "90", "--mail", "me@site.org", "--local", "/tmp", "--", *LINE)
    checked(text)
    lines = directives(text, STARTS[scheduler])
    assert lines
    assert all("@" not in line.replace("me@site.org", "").replace("B:USR1@120", "") for line in lines)
    assert text.rstrip().count("\nstep ldic ") == 1
    assert "results=(a-b-ldic.h5)\nfiles=(a-b-ldic.tsv)\nstep ldic a.tif b.tif -ns 12 -hws 6 --resume" in text
    # nothing is made beside the images
    assert {path.name for path in folder.iterdir()} <= {"a.tif", "b.tif", "cache"}


def test_shellcheck_is_here() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed: the scripts are checked by bash -n only")


def test_directives_of_slurm(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _sinfo(folder, monkeypatch)
    text = script(capsys, "slurm", "--partition", "long", "--account", "proj", "--nodes", "2", "--time", "1-00:00:00",
                  "--memory-per-node", "16Gi", "--", *LINE)  # fmt: skip
    lines = directives(text, "#SBATCH")
    for line in (
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=64",
        "#SBATCH --mem=16384M",
        "#SBATCH --time=24:00:00",
        "#SBATCH --partition=long",
        "#SBATCH --account=proj",
        "#SBATCH --signal=B:USR1@120",
    ):
        assert line in lines
    assert not any("mail" in line for line in lines)


def _sinfo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A site with two partitions."""
    program = folder / "bin" / "sinfo"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'short*|32|64000|1:00:00|10'\necho 'long|64|128000+|2-00:00:00|4'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)


def test_partitions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _sinfo(folder, monkeypatch)
    assert find_partition("slurm", None, None) == (Partition(32, 10, 64000 * 2**20, 3600), [])
    assert find_partition("slurm", "long", 16) == (Partition(16, 4, 128000 * 2**20, 172800), [])
    with pytest.raises(UserError, match=r"--partition none: is not here; there are long, short"):
        find_partition("slurm", "none", None)
    assert find_partition("pbs", None, 48) == (Partition(48), [])


def test_environment_is_that_of_this_process() -> None:
    site = Site.find({"LOADEDMODULES": "gcc/13:openmpi/5", "OMPI_MCA_btl": "^ofi", "HOME": "/h"})
    assert site.modules == ("gcc/13", "openmpi/5")
    assert site.variables["OMPI_MCA_btl"] == "^ofi"
    assert "HOME" not in site.variables


def test_lines_without_a_value_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").write_text("a @x@\nb @y@ @x@\nc\n")
    monkeypatch.setattr("mpidvc.commands.job.script.TEMPLATES", tmp_path)
    assert render("one", {"x": 1, "y": None}) == "a 1\nc"


def test_container(capsys: pytest.CaptureFixture[str]) -> None:
    text = script(capsys, "apptainer")
    assert text.split("\n", 2)[1].startswith("# Ranks") or "Bootstrap: docker" in text
    assert "@" not in text.replace('"$@"', "")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 5400), ("1:30", 90), ("4:00:00", 14400), ("1-12:00:00", 129600), ("2-0", 172800)]
)
def test_times(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["slurm"], "a command is missing"),
        (["slurm", "--", "nothing", "a.tif"], "nothing: is no command of mpidvc"),
        (["slurm", "--time", "soon", "--", *LINE], "--time soon: is no time"),
        (["slurm", "--nodes", "0", "--", *LINE], "--nodes 0: has to be 1 or more"),
        (["slurm", "--account", "a b", "--", *LINE], "--account 'a b': letters"),
        (["pbs", "--launcher", "srun", "--", *LINE], "--launcher srun: is Slurm's"),
        (["workstation", "--nodes", "2", "--", *LINE], "--nodes 2: a workstation is one node"),
        (["slurm", "--", "ldic", "a.tif", "none.tif", "-ns", "12", "-hws", "6"], "none.tif"),
    ],
)
def test_refused(words: Sequence[str], line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["job", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    told = [text for text in captured.err.splitlines() if not text.startswith(("note:", "warning:"))]
    assert len(told) == 1
    assert line in told[0]


def test_steps_run_in_order(folder: Path, capsys: pytest.CaptureFixture[str], environment: dict[str, str]) -> None:
    chain = ["--", "reg", "a.tif", "b.tif", "-od", "out", "--", *LINE, "-pf", "out/a-b-registration.tsv", "-od", "out"]
    text = script(capsys, "workstation", "--ranks-per-node", "1", *chain)
    checked(text)
    (folder / "run.sh").write_text(text)
    done = subprocess.run(["bash", "run.sh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("mpidvc reg") < done.stdout.index("mpidvc ldic") < done.stdout.index("all steps")
    assert not (folder / ".mpidvc-reg.job").exists()
    assert main([*LINE, "-pf", "out/a-b-registration.tsv", "-od", "alone", "-np", "1"]) == 0
    ours = outputs(folder / "out")
    assert {name: ours[name] for name in outputs(folder / "alone")} == outputs(folder / "alone")


def test_a_run_of_all_steps(folder: Path, capsys: pytest.CaptureFixture[str], environment: dict[str, str]) -> None:
    """Steps of a step are its progress: a job that is stopped again and again, but gets on, is not given up."""
    (folder / "recipe.toml").write_text(
        "pixelSearch = false\nregularStrain = false\ndeformImage = false\n[ldic]\nnode-spacing = 12\n"
        "half-window-size = 6\n"
    )
    run = ["run", "a.tif", "b.tif", "--recipe", "recipe.toml", "-od", "out"]
    text = script(capsys, "workstation", "--ranks-per-node", "1", "--", *run)
    checked(text)
    (folder / "run.sh").write_text(text)
    done = subprocess.run(["bash", "run.sh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "out" / "filterPhiField" / "a-b-ldic-filtered.h5").exists()
    # killed just before its report: a launcher returns 0 for it, its folder does not
    steps = json.loads((folder / "out" / "steps.json").read_text())
    steps["run"]["status"] = None
    del steps["steps"]["report"]
    (folder / "out" / "steps.json").write_text(json.dumps(steps))
    program = '#!/bin/bash\ncase "$*" in *" status "*) exec '
    program += f'{sys.executable} "$@" ;; *leftovers) exit ;; esac\nexit 0\n'
    (folder / "python").write_text(program)
    (folder / "python").chmod(0o755)
    killed = re.sub(r"^python=.*$", f"python=({folder}/python)", text, flags=re.MULTILINE)
    killed = killed.replace("sleep 10", "exit 75")
    done = subprocess.run(["bash"], input=killed, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 75, done.stderr
    assert "status 75: the job is started again, and goes on" in done.stdout


def test_steps_of_a_run_are_its_progress(folder: Path, environment: dict[str, str]) -> None:
    """A job that is stopped again and again, but gets a step further each time, is not given up."""
    text = _fake(folder, *[85] * 9).replace("results=(x.h5)", f"results=({folder}/steps)")
    status = f'*status*) exec {sys.executable} "$@" ;;'
    (folder / "python").write_text(
        re.sub(r"\*status\*\) exit \d+ ;;", lambda _: status, (folder / "python").read_text())
    )
    (folder / "steps").mkdir()
    run = {"line": "run", "folder": "/", "status": None}

    def ends() -> int:
        done = subprocess.run(["bash"], input=text, text=True, env=environment, capture_output=True, check=False)
        return done.returncode

    for k in range(4):
        steps = {f"step {n}": {"status": 0} for n in range(k)}
        (folder / "steps" / "steps.json").write_text(json.dumps({"run": run, "steps": steps}))
        assert ends() == 99
    assert [ends() for _ in range(3)] == [99, 99, 85]


def _fake(folder: Path, *statuses: int, told: int = 0) -> str:
    """A script of two steps in which a fake of mpidvc ends with these exit statuses, and leaves no files.

    `told` is the exit status of ``mpidvc status``.
    """
    (folder / "statuses").write_text("\n".join(map(str, statuses)) + "\n")
    program = folder / "python"
    program.write_text(
        '#!/bin/bash\ncase "$*" in *leftovers) exit ;; *status*) exit ' + str(told) + ' ;; esac\necho "run $*"\n'
        'first=$(head -n 1 statuses); sed -i 1d statuses; exit "$first"\n'
    )
    program.chmod(0o755)
    values = {
        "folder": str(folder), "state": ".state", "modules": None, "variables": None, "python": str(program),
        "per_node": "", "local": "''", "prefix": "/", "launch": '"${program[@]}"', "after": "", "timer": None,
        "limit_signals": "USR1 USR2", "cancel_signals": "INT TERM HUP",
        "steps": "results=(x.h5)\nfiles=()\nstep one\nstep two",
    }  # fmt: skip
    return "#!/bin/bash\nrequeue() { echo requeued; exit 99; }\n" + render("body.sh", values)


@pytest.mark.parametrize(
    ("launched", "told", "end"), [(0, 0, 0), (0, 1, 1), (1, 1, 1), (0, 75, 99), (1, 75, 99), (0, 2, 99), (85, 1, 99)]
)
def test_a_results_file_decides(launched: int, told: int, end: int, tmp_path: Path) -> None:
    """A launcher may return 0 for processes that were killed; the file tells whether the result is one to trust."""
    text = _fake(tmp_path, launched, 0, told=told).replace("step two", "")
    done = subprocess.run(["bash"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == end, done.stderr


@pytest.mark.parametrize(
    ("statuses", "end", "runs", "again"),
    [
        ((0, 0), 0, 2, False),
        ((1,), 1, 1, False),
        ((2,), 2, 1, False),
        ((70,), 70, 1, False),
        ((139,), 139, 1, False),
        ((75,), 99, 1, True),
        ((85,), 99, 1, True),
        ((137,), 99, 1, True),
        ((0, 85), 99, 2, True),
    ],
)
def test_statuses_that_are_tried_again(
    statuses: tuple[int, ...], end: int, runs: int, again: bool, tmp_path: Path
) -> None:
    done = subprocess.run(["bash"], input=_fake(tmp_path, *statuses), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("run -m"), "requeued" in done.stdout) == (end, runs, again), done.stderr


def test_a_signal_that_a_launcher_loses_is_sent_again(tmp_path: Path) -> None:
    text = _fake(tmp_path).replace(" every=10", " every=0.2")
    assert "every=0.2" in text
    (tmp_path / "python").write_text(
        '#!/bin/bash\ncase "$*" in *leftovers | *status*) exit ;; esac\n'
        "trap 'echo got >>got; if [ \"$(wc -l <got)\" = 2 ]; then exit 85; fi' USR1\n"
        "touch begun\nwhile :; do sleep 0.1; done\n"
    )
    (tmp_path / "job.sh").write_text(text)
    with subprocess.Popen(["bash", "job.sh"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as job:
        try:
            until((tmp_path / "begun").exists, "the step begins")
            job.send_signal(signal.SIGUSR1)
            out, _ = job.communicate(timeout=LONGEST)
        finally:
            job.kill()
    assert job.returncode == 99, out
    assert "status 85: the job is started again" in out


def test_no_progress_ends_a_job(tmp_path: Path) -> None:
    text = _fake(tmp_path, *[75] * 9)
    ends = [
        subprocess.run(["bash"], input=text, capture_output=True, text=True, check=False).returncode for _ in range(4)
    ]
    assert ends == [99, 99, 99, 75]
