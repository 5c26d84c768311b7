"""A series whose texture is replaced: followed by a changing reference, and resumed with the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.series import Turning
from mpidvc.fields.read import read_field
from mpidvc.main import main
from mpidvc.workflow import series as module
from tests.outputs import outputs

SERIES = Turning(160, 7, 3.6, 0.9)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("states")
    SERIES.write_nodes(folder / "nodes.tsv", 20, 20)
    return SERIES.write(folder)


def words(images: list[str], out: Path, *more: str) -> list[str]:
    nodes = str(Path(images[0]).with_name("nodes.tsv"))
    return ["ldic", *images, "-pf", nodes, "-hws", "40", "-o", "3", "-np", "1", "-od", str(out), *more]


def test_changing_reference_follows_where_warm_start_alone_does_not(images: list[str], tmp_path: Path) -> None:
    # of the series with small steps, benchmarks/series.py shows the same
    shares, medians = {}, {}
    for option, ending in (("--warm-start", ""), ("--update-reference", "-total")):
        main(words(images, tmp_path / option[2:], option))
        field = read_field(tmp_path / option[2:] / f"s000-s006-ldic{ending}.h5")
        shares[option], errors = SERIES.errors(field, 6)
        medians[option] = np.median(errors)
    assert shares["--update-reference"] == 1
    assert medians["--update-reference"] <= 0.05
    assert shares["--warm-start"] < 0.5
    assert medians["--warm-start"] > 0.3
    # both the step and the total field are there
    assert not (tmp_path / "warm-start" / "s005-s006-ldic.h5").exists()
    assert (tmp_path / "update-reference" / "s005-s006-ldic.h5").exists()


def test_series_resumes_with_the_same_bytes(images: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(words(images, tmp_path / "whole", "--update-reference")) in (0, 1)
    took = module._took

    def fail(follower: object, console: object, state: int, part: object) -> bool:
        if state == 4:
            raise KeyboardInterrupt
        return took(follower, console, state, part)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(module, "_took", fail)
        assert main(words(images, tmp_path / "again", "--update-reference")) not in (0, 1)
    assert not (tmp_path / "again" / "s000-s006-ldic-total.h5").exists()
    assert main(words(images, tmp_path / "again", "--update-reference", "--resume")) in (0, 1)
    assert outputs(tmp_path / "again") == outputs(tmp_path / "whole")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--update-reference", "-sei"], "-sei --update-reference: with -sei every state is the reference"),
        (["--warm-start", "-skp", "-pf", "x.tsv"], "-skp --warm-start"),
    ],
)
def test_contradictions(
    more: list[str], told: str, images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(images, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
