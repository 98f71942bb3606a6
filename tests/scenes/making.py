"""Search, replay and record: a scene becomes the trace that the player shows."""

import atexit
import contextlib
import gc
import json
import logging
import os
import platform
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import CoroutineType
from typing import Any
from unittest import mock

from tests.kit import ROOT
from tests.kit.recording import Run, guided, shown_name, tasks, threads
from tests.kit.showing import contended, excerpts, main_steps, packed, tell
from tests.scenes import MOST_BYTES, MOST_STEPS, Scene

# Not all below ROOT, where environments with others' coroutines are.
_OURS = tuple(f"{ROOT / name}{os.sep}" for name in ("reference_impl", "tests"))
_LIMIT = 200_000  # schedules: far above what a scene may need


def included(scene: Scene) -> list[Path]:
    """Where threads are switched, and lines are steps: the scene's file, and those it names."""
    others = {*scene.also, *(edit.file for edit in scene.edits if edit.file)}
    return [scene.path, *(ROOT / f"reference_impl/{name}.py" for name in sorted(others))]


def _nothing(*_: object, **__: object) -> None:
    pass


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Nothing that a module registers, or logs, outlives its exploration."""
    hooks = [(atexit, "register"), (threading, "_register_atexit"), (os, "register_at_fork")]
    with contextlib.ExitStack() as stack:
        for owner, name in hooks:
            if hasattr(owner, name):
                stack.enter_context(mock.patch.object(owner, name, _nothing))
        before = logging.root.manager.disable
        logging.disable()
        stack.callback(logging.disable, before)
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        stack.callback(_close_coroutines)
        yield


def _close_coroutines() -> None:
    """What a schedule has broken off would warn later, in whatever runs then."""
    for each in gc.get_objects():
        if isinstance(each, CoroutineType) and each.cr_code.co_filename.startswith(_OURS):
            with contextlib.suppress(Exception):  # its clean-up needs what is over
                each.close()


def find(scene: Scene, module: Any) -> tuple[int, Any]:
    """The first schedule that loses: its number, and what replays it."""
    model = scene.model(module)
    if scene.kind == "tasks":
        import detangle

        try:
            detangle.explore(
                model,
                strategy=detangle.DFS(max_delays=scene.preemptions),
                runs=_LIMIT,
                database=False,
            )
        except detangle.BugFound as found:
            return found.report.runs, found.report.token
        raise AssertionError(f"{scene.id}: no schedule loses")
    failure = search(scene, module).failure
    assert failure is not None, f"{scene.id}: no interleaving loses"
    return failure.iteration + 1, failure.schedule


def search(scene: Scene, module: Any, limit: int = _LIMIT) -> Any:
    """Every interleaving up to the scene's bound, until one loses."""
    import interleave_test  # pyright: ignore[reportMissingImports]

    return interleave_test.explore(
        scene.model(module),
        strategy="dfs",
        max_preemptions=scene.preemptions,
        granularity=scene.by,
        iterations=limit,
        seed=0,
        include=included(scene),
        raise_on_failure=False,
    )


@apart()
def exhaust(scene: Scene, limit: int = _LIMIT) -> int:
    """Run every schedule, or crash point, of the file as it is; how many there are."""
    if scene.kind == "crash":
        from tests.kit import crash_recording

        return crash_recording.exhaust(scene)
    module = scene.module(broken=False)
    if scene.kind == "tasks":
        import detangle

        strategy = detangle.DFS(max_delays=scene.preemptions)
        model = scene.model(module)
        stats = detangle.explore(model, strategy=strategy, runs=limit, database=False)
        return int(stats.runs)
    result = search(scene, module, limit)
    assert result.failure is None, f"{scene.id}: the file as it is loses\n{result.failure}"
    return int(result.schedules_run)


