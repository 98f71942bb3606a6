"""What the tests of async_parallel_execute share: both forms of a call, operations, time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import ModuleType
from typing import Any

from tests.kit.fakes import Clock, turns, until
from tests.kit.proofs import Proof, Test, failing

COMPONENT = "bridges/async_parallel_execute"
Call = Callable[..., Awaitable[list[Any]]]


def forms(m: ModuleType) -> tuple[Call, Call]:
    """The call that returns the results, and the one that gives them as they come."""

    async def completed(*arguments: Any, **options: Any) -> list[Any]:
        async with m.async_as_completed(*arguments, **options) as results:
            found = {index: result async for index, result in results}
        return [found[index] for index in range(len(found))]

    return m.async_parallel_execute, completed


def caught(proofs: Iterable[Proof]) -> Test:
    """A test, to be named in the file, that each proof fails for its twins."""
    return failing(proofs, COMPONENT)


def stopped_clock() -> Clock:
    """The running loop's time passes only when this clock is told."""
    loop: Any = asyncio.get_running_loop()
    loop.time = clock = Clock(float(int(loop.time()) + 1))  # so that fractions of two add up
    return clock


class Operation:
    """A coroutine function: notes what begins and ends; waits until it is let go."""

    def __init__(self, *, passes: Iterable[Any] = (), fails: Iterable[Any] = ()) -> None:
        self.passes = set(passes)  # keys whose operation does not wait
        self.fails = set(fails)
        self.begun: list[Any] = []
        self.running: list[Any] = []
        self.cancelled: list[Any] = []
        self.cleaned: list[Any] = []
        self.most = 0
        self.let_go = asyncio.Event()

    async def runs(self, keys: list[Any]) -> None:
        """Return when the operations of these keys run."""
        await until(lambda: self.running == keys)

    async def __call__(self, key: Any) -> Any:
        self.begun.append(key)
        self.running.append(key)
        self.most = max(self.most, len(self.running))
        try:
            await (asyncio.sleep(0) if key in self.passes else self.let_go.wait())
        except asyncio.CancelledError:
            self.cancelled.append(key)
            await turns()  # a clean-up that takes a while
            self.cleaned.append(key)
            raise
        finally:
            self.running.remove(key)
        if key in self.fails:
            raise LookupError(key)
        return key


class Source:
    """An async key source that notes what it has given, and whether it was closed."""

    def __init__(self, *keys: Any) -> None:
        self.keys = keys  # a future is awaited; an exception is raised
        self.given: list[Any] = []
        self.closed = 0

    async def gives(self, keys: list[Any]) -> None:
        """Return when it has given these keys."""
        await until(lambda: self.given == keys)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._each()

    async def _each(self) -> AsyncIterator[Any]:
        try:
            for key in self.keys:
                await asyncio.sleep(0)
                if isinstance(key, BaseException):
                    raise key
                if isinstance(key, asyncio.Future):
                    await key
                self.given.append(key)
                yield key
        finally:
            await asyncio.sleep(0)
            self.closed += 1


def outcomes(results: list[Any]) -> list[Any]:
    """The values, and the errors' types."""
    return [r.value if r.is_success else type(r.error) for r in results]


def begun(call: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Any:
    return asyncio.ensure_future(call(*arguments, **options))


async def end_of(calling: "asyncio.Future[Any]") -> BaseException:
    """What it raises."""
    await asyncio.wait([calling])
    if calling.cancelled():
        return asyncio.CancelledError()
    error = calling.exception()
    assert error is not None, f"it has returned {calling.result()}"
    return error


def fails(text: str) -> str:
    """How a check fails, in a twin's words."""
    return f"AssertionError: {text}"
