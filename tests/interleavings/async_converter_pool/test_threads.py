"""AsyncConverterPool's threads under every schedule: a conversion is cancelled, or it runs."""

import asyncio
import collections
import logging
import queue
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import reference_impl.queues.async_converter_pool as ours
from tests.interleavings.async_converter_pool.world import world
from tests.kit.explore import Interleavings
from tests.kit.primitives import rebind
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Twin
from tests.queues.async_converter_pool import faults
from tests.queues.async_converter_pool.helpers import COMPONENT


class Line:
    """A loop whose callbacks stand in one line, and whose timers are due when it is empty."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Callable[[], object]] = queue.Queue()
        self.soon: collections.deque[Any] = collections.deque()
        self.timers: list[Any] = []

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False

    def time(self) -> float:
        return 0.0

    def create_future(self) -> asyncio.Future[Any]:
        loop: Any = self
        return asyncio.Future(loop=loop)

    def create_task(self, coroutine: Any, **options: Any) -> Any:
        loop: Any = self
        return asyncio.Task(coroutine, loop=loop, **options)

    def call_soon(self, call: Any, *arguments: Any, context: Any = None) -> Any:
        loop: Any = self
        self.soon.append(asyncio.Handle(call, arguments, loop, context))
        return self.soon[-1]

    def call_soon_threadsafe(self, call: Any, *arguments: Any, context: Any = None) -> Any:
        self.calls.put(partial(call, *arguments))

    def call_at(self, when: float, call: Any, *arguments: Any, context: Any = None) -> Any:
        loop: Any = self
        self.timers.append(asyncio.TimerHandle(when, call, arguments, loop, context))
        return self.timers[-1]

    call_later = call_at

    def _timer_handle_cancelled(self, timer: Any) -> None:
        self.timers.remove(timer)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        loop: Any = self
        asyncio._set_running_loop(loop)
        try:
            task = self.create_task(coroutine)
            while not task.done():
                if self.soon:
                    handle = self.soon.popleft()
                    if not handle.cancelled():
                        handle._run()
                elif self.calls.empty() and self.timers:
                    self.soon.append(self.timers.pop(self.timers.index(min(self.timers))))
                else:
                    self.calls.get()()
            return task.result()
        finally:
            asyncio._set_running_loop(None)


def check_hand_over(m: ModuleType) -> None:
    """The pool cancels, at its timeout, what a thread may be about to begin.

    A conversion that begins when its file has been moved has been abandoned, and counts as that.
    """
    ran: list[str] = []
    given_up: list[str] = []
    submitted: list[str] = []
    threads: list[Any] = []
    pool: Any = None

    def thread(**options: Any) -> Any:
        threads.append(threading.Thread(**options))
        return threads[-1]

    def convert(path: Path) -> str:
        ran.append(path.name)
        if not path.exists() and not pool.stats.abandoned:
            given_up.append(path.name)
        return path.name

    async def submit(result: str) -> None:
        submitted.append(result)

    async def main() -> None:
        nonlocal pool
        with world(m, "in") as site:
            rebind(m, Thread=thread)
            site.drop("x.csv", "x")
            converter = m.Converter("c", site.boxes["in"], ("*.csv",), convert)
            pool = m.AsyncConverterPool([converter], submit, convert_timeout=1.0)
            async with pool:
                while not pool.stats.running:
                    await asyncio.sleep(0)
            ends = site.texts("done"), site.texts("error")
            assert ends == (["x"] * len(submitted), ["x"] * (1 - len(submitted)))

    Line().run(main())
    for each in threads:
        each.join()
    assert len(ran) == 1 or not (ran or submitted)
    assert not given_up, "cancelled, and converted all the same"


HAND_OVER = [
    Proof(
        "CP-3",
        check_hand_over,
        [
            Twin(
                "does not ask whether its conversion was cancelled",
                faults.does_not_ask(),
                "AssertionError: cancelled, and converted all the same",
            )
        ],
    )
]


@pytest.fixture
def _no_names_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log records ask for those, and the explorer's threads have none."""
    monkeypatch.setattr(logging, "logThreads", False)


@pytest.mark.usefixtures("_no_names_of_threads")
@each_proof(HAND_OVER)
def test_a_thread_takes_no_conversion_that_was_cancelled(
    proof: Proof, interleavings: Interleavings
) -> None:
    proof.explore(ours, interleavings)
    interleavings.sample(lambda: proof.check(ours), schedules=200)


@pytest.mark.usefixtures("_no_names_of_threads")
@each_twin(HAND_OVER)
def test_a_thread_that_does_not_ask_is_caught(
    proof: Proof, twin: Twin, interleavings: Interleavings
) -> None:
    proof.catch(twin, COMPONENT, interleavings)
