"""Reg2DPreEvaluation in graphs, with inputs and outputs as ewoksndreg's task of this name has them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

pytest.importorskip("ewokscore", reason="ewokscore is not installed: pip install mpidvc[ewoks]")

from ewokscore import execute_graph
from ewokscore.task import Task
from ewoksutils.exceptions import TaskExecutionError, TaskInputError
from silx.io.url import DataUrl

import mpidvc
from mpidvc.ewoks.preeval import Reg2DPreEvaluation
from tests.reference.make_preeval_reference import more_stacks, stacks

RANK = Path(__file__).parents[2] / "docs" / "workflows" / "rank.json"
STACKS = stacks("float32")
BEST = ["clean", "good", "fair", "bad"]
OUTPUTS = {"image_stacks", "reference_stack", "ranked_stack_names", "output_configuration"}


class Saved(Task, input_names=["reference_stack", "image_stacks", "configuration"], output_names=["told"]):
    """A task after the ranking: it takes the chosen stack."""

    def run(self) -> None:
        chosen = self.inputs.image_stacks[self.inputs.reference_stack]
        self.outputs.told = [self.inputs.reference_stack, chosen, self.inputs.configuration]


@pytest.fixture(scope="module")
def uris(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("stacks") / "f.h5"
    with h5py.File(path, "w") as file:
        for name in reversed(BEST):
            file[f"entry/results/{name}"] = STACKS[name]
    return {name: f"{path}::/entry/results/{name}" for name in reversed(BEST)}


def run(**inputs: Any) -> dict[str, Any]:
    task = Reg2DPreEvaluation(inputs={"processes": 1, **inputs})
    task.execute()
    return task.get_output_values()


def test_graph_with_a_task_after_it(uris: dict[str, str]) -> None:
    graph = json.loads(RANK.read_text())
    graph["nodes"].append({"id": "save", "task_type": "class", "task_identifier": f"{__name__}.Saved"})
    mapping = {"reference_stack": "reference_stack", "image_stacks": "image_stacks"}
    mapping["output_configuration"] = "configuration"
    mappings = [{"source_output": source, "target_input": target} for source, target in mapping.items()]
    graph["links"].append({"source": "rank", "target": "save", "data_mapping": mappings})
    given = {"image_stacks": uris, "output_configuration": {"param1": 0}, "processes": 1}
    inputs = [{"id": "rank", "name": name, "value": value} for name, value in given.items()]
    found = execute_graph(json.loads(json.dumps(graph)), inputs=inputs)
    assert found["told"] == ["clean", uris["clean"], {"param1": 0, "reference_stack": None}]
    assert given["output_configuration"] == {"param1": 0}


def test_outputs_of_an_existing_graph(uris: dict[str, str]) -> None:
    found = execute_graph(json.loads(RANK.read_text()), inputs=[{"id": "rank", "name": "image_stacks", "value": uris}])
    assert set(found) == OUTPUTS
    assert found["image_stacks"] == uris
    assert found["reference_stack"] == "clean"
    assert found["ranked_stack_names"] == BEST
    assert found["output_configuration"] == {"reference_stack": None}


def test_forms_of_stacks(uris: dict[str, str], tmp_path: Path) -> None:
    urls = {name: DataUrl(uri) for name, uri in uris.items()}
    lists = {name: list(stack) for name, stack in STACKS.items()}
    nested = {name: stack.tolist() for name, stack in STACKS.items()}
    for given in (uris, urls, STACKS, lists, nested, list(uris.values()), tuple(urls.values())):
        found = run(image_stacks=given)
        assert found["image_stacks"] is given
        assert (found["reference_stack"], found["ranked_stack_names"]) == ("clean", BEST)
    rows = {"stack1": [[0, 0, 0], [1, 1, 1], [2, 2, 2]], "stack2": [[1, 5, 2], [1, 5, 2]][:1] * 3}
    with pytest.warns(UserWarning, match="no distinct peak"):
        assert set(run(image_stacks=rows)["ranked_stack_names"]) == {"stack1", "stack2"}


def test_slices_are_honoured(tmp_path: Path) -> None:
    """Bad images after good ones: the slices alone make the first stack the better one."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["a"] = np.concatenate([STACKS["clean"][:2], STACKS["bad"][2:]])
        file["b"] = STACKS["good"]
    whole = {name: f"{path}::/{name}" for name in "ab"}
    assert run(image_stacks=whole)["ranked_stack_names"] == ["b", "a"]
    parts = {name: DataUrl(file_path=str(path), data_path=f"/{name}", data_slice=(slice(0, 2),)) for name in "ab"}
    assert run(image_stacks=parts)["ranked_stack_names"] == ["a", "b"]
    assert run(image_stacks={name: f"silx:{path}?path=/{name}&slice=0:2" for name in "ba"})["reference_stack"] == "a"


