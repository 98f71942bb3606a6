"""Broken twins: a component with one deliberate fault, which its check must catch.

A fault is a change of behaviour under a name that a reader understands. It is made, in this
order of preference, by `override` (a public method is replaced), by the faults of
tests/kit/primitives.py (a lock that does not exclude, a notify that is forgotten), by `patch`
(a collaborator, a clock), or by `edit`, which names a function and a statement in it and looks
at the syntax tree alone: neither layout nor comments matter to it.

A twin says how it fails. Any other failure is a failure of the twin's test.
"""

import ast
import importlib
import importlib.util
import inspect
import itertools
import linecache
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

_serial = itertools.count(1)
# Failures that say that the twin itself does not run.
_VAGUE = ("AssertionError", "AttributeError", "Failed", "TypeError", "Exception")
_NO_FAULTS = ("NameError", "UnboundLocalError", "SyntaxError", "ImportError", "ModuleNotFoundError")


@dataclass(frozen=True)
class Fault:
    """What to change: the source before it is compiled, the module afterwards, siblings."""

    source: Callable[[str], str] | None = None
    module: Callable[[ModuleType], None] | None = None
    siblings: tuple[tuple[str, "Fault"], ...] = ()
    also: tuple["Fault", ...] = ()

    def __add__(self, other: "Fault") -> "Fault":
        """Both changes, this one first."""
        return Fault(also=(self, other))

    def parts(self) -> Iterator["Fault"]:
        """The single changes, in order."""
        if self.source or self.module or self.siblings:
            yield self
        for each in self.also:
            yield from each.parts()


@dataclass(frozen=True)
class Twin:
    """A named fault, and how the check that catches it fails.

    `fails` is the kind of failure, or "kind: text". The kind is the name of an exception's
    class ("Failed" is that of pytest.raises where nothing was raised), "deadlock" or "hang".
    The text is a piece of the message, or of a statement that the failure came through. Where
    a race can end in several ways, all of them are stated.
    """

    name: str
    fault: Fault
    fails: str | tuple[str, ...]

    def __post_init__(self) -> None:
        for stated in self.ends:
            kind, _, text = stated.partition(": ")
            if kind in _NO_FAULTS or not re.fullmatch(r"[A-Za-z]\w+", kind):
                raise ValueError(f"{self.name!r} must not end by {kind}: that is no fault's effect")
            if kind in _VAGUE and len(text) < 4:
                raise ValueError(f"{self.name!r} must say which {kind} it is: '{kind}: some text'")

    @property
    def ends(self) -> tuple[str, ...]:
        """Each way in which it may fail."""
        return (self.fails,) if isinstance(self.fails, str) else self.fails


def edit(function: str, old: str, new: str) -> Fault:
    """Replace a statement, or an expression, within one function of the source.

    Args:
        function: its qualified name, "TTLCache.get"; "" for the whole module.
        old: statements or an expression, in any layout. `...` as the whole body of a compound
            statement stands for whatever is there.
        new: what to write instead; `...` stands for the body that was matched; "" removes.
    """

    def change(source: str) -> str:
        return _edited(source, function, textwrap.dedent(old), textwrap.dedent(new))

    return Fault(source=change)


def override(path: str, make: Callable[[Any], Any]) -> Fault:
    """Replace a public method, property or function by `make(the original)`."""

    def change(module: ModuleType) -> None:
        *owners, name = path.split(".")
        owner: Any = module
        for each in owners:
            owner = getattr(owner, each)
        if name.startswith("_") and not name.startswith("__"):
            raise AssertionError(f"{path} is private: override what a reader can see")
        setattr(owner, name, make(inspect.getattr_static(owner, name)))

    return Fault(module=change)


def patch(change: Callable[[ModuleType], None]) -> Fault:
    """Change the module in any other way that binds to nothing private."""
    return Fault(module=change)


def within(component: str, fault: Fault) -> Fault:
    """The fault in a sibling ("caches/ttl_cache") or a part ("queues/_spool") that it imports.

    The component's own faults stay beside it: `edit(…) + within("queues/_spool", edit(…))`.
    """
    return Fault(siblings=((component, fault),))


