"""The guarantee ledger: which test proves which promise of which page.

A pytest plugin. The pages' guarantee tables are the list of promises; tests name them
with `guarantee` (proves it) and `twin` (shows that the check can fail). With
`--evidence-to FILE` the outcomes are written for `nox -s evidence` to merge.
"""

import ast
import hashlib
import json
import platform
import re
import sys
import sysconfig
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support import COMPONENTS, ROOT
from tests.support.explore import EXPLORED

_ROW = re.compile(r"^\|[^|]*\b([A-Z]{2}-\d+)\b[^|]*\|(.*)\|\s*$")
_RESULTS = pytest.StashKey[list[dict[str, Any]]]()


def components() -> list[str]:
    """Every component as its path without suffix: "caches/ttl_cache", sorted."""
    files = COMPONENTS.glob("*/*.py")
    return sorted(
        file.relative_to(COMPONENTS).with_suffix("").as_posix()
        for file in files
        if file.stem != "__init__"
    )


def promises(component: str) -> dict[str, str]:
    """The guarantees in the component's page, by ID, in the page's order."""
    page = ROOT / "docs" / f"{component}.md"
    rows = (_ROW.match(line) for line in page.read_text(encoding="utf-8").splitlines())
    return {row[1]: row[2].strip() for row in rows if row}


def all_promises() -> dict[str, str]:
    """Every guarantee ID, with the component that promises it."""
    return {
        identifier: component
        for component in components()
        if (ROOT / "docs" / f"{component}.md").exists()
        for identifier in promises(component)
    }


def closure(component: str) -> list[Path]:
    """The component's file and the siblings that it imports: what a reader copies."""
    path = COMPONENTS / f"{component}.py"
    found = [path]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level and node.module:
            base = path.parents[node.level - 1]
            found.append(base / (node.module.replace(".", "/") + ".py"))
    return found


def third_party(component: str) -> set[str]:
    """The packages outside the standard library that a component and its siblings import."""
    found: set[str] = set()
    for path in closure(component):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).split(".")[0])
    return found - sys.stdlib_module_names


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(component: str) -> dict[str, str]:
    """The SHA-256 of each file that a reader copies, by its path from the project's root."""
    return {path.relative_to(ROOT).as_posix(): digest(path) for path in closure(component)}


def python_build() -> str:
    """This interpreter in words: "CPython 3.13.0, with the GIL, Linux"."""
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    gil = "free-threaded" if free_threaded else "with the GIL"
    return (
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{gil}, {platform.system()}"
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--evidence-to",
        type=Path,
        default=None,
        help="write what the tests proved to this JSON file",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RESULTS] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    known = all_promises()
    for item in items:
        for identifier in _named(item, "guarantee") + _named(item, "twin"):
            if identifier not in known:
                raise pytest.UsageError(
                    f"{item.nodeid} names {identifier}, which no page promises: add its row "
                    "to the component's guarantee table, or mend the marker"
                )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    report = yield
    proves, twins = _named(item, "guarantee"), _named(item, "twin")
    if (proves or twins) and (call.when == "call" or report.outcome != "passed"):
        statistics = str(getattr(item, "hypothesis_statistics", ""))
        examples = sum(int(n) for n in re.findall(r"(\d+) passing\b", statistics))
        item.config.stash[_RESULTS].append(
            {
                "test": item.nodeid,
                "outcome": report.outcome,
                "guarantees": proves,
                "twins": twins,
                "explored": item.stash.get(EXPLORED, []),
                "examples": examples,
            }
        )
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    target: Path | None = session.config.getoption("--evidence-to")
    if target is None or hasattr(session.config, "workerinput"):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "python": python_build(),
        "version": list(sys.version_info[:3]),
        "sources": {
            name: sha for component in components() for name, sha in digests(component).items()
        },
        "results": session.config.stash[_RESULTS],
    }
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _named(item: pytest.Item, marker: str) -> list[str]:
    return [str(name) for mark in item.iter_markers(marker) for name in mark.args]
