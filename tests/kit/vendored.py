"""Fences import components as a reader does after copying: `from vendored.ttl_cache import …`.

A pytest plugin. The copies are made by the copy tool, each component in the layout that it gives
that one, and can be imported while a fence runs, by its child processes as well.
"""

import os
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from types import ModuleType

import pytest

from reference_impl import _copying

_FOLDER = pytest.StashKey[Path]()
_LOADED = pytest.StashKey[dict[str, ModuleType]]()


def lay_out(target: Path) -> None:
    """Copy every component, each in the layout that the copy tool gives it."""
    for component in _copying.components().values():
        _copying.copy([component], target)


def _copies(config: pytest.Config) -> Path:
    """The folder that holds `vendored`, made when the first fence needs it."""
    if _FOLDER not in config.stash:
        holder = tempfile.TemporaryDirectory(prefix="fences-")
        config.add_cleanup(holder.cleanup)
        lay_out(Path(holder.name, "vendored"))
        config.stash[_FOLDER] = Path(holder.name)
    return config.stash[_FOLDER]


def _taken_out() -> dict[str, ModuleType]:
    """Every module of a package `vendored` that is loaded, which it is no longer."""
    names = [name for name in sys.modules if name.partition(".")[0] == "vendored"]
    return {name: sys.modules.pop(name) for name in names}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Put the copies in reach of a fence, and out of reach of the tests that make their own."""
    if getattr(item, "code", None) is None:
        return (yield)
    folder = str(_copies(item.config))
    stash = item.config.stash
    others = _taken_out()
    loaded = stash.get(_LOADED, {})
    sys.modules.update(loaded)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (folder, os.getenv("PYTHONPATH")))))
        try:
            return (yield)
        finally:
            stash[_LOADED] = _taken_out()
            sys.modules.update(others)
