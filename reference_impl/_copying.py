"""What `python -m reference_impl` does: find components, copy them, and judge copies."""

import ast
import contextlib
import difflib
import hashlib
import json
import keyword
import os
import re
import secrets
import shutil
import stat
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, TypedDict

PACKAGE = files("reference_impl")
_TITLE = re.compile(rb"^# \w+\.py: (.+)$", re.MULTILINE)
# The page that shows the file; the address of a part ends with the part's name: #_spool.
_ADDRESS = re.compile(
    rb"^# https://executable-guarantees\.example/(\w+)/(\w+)\.html(?:#(_\w+))?\s*$", re.MULTILINE
)
_VERSION = re.compile(rb"^# Version (\S+) \((\d{4}-\d\d-\d\d)\)", re.MULTILINE)
# What says that a folder is on sys.path, or is meant to be, besides being there.
_OF_A_PROJECT = ("pyproject.toml", "setup.py", "setup.cfg")
_BOM = b"\xef\xbb\xbf"


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
        found = _ADDRESS.search(self.source)
        return b"/".join(found.group(1, 2)).decode() if found else self.path

    @property
    def names(self) -> str:
        """What one imports from it, by its header: "Event, EventType, ANY"."""
        found = re.search(r"\(([^()]+)\)$", self.summary)
        return found[1] if found else ", ".join(_defined(self))


@dataclass(frozen=True)
class Verdict:
    """What a copy turned out to be."""

    vetted: bool
    text: str  # the first line says it; below it, what has changed since, or a diff
    older: str = ""  # the component that it is an earlier version of, byte for byte
    kind: str = "modified"
    path: str = ""
    version: str | None = None
    changed: int = 0


@cache
def modules() -> dict[str, Component]:
    """Every component of the package and every part, by its path."""
    found = {}
    for folder in PACKAGE.iterdir():
        for file in folder.iterdir() if folder.is_dir() else ():
            # Git may have changed the line endings of a clone on Windows.
            source = _plain(file.read_bytes()) if file.name.endswith(".py") else b""
            title, version = _TITLE.match(source), _VERSION.search(source)
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
    try:
        text = PACKAGE.joinpath("versions.json").read_text(encoding="utf-8")
        recorded: dict[str, dict[str, Entry]] = json.loads(text)
    except (OSError, ValueError) as error:
        raise CopyError(
            f"the package's versions.json cannot be read ({error}): install it again"
        ) from error
    return recorded


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
    if entry is None or entry["sha256"] != _digest(component.source):
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
    users = [each for each in components().values() if part in closure(each)]
    return sorted(users, key=lambda user: user.path != part.page)


def third_party(modules: Iterable[Component]) -> list[str]:
    """The packages from elsewhere that these components import."""
    imported = set[str]()
    for node in (node for each in modules for node in ast.walk(_parsed(each.source))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module.partition(".")[0])
    return sorted(imported - sys.stdlib_module_names)


def layout(wanted: Iterable[Component], folder: Path) -> dict[Path, Component]:
    """Where each file goes: side by side, or by family where there are several families.

    The files stand to each other as in the package, so that their relative imports, and with
    them each byte, can stay as they are.
    """
    found = {each.path: each for component in wanted for each in closure(component)}.values()
    if len({each.family for each in found}) == 1:
        return {folder / f"{each.module}.py": each for each in found}
    return {folder / f"{each.path}.py": each for each in found}


def copy(
    components: Sequence[Component],
    folder: Path,
    *,
    force: bool = False,
    older: bool = False,
    dry: bool = False,
) -> dict[Path, bool]:
    """Copy the components and what they need into a folder: all of it or nothing.

    Args:
        components: what to copy.
        folder: where to; it is made if only its parent exists.
        force: overwrite files that differ.
        older: overwrite files that are earlier versions, byte for byte.
        dry: write nothing.

    Returns:
        The files, and whether each was (or would be) written: one that is the same is left as
        it is.

    Raises:
        CopyError: nothing was written.
    """
    _check_folder(folder)
    wanted = {path: vetted(each) for path, each in layout(components, folder).items()}
    folders = sorted({folder, *(path.parent for path in wanted)})
    if _wants_package(components, folder):
        markers = [place / "__init__.py" for place in folders if not _is_in_use(place, wanted)]
        wanted |= {path: b"" for path in markers if not os.path.lexists(path)}
    refusals = [_refused_folder(place) for place in folders]
    allowed = _Allowed(force=force, older=older)
    refusals += [_refused_file(path, data, allowed) for path, data in wanted.items()]
    if reasons := [reason for reason in refusals if reason]:
        raise CopyError("nothing was written:\n  " + "\n  ".join(reasons))
    changes = {path: data for path, data in wanted.items() if not _holds(path, data)}
    if dry:
        return {path: path in changes for path in wanted}
    try:
        _write(changes, [place for place in folders if not place.exists()])
    except OSError as error:
        where = error.filename or folder
        raise CopyError(f"nothing was written: {where}: {error.strerror}") from error
    return {path: path in changes for path in wanted}


