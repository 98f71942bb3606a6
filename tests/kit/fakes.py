"""Stand-ins that many tests share: clocks, gates, threads that report, turns of a loop."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

R = TypeVar("R")
# Seconds, against hangs: nothing is measured by it. `prove` meets more of them, and waits less.
PATIENCE = float(os.environ.get("EXECUTABLE_GUARANTEES_PATIENCE", "60"))


class Clock:
    """A clock that stands still until it is told to `tick`; counts how often it is read."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.readings = 0

    def __call__(self) -> float:
        self.readings += 1
        return self.now

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class Gate:
    """Holds the threads that call it until it is opened; keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self._entered = threading.Semaphore(0)
        self._opened = threading.Event()

    def __call__(self, given: Any = None) -> None:
        self.seen.append(given)
        self._entered.release()
        assert self._opened.wait(PATIENCE), "the gate was not opened"

    def await_entered(self, calls: int = 1) -> None:
        """Return once so many more calls have come."""
        for _ in range(calls):
            assert self._entered.acquire(timeout=PATIENCE), "nobody came to the gate"

    def open(self) -> None:
        """Let everybody pass, now and later."""
        self._opened.set()


class AsyncGate:
    """The same for tasks of a loop: notes what began and what ended."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.ended: list[Any] = []
        self._opened = asyncio.Event()

    async def __call__(self, given: Any = None) -> None:
        self.started.append(given)
        await self._opened.wait()
        self.ended.append(given)

    def open(self) -> None:
        """Let everybody pass, now and later."""
        self._opened.set()


class Beside(threading.Thread):
    """Runs a call beside the test; `result` joins it and raises what it raised."""

    def __init__(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        super().__init__(daemon=True)
        self._call, self._arguments, self._options = call, arguments, options
        self._error: BaseException | None = None
        self._value: Any = None
        self.start()

    def run(self) -> None:
        """Keep what the call gives."""
        try:
            self._value = self._call(*self._arguments, **self._options)
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        """What the call gave."""
        self.join(PATIENCE)
        assert not self.is_alive(), "the call hangs"
        if self._error is not None:
            raise self._error
        return self._value


class Pause:
    """`await Pause()` lets a loop of a model make a turn; `forever` waits to be cancelled."""

    def __init__(self, *, forever: bool = False) -> None:
        self.forever = forever

    def __await__(self) -> Generator["Pause", None, None]:
        yield self


async def turns(number: int = 20) -> None:
    """Give every other task of the loop `number` turns."""
    for _ in range(number):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Give the loop turns until the condition holds."""
    while not condition():
        await asyncio.sleep(0)


# Some tests move the clock of a loop, and not as far as this.
def run(main: Coroutine[Any, Any, R], *, patience: float = max(PATIENCE, 60.0)) -> R:
    """Run it on a loop of its own; a hang is a failure, of which the limit says nothing else.

    So is an exception of a task or a callback that nobody has asked for.
    """
    unseen: list[dict[str, Any]] = []

    async def bounded() -> R:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        async with asyncio.timeout(patience):
            return await main

    result = asyncio.run(bounded())
    assert not unseen, f"an exception that nobody has asked for: {unseen}"
    return result
