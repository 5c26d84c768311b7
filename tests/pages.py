"""Examples of the documentation, run by the tests as they stand there."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def example(page: str, name: str) -> str:
    """The block of a page of the documentation that follows ``<!-- name -->``."""
    found = re.search(rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert found is not None, f"{page} has no example {name}"
    return found[1]
