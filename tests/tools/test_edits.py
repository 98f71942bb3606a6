"""The edits that the proofs tell apart: each can be made today, and each breaks something else."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.edits import run
from tests.edits.tables import EDITS, PROVED_AS
from tests.kit import COMPONENTS, catalogue

FAMILIES_WITH_PARTS = {path.partition("/")[0] for path in catalogue.parts()}


@pytest.mark.parametrize("component", EDITS)
def test_each_can_be_made(component: str) -> None:
    closure = catalogue.closure(PROVED_AS.get(component, component))
    for edit in EDITS[component]:
        path = COMPONENTS / f"{edit.file or component}.py"
        assert path in closure, f"{edit.name}: {edit.file} is not copied with it"
        source = path.read_text(encoding="utf-8")
        changed = edit.applied(source)
        assert changed != source
        compile(changed, str(path), "exec")


@pytest.mark.parametrize("component", EDITS)
def test_their_guarantees_are_promised(component: str) -> None:
    for edit in EDITS[component]:
        assert edit.broken | edit.tolerated <= run.proved(component), edit.name
        assert not edit.broken & edit.tolerated, edit.name
        assert re.fullmatch(r"[a-z].*[^.]", edit.name), "it completes 'the copy that …'"


def test_every_component_has_edits() -> None:
    assert sorted(EDITS) == catalogue.components()


@pytest.mark.parametrize("component", EDITS)
def test_they_are_told_apart(component: str) -> None:
    edits = [edit for edit in EDITS[component] if not edit.is_harmless]
    assert len(edits) >= 6
    assert len({edit.name for edit in EDITS[component]}) == len(EDITS[component])
    assert len(run.told_apart(component)) >= 6
    assert len(edits) < len(EDITS[component]), "and what is harmless breaks nothing"


@pytest.mark.parametrize("family", sorted({name.partition("/")[0] for name in EDITS}))
def test_parts_and_siblings_are_edited_too(family: str) -> None:
    edited = {
        edit.file
        for component, edits in EDITS.items()
        if component.startswith(f"{family}/")
        for edit in edits
    }
    assert edited - {""}
    if family in FAMILIES_WITH_PARTS:
        assert edited & set(catalogue.parts())


def test_an_edit_is_told_by_its_guarantee() -> None:
    """Engine and edits, really: what the edit must break is BROKEN, and the other one holds."""
    (edit,) = [each for each in EDITS["caches/sharded_cache"] if each.breaks == "SC-2"]
    found = run.outcome("caches/sharded_cache", edit, ["SC-1", "SC-2"])
    assert (found.broken, found.missed, found.wronged) == ({"SC-2"}, set(), set())
    # A part of its checks explores threads.
    explored = sys.version_info >= (3, 12)
    assert found.guarantees["SC-1"]["word"] == ("holds" if explored else "not shown")
    assert found.as_dict()["broken"]["SC-2"].startswith("AssertionError: ")
    assert not found.is_whole
    assert found.told().startswith("rounds the shares down: breaks SC-2 (")


def test_what_is_missed_or_wronged_is_told() -> None:
    """An edit that is said to break what it does not, and not to break what it does."""
    (edit,) = [each for each in EDITS["caches/sharded_cache"] if each.breaks == "SC-2"]
    words = {"SC-1": "BROKEN", "SC-2": "holds", "SC-3": "suspect"}
    guarantees = {
        name: {"word": word, "reason": f"{name}: {'because ' * 20}", "losing": None}
        for name, word in words.items()
    }
    found = run.Outcome(edit, guarantees, 1.0, is_whole=True)
    assert (found.broken, found.missed, found.wronged) == ({"SC-1"}, {"SC-2"}, {"SC-1"})
    assert found.told().endswith("breaks SC-1 (1 s)  MISSED: SC-2  WRONGED: SC-1")
    assert found.as_dict()["other"] == {"SC-3": "suspect"}
    assert len(found.as_dict()["broken"]["SC-1"]) <= 60


def test_recording_keeps_what_did_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run, "RECORD", tmp_path / "edits.json")
    first, second, *_ = EDITS["caches/sharded_cache"]
    lost = {"SC-1": {"word": "BROKEN", "losing": {"schedule": 47}}}
    for seconds, edit in ((1.0, second), (2.0, first), (3.0, second)):
        outcome = run.Outcome(edit, lost, seconds, is_whole=True)
        run.record("caches/sharded_cache", [outcome])
    found = json.loads(run.RECORD.read_text(encoding="utf-8"))["caches/sharded_cache"]
    assert [(each["edit"], each["seconds"]) for each in found["edits"]] == [
        (first.name, 2.0),
        (second.name, 3.0),
    ]
    assert found["edits"][0]["broken"] == {"SC-1": "schedule 47"}
    options = run.Options(new=True)
    wanted = [e for e in EDITS["caches/sharded_cache"] if options.wants("caches/sharded_cache", e)]
    assert wanted == EDITS["caches/sharded_cache"][2:]
