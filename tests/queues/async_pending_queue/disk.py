"""What producers do to a queue's directory, what is in it, and a disk that refuses."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

STATES = ("queued", "processing", "completed", "error")
_rename = os.rename  # while a test replaces it


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
    """A system call that the disk refuses so many times, where `when` holds of its arguments.

    It is one of `os`, or the exclusive rename of the component's part.
    """

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        name: str,
        *,
        times: float = 1,
        error: int,
        when: Callable[..., bool] = lambda *_: True,
        owner: ModuleType = os,
    ) -> None:
        self.left, self._error, self._when = times, error, when
        self._call = getattr(owner, name)
        patch.setattr(owner, name, self)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self.left and self._when(*arguments):
            self.left -= 1
            raise OSError(self._error, os.strerror(self._error), str(arguments[0]))
        return self._call(*arguments, **options)


def part(m: ModuleType) -> ModuleType:
    """The part that this module, a twin perhaps, has its moves from."""
    return sys.modules[m.unlink_quietly.__module__]


def without_exclusive_rename(patch: pytest.MonkeyPatch, m: ModuleType) -> None:
    """As on a file system that cannot: it has to link and unlink."""
    Refusing(patch, "rename_exclusively", times=float("inf"), error=errno.ENOSYS, owner=part(m))


def around_moves(
    patch: pytest.MonkeyPatch,
    m: ModuleType,
    *,
    before: Callable[[Path, Path], object] = lambda *_: None,
    after: Callable[[Path, Path], object] = lambda *_: None,
) -> None:
    """Do these each time that a file gets a name that must be free."""
    move = part(m).rename_exclusively

    def call(source: str, target: str) -> None:
        before(Path(source), Path(target))
        move(source, target)
        after(Path(source), Path(target))

    patch.setattr(part(m), "rename_exclusively", call)
