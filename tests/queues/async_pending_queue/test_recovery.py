"""AsyncPendingQueue overwrites nothing, and recovers what a dead owner left (PQ-1)."""

import asyncio
import contextlib
import errno
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reference_impl.queues import async_pending_queue
from reference_impl.queues.async_pending_queue import AsyncPendingQueue
from tests.kit.fakes import turns, until
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin
from tests.queues.async_pending_queue import faults
from tests.queues.async_pending_queue.disk import Refusing, around_moves, drop, files, hidden
from tests.queues.async_pending_queue.helpers import owning
from tests.queues.async_pending_queue.uploads import Pauses, Server, nothing
from tests.queues.async_pending_queue.watch import PlainWatch, on_plain_watch

pytestmark = pytest.mark.usefixtures("plain_watch")


@on_plain_watch
async def check_put_back(m: ModuleType, directory: Path) -> None:
    """While a file is uploaded, its producer drops a newer one of its name."""
    server = Server(holds=True)
    drop(directory, "a", b"old")
    queue = m.AsyncPendingQueue(directory, server.upload)
    async with queue:
        await server.until(lambda: server.running)
        drop(directory, "a", b"new")
        await queue.stop(0)
    assert sorted(files(directory).values()) == [b"new", b"old"], "one was overwritten"
    assert files(directory) == {"a.queued": b"new", "a-1.queued": b"old"}


