"""The guarantee ledger: which test proves which promise of which page.

A pytest plugin. The pages' guarantee tables are the list of promises; tests name them
with `guarantee` (proves it) and `twin` (shows that the check can fail). What each of them did
travels with its report, so that it arrives from the workers of pytest-xdist as well. With
`--evidence-to FILE` it is written for `python -m site_build.evidence` to merge.
"""

import inspect
import json
import re
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.kit import ROOT, profile
from tests.kit.catalogue import all_digests, all_promises, python_build
from tests.kit.explore import EXPLORED

_RESULTS = pytest.StashKey[list[dict[str, Any]]]()
_BEGAN = pytest.StashKey[float]()
_SECONDS = pytest.StashKey[dict[str, float]]()
_MARKED = pytest.StashKey[list[list[Any]]]()


def results(config: pytest.Config) -> list[dict[str, Any]]:
    """What the tests of this run that name a guarantee did."""
    return config.stash[_RESULTS]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--evidence-to",
        type=Path,
        default=None,
        help="write what the tests proved to this JSON file",
    )
    parser.addoption(
        "--guarantee",
        action="append",
        default=[],
        metavar="ID",
        help="run only the tests that prove this guarantee, and its broken twins",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RESULTS] = []
    config.stash[_BEGAN] = time.monotonic()
    config.stash[_SECONDS] = {}
    config.stash[_MARKED] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    known = all_promises()
    for item in items:
        for identifier in _named(item, "guarantee") + _named(item, "twin"):
            if identifier not in known:
                raise pytest.UsageError(
                    f"{item.nodeid} names {identifier}, which no page promises: add its row "
                    "to the component's guarantee table, or mend the marker"
                )
    config.stash[_MARKED] = [
        [item.nodeid, _named(item, "guarantee"), _named(item, "twin")] for item in items
    ]
    wanted: set[str] = set(config.getoption("--guarantee") or ())
    if wanted:
        named = [wanted & {*_named(item, "guarantee"), *_named(item, "twin")} for item in items]
        left_out = [item for item, found in zip(items, named, strict=True) if not found]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item, found in zip(items, named, strict=True) if found]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    report = yield
    proves, twins = _named(item, "guarantee"), _named(item, "twin")
    if (proves or twins) and (call.when == "call" or report.outcome != "passed"):
        statistics = str(getattr(item, "hypothesis_statistics", ""))
        report.proof = {
            "test": item.nodeid,
            "outcome": report.outcome,
            "guarantees": proves,
            "twins": twins,
            "explored": item.stash.get(EXPLORED, []),
            "examples": sum(int(n) for n in re.findall(r"(\d+) passing\b", statistics)),
            "seconds": round(call.duration, 3),
            "source": _source(item),
        }
        for mark in item.iter_markers("twin"):
            report.proof |= {
                key: mark.kwargs[key] for key in ("fault", "fails") & mark.kwargs.keys()
            }
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if _config is None:
        return
    if (proof := getattr(report, "proof", None)) is not None:
        _config.stash[_RESULTS].append(proof)
    files = _config.stash[_SECONDS]
    file = report.nodeid.partition("::")[0]
    files[file] = files.get(file, 0.0) + report.duration


# pytest_runtest_logreport is not told of its config.
_config: pytest.Config | None = None


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    global _config
    _config = session.config


def pytest_sessionfinish(session: pytest.Session) -> None:
    target: Path | None = session.config.getoption("--evidence-to")
    if target is None or hasattr(session.config, "workerinput"):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "python": python_build(),
        "version": list(sys.version_info[:3]),
        "profile": profile.name(),
        "seconds": round(time.monotonic() - session.config.stash[_BEGAN], 1),
        "sources": all_digests(),
        "files": {name: round(s, 2) for name, s in session.config.stash[_SECONDS].items()},
        "results": session.config.stash[_RESULTS],
    }
    if session.config.option.collectonly:
        record = {"marked": session.config.stash[_MARKED]}
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _named(item: pytest.Item, marker: str) -> list[str]:
    return list(dict.fromkeys(str(n) for mark in item.iter_markers(marker) for n in mark.args))


def _source(item: pytest.Item) -> list[str] | None:
    """What a reader wants to see of a test: the table's check, or the test itself.

    The file from the project's root, and the qualified name of the function in it.
    """
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    candidates = [getattr(parameters.get("proof"), "check", None), parameters.get("check")]
    for function in [*candidates, getattr(item, "function", None)]:
        function = getattr(function, "func", function)  # of a partial
        if not inspect.isfunction(function):
            continue
        function = inspect.unwrap(function)
        path = Path(function.__code__.co_filename)
        name = function.__qualname__.replace(".<locals>", "")
        if path.is_relative_to(ROOT) and "<" not in name:
            return [path.relative_to(ROOT).as_posix(), name]
    return None
