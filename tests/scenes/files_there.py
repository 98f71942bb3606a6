"""In the place of a DirectoryWatch: the files that are there, and nothing that comes later.

What ends a process in the middle wants no threads that look at the same directory.
"""

import asyncio
from pathlib import Path
from typing import ClassVar, Self


class FilesThere:
    """Gives the files of a directory once, by name."""

    all_taken: ClassVar[asyncio.Event]  # of the last one that was made

    def __init__(self, path: Path | str, *_: object, **__: object) -> None:
        visible = [each for each in sorted(Path(path).iterdir()) if each.name[0] != "."]
        self._files = [each for each in visible if each.is_file()]
        FilesThere.all_taken = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Path:
        if not self._files:
            self.all_taken.set()
            await asyncio.get_running_loop().create_future()
        return self._files.pop(0)
