"""What all ranks agree on: with one process, with ranks that differ, and with real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpidvc.errors import AgreedError, UserError
from mpidvc.kernels import correlation
from mpidvc.runtime.executor import InlineExecutor
from mpidvc.tasks import ranks
from mpidvc.tasks.ranks import agree_on_instruction_set, check_instruction_set, led, on_leader, sum_over_ranks
from tests.conftest import Job
from tests.tasks import ranks_program


@pytest.fixture
def _same_set_afterwards() -> Any:
    before = correlation.instruction_set()
    yield
    correlation.use_instruction_set(before)


class Several(InlineExecutor):
    """Rank 0 of several, the others of which have these instruction sets."""

    def __init__(self, *others: tuple[str, ...]) -> None:
        super().__init__()
        self.others, self.size = others, 1 + len(others)

    def reduce(self, task: Any, argument: Any) -> Any:
        assert task.n_chunks == self.size
        shares = [np.array([float(name in have) for name in correlation.INSTRUCTION_SETS]) for have in self.others]
        return np.sum([task.run_sum(0, argument), *shares], axis=0)


def test_sum_of_one() -> None:
    np.testing.assert_array_equal(sum_over_ranks(InlineExecutor(), [1, 2.5, -3]), [1, 2.5, -3])


def test_leader_of_one() -> None:
    assert on_leader(InlineExecutor(), lambda: {"a": 1}) == {"a": 1}
    assert on_leader(InlineExecutor(), lambda: None) is None

    def refuse() -> None:
        raise UserError("no")

    with pytest.raises(AgreedError, match=r"^no$"):
        on_leader(InlineExecutor(), refuse)
    # a fault of the program is no matter of agreement
    with pytest.raises(ZeroDivisionError):
        on_leader(InlineExecutor(), lambda: 1 // 0)


@pytest.mark.usefixtures("_same_set_afterwards")
def test_highest_that_all_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ranks.ISA_VARIABLE, raising=False)
    have = correlation.instruction_sets()
    assert agree_on_instruction_set(InlineExecutor()) == have[-1] == correlation.instruction_set()
    for k, common in enumerate(have):
        # the others have every set there is, or no more than this one
        for others in ((have[: k + 1],), (correlation.INSTRUCTION_SETS, have[: k + 1])):
            assert agree_on_instruction_set(Several(*others)) == common
            assert correlation.instruction_set() == common


@pytest.mark.usefixtures("_same_set_afterwards")
def test_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variable, or by the run that is resumed, which goes before it."""
    have = correlation.instruction_sets()
    for name in have:
        monkeypatch.setenv(ranks.ISA_VARIABLE, name)
        check_instruction_set()
        assert agree_on_instruction_set(InlineExecutor()) == name
        assert agree_on_instruction_set(InlineExecutor(), have[0]) == have[0] == correlation.instruction_set()


@pytest.mark.usefixtures("_same_set_afterwards")
def test_the_one_asked_for_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ranks.ISA_VARIABLE, "sse9")
    with pytest.raises(UserError, match=r"^MPIDVC_ISA=sse9: not available here; choose from baseline"):
        check_instruction_set()
    with pytest.raises(AgreedError, match=r"^MPIDVC_ISA=sse9: not available on all processes; choose from baseline"):
        agree_on_instruction_set(InlineExecutor())
    monkeypatch.setenv(ranks.ISA_VARIABLE, "")
    check_instruction_set()
    with pytest.raises(AgreedError, match=r"--resume: the run was begun with sse9 instructions.*\(baseline"):
        agree_on_instruction_set(InlineExecutor(), "sse9")
    # here, but not everywhere
    have = correlation.instruction_sets()
    if len(have) > 1:
        monkeypatch.setenv(ranks.ISA_VARIABLE, have[-1])
        with pytest.raises(AgreedError, match=r"choose from baseline$"):
            agree_on_instruction_set(Several(("baseline",)))


@pytest.fixture(scope="module")
def told(mpiexec: Job) -> dict[str, list[str]]:
    """What three ranks say of every case, one of which has the lowest instruction set only."""
    cases = ("sum", "leader", "refused", "led", "led in vain", "isa", "isa:avx512")
    done = mpiexec(3, ranks_program.__file__, *cases)
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert len(lines) == 3 * len(cases)
    return {case: [lines[f"{case} of {rank}"] for rank in range(3)] for case in cases}


def test_sum_of_ranks(told: dict[str, list[str]]) -> None:
    assert told["sum"] == ["[3.0, 111.0, -3.0]"] * 3


def test_leader_of_ranks(told: dict[str, list[str]]) -> None:
    """Only rank 0 is asked, and its refusal is everybody's."""
    assert told["leader"] == ["of 0"] * 3
    assert told["refused"] == ["agreed: one.tif: is no image; take another"] * 3


def test_work_shared_by_the_leader(told: dict[str, list[str]]) -> None:
    """All ranks add to what rank 0 calls on them for, also after a call that was refused."""
    assert told["led"] == ["[[111.0], 'one.tif: is no image; take another', [7.0]]"] * 3
    assert told["led in vain"] == ["agreed: one.tif: is no image; take another"] * 3


def test_work_shared_with_nobody() -> None:
    assert led(InlineExecutor(), lambda team: team.call(sum_over_ranks, [2.0]) + 1) == [3.0]


def test_instruction_set_of_ranks(told: dict[str, list[str]]) -> None:
    assert told["isa"] == ["('baseline', 'baseline')"] * 3
    refused = "agreed: --resume: the run was begun with avx512 instructions"
    assert all(line.startswith(refused) for line in told["isa:avx512"])
