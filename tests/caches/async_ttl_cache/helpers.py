"""What several tests of AsyncTTLCache use."""

import asyncio
import functools
import gc
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar

import detangle
import pytest

from reference_impl.caches import async_ttl_cache as ours
from tests.kit.copies import own_file
from tests.kit.fakes import run
from tests.kit.proofs import Proof, Test, each_proof
from tests.kit.twins import Fault, Twin

R = TypeVar("R")
COMPONENT = "caches/async_ttl_cache"
Check = Callable[[ModuleType], Any]

# Tasks that start later and, where there are such, tasks that start at once.
each_way = pytest.mark.parametrize(
    "tasks", ["lazy"] if sys.version_info < (3, 12) else ["lazy", "eager"]
)


def says(name: str, fault: Fault, message: str) -> Twin:
    """The twin that fails an assertion, of which this is a piece."""
    return Twin(name, fault, f"AssertionError: {message}")


def start_at_once() -> None:
    """From now on the loop's tasks take their first step when they are made."""
    asyncio.get_running_loop().set_task_factory(vars(asyncio)["eager_task_factory"])


def hold(check: Check, module: ModuleType, tasks: str) -> None:
    """Run the check on a loop in debug mode, with one kind of tasks, or on a loop of its own."""
    if not inspect.iscoroutinefunction(check):
        check(module)
        return

    async def main() -> None:
        asyncio.get_running_loop().set_debug(True)
        if tasks == "eager":
            start_at_once()
        await check(module)

    run(main())


def holding(proofs: Iterable[Proof]) -> Test:
    """A test, to be named in the file, that each proof holds, with each kind of tasks."""

    @each_way
    @each_proof(proofs)
    def holds(proof: Proof, tasks: str) -> None:
        hold(proof.check, ours, tasks)

    return holds


def virtual(check: Check) -> Callable[[ModuleType], None]:
    """The check in detangle's time, which jumps to whatever is due and tells of a deadlock."""

    @functools.wraps(check)
    def simulated(module: ModuleType) -> None:
        detangle.run(lambda: check(module))

    return simulated


def step(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine that must not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise AssertionError("it suspended")


class Loader:
    """A loader that waits until it is told how to end."""

    def __init__(self) -> None:
        self.started = self.cancelled = self.cleaned = 0
        self.gate: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.after_cancel: Callable[[], Awaitable[object]] | None = None

    async def __call__(self) -> Any:
        self.started += 1
        try:
            return await self.gate
        except asyncio.CancelledError:
            self.cancelled += 1
            if self.after_cancel is not None:
                await self.after_cancel()
            self.cleaned += 1
            raise


def ask(cache: Any, loader: Any, callers: int = 1, key: str = "key") -> list[asyncio.Task[Any]]:
    """So many tasks that ask for the key."""
    return [asyncio.create_task(cache.get_or_load(key, loader)) for _ in range(callers)]


async def load_42() -> int:
    return 42


def spy_on_timers() -> list[tuple[float, asyncio.TimerHandle]]:
    """Each timer that the running loop is given from now on, and how long it has to go."""
    loop, timers = asyncio.get_running_loop(), list[tuple[float, asyncio.TimerHandle]]()
    call_at = loop.call_at

    def spy(when: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append((when - loop.time(), call_at(when, *args, **options)))
        return timers[-1][1]

    loop.call_at = spy  # type: ignore[method-assign, assignment]
    return timers


@contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    """What is logged in the block, by whomever."""
    records, root, handler = list[logging.LogRecord](), logging.getLogger(), logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign, assignment]
    root.addHandler(handler)
    try:
        yield records
    finally:
        root.removeHandler(handler)


@contextmanager
def no_collector() -> Iterator[None]:
    """What dies in the block dies without the cyclic collector."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def weight(root: object) -> int:
    """How many objects can be reached from here, leaving out code, loops and counts."""
    code = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
    left_out = (*code, asyncio.AbstractEventLoop, int)
    seen, todo = {id(root)}, [root]
    while todo:
        for each in gc.get_referents(todo.pop()):
            if id(each) not in seen and not isinstance(each, left_out):
                seen.add(id(each))
                todo.append(each)
    return len(seen)


def lines_run(module: ModuleType, action: Callable[[], object]) -> int:
    """How many lines of the component the action runs."""
    events, file = list[str](), own_file(module)

    def trace(frame: Any, event: str, argument: object) -> Any:
        if frame.f_code.co_filename == file:
            events.append(event)
            return trace
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return events.count("line")
