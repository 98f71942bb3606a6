"""A watch without a file system's notices, for AsyncPendingQueue's tests."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest

from tests.kit.fakes import until

Check = Callable[..., Coroutine[Any, Any, None]]


class PlainWatch:
    """In DirectoryWatch's place: the files there are on entry, then those announced."""

    last: "PlainWatch"

    def __init__(self, path: Path, *, exclude: tuple[str, ...], settle: float) -> None:
        self.path, self.exclude, self.drawn = path, exclude, 0
        self._names: asyncio.Queue[str] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        PlainWatch.last = self
        for path in sorted(self.path.glob("[!.]*")):
            if not any(map(path.match, self.exclude)):
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
