"""What copies are: vetted, older, formatted or modified, and how they differ."""

import ast
import difflib
import os
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from reference_impl import _history
from reference_impl._components import (
    ADDRESS,
    BOM,
    VERSION,
    CopyError,
    Entry,
    digest,
    plain,
    versions,
)

Kind = Literal["vetted", "older", "formatted", "modified", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """What a copy turned out to be.

    Attributes:
        kind: "vetted" and "older" are a version byte for byte (line endings aside), "formatted"
            is one with another layout or other comments, "modified" is none, and "unknown" is of
            a component that this package does not have.
        path: the component: "caches/ttl_cache".
        version: the version that it is, or came from; None if it is unknown.
        changed: how many lines differ from that version.
        text: the first line says it all; below it, what has changed since, and a diff.
    """

    kind: Kind
    path: str
    version: str | None
    changed: int
    text: str

    @property
    def is_newest(self) -> bool:
        """Whether it is, or came from, the newest version that this package knows."""
        return self.version in list(versions().get(self.path, {}))[:1]


def judge(data: bytes, label: str = "the copy") -> Verdict | None:
    """What a file is; None if it is no copy at all.

    Args:
        data: what it holds.
        label: what a diff calls it.
    """
    found = plain(data)
    path = address(found)
    if not path:
        return None
    recorded = versions().get(path)
    if not recorded:
        words = f"unknown: there is no {path} here; a newer package may have it"
        return Verdict("unknown", path, None, 0, words)
    for version, entry in recorded.items():
        if entry["sha256"] == digest(found):
            kind: Kind = "older" if (since := _since(version, recorded)) else "vetted"
            words = f"{kind}{_but(data)}: {path} {version} ({entry['date']}){since}"
            return Verdict(kind, path, version, 0, words)
    return _changed(path, recorded, found, label)


def address(data: bytes) -> str:
    """The path of the component whose page's address is in a file, or ""."""
    if (found := ADDRESS.search(plain(data))) is None:
        return ""
    family, page, part = (name.decode() for name in found.groups(b""))
    return f"{family}/{part or page}"


def _changed(path: str, recorded: Mapping[str, Entry], data: bytes, label: str) -> Verdict:
    """The verdict on a copy that is none of the versions, byte for byte."""
    texts = _history.texts(path)
    header = ADDRESS.search(data)
    claimed = header and VERSION.search(data, header.end())  # another header may be above it
    version = claimed[1].decode(errors="backslashreplace") if claimed else "no version"
    note = ""
    if version not in recorded:
        says = version if claimed is None else f"{version}, which is not known here"
        version = min(texts, key=lambda each: _changed_lines(texts[each], data))
        note = f"; its header says {says}: this is the nearest"
    code = _code(data)
    by_relevance = sorted(texts, key=lambda each: each != version)
    same = (each for each in by_relevance if code is not None and _code(texts[each]) == code)
    kind: Kind = "modified"
    if (equal := next(same, None)) is not None:
        kind, version, note = "formatted", equal, ""
    changed = _changed_lines(texts[version], data)
    lines = "1 line" if changed == 1 else f"{changed} lines"
    which = f"{path} {version} ({recorded[version]['date']})"
    since = _since(version, recorded)
    if kind == "formatted":
        words = (
            f"formatted: {which}, the same code; only layout or comments differ ({lines}){since}"
        )
        return Verdict(kind, path, version, changed, words)
    before, after = _lines(texts[version]), _lines(data)
    diff = difflib.unified_diff(before, after, f"{path}.py {version}", label, lineterm="")
    words = f"modified: from {which}, {lines} changed{note}{since}\n" + "\n".join(diff)
    return Verdict(kind, path, version, changed, words)


def _but(data: bytes) -> str:
    """How a file differs from its plain form, to follow "vetted"."""
    found = [
        name
        for name, there in (
            ("line endings", b"\r" in data),
            ("a byte order mark", data.startswith(BOM)),
        )
        if there
    ]
    return f", but for {' and '.join(found)}" if found else ""


def _since(version: str, recorded: Mapping[str, Entry]) -> str:
    """What has changed after a version, the newest first; "" after the newest."""
    newer = list(recorded.items())[: list(recorded).index(version)]
    parts = [f"{name} ({entry['date']}): {entry['changes']}" for name, entry in newer]
    return "\n" + textwrap.indent("\n".join(["Changed since:", *parts]), "  ") if parts else ""


@cache
def _code(data: bytes) -> str | None:
    """What a file means, without its layout and comments; None if it is no Python.

    The indentation of a docstring is layout, too, and so are the parentheses of `del (a, b)`:
    formatters change them.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and (words := ast.get_docstring(node)) is not None:
            lines = [line.rstrip() for line in words.splitlines()]
            node.body[0] = ast.Expr(ast.Constant("\n".join(lines)))
        elif isinstance(node, ast.Delete) and isinstance(node.targets[0], ast.Tuple):
            node.targets[:1] = node.targets[0].elts
    return ast.dump(tree)


def _changed_lines(before: bytes, after: bytes) -> int:
    """How many lines differ; one that was replaced by another counts once."""
    matcher = difflib.SequenceMatcher(None, _lines(before), _lines(after), autojunk=False)
    return sum(
        max(stop - start, new_stop - new_start)
        for tag, start, stop, new_start, new_stop in matcher.get_opcodes()
        if tag != "equal"
    )


def _lines(data: bytes) -> list[str]:
    lines = data.decode(errors="backslashreplace").split("\n")
    if not lines[-1]:
        return lines[:-1]
    return [*lines[:-1], lines[-1] + "\n\\ No newline at end of file"]


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
    for file in python_files(path):
        data = file.read_bytes()
        if address(data):
            found = True
            yield file, data
    if not found:
        raise CopyError(f"{path} has no copy: the second line of a copy is its page's address")


def python_files(folder: Path) -> Iterator[Path]:
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
