"""The components of this package: what their headers say, their versions, and what they import."""

import ast
import difflib
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePath
from typing import Any, TypedDict

PACKAGE = files("reference_impl")
_TITLE = re.compile(rb"^# \w+\.py: (.+)$", re.MULTILINE)
# The page that shows the file; the address of a part ends with the part's name: #_spool.
ADDRESS = re.compile(
    rb"^# https://executable-guarantees\.example/(\w+)/(\w+)\.html(?:#(_\w+))?\s*$", re.MULTILINE
)
VERSION = re.compile(rb"^# Version (\S+) \((\d{4}-\d\d-\d\d)\)", re.MULTILINE)
BOM = b"\xef\xbb\xbf"


class CopyError(Exception):
    """Refused, and nothing was written; the message says why, and what to do."""


class Entry(TypedDict):
    """A version of a component in versions.json."""

    date: str
    sha256: str
    changes: str


@dataclass(frozen=True)
class Component:
    """A component or a part of some, as its header describes it.

    A part is a module whose name begins with an underscore: what several components of a family
    share, and what is copied with them only.
    """

    path: str  # "caches/ttl_cache"
    summary: str  # "an LRU cache whose entries also expire (TTLCache)"
    version: str
    date: str
    source: bytes

    @property
    def family(self) -> str:
        """The folder that it lives in: "caches"."""
        return self.path.partition("/")[0]

    @property
    def module(self) -> str:
        """The module's name: "ttl_cache"."""
        return self.path.partition("/")[2]

    @property
    def is_part(self) -> bool:
        """Whether it is copied with the components that import it, and never by itself."""
        return self.module.startswith("_")

    @property
    def page(self) -> str:
        """The page that shows it, by its header: "queues/async_pending_queue" of a part, too."""
        found = ADDRESS.search(self.source)
        return b"/".join(found.group(1, 2)).decode() if found else self.path

    @property
    def names(self) -> str:
        """What one imports from it, by its header: "Event, EventType, ANY"."""
        found = re.search(r"\(([^()]+)\)$", self.summary)
        return found[1] if found else ", ".join(_defined(self))


def program() -> str:
    """How the tool was started, to say in messages what to do next."""
    name = PurePath(sys.argv[0]).name.removesuffix(".exe")
    return name if name == "executable-guarantees" else "python -m reference_impl"


@cache
def modules() -> dict[str, Component]:
    """Every component of the package and every part, by its path."""
    found = {}
    for folder in PACKAGE.iterdir():
        for file in folder.iterdir() if folder.is_dir() else ():
            # Git may have changed the line endings of a clone on Windows.
            source = plain(file.read_bytes()) if file.name.endswith(".py") else b""
            title, version = _TITLE.match(source), VERSION.search(source)
            if title and version:
                path = f"{folder.name}/{file.name.removesuffix('.py')}"
                summary, number, date = title[1].decode(), version[1].decode(), version[2].decode()
                found[path] = Component(path, summary, number, date, source)
    return dict(sorted(found.items()))


def components() -> dict[str, Component]:
    """Every component of the package, by its path."""
    return {path: module for path, module in modules().items() if not module.is_part}


@cache
def versions() -> Mapping[str, Mapping[str, Entry]]:
    """Every version of each component and part that was ever published, the newest first."""
    recorded: dict[str, dict[str, Entry]] = package_data("versions.json")
    return recorded


def package_data(name: str) -> Any:
    """What a JSON file of the package holds.

    Raises:
        CopyError: it cannot be read.
    """
    try:
        return json.loads(PACKAGE.joinpath(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CopyError(
            f"the package's {name} cannot be read ({error}): install it again"
        ) from error


def find(name: str) -> Component:
    """The component of this path, module name or class name."""
    known: dict[str, set[str]] = {}
    for path, component in components().items():
        for alias in (path, component.module, *_defined(component)):
            known.setdefault(alias, set()).add(path)
    wanted = re.sub(r"[\\.]", "/", name.removesuffix(".py")).strip("/")
    wanted = wanted.removeprefix("reference_impl/")
    paths = sorted(known.get(wanted, ()))
    if len(paths) == 1:
        return components()[paths[0]]
    if paths:
        raise CopyError(f"{name!r} is in {' and in '.join(paths)}: name one of these")
    for part in modules().values():
        if part.is_part and wanted in {part.path, part.module}:
            names = " or ".join(user.names.partition(",")[0] for user in users(part))
            raise CopyError(f"{part.module} is a part of components: it is copied with {names}")
    folded = {alias.casefold(): alias for alias in known}
    near = difflib.get_close_matches(wanted.casefold(), folded)
    hint = f"did you mean {' or '.join(folded[alias] for alias in near)}? " if near else ""
    raise CopyError(f"there is no component {name!r}: {hint}`list` names them all")


def vetted(component: Component) -> bytes:
    """The component's source, once it is seen to be the version that was verified.

    Raises:
        CopyError: the package's own file has been changed.
    """
    entry = versions().get(component.path, {}).get(component.version)
    if entry is None or entry["sha256"] != digest(component.source):
        raise CopyError(
            f"the package's own {component.path}.py is not the {component.version} that was "
            "verified: undo the change, or install the package again"
        )
    return component.source


def closure(component: Component) -> list[Component]:
    """The component, then the siblings that it imports, and theirs."""
    found = [component]
    for module in found:  # grows meanwhile
        found += [sibling for sibling in _siblings(module) if sibling not in found]
    return found


def users(part: Component) -> list[Component]:
    """The components that a part is copied with; the one whose page shows it comes first."""
    found = [each for each in components().values() if part in closure(each)]
    return sorted(found, key=lambda user: user.path != part.page)


def third_party(modules: Iterable[Component]) -> list[str]:
    """The packages from elsewhere that these components import."""
    imported = set[str]()
    for node in (node for each in modules for node in ast.walk(_parsed(each.source))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module.partition(".")[0])
    return sorted(imported - sys.stdlib_module_names)


@cache
def _parsed(source: bytes) -> ast.Module:
    return ast.parse(source)


def plain(data: bytes) -> bytes:
    """Without what git and editors add: a byte order mark, and other line endings than Unix's."""
    return data.removeprefix(BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def digest(data: bytes) -> str:
    """The SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()


def _defined(component: Component) -> Iterator[str]:
    """The public classes and functions that the component defines itself."""
    for node in _parsed(component.source).body:
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node.name


def _siblings(component: Component) -> Iterator[Component]:
    """What a component imports relatively; each name may be a module or one of its members."""
    here = ["", component.family]
    for node in ast.walk(_parsed(component.source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[1 : 3 - node.level] + (node.module.split(".") if node.module else [])
            names = ["/".join(base), *("/".join([*base, alias.name]) for alias in node.names)]
            siblings = [modules()[name] for name in names if name in modules()]
            if not siblings:
                raise CopyError(f"{component.path} imports {names[0]!r}, which is no component")
            yield from siblings
