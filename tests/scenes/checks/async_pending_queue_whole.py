"""What the server receives is a whole report, whenever the process that submits it ends."""

import asyncio
from pathlib import Path
from typing import Any

from tests.scenes.files_there import FilesThere

ASIDE = ("*.lock", "*.attempts")  # no part of this story


def before(m: Any, folder: Path, server: list[str]) -> None:
    async def upload(path: Path) -> None:
        server.append(path.read_text())

    asyncio.run(m.AsyncPendingQueue(folder, upload).submit("report", b"voltage 3.3"))


def after(m: Any, folder: Path, server: list[str]) -> None:
    async def upload(path: Path) -> None:
        server.append(path.read_text())

    async def serve() -> None:
        async with m.AsyncPendingQueue(folder, upload):
            await FilesThere.all_taken.wait()

    m.DirectoryWatch = FilesThere
    asyncio.run(serve())
    assert server in ([], ["voltage 3.3"]), f"the server received {server}"