def update(file: Path, path: str, *, dry: bool = False) -> dict[Path, bool]:
    """Bring the copy of an earlier version up to date, with all that the newest one needs.

    Args:
        file: the copy.
        path: the component, as `judge` has found it.
        dry: write nothing.

    Returns:
        The files, and whether each was (or would be) written.

    Raises:
        CopyError: nothing was written, as what it needs was modified, or it is in another place.
    """
    component = modules().get(path)
    if component is None:
        raise CopyError(f"{file} cannot be updated: {path} is no longer published")
    places = layout([component], file.parent)
    folder = file.parent if file in places else file.parent.parent
    if file not in layout([component], folder):
        raise CopyError(
            f"{file} cannot be updated: {path} and what it needs are not laid out as they are "
            "copied; copy it anew"
        )
    return copy([component], folder, older=True, dry=dry)


def package_name(folder: Path, *, needed: bool = False) -> tuple[str, Path]:
    """The dotted name of the package that a folder is, and what has to be on sys.path for it.

    A package without an `__init__.py`, a namespace package, is told from a folder of scripts by
    what is above it: sys.path, a project's settings, or `src`. The name is "" where there is
    no package, unless one is needed.
    """
    names = list[str]()
    root = _absolute(folder)
    while (root / "__init__.py").is_file() or (needed and not names):
        names.insert(0, root.name)
        root = root.parent
    place, between = root, list[str]()
    while not _is_root(place) and _is_name(place.name):
        between.insert(0, place.name)
        place = place.parent
    if _is_root(place):
        root, names = place, between + names
    return ".".join(names), root


def _absolute(folder: Path) -> Path:
    """The folder by its own name, where that is a link, too: imports go by that name."""
    return Path(os.path.abspath(folder))  # noqa: PTH100


def _is_root(folder: Path) -> bool:
    """Whether modules are imported from the folder without its name."""
    on_path = {Path(entry).resolve() for entry in sys.path}
    return folder.resolve() in on_path or folder.name == "src" or _has_project(folder)


def _has_project(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _OF_A_PROJECT)


def _is_name(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)


def address(data: bytes) -> str:
    """The component or part that a file's header names, or ""."""
    found = _ADDRESS.search(_plain(data))
    if found is None:
        return ""
    family, page, part = (name.decode() for name in found.groups(b""))
    return f"{family}/{part or page}"


def judge(data: bytes, label: str = "the copy") -> Verdict | None:
    """What a file is: vetted, older, modified or unknown; None if it is no copy at all."""
    path = address(data)
    if not path:
        return None
    recorded = versions().get(path)
    if not recorded:
        return Verdict(False, f"unknown: there is no {path} here; a newer package may have it")
    newest = next(iter(recorded))
    for version, entry in recorded.items():
        if entry["sha256"] == _digest(_plain(data)):
            which = f"{_but(data)}: {path} {version} ({entry['date']})"
            if version == newest:
                return Verdict(True, f"vetted{which}")
            return Verdict(False, f"older{which}\n{_since(version, recorded)}", older=path)
    return Verdict(False, _modified(path, recorded, data, label))


