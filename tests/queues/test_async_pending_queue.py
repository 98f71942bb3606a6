"""AsyncPendingQueue: behaviour, bad input, a faulty disk, and processes that fork and die."""

import asyncio
import contextlib
import errno
import functools
import gc
import json
import logging
import math
import os
import random
import shutil
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reference_impl.queues import async_pending_queue
from reference_impl.queues.async_pending_queue import (
    AsyncPendingQueue,
    PendingStats,
    exponential_backoff,
)
from tests.kit.process import run_python
from tests.kit.twins import twin
from tests.queues.pending_queue_crashes import PlainWatch, drop, files, hidden, unfinished

FILE = "queues/async_pending_queue.py"
LOGGER = "reference_impl.queues.async_pending_queue"
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX file systems and processes")


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run it; a hang is a failure, of which the limit says nothing else.

    So is an exception of a task or a callback that nobody has asked for.
    """
    unseen: list[dict[str, Any]] = []

    async def bounded() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        async with asyncio.timeout(60):
            await main

    asyncio.run(bounded())
    assert not unseen


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "queue"
    path.mkdir()
    return path


class Server:
    """Uploads that wait to be told how to end, and a record of what was asked."""

    def __init__(self, *, holds: bool = False) -> None:
        self.seen: list[str] = []
        self.running: dict[str, asyncio.Future[None]] = {}
        self.most = 0
        self.holds = holds
        self.changed = asyncio.Event()

    async def upload(self, path: Path) -> None:
        self.seen.append(path.stem)
        self.running[path.stem] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.running))
        self.changed.set()
        try:
            if self.holds:
                await self.running[path.stem]
        finally:
            del self.running[path.stem]
            self.changed.set()

    def end(self, name: str, error: BaseException | None = None) -> None:
        if error is None:
            self.running[name].set_result(None)
        else:
            self.running[name].set_exception(error)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds, looking again after each change."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def turns(number: int = 50) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def nothing(path: Path) -> None:
    pass


def fails_with(error: BaseException) -> Callable[[Path], Awaitable[None]]:
    async def upload(path: Path) -> None:
        raise error

    return upload


@contextlib.asynccontextmanager
async def owning(queue: AsyncPendingQueue) -> AsyncIterator[AsyncPendingQueue]:
    """The queue's own block, which an assertion that fails leaves without waiting."""
    async with queue:
        try:
            yield queue
        except BaseException:
            await queue.stop(0)
            raise


@pytest.fixture
def plain_watch(monkeypatch: pytest.MonkeyPatch) -> type[PlainWatch]:
    monkeypatch.setattr(async_pending_queue, "DirectoryWatch", PlainWatch)
    return PlainWatch


# The life of a file, on the real watch.


@pytest.mark.guarantee("PQ-1")
def test_files_there_before_and_files_that_come_are_uploaded(directory: Path) -> None:
    async def main() -> None:
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

    run(main())


@pytest.mark.parametrize("ran", [False, True], ids=["never ran", "was stopped"])
def test_another_queue_may_submit_to_a_running_one(directory: Path, ran: bool) -> None:
    """As another process would: its link is no event, and yet it is not left to a rescan."""

    async def main() -> None:
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

    run(main())


def test_a_stopped_queue_may_submit_for_the_next_one(directory: Path) -> None:
    async def main() -> None:
        for ran in (False, True):
            queue = AsyncPendingQueue(directory, nothing)
            if ran:
                async with queue:
                    pass
            await queue.stop()
            await queue.run()
            assert (await queue.submit(f"{ran}", b"1")).exists()
        assert len(files(directory)) == 2

    run(main())


def test_a_file_given_up_is_tried_again_when_it_is_renamed(directory: Path) -> None:
    async def main() -> None:
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

    run(main())


@pytest.mark.guarantee("PQ-1", "PQ-4")
def test_a_file_written_in_two_parts_is_uploaded_once_it_is_valid(directory: Path) -> None:
    """The original took a half for the whole, five times in a row, and gave it up."""

    async def main() -> None:
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

    run(main())


