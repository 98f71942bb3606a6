"""Run a component's tests on another file: a copy elsewhere, changed, renamed or rewritten.

A binding says what stands in for a component: a file, which is imported under its own dotted
name, so that its relative imports, its pickles and its tracebacks are the reader's; or callables
of an implementation of the reader's own, in the place of the component's names. Bindings are in
the environment, so that child processes have them as well; explorers trace what is bound.
"""

import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.kit import COMPONENTS

_VARIABLE = "EXECUTABLE_GUARANTEES_COPIES"


class NotOfferedError(Exception):
    """A check used a public name that what is bound does not have."""


@dataclass(frozen=True)
class Binding:
    """What stands in for a component."""

    file: str = ""
    module: str = ""  # its dotted name; "": it goes by the component's own
    root: str = ""  # what has to be on sys.path for that
    names: dict[str, str] = field(default_factory=dict)  # TTLCache: MyCache
    adapters: dict[str, str] = field(default_factory=dict)  # TTLCache: package.module:make_cache
    public: tuple[str, ...] = ()  # the names that the component offers


def explored_paths() -> list[Path]:
    """What the explorers trace: the components, what is bound in their place, and all twins."""
    return [COMPONENTS, *(Path(file) for each in _bindings().values() for file in _files(each))]


def _files(binding: Binding) -> list[str]:
    modules = {target.partition(":")[0] for target in binding.adapters.values()}
    found = [getattr(sys.modules.get(module), "__file__", None) for module in modules]
    return [file for file in (binding.file, *found) if file]


def _bindings() -> dict[str, Binding]:
    """The bindings by the module's name that each is for."""
    given: dict[str, dict[str, Any]] = json.loads(os.environ.get(_VARIABLE) or "{}")
    return {name: Binding(**fields) for name, fields in given.items()}


def described(bindings: dict[str, Binding]) -> dict[str, str]:
    """The environment that hands these bindings to a child process."""
    return {_VARIABLE: json.dumps({name: asdict(each) for name, each in bindings.items()})}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a component in what stands in for it."""

    def __init__(self, bindings: dict[str, Binding]) -> None:
        self._bindings = bindings
        self._real: dict[str, importlib.machinery.ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        binding = self._bindings.get(fullname)
        if binding is None:
            return None
        if binding.file and not binding.module:
            return importlib.util.spec_from_file_location(fullname, binding.file)
        return importlib.util.spec_from_loader(fullname, self, origin=binding.file or None)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """The reader's own module, which is there under two names from now on."""
        binding = self._bindings[spec.name]
        if binding.adapters:
            return _adapted(spec.name, binding)
        module = importlib.import_module(binding.module)
        found = getattr(module, "__file__", None)
        if found is None or not os.path.samefile(found, binding.file):
            raise ImportError(f"import {binding.module} finds {found}, not {binding.file}")
        self._real[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already: only its own spec is put back, and the names that it lacks."""
        spec = module.__spec__
        assert spec is not None
        if (real := self._real.get(spec.name)) is not None:
            module.__spec__, module.__loader__ = real, real.loader
        complete(module, self._bindings[spec.name])


def _adapted(name: str, binding: Binding) -> ModuleType:
    """The component with the reader's implementation in the place of some of its names."""
    file = COMPONENTS.joinpath(*name.split(".")[1:]).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for ours, target in binding.adapters.items():
        theirs, _, attribute = target.partition(":")
        found = functools.reduce(getattr, attribute.split("."), importlib.import_module(theirs))
        setattr(module, ours, _in_place_of(getattr(module, ours), found))
    return module


def _in_place_of(original: object, adapter: Any) -> Any:
    """A function that makes one stands in for a class, which is subscripted, too."""
    if not isinstance(original, type) or isinstance(adapter, type):
        return adapter

    def new(cls: type, *arguments: Any, **named: Any) -> Any:
        return adapter(*arguments, **named)

    generic = classmethod(lambda cls, item: cls)
    return type(original.__name__, (), {"__new__": new, "__class_getitem__": generic})


def complete(module: ModuleType, binding: Binding) -> None:
    """Give the reader's names ours; what is not there refuses to be used."""
    for ours, theirs in binding.names.items():
        setattr(module, ours, getattr(module, theirs))
    for name in binding.public:
        if not hasattr(module, name):
            setattr(module, name, _missing(name))


def _missing(name: str) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotOfferedError(f"there is no {name}")

    meta = type("Missing", (type,), {"__call__": refuse, "__getattr__": refuse})
    return meta(name, (Exception,), {})  # which `except` accepts


_finder: _Finder | None = None


def install() -> None:
    """Bind what the environment says, before any component is imported."""
    global _finder
    if _finder is None and (bindings := _bindings()):
        for root in {each.root for each in bindings.values() if each.root} - {*sys.path}:
            sys.path.insert(1, root)  # after the proofs, whose package `tests` is meant
        _finder = _Finder(bindings)
        sys.meta_path.insert(0, _finder)


def bind(bindings: dict[str, Binding]) -> None:
    """Bind here and in child processes, besides what is bound already.

    Raises:
        ValueError: a component has been imported already.
    """
    global _finder
    for name in bindings:
        if name in sys.modules:
            raise ValueError(f"{name} has been imported before the copy could take its place")
    os.environ.update(described(_bindings() | bindings))
    if _finder is not None:
        sys.meta_path.remove(_finder)
        _finder = None
    install()
