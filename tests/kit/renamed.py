"""Disfigure a component as strangers do: other layout, no comments, other private names.

`python -m tests.kit.renamed FOLDER [caches/ttl_cache …]` writes components, or all of them, with
their closures below FOLDER as the copy tool lays them out in a package, and prints the options
that prove them there: `pytest --copy caches/ttl_cache=FOLDER/caches/ttl_cache.py ...`
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.kit import COMPONENTS
from tests.kit.catalogue import closure, components


def write(folder: Path, *wanted: str) -> list[str]:
    """Write the disfigured closures; returns the `--copy` options that bind them."""
    files = dict.fromkeys(path for component in wanted for path in closure(component))
    sources = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    private = {name for tree in sources.values() for name in _defined(tree)}
    names = {name: f"_p{number}_renamed" for number, name in enumerate(sorted(private), start=1)}
    options, written = [], []
    for path, tree in sources.items():
        target = folder / path.relative_to(COMPONENTS)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.parent.joinpath("__init__.py").touch()
        text = ast.unparse(_Renamed(names).visit(tree))
        target.write_text(text + "\n", encoding="utf-8")
        written.append(target)
        options.append(f"--copy={path.relative_to(COMPONENTS).with_suffix('').as_posix()}={target}")
    formatting = ["ruff", "format", "--quiet", "--isolated", "--line-length=79"]
    subprocess.run([sys.executable, "-m", *formatting, *map(str, written)], check=True)
    return options


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def _defined(tree: ast.Module) -> Iterator[str]:
    """The private names that the file itself gives: what it merely uses is somebody else's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found = node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found = node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found = node.attr
        elif isinstance(node, ast.arg):
            found = node.arg
        elif isinstance(node, ast.alias):
            found = node.asname or ""
        else:
            continue
        if _is_private(found):
            yield found


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def _new(self, name: str) -> str:
        return self._names.get(name, name)

    def visit_Import(self, node: ast.Import) -> ast.Import:
        """A module such as _thread keeps its name, and gets another one here."""
        for alias in node.names:
            new = self._new(alias.asname or alias.name)
            alias.asname = None if new == alias.name else new
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        """`from . import _spool` names a module as well."""
        if node.module is not None:
            return self.generic_visit(node)
        for alias in node.names:
            new = self._new(alias.asname or alias.name)
            alias.asname = None if new == alias.name else new
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for field in ("name", "id", "attr", "arg", "asname"):
            if isinstance(value := getattr(node, field, None), str):
                setattr(node, field, self._new(value))
        if isinstance(node, ast.Nonlocal | ast.Global):
            node.names = [self._new(name) for name in node.names]
        if isinstance(node, ast.Constant) and isinstance(node.value, str):  # of __slots__
            node.value = self._new(node.value)
        return super().generic_visit(node)


if __name__ == "__main__":
    print(*write(Path(sys.argv[1]), *(sys.argv[2:] or components())))
