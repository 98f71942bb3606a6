"""The jumps that CPython 3.13 leaves uncovered: what is told is what happens, by real signals."""

import ctypes
import signal
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from tests.kit import COMPONENTS
from tests.kit.catalogue import components, parts
from tests.kit.jumps import Hole, holes, holes_of_file

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 has other jumps")
only_3_13 = pytest.mark.skipif(
    sys.version_info[:2] != (3, 13), reason="3.12 looks after the jump; a later one may cover it"
)
# `trip.it` makes a signal arrive, without a point at which its handler runs: that is the next
# one, here the jump. What it gives is None.
SAMPLES = {
    "while in with": """
        with guard:
            while guard:
                trip.it
    """,
    "while in try": """
        try:
            while guard:
                trip.it
        finally:
            guard.__exit__()
    """,
    "while with two conditions": """
        with guard:
            while guard and trip.it is None:
                pass
    """,
    "for that ends with an if": """
        with guard:
            for number in [1, 2]:
                if trip.it:
                    work()
    """,
    "for that ends with continue": """
        with guard:
            for number in [1, 2]:
                if trip.it is None:
                    continue
                work()
    """,
    "plain for": """
        with guard:
            for number in [1, 2]:
                trip.it
    """,
    "while True": """
        with guard:
            while True:
                if not guard:
                    break
                trip.it
    """,
    "while True in try": """
        try:
            while True:
                trip.it
        finally:
            guard.__exit__()
    """,
    "while True in try, on with what was before": """
        number = 1
        try:
            while True:
                trip.it
        except BaseException:
            guard.__exit__()
            raise
    """,
    "while True in try in with": """
        with Guard():
            try:
                while True:
                    trip.it
            finally:
                guard.__exit__()
    """,
    "while True with continue, in try": """
        try:
            while True:
                if trip.it is None:
                    continue
                work()
        finally:
            guard.__exit__()
    """,
    "while in for in with": """
        with guard:
            for number in [1, 2]:
                while guard:
                    trip.it
    """,
    "for in for in with": """
        with guard:
            for number in [1, 2]:
                for number in [1, 2]:
                    trip.it
    """,
    "for in try": """
        try:
            for number in [1, 2]:
                trip.it
        finally:
            guard.__exit__()
    """,
    "comprehension with an if": """
        with guard:
            found = [number for number in [1, 2] if trip.it]
    """,
    "comprehension": """
        with guard:
            found = [trip.it for number in [1, 2]]
    """,
    "while in a function in with": """
        def inner():
            while guard:
                trip.it
        with guard:
            inner()
    """,
    "try in while in with": """
        with guard:
            while guard:
                try:
                    work()
                except ValueError:
                    pass
                trip.it
    """,
    "while at the end of try in while in with": """
        with guard:
            while guard:
                try:
                    work()
                finally:
                    trip.it
    """,
    "while in except in with": """
        with guard:
            try:
                raise ValueError
            except ValueError:
                while guard:
                    trip.it
    """,
    "while in with in a generator": """
        with guard:
            while guard:
                yield 1
                trip.it
    """,
    "a long way back": """
        with guard:
            while guard:
                work(NAMES)
                trip.it
    """.replace("NAMES", ", ".join(f"'{number}'" for number in range(300))),
}
# There the clean-up has nothing to do with the jump.
OUTSIDE = {
    "with in while": """
        while more():
            with guard:
                work()
    """,
    "try in while": """
        while more():
            try:
                work()
            except ValueError:
                pass
    """,
    "continue in try in while": """
        while True:
            try:
                if more():
                    continue
                work()
            except ValueError:
                pass
    """,
    "while in a generator": """
        while more():
            yield 1
    """,
    "await in with": """
        async def inner():
            async with guard:
                await work()
    """,
}


class Guard:
    """Knows whether its `with` was left."""

    left = False

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self.left = True


class Interrupt(BaseException):
    """What the signal handler raises."""


class Trip(int):
    """`it` is a C function that makes SIGINT arrive, and does not look for signals itself."""

    it = property(ctypes.pythonapi.PyErr_SetInterrupt)


@pytest.fixture
def _raising() -> Iterator[None]:
    def handler(*_: object) -> None:
        raise Interrupt

    ctypes.pythonapi.PyErr_SetInterrupt.restype = None
    before = signal.signal(signal.SIGINT, handler)
    yield
    signal.signal(signal.SIGINT, before)


def compiled(sample: str) -> CodeType:
    body = textwrap.indent(textwrap.dedent(sample), "    ")
    return compile(f"def sample(guard, trip, work, more):{body}", "<sample>", "exec")


def is_left_out(sample: str) -> bool:
    """Whether the jump's exception passes by the guard's `with` or `try`."""
    names: dict[str, Any] = {"Guard": Guard}
    exec(compiled(sample), names)
    guard = Guard()
    with pytest.raises(Interrupt):
        list(names["sample"](guard, Trip(), lambda *_: None, None))
    return not guard.left


@pytest.mark.usefixtures("_raising")
@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_told_is_what_happens(name: str) -> None:
    """With a real signal."""
    assert bool(list(holes(compiled(SAMPLES[name])))) is is_left_out(SAMPLES[name])


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_is_around_no_loop_has_no_hole(name: str) -> None:
    assert list(holes(compiled(OUTSIDE[name]))) == []


@only_3_13
def test_the_known_holes_are_found() -> None:
    found = {name for name, sample in SAMPLES.items() if list(holes(compiled(sample)))}
    assert {"while in with", "while in try", "while in with in a generator"} <= found
    assert found.isdisjoint({"plain for", "comprehension", "while in a function in with"})


@only_3_13
def test_a_hole_is_told_by_its_function_and_line(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(
        "class Thing:\n"
        "    def run(self, lock):\n"
        "        with lock:\n"
        "            while self.more():\n"
        "                self.work()\n"
        "\n"
        "    async def serve(self, lock):\n"
        "        async with lock:\n"
        "            await self.work()\n"
    )
    assert holes_of_file(file) == [Hole("Thing.run", 5)]


# They are in threads or on loops, where no signal handler raises, or their
# function has nothing to put back. A new one is to be read, and rather closed than added.
READ = {
    "bridges/async_parallel_execute": {
        *("async_as_completed.__anext__", "async_as_completed._report", "_Collected.results"),
    },
    "bridges/async_runner": {"AsyncRunner._run_loop"},
    "bridges/file_watch": {
        *("DirectoryWatch.__aenter__", "_Inbox.next_job", "_Inbox.wait_for_room"),
        *("_Watcher.run", "_Watcher._scan"),
    },
    "bridges/parallel_execute": {"_Call.start_threads", "_InThreads.work_off", "_InPool.feed"},
    "buses/async_event_bus": {"AsyncEventBus._reached"},
    "buses/event_bus": {"EventBus._hire"},
    "caches/ttl_cache": {"_ThreadLoad.wait"},
    "queues/_spool": {"Spool.recover", "Spool._linked_as"},
    "queues/async_converter_pool": {"AsyncConverterPool._feed"},
    "queues/async_pending_queue": {"AsyncPendingQueue._serve"},
}


@pytest.mark.skipif(sys.version_info[:2] != (3, 13), reason="each compiler has its own holes")
def test_no_component_has_a_hole_that_nobody_has_read() -> None:
    found = {
        module: {hole.function for hole in holes_of_file(COMPONENTS / f"{module}.py")}
        for module in [*components(), *parts()]
    }
    assert {module: functions for module, functions in found.items() if functions} == READ
