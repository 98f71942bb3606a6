"""The result of each file in done was submitted, at least once."""

import asyncio
from pathlib import Path
from typing import Any

from tests.scenes.files_there import FilesThere

ASIDE = ("*.copy.new",)  # no part of this story


def given(folder: Path) -> None:
    for name in ("in", "done", "error"):
        (folder / name).mkdir()
    (folder / "in" / "report.csv").write_text("3.3 V")


def before(m: Any, folder: Path, server: list[str]) -> None:
    async def submit(result: str) -> None:
        server.append(result)

    async def work() -> None:
        targets = {"done_dir": folder / "done", "error_dir": folder / "error"}
        csv = m.Converter("csv", folder / "in", ["*.csv"], lambda path: path.read_text(), **targets)
        async with m.AsyncConverterPool([csv], submit):
            await FilesThere.all_taken.wait()

    m.DirectoryWatch = FilesThere
    asyncio.run(work())


def after(m: Any, folder: Path, server: list[str]) -> None:
    before(m, folder, server)
    assert (folder / "done" / "report.csv").read_text() == "3.3 V"
    assert server, "report.csv is done, and its result was never submitted"
