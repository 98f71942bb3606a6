"""A second run mutates only what has changed, and the record adds up as after a whole one."""

from typing import Any

import pytest

from site_build import mutation, scores
from tests.kit.catalogue import components, digests

COMPONENT = components()[0]
SURVIVOR = {"status": "survived", "before": "a < b", "after": "a <= b"}
Functions = dict[str, mutation._Function]
OLD: Functions = {
    "m.x_kept": mutation._Function("kept", 5),
    "m.xǁThingǁchanged": mutation._Function("before", 4),
    "m.x_gone": mutation._Function("gone", 3),
}
NEW: Functions = {
    "m.x_kept": mutation._Function("kept", 5),
    "m.xǁThingǁchanged": mutation._Function("after", 6),
    "m.x_new": mutation._Function("new", 2),
}


def record(mutants: int, *survivors: str, **more: Any) -> dict[str, Any]:
    found = {
        "component": COMPONENT,
        "date": "2026-01-02",
        "files": digests(COMPONENT),
        "python": "CPython",
        "tool": "mutmut",
        "without": [],
        "mutants": mutants,
        "killed": mutants - len(survivors),
        "timeouts": 0,
        "survived": len(survivors),
        "no_tests": 0,
        "survivors": [SURVIVOR | {"function": name} for name in survivors],
    }
    return found | more


def rerun(monkeypatch: pytest.MonkeyPatch, old: Functions, new: Functions) -> Any:
    asked = list[str]()

    def run(component: str, *patterns: str) -> dict[str, Any]:
        asked.extend(patterns)
        return record(8, "Thing.changed", date="2026-02-03")

    given = {"the old source": old}
    monkeypatch.setattr(mutation, "_recorded", lambda *_: "the old source")
    monkeypatch.setattr(mutation, "_functions", lambda _, source: given.get(source, new))
    monkeypatch.setattr(mutation, "run", run)
    before = record(12, "kept", "Thing.changed", "Thing.changed", "gone")
    return mutation.rerun(COMPONENT, before), asked


def test_what_has_changed_is_mutated_and_the_rest_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    result, asked = rerun(monkeypatch, OLD, NEW)
    assert [pattern.rpartition(".")[2] for pattern in asked] == [
        "xǁThingǁchanged__mutmut_*",
        "x_new__mutmut_*",
    ]
    assert scores.checked(result)["mutants"] == 5 + 6 + 2
    assert [each["function"] for each in result["survivors"]] == ["kept", "Thing.changed"]
    assert result["killed"] == 13 - 2
    assert result["date"] == "2026-02-03"


def test_where_no_function_has_changed_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    result, asked = rerun(monkeypatch, OLD, OLD)
    assert asked == []
    assert scores.checked(result)["mutants"] == 12
    assert result["date"] == "2026-01-02"


def test_a_source_that_is_not_in_the_history_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutation, "_git", lambda *arguments: b"commit")
    with pytest.raises(SystemExit, match="mutate it whole"):
        mutation._recorded(COMPONENT, f"reference_impl/{COMPONENT}.py", "not a digest")


def test_a_function_of_a_part_goes_by_the_part_too() -> None:
    """The same name may be in the component."""
    assert mutation._readable("reference_impl.queues.one.x__check_type") == "_check_type"
    named = mutation._readable("reference_impl.queues._shared.xǁThingǁ_get")
    assert named == "_shared.Thing._get"
