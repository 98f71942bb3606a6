"""FW-2: from watchdog's threads to the loop, a burst at a time; a new file and an old story."""

import asyncio
import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from watchdog import events

from reference_impl.bridges import file_watch
from tests.bridges.file_watch import faults
from tests.bridges.file_watch.helpers import COMPONENT, age, linux, posix
from tests.bridges.file_watch.spying import Spy, entered, quiet, spying
from tests.kit.fakes import PATIENCE, until
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin, build, must_fail

pytestmark = posix


async def check_a_burst_is_one_wake_up_and_gives_no_file_twice(m: ModuleType, inbox: Path) -> None:
    loop = asyncio.get_running_loop()
    posts, original = [], loop.call_soon_threadsafe

    def post(*arguments: Any) -> Any:
        posts.append(threading.current_thread().name)
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_soon_threadsafe", post)
        async with quiet(m, inbox) as spy:
            await spy.nothing_more()
            noticed = threading.Semaphore(0)
            patch.setattr(spy, "handled", _Counted(noticed))
            waiting = asyncio.create_task(spy.name())
            await asyncio.sleep(0)  # it waits now
            posts.clear()
            for number in range(200):  # and the loop stands still
                (inbox / f"{number}").touch()
                assert noticed.acquire(timeout=PATIENCE)
            for _ in range(5):
                (inbox / "199").write_text("changed")
                assert noticed.acquire(timeout=PATIENCE)
            assert len(posts) == 1, "too many wake-ups"
            assert await waiting == "0"
            assert await spy.names(199) == [f"{number}" for number in range(1, 200)]
            assert len(posts) == 1
            await spy.nothing_more()


class _Counted(list[Any]):
    """Tells of each event that has been handled."""

    def __init__(self, noticed: threading.Semaphore) -> None:
        super().__init__()
        self._noticed = noticed

    def append(self, event: Any) -> None:
        super().append(event)
        if "sentinel" not in str(event.src_path):  # one of before may come late
            self._noticed.release()


async def check_the_threads_touch_the_loop_by_call_soon_threadsafe_alone(
    m: ModuleType, inbox: Path
) -> None:
    """Whatever is asked of the loop and of the bell is noted, with the thread that asks."""
    here, strangers = threading.get_ident(), set[str]()

    def noted(what: str, original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if threading.get_ident() != here:
                strangers.add(what)
                if what.startswith("Event."):  # noted, and done on the loop: else it may be lost
                    return post(original, *arguments)
            return original(*arguments, **options)

        return call

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.001)

    loop = asyncio.get_running_loop()
    post = loop.call_soon_threadsafe
    asked = ["call_soon", "call_soon_threadsafe", "call_later", "call_at", "create_task"]
    asked += ["create_future", "run_in_executor", "is_closed", "is_running", "time", "stop"]
    with pytest.MonkeyPatch.context() as patch:
        for what in asked:
            patch.setattr(loop, what, noted(what, getattr(loop, what)))
        for what in ("set", "clear"):
            patch.setattr(asyncio.Event, what, noted(f"Event.{what}", getattr(asyncio.Event, what)))
        # The loop turns anyway, so that a wake-up that does not reach it shows here, not as a hang.
        ticking = asyncio.create_task(tick())
        async with entered(m, inbox) as spy:
            for _ in range(3):
                await spy.nothing_more()
        ticking.cancel()
    assert strangers == {"call_soon_threadsafe"}


async def check_a_repeated_event_is_told_from_a_new_file(m: ModuleType, inbox: Path) -> None:
    path = inbox / "file"
    path.write_text("first")
    age(path)
    async with entered(m, inbox) as spy:
        assert await spy.name() == "file"
        path.open("r+").close()  # closed after writing, says the event, but nothing was written
        await spy.nothing_more()
        path.write_text("other")  # as long as it was
        assert await spy.name() == "file"
        path.unlink()
        path.write_text("third")
        age(path)
        assert await spy.name() == "file"


async def check_a_change_without_a_trace_just_after_a_file_was_given_gives_it_again(
    m: ModuleType, inbox: Path
) -> None:
    """Two writes of one length in one step of the file system's clock look the same."""
    path = inbox / "file"
    tick = time.time_ns() + 10**12

    def write(text: str) -> None:
        with path.open("w") as file:
            file.write(text)
            file.flush()
            os.utime(path, ns=(tick, tick))

    async with quiet(m, inbox) as spy:
        write("first")
        assert await spy.name() == "file"
        write("other")
        assert await spy.name() == "file"


async def check_a_file_that_went_while_it_was_pending_is_not_given(
    m: ModuleType, inbox: Path
) -> None:
    async with quiet(m, inbox) as spy:
        for number in range(10):
            (inbox / f"{number}").write_text("x")
        await until(lambda: spy.told(events.FileClosedEvent, "9"))
        for number in range(1, 10):
            (inbox / f"{number}").rename(inbox / f".{number}")
        (inbox / "last").touch()
        await until(lambda: spy.told(events.FileClosedEvent, "last"))
        assert await spy.names(2) == ["0", "last"]


