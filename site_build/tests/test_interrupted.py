"""The table of what interrupts break: it is what is measured, and ours holds."""

import json
import platform
from typing import Any

import pytest

from site_build import interrupted
from site_build.interrupts_table import RECORD as RECORDED

RECORD: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
OURS = ("MemoryQueue", "TTLCache", "TTLCache.get_or_load")
# Those of the others that nothing hangs in, so that they are measured in a moment.
PATIENT = 60.0  # seconds: nothing of these hangs, however busy the machine is
QUICK = ("queue.SimpleQueue", "functools.lru_cache", "cachetools.TTLCache with a lock")


def test_ours_breaks_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupted, "HANGS", PATIENT)
    rows = interrupted.measure(OURS)
    assert {row["subject"] for row in rows} == set(OURS)
    for row in rows:
        assert row["points"] > 1
        assert not row["once"] | row["twice"], f"{row['subject']}, {row['call']}: {row}"


@pytest.mark.skipif(
    platform.python_version() != RECORD["python"], reason="the points differ between versions"
)
@pytest.mark.parametrize("names", [OURS, QUICK])
def test_the_table_shows_what_is_measured(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupted, "HANGS", PATIENT)
    measured = json.loads(json.dumps(interrupted.measure(names)))
    assert measured == [row for row in RECORD["rows"] if row["subject"] in names]


def test_a_peer_that_loses_its_lock_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupted, "HANGS", 0.1)
    queue = next(each for each in interrupted.subjects() if each.name == "queue.Queue")
    monkeypatch.setattr(interrupted, "subjects", lambda: [queue])
    queue.calls = {"put": queue.calls["put"]}
    (row,) = interrupted.measure()
    assert row["once"].keys() == {"hangs"}
