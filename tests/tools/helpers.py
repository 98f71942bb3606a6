"""Made-up components, and what folders hold: for the tests of the copy tool."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reference_impl import _components, _history
from tests.kit import catalogue, renamed
from tests.kit.process import interpret

HEADER = """\
# {name}.py: {summary}
# https://executable-guarantees.example/{page}.html{fragment}
# Version {version} (2026-11-23); Python 3.11 to 3.14, with or without the GIL; {needs}
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""
Run = Callable[..., tuple[int, str, str]]
Tree = dict[str, str]
Change = Callable[[bytes], bytes]


def source(
    path: str,
    body: str = "",
    *,
    version: str = "1.0.0",
    summary: str = "a thing",
    page: str = "",  # of a part
) -> bytes:
    """A made-up component, or a part that another's page shows."""
    name = path.partition("/")[2]
    fields = {"needs": "standard library only", "version": version, "summary": summary}
    fields |= {"page": page or path, "fragment": f"#{name}" if page else ""}
    return (HEADER.format(name=name, **fields) + body).encode()


def sharing() -> dict[str, bytes]:
    """Two made-up queues that share a part, by their paths."""
    part = "def step() -> int:\n    return 1\n\n\nclass Shared: ...\n"
    uses = "from ._shared import Shared, step\n\n\nclass {}(Shared): ...\n"
    return {
        "queues/_shared": source("queues/_shared", part, page="queues/two"),
        "queues/one": source("queues/one", uses.format("One"), summary="one (One, step)"),
        "queues/two": source("queues/two", uses.format("Two"), summary="two (Two)"),
    }


@contextmanager
def sharing_project(root: Path) -> Iterator[dict[str, bytes]]:
    """A project that has these two and their part, in the place of this one."""
    sources = sharing()
    package = root / "reference_impl"
    write_tree(package, {f"{path}.py": data for path, data in sources.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_components, "PACKAGE", package)
        patch.setattr(catalogue, "ROOT", root)
        for module in (catalogue, renamed):
            patch.setattr(module, "COMPONENTS", package)
        clear_caches()
        yield sources
    clear_caches()


def entry(data: bytes, changes: str) -> dict[str, str]:
    return {"date": "2026-11-23", "sha256": hashlib.sha256(data).hexdigest(), "changes": changes}


def clear_caches() -> None:
    _components.modules.cache_clear()
    _components.versions.cache_clear()
    _history.recorded_edits.cache_clear()


def record(package: Path, texts: Mapping[str, Sequence[bytes]]) -> None:
    """Write what a package knows of versions: of each component its texts, the newest first.

    It adds to what is there already.
    """
    versions, history = (_read(package / name) for name in ("versions.json", "history.json"))
    for path, each in texts.items():
        names = [_version(text) for text in each]
        versions[path] = {
            name: entry(text, f"Work of {name}.\nMore.")
            for name, text in zip(names, each, strict=True)
        }
        there = (package / f"{path}.py").exists()
        newer = ([] if there else [b""]) + list(each)
        history[path] = {
            name: [[0, len(text.splitlines()), older.decode()]]
            for text, older, name in zip(newer, newer[1:], names[there:], strict=False)
        }
    (package / "versions.json").write_text(json.dumps(versions), encoding="utf-8")
    (package / "history.json").write_text(json.dumps(history), encoding="utf-8")
    clear_caches()


def _read(place: Path) -> dict[str, Any]:
    return dict(json.loads(place.read_text(encoding="utf-8"))) if place.exists() else {}


def _version(text: bytes) -> str:
    return text.partition(b"# Version ")[2].partition(b" ")[0].decode()


def write_tree(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def tree(folder: Path) -> Tree:
    """Everything in a folder: kind, and content or target."""
    found = {}
    for path in folder.rglob("*"):
        kind = "folder"
        if path.is_symlink():
            kind = f"link to {path.readlink()}"
        elif path.is_file():
            kind = path.read_bytes().decode(errors="backslashreplace")
        found[path.relative_to(folder).as_posix()] = kind
    return found


def import_isolated(line: str, path: Path) -> None:
    """Import a copy from a folder, in a Python that sees nothing of this project."""
    code = (
        f"import sys; sys.path.insert(0, {str(path)!r}); {line}\n"
        "assert not [name for name in sys.modules if name.startswith('reference_impl')]"
    )
    done = interpret("-I", "-B", "-W", "error", "-c", code, cwd=path)
    assert done.returncode == 0, done.stderr


def older(package: Path) -> bytes:
    """The made-up store's file before the newest version."""
    text = _history.text("caches/store", "1.1.0")
    assert text is not None
    return text