def copies(path: Path) -> Iterator[tuple[Path, bytes]]:
    """The copies in a folder and below it, hidden folders and environments left out.

    A single file is given back whether it is a copy or not.

    Raises:
        CopyError: there is nothing at the path, or no copy in the folder.
    """
    if not path.exists():
        raise CopyError(f"there is no {path}: name a copied file, or a folder that has some")
    if path.is_file():
        yield path, path.read_bytes()
        return
    found = False
    for file in _python_files(path):
        data = file.read_bytes()
        if _ADDRESS.search(_plain(data)):
            found = True
            yield file, data
    if not found:
        raise CopyError(f"{path} has no copy: the second line of a copy is its page's address")


def _plain(data: bytes) -> bytes:
    """Without what git and editors on Windows add: a byte order mark, and CRLF."""
    return data.removeprefix(_BOM).replace(b"\r\n", b"\n")


def _but(data: bytes) -> str:
    """How a file differs from its plain form, to follow "vetted"."""
    found = [
        name
        for name, there in (
            ("line endings", b"\r\n" in data),
            ("a byte order mark", data.startswith(_BOM)),
        )
        if there
    ]
    return f", but for {' and '.join(found)}" if found else ""


@cache
def _parsed(source: bytes) -> ast.Module:
    return ast.parse(source)


def _digest(data: bytes) -> str:
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


def _check_folder(folder: Path) -> None:
    name = _absolute(folder).name
    if keyword.iskeyword(name):
        raise CopyError(f"{name!r} is a word of Python, and no import can name it: copy elsewhere")
    packages = package_name(folder, needed=True)[0].split(".")
    if "reference_impl" in {name, *packages}:
        raise CopyError(
            f"{folder}: a package named 'reference_impl' is the tool's own: copy elsewhere, "
            "into a folder such as 'vendored'"
        )
    if odd := [package for package in packages if keyword.iskeyword(package)]:
        raise CopyError(f"{folder} is in a package {odd[0]!r}, which no import can name")
    if folder.is_dir():
        return
    if os.path.lexists(folder):
        kind = "a broken symbolic link" if folder.is_symlink() else "a file"
        raise CopyError(f"{folder} is {kind}: name the folder to copy into")
    if folder.suffix == ".py":
        raise CopyError(f"{folder}: name a folder; the file keeps its name, as its header has it")
    if not folder.parent.is_dir():
        raise CopyError(f"there is no folder {folder.parent}: make it, or correct {folder}")


def needs_package(components: Iterable[Component]) -> Component | None:
    """The first of the components that imports a sibling, if any: relatively, as siblings do."""
    return next((each for each in components if len(closure(each)) > 1), None)


def _wants_package(components: Iterable[Component], folder: Path) -> bool:
    """Whether the folder has to be a package: for relative imports, or as part of a package."""
    name = _absolute(folder).name
    importing = needs_package(components)
    is_package = (folder / "__init__.py").is_file()
    why = ""
    if not name.isidentifier():
        why = f"{name!r} cannot be the name of a package"
    elif _has_project(folder) and not is_package:
        why = f"{folder} is the folder of a project and no package"
    if importing and why:
        raise CopyError(
            f"{why}, and {importing.path} needs one for its relative imports: "
            f"name a folder such as {folder / 'vendored'}"
        )
    new_in_package = not folder.exists() and (folder.parent / "__init__.py").is_file()
    wanted = importing is not None or (name.isidentifier() and new_in_package)
    dotted = package_name(folder, needed=True)[0]
    if wanted and not is_package and dotted in sys.stdlib_module_names:
        raise CopyError(
            f"a package {dotted!r} would hide the module of the standard library: copy elsewhere"
        )
    return wanted


def _is_in_use(folder: Path, ours: Collection[Path]) -> bool:
    """Whether other modules are in a folder: it may be a part of a namespace package.

    Such a folder can be imported as it is; an `__init__.py` would hide the other parts.
    """
    return folder.is_dir() and any(path not in ours for path in _python_files(folder))


def _refused_folder(folder: Path) -> str | None:
    """Why the folder cannot be made or used, None if it can."""
    if folder.is_dir():
        return None
    if os.path.lexists(folder):
        return f"{folder} is in the way of a folder: move it, or copy elsewhere"
    if folder.with_suffix(".py").exists():
        return f"the folder {folder} would hide {folder.name}.py beside it: copy elsewhere"
    return None


class _Allowed(NamedTuple):
    """What may be overwritten."""

    force: bool  # all
    older: bool  # copies of earlier versions


