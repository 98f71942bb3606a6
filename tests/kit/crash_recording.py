"""The trace of a crash: the first crash point that loses, and the same one as it should be."""

import importlib
import linecache
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.kit.crash_points import Call, Place, Run, crash_at, crashes
from tests.kit.recording import Run as Recording
from tests.kit.recording import Step
from tests.kit.showing import excerpts, packed, tell

LANES = {"P1": "first process", "others": "a producer", "P2": "after the restart"}
_FUNCTIONS = {"P1": "before", "others": "between", "P2": "after"}


def record(scene: Any) -> dict[str, Any]:
    """What a trace tells of its run.

    Raises:
        AssertionError: no crash point loses, or the file as it is loses at the same one.
        ValueError: a sentence is of no step.
    """
    check, broken = _check(scene), scene.module(broken=True)
    found = ((point, run) for point, run in enumerate(crashes(broken, check)) if run.failure)
    point, lost = next(found, (-1, None))
    assert lost is not None, f"{scene.id}: no crash point loses"
    whole = crash_at(-1, broken, check)
    points = 1 + sum(call.changes for call in whole.calls if call.by == "before")
    trace: dict[str, Any] = {"found": {"schedule": point + 1, "by": "crash point", "bound": points}}
    trace |= _told(lost, check, scene, scene.story)
    same = crash_at(point, scene.module(broken=False), check)
    assert not same.failure, f"{scene.id}: as it is, crash point {point + 1}: {same.failure}"
    return trace | {"fix": {"say": scene.fix, **_told(same, check, scene, ())}}


def exhaust(scene: Any) -> int:
    """Run every crash point of the file as it is; how many there are."""
    point = 0
    for point, run in enumerate(crashes(scene.module(broken=False), _check(scene)), 1):
        assert not run.failure, f"{scene.id}: as it is, crash point {point}: {run.failure}"
    return point


def _check(scene: Any) -> Any:
    return importlib.import_module(f"tests.scenes.checks.{scene.check.removesuffix('.py')}")


def _told(run: Run, check: Any, scene: Any, story: Any) -> dict[str, Any]:
    steps = [*_steps(run, check, scene.functions)]
    shown = {each["t"] for each in steps}
    lanes = {lane: role for lane, role in (LANES | scene.roles).items() if lane in shown}
    outcome = {"kind": "holds", "text": "The check holds."}
    if run.failure:
        outcome = {"kind": "exception", "text": run.failure}
    tell(Recording(lanes, steps, outcome), story)
    paths = {each["file"]: each["_path"] for each in steps}
    texts = {name: "".join(linecache.getlines(path)) for name, path in paths.items()}
    originals = {name: _original(path).read_text("utf-8") for name, path in paths.items()}
    source = excerpts(steps, texts, originals)
    return {"lanes": lanes, "source": source, "steps": packed(steps), "outcome": outcome}


def _steps(run: Run, check: Any, functions: Sequence[str]) -> Iterator[Step]:
    """The starts, the calls that are told, the death, and what is found in the end."""
    state = _state(run.files, [], check)
    for lane, function in _FUNCTIONS.items():
        if not hasattr(check, function):
            continue
        place, skipped = _line(check, function), 0
        if lane != "others":
            yield _step(lane, "starts", place, state)
        for call in (call for call in run.calls if call.by == function):
            wanted = _place(call, check, functions)
            state = _state(call.files, call.server, check)
            if wanted or lane == "others":
                place = wanted or place
                yield _step(lane, call.words, place, state, skipped)
                skipped = 0
            else:
                skipped += call.changes
        if lane == "P1" and run.died:
            yield _step(lane, "dies", place, state, skipped) | {"dies": True}
        elif lane == "P2":
            found = run.failure.partition(": ")[2] or "what must be there"
            line = run.line or max(n for _, _, n in check.after.__code__.co_lines() if n)
            yield _step(lane, f"finds: {found}", _line(check, function, line), state, skipped)


def _place(call: Call, check: Any, functions: Sequence[str]) -> Place | None:
    """The innermost of these functions that made the call; none where it is folded."""
    if call.names and all(_is_aside(name, check) for name in call.names):
        return None
    if any(f"!{each.function}" in functions for each in call.places):
        return None
    return next((each for each in call.places if each.function in functions), None)


def _is_aside(name: str, check: Any) -> bool:
    return any(fnmatch(name, pattern) for pattern in getattr(check, "ASIDE", ()))


def _state(files: dict[str, str], server: list[str], check: Any) -> dict[str, str]:
    shown = {name: text for name, text in files.items() if not _is_aside(name, check)}
    return shown | {"server": repr(server)}


def _step(
    lane: str, call: str, place: Place, state: dict[str, str], skipped: int = 0
) -> dict[str, Any]:
    code = linecache.getline(place.path, place.line).strip()
    step = {"t": lane, "file": _original(place.path).name, "line": place.line}
    step |= {"fn": place.function, "code": code, "call": call, "shared": state}
    return step | {"_path": place.path} | ({"skipped": skipped} if skipped else {})


def _line(check: Any, function: str, line: int = 0) -> Place:
    """In the check: the function's first line, or another one."""
    code = getattr(check, function).__code__
    return Place(check.__file__, line or code.co_firstlineno, function)


def _original(path: str) -> Path:
    """The file on the disk; a twin's is named as if it was below it."""
    return next(each for each in (Path(path), Path(path).parent) if each.is_file())