def build(original: ModuleType | str, fault: Fault | None = None) -> ModuleType:
    """A module of its own, made from the component's source with the fault put in.

    `original` is the component's module or its path ("caches/ttl_cache"). Nothing that is
    imported elsewhere changes. Without a fault it is a fresh copy, to be patched at will.
    """
    if isinstance(original, str):
        name = original.removesuffix(".py").replace("/", ".")
        original = importlib.import_module(f"reference_impl.{name}")
    assert original.__file__ is not None
    path, package = Path(original.__file__), str(original.__package__)
    source = path.read_text(encoding="utf-8")
    parts = list((fault or Fault()).parts())
    for part in parts:
        if part.source:
            source = part.source(source)
    name = f"{package}.{path.stem}__twin{next(_serial)}"
    spec = importlib.util.spec_from_loader(name, loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # As if below the original, so that the explorer traces it as it traces the original.
    filename = f"{path}{os.sep}{path.name}.{name.rpartition('__')[2]}"
    module.__file__ = filename
    module.__package__ = package
    sys.modules[name] = module
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    with _siblings([each for part in parts for each in part.siblings]):
        exec(compile(source, filename, "exec"), module.__dict__)
    for part in parts:
        if part.module:
            part.module(module)
    return module


@contextmanager
def _siblings(faults: list[tuple[str, Fault]]) -> Iterator[None]:
    """What is imported meanwhile gets the broken siblings."""
    merged: dict[str, Fault] = {}
    for component, fault in faults:
        name = f"reference_impl.{component.replace('/', '.')}"
        merged[name] = merged.get(name, Fault()) + fault
    before = {name: importlib.import_module(name) for name in merged}
    for name, fault in merged.items():
        _put(name, build(before[name], fault))
    try:
        yield
    finally:
        for name, module in before.items():
            _put(name, module)


def _put(name: str, module: ModuleType) -> None:
    package, _, last = name.rpartition(".")
    sys.modules[name] = module
    setattr(sys.modules[package], last, module)


def must_fail(twin: Twin, check: Callable[[], object]) -> None:
    """Run the check, which has the twin's module, and see that it fails as the twin says."""
    try:
        check()
    except BaseException as error:
        judge(twin, error)
    else:
        raise AssertionError(f"the twin that {twin.name} survived: the check proves nothing")


def judge(twin: Twin, error: BaseException | str) -> None:
    """See that this is the failure that the twin states; `error` as text is a deadlock's."""
    found = list(_told(error))
    for stated in twin.ends:
        kind, _, text = stated.partition(": ")
        if any(each == kind and text in rest for each, rest in found):
            return
    seen = "\n  ".join(f"{each}: {rest}" for each, rest in found)
    message = (
        f"the twin that {twin.name} should fail with {twin.fails!r}, but failed with\n  {seen}"
    )
    raise AssertionError(message) from (None if isinstance(error, str) else error)


def _told(error: BaseException | str) -> Iterator[tuple[str, str]]:
    """The kind of each failure, with its message and the statements that it passed through."""
    if isinstance(error, str):
        kind, _, rest = error.partition(": ")
        yield kind, rest
        return
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _told(each)
    kind = "hang" if type(error).__name__ == "Hang" else type(error).__name__
    yield kind, f"{error}\n" + "\n".join(_statements(error))


def _statements(error: BaseException) -> Iterator[str]:
    """Each statement of the tests that the error came through, on one line."""
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.lineno is None or "/site-packages/" in frame.filename:
            continue
        last = max(frame.end_lineno or frame.lineno, frame.lineno)
        lines = (linecache.getline(frame.filename, n) for n in range(frame.lineno, last + 1))
        yield f"  at {' '.join(line.strip() for line in lines)}"


# The syntax tree.


def _edited(source: str, function: str, old: str, new: str) -> str:
    tree = ast.parse(source)
    scope = _scope(tree, function)
    try:
        spans = list(_expressions(scope, ast.parse(old.strip(), mode="eval").body))
        whole = False
    except SyntaxError:
        spans, whole = [], True
    lines = source.encode().splitlines(keepends=True)
    if whole or not new.strip() or _is_statement(new):
        statements = list(_sequences(scope, ast.parse(old).body))
        pieces = [(span, _written(lines, span[0], body, new)) for span, body in statements]
    else:
        pieces = [(span, f"({new.strip()})") for span in spans]
    if not pieces:
        where = function or "the module"
        raise AssertionError(f"{where} has no {old.strip()!r}: mend the twin")
    for (first, last), text in sorted(pieces, key=lambda piece: piece[0], reverse=True):
        (line, column), (end, stop) = first, last
        head, tail = lines[line - 1][:column], lines[end - 1][stop:]
        lines[line - 1 : end] = [head + text.encode() + tail]
    changed = b"".join(lines).decode()
    if ast.dump(ast.parse(changed)) == ast.dump(tree):
        raise AssertionError(f"replacing {old.strip()!r} by {new.strip()!r} changes nothing")
    return changed


_Place = tuple[int, int]


def _scope(tree: ast.Module, function: str) -> ast.AST:
    scope: ast.AST = tree
    for name in filter(None, function.split(".")):
        for node in ast.walk(scope):
            named = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            if named and node is not scope and getattr(node, "name", "") == name:
                scope = node
                break
        else:
            raise AssertionError(f"there is no {function}: mend the twin")
    return scope


def _is_statement(text: str) -> bool:
    try:
        ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        return True
    return False


def _span(first: ast.AST, last: ast.AST) -> tuple[_Place, _Place]:
    start, end = (first.lineno, first.col_offset), (last.end_lineno, last.end_col_offset)  # type: ignore[attr-defined]
    if decorators := getattr(first, "decorator_list", None):
        start = decorators[0].lineno, decorators[0].col_offset - 1
    return start, end


def _same(one: ast.AST, other: ast.AST) -> bool:
    return re.sub(r"ctx=\w+\(\)", "", ast.dump(one)) == re.sub(r"ctx=\w+\(\)", "", ast.dump(other))


def _expressions(scope: ast.AST, wanted: ast.expr) -> Iterator[tuple[_Place, _Place]]:
    for node in ast.walk(scope):
        if isinstance(node, ast.expr) and _same(node, wanted):
            yield _span(node, node)


def _is_open(statement: ast.stmt) -> bool:
    body = getattr(statement, "body", None)
    return (
        isinstance(body, list)
        and len(body) == 1
        and isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and body[0].value.value is ...
    )


def _matches(found: ast.stmt, wanted: ast.stmt) -> bool:
    if not _is_open(wanted) or type(found) is not type(wanted):
        return _same(found, wanted)
    kept: list[Any] = found.body  # type: ignore[attr-defined]
    found.body = wanted.body  # type: ignore[attr-defined]
    try:
        return _same(found, wanted)
    finally:
        found.body = kept  # type: ignore[attr-defined]


def _sequences(
    scope: ast.AST, wanted: list[ast.stmt]
) -> Iterator[tuple[tuple[_Place, _Place], list[ast.stmt]]]:
    """Where these statements stand one after another, and the body that `...` stands for."""
    for node in ast.walk(scope):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(node, block, None)
            if not isinstance(statements, list):
                continue
            for at in range(len(statements) - len(wanted) + 1):
                found = statements[at : at + len(wanted)]
                if all(map(_matches, found, wanted)):
                    bodies = [one.body for one, w in zip(found, wanted, strict=True) if _is_open(w)]
                    yield _span(found[0], found[-1]), bodies[0] if bodies else []


def _written(lines: list[bytes], start: _Place, body: list[ast.stmt], new: str) -> str:
    """The new statements, indented as the old ones, with the matched body in place of `...`."""
    indent = " " * start[1]
    result = list[str]()
    for line in (new.strip("\n") or "pass").splitlines():
        if line.strip() != "..." or not body:
            result.append(line)
            continue
        (first, column), (last, stop) = _span(body[0], body[-1])
        piece = lines[first - 1 : last]
        text = b"".join([*piece[:-1], piece[-1][:stop]]).decode()
        text = textwrap.dedent(" " * column + text.encode()[column:].decode())
        result.append(textwrap.indent(text, line.removesuffix("...")))
    first_line, *rest = "\n".join(result).splitlines()
    return "\n".join([first_line, *(indent + line if line.strip() else line for line in rest)])
