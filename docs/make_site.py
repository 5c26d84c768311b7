#!/usr/bin/env python3
"""Make the site of the documentation: python docs/make_site.py FOLDER

The pages are those of this folder, README.md and its neighbours, as they are: links between them stay links. Two parts
are made here and are nowhere else: the reference of the commands, from their parsers, and that of the functions in
Python, from their docstrings. What Sphinx warns of, a link that leads nowhere above all, ends it with exit status 1.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
import tempfile
from argparse import Action
from pathlib import Path
from typing import Any

import mpidvc
from mpidvc.cli.command import Command
from mpidvc.commands import COMMANDS

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
#: Pages that lie beside the sources, by their names in the site.
BESIDE = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
#: The pages that are made here, and those of single commands; in the index their names are no links yet.
COMMAND_PAGES, PYTHON_PAGE = "commands", "api.md"
MADE = {"Commands": f"{COMMAND_PAGES}.md", "Functions in Python": PYTHON_PAGE}
SETTINGS: dict[str, Any] = {
    "project": "mpidvc",
    "author": "The mpidvc developers",
    "copyright": "The mpidvc developers",
    "version": mpidvc.__version__,
    "release": mpidvc.__version__,
    "extensions": ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"],
    "source_suffix": {".md": "markdown"},
    "html_theme": "furo",
    "html_title": f"mpidvc {mpidvc.__version__}",
    "html_show_sphinx": False,
    "html_copy_source": False,
    "html_css_files": ["site.css"],
    # two dashes begin an option
    "smartquotes": False,
    "html_theme_options": {"sidebar_hide_name": False},
    # headings are found by links as on the pages of a repository
    "myst_heading_anchors": 3,
    "napoleon_google_docstring": False,
    "autodoc_typehints": "none",
    "autodoc_member_order": "bysource",
    "pygments_style": "friendly",
}


def page(text: str, beside: bool) -> str:
    """A page with its links as they lead in the site."""

    def moved(found: re.Match[str]) -> str:
        target = found[2].removeprefix("docs/") if beside else found[2].removeprefix("../")
        name, hash_, anchor = target.partition("#")
        return f"{found[1]}({BESIDE.get(name, name)}{hash_}{anchor})"

    return re.sub(r"(\])\(((?!https?://|#)[^)\s]+)\)", moved, text)


def with_contents(index: str) -> str:
    """The index with its lists of pages as contents, too, by which Sphinx makes the navigation."""
    for name, made in MADE.items():
        index, links = re.subn(rf"^\* {name}:", f"* [{name}]({made}):", index, flags=re.MULTILINE)
        if links != 1:
            raise SystemExit(f"index.md: has {links} lines that begin with '* {name}:'")
    parts = re.split(r"^## (.+)$", index, flags=re.MULTILINE)
    trees = []
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        pages = [f"{title} <{path}>" for title, path in re.findall(r"^\* \[(.+?)\]\((.+?\.md)\)", text, re.MULTILINE)]
        trees.append(f"```{{toctree}}\n:hidden:\n:caption: {heading}\n\n" + "\n".join(pages) + "\n```\n")
    return index + "\n" + "\n".join(trees)


def escaped(text: str) -> str:
    """Help of an option as a cell of a table."""
    return re.sub(r"([\\|<>*_`\[\]])", r"\\\1", text)


def spelled(action: Action) -> str:
    """An option, or an argument, as it is typed."""
    names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
    if not action.option_strings or action.nargs == 0:
        return names
    value = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    )
    return f"{names} `{' '.join(value) if isinstance(value, tuple) else value}`"


def command_page(command: Command) -> str:
    """The reference of a command, from its parser."""
    parser = command.parser()
    lines = [f"# mpidvc {command.name}", "", escaped(parser.description or ""), ""]
    lines += ["```text", parser.format_usage().strip(), "```", ""]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help != "==SUPPRESS=="]
        if not actions:
            continue
        lines += [f"## {str(group.title)[:1].upper()}{str(group.title)[1:]}", "", "| | |", "|---|---|"]
        lines += [f"| {spelled(action)} | {escaped(parser.explain(action))} |" for action in actions]
        lines += [""]
    lines += ["## Notes and examples", "", "```text", (parser.epilog or "").strip(), "```", ""]
    lines += [f"In Python: {{py:func}}`mpidvc.{command.function}`", ""]
    return "\n".join(lines)


def commands_page() -> str:
    """The list of all commands."""
    lines = ["# Commands", "", "`mpidvc COMMAND --help` prints the same in a terminal.", ""]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines += [f"## {group}", "", "| | |", "|---|---|"]
        members = [command for command in COMMANDS.values() if command.group == group]
        lines += [f"| [mpidvc {one.name}]({COMMAND_PAGES}/{one.name}.md) | {escaped(one.summary)} |" for one in members]
        lines += [""]
    pages = "\n".join(f"{COMMAND_PAGES}/{name}.md" for name in COMMANDS)
    return "\n".join([*lines, f"```{{toctree}}\n:hidden:\n\n{pages}\n```", ""])


def python_page() -> str:
    """The functions and classes of the package, by their docstrings."""
    lines = [
        "# Functions in Python",
        "",
        "[mpidvc from Python](python.md) tells how they are used.",
        "",
        "```{eval-rst}",
    ]
    lines += [".. currentmodule:: mpidvc", ""]
    for name in dir(mpidvc):
        if name.startswith("_"):
            continue
        kind = "class" if inspect.isclass(getattr(mpidvc, name)) else "function"
        lines += [f".. auto{kind}:: mpidvc.{name}", *(["   :members:"] if kind == "class" else []), ""]
    return "\n".join([*lines, "```", ""])


def plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Let stars in a docstring, as those of file names, be stars, and the text before a colon no type of a property."""
    lines[:] = [line if "``" in line else line.replace("*", r"\*") for line in lines]
    if what == "property":
        lines[0] = lines[0].replace(": ", " – ")


def stage(folder: Path) -> None:
    """Gather the sources of the site in a folder."""
    for path in DOCS.glob("*.md"):
        text = page(path.read_text(encoding="utf-8"), beside=False)
        (folder / path.name).write_text(with_contents(text) if path.name == "index.md" else text, encoding="utf-8")
    for name, own in BESIDE.items():
        (folder / own).write_text(page((ROOT / name).read_text(encoding="utf-8"), beside=True), encoding="utf-8")
    for name in ("images", "workflows"):
        shutil.copytree(DOCS / name, folder / name)
    for path in (DOCS / "python.ipynb", ROOT / "LICENSE", ROOT / "CITATION.cff"):
        shutil.copy(path, folder)
    (folder / COMMAND_PAGES).mkdir()
    for command in COMMANDS.values():
        (folder / COMMAND_PAGES / f"{command.name}.md").write_text(command_page(command), encoding="utf-8")
    (folder / f"{COMMAND_PAGES}.md").write_text(commands_page(), encoding="utf-8")
    (folder / PYTHON_PAGE).write_text(python_page(), encoding="utf-8")


def make(out: Path) -> int:
    """Make the site; return its exit status."""
    from sphinx.application import Sphinx

    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder, "sources")
        sources.mkdir()
        stage(sources)
        settings = SETTINGS | {"html_static_path": [str(DOCS / "site.css")]}
        made = Sphinx(sources, None, out, Path(folder, "trees"), "html", settings, status=None, warningiserror=True)
        # before napoleon
        made.connect("autodoc-process-docstring", plain, priority=400)
        made.build()
        return made.statuscode


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    sys.exit(make(Path(sys.argv[1]).resolve()))
