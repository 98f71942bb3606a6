"""Each scene holds as it is, loses with its fault, and its recorded trace is what happens today."""

import json
import sys
from dataclasses import replace
from typing import Any

import pytest

from tests.kit.profile import budget, is_brief
from tests.kit.recording import Run
from tests.kit.showing import tell
from tests.scenes import FOLDER, MOST_BYTES, MOST_STEPS, Edit, Scene, scenes
from tests.scenes.making import apart, check_size, exhaust, find, judge, record

each_scene = pytest.mark.parametrize("scene", scenes().values(), ids=list(scenes()))
# Crashes fork, and are run in interpreters of their own: test_crashes.py.
each_search = pytest.mark.parametrize(
    "scene", [s for s in scenes().values() if s.kind != "crash"], ids=lambda scene: scene.id
)
RUN_AGAIN = "record it again: python -m tests.scenes"


def explorable(scene: Scene) -> None:
    if scene.kind == "threads":
        pytest.importorskip("interleave_test", reason="needs Python >= 3.12")


def recorded(scene: Scene) -> dict[str, Any]:
    assert scene.trace.is_file(), f"{RUN_AGAIN} {scene.id}"
    found: dict[str, Any] = json.loads(scene.trace.read_text(encoding="utf-8"))
    return found


def is_of_this_python(trace: dict[str, Any]) -> bool:
    """Minor versions differ in bytecode, and in the lines that they report for a lambda."""
    major, minor, _ = trace["python"].split(".")
    return (int(major), int(minor)) == sys.version_info[:2]


@each_scene
def test_the_trace_is_of_todays_files(scene: Scene) -> None:
    trace = recorded(scene)
    assert trace["twin"] == scene.twin(), f"the file has changed: {RUN_AGAIN} {scene.id}"
    assert trace["made"] == scene.made(), f"the scene has changed: {RUN_AGAIN} {scene.id}"
    check_size(trace)


@each_search
def test_the_fault_loses_as_it_was_recorded(scene: Scene) -> None:
    explorable(scene)
    trace = recorded(scene)
    if is_of_this_python(trace):
        holds = trace.pop("holds", None)
        assert holds is None or holds > 1, "one schedule is no search"
        again = json.loads(json.dumps(record(scene))) | {"python": trace["python"]}
        assert again == trace, f"another schedule than on the page: {RUN_AGAIN} {scene.id}"
    else:
        with apart():
            number, _ = find(scene, scene.module(broken=True))
        assert scene.by == "opcode" or number == trace["found"]["schedule"]


@each_search
def test_the_file_as_it_is_holds(scene: Scene) -> None:
    explorable(scene)
    trace = recorded(scene)
    limit = 20 if is_brief() else budget(500, 200_000)
    ran = exhaust(scene, limit)
    if ran < limit and is_of_this_python(trace):
        assert ran == trace["holds"], f"another search than on the page: {RUN_AGAIN} {scene.id}"


def test_each_trace_is_of_a_scene() -> None:
    folder = next(iter(scenes().values())).trace.parent
    assert {path.stem for path in folder.glob("*.json")} == set(scenes())


def test_each_check_is_used() -> None:
    assert {path.name for path in (FOLDER / "checks").glob("*.py")} == {
        scene.check for scene in scenes().values()
    }


def any_scene() -> Scene:
    return next(iter(scenes().values()))


def test_a_loss_that_is_not_the_stated_one_is_refused() -> None:
    scene = any_scene()
    other = Run({}, [], {"kind": "exception", "text": "OSError: no space left"})
    with pytest.raises(AssertionError, match="must lose by"):
        judge(scene, other)


def test_an_edit_whose_text_is_gone_is_refused() -> None:
    scene = replace(any_scene(), edits=(Edit("text that no file has", ""),))
    with pytest.raises(ValueError, match="has no 'text that no file has'"):
        scene.module(broken=True)


def test_a_sentence_without_a_step_is_refused() -> None:
    run = Run({"T1": "reader"}, [{"t": "T1", "code": "found = 1"}], {})
    tell(run, [{"thread": "reader", "line": "found", "text": "It finds 1."}])
    assert run.steps[0]["say"] == "It finds 1."
    with pytest.raises(ValueError, match="no step 2 of T1 has 'found'"):
        tell(run, [{"thread": "T1", "line": "found", "nth": 2, "text": "Again."}])
    with pytest.raises(ValueError, match="two sentences"):
        tell(run, [{"thread": "T1", "line": "found", "text": "Once more."}])


def test_a_trace_that_nobody_would_read_is_refused() -> None:
    step = {"t": "T1", "fn": "get", "code": "found = 1"}
    with pytest.raises(ValueError, match=f"{MOST_STEPS} at most"):
        check_size({"scene": "long", "steps": [step] * (MOST_STEPS + 1)})
    with pytest.raises(ValueError, match=f"{MOST_BYTES} at most"):
        check_size({"scene": "wide", "steps": [step | {"code": "x" * MOST_BYTES}]})
