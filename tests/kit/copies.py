"""Run a component's tests on another file: a copy elsewhere, changed, renamed or rewritten.

A binding says what stands in for a component: a file, which is imported under its own dotted
name, so that its relative imports, its pickles and its tracebacks are the reader's; or callables
of an implementation of the reader's own, in the place of the component's names. Bindings are in
the environment, so that child processes have them as well; explorers trace what is bound.
"""

import ast
import contextlib
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from tests.kit import COMPONENTS

_VARIABLE = "EXECUTABLE_GUARANTEES_COPIES"
UNKNOWN_ARGUMENT = re.compile(r"unexpected keyword argument '(\w+)'")


class NotShownError(Exception):
    """A check cannot look at what is bound here."""


class Missing:
    """The component's names that what is bound does not have, and that a check has asked for."""

    asked: ClassVar[set[str]] = set()

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Be absent, as before, and remember it."""
        self.asked.add(self._name)
        raise AttributeError(f"there is no {self._name}", name=self._name, obj=instance or owner)


@dataclass(frozen=True)
class Binding:
    """What stands in for a component."""

    file: str = ""
    module: str = ""  # its dotted name; "": it goes by the component's own
    root: str = ""  # what has to be on sys.path for that
    names: dict[str, str] = field(default_factory=dict)  # TTLCache: MyCache
    adapters: dict[str, str] = field(default_factory=dict)  # TTLCache: package.module:make_cache


def explored_paths() -> list[Path]:
    """What the explorers trace: the components, what is bound in their place, and all twins."""
    files = [each.file for each in _bindings().values() if each.file]
    return [COMPONENTS, *map(Path, [*files, *sorted(_implementation)])]


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
        return importlib.util.spec_from_loader(fullname, self, origin=binding.file or None)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """The reader's own module, which is there under two names from now on."""
        binding = self._bindings[spec.name]
        if not binding.module:
            return None
        module = importlib.import_module(binding.module)
        found = getattr(module, "__file__", None)
        if found is None or not Path(found).samefile(binding.file):
            raise ImportError(f"import {binding.module} finds {found}, not {binding.file}")
        self._real[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run what has no name of its own; of what has one, only the spec is put back."""
        spec = module.__spec__
        assert spec is not None
        binding = self._bindings[spec.name]
        if (real := self._real.get(spec.name)) is not None:
            module.__spec__, module.__loader__ = real, real.loader
        else:
            _run(module, Path(binding.file or _source_of(spec.name)))
        _adapt(module, binding)
        for ours, theirs in binding.names.items():
            setattr(module, ours, getattr(module, theirs))
        _complete(module, _source_of(spec.name))


def _source_of(name: str) -> Path:
    """The component's own file."""
    return COMPONENTS.joinpath(*name.split(".")[1:]).with_suffix(".py")


def _run(module: ModuleType, file: Path) -> None:
    module.__file__ = str(file)
    exec(compile(file.read_bytes(), file, "exec"), vars(module))


def _adapt(module: ModuleType, binding: Binding) -> None:
    """Put the reader's implementation in the place of some names of the component.

    That is whole by now: the reader's module, imported here, may take from it what it likes.
    """
    offered = dict(_classes(_source_of(module.__name__))) if binding.adapters else {}
    for ours, target in binding.adapters.items():
        theirs, _, attribute = target.partition(":")
        found = functools.reduce(getattr, attribute.split("."), importlib.import_module(theirs))
        setattr(module, ours, _in_place_of(getattr(module, ours), found, offered.get(ours, [])))
        _implementation.update(_files_of(found))


_implementation = set[str]()  # the files of what adapters make: the explorers trace them


def _files_of(adapter: Any) -> Iterator[str]:
    """Where an adapter is, and the classes of what it makes, and of what that holds."""
    found = [adapter]
    with contextlib.suppress(Exception):  # it may need arguments
        made = adapter()
        found += [type(made), *map(type, getattr(made, "__dict__", {}).values())]
    for each in found:
        for cls in getattr(each, "__mro__", [each]):
            if str(getattr(cls, "__module__", "")).partition(".")[0] in sys.stdlib_module_names:
                continue
            with contextlib.suppress(TypeError):  # built into the interpreter
                yield inspect.getfile(cls)


def _in_place_of(original: object, adapter: Any, offered: Iterable[str]) -> Any:
    """What makes the reader's objects, in the place of a class, which is subscripted, too."""
    if not isinstance(original, type):
        return adapter
    if isinstance(adapter, type) and hasattr(adapter, "__class_getitem__"):
        _fill(adapter, offered)
        return adapter

    def new(cls: type, *arguments: Any, **named: Any) -> Any:
        try:
            made = adapter(*arguments, **named)
        except TypeError as error:
            if found := UNKNOWN_ARGUMENT.search(str(error)):
                Missing.asked.add(found[1])
            raise
        _fill(type(made), offered)
        return made

    members = {"__new__": new, "__class_getitem__": classmethod(lambda cls, item: cls)}
    return type(original.__name__, (), members | {"__signature__": inspect.signature(adapter)})


def _fill(cls: type, offered: Iterable[str]) -> None:
    """Have it remember who asks for what it does not have."""
    for name in offered:
        if inspect.getattr_static(cls, name, None) is None:
            with contextlib.suppress(TypeError):  # a class in C
                setattr(cls, name, Missing(name))


def _complete(module: ModuleType, file: Path) -> None:
    """The same for the module, and for each class of it."""
    for name, offered in _classes(file):
        cls = getattr(module, name, None)
        if isinstance(cls, type):
            _fill(cls, offered)
    for name in _public(file):
        if not hasattr(module, name):
            setattr(module, name, _refusing(name))


def _refusing(name: str) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        Missing.asked.add(name)
        raise AttributeError(f"there is no {name}", name=name)

    meta = type("Refusing", (type,), {"__call__": refuse, "__getattr__": refuse})
    return meta(name, (Exception,), {})  # which `except` accepts


def _classes(file: Path) -> Iterator[tuple[str, list[str]]]:
    """The public methods of each public class of a component."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            names = [each.name for each in node.body if isinstance(each, functions)]
            yield node.name, [name for name in names if not name.startswith("_")]


def _public(file: Path) -> Iterator[str]:
    """The public names that a component gives: classes, functions, constants."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.parse(file.read_bytes()).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [node.name] if isinstance(node, kinds) else [getattr(t, "id", "_") for t in targets]
        yield from (name for name in names if not name.startswith("_"))


def own_file(module: ModuleType) -> str:
    """The file of what is examined, for a check that looks at what runs there.

    Raises:
        NotShownError: the module stands for an implementation that may be anywhere.
    """
    if (binding := _bindings().get(module.__name__)) and binding.adapters:
        raise NotShownError("the check looks at the component's own file, not at an adapter")
    return str(module.__file__)


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
