"""AsyncTTLCache on one loop at a time: others are refused, and the next one takes over."""

import asyncio
import contextlib
import math
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import detangle
import pytest

import reference_impl.caches.async_ttl_cache as ours
from reference_impl.caches.async_ttl_cache import AsyncTTLCache
from tests.caches.async_ttl_cache import faults
from tests.caches.async_ttl_cache.helpers import (
    COMPONENT,
    Loader,
    ask,
    load_42,
    says,
    spy_on_timers,
)
from tests.kit.fakes import Beside, run, turns
from tests.kit.process import run_python
from tests.kit.proofs import Proof, each_twin, failing, holding
from tests.kit.twins import Twin


@contextlib.contextmanager
def other_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A running loop in a thread of its own."""
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        thread = Beside(loop.run_forever)
        try:
            yield loop
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.result()


@contextlib.contextmanager
def swept(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """No task of the loop is left after the block."""
    try:
        yield
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(turns())


PLAIN: dict[str, Callable[[Any], Any]] = {
    "size": lambda cache: cache.size,
    "len": len,
    "in": lambda cache: "key" in cache,
    "stats": lambda cache: cache.stats,
}
USES = PLAIN | {
    "get": lambda cache: cache.get("key"),
    "set": lambda cache: cache.set("key", 2),
    "delete": lambda cache: cache.delete("key"),
    "clear": lambda cache: cache.clear(),
    "cleanup_expired": lambda cache: cache.cleanup_expired(),
    "get_or_load": lambda cache: cache.get_or_load("new", load_42),
    "keys": lambda cache: cache.keys(),
    "items": lambda cache: cache.items(),
    "enter": lambda cache: cache.__aenter__(),
    "leave": lambda cache: cache.__aexit__(None, None, None),
}


async def use(cache: Any, name: str) -> object:
    result = USES[name](cache)
    return await result if asyncio.iscoroutine(result) else result


def check_a_second_running_loop_is_refused(m: ModuleType, name: str) -> None:
    """And it changes nothing."""
    cache = m.AsyncTTLCache()
    with other_loop() as loop:
        asyncio.run_coroutine_threadsafe(cache.set("key", 1), loop).result()
        with pytest.raises(RuntimeError) as caught:
            asyncio.run(use(cache, name))
        assert str(caught.value) == (
            "this cache belongs to another event loop, which is running (or was, when this "
            "process forked): make a cache for each loop, or have that loop use this one, "
            "by asyncio.run_coroutine_threadsafe()"
        )
        answer = asyncio.run_coroutine_threadsafe(cache.items(), loop).result()
        assert answer == [("key", 1)]


def check_many_threads_through_their_own_loops_get_errors_and_no_hang(m: ModuleType) -> None:
    """The original raised or hung only where two of them happened to meet."""
    cache = m.AsyncTTLCache()

    def refused() -> int:
        for _ in range(20):
            with pytest.raises(RuntimeError, match="another event loop"):
                asyncio.run(use(cache, "get"))
        return 20

    with other_loop() as loop:
        asyncio.run_coroutine_threadsafe(cache.set("key", 1), loop).result()
        assert [each.result() for each in [Beside(refused) for _ in range(4)]] == [20] * 4
        answer = asyncio.run_coroutine_threadsafe(cache.get("key"), loop).result()
    assert answer == 1


def check_one_loop_after_another_is_fine_whatever_was_left_behind(m: ModuleType) -> None:
    cache, timers = m.AsyncTTLCache(), list[tuple[float, asyncio.TimerHandle]]()

    async def first() -> None:
        spied = spy_on_timers()
        await cache.set("key", 1)
        await cache.__aenter__()
        ask(cache, Loader(), key="new")
        await turns()
        timers[:] = spied

    async def second() -> None:
        assert await cache.get("key") == 1
        assert [timer.cancelled() for _, timer in timers] == [True]
        assert await cache.get_or_load("new", load_42) == 42
        spied = spy_on_timers()
        async with cache:
            await cache.set("key", 2)
        assert [timer.cancelled() for _, timer in spied] == [True]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    for _ in range(2):
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            with swept(loop):
                loop.run_until_complete(first())  # its load and its clean-up stay behind
                detangle.run(second)
                assert len(cache) == 2
                loop.run_until_complete(cache.clear())


async def generate() -> AsyncIterator[int]:
    yield 1


REFUSED_ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "get []": lambda cache: cache.get([]),
    "set []": lambda cache: cache.set([], 1),
    "set ttl": lambda cache: cache.set("key", 1, -1.0),
    "set ttl of no number": lambda cache: cache.set("key", 1, "1"),
    "delete []": lambda cache: cache.delete([]),
    "get_or_load []": lambda cache: cache.get_or_load([], load_42),
    "get_or_load loader": lambda cache: cache.get_or_load("key", 42),
    "get_or_load generator": lambda cache: cache.get_or_load("key", generate),
    "get_or_load ttl": lambda cache: cache.get_or_load("key", load_42, math.nan),
    "get_or_load stale": lambda cache: cache.get_or_load("key", load_42, stale=-1.0),
    "in []": lambda cache: [] in cache,
}


def check_what_is_refused_binds_nothing(m: ModuleType, name: str) -> None:
    """The loop that has the cache keeps it, and the load that it has begun is stored."""
    cache = m.AsyncTTLCache()
    with contextlib.closing(asyncio.new_event_loop()) as loop:

        async def begin() -> tuple[Loader, asyncio.Task[Any]]:
            loader = Loader()
            (caller,) = ask(cache, loader)
            await turns()
            return loader, caller

        async def end(loader: Loader, caller: asyncio.Task[Any]) -> None:
            loader.gate.set_result("value")
            assert await caller == "value"
            assert await cache.get("key") == "value", "the load was lost"

        async def refused() -> None:
            with pytest.raises((TypeError, ValueError)):
                result = REFUSED_ARGUMENTS[name](cache)
                assert await result

        with swept(loop):
            begun = loop.run_until_complete(begin())
            before = cache.stats
            asyncio.run(refused())
            assert cache.stats == before
            loop.run_until_complete(end(*begun))


def check_the_plain_methods_work_outside_of_any_loop(m: ModuleType) -> None:
    cache = m.AsyncTTLCache()
    assert (len(cache), "key" in cache, cache.stats.misses) == (0, False, 0)
    asyncio.run(cache.set("key", 1))
    assert (cache.size, "key" in cache, cache.stats.misses) == (1, True, 0)


ANY_LOOP = Twin("takes all loops for one", faults.takes_all_loops_for_one, "Failed: DID NOT RAISE")
GONE = Twin("awaits a dead loop's load", faults.all_await_one_task, "RuntimeError: different loop")
BINDS = says("binds first and looks then", faults.uses_it_first, "the load was lost")
REFUSED = Proof("AC-5", check_a_second_running_loop_is_refused, [ANY_LOOP])
LOOPS = [
    Proof("AC-5", check_many_threads_through_their_own_loops_get_errors_and_no_hang),
    Proof("AC-5", check_one_loop_after_another_is_fine_whatever_was_left_behind, [GONE]),
    Proof("AC-5", check_the_plain_methods_work_outside_of_any_loop),
]

test_refused = pytest.mark.parametrize("name", USES)(holding([REFUSED], ours, "name"))


@each_twin([REFUSED])
def test_refused_catches(proof: Proof, twin: Twin) -> None:
    proof.must_fail(twin, COMPONENT, "get")


BINDING = Proof("AC-5", check_what_is_refused_binds_nothing, [BINDS])
test_refused_arguments = pytest.mark.parametrize("name", REFUSED_ARGUMENTS)(
    holding([BINDING], ours, "name")
)


@each_twin([BINDING])
def test_refused_arguments_catch(proof: Proof, twin: Twin) -> None:
    proof.must_fail(twin, COMPONENT, "get []")


test_loops = holding(LOOPS, ours)
test_loops_catch = failing(LOOPS, COMPONENT)


@pytest.mark.guarantee("AC-5")
@pytest.mark.parametrize("name", PLAIN)
def test_a_thread_without_a_loop_is_refused_while_the_loop_runs(name: str) -> None:
    cache = AsyncTTLCache[str, int]()
    with other_loop() as loop:
        asyncio.run_coroutine_threadsafe(cache.set("key", 1), loop).result()
        with pytest.raises(RuntimeError, match="another event loop"):
            PLAIN[name](cache)
    assert PLAIN[name](cache)


@pytest.mark.guarantee("AC-5")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_forked_by_the_running_loop_is_refused() -> None:
    done = run_python(
        """
        import asyncio, os
        from reference_impl.caches.async_ttl_cache import AsyncTTLCache

        cache = AsyncTTLCache()

        async def child():
            try:
                await cache.get("key")
            except RuntimeError as error:
                print(error, flush=True)
            print(await AsyncTTLCache().get("key"), flush=True)
            os._exit(0)

        async def parent():
            await cache.set("key", 1)
            pid = os.fork()
            if pid == 0:
                asyncio._set_running_loop(None)
                asyncio.run(child())
            os.waitpid(pid, 0)
            print(await cache.get("key"))

        asyncio.run(parent())
        """
    )
    first, *rest = done.stdout.splitlines()
    assert "forked" in first
    assert rest == ["None", "1"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_the_first_interrupt_cancels_the_loads() -> None:
    done = run_python(
        """
        import asyncio, os, signal
        from reference_impl.caches.async_ttl_cache import AsyncTTLCache

        async def load():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.get_running_loop().create_future()
            finally:
                print("cleaned up")

        async def main():
            cache = AsyncTTLCache()
            async with cache:
                await cache.get_or_load("key", load)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert done.stdout == "cleaned up\ninterrupted\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_a_signal_handler_of_the_loop_may_use_the_cache() -> None:
    async def main() -> None:
        loop, cache = asyncio.get_running_loop(), AsyncTTLCache[str, int]()
        await cache.set("key", 1)
        seen = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, lambda: seen.set_result(len(cache)))
        signal.raise_signal(signal.SIGUSR1)
        assert await seen == 1
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())
