"""Names of stacks: given, or made of what their URIs differ in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mpidvc.errors import UserError
from mpidvc.images.stack import split_uri

__all__ = ["named"]


def named(words: Sequence[str]) -> list[tuple[str, str]]:
    """Name and URI of each stack.

    Parameters
    ----------
    words : sequence of str
        ``name=URI`` or a URI.

    Raises
    ------
    UserError
        If two stacks have the same name, or one has a name without a URI.
    """
    given = [_split(word) for word in words]
    made = iter(_made([uri for name, uri in given if name is None]))
    found = [(next(made) if name is None else name, uri) for name, uri in given]
    names = [name for name, _ in found]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UserError(f"stack {double}: is there twice; give other names, as in name=file.h5::/path")
    return found


def _split(word: str) -> tuple[str | None, str]:
    # a file of such a name, or the query of a URI, has no name before the sign
    found = re.fullmatch(r"([^=:?]+)=(.*)", word)
    if found is None or Path(word.partition("::")[0]).exists():
        return None, word
    if not found[2]:
        raise UserError(f"stack {word}: has no URI; give name=file.h5::/path")
    return found[1], found[2]


def _made(uris: Sequence[str]) -> list[str]:
    """Paths of the datasets below the groups they have in common; with the files where these tell them apart."""
    if not uris:
        return []
    places = [split_uri(uri)[:2] for uri in uris]
    for parts in (
        [[part for part in dataset.split("/") if part] for _, dataset in places],
        [[part for part in f"{file}/{dataset}".split("/") if part] for file, dataset in places],
    ):
        common = 0
        # the last part is no group
        while all(len(one) > common + 1 and one[common] == parts[0][common] for one in parts):
            common += 1
        names = ["/".join(one[common:]) for one in parts]
        if all(names) and len(set(names)) == len(names):
            return names
    return list(uris)
