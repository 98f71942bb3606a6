"""The one place where run_sync's tests look inside: at what no caller can see or bring about."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@contextmanager
def opaque_loops(m: ModuleType) -> Iterator[None]:
    """Loops without the attributes that asyncio's have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(m, "_settings", lambda loop: loop.no_such_attribute)
        yield


def idle(m: Any) -> tuple[int, int]:
    """How many loops and threads wait for calls."""
    return len(m._loops._things), len(m._helpers._things)


def close(m: Any) -> None:
    """What is done before a fork, and at exit."""
    m._close_idle()


def reopen(m: Any) -> None:
    """What is done in the parent after a fork."""
    m._reopen()


@contextmanager
def as_a_child(m: Any) -> Iterator[None]:
    """After a fork at which other threads held every lock; in the end the parent is back."""
    with pytest.MonkeyPatch.context() as patch, m._loops._lock, m._helpers._lock:
        for name in ("_loops", "_helpers"):
            patch.setattr(m, name, None)  # to be put back
        m._start_anew()
        yield
        m._close_idle()


@contextmanager
def another_process(m: ModuleType) -> Iterator[Callable[[], None]]:
    """Gives what makes this process another one than that which made the loops so far."""
    with pytest.MonkeyPatch.context() as patch:
        yield lambda: patch.setattr(m, "os", SimpleNamespace(getpid=lambda: -1))


def close_abandoned(m: Any) -> None:
    """Close the loop that another process's child has set aside."""
    m._abandoned.pop().close()


class Interrupts:
    """KeyboardInterrupt in the caller's wait, each time that `go_on` of that wait is set."""

    def __init__(self, m: ModuleType, go_on: list[threading.Event]) -> None:
        self.over = threading.Event()  # it waits without an interrupt, or has stopped waiting
        self.helpers: list[Any] = []
        self.jobs: list[Any] = []
        self._patch = pytest.MonkeyPatch()
        helper: Any = vars(m)["_Helper"]
        wait_for, stop = helper._wait_for, helper.close

        def interrupted(helper: Any, job: Any) -> None:
            self.helpers.append(helper)
            self.jobs.append(job)
            if len(self.jobs) <= len(go_on):
                assert go_on[len(self.jobs) - 1].wait(60)
                raise KeyboardInterrupt
            self.over.set()
            wait_for(helper, job)

        def stopped(helper: Any) -> None:
            self.over.set()
            stop(helper)

        self._patch.setattr(helper, "_wait_for", interrupted)
        self._patch.setattr(helper, "close", stopped)

    def __enter__(self) -> "Interrupts":
        return self

    def __exit__(self, *_: object) -> None:
        self.helpers[0].close()
        self._patch.undo()

    @property
    def has_ended(self) -> bool:
        """Whether one thread did one job, and is gone."""
        return set(self.jobs) == {self.jobs[0]} and not self.helpers[0]._thread.is_alive()


@contextmanager
def interrupted_before_it_begins(m: ModuleType) -> Iterator[list[bool]]:
    """The helper comes to the job when its caller has given up; whether that was to wait."""
    given_up, still_to_come = threading.Event(), list[bool]()
    job: Any = vars(m)["_Job"]

    class Late(job):  # type: ignore[misc]
        def run(self) -> None:
            assert given_up.wait(60)
            super().run()

        def interrupt(self) -> bool:
            still_to_come.append(bool(super().interrupt()))
            given_up.set()
            return still_to_come[-1]

    def interrupted(helper: Any, job: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(m, "_Job", Late)
        patch.setattr(vars(m)["_Helper"], "_wait_for", interrupted)
        yield still_to_come


@contextmanager
def impatient(m: ModuleType, seconds: float = 0.05) -> Iterator[list[str | None]]:
    """It looks again soon at a call that is late; gives what it has seen so far."""
    helper: Any = vars(m)["_Helper"]
    look, seen = helper._place, list[str | None]()

    def place(helper: Any) -> str | None:
        seen.append(look(helper))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(m, "_BLOCKED_AFTER", seconds)
        patch.setattr(helper, "_place", place)
        yield seen


def shelf(m: Any) -> Any:
    """A shelf of idle things on which there is one place."""
    m._KEPT = 1
    return m._Shelf()


def things(shelf: Any) -> list[Any]:
    """What stands there."""
    return list(shelf._things)
