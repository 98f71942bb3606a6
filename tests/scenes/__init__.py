"""Scenes: a check, a fault in one file, and the story of the schedule that loses.

Each feeds the player of a page (its recorded trace) and the lab (the check, the fault as an
edit). They stand in the TOML files of this folder; CONTRIBUTING.md tells what the keys mean.
"""

import hashlib
import importlib
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.kit import ROOT
from tests.kit.recording import View
from tests.kit.twins import Fault, build, within

FOLDER = Path(__file__).parent
TRACES = ROOT / "docs" / "evidence" / "traces"
MOST_STEPS, MOST_BYTES = 15, 20_000
_LISTS = ("functions", "lines", "signals", "also")
_KINDS = ("threads", "tasks", "crash")


@dataclass(frozen=True)
class Edit:
    """Text that is replaced, wherever it stands in the file; it must stand there."""

    old: str
    new: str
    file: str = ""  # of a sibling: "queues/_spool"; "" for the scene's own


@dataclass(frozen=True)
class Scene:
    """One scene; the keys of its table."""

    of: str  # the TOML file's name
    name: str
    title: str
    fault: str
    check: str
    loses: str
    edits: tuple[Edit, ...]
    component: str = ""
    file: str = ""
    subject: str = ""
    guarantee: str = ""
    kind: str = "threads"
    by: str = "line"
    preemptions: int = 1
    page: bool = True
    lab: bool = True
    fix: str = ""
    roles: dict[str, str] = field(default_factory=dict)
    watch: dict[str, str] = field(default_factory=dict)
    locals: tuple[str, ...] | None = None
    functions: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    locks: dict[str, str] = field(default_factory=dict)
    signals: tuple[str, ...] = ()
    also: tuple[str, ...] = ()  # siblings that are explored as well: "caches/ttl_cache"
    story: tuple[dict[str, Any], ...] = ()

    @property
    def id(self) -> str:
        """The name of its trace."""
        return f"{self.of}-{self.name}"

    @property
    def path(self) -> Path:
        """The file that it is about."""
        return ROOT / (self.file or f"reference_impl/{self.component}.py")

    @property
    def trace(self) -> Path:
        """Where its trace is recorded."""
        return TRACES / f"{self.id}.json"

    def check_text(self) -> str:
        """The check, as a reader sees it."""
        return (FOLDER / "checks" / self.check).read_text(encoding="utf-8")

    def texts(self, *, broken: bool) -> dict[str, str]:
        """The file and the siblings that the fault is in, by path ("" is the scene's own)."""
        found = {"": self.path.read_text(encoding="utf-8")}
        for edit in self.edits:
            if edit.file and edit.file not in found:
                path = ROOT / f"reference_impl/{edit.file}.py"
                found[edit.file] = path.read_text(encoding="utf-8")
            if broken:
                found[edit.file] = self._edited(found[edit.file], edit)
        return found

    def _edited(self, text: str, edit: Edit) -> str:
        if edit.old not in text:
            where = edit.file or self.path.name
            raise ValueError(f"{self.id}: {where} has no {edit.old!r} (any more)")
        return text.replace(edit.old, edit.new)

    def module(self, *, broken: bool) -> ModuleType:
        """The file as a module of its own, with the fault or without."""
        fault = Fault()
        for name, text in self.texts(broken=broken).items() if broken else ():
            here = Fault(source=partial(_instead, text))
            fault = fault + (within(name, here) if name else here)
        original = self.path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        return build(importlib.import_module(original), fault)

    def model(self, module: ModuleType) -> Any:
        """The check's model of this module, as a function without arguments."""
        names: dict[str, Any] = {"__name__": self.check.removesuffix(".py")}
        path = FOLDER / "checks" / self.check
        exec(compile(self.check_text(), path, "exec"), names)
        model = names["model"]
        if self.kind == "tasks":

            async def tasks() -> None:
                await model(module)

            return tasks
        return lambda: model(module)

    def shown(self) -> dict[str, Any]:
        """What is shown of a run: the keys of a View."""
        return {
            each.name: getattr(self, each.name) for each in fields(View) if each.name != "module"
        }

    def view(self, module: ModuleType) -> View:
        """What is shown of a run of this module."""
        return View(module, **self.shown())

    def made(self) -> str:
        """A digest of the scene itself: its keys and its check."""
        told = repr({**vars(self), "text": self.check_text()})
        return hashlib.sha256(told.encode()).hexdigest()

    def twin(self) -> str:
        """A digest of the broken file, its broken siblings included."""
        told = json.dumps(self.texts(broken=True), sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()


def _instead(text: str, _: str) -> str:
    return text


@cache
def scenes() -> dict[str, Scene]:
    """Every scene, by its ID, in the order of the files."""
    found = [scene for path in sorted(FOLDER.glob("*.toml")) for scene in _read(path)]
    return {scene.id: scene for scene in found}


def _read(path: Path) -> Iterator[Scene]:
    head: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    tables = head.pop("scene", [])
    offered = head.pop("lab", False)
    for table in tables:
        keys = {"of": path.stem, **head, **table}
        keys["edits"] = tuple(Edit(**each) for each in keys.pop("edit", []))
        keys["story"] = tuple(keys.pop("say", []))
        keys |= {name: tuple(keys.get(name, ())) for name in _LISTS}
        keys["lab"] = offered and keys.get("lab", True)
        if "locals" in keys:
            keys["locals"] = tuple(keys["locals"])
        try:
            scene = Scene(**keys)
        except TypeError as error:
            raise ValueError(f"{path.name}, {table.get('name')}: {error}") from None
        if scene.kind not in _KINDS or scene.by not in {"line", "opcode"}:
            raise ValueError(f"{scene.id}: kind is one of {_KINDS}, by is line or opcode")
        yield scene
