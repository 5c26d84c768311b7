"""Mutants: one small change of one line, by a fixed set of operators.

Python is changed by its syntax tree, so that only what is computed is touched: no annotation, no text, no message.
C++ and Cython are changed by their tokens; what does not compile is no mutant.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

__all__ = ["Mutant", "mutants_of"]

#: Binary operators of both languages and what they become.
SWAPPED = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    "+": "-",
    "-": "+",
    "*": "/",
    "/": "*",
    "//": "*",
    "&": "|",
    "|": "&",
    "+=": "-=",
    "-=": "+=",
    "*=": "/=",
    "/=": "*=",
    "&=": "|=",
    "|=": "&=",
    "and": "or",
    "or": "and",
    "&&": "||",
    "||": "&&",
    "is": "is not",
    "is not": "is",
    "in": "not in",
    "not in": "in",
}
#: Functions that have an opposite, or a neighbour that is easily taken for them.
NAMES = {
    "min": "max",
    "max": "min",
    "minimum": "maximum",
    "maximum": "minimum",
    "smaller": "larger",
    "larger": "smaller",
    "floor": "ceil",
    "ceil": "floor",
    "rint": "floor",
    "any": "all",
    "all": "any",
    "true": "false",
    "false": "true",
}


@dataclass(frozen=True)
class Mutant:
    """One change: `old` becomes `new` at an offset of a file's text.

    Attributes
    ----------
    file : str
        Path from the root of the repository.
    line : int
        From 1; it is no part of a mutant's name, which edits elsewhere must not change.
    text : str
        The line without indentation.
    column : int
        Of the change in `text`.
    """

    file: str
    line: int
    text: str
    column: int
    offset: int
    old: str
    new: str

    @property
    def name(self) -> tuple[str, str, int, str, str]:
        """What a mutant is recognised by."""
        return self.file, self.text, self.column, self.old, self.new

    def applied(self, source: str) -> str:
        """The file's text with the change."""
        assert source.startswith(self.old, self.offset)
        return source[: self.offset] + self.new + source[self.offset + len(self.old) :]


def mutants_of(path: Path, root: Path) -> list[Mutant]:
    """All mutants of a file, in its order."""
    source = path.read_text(encoding="utf-8")
    file = path.relative_to(root).as_posix()
    changes = _python(source) if path.suffix == ".py" else _tokens(source, path.suffix == ".pyx")
    starts = [0, *(found.end() for found in re.finditer("\n", source))]
    out = []
    for offset, old, new in sorted(set(changes)):
        line = bisect_right(starts, offset) - 1
        whole = source[starts[line] :].partition("\n")[0]
        indent = len(whole) - len(whole.lstrip())
        out.append(Mutant(file, line + 1, whole.strip(), offset - starts[line] - indent, offset, old, new))
    return out