serial = itertools.count(1)
LINUX = [
    Proof(
        "FW-2",
        check_a_burst_is_one_wake_up_and_gives_no_file_twice,
        [
            Twin(
                "wakes the loop for each file",
                faults.rings_for_each_event(),
                "AssertionError: too many wake-ups",
            ),
            Twin("gives each file twice", faults.gives_twice(), "AssertionError: spy.names(199)"),
        ],
    ),
    Proof(
        "FW-2",
        check_a_repeated_event_is_told_from_a_new_file,
        [
            Twin(
                "takes each look for that of a new file",
                faults.sees_files(lambda _: {"st_mtime_ns": next(serial)}),
                "AssertionError: == sentinel",
            ),
            Twin("goes by names alone", faults.gives_once(lambda path: path), "hang"),
            Twin(
                "overlooks the time", faults.sees_files(lambda _: {"st_mtime_ns": 10**18}), "hang"
            ),
        ],
    ),
    Proof(
        "FW-2",
        check_a_change_without_a_trace_just_after_a_file_was_given_gives_it_again,
        [Twin("goes by the look of a file alone", faults.gives_once(faults.name_and_look), "hang")],
    ),
    Proof(
        "FW-2",
        check_a_file_that_went_while_it_was_pending_is_not_given,
        [
            Twin(
                "gives what has gone",
                faults.deaf_to(events.FileMovedEvent),
                "AssertionError: ['0', 'last']",
            )
        ],
    ),
]
EVERYWHERE = [
    Proof(
        "FW-2",
        check_the_threads_touch_the_loop_by_call_soon_threadsafe_alone,
        [
            Twin(
                "sets an event off the loop",
                faults.rings_in_the_thread(),
                "AssertionError: {'call_soon_threadsafe'}",
            )
        ],
    )
]

test_bursts_and_repetitions = linux(holding(LINUX, file_watch, "inbox"))
test_a_wake_up_or_a_file_too_many_is_noticed = linux(failing(LINUX, file_watch, "inbox"))
test_the_loop_is_left_to_itself = holding(EVERYWHERE, file_watch, "inbox")
test_a_touch_from_another_thread_is_noticed = failing(EVERYWHERE, file_watch, "inbox")


# A loop that is closed under it.


def check_a_loop_that_was_closed_ends_the_threads(
    m: ModuleType, inbox: Path, then: Callable[[Spy], None], patience: float = PATIENCE
) -> None:
    before, loop = set(threading.enumerate()), asyncio.new_event_loop()
    with spying(m, inbox) as spy:
        spy.watch = m.DirectoryWatch(inbox, rescan_interval=60.0, clock=spy.clock)
        loop.run_until_complete(spy.watch.__aenter__())
        loop.run_until_complete(spy.at_rest())
        loop.close()
        threads = set(threading.enumerate()) - before
        try:
            then(spy)
            for thread in threads:
                thread.join(patience)
                assert not thread.is_alive(), "nobody told the threads"
        finally:
            with contextlib.suppress(RuntimeError):  # refused, but it ends them
                asyncio.run(spy.watch.__aexit__())
            for thread in threads:
                thread.join(PATIENCE)


def event_comes(spy: Spy) -> None:
    (spy.inbox / "file").touch()


def rescan_comes(spy: Spy) -> None:
    spy.set(60.0)


@pytest.mark.guarantee("FW-2")
@pytest.mark.parametrize(
    ("then", "files"), [(event_comes, 0), (rescan_comes, 0), (rescan_comes, 1)]
)
def test_a_loop_that_was_closed_ends_the_threads(
    inbox: Path, then: Callable[[Spy], None], files: int
) -> None:
    for number in range(files):  # while one waits to be taken, nobody rings for another
        (inbox / f"there-{number}").touch()
    check_a_loop_that_was_closed_ends_the_threads(file_watch, inbox, then)


DEAF = Twin(
    "does not notice that its loop is closed",
    faults.ignores_a_closed_loop(),
    "AssertionError: nobody told the threads",
)


@pytest.mark.twin("FW-2", fault=DEAF.name, fails=DEAF.ends)
def test_a_closed_loop_that_goes_unnoticed_is_noticed(inbox: Path) -> None:
    broken = build(COMPONENT, DEAF.fault)
    must_fail(
        DEAF,
        lambda: check_a_loop_that_was_closed_ends_the_threads(broken, inbox, rescan_comes, 0.5),
    )


# Tasks that take.


@linux
def test_tasks_share_the_files_and_a_cancelled_one_takes_none(inbox: Path) -> None:
    async def main() -> None:
        async with entered(file_watch, inbox) as spy:
            given: list[str] = []

            async def take() -> None:
                async for path in spy.watch:
                    given.append(path.name)
                    await asyncio.sleep(0)

            async def take_one() -> Path:
                return Path(await anext(spy.watch))

            tasks = [asyncio.create_task(take()) for _ in range(3)]
            cancelled = [asyncio.create_task(take_one()) for _ in range(3)]
            await asyncio.sleep(0)
            for number in range(50):
                (inbox / f"{number}").write_text("x")
            for task in cancelled:
                task.cancel()
            assert all(map(asyncio.Task.cancelled, (await asyncio.wait(cancelled))[0]))
            await until(lambda: len(set(given)) == 50)
        await asyncio.gather(*tasks)  # the end of the block is the end of the iteration

    asyncio.run(main())


def test_who_takes_one_file_after_another_lets_others_in(inbox: Path) -> None:
    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        for number in range(1000):
            (inbox / f"{number}").touch()
        async with entered(file_watch, inbox) as spy:
            await spy.at_rest()  # all have been found
            task = asyncio.create_task(other())
            await asyncio.sleep(0)
            turns = 0
            for _ in range(1000):
                await anext(spy.watch)
            assert 10 <= turns <= 20
            task.cancel()

    asyncio.run(main())
