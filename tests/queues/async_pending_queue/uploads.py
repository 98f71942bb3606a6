"""Uploads of the tests of AsyncPendingQueue, and a back-off."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any


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
