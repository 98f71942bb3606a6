"""FW-5: leaving joins the observer off the loop, and leaves nothing."""

import asyncio
import contextlib
import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import file_watch
from reference_impl.bridges.file_watch import DirectoryWatch
from tests.bridges.file_watch.faults import (
    forgets_an_observer,
    leaves_and_blocks_the_loop,
    leaves_without_waiting,
)
from tests.bridges.file_watch.helpers import Ear, linux, posix
from tests.bridges.file_watch.spying import entered, quiet
from tests.kit.fakes import PATIENCE
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin

pytestmark = posix


def descriptors() -> set[str]:
    """What this process has open, each with what it is."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{each.name} {each.readlink()}")
    return {each for each in found if "/proc/" not in each}


@contextlib.contextmanager
def nothing_is_left() -> Iterator[None]:
    """No thread, task or descriptor more than before."""
    threads, files = set(threading.enumerate()), descriptors()
    yield
    assert set(threading.enumerate()) == threads, "a thread is left"
    assert descriptors() == files, "a descriptor is left"
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def check_leaving_leaves_no_thread_descriptor_or_task(m: ModuleType, inbox: Path) -> None:
    for number in range(1100):  # so many that the scan is in the middle when the block is left
        (inbox / f"{number}").touch()
    threads = set(threading.enumerate())
    for _ in range(3):
        with nothing_is_left():
            async with m.DirectoryWatch(inbox, recursive=True) as watch:
                await anext(watch)
                assert set(threading.enumerate()) > threads
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def check_leaving_ends_a_watchdog_that_has_lost_count(m: ModuleType, inbox: Path) -> None:
    """It loses count of its watches: below, one was moved out, and its successor removed."""
    (inbox / "deep").mkdir()
    with nothing_is_left():
        async with entered(m, inbox, recursive=True) as spy:
            await spy.nothing_more()
            (inbox / "deep").rename(inbox.with_name("elsewhere"))
            await spy.nothing_more()
            (inbox / "deep").mkdir()
            await spy.nothing_more()
            (inbox / "deep").rmdir()
            await spy.nothing_more()
            await spy.watch.__aexit__()


async def check_leaving_does_not_block_the_loop(m: ModuleType, inbox: Path) -> None:
    """An observer that takes its time to stop, until another task of the loop lets it."""
    go_on, stopping, others = threading.Event(), asyncio.Event(), list[str]()

    async def other() -> None:
        await stopping.wait()
        others.append("had a turn")
        go_on.set()

    async with quiet(m, inbox) as spy:
        loop, observer = asyncio.get_running_loop(), spy.observers.made[-1]
        original = observer.stop

        def stop() -> None:
            loop.call_soon_threadsafe(stopping.set)
            assert go_on.wait(PATIENCE)
            original()

        observer.stop = stop
        task = asyncio.create_task(other())
        await spy.watch.__aexit__()
        others.append("have left")
        await task
        assert others == ["had a turn", "have left"], "the loop stood still"


LINUX = [
    Proof(
        "FW-5",
        check_leaving_leaves_no_thread_descriptor_or_task,
        [
            Twin(
                "does not wait for its threads",
                leaves_without_waiting(),
                "AssertionError: a thread is left",
            ),
            Twin(
                "starts an observer too many",
                forgets_an_observer(),
                "AssertionError: a thread is left",
            ),
        ],
    ),
    Proof("FW-5", check_leaving_ends_a_watchdog_that_has_lost_count),
]
EVERYWHERE = [
    Proof(
        "FW-5",
        check_leaving_does_not_block_the_loop,
        [
            Twin(
                "joins its threads on the loop",
                leaves_and_blocks_the_loop(),
                "AssertionError: the loop stood still",
            )
        ],
    )
]

test_nothing_is_left = linux(holding(LINUX, file_watch, "inbox"))


@pytest.fixture
def _sweep() -> Iterator[None]:
    """End the threads that a twin has left."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name == "directory-watch":  # it is ending its observer, which two cannot
            thread.join(PATIENCE)
    for thread in set(threading.enumerate()) - before:
        getattr(thread, "stop", lambda: None)()
        thread.join()


swept = pytest.mark.usefixtures("_sweep")
test_what_is_left_is_noticed = linux(swept(failing(LINUX, file_watch, "inbox")))
test_the_loop_goes_on = holding(EVERYWHERE, file_watch, "inbox")
test_a_loop_that_stands_still_is_noticed = failing(EVERYWHERE, file_watch, "inbox")


@pytest.mark.guarantee("FW-5")
@pytest.mark.parametrize("executor", ["busy", "closed"])
def test_leaving_needs_no_executor(inbox: Path, executor: str) -> None:
    async def main() -> None:
        jobs, gate = list[asyncio.Future[Any]](), threading.Event()
        loop = asyncio.get_running_loop()
        async with entered(file_watch, inbox) as spy:
            if executor == "closed":
                await loop.shutdown_default_executor()
            else:
                jobs = [loop.run_in_executor(None, gate.wait) for _ in range(100)]
            await spy.nothing_more()
            await spy.watch.__aexit__()
        if executor == "busy":
            assert not any(job.done() for job in jobs)
            gate.set()
            await asyncio.gather(*jobs)

    asyncio.run(main())


