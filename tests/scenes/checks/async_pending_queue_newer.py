"""A report that was being uploaded, and a newer one of its name, both reach the server."""

import asyncio
from pathlib import Path
from typing import Any

from tests.scenes.files_there import FilesThere

ASIDE = ("*.lock", "*.attempts")  # no part of this story


def given(folder: Path) -> None:
    (folder / "report.queued").write_text("Monday")


def before(m: Any, folder: Path, server: list[str]) -> None:
    async def upload(path: Path) -> None:
        server.append(path.read_text())

    async def serve() -> None:
        async with m.AsyncPendingQueue(folder, upload):
            await FilesThere.all_taken.wait()

    m.DirectoryWatch = FilesThere
    asyncio.run(serve())


def between(folder: Path) -> None:
    """a producer renames a newer report to report.queued"""
    if not (folder / "report.queued").exists():  # a rename would replace what waits there
        (folder.parent / "new").write_text("Tuesday")
        (folder.parent / "new").rename(folder / "report.queued")


def after(m: Any, folder: Path, server: list[str]) -> None:
    accepted = {*server, *(path.read_text() for path in folder.glob("report.*"))}
    before(m, folder, server)
    lost = accepted - {*server}
    assert not lost, f"lost: the report of {lost.pop()}"
