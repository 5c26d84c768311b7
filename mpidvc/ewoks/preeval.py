"""The ewoks task `Reg2DPreEvaluation`: inputs, outputs and behaviour of the task of this name in ewoksndreg 0.5.0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from ewokscore.model import BaseInputModel, BaseOutputModel
from ewokscore.task import Task
from pydantic import Field, PlainValidator

import mpidvc
from mpidvc.errors import UserError
from mpidvc.images.hdf5 import SEPARATOR

__all__ = ["Inputs", "Outputs", "Reg2DPreEvaluation"]


def _stacks(value: Any) -> Any:
    if isinstance(value, str | bytes) or not isinstance(value, Mapping | Sequence):
        raise ValueError("give a dictionary of stacks by their names, or a list of URIs")
    return value


#: Kept as it is given: it is an output, too.
Stacks = Annotated[
    Any,
    PlainValidator(_stacks),
    Field(
        description="Stacks of images by their names (arrays, lists of images, URIs or DataUrl of silx, InputStacks of "
        "ewoksndreg), or a list of URIs of HDF5 datasets, TIFF files and folders.",
        examples=[
            {"Ca": "/path/to/file.h5::/entry/Ca-K", "Fe": "/path/to/file.h5::/entry/Fe-K"},
            ["silx:///path/to/file.h5?path=/entry/Ca-K&slice=0:100"],
            {"stack1": [[0, 0, 0], [1, 1, 1], [2, 2, 2]]},
        ],
    ),
]


class Inputs(BaseInputModel):
    """Inputs of `Reg2DPreEvaluation`."""

    image_stacks: Stacks
    reference_stack: str | None = Field(
        None, description="Take this stack; nothing is read.", examples=["stack1", "stack2"]
    )
    output_configuration: dict[str, Any] | None = Field(
        None, description="Parameters that a later task saves.", examples=[{"param1": 0, "param2": 1}]
    )
    skip: bool = Field(False, description="Do not rank the stacks.")
    processes: int | None = Field(None, description="Number of processes (default: as many as pay).", examples=[1])


class Outputs(BaseOutputModel):
    """Outputs of `Reg2DPreEvaluation`."""

    image_stacks: Stacks
    reference_stack: str | None = Field(description="The stack to align all stacks by.", examples=["stack1", "stack2"])
    ranked_stack_names: list[str] | None = Field(description="Names of the stacks from best to worst.")
    output_configuration: dict[str, Any] | None = Field(
        description="That of the input, with the input reference_stack."
    )


class Reg2DPreEvaluation(Task, input_model=Inputs, output_model=Outputs):  # type: ignore[call-arg]
    """Which of several stacks of images phase correlation will align best: ``mpidvc preeval``."""

    def run(self) -> None:
        inputs = self.inputs
        stacks, reference, ranked = inputs.image_stacks, inputs.reference_stack, None
        if not inputs.skip:
            given = _given(stacks)
            if not given:
                raise UserError("image_stacks: is empty; give at least one stack")
            ranking = mpidvc.preeval(given, reference=reference, processes=inputs.processes)
            reference, ranked = ranking.reference, ranking.names
        self.outputs.image_stacks = stacks
        self.outputs.reference_stack = reference
        self.outputs.ranked_stack_names = ranked
        # the choice itself is noted by later tasks
        self.outputs.output_configuration = {
            **(inputs.output_configuration or {}),
            "reference_stack": inputs.reference_stack,
        }


def _given(stacks: Any) -> dict[str, Any] | list[Any]:
    """Stacks as `mpidvc.preeval` takes them.

    A mapping that is opened by ``with`` is that of ewoksndreg. While it is closed it is empty, so that it is opened for
    the URIs of its datasets.
    """
    if not isinstance(stacks, Mapping):
        return list(stacks)
    closed: Any = stacks
    if len(closed) == 0 and hasattr(closed, "__enter__"):
        with closed as opened:
            return {name: f"{one.file.filename}{SEPARATOR}{one.name}" for name, one in opened.items()}
    return dict(stacks)