@pytest.mark.guarantee("FW-5")
def test_the_block_may_be_left_by_an_error_or_a_cancellation(inbox: Path) -> None:
    async def main() -> None:
        watch = DirectoryWatch(inbox)
        before = set(threading.enumerate())
        with pytest.raises(KeyError):
            async with watch:
                raise KeyError

        async def iterate() -> None:
            async with watch:
                inside.set()
                async for _ in watch:
                    pass

        inside = asyncio.Event()
        task = asyncio.create_task(iterate())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert set(threading.enumerate()) == before
        async with watch:  # it may be entered again
            (inbox / "file").touch()
            assert (await anext(watch)).name == "file"

    asyncio.run(main())


@pytest.mark.guarantee("FW-5")
@pytest.mark.parametrize("when", ["made", "started"])
def test_an_observer_that_does_not_start_leaves_nothing(
    inbox: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    original: Any = vars(file_watch)["Observer"]

    class Failing(original):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            if when == "made":
                raise OSError(errno.EMFILE, "inotify instance limit reached")
            super().__init__(**options)

        def on_thread_start(self) -> None:
            raise OSError(errno.ENOSPC, "inotify watch limit reached")

    async def main() -> None:
        before = set(threading.enumerate())
        with pytest.raises(OSError, match="limit reached"):
            async with DirectoryWatch(inbox):
                pytest.fail("entered")
        assert set(threading.enumerate()) == before

    monkeypatch.setattr(file_watch, "Observer", Failing)
    asyncio.run(main())


def test_an_observer_that_cannot_be_ended_is_waited_for_no_longer(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault of watchdog's goes to threading.excepthook, and nobody waits for ever."""
    faults: list[threading.ExceptHookArgs] = []

    async def main() -> None:
        async with quiet(file_watch, inbox) as spy:
            observer = spy.observers.made[-1]
            stop = observer.stop

            def faulty() -> None:
                observer.stop = stop
                stop()
                raise OSError("a bug of watchdog's")

            observer.stop = faulty
            await spy.watch.__aexit__()
            assert "directory-watch" not in {thread.name for thread in threading.enumerate()}
            observer.join(PATIENCE)

    monkeypatch.setattr(threading, "excepthook", faults.append)
    asyncio.run(main())
    assert [str(fault.exc_value) for fault in faults] == ["a bug of watchdog's"]


def test_its_threads_are_daemons_and_the_keeper_has_a_name(inbox: Path) -> None:
    async def main() -> None:
        before = set(threading.enumerate())
        async with DirectoryWatch(inbox):
            threads = set(threading.enumerate()) - before
            assert "directory-watch" in {thread.name for thread in threads}
            assert all(thread.daemon for thread in threads)

    asyncio.run(main())


@linux
def test_leaving_while_events_come_logs_no_error(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """watchdog's reader holds an event until it is being ended."""
    holds, ends = threading.Event(), threading.Event()

    async def main() -> None:
        async with quiet(file_watch, inbox) as spy:
            (emitter,) = spy.observers.made[-1].emitters
            group = emitter._inotify
            read, deactivate = group.read_event, group.deactivate

            def read_event() -> Any:
                event = read()
                if event is not None and event.path.endswith(b"held"):
                    holds.set()
                    assert ends.wait(PATIENCE)
                return event

            def deactivate_and_let_go() -> None:
                deactivate()
                ends.set()

            monkeypatch.setattr(group, "read_event", read_event)
            monkeypatch.setattr(group, "deactivate", deactivate_and_let_go)
            await spy.nothing_more()  # so that it has come back for the next event
            (inbox / "held").touch()
            assert await asyncio.to_thread(holds.wait, PATIENCE)
            with Ear("watchdog") as ear:
                await spy.watch.__aexit__()
            assert not ear.heard

    asyncio.run(main())


def test_leaving_may_be_cancelled_and_the_threads_end_all_the_same(inbox: Path) -> None:
    async def main() -> None:
        go_on = threading.Event()
        async with quiet(file_watch, inbox) as spy:
            observer = spy.observers.made[-1]
            original = observer.stop
            observer.stop = lambda: (go_on.wait(PATIENCE), original())
            leaving = asyncio.create_task(spy.watch.__aexit__())
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.wait([leaving])
            assert leaving.cancelled()
            with pytest.raises(RuntimeError, match="in use already"):
                await spy.watch.__aenter__()
            go_on.set()
            await spy.watch.__aexit__()
            assert "directory-watch" not in {thread.name for thread in threading.enumerate()}

    asyncio.run(main())


def test_entering_may_be_cancelled(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original: Any = vars(file_watch)["Observer"]
    go_on = threading.Event()

    class Slow(original):  # type: ignore[misc]
        def start(self) -> None:
            go_on.wait(PATIENCE)
            super().start()

    monkeypatch.setattr(file_watch, "Observer", Slow)

    async def main() -> None:
        before = set(threading.enumerate())
        watch = DirectoryWatch(inbox)
        entering = asyncio.create_task(watch.__aenter__())
        await asyncio.sleep(0)
        entering.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait([entering])
        assert entering.cancelled()
        assert set(threading.enumerate()) == before

    asyncio.run(main())


def test_a_thread_that_cannot_be_started_leaves_the_watch_usable(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        watch = DirectoryWatch(inbox)
        with monkeypatch.context() as patch:

            def start(self: threading.Thread) -> None:
                raise RuntimeError("can't start new thread")

            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError, match="new thread"):
                await watch.__aenter__()
        async with watch:
            (inbox / "file").touch()
            assert (await anext(watch)).name == "file"

    asyncio.run(main())
