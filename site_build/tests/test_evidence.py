"""The records: what is merged, kept and refused, and that they are of today's files."""

from pathlib import Path
from typing import Any

import pytest

from site_build import evidence, pages, records, scores
from site_build.records import EVIDENCE
from tests.kit.catalogue import components, digests, promises

every_component = pytest.mark.parametrize("component", components())
COMPONENT = "caches/ttl_cache"
TEST = "tests/docs/test_machinery.py::test_a_twin_is_a_module_of_its_own"
OTHER = "tests/docs/test_machinery.py::test_a_twin_must_say_how_it_fails[x]"


def raw(*tests: str, profile: str = "quick", python: str = "CPython 3.13.0", **changed: Any) -> Any:
    """What a session wrote that ran these tests, all of TC-1."""
    one = {"outcome": "passed", "guarantees": ["TC-1"], "twins": [], "examples": 0}
    one |= {"explored": [], "seconds": 1.0, "source": None}
    return {
        "python": python,
        "version": [3, 13, 0],
        "profile": profile,
        "sources": digests(COMPONENT),
        "files": {"tests/interleavings/test_ttl_cache.py": 2.0, "docs/index.md": 9.0},
        "results": [{"test": test, **one} | changed for test in tests],
    }


def merged(*raws: Any, record: dict[str, Any] | None = None) -> dict[str, Any]:
    record = record or {"component": COMPONENT}
    evidence.merge(record, raws)
    return record


@every_component
def test_record_is_of_this_source(component: str) -> None:
    """But for the mutants, which take more than an hour: the page tells which are older."""
    record = records.read(component)
    for part in records.PARTS:
        if part == "mutation" and not records.is_current(record[part], component):
            assert "of an earlier version" in scores.cell(component)
        elif part in record:
            assert records.is_current(record[part], component), (
                f"{component} changed after its {part} was recorded: run `nox -s evidence bench "
                f"mutation coverage`, or those of them that it names"
            )


@every_component
def test_record_is_small_enough_to_be_read(component: str) -> None:
    size = records.path(component).stat().st_size
    assert size <= records.LIMIT, f"{component}: {size:,} bytes"


def test_evidence_covers_each_promise() -> None:
    assert evidence.unproved() == []


@every_component
def test_evidence_names_tests_that_exist(component: str) -> None:
    record = records.read(component)
    for name in [*evidence.checks(record), *evidence.twins(record)]:
        assert evidence.exists(name), f"{name} is gone: run `nox -s evidence`"


@pytest.mark.parametrize("component", [each for each in components() if promises(each)])
def test_each_part_is_recorded(component: str) -> None:
    assert set(records.PARTS) <= records.read(component).keys(), f"{component} lacks a part"


def test_what_did_not_run_is_kept() -> None:
    before = merged(raw(TEST, OTHER))
    after = merged(raw(TEST, python="CPython 3.12.1"), record=before)
    assert set(evidence.checks(after)) == {TEST, OTHER}
    assert evidence.checks(after)[TEST]["on"] == [0, 1]
    assert evidence.checks(after)[OTHER]["on"] == [0]
    untouched = merged(raw("tests/x.py::test_y", guarantees=["MQ-1"]), record=after)
    assert set(evidence.checks(untouched)) == {TEST, OTHER}


def test_what_is_of_an_earlier_version_is_told_until_it_runs_again() -> None:
    record = merged(raw(TEST, OTHER))
    record["proved"]["files"] = {"reference_impl/caches/ttl_cache.py": "earlier"}
    merged(raw(TEST), record=record)
    assert [entry.get("old", False) for entry in evidence.checks(record).values()] == [False, True]
    assert "1 of 2 tests are of an earlier version" in evidence.told(record)


def test_quick_results_do_not_replace_full_ones() -> None:
    told = {"kind": "threads", "told": "by opcode", "exhausted": True, "schedules": 9}
    record = merged(raw(TEST, profile="full", explored=[told]))
    merged(raw(TEST), raw(TEST, python="CPython 3.12.1"), record=record)
    assert evidence.explored(record)["threads"] == 9
    assert evidence.checks(record)[TEST]["on"] == [0]
    assert evidence.checks(record)[TEST]["quick"] == [1]
    assert record["proved"]["seconds"] == {"full 3.13": 2.0, "quick 3.13": 4.0}


def test_a_test_that_is_gone_is_dropped() -> None:
    gone = "tests/docs/test_machinery.py::test_that_was_removed"
    assert set(evidence.checks(merged(raw(TEST, gone)))) == {TEST}


def test_evidence_of_another_source_is_refused() -> None:
    stale = raw(TEST)
    stale["sources"] = {}
    with pytest.raises(SystemExit, match="has changed since"):
        merged(stale)


def test_evidence_with_a_failed_test_is_refused() -> None:
    with pytest.raises(SystemExit, match="is_a_module_of_its_own failed"):
        merged(raw(TEST, outcome="failed"))


def test_a_record_that_differs_by_its_date_alone_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "EVIDENCE", tmp_path)
    assert records.write(merged(raw(TEST)))
    record = records.read(COMPONENT)
    assert record["proved"] == merged(raw(TEST))["proved"]
    record["proved"]["date"] = "2001-01-01"
    assert not records.write(record)
    with pytest.raises(ValueError, match="over 49,152"):
        records.write(
            {"component": COMPONENT, "figures": {"files": {}, "note": "x" * records.LIMIT}}
        )


def test_the_page_of_a_guarantee_shows_its_check_its_twin_and_its_command() -> None:
    twin: dict[str, Any] = {"guarantees": [], "twins": ["TC-1"], "fault": "forgets"}
    twin["fails"] = ["KeyError: 'a'"]
    file = "tests/docs/test_machinery.py"
    source = [file, "test_a_twin_is_a_module_of_its_own"]
    record = merged(raw(TEST, source=source), raw(OTHER, **twin))
    page = pages.component_pages(record, "TTLCache")[EVIDENCE / "ttl_cache.md"]
    section = page.partition("### TC-1 {")[2].partition("\n### ")[0]
    assert "nox -s verify -- TC-1" in section
    assert "def test_a_twin_is_a_module_of_its_own() -> None:" in section
    assert "| forgets | `` KeyError: 'a' `` |" in section
