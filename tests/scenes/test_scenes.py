"""Each scene holds as it is, loses with its fault, and its recorded trace is what happens today."""

import json
import sys
from typing import Any

import pytest

from tests.kit.profile import budget, is_brief
from tests.scenes import FOLDER, Scene, scenes
from tests.scenes.making import check_size, exhaust, find, judge, record

each_scene = pytest.mark.parametrize("scene", scenes().values(), ids=list(scenes()))
RUN_AGAIN = "record it again: python -m tests.scenes"


def explorable(scene: Scene) -> None:
    if scene.kind == "threads":
        pytest.importorskip("interleave_test", reason="needs Python >= 3.12")


def recorded(scene: Scene) -> dict[str, Any]:
    assert scene.trace.is_file(), f"{RUN_AGAIN} {scene.id}"
    found: dict[str, Any] = json.loads(scene.trace.read_text(encoding="utf-8"))
    return found


def is_of_this_python(trace: dict[str, Any]) -> bool:
    """Bytecode, and so the steps between instructions, differs between minor versions."""
    major, minor, _ = trace["python"].split(".")
    return (int(major), int(minor)) == sys.version_info[:2]


@each_scene
def test_the_trace_is_of_todays_files(scene: Scene) -> None:
    trace = recorded(scene)
    assert trace["twin"] == scene.twin(), f"the file has changed: {RUN_AGAIN} {scene.id}"
    assert trace["made"] == scene.made(), f"the scene has changed: {RUN_AGAIN} {scene.id}"
    check_size(trace)


@each_scene
def test_the_fault_loses_as_it_was_recorded(scene: Scene) -> None:
    explorable(scene)
    trace = recorded(scene)
    if is_of_this_python(trace):
        holds = trace.pop("holds", None)
        assert holds is None or holds > 1, "one schedule is no search"
        again = json.loads(json.dumps(record(scene))) | {"python": trace["python"]}
        assert again == trace, f"another schedule than on the page: {RUN_AGAIN} {scene.id}"
    elif scene.kind != "crash":
        number, _ = find(scene, scene.module(broken=True))
        assert scene.by == "opcode" or number == trace["found"]["schedule"]


@each_scene
def test_the_file_as_it_is_holds(scene: Scene) -> None:
    explorable(scene)
    trace = recorded(scene)
    if scene.kind == "crash":
        return  # recorded together with the loss
    limit = 20 if is_brief() else budget(500, 200_000)
    ran = exhaust(scene, limit)
    if ran < limit and (scene.by == "line" or is_of_this_python(trace)):
        assert ran == trace["holds"], f"another search than on the page: {RUN_AGAIN} {scene.id}"


def test_each_trace_is_of_a_scene() -> None:
    folder = next(iter(scenes().values())).trace.parent
    assert {path.stem for path in folder.glob("*.json")} == set(scenes())


def test_each_check_is_used() -> None:
    assert {path.name for path in (FOLDER / "checks").glob("*.py")} == {
        scene.check for scene in scenes().values()
    }


def test_a_loss_that_is_not_the_stated_one_is_refused() -> None:
    scene = next(iter(scenes().values()))
    from tests.kit.recording import Run

    other = Run({}, [], {"kind": "exception", "text": "OSError: no space left"})
    with pytest.raises(AssertionError, match="must lose by"):
        judge(scene, other)
