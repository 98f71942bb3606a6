"""DirectoryWatch against a plain model: what is owed is given, and nothing that was not touched.

Random operations on a real directory; between them the watch is drained, up to a file that is
made for the purpose.
"""

import asyncio
import itertools
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from reference_impl.bridges import file_watch
from tests.kit.twins import twin

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="events of closing, hard links")
NAMES = st.sampled_from(["a", "b", "c", "c.part", ".hidden"])


def wanted(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(".part")


def machine(m: ModuleType, failures: list[str]) -> type[RuleBasedStateMachine]:
    """The state machine for this module, which may be a broken twin; it notes its failures."""

    class DirectoryWatchMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.now = 0.0
            self.folder = Path(tempfile.mkdtemp())
            self.inbox, self.outside = self.folder / "inbox", self.folder / "outside"
            self.inbox.mkdir()
            self.outside.mkdir()
            self.loop = asyncio.new_event_loop()
            self.numbers = itertools.count()
            self.watch = m.DirectoryWatch(self.inbox, ["?", "mark-*"], clock=lambda: self.now)
            self.owed: set[str] = set()  # by events
            self.linked: set[str] = set()  # owed by the next scan alone
            self.touched: set[str] = set()  # since the last drain

        @initialize()
        def enter(self) -> None:
            self.make(self.inbox / "a", "")
            self.linked.add("a")
            self.loop.run_until_complete(self.watch.__aenter__())
            watcher = self.watch._keeper._target.__self__
            scan, self.scanned = watcher._scan, threading.Semaphore(0)

            def noted(top: str) -> None:
                scan(top)
                self.scanned.release()

            watcher._scan = noted
            self.rescan()  # when it has ended, so has the first

        def teardown(self) -> None:
            self.loop.run_until_complete(self.watch.__aexit__())
            self.loop.close()
            shutil.rmtree(self.folder)

        def make(self, path: Path, text: str) -> None:
            """Write a file whose time is its own, and not of just now."""
            with path.open("w") as file:
                file.write(text)
                file.flush()
                then = 10**18 + next(self.numbers)
                os.utime(path, ns=(then, then))

        def owes(self, name: str) -> None:
            self.touched.add(name)
            self.linked.discard(name)
            if wanted(name):
                self.owed.add(name)

        def gone(self, name: str) -> None:
            self.touched.add(name)
            self.owed.discard(name)
            self.linked.discard(name)

        @rule(name=NAMES, text=st.sampled_from(["one", "two", ""]))
        def write(self, name: str, text: str) -> None:
            self.make(self.inbox / name, text)
            self.owes(name)

        @rule(name=NAMES)
        def reopen(self, name: str) -> None:
            """Closed after writing, says the event, but nothing was: only a link is news."""
            if (self.inbox / name).exists():
                (self.inbox / name).open("r+").close()
                if name in self.linked:
                    self.owes(name)

        @rule(name=NAMES)
        def remove(self, name: str) -> None:
            (self.inbox / name).unlink(missing_ok=True)
            self.gone(name)

        @rule(name=NAMES, to=NAMES)
        def rename(self, name: str, to: str) -> None:
            if name != to and (self.inbox / name).exists():
                (self.inbox / name).rename(self.inbox / to)
                self.gone(name)
                self.owes(to)

        @rule(name=NAMES)
        def move_out_and_in(self, name: str) -> None:
            if (self.inbox / name).exists():
                (self.inbox / name).rename(self.outside / name)
                (self.outside / name).rename(self.inbox / name)
                self.gone(name)
                self.owes(name)

        @rule(name=NAMES, text=st.sampled_from(["one", "two"]))
        def replace(self, name: str, text: str) -> None:
            self.make(self.outside / name, text)
            (self.outside / name).replace(self.inbox / name)
            self.gone(name)
            self.owes(name)

        @rule(name=NAMES)
        def link(self, name: str) -> None:
            if not (self.inbox / name).exists():
                source = self.outside / f"{next(self.numbers)}"
                self.make(source, "")
                os.link(source, self.inbox / name)
                if wanted(name):
                    self.linked.add(name)

        @rule()
        def rescan(self) -> None:
            """What no event told of is given, too."""
            self.now += 60.0
            with self.watch._inbox._changed:
                self.watch._inbox._changed.notify_all()
            assert self.scanned.acquire(timeout=60.0)
            self.touched |= self.linked
            self.owed |= self.linked
            self.linked.clear()
            self.drain()

        @rule()
        def drain(self) -> None:
            """All that is owed is given before a file that comes now."""
            mark, given = f"mark-{next(self.numbers)}", set[str]()
            (self.inbox / mark).touch()

            async def take() -> None:
                async with asyncio.timeout(60.0 if m is file_watch else 0.5):
                    while mark not in given:
                        given.add((await anext(self.watch)).name)

            self.loop.run_until_complete(take())
            missing = self.owed - given
            made_up = {name for name in given if not name.startswith("mark-")}
            made_up -= {name for name in self.touched if wanted(name)}
            if missing or made_up:
                failures.append(f"not given: {missing}; given for nothing: {made_up}")
                raise AssertionError(failures[-1])
            self.owed.clear()
            self.touched.clear()
            self.linked -= given  # found when another of its name went

    return DirectoryWatchMachine


@pytest.mark.guarantee("FW-1", "FW-2")
class TestDirectoryWatch(machine(file_watch, []).TestCase):  # type: ignore[misc]
    settings = settings(max_examples=150, stateful_step_count=40)


TWINS = {
    "a file that goes is not forgotten": ("            self._taken.pop(name, None)\n", ""),
    "each look is new": ("known == look and not", "known == 0 and not"),
    "the size alone counts": ("found.st_dev, found.st_ino, found.st_mtime_ns, f", "0, 0, 0, f"),
    "hidden files are given": ("(?![.]|\\Z)(?:{'|'.join(either)})", "(?:.?hidden|.|mark-.*)\\Z"),
    "a rescan is one in name": ("        directories = [top]\n", "        return\n"),
    "what is moved in is not heard": ("self._check(target, gone=True, whole=True)", "pass"),
}


@pytest.mark.twin("FW-1", "FW-2")
@pytest.mark.parametrize("fault", TWINS.values(), ids=TWINS)
def test_the_model_catches_a_broken_twin(fault: tuple[str, str]) -> None:
    broken = twin("bridges/file_watch.py", fault)
    failures: list[str] = []
    # What it has found hypothesis may fail to find again, for the threads and the disk are real.
    with pytest.raises((AssertionError, Flaky)):
        run_state_machine_as_test(
            machine(broken, failures),
            settings=settings(
                max_examples=200,
                stateful_step_count=30,
                phases=[Phase.generate],
                derandomize=True,
                database=None,
            ),
        )
    assert failures
