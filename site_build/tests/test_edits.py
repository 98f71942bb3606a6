"""The table of what the proofs tell apart shows what was recorded."""

import json
from pathlib import Path
from typing import Any

import pytest

from site_build import edits

TITLES = {"caches/ttl_cache": "TTLCache"}


def record(**changes: Any) -> dict[str, Any]:
    edit = {
        "edit": "holds one | more",
        "file": "",
        "harmless": False,
        "whole": True,
        "seconds": 12.34,
        "broken": {"TC-3": "AssertionError: `len(cache)` == 2", "TC-7": "schedule 283"},
        "other": {},
    }
    sources = {"reference_impl/caches/ttl_cache.py": "0123456789abcdef"}
    found = {"sources": sources, "python": "CPython 3.13.0", "edits": [edit | changes]}
    return {"caches/ttl_cache": found}


def rendered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: dict[str, Any]) -> str:
    kept = tmp_path / "edits.json"
    kept.write_text(json.dumps(found), encoding="utf-8")
    monkeypatch.setattr(edits, "RECORD", kept)
    return edits.table(TITLES)


def test_a_row_says_what_broke_and_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = rendered(monkeypatch, tmp_path, record())
    (row,) = [line for line in table.splitlines() if "holds one" in line]
    assert row == (
        "| **TTLCache** (an earlier version) | holds one \\| more "
        "| TC-3 (AssertionError: \\`len(cache)\\` == 2); TC-7 (schedule 283) | 12 |"
    )
    assert table.endswith("Quick profile; CPython 3.13.0.\n")


def test_a_harmless_edit_breaks_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = rendered(monkeypatch, tmp_path, record(harmless=True, broken={}))
    assert "none: it is harmless" in table


def test_it_says_where_not_all_was_proved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = rendered(monkeypatch, tmp_path, record(whole=False))
    assert "TC-7 (schedule 283) \N{DAGGER} |" in table
    assert "\N{DAGGER} Only the guarantees that are named" in table


def test_without_a_record_the_page_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(edits, "RECORD", tmp_path / "edits.json")
    assert "run `python -m tests.edits`" in edits.table(TITLES)


def test_what_is_recorded_can_be_shown() -> None:
    recorded = (
        json.loads(edits.RECORD.read_text(encoding="utf-8")) if edits.RECORD.is_file() else {}
    )
    table = edits.table(dict.fromkeys(recorded, "It"))
    assert sum(len(each["edits"]) for each in recorded.values()) <= len(table.splitlines())
