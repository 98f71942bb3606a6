"""Circles of loads through caches for threads and caches for tasks: errors, and no hang."""

import asyncio
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import reference_impl.caches.async_ttl_cache as ours
from reference_impl.caches.ttl_cache import TTLCache
from tests.caches.async_ttl_cache import faults
from tests.caches.async_ttl_cache.helpers import COMPONENT, Loader, load_42
from tests.kit.fakes import PATIENCE, Beside, Gate, turns
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin, patch, within

WAITS_FOR_ITSELF = "would wait for itself"


def patience(m: ModuleType) -> float:
    """How long a thread waits for a loop: with a twin, which lets it hang, not for long."""
    return 0.5 if "__twin" in m.__name__ else PATIENCE


class Bridge:
    """Lets the loop's tasks ask a TTLCache in a thread, and threads ask an AsyncTTLCache."""

    def __init__(self, m: ModuleType) -> None:
        self.loop = asyncio.get_running_loop()
        self.tasks: Any = m.AsyncTTLCache()
        self.threads = TTLCache[str, Any]()
        self.patience = patience(m)

    def by_thread(self, key: str, loader: Callable[[], Any]) -> Callable[[], Any]:
        """A loader for tasks: it asks the TTLCache, in a thread with this task's context."""
        return lambda: asyncio.to_thread(self.threads.get_or_load, key, loader)

    def by_task(self, key: str, loader: Callable[[], Any]) -> Callable[[], Any]:
        """A loader for threads: it asks the AsyncTTLCache, in a task with this thread's context."""

        def load() -> Any:
            asking = self.tasks.get_or_load(key, loader)
            return asyncio.run_coroutine_threadsafe(asking, self.loop).result(self.patience)

        return load


async def check_a_circle_from_tasks_through_threads_is_an_error(m: ModuleType) -> None:
    bridge = Bridge(m)
    loader = bridge.by_thread("there", bridge.by_task("here", load_42))
    error = await refused(bridge.tasks.get_or_load("here", loader))
    assert "the load of 'here' would wait for itself" in error
    assert await bridge.tasks.get_or_load("here", load_42) == 42
    assert await asyncio.to_thread(bridge.threads.get_or_load, "there", lambda: 43) == 43


async def refused(asking: Any) -> str:
    """What it says, as it does not hang."""
    try:
        await asking
    except RuntimeError as error:
        return str(error)
    raise AssertionError("it was not refused")


async def check_a_circle_that_two_callers_close_is_an_error(m: ModuleType) -> None:
    """A task leads the one load and a thread the other; either asks for the other's key."""
    bridge, gate = Bridge(m), Gate()
    go_on = asyncio.Event()

    async def from_task() -> Any:
        await go_on.wait()
        return await bridge.by_thread("there", lambda: 42)()

    def from_thread() -> Any:
        gate()
        return bridge.by_task("here", load_42)()

    leading = asyncio.create_task(bridge.tasks.get_or_load("here", from_task))
    thread = asyncio.create_task(bridge.by_thread("there", from_thread)())
    await asyncio.to_thread(gate.await_entered)
    await turns()
    go_on.set()
    gate.open()
    ends = await asyncio.gather(leading, thread, return_exceptions=True)
    assert all(isinstance(end, RuntimeError) for end in ends), ends
    assert all(WAITS_FOR_ITSELF in str(end) for end in ends)
    assert await bridge.tasks.get_or_load("here", load_42) == 42


def check_a_circle_from_threads_through_a_loop_is_an_error(m: ModuleType) -> None:
    """The thread runs a loop of its own; its loader asks for the thread's key, and blocks."""
    threads, tasks = TTLCache[str, Any](), m.AsyncTTLCache()
    errors = list[str]()

    async def back() -> Any:
        try:
            return threads.get_or_load("here", lambda: 42)
        except RuntimeError as error:
            errors.append(str(error))
            raise

    def through_a_loop() -> Any:
        return asyncio.run(tasks.get_or_load("there", back))

    asked = Beside(threads.get_or_load, "here", through_a_loop)
    try:
        asked.result()
    except RuntimeError as error:
        errors.append(str(error))
    assert len(errors) == 2
    assert all("the load of 'here' would wait for itself" in error for error in errors)
    assert threads.get_or_load("here", lambda: 42) == 42
    assert asyncio.run(tasks.get_or_load("there", load_42)) == 42


async def check_other_keys_are_loaded_across_the_caches(m: ModuleType) -> None:
    """No circle: also while other loads of the same caches are under way."""
    bridge, slow = Bridge(m), Loader()
    waiting = asyncio.create_task(bridge.tasks.get_or_load("slow", slow))

    async def plain() -> str:
        return "task"

    deep = bridge.by_thread("b", bridge.by_task("c", bridge.by_thread("d", lambda: "thread")))
    assert await bridge.tasks.get_or_load("a", deep) == "thread"
    assert await bridge.tasks.get_or_load("e", bridge.by_thread("f", lambda: "thread")) == "thread"
    found = await asyncio.to_thread(bridge.threads.get_or_load, "g", bridge.by_task("h", plain))
    assert found == "task"
    slow.gate.set_result("slow")
    assert await waiting == "slow"


async def check_a_thread_that_outlives_its_load_is_no_part_of_it(m: ModuleType) -> None:
    bridge, gate, left = Bridge(m), threading.Event(), list[asyncio.Future[Any]]()

    def later() -> Any:
        assert gate.wait(PATIENCE)
        return bridge.by_task("here", load_42)()

    async def load() -> str:
        left.append(asyncio.ensure_future(asyncio.to_thread(later)))
        await turns()
        return "here"

    assert await bridge.tasks.get_or_load("here", load) == "here"
    await bridge.tasks.delete("here")
    gate.set()
    assert await left[0] == 42


APART = within("caches/ttl_cache", patch(lambda _: None))  # a context variable of its own
EMPTY = Twin("forgets in which load it is", faults.loads_in_an_empty_context, "TimeoutError")
CROSSED = Twin("knows nothing of loads in a TTLCache", APART, "AssertionError: all(isinstance(")
CIRCLES = [
    Proof("AC-6", check_a_circle_from_tasks_through_threads_is_an_error, [EMPTY]),
    Proof("AC-6", check_a_circle_that_two_callers_close_is_an_error, [CROSSED]),
    Proof("AC-6", check_a_circle_from_threads_through_a_loop_is_an_error),
    Proof("AC-6", check_other_keys_are_loaded_across_the_caches),
    Proof("AC-6", check_a_thread_that_outlives_its_load_is_no_part_of_it),
]

test_circles = holding(CIRCLES, ours)
test_circles_catch = failing(CIRCLES, COMPONENT)
