"""Windows that start from a neighbour before them, against registrations in plain numpy from the start that is due."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.kernels.oracle import (
    DIMENSIONS,
    ORDERS,
    Outcome,
    Pair,
    Run,
    agree,
    correlate,
    expected_outcome,
    guess_at,
    moving,
    nodes_of,
    points_call,
    run_for,
    texture,
)

MARGIN = 2


def phi_at(t: Any) -> np.ndarray:
    phi = np.eye(4)
    phi[:3, 3] = t
    return phi


def from_neighbours(
    pair: Pair, run: Run, nodes: np.ndarray, phi: np.ndarray, near: Any, at_hand: Any = None, **more: Any
) -> list[Outcome]:
    """As the kernel does it; windows of guesses have the margin, too."""
    reach = np.array(run.hws) + MARGIN * np.array([not pair.two_d, 1, 1])
    moved = nodes + np.rint(phi[:, :3, 3])
    low2, high2 = np.maximum(moved - reach, pair.low2), np.minimum(moved + reach, pair.high2)
    return correlate(
        pair,
        run,
        nodes,
        phi,
        low2=low2,
        high2=high2,
        near=None if near is None else np.array(near),
        margin=reach - run.hws,
        image2=(pair.frame, pair.frame + pair.high2),
        at_hand=(pair.frame, pair.frame + pair.high2) if at_hand is None else at_hand,
        **more,
    )


def expected(pair: Pair, run: Run, node: np.ndarray, phi: np.ndarray) -> Outcome:
    """From this start, with its own window of image 2."""
    reach = np.array(run.hws) + MARGIN * np.array([not pair.two_d, 1, 1])
    moved = node + np.rint(phi[:3, 3])
    own = replace(pair, low2=np.maximum(moved - reach, pair.low2), high2=np.minimum(moved + reach, pair.high2))
    return expected_outcome(own, run, node, phi)


def prediction(neighbour: Outcome, offset: np.ndarray) -> np.ndarray:
    phi = np.eye(4)
    phi[:3, :3], phi[:3, 3] = neighbour.F, neighbour.t + (neighbour.F - np.eye(3)) @ offset
    return phi


def true_guess(pair: Pair, node: np.ndarray) -> np.ndarray:
    """The displacement of `moving`, rounded."""
    phi = guess_at(pair, node, 0.0)
    phi[:3, 3] = phi[:3, 3].round()
    return phi


@pytest.mark.parametrize("options", [{}, {"znssd": True}, {"rigid": True}, {"update_gradient": True}])
@DIMENSIONS
@ORDERS
def test_a_hopeless_guess_gives_way(isa, order, two_d, options):
    """The second point starts from the first one's Phi, the third from the better one of both."""
    pair = moving(two_d, order)
    run, nodes = run_for(pair, **options), nodes_of(pair)
    phi = np.array([true_guess(pair, nodes[0]), phi_at((0, 0, 5)), phi_at((0, -5, 0))])
    near = [[1, 2], [0, 2], [0, 1]]
    got = from_neighbours(pair, run, nodes, phi, near)
    assert [one.status for one in got] == [2, 2, 2]
    agree(got[0], expected(pair, run, nodes[0], phi[0]), 2e-5)
    agree(got[1], expected(pair, run, nodes[1], prediction(got[0], nodes[1] - nodes[0])), 2e-5)
    best = max((0, 1), key=lambda k: got[k].zncc)
    agree(got[2], expected(pair, run, nodes[2], prediction(got[best], nodes[2] - nodes[best])), 2e-5)
    # whatever would follow, a point knows those before it only
    alone = from_neighbours(pair, run, nodes[1:], phi[1:], [[1], [-1]])
    (guess,) = from_neighbours(pair, run, nodes[1:2], phi[1:2], None)
    assert alone[0].t.tobytes() + alone[0].F.tobytes() == guess.t.tobytes() + guess.F.tobytes()


@pytest.mark.parametrize("znssd", [False, True])
@ORDERS
def test_the_better_start_is_taken(isa, order, znssd):
    """Two pieces, one at rest, the other 6 voxels on: a good guess beyond the jump stands, a bad one does not."""
    im2 = texture(21, (30, 32, 60))
    im1 = im2.copy()
    im1[..., 30:-6] = im2[..., 36:]
    pair, run = Pair(im1, im2, order), Run(hws=(5, 5, 6), znssd=znssd, gain=30.0 if znssd else 1.0, bias=-500.0 * znssd)
    nodes = np.array([[14, 15, 20], [14, 15, 40], [16, 15, 42], [14, 17, 18]])
    phi = np.array([phi_at(t) for t in ((0, 0, 0.3), (0, 0.2, 6.3), (0, 0, 0), (0, 0, 6))])
    got = from_neighbours(pair, run, nodes, phi, [[1, 2], [0, -1], [1, -1], [1, 2]])
    np.testing.assert_allclose([one.t for one in got[:3]], [(0, 0, 0), (0, 0, 6), (0, 0, 6)], rtol=0, atol=2e-3)
    for k, start in enumerate((phi[0], phi[1], prediction(got[1], nodes[2] - nodes[1]))):
        agree(got[k], expected(pair, run, nodes[k], start), 2e-5)
    # its guess and both of its neighbours are beyond the jump
    assert abs(got[3].t[2]) > 1 or got[3].status != 2


