"""The review's verdicts: each proof exists, each section is judged, each tick is earned."""

import ast
import re
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from site_build import records
from site_build.review import VERDICTS, data
from tests.kit import ROOT
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
        name = proof.removeprefix("figures:")
        known = [each for each in components() if Path(each).name == name]
        return None if known and records.figures_of(known[0]) else f"no figures {name}"
    if proof.startswith(("tests/", "site_build/")):
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
