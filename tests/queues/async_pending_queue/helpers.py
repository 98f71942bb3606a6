"""What the tests of AsyncPendingQueue share: a plain watch, a server, producers, a clock."""

import asyncio
import contextlib
import functools
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest

from tests.kit.fakes import Clock, until

COMPONENT = "queues/async_pending_queue"
LOGGER = "reference_impl.queues.async_pending_queue"
STATES = ("queued", "processing", "completed", "error")
# Where only processes die, not the power, what is in memory outlives them as on a disk.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
_rename = os.rename  # while a test replaces it
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX file systems and processes")
Check = Callable[..., Coroutine[Any, Any, None]]


class PlainWatch:
    """In DirectoryWatch's place: the files there are on entry, then those announced."""

    last: "PlainWatch"

    def __init__(self, path: Path, patterns: tuple[str, ...]) -> None:
        self.path, self.drawn = path, 0
        self._names: asyncio.Queue[str] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        PlainWatch.last = self
        for path in sorted(self.path.glob("*.queued")):
            self.announce(path.name)
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Path:
        name = await self._names.get()
        self.drawn += 1
        return self.path / name

    def announce(self, name: str) -> None:
        self._names.put_nowait(name)


def on_plain_watch(check: Check) -> Check:
    """The check of a module that has the plain watch meanwhile."""

    @functools.wraps(check)
    async def checked(m: ModuleType, *arguments: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(m, "DirectoryWatch", PlainWatch)
            await check(m, *arguments)

    return checked


async def started(queue: Any) -> asyncio.Task[None]:
    """The task that runs it, once it has the plain watch."""
    before = getattr(PlainWatch, "last", None)
    running: asyncio.Task[None] = asyncio.create_task(queue.run())
    await until(lambda: running.done() or getattr(PlainWatch, "last", None) is not before)
    return running


@contextlib.asynccontextmanager
async def owning(queue: Any) -> AsyncIterator[Any]:
    """The queue's own block, which an assertion that fails leaves without waiting."""
    async with queue:
        try:
            yield queue
        except BaseException:
            await queue.stop(0)
            raise


def stopped_clock() -> Clock:
    """The running loop's, which the test moves from now on, but not as far as its PATIENCE."""
    loop = asyncio.get_running_loop()
    clock = Clock(float(int(loop.time())))  # so that eighths of a second add up
    loop.time = clock  # type: ignore[method-assign]
    return clock


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing is logged: what keeps records keeps the errors that they tell of."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


# Uploads.


class Server:
    """Uploads that wait to be told how to end, and a record of what was asked."""

    def __init__(self, *, holds: bool = False) -> None:
        self.seen: list[str] = []
        self.running: dict[str, asyncio.Future[None]] = {}
        self.most = 0
        self.holds = holds
        self.changed = asyncio.Event()

    async def upload(self, path: Path) -> None:
        self.seen.append(path.stem)
        self.running[path.stem] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.running))
        self.changed.set()
        try:
            if self.holds:
                await self.running[path.stem]
        finally:
            del self.running[path.stem]
            self.changed.set()

    def end(self, name: str, error: BaseException | None = None) -> None:
        if error is None:
            self.running[name].set_result(None)
        else:
            self.running[name].set_exception(error)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds, looking again after each change."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()


async def nothing(path: Path) -> None:
    pass


def fails_with(error: BaseException) -> Callable[[Path], Awaitable[None]]:
    async def upload(path: Path) -> None:
        raise error

    return upload


class Pauses:
    """A back-off that gives always the same, and notes for how many failures it was asked."""

    def __init__(self, seconds: Any = 0.0) -> None:
        self.seconds = seconds
        self.asked: list[int] = []

    def __call__(self, failures: int) -> Any:
        self.asked.append(failures)
        return self.seconds


# Files.


def drop(directory: Path, name: str, content: bytes) -> None:
    """What a producer does: write elsewhere, and rename to NAME.queued."""
    outside = directory.parent / f"{directory.name}-{name}.tmp"
    outside.write_bytes(content)
    _rename(outside, directory / f"{name}.queued")


def drop_beside(directory: Path, name: str, content: bytes) -> None:
    """The same, for a name that is used again: FileExistsError if NAME.queued is there.

    A rename would replace it, and a look before that is of no use: the queue may put a file
    back in between. What a link makes no watch hears of; opening it for writing tells it.
    """
    outside = directory.parent / f"{directory.name}-{name}.tmp"
    outside.write_bytes(content)
    target = directory / f"{name}.queued"
    try:
        target.hardlink_to(outside)
    finally:
        outside.unlink()
    with contextlib.suppress(FileNotFoundError):  # it is being uploaded already
        os.close(os.open(target, os.O_WRONLY))


def files(directory: Path) -> dict[str, bytes]:
    """The visible files but for the .error.json, by name."""
    return {
        path.name: path.read_bytes()
        for path in sorted(directory.iterdir())
        if path.suffix[1:] in STATES and not path.name.startswith(".")
    }


def unfinished(directory: Path) -> list[str]:
    """The names of the files that are queued or being uploaded."""
    return [path.name for path in directory.iterdir() if path.name.endswith(STATES[:2])]


def hidden(directory: Path) -> list[str]:
    """The hidden files but for the lock."""
    return sorted(
        path.name
        for path in directory.iterdir()
        if path.name.startswith(".") and path.name != ".pending-queue.lock"
    )


class Refusing:
    """A system call that the disk refuses so many times, where `when` holds of its arguments."""

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        name: str,
        *,
        times: float = 1,
        error: int,
        when: Callable[..., bool] = lambda *_: True,
    ) -> None:
        self.left, self._error, self._when = times, error, when
        self._call = getattr(os, name)
        patch.setattr(os, name, self)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self.left and self._when(*arguments):
            self.left -= 1
            raise OSError(self._error, os.strerror(self._error), str(arguments[0]))
        return self._call(*arguments, **options)