def test_starts_that_hardly_differ_are_not_compared(isa):
    """Half a voxel apart in a corner of the window: the neighbour is taken, though the guess is exact."""
    pair = moving(False, 1)
    run, nodes = run_for(pair), nodes_of(pair)[:2]
    exact = expected_outcome(pair, run, nodes[1], true_guess(pair, nodes[1]))
    good = np.eye(4)
    good[:3, :3], good[:3, 3] = exact.F, exact.t
    phi = np.array([true_guess(pair, nodes[0]), good])
    (first, second) = from_neighbours(pair, run, nodes, phi, [[1], [0]])
    start = prediction(first, nodes[1] - nodes[0])
    assert 0 < np.abs(start - good).max() < 0.1
    agree(second, expected(pair, run, nodes[1], start), 2e-5)
    # a start that is compared and not better
    far = prediction(first, nodes[1] - nodes[0])
    far[:3, 3] += 0.7
    assert np.abs(far - good)[:3, 3].max() > 0.5


@DIMENSIONS
def test_a_start_whose_window_is_not_at_hand_is_not_used(isa, two_d):
    """The window has to be at hand, not its margin; where image 2 ends it may stick out."""
    pair = moving(two_d, 1)
    run, nodes = run_for(pair), nodes_of(pair)[:2]
    phi = np.array([true_guess(pair, nodes[0]), phi_at((0, 0, 3))])
    first = from_neighbours(pair, run, nodes, phi, [[1], [0]])[0]
    start = prediction(first, nodes[1] - nodes[0])
    (guess,) = from_neighbours(pair, run, nodes[1:], phi[1:], None)
    whole = pair.frame, pair.frame + pair.high2
    for axis in (1, 2):
        face = nodes[1, axis] + round(start[axis, 3]) + run.hws[axis] + pair.frame[axis]
        for beyond, used in ((0, True), (-1, False)):
            high = np.array(whole[1])
            high[axis] = face + beyond
            got = from_neighbours(pair, run, nodes, phi, [[1], [0]], at_hand=(whole[0], high))[1]
            assert (got.t.tobytes() == guess.t.tobytes()) != used
            own = Pair(pair.im1, pair.im2, 1, high2=high - pair.frame)
            if used:
                agree(got, expected(own, run, nodes[1], start), 2e-5)
    # a node near the end of the image
    edge = np.array(nodes)
    edge[1, 2] = pair.im1.shape[2] - run.hws[2] - 2
    phi[1, 2, 3] = -3
    got = from_neighbours(pair, run, edge, phi, [[1], [0]])[1]
    agree(got, expected(pair, run, edge[1], prediction(first, edge[1] - edge[0])), 2e-5)


@pytest.mark.parametrize("znssd", [False, True])
def test_starts_that_correlate_too_little_are_left(isa, znssd):
    pair = moving(False, 1)
    run, nodes = run_for(pair, znssd=znssd), nodes_of(pair)
    phi = np.array([guess_at(pair, node) for node in nodes])
    start = [expected_outcome(pair, replace(run, max_iterations=0), *one).zncc for one in zip(nodes, phi, strict=True)]
    least = np.array([start[0] - 1e-4, start[1] + 1e-4, -np.inf])
    got = correlate(pair, run, nodes, phi, least=least)
    assert [one.status for one in got] == [2, 0, 2]
    assert got[1].iterations == 0
    np.testing.assert_array_equal(got[1].t, phi[1, :3, 3])
    assert got[1].zncc == pytest.approx(start[1], abs=1e-5)


def test_points_that_failed_are_no_start(isa):
    pair = moving(False, 1)
    run, nodes = replace(run_for(pair), max_iterations=1), nodes_of(pair)[:2]
    phi = np.array([phi_at((0, 3, 3)), phi_at((0, -3, 3))])
    got = from_neighbours(pair, run, nodes, phi, [[1], [0]])
    assert got[0].status == 1
    agree(got[1], expected(pair, run, nodes[1], phi[1]), 2e-5)


INSIDE = ((3, 3, 3), (16, 16, 16))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"near": np.zeros((1, 1), np.int64)}, "near has to have a row for each point"),
        ({"near": np.full((2, 1), 2)}, "near has to have a row for each point"),
        ({"at_hand": ((3, 2, 3), (16, 16, 16))}, "what is at hand leaves its box"),
        ({"at_hand": ((3, 3, 3), (17, 16, 16))}, "what is at hand leaves its box"),
        ({"least": np.zeros(1)}, "least has to have a number for each point"),
    ],
)
def test_bad_arguments(changes, message):
    good = {"near": np.full((2, 1), -1), "image2": INSIDE, "at_hand": INSIDE, "least": np.zeros(2)}
    points_call(**good)
    with pytest.raises(ValueError, match=message):
        points_call(**(good | changes))
