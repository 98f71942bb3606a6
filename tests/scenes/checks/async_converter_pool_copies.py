"""A file that is copied to another file system is in done, once, whenever the process ends."""

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

from tests.scenes.files_there import FilesThere

ASIDE = ("*.copy.new",)  # no part of this story


def given(folder: Path) -> None:
    for name in ("in", "done", "error"):
        (folder / name).mkdir()
    (folder / "in" / "report.csv").write_text("3.3 V")


def before(m: Any, folder: Path, server: list[str]) -> None:
    rename = m.rename_new

    def rename_new(source: str, target: str) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source)  # as another file system
        rename(source, target)

    async def submit(result: str) -> None:
        server.append(result)

    async def work() -> None:
        targets = {"done_dir": folder / "done", "error_dir": folder / "error"}
        csv = m.Converter("csv", folder / "in", ["*.csv"], lambda path: path.read_text(), **targets)
        async with m.AsyncConverterPool([csv], submit):
            await FilesThere.all_taken.wait()

    m.DirectoryWatch, m.rename_new = FilesThere, rename_new
    asyncio.run(work())


def after(m: Any, folder: Path, server: list[str]) -> None:
    before(m, folder, server)
    found = [path.name for path in (folder / "done").glob("[!.]*")]
    assert found == ["report.csv"], f"report.csv is lost: in done there is {found}"
