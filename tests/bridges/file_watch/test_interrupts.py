"""FW-1: an exception that a signal handler raises while a file is taken loses no file."""

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reference_impl.bridges import file_watch
from tests.bridges.file_watch.faults import GIVE
from tests.bridges.file_watch.helpers import COMPONENT, linux
from tests.bridges.file_watch.spying import spying
from tests.kit.interrupts import Ending, Interrupts
from tests.kit.proofs import each_twin_of
from tests.kit.twins import Twin, build, override

pytestmark = linux
FILES = {"one", "two"}


@dataclass
class Taking:
    """A watch with two files that wait, on a loop that does not run."""

    watch: Any
    given: list[Path] = field(default_factory=list)

    def take(self) -> None:
        """Take one, as a task of that loop would."""
        step: Any = anext(self.watch)
        try:
            step.send(None)
        except StopIteration as end:
            self.given.append(end.value)


class Watched:
    """Makes such watches, one after another, and ends each of them."""

    def __init__(self, m: Any) -> None:
        self._module = m

    def prepare(self) -> Taking:
        self.folder = Path(tempfile.mkdtemp())
        for name in FILES:
            (self.folder / name).touch()
        self.loop = asyncio.new_event_loop()
        self.spies = spying(self._module, self.folder)
        spy = self.spies.__enter__()
        options: dict[str, Any] = {"rescan_interval": None, "clock": spy.clock}
        watch = self._module.DirectoryWatch(self.folder, **options)
        self.loop.run_until_complete(watch.__aenter__())
        self.loop.run_until_complete(spy.at_rest())
        asyncio._set_running_loop(self.loop)
        return Taking(watch)

    def check(self, taking: Taking, _: Ending) -> None:
        """What was not given is given next."""
        asyncio._set_running_loop(None)
        given = {path.name for path in taking.given}

        async def rest() -> None:
            try:
                async with asyncio.timeout(0.5):
                    while given != FILES:
                        given.add((await anext(taking.watch)).name)
            finally:
                await taking.watch.__aexit__()

        try:
            self.loop.run_until_complete(rest())
        finally:
            self.loop.close()
            self.spies.__exit__(None, None, None)
            shutil.rmtree(self.folder)


@pytest.mark.guarantee("FW-1")
def test_an_interrupted_taking_loses_no_file(interrupts: Interrupts) -> None:
    watched = Watched(file_watch)
    interrupts.prove(watched.prepare, Taking.take, watched.check, twice=False)


def gives_by_a_helper() -> Any:
    """What has been taken goes through one call more."""

    def make(original: Any) -> Any:
        async def give(self: Any) -> Path:
            return Path(await original(self))

        return give

    return override(GIVE, make)


@each_twin_of(
    "FW-1", Twin("does more when it has taken a file", gives_by_a_helper(), "TimeoutError")
)
def test_a_file_that_an_interrupt_costs_is_noticed(twin: Twin, interrupts: Interrupts) -> None:
    watched = Watched(build(COMPONENT, twin.fault))
    interrupts.catch(watched.prepare, Taking.take, watched.check, twin=twin, twice=False)
