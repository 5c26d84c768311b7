"""Plans of commands that run kernels: the ranks agree on an instruction set, and on how images are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from mpidvc.cli.command import Plan
from mpidvc.runtime.console import Console
from mpidvc.runtime.executor import Executor
from mpidvc.tasks.placement import Needs, Placement, choose, decide, forget, least_memory
from mpidvc.tasks.ranks import agree_on_instruction_set, check_instruction_set
from mpidvc.workflow.calibration import Cost

__all__ = ["CorrelationPlan", "KernelPlan"]

P = TypeVar("P", bound="CorrelationPlan")


@dataclass(frozen=True, kw_only=True)
class KernelPlan(Plan):
    """Plan of a command that runs kernels."""

    def __post_init__(self) -> None:
        # refused by the process that prepares, before any rank is started
        check_instruction_set()

    def memory_on(self, ranks: int, mode: str | None = None) -> tuple[str, int, int]:
        """Way to read the images, least bytes on a node with so many ranks, and bytes of its largest rank.

        Parameters
        ----------
        ranks : int
        mode : {"shared", "mapped", "boxes"}, optional
            Another way than the one that would be chosen.
        """
        raise NotImplementedError

    def cost(self, budget: float) -> Cost:
        """CPU time of the work: measured on some of it for about so many CPU seconds, or a rough guess for 0."""
        raise NotImplementedError

    def written(self) -> tuple[list[tuple[Path, int]], int]:
        """Files that the run writes, with their bytes, and further bytes that they take while it runs."""
        raise NotImplementedError

    def configure(self, executor: Executor) -> None:
        agree_on_instruction_set(executor)


@dataclass(frozen=True, kw_only=True)
class CorrelationPlan(KernelPlan):
    """Plan of a command that reads images.

    Attributes
    ----------
    image_mode : {"auto", "shared", "mapped", "boxes"}
        As asked for.
    memory : str or None
        As asked for.
    placement : Placement or None
        The decision, from `fit`.
    """

    image_mode: str = "auto"
    memory: str | None = None
    placement: Placement | None = None

    def needs(self) -> Needs:
        """Images, and memory for the work on them."""
        raise NotImplementedError

    def memory_on(self, ranks: int, mode: str | None = None) -> tuple[str, int, int]:
        needs = self.needs()
        way = choose(needs, mode or self.image_mode)
        return way, *least_memory(needs, way, ranks)

    def fit(self: P, ranks: int, console: Console, may_take_fewer: bool = False) -> tuple[P, int]:
        needs = self.needs()
        placement = decide(needs, ranks, self.image_mode, self.memory, console, may_take_fewer)
        forget(image for images in needs.images for image in images)
        return replace(self, placement=placement), placement.ranks
