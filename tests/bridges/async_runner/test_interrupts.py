"""AR-1 to AR-5: AsyncRunner interrupted at each point where CPython runs signal handlers."""

import asyncio
import inspect
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import async_runner
from tests.bridges.async_runner.helpers import FILE, Job, descriptors, value
from tests.kit.fakes import PATIENCE, Beside
from tests.kit.interrupts import Ending, Interrupts
from tests.kit.profile import budget
from tests.kit.proofs import each_twin_of
from tests.kit.twins import Twin, build, edit


def until(condition: Callable[[], object], fault: str) -> None:
    """What goes on in other threads comes to its end by itself."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, fault
        time.sleep(0.0005)


class Calls:
    """A runner, what was submitted before, and all that a call may leave behind."""

    def __init__(self, m: ModuleType, *, started: bool = True) -> None:
        self.threads, self.descriptors = threading.active_count(), descriptors()
        self.runner = m.AsyncRunner()
        self.job, self.pending = Job(), None
        if started:
            self.runner.start()
            self.pending = self.runner.submit(self.job())
            assert self.job.begun.wait(PATIENCE)
        self.mine = Job(ends="result")
        self.coro = self.mine()
        self.quick = value("quick")

    def check(self, ending: Ending) -> None:
        """In full use from another thread, as long as it runs; then nothing is left."""
        Beside(self.use).result()
        Beside(self.runner.close).result()
        self.coro.close()
        self.quick.close()
        assert inspect.getcoroutinestate(self.coro) == inspect.CORO_CLOSED
        assert self.mine.begun.is_set() == bool(self.mine.clean), "it was left running"
        assert self.mine.broken == 0, "its clean-up was cancelled"
        if self.pending is not None:
            assert self.pending.cancelled(), "a future never settles"
            assert self.job.clean == 1
        until(lambda: threading.active_count() == self.threads, "a thread is left")
        until(lambda: descriptors() == self.descriptors, "a descriptor is left")
        if isinstance(ending.result, asyncio.Future):
            assert ending.result.done()

    def use(self) -> None:
        try:
            assert self.runner.run(value(1), PATIENCE) == 1
        except RuntimeError as error:
            assert "is closed" in str(error) or "not started" in str(error)


def start(calls: Calls) -> None:
    calls.runner.start()


def enter(calls: Calls) -> None:
    with calls.runner:
        pass


def submit(calls: Calls) -> Any:
    return calls.runner.submit(calls.coro)


def run(calls: Calls) -> Any:
    return calls.runner.run(calls.quick)


def run_out_of_time(calls: Calls) -> Any:
    return calls.runner.run(calls.coro, 0.001)


def close(calls: Calls) -> None:
    calls.runner.close()


def close_in_time(calls: Calls) -> None:
    calls.runner.close(PATIENCE)


def cancel(calls: Calls) -> None:
    assert calls.pending is not None
    calls.pending.cancel()


SWEPT: dict[str, tuple[Callable[[Calls], Any], bool]] = {
    "AR-2 start": (start, False),
    "AR-2 with": (enter, False),
    "AR-3 submit": (submit, True),
    "AR-1 run": (run, True),
    "AR-5 run out of time": (run_out_of_time, True),
    "AR-2 close": (close, True),
    "AR-2 close in time": (close_in_time, True),
    "AR-1 cancel": (cancel, True),
}
