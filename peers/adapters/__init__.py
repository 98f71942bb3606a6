"""Rows: a library as its documentation says to use it, one file for each library and family."""

import ast
import inspect
import textwrap
from typing import ClassVar


class Row:
    """One way to use a library. Its functions are static, so that a reproduction can show them."""

    name: ClassVar[str]  # as a reader knows it: "cachetools.cached, lock="
    package: ClassVar[str | None] = None  # its distribution; None: the standard library, or ours
    ours: ClassVar[bool] = False
    documented: ClassVar[str]  # address of the page whose advice this row follows
    take_it: ClassVar[str]  # in a sentence: why it may be the right choice
    imports: ClassVar[str] = ""  # what a reproduction starts with, beside the standard library
    explorable: ClassVar[tuple[str, ...]] = ()  # packages of Python whose locks can be modelled
    unexplored: ClassVar[str] = ""  # why not, where there are none: "its core is compiled"


def source(row: type[Row], *functions: str) -> str:
    """The row's functions as a reader would write them: no class, no annotations."""
    parts = []
    for name in functions:
        tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(row, name))))
        function = tree.body[0]
        assert isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        function.decorator_list = []
        if ast.get_docstring(function) is not None:
            del function.body[0]
        for node in ast.walk(function):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                node.returns = None
                for argument in (*node.args.args, *node.args.kwonlyargs):
                    argument.annotation = None
            for field, value in ast.iter_fields(node):
                if isinstance(value, list):
                    setattr(node, field, [_plain(each) for each in value])
        text = ast.unparse(ast.fix_missing_locations(function))
        parts.append("\n".join(line for line in text.splitlines() if line.strip()))
    return "\n".join(parts)


def _plain(node: ast.AST) -> ast.AST:
    """`name: Any = value` without its annotation."""
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        return ast.copy_location(ast.Assign([node.target], node.value), node)
    return node
