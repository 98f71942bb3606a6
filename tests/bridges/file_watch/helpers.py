"""What the tests of DirectoryWatch share: where they run, what it logs and looks at."""

import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any, Self

import pytest

from reference_impl.bridges import file_watch

COMPONENT = "bridges/file_watch"

linux = pytest.mark.skipif(sys.platform != "linux", reason="about inotify, leases or /proc")
posix = pytest.mark.skipif(sys.platform == "win32", reason="names and renames of POSIX")
# watchdog adds a watch twice where a directory below is made at the wrong moment, and warns of it.
twice = pytest.mark.filterwarnings("ignore:Callback with id:RuntimeWarning")


def age(path: Path) -> None:
    """Make the last change one of long ago, so that its time differs from any other."""
    os.utime(path, ns=(10**18, 10**18))


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the component has put into the log."""
    return [each.getMessage() for each in caplog.records if each.name == file_watch.__name__]


class Looks:
    """Which paths the threads of a watch have looked at (`lstat`, `stat`) within the block."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Self:
        here = threading.get_ident()

        def noting(real: Any) -> Any:
            def noted(path: Any, **options: Any) -> os.stat_result:
                if threading.get_ident() != here:
                    self.paths.append(os.fsdecode(path).rstrip(os.sep))
                found: os.stat_result = real(path, **options)
                return found

            return noted

        self._patch.setattr(os, "lstat", noting(os.lstat))
        self._patch.setattr(os, "stat", noting(os.stat))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


class Ear(logging.Handler):
    """Hears what a logger says within the block."""

    def __init__(self, name: str, level: int = logging.ERROR) -> None:
        super().__init__(level)
        self.heard: list[str] = []
        self._log = logging.getLogger(name)

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())

    def __enter__(self) -> Self:
        self._log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self)
