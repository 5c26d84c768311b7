"""Job scripts from the templates in ``jobs/``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import mpidvc

__all__ = ["render"]

TEMPLATES = Path(mpidvc.__file__).parent / "jobs"


def render(name: str, values: Mapping[str, object]) -> str:
    """A template with its placeholders ``@name@`` filled in.

    Parameters
    ----------
    name : str
        File in ``jobs/``.
    values : mapping
        A line with a value that is None is left out.
    """
    lines = []
    for line in (TEMPLATES / name).read_text(encoding="utf-8").splitlines():
        found = re.findall(r"@(\w+)@", line)
        if any(key != "body" and values[key] is None for key in found):
            continue
        lines.append(
            re.sub(
                r"@(\w+)@",
                lambda match: render("body.sh", values) if match[1] == "body" else str(values[match[1]]),
                line,
            )
        )
    return "\n".join(lines)
