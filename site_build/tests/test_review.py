"""The review's verdicts: each proof exists, each section is judged, each tick is earned."""

import ast
import inspect
import re
import tomllib
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from reference_impl.bridges.parallel_execute import parallel_execute
from reference_impl.caches.async_ttl_cache import AsyncTTLCache
from reference_impl.caches.ttl_cache import TTLCache
from reference_impl.queues.memory_queue import MemoryQueue
from site_build.evidence import FIGURES
from site_build.review import VERDICTS, data
from tests.kit import COMPONENTS, ROOT
from tests.kit.catalogue import all_promises, components

ENTRIES: list[dict[str, Any]] = [*data()["finding"], *data()["item"]]


@cache
def functions(path: Path) -> set[str]:
    """The names of all functions of a test file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def slug(heading: str) -> str:
    """The anchor that the site gives a heading."""
    given = re.search(r"\{ *#([\w-]+)", heading)
    plain = re.sub(r"[`*]", "", heading.partition("{")[0]).strip().lower()
    return given[1] if given else re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", plain))


def missing(proof: str) -> str | None:
    """What is wrong with a proof, or None."""
    if proof.startswith("figures:"):
        path = FIGURES / f"{proof.removeprefix('figures:')}.json"
        return None if path.is_file() else f"no figures {path.name}"
    if proof.startswith("tests/"):
        name, _, test = proof.partition("::")
        path = ROOT / name
        if not path.is_file():
            return f"no file {name}"
        return None if test in functions(path) else f"no test {test} in {name}"
    if proof.startswith("docs/"):
        name, _, anchor = proof.partition("#")
        path = ROOT / name
        if not path.is_file():
            return f"no page {name}"
        lines = path.read_text(encoding="utf-8").splitlines()
        anchors = {slug(line.lstrip("# ")) for line in lines if line.startswith("#")}
        return None if not anchor or anchor in anchors else f"no place {anchor} on {name}"
    return None if proof in all_promises() else f"no guarantee {proof}"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: str(e.get("claim", e.get("text")))[:60])
def test_each_verdict_is_shown_by_something_that_exists(entry: dict[str, Any]) -> None:
    assert entry["proof"], "a verdict without proof is an opinion"
    assert [problem for proof in entry["proof"] if (problem := missing(proof))] == []


@pytest.mark.parametrize(
    "proof",
    ["TC-99", "figures:none", "tests/docs/test_review.py::test_none", "docs/index.md#none"],
)
def test_a_proof_that_does_not_exist_is_noticed(proof: str) -> None:
    assert missing(proof)


def test_each_section_of_the_analysis_is_judged() -> None:
    review = data()
    numbers = [section["number"] for section in review["section"]]
    judged = {finding["section"] for finding in review["finding"]}
    assert judged == set(numbers)
    assert {number.partition(".")[0] for number in numbers} == set("23456789")
    for finding in review["finding"]:
        assert finding["verdict"] in VERDICTS
        assert isinstance(finding["date"], date)


def test_every_component_stands_in_the_inventory() -> None:
    listed = {system["page"].removesuffix(".md") for system in data()["system"]}
    assert listed <= set(components())
    assert len(data()["system"]) == 10  # six that use threads, four that meet them from a loop


@pytest.mark.parametrize(
    ("documented", "heading"),
    [
        (MemoryQueue, "Thread safety:"),
        (TTLCache, "Thread safety:"),
        (AsyncTTLCache, "Async safety:"),
        (parallel_execute, "Thread safety:"),
    ],
)
def test_the_docstring_says_what_is_promised_to_threads(documented: object, heading: str) -> None:
    assert heading in (inspect.getdoc(documented) or "")


def test_the_docstring_warns_of_what_the_operation_shares() -> None:
    text = " ".join((inspect.getdoc(parallel_execute) or "").split())
    assert "operation" in text.partition("Thread safety:")[2]


def test_the_async_cache_shares_no_code_with_a_locking_one() -> None:
    assert not issubclass(AsyncTTLCache, TTLCache)


def test_no_component_sleeps_to_synchronise() -> None:
    for path in COMPONENTS.rglob("*.py"):
        assert "time.sleep(" not in path.read_text(encoding="utf-8"), path.name


def test_the_hosted_matrix_has_every_platform_and_python() -> None:
    text = (ROOT / ".github" / "workflows" / "site.yml").read_text(encoding="utf-8")
    for system in ("ubuntu", "macos", "windows"):
        assert f"{system}-latest" in text
    pythons = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for python in pythons["tool"]["executable-guarantees"]["pythons"]:
        assert f'"{python}"' in text
