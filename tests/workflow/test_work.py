"""The points of a run: those that every rank computes are those that rank 0 would write."""

import pickle

import numpy as np
import pytest

from mpidvc.core import deformation
from mpidvc.core.grid import GridOrder, chunk_points
from mpidvc.fields.phifield import PhiField
from mpidvc.kernels.correlation import RESULT
from mpidvc.tasks.points import record_of
from mpidvc.workflow.guess import Guess, Nodes, grid_nodes, nodes_to_measure
from mpidvc.workflow.work import Work, in_bricks

SHAPE, SPACING = (61, 83, 97), (5, 4, 3)
EDGE = np.array([40.0, 32.0, 24.0])
CENTRE = np.array([30.0, 41.25, 48.5])


def registration() -> Guess:
    phi = np.eye(4)
    phi[:3] = [[1.01, 0.02, -0.013, 3.3], [-0.021, 0.99, 0.004, -1.7], [0.011, 0.003, 1.02, 0.1]]
    return Guess(registration=PhiField(CENTRE[None], phi[None], {}, "registration"))


def work_of(nodes: Nodes, guess: Guess, stored_f: str) -> Work:
    order, starts = in_bricks(nodes, EDGE)
    return Work(
        determines={},
        nodes=nodes,
        columns=(),
        record=record_of(RESULT),
        guess=guess,
        stored_f=stored_f,
        order=order,
        starts=starts,
    )


@pytest.mark.parametrize("stored_f", ["no", "all", "rigid"])
@pytest.mark.parametrize("with_registration", [False, True])
def test_computed_inputs(stored_f: str, with_registration: bool) -> None:
    guess = registration() if with_registration else Guess()
    work = work_of(grid_nodes(SHAPE, SPACING), guess, stored_f)
    computed = pickle.loads(pickle.dumps(work.computed))
    axes = [np.arange(s, n, s, dtype=float) for n, s in zip(SHAPE, SPACING, strict=True)]
    positions = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    chunks = chunk_points(positions, EDGE)
    F, t = np.eye(3), np.zeros((len(positions), 3))
    if with_registration:
        given = guess.registration
        assert given is not None
        t = given.phi[0, :3, 3] + (positions - CENTRE) @ (given.F[0] - np.eye(3)).T
        F = {"no": F, "all": given.F[0], "rigid": deformation.polar(given.F[0])[0]}[stored_f]
    whole = computed.inputs(0, len(positions))
    assert np.array_equal(whole["position"], positions[chunks.order])
    np.testing.assert_allclose(whole["phi"][:, :, 3], t[chunks.order], rtol=0, atol=1e-12)
    assert np.array_equal(whole["phi"][:, :, :3], np.broadcast_to(F, (len(positions), 3, 3)))
    # within a line of nodes along x, whole lines, several planes
    for rows in (slice(100, 300), slice(5, 9), slice(32, 64), slice(31, 33), slice(7, 7), slice(0, len(positions))):
        assert np.array_equal(computed.positions(rows.start, rows.stop), positions[rows])
    # the same bits, however many are computed at a time, and as rank 0 would write them
    assert np.array_equal(np.concatenate([computed.inputs(k, k + 1) for k in range(700)]), whole[:700])
    assert np.array_equal(work.inputs(chunks.order), whole)


def test_a_field_on_a_grid_has_computed_positions() -> None:
    grid = grid_nodes(SHAPE, SPACING)
    field = PhiField.from_positions(grid.positions, np.tile(np.eye(4), (len(grid), 1, 1)), {})
    for positions, computed in ((grid.positions, True), (grid.positions + np.array([0, 0, 1e-9]), False)):
        guess = Guess(field=PhiField(positions, field.phi, {}, "grid", field.dims, field.spacing))
        nodes = nodes_to_measure("ldic", guess, SHAPE, None)
        assert np.array_equal(nodes.positions, positions)
        assert np.array_equal(nodes[np.array([3, 1])], positions[[3, 1]])
        work = work_of(nodes, guess, "no")
        assert (work.computed is not None) == computed
        # every point has a guess of its own
        assert work.computed is None or work.computed.start is None
        assert np.array_equal(work.order[:], chunk_points(positions, EDGE).order)


def test_kept_rows_end_the_computed_order() -> None:
    work = work_of(grid_nodes(SHAPE, SPACING), Guess(), "no")
    assert isinstance(work.order, GridOrder)
    n = len(work.order)
    assert work.measured_at(np.array([5, 0])).tolist() == [5, 0]
    work.keep(np.array([7]), lambda rows: np.zeros(len(rows), record_of(RESULT)))
    assert work.computed is None
    assert (work.n_measured, work.n_kept, work.measured.tolist()[:2]) == (n, 1, [0, 1])