def test_names_of_lists_are_unique(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.h5" for k in range(2)]
    for path, name in zip(paths, ("good", "clean"), strict=True):
        with h5py.File(path, "w") as file:
            file["entry/data"] = STACKS[name]
    assert run(image_stacks=[f"{path}::/entry/data" for path in paths])["ranked_stack_names"] == [
        "1.h5/entry/data",
        "0.h5/entry/data",
    ]
    assert run(image_stacks=[f"{paths[0]}::/entry/data"])["ranked_stack_names"] == ["data"]


def test_nan_is_last() -> None:
    given = more_stacks()
    for one in (given, dict(reversed(given.items()))):
        with pytest.warns(UserWarning, match="stack nan: 1 of its images hold nan"):
            found = run(image_stacks=one)
        assert found["ranked_stack_names"][-1] == "nan"
        assert found["reference_stack"] == "odd"


class Stacks(Mapping):
    """As ewoksndreg's InputStacks: without stacks until it is entered, then with datasets that are open, not locked."""

    def __init__(self, uris: dict[str, str]) -> None:
        self._uris, self._data = uris, {}

    def __enter__(self) -> Stacks:
        self._files = contextlib.ExitStack()
        for name, uri in self._uris.items():
            file, _, dataset = uri.partition("::")
            self._data[name] = self._files.enter_context(h5py.File(file, locking=False))[dataset]
        return self

    def __exit__(self, *args: object) -> None:
        self._data = {}
        self._files.close()

    def __getitem__(self, name: str) -> Any:
        return self._data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)


def test_input_stacks(uris: dict[str, str]) -> None:
    closed = Stacks(uris)
    found = run(image_stacks=closed)
    assert found["image_stacks"] is closed
    assert found["ranked_stack_names"] == BEST
    # left as it was
    assert len(closed) == 0
    with Stacks(uris) as opened:
        assert run(image_stacks=opened)["ranked_stack_names"] == BEST
        assert opened["good"].shape == (6, 40, 36)


@pytest.mark.parametrize(
    ("inputs", "reference", "noted"),
    [
        ({"reference_stack": "fair"}, "fair", "fair"),
        ({"reference_stack": "nowhere", "skip": True}, "nowhere", "nowhere"),
        ({"skip": True}, None, None),
    ],
)
def test_no_ranking(inputs: dict[str, Any], reference: str | None, noted: str | None) -> None:
    # nothing is read
    given = dict.fromkeys(BEST, "/nowhere.h5::/a")
    found = run(image_stacks=given, **inputs)
    assert (found["reference_stack"], found["ranked_stack_names"]) == (reference, None)
    assert found["output_configuration"] == {"reference_stack": noted}
    assert found["image_stacks"] is given


def test_an_empty_reference_is_none() -> None:
    found = run(image_stacks=STACKS, reference_stack="")
    assert (found["reference_stack"], found["ranked_stack_names"]) == ("clean", BEST)
    assert found["output_configuration"] == {"reference_stack": ""}


def test_reference_of_a_list(uris: dict[str, str]) -> None:
    for reference in (uris["fair"], "fair"):
        assert run(image_stacks=list(uris.values()), reference_stack=reference)["reference_stack"] == reference


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image_stacks": {}}, "image_stacks: is empty; give at least one stack"),
        ({"image_stacks": []}, "image_stacks: is empty; give at least one stack"),
        ({"image_stacks": STACKS, "reference_stack": "none"}, "reference none: is none of the stacks clean, good, "),
        ({"image_stacks": {"a": STACKS["good"][0]}}, "stack a: has 2 dimensions"),
        ({"image_stacks": [STACKS["good"]]}, "a stack in memory has no name; give a dict"),
        ({"image_stacks": {"a": "/nowhere.h5"}}, "stack /nowhere.h5: does not exist"),
        ({"image_stacks": {"a": STACKS["good"], "b": STACKS["bad"][:2]}}, "stack b: has 2 images but a has 6"),
    ],
)
def test_refusals(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskExecutionError) as told:
        run(**inputs)
    assert isinstance(told.value.__cause__, mpidvc.UserError)
    assert message in str(told.value.__cause__)
    assert "\n" not in str(told.value.__cause__)


def test_inputs_of_wrong_types() -> None:
    for inputs in ({"image_stacks": "f.h5::/a"}, {"image_stacks": STACKS, "skip": None}, {"image_stacks": 3}):
        with pytest.raises(TaskExecutionError):
            run(**inputs)
    with pytest.raises(TaskInputError):
        run(skip=True)
