"""AsyncPendingQueue: the life of a file, and of a queue, on the real watch."""

import asyncio
import contextlib
import gc
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from reference_impl.queues.async_pending_queue import AsyncPendingQueue
from tests.kit.fakes import run, turns, until
from tests.queues.async_pending_queue.disk import drop, files, hidden
from tests.queues.async_pending_queue.helpers import owning, posix, quiet
from tests.queues.async_pending_queue.uploads import Server, fails_with, nothing


@pytest.mark.guarantee("PQ-1")
async def test_files_there_before_and_files_that_come_are_uploaded(directory: Path) -> None:
    server = Server()
    drop(directory, "before", b"1")
    async with AsyncPendingQueue(directory, server.upload) as queue:
        drop(directory, "renamed in", b"2")
        assert await queue.submit("submitted", b"3") == directory / "submitted.queued"
        (directory / "written in place.queued").write_bytes(b"4")
        await until(lambda: queue.stats.completed == 4)
    assert sorted(server.seen) == ["before", "renamed in", "submitted", "written in place"]
    assert files(directory) == {
        "before.completed": b"1",
        "renamed in.completed": b"2",
        "submitted.completed": b"3",
        "written in place.completed": b"4",
    }
    assert not hidden(directory)


@pytest.mark.parametrize("ran", [False, True], ids=["never ran", "was stopped"])
async def test_another_queue_may_submit_to_a_running_one(directory: Path, ran: bool) -> None:
    """As another process would: its link is no event, and yet it is not left to a rescan."""
    server = Server()
    other = AsyncPendingQueue(directory, nothing)
    if ran:
        async with other:
            pass
    drop(directory, "before", b"")
    async with AsyncPendingQueue(directory, server.upload):
        await server.until(lambda: server.seen == ["before"])
        await other.submit("a", b"1")
        await server.until(lambda: "a" in server.seen)


async def test_a_stopped_queue_may_submit_for_the_next_one(directory: Path) -> None:
    for ran in (False, True):
        queue = AsyncPendingQueue(directory, nothing)
        if ran:
            async with queue:
                pass
        await queue.stop()
        await queue.run()
        assert (await queue.submit(f"{ran}", b"1")).exists()
    assert len(files(directory)) == 2


async def test_a_file_given_up_is_tried_again_when_it_is_renamed(directory: Path) -> None:
    attempts: list[str] = []

    async def upload(path: Path) -> None:
        attempts.append(path.stem)
        if len(attempts) < 3:
            raise ConnectionError("no route")

    queue = AsyncPendingQueue(directory, upload, max_attempts=2, backoff=lambda n: 0.0)
    async with queue:
        await queue.submit("a", b"1")
        await until(lambda: queue.stats.given_up)
        (directory / "a.error").rename(directory / "a.queued")
        await until(lambda: queue.stats.completed)
    assert attempts == ["a"] * 3


@pytest.mark.guarantee("PQ-4")
async def test_a_file_written_in_two_parts_is_uploaded_once_it_is_valid(directory: Path) -> None:
    """The original took a half for the whole, five times in a row, and gave it up."""
    half_seen = asyncio.Event()

    async def upload(path: Path) -> None:
        if not path.read_bytes().endswith(b"END"):
            half_seen.set()
            raise ValueError("no END")

    # The second part is written while the file waits for its next attempt.
    pause = 0.0
    queue = AsyncPendingQueue(directory, upload, backoff=lambda n: pause)
    async with queue:
        pause = 3600.0
        (directory / "a.queued").write_bytes(b"first part, ")
        await half_seen.wait()
        await until(lambda: queue.stats.waiting)
        with (directory / "a.queued").open("ab") as file:
            file.write(b"END")
    pause = 0.0
    async with AsyncPendingQueue(directory, upload) as queue:
        await until(lambda: queue.stats.completed)
    assert files(directory) == {"a.completed": b"first part, END"}


async def test_a_file_that_is_still_open_for_writing_is_not_taken(directory: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells when a file is closed")
    seen: list[bytes] = []

    async def upload(path: Path) -> None:
        seen.append(path.read_bytes())

    async with owning(AsyncPendingQueue(directory, upload)) as queue:
        with (directory / "a.queued").open("wb", buffering=0) as file:
            file.write(b"first part, ")
            drop(directory, "b", b"all")
            await until(lambda: queue.stats.completed)
            assert seen == [b"all"]
            file.write(b"END")
        await until(lambda: queue.stats.completed == 2)
        assert seen == [b"all", b"first part, END"]


def test_an_asyncio_run_that_ends_puts_back(directory: Path) -> None:
    server = Server(holds=True)

    async def main() -> None:
        drop(directory, "a", b"1")
        task = asyncio.create_task(AsyncPendingQueue(directory, server.upload).run())
        await server.until(lambda: server.running)
        assert task

    run(main())
    assert files(directory) == {"a.queued": b"1"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_keyboard_interrupt_in_an_upload_puts_back(
    directory: Path, error: type[BaseException]
) -> None:
    drop(directory, "a", b"1")

    async def main() -> None:
        await AsyncPendingQueue(directory, fails_with(error())).run()

    with pytest.raises(error):
        run(main())
    assert files(directory) == {"a.queued": b"1"}


@posix
async def test_symbolic_links_in_the_directorys_path_are_kept(directory: Path) -> None:
    link = directory.with_name("link")
    link.symlink_to(directory)
    queued = await AsyncPendingQueue(link, nothing).submit("a", b"1")
    assert queued == link / "a.queued"


def test_the_queue_belongs_to_the_loop_that_runs_it(directory: Path) -> None:
    queue = AsyncPendingQueue(directory, nothing)

    async def main() -> None:
        async with queue:
            pass

    run(main())
    for use in (queue.run, queue.stop, lambda: queue.submit("a", b"1")):
        with pytest.raises(RuntimeError) as caught:
            asyncio.run(use())
        assert str(caught.value) == (
            "this AsyncPendingQueue belongs to the event loop that ran it: "
            "use it there, or make a new AsyncPendingQueue"
        )


def descriptors() -> set[str]:
    folder = Path("/proc/self/fd")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Only what nobody holds is gone meanwhile."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def threads_ended() -> None:
    """The default executor's: one that has just recovered a directory still holds the queue."""
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_nothing_is_left_behind(directory: Path) -> None:
    """No task, no descriptor, and no cycle that only the collector would find."""

    async def upload(path: Path) -> None:
        if path.stem == "b":
            raise ConnectionError

    await asyncio.to_thread(int)  # the default executor's threads stay
    before = descriptors()
    with quiet(), uncollected():
        queue = AsyncPendingQueue(directory, upload, max_attempts=1)
        async with queue:
            await queue.submit("a", b"1")
            await queue.submit("b", b"1")
            while not (queue.stats.completed and queue.stats.given_up):
                await asyncio.sleep(0)
        gone = weakref.ref(queue)
        del queue
        await turns()
        await threads_ended()
        assert gone() is None
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert descriptors() == before


@pytest.mark.usefixtures("plain_watch")
async def test_the_time_limit_of_a_stop_does_not_outlive_it(directory: Path) -> None:
    server = Server(holds=True)
    drop(directory, "a", b"1")
    queue = AsyncPendingQueue(directory, server.upload)
    with uncollected():
        async with queue:
            await server.until(lambda: server.running)
            stopping = asyncio.create_task(queue.stop(3600))
            await turns()
            server.end("a")
            await stopping
        gone = weakref.ref(queue)
        del queue, stopping
        await threads_ended()
        assert gone() is None
