"""DirectoryWatch against a plain model: what is owed is given, and nothing that was not touched.

Random operations on a real directory; between them the watch is drained, up to a file that is
made for the purpose.
"""

import asyncio
import itertools
import os
import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from watchdog import events

from reference_impl.bridges import file_watch
from tests.bridges.file_watch.faults import (
    deaf_to,
    gives_hidden,
    gives_once,
    name_and_look,
    scans_by,
    sees_files,
)
from tests.bridges.file_watch.helpers import COMPONENT, linux
from tests.bridges.file_watch.spying import spying
from tests.kit.fakes import PATIENCE
from tests.kit.profile import budget, same_each_time
from tests.kit.proofs import HANG, each_twin_of
from tests.kit.twins import Twin, build, must_fail

pytestmark = linux  # events of closing, hard links
NAMES = st.sampled_from(["a", "b", "c", "c.part", ".hidden"])


def wanted(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(".part")


def machine(m: ModuleType, failures: list[str]) -> type[RuleBasedStateMachine]:
    """The state machine for this module, which may be a broken twin; it notes its failures."""

    class DirectoryWatchMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.folder = Path(tempfile.mkdtemp())
            self.inbox, self.outside = self.folder / "inbox", self.folder / "outside"
            self.inbox.mkdir()
            self.outside.mkdir()
            self.loop = asyncio.new_event_loop()
            self.numbers = itertools.count()
            self.spies = spying(m, self.inbox)
            self.spy = self.spies.__enter__()
            self.watch: Any = m.DirectoryWatch(
                self.inbox, ["?", "mark-*"], clock=self.spy.clock, rescan_interval=60.0
            )
            self.owed: set[str] = set()  # by events
            self.linked: set[str] = set()  # owed by the next scan alone
            self.touched: set[str] = set()  # since the last drain

        @initialize()
        def enter(self) -> None:
            self.make(self.inbox / "a", "")
            self.linked.add("a")
            self.loop.run_until_complete(self.watch.__aenter__())
            self.rescan()  # when it has ended, so has the first

        def teardown(self) -> None:
            self.loop.run_until_complete(self.watch.__aexit__())
            self.loop.close()
            self.spies.__exit__(None, None, None)
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
            self.loop.run_until_complete(self.spy.at(self.spy.clock.now + 60.0))
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
                async with asyncio.timeout(PATIENCE if m is file_watch else HANG):
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


@pytest.mark.guarantee("FW-1")
class TestDirectoryWatch(machine(file_watch, []).TestCase):  # type: ignore[misc]
    settings = settings(max_examples=budget(40, 150), stateful_step_count=40)


serial = itertools.count(1)
TWINS = [
    Twin("remembers a file that goes", gives_once(name_and_look), "AssertionError: not given: {"),
    Twin(
        "takes each look for that of a new file",
        sees_files(lambda _: {"st_mtime_ns": next(serial)}),
        "AssertionError: given for nothing: {",
    ),
    Twin(
        "tells files by their size alone",
        sees_files(lambda _: {"st_dev": 0, "st_ino": 0, "st_mtime_ns": 0}),
        "AssertionError: not given: {",
    ),
    Twin("gives hidden files", gives_hidden(), "AssertionError: given for nothing: {"),
    Twin(
        "finds nothing when it scans again",
        scans_by(lambda time, there: there if time < 2 else []),
        "AssertionError: not given: {",
    ),
    Twin(
        "does not hear of what is moved in",
        deaf_to(events.FileMovedEvent),
        "AssertionError: not given: {",
    ),
]


@each_twin_of("FW-1", *TWINS)
def test_the_model_catches_a_broken_twin(twin: Twin) -> None:
    failures: list[str] = []
    broken = machine(build(COMPONENT, twin.fault), failures)
    plan = same_each_time(200, stateful_step_count=30)

    def search() -> None:
        try:
            run_state_machine_as_test(broken, settings=plan)
        except Flaky:  # what it has found it may fail to find again: threads and disk are real
            raise AssertionError(failures[0]) from None

    must_fail(twin, search)
