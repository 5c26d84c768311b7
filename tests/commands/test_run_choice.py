"""What a run chooses where its recipe is silent, as docs/run.md has it; what a recipe holds is kept."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from mpidvc.commands.run.choice import Choice, complete, without_images
from mpidvc.commands.run.recipe import Recipe

PLAIN = Choice(hws=9, spacing=7, order=3, grey_low=None, search=None)
RANGE = [-1, 1, -20, 4, -9, 30]


def chosen(given: dict[str, dict[str, object] | bool], found: Choice, two_d: bool = False) -> Recipe:
    return complete(without_images(Recipe(given), False, two_d), found, two_d)


@pytest.mark.parametrize("two_d", [False, True])
def test_a_silent_recipe(two_d: bool) -> None:
    """Windows and spacing are those of the suggestion, and nothing along z in 2D."""
    made = chosen({}, PLAIN, two_d)
    assert made.options("ldic") == {
        "node_spacing": (1, 7, 7) if two_d else (7, 7, 7),
        "half_window_size": (0, 9, 9) if two_d else (9, 9, 9),
        "interpolation_order": 3,
        "sigma": True,
    }
    # one motion is enough
    assert made.left_out("pixelSearch")
    # always done, unless the recipe says otherwise
    assert all(made.asked(step) for step in ("reg", "filterPhiField", "regularStrain", "deformImage"))
    # a node lies among the corners of a cell
    assert made.options("passPhiField") == {"number_of_neighbours": 2 ** (2 if two_d else 3)}
    # bad points and outliers are corrected; after a pixel search 1 is what was found
    correcting = {"select_status": True, "outliers": True, "correct_interpolation": True}
    assert made.options("filterPhiField") == correcting
    assert made.options("filterSearch") == {**correcting, "select_status_threshold": 0}
    assert made.options("regularStrain") == {"strain_components": ["vol", "dev", "e"]}


@pytest.mark.parametrize("search", [None, tuple(RANGE)])
def test_what_is_taken_of_a_suggestion(search: tuple[int, ...] | None) -> None:
    """In JSON, as the record of a run keeps it."""
    suggestion: Any = SimpleNamespace(hws=9, spacing=7, order=3, grey_low=80.0, search=search, others="more")
    found = Choice.of(suggestion)
    assert found == (9, 7, 3, 80.0, search if search is None else RANGE)
    assert Choice(**json.loads(json.dumps(found._asdict()))) == found


@pytest.mark.parametrize("two_d", [False, True])
def test_a_search_where_one_motion_is_not_enough(two_d: bool) -> None:
    """At nodes twice as far apart, with the windows of the correlation."""
    made = chosen({}, PLAIN._replace(search=RANGE, grey_low=120.0), two_d)
    assert made.options("pixelSearch") == {
        "node_spacing": (1, 14, 14) if two_d else (14, 14, 14),
        "half_window_size": made.options("ldic")["half_window_size"],
        "search_range": RANGE,
        "grey_low_threshold": 120.0,
    }
    assert made.options("ldic")["grey_low_threshold"] == 120.0


def test_windows_of_a_recipe_are_those_of_its_search() -> None:
    own = {"node_spacing": (3, 4, 5), "half_window_size": (6, 7, 8), "sigma": False}
    made = chosen({"ldic": dict(own)}, PLAIN._replace(search=RANGE))
    assert made.options("ldic") == {**own, "interpolation_order": 3}
    assert made.options("pixelSearch")["node_spacing"] == (6, 8, 10)
    assert made.options("pixelSearch")["half_window_size"] == (6, 7, 8)


def test_a_search_that_the_recipe_asks_for() -> None:
    """Though none is needed: with the range of the command, or that of the recipe."""
    made = chosen({"pixelSearch": {}}, PLAIN)
    assert made.options("pixelSearch") == {"node_spacing": (14, 14, 14), "half_window_size": (9, 9, 9)}
    given = {"search_range": [0, 0, -3, 3, -3, 3], "node_spacing": (5, 5, 5)}
    made = chosen({"pixelSearch": dict(given)}, PLAIN._replace(search=RANGE))
    assert made.options("pixelSearch") == {**given, "half_window_size": (9, 9, 9)}


def test_steps_that_are_left_out_stay_so() -> None:
    steps = ("reg", "pixelSearch", "filterPhiField", "regularStrain", "deformImage")
    made = chosen(dict.fromkeys(steps, False), PLAIN._replace(search=RANGE))
    assert all(made.left_out(step) for step in steps)


def test_labels() -> None:
    """Each moves by itself: a filter looks for no outliers among them, and there is no strain between them."""
    made = without_images(Recipe(), True, False)
    assert made.options("ddic") == {"interpolation_order": 3, "sigma": True}
    assert made.options("filterPhiField") == {"select_status": True, "correct_interpolation": True}
    assert made.asked("reg")
    assert made.asked("deformImage")
    assert not {"ldic", "pixelSearch", "filterSearch", "passPhiField", "regularStrain"} & {*made.steps}


def test_what_is_given_is_not_changed() -> None:
    given = Recipe({"ldic": {"sigma": False}})
    complete(without_images(given, False, False), PLAIN, False)
    assert given.steps == {"ldic": {"sigma": False}}