@apart()
def record(scene: Scene) -> dict[str, Any]:
    """The scene's trace, all of it but the number of schedules of the file as it is."""
    if scene.kind == "crash":
        from tests.kit import crash_recording

        trace = header(scene) | crash_recording.record(scene)
        judge(scene, Run(trace["lanes"], trace["steps"], trace["outcome"]))
        return trace
    broken = scene.module(broken=True)
    number, found = find(scene, broken)
    run, fixed = _replayed(scene, broken, found)
    judge(scene, run)
    trace = header(scene)
    trace["found"] = {"schedule": number, "by": scene.by, "bound": scene.preemptions}
    trace |= _shown(scene, run, scene.story, broken=True)
    if scene.fix:
        assert fixed.outcome["kind"] == "holds", f"{scene.id}: {fixed.outcome}"
        trace["fix"] = {"say": scene.fix, **_shown(scene, fixed, (), broken=False)}
    return trace


def header(scene: Scene) -> dict[str, Any]:
    """What a trace says of its scene."""
    about = {"scene": scene.id, "component": scene.component, "guarantee": scene.guarantee}
    about |= {"title": scene.title, "fault": scene.fault, "kind": scene.kind}
    return about | {"twin": scene.twin(), "made": scene.made(), "python": platform.python_version()}


def _replayed(scene: Scene, broken: Any, found: Any) -> tuple[Run, Run]:
    """The schedule in the broken file, and the same switches in the file as it is."""
    vetted = scene.module(broken=False)
    model, view = scene.model(broken), scene.view(broken)
    other, others = scene.model(vetted), scene.view(vetted)
    if scene.kind == "tasks":
        paths = included(scene)
        return tasks(model, found, view, paths, "tasks"), tasks(
            other, found, others, paths, "tasks"
        )
    run = threads(model, found, view, included(scene))
    return run, guided(other, found, run, others, included(scene))


def judge(scene: Scene, run: Run) -> None:
    """See that it loses as the scene states."""
    kind, _, text = scene.loses.partition(": ")
    outcome = run.outcome
    told = outcome["text"] if outcome["kind"] == "exception" else outcome["kind"]
    if not (told.startswith(kind) and text in told):
        raise AssertionError(f"{scene.id} must lose by {scene.loses!r}, not {outcome}")


def _shown(scene: Scene, run: Run, story: Any, *, broken: bool) -> dict[str, Any]:
    shown = contended(run, scene.view(scene.module(broken=False)))
    tell(shown, story)
    steps = main_steps(shown, scene.lines)
    texts = {scene.path.name: "", **_named(scene, broken=broken)}
    for step in steps:  # a sibling without a fault
        name = step["file"]
        if name not in texts:
            path = Path(step["_code"].co_filename)
            texts[shown_name(str(path))] = path.read_text(encoding="utf-8")
    originals = _named(scene, broken=False)
    result = {"lanes": shown.lanes, "source": excerpts(steps, texts, originals)}
    result |= {"circle": shown.circle} if shown.circle else {}
    return result | {"steps": packed(steps), "outcome": shown.outcome}


def _named(scene: Scene, *, broken: bool) -> dict[str, str]:
    texts = scene.texts(broken=broken)
    return {
        (name.rpartition("/")[2] + ".py") if name else scene.path.name: text
        for name, text in texts.items()
    }


def check_size(trace: dict[str, Any]) -> None:
    """Refuse what a reader, or a page, would find too long."""
    for name, part in (("", trace), (" with the fix", trace.get("fix", {"steps": []}))):
        if len(part["steps"]) > MOST_STEPS:
            steps = "\n".join(f"  {s['t']} {s['fn']}: {s['code']}" for s in part["steps"])
            raise ValueError(
                f"{trace['scene']}{name} has {len(part['steps'])} steps, {MOST_STEPS} at most: "
                f"use a smaller check, or name `functions`\n{steps}"
            )
    size = len(dumps(trace))
    if size > MOST_BYTES:
        raise ValueError(f"{trace['scene']} has {size} bytes, {MOST_BYTES} at most")


def dumps(trace: dict[str, Any]) -> str:
    """As it is written: short, and the same each time."""
    return json.dumps(trace, ensure_ascii=False, separators=(",", ":")) + "\n"