# ---- Python


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str) -> None:
        self.changes: list[tuple[int, str, str]] = []
        self._source = source
        lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line))
        self._lines = lines
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        self._tokens = [(self._starts[t.start[0] - 1] + t.start[1], t.string) for t in tokens if t.string.strip()]

    def _offset(self, line: int, column: int) -> int:
        """Of a place as the syntax tree gives it: columns are bytes."""
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())

    def _begin(self, node: ast.expr | ast.stmt) -> int:
        return self._offset(node.lineno, node.col_offset)

    def _end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._offset(node.end_lineno, node.end_col_offset)

    def _operator(self, left: int, right: int) -> None:
        """The operator between two operands, beside which there may be brackets."""
        found = [(at, string) for at, string in self._tokens if left <= at < right and string not in "()"]
        if not found:
            return
        at = found[0][0]
        old = " ".join(string for _, string in found)
        if old in SWAPPED and self._source.startswith(old, at):
            self.changes.append((at, old, SWAPPED[old]))

    # what is not changed

    def visit(self, node: ast.AST) -> None:
        if not isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)):
            super().visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None and not (isinstance(node.annotation, ast.Name) and node.annotation.id == "TypeAlias"):
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for child in [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None), *node.body]:
            self.visit(child)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        # a frozen dataclass is frozen for the reader
        for child in node.body:
            self.visit(child)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if names != ["__all__"] and not (isinstance(node.value, ast.Subscript) and "Literal" in ast.dump(node.value)):
            self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.value, ast.Attribute) and node.value.attr == "NDArray":
            return
        self.generic_visit(node)

    # what is

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            begin, end = self._begin(node), self._end(node)
            self.changes.append((begin, self._source[begin:end], "pass"))
            self.visit(node.value)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, right in pairwise(operands):
            self._operator(self._end(left), self._begin(right))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self._operator(self._end(node.left), self._begin(node.right))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in pairwise(node.values):
            self._operator(self._end(left), self._begin(right))
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._operator(self._end(node.target), self._begin(node.value))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        begin = self._begin(node)
        old = {ast.Not: "not ", ast.USub: "-", ast.Invert: "~"}.get(type(node.op))
        if old is not None and self._source.startswith(old, begin):
            self.changes.append((begin, old, ""))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value, begin = node.value, self._begin(node)
        old = self._source[begin : self._end(node)]
        if isinstance(value, bool):
            self.changes.append((begin, old, str(not value)))
        elif isinstance(value, int):
            self.changes.append((begin, old, str(value + 1)))
        elif isinstance(value, float):
            self.changes.append((begin, old, repr(2 * value if value else 1.0)))

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in NAMES and isinstance(node.ctx, ast.Load):
            self.changes.append((self._begin(node), node.id, NAMES[node.id]))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in NAMES:
            self.changes.append((self._end(node) - len(node.attr), node.attr, NAMES[node.attr]))
        self.visit(node.value)


def _python(source: str) -> list[tuple[int, str, str]]:
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return finder.changes


# ---- C++ and Cython

_OPERATOR = re.compile(r"(?<= )(?:" + "|".join(sorted(map(re.escape, SWAPPED), key=len, reverse=True)) + r")(?= )")
_NAME = re.compile(r"\b(?:" + "|".join(NAMES) + r")\b")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d*)?(?:e[+-]?\d+)?f?(?![\w.])")
#: Lines that compute nothing.
_NOTHING = re.compile(
    r"\s*(?:#|//|template|typedef|enum|extern|struct|static_assert|cdef extern|cimport|import|from |raise)"
)


def _tokens(source: str, cython: bool) -> Iterator[tuple[int, str, str]]:
    at = 0
    quoted = external = False
    for line in source.splitlines(keepends=True):
        start, at = at, at + len(line)
        if cython:
            marks = line.count('"""')
            if external and line.strip() and not line.startswith((" ", "\t")):
                external = False
            external = external or line.startswith("cdef extern")
            skip, quoted = quoted or marks > 0 or external, quoted ^ (marks % 2 == 1)
            if skip:
                continue
        if _NOTHING.match(line) or line.startswith("__all__"):
            continue
        code = line.partition("#" if cython else "//")[0]
        # no text is changed
        code = re.sub(r'"[^"]*"', lambda found: " " * len(found[0]), code)
        for found in _OPERATOR.finditer(code):
            if (found[0] in ("and", "or", "in", "is", "not in", "is not")) <= cython and not (
                found[0] in ("in", "not in") and re.match(r"\s*for\b|.*\bfor \w+", code)
            ):
                yield start + found.start(), found[0], SWAPPED[found[0]]
        for found in _NAME.finditer(code):
            yield start + found.start(), found[0], NAMES[found[0]]
        for found in _NUMBER.finditer(code):
            old = found[0]
            if old.isdigit():
                yield start + found.start(), old, str(int(old) + 1)
            else:
                value = float(old.rstrip("f"))
                yield start + found.start(), old, repr(2 * value if value else 1.0) + "f" * old.endswith("f")
