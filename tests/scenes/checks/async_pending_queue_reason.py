"""A report that is given up has a file beside it that says why."""

import asyncio
from pathlib import Path
from typing import Any

from tests.scenes.files_there import FilesThere

ASIDE = ("*.lock", "*.attempts")  # no part of this story


def given(folder: Path) -> None:
    (folder / "report.queued").write_text("Monday")


def before(m: Any, folder: Path, server: list[str]) -> None:
    async def upload(path: Path) -> None:
        raise ConnectionError("the server refuses it")

    async def serve() -> None:
        async with m.AsyncPendingQueue(folder, upload, max_attempts=1):
            await FilesThere.all_taken.wait()

    m.DirectoryWatch = FilesThere
    asyncio.run(serve())


def after(m: Any, folder: Path, server: list[str]) -> None:
    before(m, folder, server)
    assert (folder / "report.error").exists(), "the report is lost"
    assert (folder / "report.error.json").exists(), "nothing says why the report was given up"
