"""What an edit is."""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.kit.twins import Fault


@dataclass(frozen=True)
class Edit:
    """A change of a component's text, and what it does to the guarantees.

    Each guarantee that is named in neither must hold in spite of the edit.
    """

    name: str  # completes "the copy that …"
    change: Fault
    breaks: str = ""  # guarantees, at least one unless the edit is harmless
    may_break: str = ""  # that suffer only in some schedules, or by way of the others
    file: str = ""  # the sibling or part that is changed, if it is not the component's own

    @property
    def broken(self) -> frozenset[str]:
        """The guarantees that must come out BROKEN."""
        return frozenset(self.breaks.split())

    @property
    def tolerated(self) -> frozenset[str]:
        """Those of which nothing is said."""
        return frozenset(self.may_break.split())

    @property
    def is_harmless(self) -> bool:
        """Whether it must break nothing."""
        return not self.broken

    def applied(self, source: str) -> str:
        """The file's text with the edit made."""
        for part in self.change.parts():
            assert part.source is not None, "an edit changes the text of the file, nothing else"
            source = part.source(source)
        return source


def text(change: Callable[[str], str]) -> Fault:
    """A change of the file's text in any other way."""
    return Fault(source=change)


def replace(function: str, old: str, new: str) -> Fault:
    """Replace a piece of a function's text, wherever it is there."""

    def change(source: str) -> str:
        node = _last(ast.parse(source), function.split("."))
        lines = source.splitlines(keepends=True)
        body = "".join(lines[node.lineno - 1 : node.end_lineno])
        assert old in body, f"{function} has no {old!r}: mend the edit"
        lines[node.lineno - 1 : node.end_lineno] = [body.replace(old, new)]
        return "".join(lines)

    return text(change)


def _last(tree: ast.AST, names: list[str]) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef:
    """What has this qualified name: the last one, since overloads come first."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = [each for each in ast.walk(tree) if isinstance(each, kinds) and each.name == names[0]]
    assert found, f"there is no {names[0]}: mend the edit"
    return _last(found[-1], names[1:]) if names[1:] else found[-1]


def renamed(old: str, new: str) -> Fault:
    """A private name gets another one."""
    return text(lambda source: re.sub(rf"\b{old}\b", new, source))


def unparsed() -> Fault:
    """Another layout, and no comments: what a formatter and a tidy mind leave."""
    return text(lambda source: f"{_header(source)}{ast.unparse(ast.parse(source))}\n")


def _header(source: str) -> str:
    """The first lines, by which the copy tool knows a file."""
    lines = source.splitlines(keepends=True)
    return "".join(lines[: next(n for n, line in enumerate(lines) if not line.startswith("#"))])


def commented(before: str, comment: str) -> Fault:
    """A line of a comment above a line."""

    def change(source: str) -> str:
        found = re.search(rf"^( *){re.escape(before)}", source, re.MULTILINE)
        assert found is not None, f"there is no line {before!r}: mend the edit"
        return f"{source[: found.start()]}{found[1]}# {comment}\n{source[found.start() :]}"

    return text(change)
