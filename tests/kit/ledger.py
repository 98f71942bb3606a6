"""The guarantee ledger: which test proves which promise of which page.

A pytest plugin. The pages' guarantee tables are the list of promises; tests name them
with `guarantee` (proves it) and `twin` (shows that the check can fail). With
`--evidence-to FILE` the outcomes are written for `nox -s evidence` to merge.
"""

import json
import re
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.catalogue import all_promises, components, digests, python_build
from tests.kit.explore import EXPLORED

_RESULTS = pytest.StashKey[list[dict[str, Any]]]()


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
