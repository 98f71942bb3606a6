"""What AsyncRunner's tests share: coroutines, the loop's turns, logs, and faults."""

import asyncio
import gc
import inspect
import logging
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import pytest

from tests.kit.fakes import PATIENCE
from tests.kit.primitives import Over, rebind, rebound
from tests.kit.proofs import Proof
from tests.kit.twins import Fault, Twin, edit, override, patch

FILE = "bridges/async_runner"
Test = TypeVar("Test", bound=Callable[..., None])


async def value(of: Any = None) -> Any:
    return of


async def fail(error: BaseException) -> None:
    raise error


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def _open(gate: "asyncio.Future[None]") -> None:
    if not gate.done():
        gate.set_result(None)


class Job:
    """A coroutine that waits to be cancelled, cleans up once its gate is open, and then ends.

    `clean` counts clean-ups that were done, `broken` those that were cancelled in turn.
    """

    def __init__(self, *, gated: bool = False, ends: Any = None) -> None:
        self.begun, self.cleaning = threading.Event(), threading.Event()
        self.clean = self.broken = 0
        self._opened, self._ends = not gated, ends
        self._gate: asyncio.Future[None] | None = None

    async def __call__(self) -> Any:
        try:
            self.begun.set()
            await forever()
        except asyncio.CancelledError:
            try:
                self._gate = asyncio.get_running_loop().create_future()
                self.cleaning.set()
                if not self._opened:
                    await self._gate
                await asyncio.sleep(0)
                self.clean += 1
            except asyncio.CancelledError:
                self.broken += 1
                raise
            if self._ends is None:
                raise
            if isinstance(self._ends, BaseException):
                raise self._ends from None
            return self._ends

    def open(self) -> None:
        """Let the clean-up end, from any thread, also before it begins."""
        self._opened = True
        gate = self._gate
        if gate is not None:
            with suppress(RuntimeError):  # over, and the loop is closed
                gate.get_loop().call_soon_threadsafe(_open, gate)


_places: "WeakKeyDictionary[Any, tuple[asyncio.AbstractEventLoop, threading.Thread]]"
_places = WeakKeyDictionary()


def place(runner: Any) -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    """The runner's loop and thread. It is asked once, while it runs."""

    async def note() -> None:
        _places[runner] = asyncio.get_running_loop(), threading.current_thread()

    if runner not in _places:
        runner.run(note(), PATIENCE)
    return _places[runner]


def begin(module: ModuleType, **options: Any) -> Any:
    """A runner that runs, and whose place is known."""
    runner = module.AsyncRunner(**options)
    runner.start()
    place(runner)
    return runner


@contextmanager
def running(module: ModuleType) -> Iterator[Any]:
    runner = begin(module)
    try:
        yield runner
    finally:
        runner.close(PATIENCE)


@contextmanager
def logged(logger: str) -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    gc.collect()  # what an earlier test has left complains before
    keep = Keep()
    logging.getLogger(logger).addHandler(keep)
    try:
        yield records
    finally:
        logging.getLogger(logger).removeHandler(keep)


def turn(runner: Any, count: int = 1) -> None:
    """Let the loop make so many turns, and do what was posted before; also while it closes."""
    loop, thread = place(runner)
    for _ in range(count):
        passed = threading.Event()
        try:
            loop.call_soon_threadsafe(passed.set)
        except RuntimeError:  # closed: a twin may be that fast
            return
        while not passed.wait(0.1) and thread.is_alive():
            pass


def was_closed(coro: Coroutine[Any, Any, Any]) -> bool:
    return inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


@contextmanager
def in_waits(m: ModuleType, before: Callable[[float | None], None]) -> Iterator[None]:
    """Who waits for what is begun within the block calls this first, with the time it has.

    A TimeoutError of it is taken for the end of that time.
    """

    class Watched(Over):
        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            if blocking and self.inner.locked():
                try:
                    before(None if timeout == -1 else timeout)
                except TimeoutError:
                    return False
            return bool(self.inner.acquire(blocking, timeout))

    with rebound(m, Lock=lambda: Watched(threading.Lock())):
        yield


@contextmanager
def left_behind() -> Iterator[None]:
    """What a failing schedule leaves unsettled or never awaited dies here, and in silence."""
    log = logging.getLogger("concurrent.futures")
    with warnings.catch_warnings(action="ignore"):  # type: ignore[call-overload, unused-ignore]
        log.disabled = True
        try:
            yield
        finally:
            log.disabled = False
            gc.collect()


# Faults.


def submitting(wrap: Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]]) -> Fault:
    """What is submitted is wrapped in another coroutine."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def submit(runner: Any, coro: Any) -> Any:
            wrapped = wrap(coro)
            try:
                return original(runner, wrapped)
            except RuntimeError:
                coro.close()
                raise

        return submit

    return override("AsyncRunner.submit", make)


def seeing(name: str, **others: Any) -> Fault:
    """The component sees these in the place of what the module of that name has."""

    def change(module: ModuleType) -> None:
        setattr(module, name, SimpleNamespace(**(vars(getattr(module, name)) | others)))

    return patch(change)


def with_loop(**methods: Any) -> Fault:
    """The runner's loop does this in the place of what asyncio's does."""

    def made() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        vars(loop).update({name: method(loop) for name, method in methods.items()})
        return loop

    return seeing("asyncio", new_event_loop=made)


async def nothing() -> None:
    """What a loop does that leaves out a step of its end."""


async def forgetting(coro: Any) -> None:
    await coro


async def shielded(coro: Any) -> Any:
    return await asyncio.shield(asyncio.ensure_future(coro))


def starts_again(original: Any) -> Any:
    def start(runner: Any) -> None:
        with suppress(RuntimeError):
            original(runner)

    return start


class Forgetful:
    """A threading.local that knows nothing."""

    def __setattr__(self, name: str, value: object) -> None:
        pass


def forgets_places(module: ModuleType) -> None:
    rebind(module, local=Forgetful)


WAIT = "ours = await _wait_until_one_may_be_free(ours, others - rest)"
NOT_AWAITED = edit("AsyncRunner._wind_down", WAIT, "break")
FORGETS_RESULTS = submitting(forgetting)
LETS_THE_TASK_GO_ON = submitting(shielded)
LEAVES_REFUSED_OPEN = override(
    "AsyncRunner.submit", lambda original: lambda runner, coro: original(runner, forgetting(coro))
)
STARTS_AGAIN = override("AsyncRunner.start", starts_again)
IS_NOWHERE = patch(forgets_places)


class BareLoop:
    """What a runner asks of its loop and a model has no need of."""

    def set_default_executor(self, executor: object) -> None:
        pass

    async def shutdown_asyncgens(self) -> None:
        pass

    async def shutdown_default_executor(self) -> None:
        pass


def of_a_twin(test: Test) -> Test:
    """A twin may leave coroutines, loops and threads behind, and these may complain."""
    for warning in (
        "ignore::pytest.PytestUnraisableExceptionWarning",
        "ignore::pytest.PytestUnhandledThreadExceptionWarning",
        "ignore:coroutine .* was never awaited:RuntimeWarning",
    ):
        test = pytest.mark.filterwarnings(warning)(test)
    return test


def must_fail(proof: Proof, twin: Twin) -> None:
    """The twin fails; what it leaves behind dies here, and in silence."""
    with logged("asyncio"):
        proof.must_fail(twin, FILE)
        gc.collect()