def _refused_file(path: Path, data: bytes, allowed: _Allowed) -> str | None:
    """Why the file must not be written, None if it may."""
    hiding = path.with_suffix("")
    if hiding.is_dir() and data:
        return f"the folder {hiding} would hide {path.name}: copy elsewhere"
    if not os.path.lexists(path) or _holds(path, data):
        return None
    if path.is_symlink() or not path.is_file():
        return f"{path} is no regular file: move it, or copy elsewhere"
    if not path.stat().st_mode & stat.S_IWUSR:
        return f"{path} differs and is read-only: make it writable, or copy elsewhere"
    verdict = judge(path.read_bytes())
    if allowed.force or (allowed.older and verdict and verdict.older):
        return None
    what = verdict.text.partition("\n")[0] if verdict else "no copy of a component"
    return f"{path} differs ({what}): see `check`, or overwrite it by `copy --force`"


def _holds(path: Path, data: bytes) -> bool:
    """Whether the file is there already, line endings aside."""
    return path.is_file() and _plain(path.read_bytes()) == data


def _write(changes: Mapping[Path, bytes], folders: Iterable[Path]) -> None:
    """Make the folders and write the files, or undo it all where one of them fails."""
    with contextlib.ExitStack() as undo:
        for folder in folders:
            folder.mkdir()
            undo.callback(folder.rmdir)
        written = dict[Path, Path]()
        for path, data in changes.items():
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            undo.callback(temporary.unlink, missing_ok=True)
            with temporary.open("xb") as stream:
                stream.write(data)
            if path.exists():
                shutil.copymode(path, temporary)
            written[path] = temporary
        for path, temporary in written.items():
            before = path.read_bytes() if path.exists() else None
            temporary.replace(path)
            if before is None:
                undo.callback(path.unlink)
            else:
                undo.callback(path.write_bytes, before)
        undo.pop_all()


def _since(version: str, recorded: Mapping[str, Entry]) -> str:
    """What has changed after a version, the newest first."""
    newer = list(recorded.items())[: list(recorded).index(version)]
    parts = (f"{name} ({entry['date']}): {entry['changes']}" for name, entry in newer)
    return textwrap.indent("Changed since:\n" + "\n".join(parts), "  ")


def _modified(path: str, recorded: Mapping[str, Entry], data: bytes, label: str) -> str:
    """The verdict on a copy that is no version of its component."""
    newest = next(iter(recorded))
    ours = _ADDRESS.search(_plain(data))  # another header may be above it
    claimed = _VERSION.search(_plain(data), ours.end() if ours else 0)
    version = claimed[1].decode(errors="backslashreplace") if claimed else None
    note, since = "", ""
    if version is None:
        version, note = "no version", f"; the diff is against {newest}"
    elif version not in recorded:
        note = f", which is not known here; the diff is against {newest}"
    elif version != newest:
        note = f", an older one whose text is not kept; the diff is against {newest}"
        since = "\n" + _since(version, recorded)
    current = modules().get(path)
    if current is None:
        return f"modified: {path}, which is no longer published"
    before, after = (_lines(text) for text in (vetted(current), _plain(data)))
    diff = difflib.unified_diff(before, after, f"{path}.py, vetted {newest}", label, lineterm="")
    return f"modified: {path}, whose header says {version}{note}{since}\n" + "\n".join(diff)


def _lines(data: bytes) -> list[str]:
    lines = data.decode(errors="backslashreplace").split("\n")
    if not lines[-1]:
        return lines[:-1]
    return [*lines[:-1], lines[-1] + "\n\\ No newline at end of file"]


def _python_files(folder: Path) -> Iterator[Path]:
    """Python files, without those of hidden folders and virtual environments.

    Linked folders are searched, each once and none that the folder itself is in.
    """

    def fail(error: OSError) -> None:
        raise error

    seen = {folder.resolve(), *folder.resolve().parents}
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        here = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not (here / name / "pyvenv.cfg").exists()
        )
        # Those that are there by themselves come first, so that they are told by their own names.
        for name in sorted(folders, key=lambda name: (here / name).is_symlink()):
            target = (here / name).resolve()
            if target in seen:
                folders.remove(name)
            seen.add(target)
        found = (here / name for name in sorted(names) if name.endswith(".py"))
        yield from (file for file in found if file.is_file())
