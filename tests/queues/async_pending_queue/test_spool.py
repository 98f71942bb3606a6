"""AsyncPendingQueue's spool without a loop: ends and interrupts at every point (PQ-1, PQ-4)."""

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reference_impl.queues import async_pending_queue
from tests.kit.interrupts import Ending, Interrupts
from tests.kit.proofs import each_twin_of
from tests.kit.twins import Twin, build, edit, must_fail, within
from tests.queues.async_pending_queue import faults
from tests.queues.async_pending_queue.disk import part, without_exclusive_rename
from tests.queues.async_pending_queue.helpers import COMPONENT, posix
from tests.queues.async_pending_queue.spool import STEPS, Step, check, directory_of, each_end, owner

each_step = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)


@posix
@each_step
@pytest.mark.guarantee("PQ-1")
def test_a_process_that_ends_at_any_call_leaves_the_file_once(step: Step) -> None:
    assert each_end(async_pending_queue, step) > 1


@posix
@pytest.mark.guarantee("PQ-1")
@pytest.mark.parametrize(
    "step", [s for s in STEPS if "back" in s.name or "aside" in s.name], ids=lambda step: step.name
)
def test_where_files_are_linked_recovery_makes_one_name_of_two(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same inode under both names is one file: nothing else is lost or doubled."""
    without_exclusive_rename(monkeypatch, async_pending_queue)
    unlink = os.unlink
    with directory_of(step) as directory:
        spool = owner(async_pending_queue, directory)

        def refuse(path: Any) -> None:
            if str(path).endswith(".processing"):
                raise KeyboardInterrupt
            unlink(path)

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", refuse)
            with pytest.raises(KeyboardInterrupt):
                step.do(spool)
        assert len(list(directory.glob("a*"))) == len(step.before) + 1
        recovered, errors = part(async_pending_queue).Spool(str(directory), 3).recover()
        assert (recovered, errors) == (1, [])
        found = sorted(path.read_bytes() for path in directory.glob("a*"))
        assert found == sorted(step.before.values())


def interrupted(
    interrupts: Interrupts, m: ModuleType, step: Step, twin: Twin | None = None
) -> None:
    def prepare() -> tuple[Any, Any, Path]:
        holder = directory_of(step)
        directory = holder.__enter__()
        return holder, owner(m, directory), directory

    def look(state: tuple[Any, Any, Path], _: Ending) -> None:
        holder, _, directory = state
        try:
            check(m, step, directory)
        finally:
            holder.__exit__(None, None, None)

    def do(state: tuple[Any, Any, Path]) -> None:
        step.do(state[1])

    if twin is None:
        interrupts.prove(prepare, do, look, twice=False)
    else:
        interrupts.catch(prepare, do, look, twin=twin, twice=False)


@each_step
@pytest.mark.guarantee("PQ-1")
def test_an_exception_at_any_point_leaves_the_file_once(interrupts: Interrupts, step: Step) -> None:
    """One that a signal handler raises, Ctrl-C say."""
    interrupted(interrupts, async_pending_queue, step)


BY_NAME = {step.name: step for step in STEPS}
FORGETS = Twin(
    "forgets the count before the file has moved",
    within(
        faults.PART,
        edit(
            "Spool._finish",
            'os.rename(self.path(name, "processing"), target)\nself.forget(name)',
            'self.forget(name)\nos.rename(self.path(name, "processing"), target)',
        ),
    ),
    "AssertionError: it has 1 attempts",
)
LATE = Twin(
    "counts when the file is queued",
    within(
        faults.PART,
        edit("Spool.put_back", "self._count(stem, attempts)", "pass")
        + edit("Spool.put_back", "return stem", "self._count(stem, attempts)\nreturn stem"),
    ),
    "AssertionError: it has 0 attempts",
)
TWINS = [(FORGETS, "give up"), (LATE, "put back")]


@posix
@each_twin_of("PQ-4", *(twin for twin, _ in TWINS))
def test_a_count_that_comes_too_early_or_too_late_is_caught(
    twin: Twin, interrupts: Interrupts
) -> None:
    (name,) = (name for each, name in TWINS if each is twin)
    broken = build(COMPONENT, twin.fault)
    must_fail(twin, lambda: each_end(broken, BY_NAME[name]))
    interrupted(interrupts, broken, BY_NAME[name], twin)