@on_plain_watch
async def check_closed_upload(m: ModuleType, directory: Path) -> None:
    """Its coroutine is closed from outside, as the collector does when the loop is gone."""
    server, tasks = Server(holds=True), list[asyncio.Task[Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)

    async def upload(path: Path) -> None:
        tasks.extend(filter(None, [asyncio.current_task()]))
        await server.upload(path)

    drop(directory, "a", b"1")
    queue = m.AsyncPendingQueue(directory, upload)
    running = asyncio.create_task(queue.run())
    try:
        await server.until(lambda: server.running)
        coroutine: Any = tasks[0].get_coro()
        coroutine.close()
        assert not server.running
        assert files(directory) == {"a.processing": b"1"}, "it was moved without ownership"
        assert not hidden(directory)
        assert not queue.stats.failed
    finally:
        running.cancel()
        await asyncio.wait([running])


@on_plain_watch
async def check_relative(m: ModuleType, directory: Path) -> None:
    """A relative directory stays where it was when the program goes elsewhere."""
    with contextlib.chdir(directory.parent):
        queue = m.AsyncPendingQueue(Path(directory.name), nothing)
    drop(directory, "there before", b"1")
    with contextlib.chdir(directory):
        async with queue:
            assert await queue.submit("a", b"1") == directory / "a.queued"
            await until(lambda: queue.stats.completed == 2)


def put_back_when_closed(upload: faults.Upload) -> faults.Upload:
    async def call(path: Path) -> None:
        try:
            await upload(path)
        except GeneratorExit:
            path.rename(path.with_suffix(".queued"))
            raise

    return call


BY_RENAME = Twin(
    "puts a file back by rename", faults.PUTS_BACK_BY_RENAME, "AssertionError: one was overwritten"
)
MOVED = Twin(
    "moves a file when its loop is gone",
    faults.given(upload=put_back_when_closed),
    "AssertionError: it was moved without ownership",
)
PROOFS = [
    Proof("PQ-1", check_put_back, [BY_RENAME]),
    Proof("PQ-1", check_closed_upload, [MOVED]),
    Proof("PQ-1", check_relative),
]

test_nothing_is_overwritten_or_mistaken = holding(PROOFS, async_pending_queue, "directory")
test_a_careless_move_is_caught = failing(PROOFS, async_pending_queue, "directory")


@pytest.mark.guarantee("PQ-1")
async def test_a_newer_file_that_comes_during_an_upload_is_uploaded_after_it(
    directory: Path,
) -> None:
    server = Server(holds=True)
    drop(directory, "a", b"old")
    async with owning(AsyncPendingQueue(directory, server.upload)) as queue:
        await server.until(lambda: server.running)
        drop(directory, "a", b"new")
        PlainWatch.last.announce("a.queued")
        await turns()
        assert server.seen == ["a"]
        server.end("a")
        await turns()
        assert server.seen == ["a", "a"], "the newer one is left alone"
        server.end("a")
        await until(lambda: queue.stats.completed == 2)
    assert files(directory) == {"a.completed": b"old", "a-1.completed": b"new"}


@pytest.mark.guarantee("PQ-1")
async def test_a_newer_file_that_comes_just_before_the_put_back_is_not_overwritten(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the look for what is in the way, that is."""
    server = Server(holds=True)

    def be_quicker(_: Path, target: Path) -> None:
        if target == directory / "a.queued":
            drop(directory, "a", b"new")

    drop(directory, "a", b"old")
    async with AsyncPendingQueue(directory, server.upload) as queue:
        await server.until(lambda: server.running)
        around_moves(monkeypatch, async_pending_queue, before=be_quicker)
        await queue.stop(0)
    assert files(directory) == {"a.queued": b"new", "a-1.queued": b"old"}
    assert queue.stats.errors == 0


@pytest.mark.guarantee("PQ-1")
async def test_completed_files_and_errors_are_not_overwritten(directory: Path) -> None:
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


@pytest.mark.guarantee("PQ-1")
async def test_what_a_dead_owner_left_is_uploaded_at_once(directory: Path) -> None:
    """However old or new it is: the original left it alone for 30 minutes."""
    (directory / "new.processing").write_bytes(b"1")
    (directory / "old.processing").write_bytes(b"2")
    os.utime(directory / "old.processing", (0, 0))
    server = Server()
    async with AsyncPendingQueue(directory, server.upload) as queue:
        assert queue.stats.recovered == 2
        await until(lambda: queue.stats.completed == 2)
    assert sorted(server.seen) == ["new", "old"]


@pytest.mark.guarantee("PQ-1")
async def test_what_a_dead_owner_left_and_a_newer_file_of_its_name_are_both_uploaded(
    directory: Path,
) -> None:
    (directory / "a.processing").write_bytes(b"old")  # whose attempts nobody has counted
    drop(directory, "a", b"new")
    async with AsyncPendingQueue(directory, nothing) as queue:
        await until(lambda: queue.stats.completed == 2)
    assert files(directory) == {"a.completed": b"new", "a-1.completed": b"old"}
    assert (queue.stats.recovered, queue.stats.errors) == (1, 0)


@pytest.mark.guarantee("PQ-1")
async def test_a_link_that_others_made_is_not_taken_for_a_half_done_move(directory: Path) -> None:
    (directory / "a.processing").write_bytes(b"1")
    for name in ("a.copy", "b.completed"):
        (directory / name).hardlink_to(directory / "a.processing")
    server = Server()
    async with AsyncPendingQueue(directory, server.upload) as queue:
        await until(lambda: queue.stats.completed)
    assert (server.seen, queue.stats.recovered) == (["a"], 1)
    assert files(directory) == {"a.completed": b"1", "b.completed": b"1"}


@pytest.mark.guarantee("PQ-1")
async def test_an_older_file_that_the_disk_left_is_uploaded_after_the_newer_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody announces it under its new name."""
    uploaded: list[bytes] = []
    pauses = Pauses()

    async def upload(path: Path) -> None:
        uploaded.append(path.read_bytes())
        if uploaded == [b"old"]:
            drop(directory, "a", b"new")

    def is_completion(source: Any, target: Path) -> bool:
        return Path(target) == directory / "a.completed"

    Refusing(monkeypatch, "rename", error=errno.ENOSPC, when=is_completion)
    drop(directory, "a", b"old")
    async with AsyncPendingQueue(directory, upload, backoff=pauses) as queue:
        await until(lambda: queue.stats.completed == 2)
    assert files(directory) == {"a.completed": b"new", "a-1.completed": b"old"}
    assert (uploaded, pauses.asked) == ([b"old", b"new", b"old"], [1, 1])
    assert (queue.stats.recovered, queue.stats.errors) == (1, 1)


async def temporary_name(directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a submission calls its file while it writes."""
    seen: list[str] = []
    directory.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: seen.extend(hidden(directory)))
        await AsyncPendingQueue(directory, nothing).submit("a", b"1")
    return seen[0]


@pytest.mark.guarantee("PQ-1")
async def test_stray_temporaries_and_attempts_are_swept(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [f".pending-{'a' * 16}.tmp", ".gone.attempts", ".done.attempts"]
    ours += [await temporary_name(directory.parent / "other", monkeypatch)]
    others = [".pending-notes.tmp", ".hidden", ".kept.attempts", ".theirs.processing"]
    for name in [*ours, *others, "done.completed"]:
        (directory / name).write_bytes(b"x")
    drop(directory, "kept", b"1")
    async with AsyncPendingQueue(directory, Server(holds=True).upload) as queue:
        await until(lambda: queue.stats.uploading)
        assert hidden(directory) == sorted(others)
        await queue.stop(0)
