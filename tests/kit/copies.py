"""Run a component's tests on another file: a copy elsewhere, reformatted, renamed or rewritten.

`pytest --copy caches/ttl_cache=/path/to/ttl_cache.py` binds the component's name to that file,
in child processes too, and has the explorers trace it. Siblings that lie beside the copy as
they do in the package are bound as well, since a copy imports those.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from tests.kit import COMPONENTS

_VARIABLE = "EXECUTABLE_GUARANTEES_COPIES"


def explored_paths() -> list[Path]:
    """What the explorers trace: the components, the copies in their place, and both's twins."""
    return [COMPONENTS, *{path.parent for path in _copies().values()}]


def _copies() -> dict[str, Path]:
    """The files that stand in for components, by module name."""
    pairs = filter(None, os.environ.get(_VARIABLE, "").split(os.pathsep))
    return {name: Path(path) for name, _, path in (pair.partition("=") for pair in pairs)}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds a component in the file that stands in for it."""

    def __init__(self, copies: dict[str, Path]) -> None:
        self._copies = copies

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if (file := self._copies.get(fullname)) is None:
            return None
        return importlib.util.spec_from_file_location(fullname, file)


def install() -> None:
    """Bind the copies in this process, before any component is imported."""
    if copies := _copies():
        sys.meta_path.insert(0, _Finder(copies))


def bind(pairs: Sequence[str]) -> None:
    """Bind `component=file` pairs here and in child processes.

    Raises:
        ValueError: a component or a file is not there, or it has been imported already.
    """
    bound = _copies()
    for pair in pairs:
        component, _, file = pair.partition("=")
        path = Path(file).resolve()
        if not (COMPONENTS / f"{component}.py").is_file():
            raise ValueError(f"there is no component {component!r}")
        if not path.is_file():
            raise ValueError(f"there is no file {file!r}")
        name = f"reference_impl.{component.replace('/', '.')}"
        if name in sys.modules:
            raise ValueError(f"{name} has been imported before the copy could take its place")
        bound[name] = path
    os.environ[_VARIABLE] = os.pathsep.join(f"{name}={path}" for name, path in bound.items())
    install()
