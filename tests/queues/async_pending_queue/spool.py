"""The spool without a loop: its steps, and a process that ends before and after each call."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.queues.async_pending_queue.disk import STATES, files, part
from tests.queues.async_pending_queue.helpers import MEMORY

MOST = 3  # attempts
CALLS = ("rename", "replace", "unlink", "truncate", "link", "lstat")


class End(BaseException):
    """The process ends: nothing runs after it but the next process."""


@dataclass
class Step:
    """Something that an owner does with one file, and what that may leave."""

    name: str
    before: dict[str, bytes]  # the files
    attempts: int  # that were counted before
    do: Callable[[Any], object]
    ends: set[str]  # the names that the file may have afterwards
    counts: set[int]  # the attempts that may be counted, while it is unfinished


def claimed(spool: Any) -> Any:
    """As an owner that claims the file, and goes on."""
    spool.claim("a")
    return spool


QUEUED = {"a.queued": b"old"}
NEWER = {"a.processing": b"old", "a.queued": b"new"}
PROCESSING = {"a.processing": b"old"}
STEPS = [
    Step("claim", QUEUED, 0, claimed, {"a.queued", "a.processing"}, {0, 1}),
    Step("claim again", QUEUED, 1, claimed, {"a.queued", "a.processing"}, {1, 2}),
    Step("claim after the last", QUEUED, MOST, claimed, {"a.queued", "a.processing"}, {MOST}),
    Step(
        "complete", PROCESSING, 0, lambda s: s.complete("a"), {"a.processing", "a.completed"}, {1}
    ),
    Step(
        "complete later",
        PROCESSING,
        2,
        lambda s: s.complete("a"),
        {"a.processing", "a.completed"},
        {2},
    ),
    Step(
        "give up", PROCESSING, 2, lambda s: s.give_up("a", "why"), {"a.processing", "a.error"}, {2}
    ),
    Step(
        "put back", PROCESSING, 0, lambda s: s.put_back("a", 1), {"a.processing", "a.queued"}, {1}
    ),
    Step(
        "put back later",
        PROCESSING,
        2,
        lambda s: s.put_back("a", 2),
        {"a.processing", "a.queued"},
        {2},
    ),
    Step(
        "take back",
        PROCESSING,
        2,
        lambda s: s.put_back("a", 1),
        {"a.processing", "a.queued"},
        {1, 2},
    ),
    Step(
        "take back the first",
        PROCESSING,
        0,
        lambda s: s.put_back("a", 0),
        {"a.processing", "a.queued"},
        {0, 1},
    ),
    Step("put aside", NEWER, 0, lambda s: s.put_back("a", 1), {"a.processing", "a-1.queued"}, {1}),
    Step(
        "put aside later",
        NEWER,
        2,
        lambda s: s.put_back("a", 2),
        {"a.processing", "a-1.queued"},
        {2},
    ),
    Step("recover", PROCESSING, 0, lambda s: s.recover(), {"a.processing", "a.queued"}, {1}),
    Step("recover later", NEWER, 2, lambda s: s.recover(), {"a.processing", "a-1.queued"}, {2}),
]


@contextmanager
def directory_of(step: Step) -> Iterator[Path]:
    """What there is before it."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        directory = Path(folder, "queue")
        directory.mkdir()
        for name, content in step.before.items():
            (directory / name).write_bytes(content)
        if step.attempts:
            (directory / ".a.attempts").write_bytes(bytes(step.attempts))
        yield directory


def owner(m: ModuleType, directory: Path) -> Any:
    """A spool that knows what is counted, as its owner does."""
    spool = part(m).Spool(str(directory), MOST)
    for sidecar in directory.glob(".*.attempts"):
        spool.attempts[sidecar.name[1:-9]] = sidecar.stat().st_size
    return spool


def check(m: ModuleType, step: Step, directory: Path) -> None:
    """The file is there once, under a name that the step may leave, and its count is right."""
    found = files(directory)
    for content in step.before.values():
        names = [name for name, data in found.items() if data == content]
        assert len(names) == 1, f"{content!r} is there as {names}"
    (name,) = (name for name, data in found.items() if data == b"old")
    assert name in step.ends, f"it is {name}"
    stem, state = name.rsplit(".", 1)
    if state == "error":
        assert "why" in (directory / f"{stem}.error.json").read_text()
    counted = 0
    if state in STATES[:2]:
        sidecar = directory / f".{stem}.attempts"
        counted = sidecar.stat().st_size if sidecar.exists() else 0
        counted = max(counted, 1) if state == "processing" else counted
        assert counted in step.counts, f"it has {counted} attempts"
    recovered, faults = part(m).Spool(str(directory), MOST).recover()
    assert not faults
    assert sorted(files(directory).values()) == sorted(step.before.values()), "recovery lost one"
    if state == "processing":
        assert recovered == 1, "it is not recovered"
        (back,) = (name for name, data in files(directory).items() if data == b"old")
        count = directory / f".{back.removesuffix('.queued')}.attempts"
        assert count.stat().st_size == max(1, counted), "recovery counts otherwise"
    assert not list(directory.glob(".pending-*")), "a temporary is left"


def each_end(m: ModuleType, step: Step) -> int:
    """End the process before and after each call of the step; returns how many points there are."""
    for point in range(1, 200):
        with directory_of(step) as directory, pytest.MonkeyPatch.context() as patch:
            spool, passed = owner(m, directory), 0

            def pass_point(point: int = point) -> None:
                nonlocal passed
                passed += 1
                if passed == point:
                    raise End

            def ending(call: Callable[..., Any]) -> Callable[..., Any]:
                def ended(*arguments: Any, **options: Any) -> Any:
                    if passed >= point:  # it is dead: a clean-up does not run  # noqa: B023
                        raise End
                    pass_point()
                    result = call(*arguments, **options)
                    pass_point()
                    return result

                return ended

            for name in CALLS:
                patch.setattr(os, name, ending(getattr(os, name)))
            owner_of_move = part(m)
            move = ending(owner_of_move.rename_exclusively)
            patch.setattr(owner_of_move, "rename_exclusively", move)
            try:
                step.do(spool)
            except End:
                patch.undo()
                try:
                    check(m, step, directory)
                except AssertionError as error:
                    raise AssertionError(f"{step.name} ended at {point}: {error}") from None
            else:
                return point - 1
    raise AssertionError("there is no end to it")
