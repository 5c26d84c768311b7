"""The commands as ewoks tasks: their inputs, and a graph from two scans to strain with the files of the commands."""

from __future__ import annotations

import inspect
import json
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import tifffile

pytest.importorskip("ewokscore", reason="ewokscore is not installed: pip install mpidvc[ewoks]")

from ewokscore import execute_graph
from ewokscore.task_discovery import discover_tasks_from_modules

import mpidvc
from mpidvc.commands import COMMANDS
from mpidvc.core.analytic import AnalyticPair
from mpidvc.ewoks import commands
from mpidvc.main import main
from tests.outputs import outputs

STRAIN = Path(__file__).parents[2] / "docs" / "workflows" / "strain.json"
TASKS = {
    "Reg": "reg",
    "Ldic": "ldic",
    "Ddic": "ddic",
    "PixelSearch": "pixelSearch",
    "DeformImage": "deformImage",
    "PixelSearchPropagate": "pixelSearchPropagate",
    "PassPhiField": "passPhiField",
    "Preeval": "preeval",
    "FilterPhiField": "filterPhiField",
    "Gauge": "gauge",
    "RegularStrain": "regularStrain",
}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    pair = AnalyticPair((40, 44, 48), seed=5, translation=(1.2, -0.4, 0.6))
    for name, image in (("a", pair.image1()), ("b", pair.image2())):
        tifffile.imwrite(folder / f"{name}.tif", image, photometric="minisblack")
    return folder


def test_every_command_is_a_task_with_its_options() -> None:
    made = {name: getattr(commands, name) for name in commands.__all__ if name not in ("GROUPS", "CommandTask")}
    assert {name: task.command.name for name, task in made.items()} == TASKS
    for task in made.values():
        parameters = inspect.signature(getattr(mpidvc, task.command.function)).parameters
        assert set(task.input_names()) == set(parameters)
        needed = [name for name, one in parameters.items() if one.default is inspect.Parameter.empty]
        assert set(task.required_input_names()) == set(needed)
        assert task.class_registry_name() == f"mpidvc.ewoks.commands.{task.__name__}"
    assert commands.Ldic.required_input_names() == {"images"}
    assert {"node_spacing", "half_window_size", "out_dir"} <= set(commands.Ldic.optional_input_names())
    assert COMMANDS["status"].group not in commands.GROUPS


def test_tasks_are_found() -> None:
    assert [one.value for one in entry_points(group="ewoks.tasks.class") if one.name == "mpidvc.ewoks.*"] == ["mpidvc"]
    found = {one["task_identifier"] for one in discover_tasks_from_modules("mpidvc.ewoks.*", task_type="class")}
    expected = {f"mpidvc.ewoks.commands.{name}" for name in TASKS}
    assert found == {*expected, "mpidvc.ewoks.preeval.Reg2DPreEvaluation"}


def test_from_two_scans_to_strain(scans: Path, tmp_path: Path) -> None:
    graph = json.loads(STRAIN.read_text())
    images = [str(scans / "a.tif"), str(scans / "b.tif")]
    # as after a link: a task in the graph, too, that reads the end of it
    inputs = [
        {"id": "reg", "name": "im1", "value": images[0]},
        {"id": "reg", "name": "im2", "value": images[1]},
        {"id": "ldic", "name": "images", "value": images},
        *({"id": one, "name": "out_dir", "value": str(tmp_path)} for one in ("reg", "ldic", "filter", "strain")),
        *({"id": one, "name": "processes", "value": 1} for one in ("reg", "ldic", "filter", "strain")),
    ]
    found = execute_graph(graph, inputs=inputs)
    assert set(found) == {"result", "files", "file"}
    stem = tmp_path / "a-b-ldic-filtered-strain-Q8"
    assert found["files"] == [f"{stem}.h5", f"{stem}.tsv"]
    assert found["file"] == f"{stem}.h5"
    assert np.nanmedian(found["result"]["dev"]) > 0
    other = tmp_path / "by hand"
    for line in (
        f"reg {images[0]} {images[1]}",
        f"ldic {images[0]} {images[1]} -pf {other}/a-b-registration.tsv -ns 8 -hws 6",
        f"filterPhiField -pf {other}/a-b-ldic.h5 -slqc -cint",
        f"regularStrain {other}/a-b-ldic-filtered.h5 -comp vol dev -tif",
    ):
        words = line.replace(str(other), "@").split()
        assert main([*(word.replace("@", str(other)) for word in words), "-od", str(other), "-np", "1"]) == 0
    expected = outputs(other)
    ours = {name: content for name, content in outputs(tmp_path).items() if not name.startswith("by hand")}
    assert len(expected) >= 9
    assert sorted(ours) == sorted(expected)
    assert [name for name in expected if ours[name] != expected[name]] == []


def test_without_a_folder_nothing_is_written(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in scans.iterdir())
    task = commands.Reg(inputs={"im1": str(scans / "a.tif"), "im2": tifffile.imread(scans / "b.tif"), "bin_begin": 2})
    task.execute()
    assert task.outputs.files == []
    assert task.outputs.file is None
    assert task.outputs.result["returnStatus"] == [2]
    assert list(tmp_path.iterdir()) == []
    assert sorted(path.name for path in scans.iterdir()) == before


@pytest.mark.usefixtures("launcher")
def test_on_ranks(scans: Path, tmp_path: Path) -> None:
    found = {}
    for n in (1, 2):
        images = [str(scans / "a.tif"), str(scans / "b.tif")]
        given = {"node_spacing": 12, "half_window_size": 6, "out_dir": str(tmp_path / f"{n}"), "h5": False}
        task = commands.Ldic(inputs={"images": images, **given, "processes": n})
        task.execute()
        # the results file is not kept
        assert task.outputs.files == [str(tmp_path / f"{n}" / "a-b-ldic.tsv")]
        found[n] = Path(task.outputs.file).read_bytes()
    assert found[1] == found[2]


def test_deformed_image(scans: Path, tmp_path: Path) -> None:
    whole = mpidvc.reg(scans / "a.tif", scans / "b.tif")
    given = {"phi_file": whole, "im2": str(scans / "b.tif"), "out_dir": str(tmp_path), "processes": 1}
    task = commands.DeformImage(inputs={"im1": str(scans / "a.tif"), **given})
    task.execute()
    assert task.outputs.files == [str(task.outputs.result.image), str(task.outputs.result.residual)]
    assert all(Path(path).exists() for path in task.outputs.files)


def test_errors_in_the_words_of_the_inputs(scans: Path) -> None:
    task = commands.Ldic(inputs={"images": [str(scans / "a.tif"), str(scans / "b.tif")], "node_spacing": 8})
    with pytest.raises(Exception, match="half_window_size") as told:
        task.execute()
    assert isinstance(told.value, mpidvc.UserError) or isinstance(told.value.__cause__, mpidvc.UserError)
