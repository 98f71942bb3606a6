"""What run_sync's tests share: both ways to call it, coroutines, an end to what is idle."""

import asyncio
import os
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import pytest

Make = Callable[[], Coroutine[Any, Any, Any]]

kept: list[object] = []  # what a coroutine leaves to somebody until the test ends


def close_idle() -> None:
    """Idle loops and threads are closed before a fork, also those of twins: so fork."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child only ends
        if not (child := os.fork()):
            os._exit(0)
    os.waitpid(child, 0)


def without_a_loop(module: ModuleType, make: Make, **options: Any) -> Any:
    return module.run_sync(make(), **options)


def within_a_loop(module: ModuleType, make: Make, **options: Any) -> Any:
    async def main() -> Any:
        return module.run_sync(make(), **options)

    # Not asyncio.run: it would answer Ctrl-C itself.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


WAYS = [without_a_loop, within_a_loop]
both_ways = pytest.mark.parametrize("way", WAYS)


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def nest(module: ModuleType, depth: int) -> int:
    return 0 if depth == 0 else 1 + module.run_sync(nest(module, depth - 1))


async def hasty(coro: Any, timeout: float | None) -> Any:
    """A timeout that does not wait for the clean-up."""
    task = asyncio.ensure_future(coro)
    if not (await asyncio.wait([task], timeout=timeout))[0]:
        raise TimeoutError(f"cancelled after {timeout} s")
    return task.result()


class Trouble(Exception):
    pass


class Loops:
    """Counts the loops that are made, and those that are not closed yet; holds none of them."""

    def __init__(self) -> None:
        self.made = self.open = 0
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> "Loops":
        make, close = asyncio.BaseEventLoop.__init__, asyncio.BaseEventLoop.close

        def counted_make(loop: asyncio.BaseEventLoop) -> None:
            make(loop)
            self.made += 1
            self.open += 1

        def counted_close(loop: asyncio.BaseEventLoop) -> None:
            self.open -= not loop.is_closed()
            close(loop)

        self._patch.setattr(asyncio.BaseEventLoop, "__init__", counted_make)
        self._patch.setattr(asyncio.BaseEventLoop, "close", counted_close)
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


def until(condition: Callable[[], object], fault: str) -> None:
    """What goes on in other threads comes to this by itself."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, fault
        time.sleep(0.0005)


def helper_threads() -> int:
    """How many threads of run_sync there are."""
    return sum(thread.name == "run_sync" for thread in threading.enumerate())
