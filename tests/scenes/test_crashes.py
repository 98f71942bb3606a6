"""Crash scenes: each trace is what happens today, and the file as it is loses at no crash point."""

import json
import sys
from typing import Any

import pytest

from tests.kit.process import run_python
from tests.scenes import Scene, scenes

CRASHES = {name: scene for name, scene in scenes().items() if scene.kind == "crash"}
# The processes are forked, which wants an interpreter without other threads.
RECORD = """
import json
from tests.scenes import scenes
from tests.scenes.making import exhaust, record
scene = scenes()[{name!r}]
print(json.dumps(record(scene) | {{"holds": exhaust(scene)}}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="crash points are recorded on Linux")
@pytest.mark.parametrize("scene", CRASHES.values(), ids=list(CRASHES))
def test_each_crash_point_ends_as_it_was_recorded(scene: Scene) -> None:
    recorded: dict[str, Any] = json.loads(scene.trace.read_text(encoding="utf-8"))
    today = json.loads(run_python(RECORD.format(name=scene.id)).stdout)
    message = f"record it again: python -m tests.scenes {scene.id}"
    assert today | {"python": recorded["python"]} == recorded, message
