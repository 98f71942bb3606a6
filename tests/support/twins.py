"""Broken twins: a component with one deliberate fault, which its check must catch."""

import importlib.util
import itertools
import linecache
import sys
from types import ModuleType

from tests.support import COMPONENTS

_serial = itertools.count(1)


def twin(component: str, *replacements: tuple[str, str]) -> ModuleType:
    """Load `component` ("caches/ttl_cache.py") with pieces of its source replaced.

    Each pair is (the text as it stands, its replacement); the text must stand there at
    least once and all its places are replaced, so that a twin cannot silently be the
    original. The twin is a module of its own: nothing imported elsewhere changes.
    """
    path = COMPONENTS / component
    source = path.read_text(encoding="utf-8")
    for old, new in replacements:
        if old not in source:
            raise AssertionError(f"no place in {component} reads {old!r}: mend the twin")
        if old == new:
            raise AssertionError(f"the twin of {component} replaces {old!r} by itself")
        source = source.replace(old, new)
    serial = next(_serial)
    package = "reference_impl." + component.split("/", maxsplit=1)[0]
    name = f"{package}.{path.stem}__twin{serial}"
    spec = importlib.util.spec_from_loader(name, loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # Below reference_impl, so that the explorer traces it as it traces the original.
    filename = f"{path}.twin{serial}"
    module.__file__ = filename
    module.__package__ = package
    sys.modules[name] = module
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    exec(compile(source, filename, "exec"), module.__dict__)
    return module
