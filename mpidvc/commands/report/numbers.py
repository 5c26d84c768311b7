"""Numbers in the texts of a report: each stands among its facts, and is told in a form of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

__all__ = ["Number", "Text", "look_up", "shown"]


#: Amounts below this are 0 in a text of significant digits.
LEAST = 1e-9
#: Amounts from this on are told by their power of ten.
MOST = 1e7


class Number(NamedTuple):
    """A number in a text: where it stands among the facts, and its form."""

    path: str
    form: str


#: A sentence: words, and numbers of the facts.
Text: TypeAlias = "list[str | Number]"


def look_up(facts: Any, path: str) -> Any:
    """The fact at a path: names and indices with slashes between."""
    for part in path.split("/"):
        facts = facts[int(part)] if isinstance(facts, list) else facts[part]
    return facts


def shown(facts: Mapping[str, Any], number: Number) -> str:
    """A number of the facts as text; a dash where it is none."""
    value = look_up(facts, number.path)
    if value is None:
        return "–"
    if number.form.endswith("g") and abs(value) < LEAST:
        # 0 but for rounding
        return "0"
    told = format(value, ".4g" if number.form.endswith("f") and abs(value) >= MOST else number.form)
    # no minus before a 0
    return told if any(digit in told for digit in "123456789") else told.removeprefix("-")
