"""Seeded mutants of journals and run logs, through everything that reads them: a result, or one line and status 2."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mpidvc.core.analytic import AnalyticPair
from mpidvc.errors import UserError
from mpidvc.fields.read import read_field
from mpidvc.main import main
from mpidvc.runtime.exit_status import RETRY
from mpidvc.runtime.journal import Journal
from tests.mutants import COUNT, hdf5_fields, mutants, text_fields, trials
from tests.outputs import outputs

STEM = "a-b-ldic"
#: Blocks that are measured before the run is ended.
DONE = 3


class KilledError(Exception):
    """Stands for a kill: nothing is done after it."""


def run(folder: Path, *options: str) -> tuple[int, str, str]:
    """Correlate the images beside a folder into it; exit status, and what is said."""
    words = [str(folder.parent / name) for name in ("a.tif", "b.tif")]
    return said("ldic", *words, "-ns", "4", "-hws", "5", "-od", str(folder), "-np", "1", *options)


def said(*words: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a run that was ended when some blocks were done, beside those of a whole run."""
    folder = tmp_path_factory.mktemp("runs")
    pair = AnalyticPair((30, 50, 90), seed=5, amplitude=0.1, wavelength=60.0, translation=(0.6, -0.4, 0.7))
    for name, image in (("a", pair.image1()), ("b", pair.image2())):
        tifffile.imwrite(folder / f"{name}.tif", image, photometric="minisblack")
    assert run(folder / "whole")[0] == 0

    left = DONE
    record = Journal.record

    def ending(journal: Journal, block: int, records: np.ndarray) -> None:
        nonlocal left
        if left == 0:
            raise KilledError
        left -= 1
        record(journal, block, records)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "record", ending)
        with pytest.raises(KilledError):
            run(folder / "begun")
    status, out, _ = said("status", str(folder / "begun" / f"{STEM}.h5"))
    assert status == RETRY
    assert " points done (" in out
    assert " 0 of " not in out
    return folder / "begun"


def by_status(path: str) -> str:
    """What ``mpidvc status`` tells of a file, for people and for scripts, which agree."""
    status, _, err = said("status", path)
    again, out, _ = said("status", "--json", path)
    assert status == again
    if status == 2:
        (line,) = err.splitlines()
        raise UserError(line)
    assert (status, err) == (RETRY, "")
    (told,) = json.loads(out, parse_constant=pytest.fail)
    assert 0 <= told["done"] <= told["points"]
    return str(told["state"])


def by_field(path: str) -> str:
    """As ``-pf`` reads it."""
    return str(len(read_field(path)))


def by_resume(path: str) -> str:
    """Resume the run: its files are those of an undisturbed one, or one line says why not and nothing has changed."""
    folder = Path(path).parent
    before = outputs(folder)
    status, _, err = run(folder, "--resume")
    if status == 2:
        (line,) = err.splitlines()
        assert outputs(folder) == before
        raise UserError(line)
    assert status == 0, err
    found, expected = outputs(folder), outputs(folder.parent / "whole")
    assert sorted(found) == sorted(expected)
    assert [name for name, content in expected.items() if found[name] != content] == []
    return "resumed"


def tried(way: str, begun: Path, changed: str, seed: int) -> Counter[str]:
    """How the trials of mutants of one file of a run ended."""
    original = begun / f"{STEM}{changed}"
    content = original.read_bytes()
    fields = hdf5_fields(original) if changed == ".h5" else text_fields(content)
    paths, damages = [], []
    for number, mutant in enumerate(mutants(content, COUNT, seed=seed, fields=fields)):
        folder = begun.parent / f"{way}{changed}-{number}"
        shutil.copytree(begun, folder)
        (folder / original.name).write_bytes(mutant.content)
        paths.append(folder / f"{STEM}.h5")
        damages.append(mutant.damage)
    kinds: Counter[str] = Counter()
    outcomes = trials(f"tests.commands.test_damaged_runs:{way}", paths)
    for number, (path, damage, outcome) in enumerate(zip(paths, damages, outcomes, strict=True)):
        assert outcome.kind in ("read", "refused"), f"mutant {number}: {damage}: {outcome.kind} {outcome.text}"
        if outcome.kind == "refused":
            assert str(path) in outcome.text, f"{damage}: {outcome.text}"
            assert len(outcome.text.splitlines()) == 1
        kinds[outcome.text if outcome.kind == "read" else "refused"] += 1
        shutil.rmtree(path.parent)
    print(f"{COUNT} mutants of {changed}, {way}: {dict(kinds)}")
    assert sum(kinds.values()) == COUNT
    return kinds


@pytest.mark.parametrize("way", ["by_status", "by_field", "by_resume"])
def test_journals(begun: Path, way: str) -> None:
    kinds = tried(way, begun, ".h5", 12)
    if way == "by_field":
        assert set(kinds) == {"refused"}
    else:
        # both must happen, or the mutants are no test
        assert len(kinds) > 1


@pytest.mark.parametrize("way", ["by_status", "by_resume"])
def test_run_logs(begun: Path, way: str) -> None:
    """A log is never a reason to refuse anything."""
    if not (begun / f"{STEM}.run.json").exists():
        pytest.fail("the run has no log")
    assert "refused" not in tried(way, begun, ".run.json", 13)