def test_a_file_that_is_still_open_for_writing_is_not_taken(directory: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells when a file is closed")

    async def main() -> None:
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

    run(main())


# PQ-1: nothing is overwritten, what a dead owner left is recovered.


@pytest.mark.guarantee("PQ-1")
@pytest.mark.parametrize("state", ["queued", "processing", "completed", "error"])
def test_submit_refuses_a_name_that_is_there(
    directory: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / f"a.{state}").write_bytes(b"old")
    monkeypatch.setattr(async_pending_queue, "_write", None)  # it is refused before that
    with pytest.raises(FileExistsError) as caught:
        asyncio.run(AsyncPendingQueue(directory, nothing).submit("a", b"new"))
    assert caught.value.errno == errno.EEXIST
    assert caught.value.strerror == "there is such a file: submit under another name"
    assert caught.value.filename == str(directory / f"a.{state}")
    assert files(directory) == {f"a.{state}": b"old"}
    assert not hidden(directory)


@pytest.mark.guarantee("PQ-1")
@pytest.mark.parametrize("state", ["queued", "processing", "completed", "error"])
def test_submit_refuses_a_name_that_is_taken_while_it_writes(
    directory: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = async_pending_queue._write

    def write_too_late(path: Path, data: bytes) -> None:
        write(path, data)
        (directory / f"a.{state}").write_bytes(b"other")

    monkeypatch.setattr(async_pending_queue, "_write", write_too_late)
    with pytest.raises(FileExistsError):
        asyncio.run(AsyncPendingQueue(directory, nothing).submit("a", b"new"))
    assert files(directory) == {f"a.{state}": b"other"}
    assert not hidden(directory)


@pytest.mark.guarantee("PQ-1")
def test_of_submissions_of_one_name_one_succeeds(directory: Path) -> None:
    async def main() -> None:
        queue = AsyncPendingQueue(directory, nothing)
        results = await asyncio.gather(
            *(queue.submit("a", b"%d" % n) for n in range(20)), return_exceptions=True
        )
        assert sum(isinstance(result, Path) for result in results) == 1
        assert sum(isinstance(result, FileExistsError) for result in results) == 19
        assert not hidden(directory)

    run(main())


def check_put_back(module: ModuleType, directory: Path) -> None:
    """While a file is uploaded, its producer drops a newer one of its name."""
    module.__dict__["DirectoryWatch"] = PlainWatch

    async def main() -> None:
        server = Server(holds=True)
        drop(directory, "a", b"old")
        queue = module.AsyncPendingQueue(directory, server.upload)
        async with queue:
            await server.until(lambda: server.running)
            drop(directory, "a", b"new")
            await queue.stop(0)
        assert sorted(files(directory).values()) == [b"new", b"old"], "one was overwritten"
        assert files(directory) == {"a.queued": b"new", "a-1.queued": b"old"}

    run(main())


@pytest.mark.guarantee("PQ-1")
def test_a_put_back_does_not_overwrite_a_producers_new_file(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    check_put_back(async_pending_queue, directory)


@pytest.mark.twin("PQ-1")
def test_a_put_back_that_overwrites_is_caught(directory: Path) -> None:
    broken = twin(
        FILE,
        ("not os.path.lexists(target)", "True"),
        (
            "target.hardlink_to(self._path(name",
            "target.unlink(True) or target.hardlink_to(self._path(name",
        ),
    )
    with pytest.raises(AssertionError, match="one was overwritten"):
        check_put_back(broken, directory)


@pytest.mark.guarantee("PQ-1", "PQ-2")
def test_a_newer_file_that_comes_during_an_upload_is_uploaded_after_it(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    async def main() -> None:
        server = Server(holds=True)
        drop(directory, "a", b"old")
        async with owning(AsyncPendingQueue(directory, server.upload)) as queue:
            await server.until(lambda: server.running)
            drop(directory, "a", b"new")
            plain_watch.last.announce("a.queued")
            await turns()
            assert server.seen == ["a"]
            server.end("a")
            await turns()
            assert server.seen == ["a", "a"], "the newer one is left alone"
            server.end("a")
            await until(lambda: queue.stats.completed == 2)
        assert files(directory) == {"a.completed": b"old", "a-1.completed": b"new"}

    run(main())


@pytest.mark.guarantee("PQ-1")
def test_a_newer_file_that_comes_just_before_the_put_back_is_not_overwritten(
    directory: Path, plain_watch: type[PlainWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the look for what is in the way, that is."""
    link, server = os.link, Server(holds=True)

    def link_too_late(source: Any, target: Any, **options: Any) -> None:
        if target == directory / "a.queued":
            drop(directory, "a", b"new")
        link(source, target, **options)

    async def main() -> None:
        drop(directory, "a", b"old")
        async with AsyncPendingQueue(directory, server.upload) as queue:
            await server.until(lambda: server.running)
            monkeypatch.setattr(os, "link", link_too_late)
            await queue.stop(0)
        assert files(directory) == {"a.queued": b"new", "a-1.queued": b"old"}
        assert queue.stats.errors == 0

    run(main())


@pytest.mark.guarantee("PQ-1")
def test_completed_files_and_errors_are_not_overwritten(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    async def main() -> None:
        for name in ("a.completed", "a-1.completed", "b.error"):
            (directory / name).write_bytes(b"old")
        (directory / "b.error.json").write_bytes(b"of the old one")
        drop(directory, "a", b"new")
        drop(directory, "b", b"bad")

        async def upload(path: Path) -> None:
            if path.stem == "b":
                raise ConnectionError

        async with AsyncPendingQueue(directory, upload, max_attempts=1) as queue:
            await until(lambda: queue.stats.given_up and queue.stats.completed)
        assert files(directory) == {
            "a.completed": b"old",
            "a-1.completed": b"old",
            "a-2.completed": b"new",
            "b.error": b"old",
            "b-1.error": b"bad",
        }
        assert (directory / "b.error.json").read_bytes() == b"of the old one"
        assert (directory / "b-1.error.json").is_file()

    run(main())


@pytest.mark.guarantee("PQ-1")
def test_what_a_dead_owner_left_is_uploaded_at_once(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    """However old or new it is: the original left it alone for 30 minutes."""

    async def main() -> None:
        (directory / "new.processing").write_bytes(b"1")
        (directory / "old.processing").write_bytes(b"2")
        os.utime(directory / "old.processing", (0, 0))
        server = Server()
        async with AsyncPendingQueue(directory, server.upload) as queue:
            assert queue.stats.recovered == 2
            await until(lambda: queue.stats.completed == 2)
        assert sorted(server.seen) == ["new", "old"]

    run(main())


@pytest.mark.guarantee("PQ-1")
def test_what_a_dead_owner_left_and_a_newer_file_of_its_name_are_both_uploaded(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    async def main() -> None:
        (directory / "a.processing").write_bytes(b"old")  # whose attempts nobody has counted
        drop(directory, "a", b"new")
        async with AsyncPendingQueue(directory, nothing) as queue:
            await until(lambda: queue.stats.completed == 2)
        assert files(directory) == {"a.completed": b"new", "a-1.completed": b"old"}
        assert (queue.stats.recovered, queue.stats.errors) == (1, 0)

    run(main())


@pytest.mark.guarantee("PQ-1")
def test_a_link_that_others_made_is_not_taken_for_a_half_done_move(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    async def main() -> None:
        (directory / "a.processing").write_bytes(b"1")
        for name in ("a.copy", "b.completed"):
            (directory / name).hardlink_to(directory / "a.processing")
        server = Server()
        async with AsyncPendingQueue(directory, server.upload) as queue:
            await until(lambda: queue.stats.completed)
        assert (server.seen, queue.stats.recovered) == (["a"], 1)
        assert files(directory) == {"a.completed": b"1", "b.completed": b"1"}

    run(main())


@pytest.mark.guarantee("PQ-1", "PQ-6")
def test_an_older_file_that_the_disk_left_is_uploaded_after_the_newer_one(
    directory: Path, plain_watch: type[PlainWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody announces it under its new name."""
    link, refusals = os.link, 1

    def refuse(source: Any, target: Any, **options: Any) -> None:
        nonlocal refusals
        if refusals and target == directory / "a.completed":
            refusals -= 1
            drop(directory, "a", b"new")
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        link(source, target, **options)

    async def main() -> None:
        asked: list[int] = []
        uploaded: list[bytes] = []

        async def upload(path: Path) -> None:
            uploaded.append(path.read_bytes())

        def backoff(failures: int) -> float:
            asked.append(failures)
            return 0.0

        monkeypatch.setattr(os, "link", refuse)
        drop(directory, "a", b"old")
        async with AsyncPendingQueue(directory, upload, backoff=backoff) as queue:
            await until(lambda: queue.stats.completed == 2)
        assert files(directory) == {"a.completed": b"new", "a-1.completed": b"old"}
        assert (uploaded, asked) == ([b"old", b"new", b"old"], [1, 1])
        assert (queue.stats.recovered, queue.stats.errors) == (1, 1)

    run(main())


@pytest.mark.guarantee("PQ-2")
def test_an_upload_that_takes_an_hour_is_not_taken_for_a_dead_one(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    """By its file's times the original judged it stuck, and uploaded it again beside itself."""

    async def main() -> None:
        server = Server(holds=True)
        drop(directory, "a", b"1")
        os.utime(directory / "a.queued", (0, 0))
        async with AsyncPendingQueue(directory, server.upload) as queue:
            await server.until(lambda: server.running)
            for _ in range(3):
                plain_watch.last.announce("a.queued")
                await turns()
            assert server.seen == ["a"]
            server.end("a")
            await until(lambda: queue.stats.completed)
        assert server.seen == ["a"]

    run(main())


@pytest.mark.guarantee("PQ-1")
def test_stray_temporaries_and_attempts_are_swept(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    ours = [f".pending-{'a' * 16}.tmp", ".gone.attempts", ".done.attempts"]
    ours += [async_pending_queue._temporary(directory).name]
    others = [".pending-notes.tmp", ".hidden", ".kept.attempts", ".theirs.processing"]
    for name in [*ours, *others, "done.completed"]:
        (directory / name).write_bytes(b"x")
    drop(directory, "kept", b"1")

    async def main() -> None:
        async with AsyncPendingQueue(directory, Server(holds=True).upload) as queue:
            await until(lambda: queue.stats.uploading)
            assert hidden(directory) == sorted(others)
            await queue.stop(0)

    run(main())


def test_a_submission_survives_the_sweep_of_an_owner_that_starts(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    write = async_pending_queue._write

    def write_and_sweep(path: Path, data: bytes) -> None:
        nonlocal written
        write(path, data)
        written += 1
        if written == 1:
            path.unlink()

    monkeypatch.setattr(async_pending_queue, "_write", write_and_sweep)
    asyncio.run(AsyncPendingQueue(directory, nothing).submit("a", b"1"))
    assert files(directory) == {"a.queued": b"1"}
    assert written == 2


def test_a_queue_that_starts_spares_its_own_submission(
    directory: Path, plain_watch: type[PlainWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written, has_swept = async_pending_queue._write, list[Path](), threading.Event()

    def write_for_long(path: Path, data: bytes) -> None:
        write(path, data)
        written.append(path)
        has_swept.wait()

    monkeypatch.setattr(async_pending_queue, "_write", write_for_long)

    async def main() -> None:
        queue = AsyncPendingQueue(directory, nothing)
        submission = asyncio.create_task(queue.submit("a", b"1"))
        try:
            await until(lambda: written)
            async with queue:
                has_swept.set()
                await submission
                await until(lambda: queue.stats.completed)
        finally:
            has_swept.set()
        assert len(written) == 1
        assert not queue._writing

    run(main())


def test_a_submission_may_be_claimed_before_its_owner_is_told_of_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_and_claim(source: Any, target: Any, **options: Any) -> None:
        link(source, target, **options)
        Path(target).rename(directory / "a.processing")

    monkeypatch.setattr(os, "link", link_and_claim)
    path = asyncio.run(AsyncPendingQueue(directory, nothing).submit("a", b"1"))
    assert path == directory / "a.queued"
    assert files(directory) == {"a.processing": b"1"}


def test_submitted_data_is_on_disk_before_it_has_its_name(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def recorded(step: str, call: Callable[..., object], *args: object) -> object:
        steps.append(step)
        return call(*args)

    for step in ("fsync", "link", "unlink"):
        monkeypatch.setattr(os, step, functools.partial(recorded, step, getattr(os, step)))
    asyncio.run(AsyncPendingQueue(directory, nothing).submit("a", b"1"))
    last = [] if sys.platform == "win32" else ["fsync"]  # of the directory
    assert steps == ["fsync", "link", "unlink", *last]


@pytest.mark.parametrize("fault", [None, OSError(errno.ENOSPC, "No space left on device")])
def test_a_submission_cancelled_while_it_is_written_leaves_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError | None
) -> None:
    write = async_pending_queue._write

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(AsyncPendingQueue(directory, nothing).submit("a", b"1"))

        def write_and_be_cancelled(path: Path, data: bytes) -> None:
            write(path, data)
            asyncio.run_coroutine_threadsafe(cancel(), loop).result()
            if fault is not None:
                raise fault

        async def cancel() -> None:
            task.cancel()
            await turns(3)
            task.cancel()

        monkeypatch.setattr(async_pending_queue, "_write", write_and_be_cancelled)
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.__cause__ is fault
        assert not list(directory.iterdir())

    run(main())


def check_half_moved(module: ModuleType, directory: Path) -> None:
    """A put-back stays half done for long: its new name is found, and being uploaded."""
    module.__dict__["DirectoryWatch"] = PlainWatch
    unlink, broken = os.unlink, False

    def refuse(path: Any, **options: Any) -> None:
        if broken and str(path).endswith(".processing"):
            raise OSError(errno.EIO, "Input/output error", str(path))
        unlink(path, **options)

    async def main() -> None:
        nonlocal broken
        server = Server(holds=True)
        drop(directory, "a.csv", b"old")
        queue = module.AsyncPendingQueue(directory, server.upload, backoff=lambda n: 0.0)
        async with owning(queue):
            await server.until(lambda: server.running)
            broken = True
            drop(directory, "a.csv", b"new")
            server.end("a.csv", ConnectionError("no route"))
            await until(lambda: queue.stats.errors)
            PlainWatch.last.announce("a.csv-1.queued")
            await server.until(lambda: "a.csv-1" in server.running)
            broken = False
            await server.until(lambda: "a.csv" in server.running)
            await turns()
            assert sorted(server.running) == ["a.csv", "a.csv-1"], (
                "one file is uploaded twice at once"
            )
            for name in ("a.csv", "a.csv-1"):
                server.end(name)
            await until(lambda: queue.stats.completed == 2)
        assert files(directory) == {"a.csv.completed": b"new", "a.csv-1.completed": b"old"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        run(main())


@pytest.mark.guarantee("PQ-2", "PQ-6")
def test_a_put_back_that_stays_half_done_is_not_two_uploads(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    check_half_moved(async_pending_queue, directory)


@pytest.mark.twin("PQ-2", "PQ-6")
def test_a_file_of_two_names_uploaded_twice_at_once_is_caught(directory: Path) -> None:
    fault = ('(stem == name and state != "processing") or stem', 'state != "processing" and stem')
    with pytest.raises(AssertionError, match="one file is uploaded twice at once"):
        check_half_moved(twin(FILE, fault), directory)


# PQ-2: one owner.


def check_one_owner(module: ModuleType, directory: Path) -> None:
    module.__dict__["DirectoryWatch"] = PlainWatch

    async def main() -> None:
        async with module.AsyncPendingQueue(directory, nothing):
            watch = PlainWatch.last
            second = module.AsyncPendingQueue(directory, nothing)
            running = asyncio.create_task(second.run())
            await until(lambda: running.done() or PlainWatch.last is not watch)
            await second.stop()
            assert running.exception() is not None, "a second owner was let in"
            with pytest.raises(module.DirectoryInUse, match="stop that one, or use another"):
                await running
            with pytest.raises(module.DirectoryInUse):
                await module.AsyncPendingQueue(directory, nothing).__aenter__()
        async with module.AsyncPendingQueue(directory, nothing):
            pass

    run(main())


@pytest.mark.guarantee("PQ-2")
def test_a_second_owner_is_refused_and_the_next_one_is_not(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    """In the original a second process ended the `run` of the first."""
    check_one_owner(async_pending_queue, directory)


@posix
@pytest.mark.twin("PQ-2")
def test_no_lock_is_caught(directory: Path) -> None:
    broken = twin(FILE, ("fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass"))
    with pytest.raises(AssertionError, match="a second owner was let in"):
        check_one_owner(broken, directory)


def check_lock_and_fork(directory: Path, faults: list[tuple[str, str]]) -> None:
    """An owner forks a child and dies; the child lives on, and there is a next owner."""
    run_python(
        f"""
        import asyncio, os, signal, sys, warnings
        from pathlib import Path
        from tests.kit.twins import twin
        from reference_impl.queues import async_pending_queue as module
        if {faults!r}:
            module = twin({FILE!r}, *{faults!r})
        directory = Path({str(directory)!r})

        async def own(upload):
            async with module.AsyncPendingQueue(directory, upload) as queue:
                while not queue.stats.completed:
                    await asyncio.sleep(0.01)

        async def fork_and_die(path):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the watch has threads
                if not os.fork():
                    os.write(born, b".")
                    os.close(told)
                    os.read(lives, 1)  # until the test is over
                    os._exit(0)
            os.read(birth, 1)  # a child that has not taken its first step holds the lock, too
            os.kill(os.getpid(), signal.SIGKILL)

        async def upload(path):
            assert path.read_bytes() == b"1"

        lives, holds = os.pipe()
        birth, born = os.pipe()
        told = os.dup(holds)
        (directory / "a.queued").write_bytes(b"1")
        owner = os.fork()
        if not owner:
            os.close(holds)
            asyncio.run(own(fork_and_die))
        assert os.waitpid(owner, 0)[1] == signal.SIGKILL
        assert (directory / "a.processing").exists()
        asyncio.run(own(upload))
        os.close(told)
        os.close(holds)
        """
    )


@posix
@pytest.mark.guarantee("PQ-2")
def test_the_lock_dies_with_its_owner_though_a_forked_child_lives(directory: Path) -> None:
    check_lock_and_fork(directory, [])


@posix
@pytest.mark.twin("PQ-2")
def test_a_lock_that_a_forked_child_inherits_is_caught(directory: Path) -> None:
    with pytest.raises(AssertionError, match="DirectoryInUse"):
        check_lock_and_fork(
            directory,
            [
                (
                    "        after_in_child=_close_in_child,\n",
                    "        after_in_child=_fork_guard.release,\n",
                )
            ],
        )


@posix
def test_a_fork_does_not_release_the_owners_lock(directory: Path) -> None:
    run_python(
        f"""
        import asyncio, os, warnings
        from pathlib import Path
        from reference_impl.queues.async_pending_queue import AsyncPendingQueue, DirectoryInUse
        directory = Path({str(directory)!r})

        async def nothing(path):
            pass

        async def main():
            async with AsyncPendingQueue(directory, nothing):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)
                    child = os.fork()
                if not child:
                    os._exit(0)
                os.waitpid(child, 0)
                try:
                    await AsyncPendingQueue(directory, nothing).run()
                except DirectoryInUse:
                    return
                raise SystemExit("a second owner was let in")

        asyncio.run(main())
        """
    )


# PQ-3: so many at once, and nobody waits for a slow one.


def check_concurrency(module: ModuleType, directory: Path) -> None:
    """Three slots, two slow uploads: all others go through the third, new ones, too."""
    module.__dict__["DirectoryWatch"] = PlainWatch

    async def main() -> None:
        server = Server(holds=True)
        for number in range(6):
            drop(directory, f"{number}", b"")
        queue = module.AsyncPendingQueue(directory, server.upload, max_concurrency=3)
        async with owning(queue):
            await server.until(lambda: len(server.running) >= 3)
            await turns()
            assert server.seen == ["0", "1", "2"], "more than three at once"
            for name in ("2", "3", "4", "5"):
                assert name in server.running, f"{name} waits for a slow upload"
                server.end(name)
                await turns()
            drop(directory, "new", b"")
            PlainWatch.last.announce("new.queued")
            await turns()
            assert "new" in server.running, "the new one waits for a slow upload"
            for name in ("0", "1", "new"):
                server.end(name)
            await until(lambda: queue.stats.completed == 7)
        assert server.most == 3

    run(main())


@pytest.mark.guarantee("PQ-3")
def test_a_slow_upload_holds_up_nothing(directory: Path, plain_watch: type[PlainWatch]) -> None:
    """In the original a slow one held up a new file for as long as it took."""
    check_concurrency(async_pending_queue, directory)


@pytest.mark.twin("PQ-3")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (("len(self._running) < self._max_concurrency and", ""), "more than three"),
        # What gather does: the next ones start when all the last ones have ended.
        (
            (
                "            self._offer(name)\n        self._dispatch()",
                "            self._offer(name)\n        self._running or self._dispatch()",
            ),
            "waits for a slow upload",
        ),
    ],
    ids=["no limit", "batches"],
)
def test_slots_that_are_not_slots_are_caught(
    directory: Path, fault: tuple[str, str], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        check_concurrency(twin(FILE, fault), directory)


def check_lazy(module: ModuleType, directory: Path) -> None:
    """However many files there are: a task for each slot, and one name drawn ahead."""

    class Endless(PlainWatch):
        async def __anext__(self) -> Path:
            self.drawn += 1
            return self.path / f"{self.drawn}.queued"

    module.__dict__["DirectoryWatch"] = Endless

    async def main() -> None:
        server = Server(holds=True)
        for number in range(1, 10):
            drop(directory, f"{number}", b"")
        before = len(asyncio.all_tasks())
        queue = module.AsyncPendingQueue(directory, server.upload, max_concurrency=4)
        async with owning(queue):
            await server.until(lambda: len(server.running) == 4)
            await turns()
            assert Endless.last.drawn == 5, f"{Endless.last.drawn} names were drawn for 4 slots"
            assert len(asyncio.all_tasks()) - before == 4 + 2  # run, and the one that draws
            server.end("1")
            await server.until(lambda: "5" in server.running)
            await turns()
            assert Endless.last.drawn == 6
            await queue.stop(0)

    run(main())


@pytest.mark.guarantee("PQ-3")
def test_names_are_drawn_one_by_one_as_slots_are_free(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    """In the original 5,000 files were 5,002 tasks."""
    check_lazy(async_pending_queue, directory)


@pytest.mark.twin("PQ-3")
def test_drawing_ahead_is_caught(directory: Path) -> None:
    fault = ("while name in self._ready:", "while len(self._ready) > 100:")
    with pytest.raises(AssertionError, match="names were drawn for 4 slots"):
        check_lazy(twin(FILE, fault), directory)


# PQ-4: attempts and back-off.


def check_attempts(module: ModuleType, directory: Path) -> None:
    """Five attempts in all, over three owners; back-off starts anew with each of them."""
    module.__dict__["DirectoryWatch"] = PlainWatch
    asked: list[list[int]] = []

    async def main() -> None:
        attempts = 0

        async def upload(path: Path) -> None:
            nonlocal attempts
            attempts += 1
            raise ConnectionError("no route to host")

        drop(directory, "a", b"1")
        for most in (2, 4, 100):
            asked.append([])

            def backoff(failures: int, most: int = most) -> float:
                asked[-1].append(failures)
                return 0.0 if attempts < most else 3600.0

            queue = module.AsyncPendingQueue(directory, upload, backoff=backoff)
            async with queue:
                await until(lambda: attempts >= min(most, 5))  # noqa: B023
                await until(lambda: queue.stats.waiting or queue.stats.given_up)  # noqa: B023
                await turns()
        assert attempts == 5, f"{attempts} attempts"
        assert asked == [[1, 2], [1, 2], []], f"back-off for {asked}"
        assert files(directory) == {"a.error": b"1"}
        assert not hidden(directory)
        reason = json.loads((directory / "a.error.json").read_text())
        assert reason["error"] == "ConnectionError('no route to host')"
        assert reason["attempts"] == 5
        assert datetime.fromisoformat(reason["time"]).utcoffset() is not None

    run(main())


@pytest.mark.guarantee("PQ-4")
def test_attempts_are_counted_across_restarts(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    """In the original they restarted at 1: 12 uploads where 5 were the limit."""
    check_attempts(async_pending_queue, directory)


@pytest.mark.twin("PQ-4")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            (
                "        attempt = self._attempts(name) + 1",
                "        attempt = self._failures.get(name, 0) + 1",
            ),
            "attempts",
        ),
        (("self._failures.pop(name, 0) + 1", "self._attempts(stem)"), "back-off for"),
        (
            ("elif attempt < self._max_attempts:", "elif attempt <= self._max_attempts:"),
            "back-off for",
        ),
        (('{"error": error, "attempts"', '{"error": "None", "attempts"'), "no route"),
    ],
    ids=[
        "attempts in memory",
        "the back-off goes on",
        "one attempt too many",
        "an error that says nothing",
    ],
)
def test_attempts_counted_wrongly_are_caught(
    directory: Path, fault: tuple[str, str], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        check_attempts(twin(FILE, fault), directory)


def check_pause(module: ModuleType, directory: Path) -> None:
    """A file that waits for its next attempt is found again: by events, scans, another start."""
    module.__dict__["DirectoryWatch"] = PlainWatch

    async def main() -> None:
        server = Server(holds=True)
        drop(directory, "a", b"1")
        queue = module.AsyncPendingQueue(directory, server.upload, backoff=lambda n: 3600.0)
        async with owning(queue):
            await server.until(lambda: server.running)
            PlainWatch.last.announce("a.queued")  # while it is uploaded, too
            await turns()
            server.end("a", ConnectionError("no route"))
            await until(lambda: queue.stats.waiting)
            for _ in range(3):
                PlainWatch.last.announce("a.queued")
                await turns()
            drop(directory, "a", b"newer")  # in its place
            PlainWatch.last.announce("a.queued")
            await turns()
            assert server.seen == ["a"], "it did not wait for its next attempt"
            assert queue.stats.waiting == 1
            drop(directory, "b", b"2")
            PlainWatch.last.announce("b.queued")
            await server.until(lambda: "b" in server.running)  # which nothing holds up
            server.end("b")
            await until(lambda: queue.stats.completed)

    run(main())


@pytest.mark.guarantee("PQ-4")
def test_a_file_that_waits_is_not_tried_early_however_often_it_is_found(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    check_pause(async_pending_queue, directory)


@pytest.mark.twin("PQ-4")
@pytest.mark.parametrize(
    "fault",
    [
        ("                if name not in self._waiting:\n", "                if True:\n"),
        ("if name not in self._waiting and any", "if any"),
    ],
    ids=["found by the watch", "found when its upload has ended"],
)
def test_a_pause_that_is_cut_short_is_caught(directory: Path, fault: tuple[str, str]) -> None:
    with pytest.raises(AssertionError, match="did not wait for its next attempt"):
        check_pause(twin(FILE, fault), directory)


class ClockLoop(asyncio.SelectorEventLoop):
    """A loop whose clock is moved by the test."""

    now = 1000.0

    def time(self) -> float:
        return self.now


def check_pauses_end(module: ModuleType, directory: Path) -> None:
    """Each of many files is tried again when its own pause is over, and not before."""
    module.__dict__["DirectoryWatch"] = PlainWatch
    count = 250  # more than one turn of the loop sees to

    async def main(loop: ClockLoop) -> None:
        tried: list[str] = []

        async def upload(path: Path) -> None:
            tried.append(path.stem)
            raise ConnectionError("no route")

        pauses = iter([float(n) for n in reversed(range(1, count + 1))])
        for n in range(count):
            drop(directory, f"{n:03}", b"")
        queue = module.AsyncPendingQueue(
            directory, upload, max_concurrency=1, backoff=lambda n: next(pauses, 9e9)
        )
        async with owning(queue):
            await until(lambda: queue.stats.waiting == count)
            first = tried.copy()
            tried.clear()
            loop.now += 0.5
            await turns()
            assert not tried, f"{tried} did not wait"
            loop.now += 0.5  # to the very moment
            await turns()
            assert tried == first[-1:], "one pause was over"
            loop.now += 2.0
            await turns()
            assert tried == first[-1:-4:-1], "three pauses were over"
            loop.now += count
            await until(lambda: len(tried) == count)
            await turns()
            assert tried == first[::-1], "all pauses were over"
            assert queue.stats.waiting == count

    with asyncio.Runner(loop_factory=ClockLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, ClockLoop)
        runner.run(main(loop))


@pytest.mark.guarantee("PQ-4")
def test_each_pause_ends_in_its_time(directory: Path, plain_watch: type[PlainWatch]) -> None:
    logging.disable()
    try:
        check_pauses_end(async_pending_queue, directory)
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.twin("PQ-4")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (("self._pauses[0][0] > now:", "False:"), "one pause was over"),
        (
            ("        if self._pauses:\n            self._set_timer()\n", ""),
            "three pauses were over",
        ),
    ],
    ids=["the first one ends all", "the first one is the last"],
)
def test_pauses_that_end_otherwise_are_caught(
    directory: Path, fault: tuple[str, str], message: str
) -> None:
    logging.disable()
    try:
        with pytest.raises(AssertionError, match=message):
            check_pauses_end(twin(FILE, fault), directory)
    finally:
        logging.disable(logging.NOTSET)


def check_claim_that_fails(module: ModuleType, directory: Path) -> None:
    """The disk refuses the claim more often than there are attempts."""
    module.__dict__["DirectoryWatch"] = PlainWatch
    rename, refusals, asked = os.rename, 5, list[int]()

    def backoff(failures: int) -> float:
        asked.append(failures)
        return 0.0

    def refuse(*args: Any, **options: Any) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise OSError(errno.EACCES, "Permission denied", str(args[0]))
        rename(*args, **options)

    async def main() -> None:
        counted: list[int] = []

        async def upload(path: Path) -> None:
            counted.append((directory / ".a.attempts").stat().st_size)

        drop(directory, "a", b"1")
        queue = module.AsyncPendingQueue(directory, upload, max_attempts=2, backoff=backoff)
        async with owning(queue):
            await until(lambda: queue.stats.completed or queue.stats.given_up)
        assert files(directory) == {"a.completed": b"1"}, "given up without an upload"
        assert (counted, queue.stats.errors) == ([1], 5)
        assert asked == [1, 2, 3, 4, 5]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        run(main())


@pytest.mark.guarantee("PQ-4", "PQ-6")
def test_a_claim_that_fails_is_no_attempt(directory: Path, plain_watch: type[PlainWatch]) -> None:
    check_claim_that_fails(async_pending_queue, directory)


@pytest.mark.twin("PQ-4", "PQ-6")
def test_a_claim_that_fails_and_counts_is_caught(directory: Path) -> None:
    fault = ("            os.truncate(self._sidecar(name), attempt - 1)  # it was none\n", "")
    with pytest.raises(AssertionError, match="given up without an upload"):
        check_claim_that_fails(twin(FILE, fault), directory)


@pytest.mark.guarantee("PQ-4", "PQ-5")
def test_a_cancelled_upload_does_not_count(directory: Path, plain_watch: type[PlainWatch]) -> None:
    async def main() -> None:
        drop(directory, "a", b"1")
        for _ in range(4):
            server = Server(holds=True)
            async with AsyncPendingQueue(directory, server.upload, max_attempts=2) as queue:
                await server.until(lambda: server.running)  # noqa: B023
                await queue.stop(0)
            assert files(directory) == {"a.queued": b"1"}
            assert (directory / ".a.attempts").read_bytes() == b""

    run(main())


@pytest.mark.guarantee("PQ-4")
@pytest.mark.parametrize("refusals", [0, 1], ids=["", "its attempt is hard to take back"])
def test_an_upload_that_others_cancel_does_not_count_and_is_tried_again(
    directory: Path,
    plain_watch: type[PlainWatch],
    refusals: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its task is cancelled, by itself or a task group, though nobody stops the queue."""
    truncate, left = os.truncate, refusals

    def refuse(path: Any, length: int) -> None:
        nonlocal left
        if left:
            left -= 1
            raise OSError(errno.EIO, "Input/output error", str(path))
        truncate(path, length)

    monkeypatch.setattr(os, "truncate", refuse)

    async def main() -> None:
        begun, asked = 0, list[int]()

        async def upload(path: Path) -> None:
            nonlocal begun
            begun += 1
            task = asyncio.current_task()
            if begun < 3 and task is not None:
                task.cancel()
                await asyncio.sleep(0)

        def backoff(failures: int) -> float:
            asked.append(failures)
            return 0.0

        drop(directory, "a", b"1")
        queue = AsyncPendingQueue(directory, upload, max_attempts=1 + refusals, backoff=backoff)
        async with queue:
            await until(lambda: queue.stats.completed)
        assert (begun, asked) == (3, [1, 2])
        assert (queue.stats.failed, queue.stats.errors) == (0, refusals)
        assert files(directory) == {"a.completed": b"1"}
        assert not hidden(directory)

    run(main())
    assert [r.getMessage() for r in caplog.records] == ["trouble with the file 'a'"] * refusals


@pytest.mark.guarantee("PQ-4")
def test_a_file_that_is_given_up_after_a_crash_in_its_last_attempt_says_so(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    async def main() -> None:
        (directory / "a.processing").write_bytes(b"1")
        (directory / ".a.attempts").write_bytes(b"..")
        server = Server()
        async with AsyncPendingQueue(directory, server.upload, max_attempts=2) as queue:
            await until(lambda: queue.stats.given_up)
        assert (server.seen, queue.stats.failed) == ([], 0)
        assert files(directory) == {"a.error": b"1"}
        assert not hidden(directory)
        text = (directory / "a.error.json").read_text()
        reason = json.loads(text)
        assert reason["error"] == """RuntimeError("the last attempt's end is not known")"""
        assert reason["attempts"] == 2
        assert text == json.dumps(reason, indent=1)  # a line for each, as people read it

    run(main())


@pytest.mark.guarantee("PQ-4")
def test_back_off_starts_anew_with_each_file_of_a_name(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    """However the one before has ended."""

    async def main() -> None:
        begun: list[str] = []
        asked: list[int] = []

        async def upload(path: Path) -> None:
            begun.append(path.read_text())
            if begun.count(begun[-1]) == 1 or begun[-1] == "fails":
                raise ConnectionError
            if begun[-1] == "vanishes":
                path.unlink()

        def backoff(failures: int) -> float:
            asked.append(failures)
            return 0.0

        queue = AsyncPendingQueue(directory, upload, max_attempts=2, backoff=backoff)
        async with queue:
            for content in ("is completed", "fails", "vanishes", "is completed, too"):
                drop(directory, "a", content.encode())
                plain_watch.last.announce("a.queued")
                await until(lambda: begun.count(content) == 2)  # noqa: B023
                await turns()
        assert asked == [1, 1, 1, 1]
        assert (queue.stats.completed, queue.stats.given_up, queue.stats.errors) == (2, 1, 1)

    run(main())


@posix
def test_the_count_of_attempts_is_a_plain_file(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    os.umask(mask := os.umask(0))

    async def main() -> None:
        drop(directory, "a", b"1")
        async with AsyncPendingQueue(directory, Server(holds=True).upload) as queue:
            await until(lambda: queue.stats.uploading)
            await turns()
            assert (directory / ".a.attempts").stat().st_mode & 0o777 == 0o666 & ~mask
            await queue.stop(0)

    run(main())


@pytest.mark.guarantee("PQ-4")
def test_an_upload_beyond_its_time_is_cancelled_and_has_failed(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    async def main() -> None:
        cleaned_up: list[str] = []

        async def upload(path: Path) -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                cleaned_up.append(path.stem)

        drop(directory, "a", b"1")
        queue = AsyncPendingQueue(
            directory, upload, max_attempts=2, backoff=lambda n: 0.0, upload_timeout=0.001
        )
        async with queue:
            await until(lambda: queue.stats.given_up)
        assert cleaned_up == ["a", "a"]
        assert "TimeoutError" in (directory / "a.error.json").read_text()

    run(main())


@pytest.mark.guarantee("PQ-4")
@pytest.mark.parametrize("error", [asyncio.CancelledError(), TimeoutError(), OSError("its own")])
def test_an_upload_that_raises_has_failed_whatever_it_raises(
    directory: Path, plain_watch: type[PlainWatch], error: BaseException
) -> None:
    async def main() -> None:
        drop(directory, "a", b"1")
        async with AsyncPendingQueue(directory, fails_with(error), max_attempts=1) as queue:
            await until(lambda: queue.stats.given_up)
        assert queue.stats.failed == 1
        assert queue.stats.errors == 0

    run(main())


class Odd(BaseException):
    """What libraries outside asyncio use to end their own tasks."""


def check_odd_errors(module: ModuleType, directory: Path, error: BaseException) -> None:
    """What is no Exception is a failed attempt as well, with its pause and its reason."""

    async def main() -> None:
        begun, asked = 0, list[int]()

        async def upload(path: Path) -> None:
            nonlocal begun
            begun += 1
            raise error

        def backoff(failures: int) -> float:
            asked.append(failures)
            return 0.0

        drop(directory, "a", b"1")
        queue = module.AsyncPendingQueue(directory, upload, max_attempts=2, backoff=backoff)
        async with queue:
            await until(lambda: queue.stats.given_up or begun > 2)
        assert (begun, asked) == (2, [1]), "it was no attempt"
        assert queue.stats == module.PendingStats(failed=2, given_up=1), "it was no attempt"
        assert json.loads((directory / "a.error.json").read_text())["error"] == repr(error)

    run(main())


@pytest.mark.guarantee("PQ-4")
@pytest.mark.parametrize("error", [Odd(), BaseExceptionGroup("two", [Odd()]), GeneratorExit()])
def test_what_is_no_exception_is_a_failed_attempt_as_well(
    directory: Path, plain_watch: type[PlainWatch], error: BaseException
) -> None:
    check_odd_errors(async_pending_queue, directory, error)


@pytest.mark.twin("PQ-4")
@pytest.mark.parametrize("error", [Odd(), BaseExceptionGroup("two", [Odd()]), GeneratorExit()])
def test_errors_that_are_no_attempts_are_caught(directory: Path, error: BaseException) -> None:
    module = twin(FILE, ("error, SystemExit | KeyboardInterrupt)", "error, BaseException)"))
    module.__dict__["DirectoryWatch"] = PlainWatch
    with pytest.raises(AssertionError, match="it was no attempt"):
        check_odd_errors(module, directory, error)


def check_closed_upload(module: ModuleType, directory: Path) -> None:
    """Its coroutine is closed from outside, as the collector does when the loop is gone."""

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        drop(directory, "a", b"1")
        server = Server(holds=True)
        queue = module.AsyncPendingQueue(directory, server.upload)
        running = asyncio.create_task(queue.run())
        try:
            await server.until(lambda: server.running)
            queue._running["a"].get_coro().close()
            assert not server.running
            assert files(directory) == {"a.processing": b"1"}, "it was moved without ownership"
            assert (directory / ".a.attempts").read_bytes() == b"."
            assert not queue.stats.failed
        finally:
            running.cancel()
            await asyncio.wait([running])

    asyncio.run(main())


@pytest.mark.guarantee("PQ-1", "PQ-4")
def test_an_upload_whose_loop_is_gone_is_left_to_the_next_start(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    check_closed_upload(async_pending_queue, directory)


@pytest.mark.twin("PQ-1", "PQ-4")
def test_an_upload_whose_loop_is_gone_that_is_moved_is_caught(directory: Path) -> None:
    fault = (
        "                raise  # it is closed",
        "                self._put_back(name, attempt)\n                raise  # it is closed",
    )
    module = twin(FILE, fault)
    module.__dict__["DirectoryWatch"] = PlainWatch
    with pytest.raises(AssertionError, match="it was moved without ownership"):
        check_closed_upload(module, directory)


class Unspeakable(Exception):
    def __repr__(self) -> str:
        raise ValueError("no repr")

    __str__ = __repr__


def check_unspeakable(module: ModuleType, directory: Path) -> None:
    async def main() -> None:
        asked: list[int] = []

        def backoff(failures: int) -> float:
            asked.append(failures)
            return 0.0

        drop(directory, "a", b"1")
        queue = module.AsyncPendingQueue(
            directory, fails_with(Unspeakable()), max_attempts=2, backoff=backoff
        )
        async with queue:
            await until(lambda: queue.stats.given_up)
        reason = json.loads((directory / "a.error.json").read_text())["error"]
        assert "Unspeakable object at" in reason, "the reason is lost"
        assert reason.endswith(">, whose repr fails")
        assert queue.stats == module.PendingStats(failed=2, given_up=1)
        assert asked == [1]

    run(main())


@pytest.mark.guarantee("PQ-4")
def test_an_error_whose_repr_fails_is_a_reason_and_has_its_pause(
    directory: Path, plain_watch: type[PlainWatch], caplog: pytest.LogCaptureFixture
) -> None:
    check_unspeakable(async_pending_queue, directory)
    logged = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert logged[0].startswith("attempt 1 to upload 'a' failed: <")
    assert logged[0].endswith(">, whose repr fails")
    assert len(logged) == 3


@pytest.mark.twin("PQ-4")
def test_an_error_whose_repr_ends_the_attempt_is_caught(directory: Path) -> None:
    module = twin(FILE, ("reason = _told(error)", "reason = repr(error)"))
    module.__dict__["DirectoryWatch"] = PlainWatch
    with pytest.raises(AssertionError, match="the reason is lost"):
        check_unspeakable(module, directory)


@pytest.mark.parametrize("result", [-1.0, math.nan, "soon", None])
def test_a_faulty_backoff_is_replaced_by_the_default(
    directory: Path,
    plain_watch: type[PlainWatch],
    result: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[int] = []

    def default(failures: int) -> float:
        asked.append(failures)
        return 0.0

    monkeypatch.setattr(async_pending_queue, "exponential_backoff", default)

    async def main() -> None:
        drop(directory, "a", b"1")
        upload = fails_with(ConnectionError())
        queue = AsyncPendingQueue(directory, upload, max_attempts=3, backoff=lambda n: result)
        async with queue:
            await until(lambda: queue.stats.given_up)
        assert (queue.stats.errors, asked) == (2, [1, 2])

    run(main())
    logged = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage() for record in logged] == [
        "backoff(1) failed: the default is used",
        "backoff(2) failed: the default is used",
    ]
    for record in logged:
        assert record.exc_info is not None
        assert str(record.exc_info[1]).startswith("what backoff returns must be ")


def check_huge_numbers(module: ModuleType, directory: Path) -> None:
    """An int may be more than a float can hold: it is as good as no limit."""

    async def main() -> None:
        server = Server(holds=True)
        for name in "ab":
            drop(directory, name, b"1")
        queue = module.AsyncPendingQueue(
            directory, server.upload, backoff=lambda n: 10**400, upload_timeout=10**400
        )
        async with owning(queue):
            await until(lambda: len(server.running) == 2 or queue.stats.failed)
            assert not queue.stats.failed, "no time for uploads"
            server.end("a", ConnectionError())
            await until(lambda: not server.running.keys() - {"b"})
            await turns()
            assert (queue.stats.waiting, queue.stats.errors) == (1, 0), "no pause"
            stopping = asyncio.create_task(queue.stop(10**400))
            await turns()
            assert list(server.running) == ["b"]
            server.end("b")
            await stopping
        assert files(directory) == {"a.queued": b"1", "b.completed": b"1"}

    run(main())


@pytest.mark.guarantee("PQ-4", "PQ-5")
def test_more_seconds_than_a_float_holds_are_as_good_as_no_limit(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    check_huge_numbers(async_pending_queue, directory)


@pytest.mark.twin("PQ-4", "PQ-5")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (("    return float(min(value, 1e300))", "    return value"), "no time for uploads"),
        (
            (
                'delay = _check_seconds("what backoff returns", self._backoff(failures))',
                "delay = self._backoff(failures)",
            ),
            "no pause",
        ),
    ],
    ids=["any number", "of the back-off"],
)
def test_numbers_that_the_clock_cannot_add_are_caught(
    directory: Path, fault: tuple[str, str], message: str
) -> None:
    module = twin(FILE, fault)
    module.__dict__["DirectoryWatch"] = PlainWatch
    with pytest.raises(AssertionError, match=message):
        check_huge_numbers(module, directory)


# exponential_backoff is a pure function.


@pytest.mark.guarantee("PQ-4")
@example(attempt=1002, base=1e-300, cap=300.0, fraction=1.0)  # it doubles a thousand times
@given(
    attempt=st.integers(1, 10**6),
    base=st.floats(0, 1e300),
    cap=st.floats(0, 1e300),
    fraction=st.floats(0, 1),
)
def test_backoff_doubles_up_to_its_cap_with_full_jitter(
    attempt: int, base: float, cap: float, fraction: float
) -> None:
    longest = exponential_backoff(attempt, base=base, cap=cap, jitter=lambda: 1.0)
    assert longest == min(cap, base * 2.0 ** min(attempt - 1, 1000))
    assert exponential_backoff(attempt, base=base, cap=cap, jitter=lambda: 0.0) == 0
    got = exponential_backoff(attempt, base=base, cap=cap, jitter=lambda: fraction)
    assert got == fraction * longest
    after = exponential_backoff(attempt + 1, base=base, cap=cap, jitter=lambda: 1.0)
    assert longest <= after <= cap


@pytest.mark.guarantee("PQ-4")
def test_backoff_uses_the_whole_interval() -> None:
    chance = random.Random(1)
    drawn = [exponential_backoff(4, jitter=chance.random) for _ in range(4000)]
    for eighth in range(8):
        assert 400 < sum(eighth <= seconds < eighth + 1 for seconds in drawn) < 600
    assert exponential_backoff(4) != exponential_backoff(4)
    longest = [exponential_backoff(attempt, jitter=lambda: 1.0) for attempt in (1, 9, 10, 99)]
    assert longest == [1.0, 256.0, 300.0, 300.0]


def test_backoff_takes_numbers_of_any_size() -> None:
    assert exponential_backoff(3, base=10**400, jitter=lambda: 1.0) == 300.0
    assert exponential_backoff(3, cap=10**400, jitter=lambda: 1.0) == 4.0
    assert exponential_backoff(3, base=10**400, cap=math.inf, jitter=lambda: 0.0) == 0.0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attempt": 0}, ValueError, "attempt must be 1 or more, got 0"),
        ({"attempt": 1.5}, TypeError, "attempt must be an int, got 1.5"),
        ({"attempt": 1, "base": -1}, ValueError, "base must be 0 or more seconds, got -1"),
        ({"attempt": 1, "cap": math.nan}, ValueError, "cap must be 0 or more seconds, got nan"),
        ({"attempt": 1, "cap": "60"}, TypeError, "cap must be a number of seconds, got '60'"),
    ],
)
def test_backoff_refuses_what_is_no_number(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        exponential_backoff(**options)


# PQ-5: the end.


def check_stop_when_idle(module: ModuleType, directory: Path) -> None:
    module.__dict__["DirectoryWatch"] = PlainWatch

    async def main() -> None:
        queue = module.AsyncPendingQueue(directory, nothing)
        running = asyncio.create_task(queue.run())
        await until(lambda: queue._up.is_set())
        stopping = asyncio.create_task(queue.stop(None))
        await turns()
        assert running.done(), "it goes on though it is idle"
        await stopping
        drop(directory, "after", b"1")
        PlainWatch.last.announce("after.queued")
        await queue.run()
        await queue.stop()
        assert files(directory) == {"after.queued": b"1"}
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


@pytest.mark.guarantee("PQ-5")
def test_an_idle_queue_stops_at_once_and_for_good(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    """In the original `run` went on for up to a minute, and uploaded what came meanwhile."""
    check_stop_when_idle(async_pending_queue, directory)


@pytest.mark.twin("PQ-5")
def test_a_stop_that_only_sets_a_flag_is_caught(directory: Path) -> None:
    broken = twin(FILE, ("            self._serving.cancel()\n", "            pass\n"))
    with pytest.raises(AssertionError, match="goes on though it is idle"):
        check_stop_when_idle(broken, directory)


def check_stop_when_busy(module: ModuleType, directory: Path) -> None:
    """One upload ends in time, one is cancelled, one ignores that; the rest is not started."""
    module.__dict__["DirectoryWatch"] = PlainWatch

    async def main() -> None:
        server = Server(holds=True)
        stubborn = asyncio.Event()

        async def upload(path: Path) -> None:
            try:
                await server.upload(path)
            except asyncio.CancelledError:
                if path.stem == "c":
                    await stubborn.wait()
                    return
                raise

        for name in "abcd":
            drop(directory, name, b"")

        async def stop(queue: Any) -> None:
            running = asyncio.create_task(queue.run())
            await server.until(lambda: len(server.running) == 3)
            stopping = asyncio.create_task(queue.stop(None))
            await turns()
            assert len(server.running) == 3, "it did not wait for its uploads"
            assert not running.done(), "it did not wait for its uploads"
            server.end("a")
            await until(lambda: queue.stats.completed)
            await turns()
            assert server.seen == ["a", "b", "c"], "an upload was started while it stops"
            assert not stopping.done(), "it did not wait for its uploads"
            second = asyncio.create_task(queue.stop(0))
            await until(lambda: not server.running)
            await turns()
            assert not running.done(), "it did not wait for the one that ignores cancellation"
            with pytest.raises(module.DirectoryInUse):
                await module.AsyncPendingQueue(directory, nothing).run()
            stubborn.set()
            await asyncio.gather(running, stopping, second)
            assert sorted(files(directory)) == [
                "a.completed",
                "b.queued",
                "c.completed",
                "d.queued",
            ]

        queue = module.AsyncPendingQueue(directory, upload, max_concurrency=3)
        try:
            await stop(queue)
        finally:
            stubborn.set()

    run(main())


@pytest.mark.guarantee("PQ-5")
def test_a_busy_queue_waits_then_cancels_then_waits_again(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    check_stop_when_busy(async_pending_queue, directory)


@pytest.mark.twin("PQ-5")
@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (
            [("timeout < math.inf", "True"), ("call_later(timeout,", "call_later(0,")],
            "did not wait for its uploads",
        ),
        ([("math.inf if timeout is None", "0 if timeout is None")], "did not wait for its uploads"),
        (
            [("while not serving.done() or self._running:", "while not serving.done():")],
            "did not wait for its uploads",
        ),
        ([("max_concurrency and not self._stopping:", "max_concurrency:")], "was started while"),
    ],
    ids=[
        "no time for uploads",
        "no limit is no time",
        "uploads are left to themselves",
        "it goes on starting uploads",
    ],
)
def test_a_stop_without_care_is_caught(
    directory: Path, faults: list[tuple[str, str]], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        check_stop_when_busy(twin(FILE, *faults), directory)


@pytest.mark.guarantee("PQ-3", "PQ-5")
def test_by_default_there_are_five_slots_and_thirty_seconds_to_stop(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    async def main(loop: ClockLoop) -> None:
        server = Server(holds=True)
        for name in "abcdefg":
            drop(directory, name, b"")
        async with owning(AsyncPendingQueue(directory, server.upload)) as queue:
            await server.until(lambda: len(server.running) >= 5)
            await turns()
            assert server.seen == list("abcde")
            names = {task.get_name() for task in asyncio.all_tasks()}
            assert {"pending-queue", *(f"upload {name}" for name in "abcde")} <= names
            stopping = asyncio.create_task(queue.stop())
            await turns()
            loop.now += 29.5
            await turns()
            assert len(server.running) == 5, "they were cancelled before their time"
            loop.now += 1.0
            await turns()
            assert stopping.done()
        assert sorted(files(directory)) == [f"{name}.queued" for name in "abcdefg"]

    with asyncio.Runner(loop_factory=ClockLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, ClockLoop)
        runner.run(main(loop))


@pytest.mark.guarantee("PQ-5")
def test_to_stop_again_does_not_interrupt_the_leaving_of_the_watch(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        leaving, may_leave = asyncio.Event(), asyncio.Event()
        left: list[PlainWatch] = []

        class Slow(PlainWatch):
            async def __aexit__(self, *_: object) -> None:
                leaving.set()
                await may_leave.wait()
                left.append(self)

        monkeypatch.setattr(async_pending_queue, "DirectoryWatch", Slow)
        queue = AsyncPendingQueue(directory, nothing)
        running = asyncio.create_task(queue.run())
        await until(lambda: queue._up.is_set())
        stops = [asyncio.create_task(queue.stop())]
        await leaving.wait()
        stops.append(asyncio.create_task(queue.stop()))
        await turns()
        assert not running.done()
        may_leave.set()
        await asyncio.gather(running, *stops)
        assert left == [Slow.last]

    run(main())


@pytest.mark.guarantee("PQ-5")
def test_a_stop_that_waits_for_an_upload_does_not_poll(
    directory: Path, plain_watch: type[PlainWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    wait, waits = asyncio.wait, 0

    async def counted(*args: Any, **options: Any) -> Any:
        nonlocal waits
        waits += 1
        return await wait(*args, **options)

    async def main() -> None:
        server = Server(holds=True)
        drop(directory, "a", b"1")
        async with owning(AsyncPendingQueue(directory, server.upload)) as queue:
            await server.until(lambda: server.running)
            monkeypatch.setattr(asyncio, "wait", counted)
            stopping = asyncio.create_task(queue.stop(math.inf))
            await turns()
            before = waits
            await turns()
            assert waits == before, "it looks again and again"
            server.end("a")
            await stopping

    run(main())


@pytest.mark.guarantee("PQ-5")
def test_uploads_are_cancelled_at_the_end_of_the_timeout(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    async def main() -> None:
        drop(directory, "a", b"1")
        server = Server(holds=True)
        queue = AsyncPendingQueue(directory, server.upload)
        async with queue:
            await server.until(lambda: server.running)
            await queue.stop(timeout=0.01)
            assert files(directory) == {"a.queued": b"1"}

    run(main())


def check_stop_meets_a_timeout(module: ModuleType, directory: Path) -> None:
    """The upload's own timeout is over, and closes what it used, when it is time to cancel."""
    module.__dict__["DirectoryWatch"] = PlainWatch

    async def main() -> None:
        closing = asyncio.Event()

        async def upload(path: Path) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    try:
                        await asyncio.get_running_loop().create_future()
                    finally:
                        closing.set()
                        await turns(20)
            await asyncio.get_running_loop().create_future()  # its next try

        drop(directory, "a", b"1")
        queue = module.AsyncPendingQueue(directory, upload)
        running = asyncio.create_task(queue.run())
        await closing.wait()
        stopping = asyncio.create_task(queue.stop(0))
        await turns()
        assert running.done(), "the upload goes on, and nothing will cancel it"
        await asyncio.gather(running, stopping)
        assert files(directory) == {"a.queued": b"1"}
        assert (queue.stats.failed, queue.stats.errors) == (0, 0)

    run(main())


@pytest.mark.guarantee("PQ-5")
def test_stop_cancels_an_upload_that_just_now_ends_a_timeout_of_its_own(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    check_stop_meets_a_timeout(async_pending_queue, directory)


@pytest.mark.twin("PQ-5")
def test_a_stop_that_takes_a_timeout_for_its_own_cancellation_is_caught(directory: Path) -> None:
    fault = (
        "                task.cancel()\n",
        "                task.cancelling() or task.cancel()\n",
    )
    with pytest.raises(AssertionError, match="nothing will cancel it"):
        check_stop_meets_a_timeout(twin(FILE, fault), directory)


@pytest.mark.guarantee("PQ-5")
def test_to_stop_again_leaves_the_clean_up_of_uploads_in_peace(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    async def main() -> None:
        cleaning, may_end = asyncio.Event(), asyncio.Event()
        cleaned: list[str] = []

        async def upload(path: Path) -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                cleaning.set()
                await may_end.wait()
                cleaned.append(path.stem)

        drop(directory, "a", b"1")
        queue = AsyncPendingQueue(directory, upload)
        running = asyncio.create_task(queue.run())
        await until(lambda: queue.stats.uploading)
        await turns()
        stops = [asyncio.create_task(queue.stop(0)) for _ in range(2)]
        await cleaning.wait()
        stops.append(asyncio.create_task(queue.stop(0)))
        await turns()
        assert not running.done()
        may_end.set()
        await asyncio.gather(running, *stops)
        assert cleaned == ["a"]
        assert files(directory) == {"a.queued": b"1"}

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks need Python >= 3.12")
@pytest.mark.guarantee("PQ-3", "PQ-5")
def test_eager_tasks_work(directory: Path, plain_watch: type[PlainWatch]) -> None:
    """They take their first step at once: the queue is to know them by then."""

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(vars(asyncio)["eager_task_factory"])
        seen: list[str] = []

        async def upload(path: Path) -> None:
            seen.append(path.stem)
            assert queue.stats.uploading <= 2
            if path.stem == "c":
                await queue.stop()

        for name in "abcd":
            drop(directory, name, b"1")
        queue = AsyncPendingQueue(directory, upload, max_concurrency=2)
        running = asyncio.create_task(queue.run())
        await until(lambda: queue._up.is_set())
        await turns()
        assert running.done(), "it takes time"
        assert seen[:3] == ["a", "b", "c"]
        assert queue.stats.completed == len(seen)
        assert not any(name.endswith(".processing") for name in files(directory))

    run(main())


@pytest.mark.guarantee("PQ-5")
def test_stop_in_an_upload_only_requests_it(directory: Path, plain_watch: type[PlainWatch]) -> None:
    async def main() -> None:
        async def upload(path: Path) -> None:
            await queue.stop()
            await queue.stop()

        for name in "ab":
            drop(directory, name, b"1")
        queue = AsyncPendingQueue(directory, upload, max_concurrency=1)
        await queue.run()
        assert sorted(files(directory)) == ["a.completed", "b.queued"]

    run(main())


@pytest.mark.guarantee("PQ-5")
def test_a_queue_stopped_before_it_runs_does_not_run(directory: Path) -> None:
    async def main() -> None:
        drop(directory, "a", b"1")
        queue = AsyncPendingQueue(directory, nothing)
        await queue.stop()
        await queue.run()
        async with queue:
            pass
        assert files(directory) == {"a.queued": b"1"}

    run(main())


def test_a_queue_runs_once(directory: Path) -> None:
    once = "^a queue runs once: make a new AsyncPendingQueue to run again$"

    async def main() -> None:
        queue = AsyncPendingQueue(directory, nothing)
        running = asyncio.create_task(queue.run())
        await until(lambda: queue._up.is_set())
        with pytest.raises(RuntimeError, match=once):
            await queue.run()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        with pytest.raises(RuntimeError, match=once):
            await queue.run()

    run(main())


def check_entries(module: ModuleType, directory: Path) -> None:
    """A second entry, or run beside an entry, is refused, and the first goes on."""
    once = "a queue runs once: make a new AsyncPendingQueue to run again"

    async def refused(use: Awaitable[object]) -> None:
        try:
            await use
        except RuntimeError as error:
            assert str(error) == once  # noqa: PT017
        else:
            raise AssertionError("it is accepted")

    async def goes_on(queue: Any, name: str) -> None:
        completed = queue.stats.completed
        await queue.submit(name, b"1")
        await until(lambda: queue.stats.completed > completed)

    async def main() -> None:
        queue = module.AsyncPendingQueue(directory, nothing)
        async with owning(queue):  # nested
            await refused(queue.__aenter__())
            await refused(queue.run())
            await goes_on(queue, "a")
        queue = module.AsyncPendingQueue(directory, nothing)
        running = asyncio.create_task(queue.run())
        await until(queue._up.is_set)
        await refused(queue.__aenter__())  # while run runs
        await goes_on(queue, "b")
        await queue.stop()
        await running
        queue = module.AsyncPendingQueue(directory, nothing)
        entering = asyncio.create_task(queue.__aenter__())
        await asyncio.sleep(0)
        assert queue._loop is None  # it is entered, and has not begun
        await refused(queue.__aenter__())
        await refused(queue.run())
        await entering
        await goes_on(queue, "c")
        await queue.__aexit__(None, None, None)
        queue = module.AsyncPendingQueue(directory, nothing)
        running = asyncio.create_task(queue.run())
        async with owning(queue):  # before run has begun
            await refused(running)
            await goes_on(queue, "d")

    run(main())


@pytest.mark.guarantee("PQ-5")
def test_a_queue_that_is_in_use_cannot_be_entered(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    check_entries(async_pending_queue, directory)


@pytest.mark.twin("PQ-5")
@pytest.mark.parametrize(
    "fault",
    [
        ("        if not self._stop_asked:\n            self._check_unused()\n", ""),
        (" or self._runner not in (None, asyncio.current_task()):", ":"),
    ],
    ids=["any second entry", "a second one before the first has begun"],
)
def test_a_second_entry_that_is_accepted_is_caught(directory: Path, fault: tuple[str, str]) -> None:
    module = twin(FILE, fault)
    module.__dict__["DirectoryWatch"] = PlainWatch
    with pytest.raises(AssertionError, match="it is accepted"):
        check_entries(module, directory)


@pytest.mark.guarantee("PQ-5")
def test_a_cancelled_run_puts_back_and_lets_go(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    async def main() -> None:
        drop(directory, "a", b"1")
        server = Server(holds=True)
        running = asyncio.create_task(AsyncPendingQueue(directory, server.upload).run())
        await server.until(lambda: server.running)
        running.cancel()
        await turns()
        assert running.cancelled(), "it takes time"
        assert files(directory) == {"a.queued": b"1"}
        async with AsyncPendingQueue(directory, nothing) as queue:
            await until(lambda: queue.stats.completed)

    run(main())


def test_an_asyncio_run_that_ends_puts_back(directory: Path) -> None:
    server = Server(holds=True)

    async def main() -> None:
        drop(directory, "a", b"1")
        task = asyncio.create_task(AsyncPendingQueue(directory, server.upload).run())
        await server.until(lambda: server.running)
        assert task

    run(main())
    assert files(directory) == {"a.queued": b"1"}


def test_a_block_that_is_cancelled_while_it_is_left_still_ends(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    async def main() -> None:
        drop(directory, "a", b"1")
        server = Server(holds=True)

        async def block() -> None:
            async with AsyncPendingQueue(directory, server.upload):
                await server.until(lambda: server.running)

        task = asyncio.create_task(block())
        await server.until(lambda: server.running)
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert files(directory) == {"a.queued": b"1"}
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_a_block_that_is_cancelled_while_it_is_entered_lets_go(
    directory: Path, plain_watch: type[PlainWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        entering = asyncio.Event()

        class Endless(PlainWatch):
            async def __aenter__(self) -> Self:
                entering.set()
                await asyncio.get_running_loop().create_future()
                return self

        with monkeypatch.context() as patch:
            patch.setattr(async_pending_queue, "DirectoryWatch", Endless)
            task = asyncio.create_task(AsyncPendingQueue(directory, nothing).__aenter__())
            await entering.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        async with AsyncPendingQueue(directory, nothing):
            pass

    run(main())


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


def test_a_directory_that_vanishes_ends_run_and_its_uploads(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Vanishing(PlainWatch):
        async def __anext__(self) -> Path:
            path = await super().__anext__()
            if path.name == "end":
                raise FileNotFoundError("the directory has vanished")
            return path

    monkeypatch.setattr(async_pending_queue, "DirectoryWatch", Vanishing)

    async def main() -> None:
        server = Server(holds=True)
        drop(directory, "a", b"1")
        over = False
        with pytest.raises(FileNotFoundError, match="has vanished"):
            async with AsyncPendingQueue(directory, server.upload) as queue:
                await server.until(lambda: server.running)
                shutil.rmtree(directory)
                Vanishing.last.announce("end")
                await turns()
                over = queue._over.is_set()
        assert over, "it takes time"
        assert not server.running
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


# PQ-6: what may be wrong with files and disks.


def check_a_failing_step(module: ModuleType, directory: Path, step: str, serial: int) -> bool:
    """Let a step fail three times, from the serial number on; whether there were so many."""
    module.__dict__["DirectoryWatch"] = PlainWatch
    real, calls = getattr(os, step), 0

    def failing(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if serial <= calls < serial + 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(args[0]))
        return real(*args, **options)

    async def main() -> None:
        tried: set[str] = set()

        async def upload(path: Path) -> None:
            content = path.read_text()
            if content == "bad" or content not in tried:
                tried.add(content)
                raise ConnectionError
            await asyncio.sleep(0)

        for name in ("bad", "good"):
            drop(directory, name, name.encode())
        queue = module.AsyncPendingQueue(
            directory, upload, max_attempts=5, backoff=lambda failures: 0.0
        )
        async with owning(queue):
            setattr(os, step, failing)
            left: list[str] = []
            for _ in range(3000):
                await asyncio.sleep(0)
                left = [
                    name for name in files(directory) if not name.endswith((".completed", ".error"))
                ]
                if not left or queue._over.is_set():
                    break
            setattr(os, step, real)
            assert set(files(directory).values()) == {b"bad", b"good"}, "lost"
            assert not left, f"{left} are left alone"
            assert queue.stats.errors or calls < serial or step in {"unlink", "lstat"}, (
                "no error is counted"
            )
            await queue.submit("after", b"after")
            await until(lambda: os.path.lexists(directory / "after.completed"))

    try:
        run(main())
    finally:
        setattr(os, step, real)
    return calls >= serial


STEPS = ["open", "write", "rename", "link", "unlink", "replace", "lstat", "stat"]


@pytest.mark.guarantee("PQ-6", "PQ-1")
@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_loses_and_ends_nothing(
    tmp_path: Path, step: str, plain_watch: type[PlainWatch]
) -> None:
    for serial in range(1, 100):
        directory = tmp_path / f"{serial}"
        directory.mkdir()
        if not check_a_failing_step(async_pending_queue, directory, step, serial):
            break
    else:
        pytest.fail("there is no end to it")


QUEUED_ONLY = ("any(map(os.path.lexists, paths))", "os.path.lexists(paths[0])")


@pytest.mark.twin("PQ-6", "PQ-1")
@pytest.mark.parametrize(
    ("step", "faults", "message"),
    [
        (
            "rename",
            [
                (
                    "        except OSError as fault:\n"
                    "            self._fault(name, fault)\n\n"
                    "    async def",
                    "        except ZeroDivisionError:\n            pass\n\n    async def",
                ),
                QUEUED_ONLY,
            ],
            "no error is counted",
        ),
        (
            "link",
            [
                (
                    "            self._retry(name, name)\n        else",
                    "            pass\n        else",
                ),
                QUEUED_ONLY,
            ],
            "left alone",
        ),
    ],
    ids=["errors end the task", "no second try"],
)
def test_a_queue_that_a_full_disk_stops_is_caught(
    directory: Path, step: str, faults: list[tuple[str, str]], message: str
) -> None:
    logging.getLogger("asyncio").disabled = True  # it tells of the broken task
    try:
        with pytest.raises(AssertionError, match=message):
            check_a_failing_step(twin(FILE, *faults), directory, step, 1)
    finally:
        logging.getLogger("asyncio").disabled = False


def check_pause_over_at_once(module: ModuleType, directory: Path) -> None:
    """The disk fails at the end of an upload; the pause is over before its task is."""
    module.__dict__["DirectoryWatch"] = PlainWatch
    link, refusals = os.link, 0

    def refuse(*args: Any, **options: Any) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise OSError(errno.ENOSPC, "No space left on device", str(args[0]))
        link(*args, **options)

    async def main(loop: ClockLoop) -> None:
        nonlocal refusals
        server = Server(holds=True)
        for name in "ab":
            drop(directory, name, b"")
        pauses = iter([1.0, 0.0])
        queue = module.AsyncPendingQueue(directory, server.upload, backoff=lambda n: next(pauses))
        async with owning(queue):
            await server.until(lambda: len(server.running) == 2)
            server.end("a", ConnectionError("no route"))
            await until(lambda: queue.stats.waiting)
            refusals = 1
            server.end("b")
            loop.now += 2  # so the timer comes right after b's last step
            await turns()
            assert sorted(server.running) == ["a", "b"], "one is left alone"
            for name in "ab":
                server.end(name)
            await until(lambda: queue.stats.completed == 2)

    with pytest.MonkeyPatch.context() as patch, asyncio.Runner(loop_factory=ClockLoop) as runner:
        patch.setattr(os, "link", refuse)
        loop = runner.get_loop()
        assert isinstance(loop, ClockLoop)
        runner.run(main(loop))


@pytest.mark.guarantee("PQ-6")
def test_a_pause_that_is_over_at_once_is_seen(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    check_pause_over_at_once(async_pending_queue, directory)


@pytest.mark.twin("PQ-6")
def test_a_pause_that_is_over_unseen_is_caught(directory: Path) -> None:
    with pytest.raises(AssertionError, match="one is left alone"):
        check_pause_over_at_once(twin(FILE, QUEUED_ONLY), directory)


@posix
def test_a_submission_too_large_for_the_disk_is_an_error_and_nothing_else(directory: Path) -> None:
    run_python(
        f"""
        import asyncio, errno, resource
        from pathlib import Path
        from reference_impl.queues.async_pending_queue import AsyncPendingQueue
        directory = Path({str(directory)!r})

        async def upload(path):
            pass

        async def main():
            async with AsyncPendingQueue(directory, upload) as queue:
                try:
                    await queue.submit("large", bytes(2000))
                except OSError as error:
                    assert error.errno == errno.EFBIG
                else:
                    raise SystemExit("it was submitted")
                await queue.submit("small", bytes(20))
                while not queue.stats.completed:
                    await asyncio.sleep(0.01)
            names = sorted(path.name for path in directory.iterdir())
            assert names == [".pending-queue.lock", "small.completed"], names

        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        asyncio.run(main())
        """
    )


@posix
@pytest.mark.guarantee("PQ-6")
def test_what_may_not_be_read_or_written(tmp_path: Path) -> None:
    """An unreadable file is an error like others; a read-only directory one at the start."""
    run_python(
        """
        import asyncio, logging, os, shutil, tempfile
        from pathlib import Path
        import concurrent.futures.thread, watchdog.observers  # before it has no right to
        from reference_impl.queues.async_pending_queue import AsyncPendingQueue
        folder = Path(tempfile.mkdtemp())
        os.chmod(folder, 0o777)
        if not os.geteuid():
            os.seteuid(65534)  # nobody: root may read and write everything
        directory = folder / "queue"
        directory.mkdir()

        async def upload(path):
            path.read_bytes()

        async def main():
            (directory / "a.queued").touch(mode=0)
            (directory / "b.queued").touch()
            queue = AsyncPendingQueue(directory, upload, max_attempts=2, backoff=lambda n: 0.0)
            async with queue:
                while not (queue.stats.completed and queue.stats.given_up):
                    await asyncio.sleep(0.01)
            assert (directory / "a.error").exists()
            assert "PermissionError" in (directory / "a.error.json").read_text()
            for path in directory.iterdir():
                path.unlink()
            directory.chmod(0o555)
            try:
                await AsyncPendingQueue(directory, upload).run()
            except PermissionError as error:
                assert "must be writable" in str(error) and "queue" in str(error), error
            else:
                raise SystemExit("it runs in a directory that it cannot write to")

        logging.disable(logging.CRITICAL)
        try:
            asyncio.run(main())
        finally:
            directory.chmod(0o777)
            os.seteuid(os.getuid())
            shutil.rmtree(folder)
        """
    )


def check_strange_entries(module: ModuleType, directory: Path) -> None:
    """Links, directories and pipes are announced, and files that are not there."""
    module.__dict__["DirectoryWatch"] = PlainWatch
    (directory / "directory.queued").mkdir()
    (directory / "link.queued").symlink_to(directory.parent)
    (directory / "orphan.processing").mkdir()
    os.mkfifo(directory / "pipe.queued")
    odd = ["new\nline", "\N{SNOWMAN}", " ", "a.queued", "%s", "-rf", os.fsdecode(b"\xff\xfe")]
    for name in odd:
        drop(directory, name, b"1")

    async def main() -> None:
        server = Server()
        queue = module.AsyncPendingQueue(directory, server.upload, backoff=lambda n: 3600.0)
        async with owning(queue):
            PlainWatch.last.announce("absent.queued")
            await turns(300)
            assert sorted(server.seen) == sorted(odd), "these were uploaded"
            assert queue.stats.completed == len(odd)
            assert queue.stats.errors == 5, "not each of them is an error"
            assert queue.stats.waiting == 3
            await queue.stop(0)
        assert not hidden(directory)
        assert (directory / "pipe.queued").is_fifo()

    run(main())


@posix
@pytest.mark.guarantee("PQ-6")
def test_only_regular_files_are_uploaded_whatever_their_names(
    directory: Path, plain_watch: type[PlainWatch], caplog: pytest.LogCaptureFixture
) -> None:
    """One unreadable entry ended the original's `run`."""
    check_strange_entries(async_pending_queue, directory)
    assert sum("trouble with the file" in record.getMessage() for record in caplog.records) == 4


@posix
@pytest.mark.twin("PQ-6")
def test_links_and_pipes_that_are_uploaded_are_caught(directory: Path) -> None:
    broken = twin(FILE, ("if not stat.S_ISREG(queued.lstat().st_mode):", "if False:"))
    with pytest.raises(AssertionError, match="these were uploaded"):
        check_strange_entries(broken, directory)


@pytest.mark.guarantee("PQ-6")
def test_a_file_that_vanishes_during_its_upload_is_an_error(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    async def main() -> None:
        async def upload(path: Path) -> None:
            if path.stem == "a":
                path.unlink()

        for name in "ab":
            drop(directory, name, b"1")
        async with AsyncPendingQueue(directory, upload, max_concurrency=1) as queue:
            await until(lambda: queue.stats.completed)
        assert (queue.stats.errors, queue.stats.waiting) == (1, 0)
        assert files(directory) == {"b.completed": b"1"}
        assert not hidden(directory)

    run(main())


@pytest.mark.guarantee("PQ-6")
@pytest.mark.parametrize("cancelled", [False, True], ids=["uploaded", "cancelled"])
@pytest.mark.parametrize(
    ("removed", "dropped"),
    [(".a.attempts", False), ("a.processing", False), ("a.processing", True)],
    ids=["attempts", "file", "file for a newer one"],
)
def test_what_others_remove_during_an_upload(
    directory: Path, plain_watch: type[PlainWatch], removed: str, dropped: bool, cancelled: bool
) -> None:
    """Whatever is there afterwards waits for a while, and what is not is forgotten."""

    async def main() -> None:
        seen: list[bytes] = []

        async def upload(path: Path) -> None:
            seen.append(path.read_bytes())
            (directory / removed).unlink()
            if dropped:
                drop(directory, "a", b"newer")
            task = asyncio.current_task()
            if cancelled and task is not None:
                task.cancel()
                await asyncio.sleep(0)

        drop(directory, "a", b"1")
        async with owning(AsyncPendingQueue(directory, upload, backoff=lambda n: 3600.0)) as queue:
            await until(lambda: seen)
            await turns()
            assert seen == [b"1"], "it did not wait"
            if removed == ".a.attempts" and not cancelled:
                assert (queue.stats.errors, queue.stats.completed) == (0, 1)
            else:
                assert (queue.stats.errors, queue.stats.completed) == (1, 0)
                assert queue.stats.waiting == len(files(directory))
            if not queue.stats.waiting:
                assert not hidden(directory)

    run(main())


@pytest.mark.guarantee("PQ-6")
def test_a_file_that_vanishes_when_it_has_its_next_name_is_no_error(
    directory: Path, plain_watch: type[PlainWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its old name was to be unlinked anyway."""
    link = os.link

    def link_and_unlink(source: Any, target: Any, **options: Any) -> None:
        link(source, target, **options)
        if target == directory / "a.completed":
            Path(source).unlink()

    monkeypatch.setattr(os, "link", link_and_unlink)

    async def main() -> None:
        drop(directory, "a", b"1")
        async with AsyncPendingQueue(directory, nothing) as queue:
            await until(lambda: queue.stats.completed or queue.stats.errors)
        assert (queue.stats.completed, queue.stats.errors) == (1, 0)
        assert files(directory) == {"a.completed": b"1"}

    run(main())


@pytest.mark.guarantee("PQ-6")
@pytest.mark.parametrize("length", [236, 244, 247, 248])
def test_names_as_long_as_the_system_allows(
    directory: Path, plain_watch: type[PlainWatch], length: int
) -> None:
    """Found ones are uploaded if their suffixes fit, and else an error, and left as they are."""

    async def main() -> None:
        name = "x" * length
        (directory / f"{name}.queued").write_bytes(b"1")
        drop(directory, "b", b"2")
        server = Server()
        queue = AsyncPendingQueue(directory, server.upload, backoff=lambda n: 3600.0)
        async with queue:
            await server.until(lambda: "b" in server.seen)
            await turns()
        fits = length <= 244
        assert (name in server.seen, queue.stats.errors) == (fits, 0 if fits else 1)
        assert files(directory)[name + (".completed" if fits else ".queued")] == b"1"

    run(main())


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("", ValueError, "no path, and not hidden, got ''"),
        (".hidden", ValueError, "got '.hidden'"),
        ("a/b", ValueError, "got 'a/b'"),
        ("a\0b", ValueError, "got"),
        ("x" * 237, ValueError, "at most 236 bytes"),
        ("\N{SNOWMAN}" * 79, ValueError, "at most 236 bytes"),
        pytest.param(
            "\ud800", ValueError, r"^name must be .* can encode, got '\\ud800'$", marks=posix
        ),
        (b"a", TypeError, "name must be a str, got b'a'"),
        (None, TypeError, "name must be a str, got None"),
    ],
)
def test_submit_refuses_what_cannot_be_a_name(
    directory: Path, name: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        asyncio.run(AsyncPendingQueue(directory, nothing).submit(name, b"1"))
    assert not list(directory.iterdir())


def test_submit_takes_bytes_and_names_of_any_kind(directory: Path) -> None:
    async def main() -> None:
        queue = AsyncPendingQueue(directory, nothing)
        for data in ("text", bytearray(b"1"), None, memoryview(b"1")):
            kind = type(data).__name__
            with pytest.raises(TypeError, match=f"^data must be bytes, got {kind}$"):
                await queue.submit("a", data)  # type: ignore[arg-type]
        assert not list(directory.iterdir())
        for name in ("x" * 236, "new\nline", "a.queued", " "):
            path = await queue.submit(name, b"1")
            assert path.read_bytes() == b"1"

    run(main())


# Bad input.


def plain(path: Path) -> None:
    """A function that would hold up the loop."""


class Plain:
    def upload(self, path: Path) -> None: ...

    async def awaitable(self, path: Path) -> None: ...

    async def __call__(self, path: Path) -> None: ...


@pytest.mark.parametrize(
    "upload",
    [
        plain,
        Plain().upload,
        functools.partial(plain),
        functools.partialmethod(nothing),
        print,
        os.stat,
        None,
        "upload",
        Path(),
    ],
)
def test_an_upload_that_is_no_coroutine_function_is_refused(directory: Path, upload: Any) -> None:
    with pytest.raises(TypeError) as caught:
        AsyncPendingQueue(directory, upload)
    assert str(caught.value) == (
        f"upload must be a coroutine function, got {upload!r}: "
        "define it with `async def`, and put what blocks into asyncio.to_thread"
    )


@pytest.mark.parametrize(
    "upload",
    [nothing, Plain().awaitable, Plain(), functools.partial(nothing), lambda path: nothing(path)],
)
def test_whatever_returns_an_awaitable_will_do(
    directory: Path, plain_watch: type[PlainWatch], upload: Any
) -> None:
    async def main() -> None:
        drop(directory, "a", b"1")
        async with AsyncPendingQueue(directory, upload) as queue:
            await until(lambda: queue.stats.completed)

    run(main())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_concurrency": 0}, ValueError, "max_concurrency must be 1 or more, got 0"),
        ({"max_concurrency": -5}, ValueError, "max_concurrency must be 1 or more, got -5"),
        ({"max_concurrency": 2.5}, TypeError, "max_concurrency must be an int, got 2.5"),
        ({"max_attempts": 0}, ValueError, "max_attempts must be 1 or more, got 0"),
        ({"max_attempts": True}, TypeError, "max_attempts must be an int, got True"),
        (
            {"upload_timeout": 0},
            ValueError,
            "upload_timeout must be more than 0 seconds, or None; got 0$",
        ),
        ({"upload_timeout": -1.0}, ValueError, "upload_timeout must be 0 or more seconds"),
        ({"upload_timeout": math.nan}, ValueError, "upload_timeout must be 0 or more seconds"),
        ({"upload_timeout": "1"}, TypeError, "upload_timeout must be a number of seconds"),
        ({"backoff": 1.0}, TypeError, "backoff must be callable, got 1.0"),
        ({"directory": 5}, TypeError, "directory must be a path, got 5"),
    ],
)
def test_bad_arguments_are_refused_by_name(
    directory: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        AsyncPendingQueue(**{"directory": directory, "upload": nothing, **options})


@pytest.mark.parametrize("timeout", [-1, math.nan, "1", True])
def test_a_bad_timeout_stops_nothing(
    directory: Path, plain_watch: type[PlainWatch], timeout: Any
) -> None:
    async def main() -> None:
        async with AsyncPendingQueue(directory, nothing) as queue:
            with pytest.raises((TypeError, ValueError), match="timeout must be"):
                await queue.stop(timeout)
            await queue.submit("a", b"1")
            await until(lambda: queue.stats.completed)

    run(main())


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_directory_that_is_none_is_an_error_at_the_start(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "file":
        path.touch()
    expected = {"missing": FileNotFoundError, "file": NotADirectoryError}[kind]

    async def main() -> None:
        with pytest.raises(expected) as caught:
            await AsyncPendingQueue(path, nothing).run()
        assert caught.value.strerror == ("directory must be an existing directory: create it first")
        assert caught.value.filename == str(path)
        with pytest.raises(expected, match="existing directory: create it first"):
            async with AsyncPendingQueue(path, nothing):
                pass
        with pytest.raises(expected, match="existing directory: create it first"):
            await AsyncPendingQueue(path, nothing).submit("a", b"1")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_a_file_system_without_links_is_an_error_at_the_start(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(PermissionError, match="must be writable and allow hard links"):
        run(AsyncPendingQueue(directory, nothing).run())


# Loops, contexts, leaks.


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
            "this queue belongs to the event loop that ran it: "
            "use it there, or make a new AsyncPendingQueue"
        )


def check_left_elsewhere(module: ModuleType, directory: Path) -> None:
    """To leave it on another loop is refused at once, and stops nothing."""
    queue = module.AsyncPendingQueue(directory, nothing)

    async def elsewhere(use: Callable[[], Coroutine[Any, Any, object]]) -> None:
        using = asyncio.create_task(use())
        await turns()
        assert using.done(), "it waits for another loop's task"
        with pytest.raises(RuntimeError, match="belongs to the event loop that ran it"):
            await using

    async def goes_on() -> None:
        await queue.submit("a", b"1")
        await until(lambda: queue.stats.completed)
        await queue.__aexit__(None, None, None)

    with asyncio.Runner() as its_own:
        its_own.run(queue.__aenter__())
        asyncio.run(elsewhere(lambda: queue.__aexit__(None, None, None)))
        asyncio.run(elsewhere(queue.__aenter__))
        its_own.run(goes_on())


@pytest.mark.guarantee("PQ-5")
def test_a_block_that_is_left_on_another_loop_does_not_hang(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    check_left_elsewhere(async_pending_queue, directory)


@pytest.mark.twin("PQ-5")
def test_a_block_that_waits_for_another_loop_is_caught(directory: Path) -> None:
    module = twin(
        FILE, ("        self._check_loop()  # or it would wait", "        # it would wait")
    )
    module.__dict__["DirectoryWatch"] = PlainWatch
    with pytest.raises(AssertionError, match="it waits for another loop's task"):
        check_left_elsewhere(module, directory)


def check_relative(module: ModuleType, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory.parent)
    queue = module.AsyncPendingQueue(Path(directory.name), nothing)
    monkeypatch.chdir(directory)

    async def main() -> None:
        drop(directory, "there before", b"1")
        async with queue:
            assert await queue.submit("a", b"1") == directory / "a.queued"
            await until(lambda: queue.stats.completed == 2)

    run(main())


@pytest.mark.guarantee("PQ-1")
def test_a_relative_directory_stays_where_it_was_when_the_program_goes_elsewhere(
    directory: Path, plain_watch: type[PlainWatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_relative(async_pending_queue, directory, monkeypatch)


@pytest.mark.twin("PQ-1")
def test_a_directory_that_moves_with_the_program_is_caught(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = twin(FILE, ("Path(directory).absolute()", "Path(directory)"))
    module.__dict__["DirectoryWatch"] = PlainWatch
    with pytest.raises(FileNotFoundError, match="create it first"):
        check_relative(module, directory, monkeypatch)


@posix
def test_symbolic_links_in_the_directorys_path_are_kept(directory: Path) -> None:
    link = directory.with_name("link")
    link.symlink_to(directory)
    queued = asyncio.run(AsyncPendingQueue(link, nothing).submit("a", b"1"))
    assert queued == link / "a.queued"


def test_uploads_see_the_context_of_run_and_not_each_others(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    variable = ContextVar("variable", default="unset")

    async def main() -> None:
        seen: list[str] = []

        async def upload(path: Path) -> None:
            seen.append(variable.get())
            variable.set(path.stem)
            if len(seen) < 6:
                raise ConnectionError

        variable.set("of run")
        for name in "ab":
            drop(directory, name, b"1")
        queue = AsyncPendingQueue(directory, upload, max_attempts=9, backoff=lambda n: 0.0)
        async with queue:
            variable.set("later")
            await queue.submit("c", b"1")
            await until(lambda: queue.stats.completed == 3)
        assert set(seen) == {"of run"}

    run(main())


def descriptors() -> set[str]:
    folder = Path("/proc/self/fd")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


async def threads_ended() -> None:
    """The default executor's: one that has just recovered a directory still holds the queue."""
    await asyncio.get_running_loop().shutdown_default_executor()


def test_nothing_is_left_behind(directory: Path) -> None:
    """No task, no descriptor, and no cycle that only the collector would find."""

    async def main() -> None:
        async def upload(path: Path) -> None:
            if path.stem == "b":
                raise ConnectionError

        await asyncio.to_thread(int)  # the default executor's threads stay
        before = descriptors()
        logging.disable()  # what keeps records keeps the errors that they tell of
        gc.collect()
        gc.disable()
        try:
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
        finally:
            gc.enable()
            logging.disable(logging.NOTSET)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert descriptors() == before

    run(main())


def test_the_time_limit_of_a_stop_does_not_outlive_it(
    directory: Path, plain_watch: type[PlainWatch]
) -> None:
    async def main() -> None:
        server = Server(holds=True)
        drop(directory, "a", b"1")
        queue = AsyncPendingQueue(directory, server.upload)
        gc.collect()
        gc.disable()
        try:
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
        finally:
            gc.enable()

    run(main())


def test_stats_count_files_and_attempts(directory: Path, plain_watch: type[PlainWatch]) -> None:
    async def main() -> None:
        async def upload(path: Path) -> None:
            if path.stem in "abc":
                raise ConnectionError

        for name in "abcde":
            drop(directory, name, b"1")
        queue = AsyncPendingQueue(directory, upload, max_attempts=2, backoff=lambda n: 0.0)
        async with queue:
            await until(lambda: not unfinished(directory))
            await turns()
            assert queue.stats == PendingStats(completed=2, failed=6, given_up=3)

    run(main())


def test_what_happens_is_logged(
    directory: Path, plain_watch: type[PlainWatch], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        drop(directory, "a", b"1")
        upload = fails_with(ConnectionError("no route"))
        queue = AsyncPendingQueue(directory, upload, max_attempts=2, backoff=lambda n: 0.0)
        async with queue:
            await until(lambda: queue.stats.given_up)

    run(main())
    assert [(r.levelname, r.getMessage()) for r in caplog.records if r.name == LOGGER] == [
        ("WARNING", "attempt 1 to upload 'a' failed: ConnectionError('no route')"),
        ("WARNING", "attempt 2 to upload 'a' failed: ConnectionError('no route')"),
        ("ERROR", "'a' is given up: see its .error.json"),
    ]


def test_what_is_no_regular_file_is_logged_with_its_name_and_a_remedy(
    directory: Path, plain_watch: type[PlainWatch], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.processing", "b.queued"):
        (directory / name).mkdir()

    async def main() -> None:
        queue = AsyncPendingQueue(directory, nothing, backoff=lambda n: 3600.0)
        async with queue:
            await until(lambda: queue.stats.waiting)

    run(main())
    logged = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage() for record in logged] == [
        "'a' cannot be put back: it stays .processing",
        "trouble with the file 'b'",
    ]
    for record, place in zip(logged, ("a", str(directory / "b.queued")), strict=True):
        assert record.exc_info is not None
        error = record.exc_info[1]
        assert isinstance(error, OSError)
        assert (error.errno, error.filename) == (errno.EINVAL, place)
        assert error.strerror == "it is no regular file: move it away"
