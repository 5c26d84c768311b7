"""Commands on fields that are killed and resumed: the files are those of a run that was not."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest

from mpidvc.fields.phifield import PhiField
from mpidvc.fields.tsv import write_tsv
from mpidvc.main import main
from mpidvc.runtime.journal import Journal
from tests.survival.jobs import same

#: Some blocks each, of which the first one is done when the run is killed.
LINES = {
    "pass": "passPhiField -pf @field.tsv -ns 9 -im1shape 240 240 200 -nn 8 -F rigid",
    "filter": "filterPhiField -pf @field.tsv -slqc --outliers -clqf -nr 15",
    "median": "filterPhiField -pf @field.tsv -fm",
    "motion": "filterPhiField -pf @field.tsv --remove-motion similarity",
    "strain": "regularStrain @field.tsv -comp vol dev Up",
    "strain-geers": "regularStrain @field.tsv -g -r 1 -rst 1 -comp GL",
}


class KilledError(Exception):
    """Stands for a kill: nothing is done after it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("fields")
    random = np.random.default_rng(3)
    nodes = 10.0 * (1 + np.stack(np.unravel_index(np.arange(22 * 22 * 20), (22, 22, 20)), axis=1))
    phi = np.tile(np.eye(4), (len(nodes), 1, 1))
    phi[:, :3, 3] = np.sin(nodes / 60) + random.normal(0, 0.01, (len(nodes), 3))
    phi[random.random(len(nodes)) < 0.05, :3, 3] += 2
    columns = {"returnStatus": np.where(random.random(len(nodes)) < 0.05, -5.0, 2.0)}
    columns |= {name: random.random(len(nodes)) for name in ("error", "iterations", "deltaPhiNorm")}
    write_tsv(made / "field.tsv", PhiField.from_positions(nodes, phi, columns), "LDIC")
    return made


@pytest.mark.parametrize("name", LINES)
def test_killed_and_resumed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[int] = []
    record = Journal.record

    def counted(journal: Journal, block: int, records: np.ndarray) -> None:
        if len(blocks) == most:
            raise KilledError
        blocks.append(block)
        record(journal, block, records)

    def run(target: str, *options: str) -> None:
        words = LINES[name].replace("@", f"{folder}/").split()
        with contextlib.redirect_stdout(io.StringIO()):
            assert main([*words, "-od", str(folder / target), "-np", "1", *options]) == 0

    monkeypatch.setattr(Journal, "record", counted)
    most = 1000
    run(f"{name}-whole")
    whole = sorted(blocks)
    assert len(whole) > 2
    blocks, most = [], 1
    with pytest.raises(KilledError):
        run(name)
    first, blocks, most = blocks, [], 1000
    run(name, "--resume")
    # what was measured is not measured again
    assert sorted(first + blocks) == whole
    same(folder / name, folder / f"{name}-whole")
