"""AsyncPendingQueue: attempts are counted, and each has its pause (PQ-4)."""

import asyncio
import errno
import json
import os
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reference_impl.queues import async_pending_queue
from reference_impl.queues.async_pending_queue import AsyncPendingQueue, PendingStats
from tests.kit.fakes import turns, until
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin
from tests.queues.async_pending_queue import faults
from tests.queues.async_pending_queue.disk import Refusing, drop, files, hidden, part
from tests.queues.async_pending_queue.helpers import LOGGER, owning, posix, quiet, stopped_clock
from tests.queues.async_pending_queue.uploads import Pauses, Server, fails_with
from tests.queues.async_pending_queue.watch import PlainWatch, on_plain_watch

pytestmark = pytest.mark.usefixtures("plain_watch")


@on_plain_watch
async def check_attempts(m: ModuleType, directory: Path) -> None:
    """Five attempts in all, over three owners; back-off starts anew with each of them.

    In the original they restarted at 1: 12 uploads where 5 were the limit.
    """
    asked: list[list[int]] = []
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

        queue = m.AsyncPendingQueue(directory, upload, backoff=backoff)
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


@on_plain_watch
async def check_pause(m: ModuleType, directory: Path) -> None:
    """A file that waits for its next attempt is found again: by events, scans, another start."""
    server = Server(holds=True)
    drop(directory, "a", b"1")
    queue = m.AsyncPendingQueue(directory, server.upload, backoff=lambda n: 3600.0)
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


@on_plain_watch
async def check_pauses_end(m: ModuleType, directory: Path) -> None:
    """Each of many files is tried again when its own pause is over, and not before."""
    count = 250  # more than one turn of the loop sees to
    clock, tried = stopped_clock(), list[str]()
    pauses = iter([n / 8 for n in reversed(range(1, count + 1))])

    async def upload(path: Path) -> None:
        tried.append(path.stem)
        raise ConnectionError("no route")

    for n in range(count):
        drop(directory, f"{n:03}", b"")
    queue = m.AsyncPendingQueue(
        directory, upload, max_concurrency=1, backoff=lambda n: next(pauses, 9e9)
    )
    with quiet():
        async with owning(queue):
            await until(lambda: queue.stats.waiting == count)
            first = tried.copy()
            tried.clear()
            clock.tick(1 / 16)
            await turns()
            assert not tried, f"{tried} did not wait"
            clock.tick(1 / 16)  # to the very moment
            await turns()
            assert tried == first[-1:], "one pause was over"
            clock.tick(2 / 8)
            await turns()
            assert tried == first[-1:-4:-1], "three pauses were over"
            clock.tick(count / 8)
            await until(lambda: len(tried) == count)
            await turns()
            assert tried == first[::-1], "all pauses were over"
            assert queue.stats.waiting == count


@on_plain_watch
async def check_claim_that_fails(m: ModuleType, directory: Path) -> None:
    """The disk refuses the claim more often than there are attempts; one was made before."""
    pauses, counted = Pauses(), list[int]()

    async def upload(path: Path) -> None:
        counted.append((directory / ".a.attempts").stat().st_size)

    drop(directory, "a", b"1")
    (directory / ".a.attempts").write_bytes(b".")
    queue = m.AsyncPendingQueue(directory, upload, max_attempts=2, backoff=pauses)
    with pytest.MonkeyPatch.context() as patch:
        refusing = Refusing(patch, "rename", times=5, error=errno.EACCES)
        async with owning(queue):
            await until(lambda: queue.stats.completed or queue.stats.given_up)
    assert files(directory) == {"a.completed": b"1"}, "given up without an upload"
    assert (counted, queue.stats.errors, refusing.left) == ([2], 5, 0)
    assert pauses.asked == [1, 2, 3, 4, 5]


class Odd(BaseException):
    """What libraries outside asyncio use to end their own tasks."""


@on_plain_watch
async def check_odd_errors(m: ModuleType, directory: Path) -> None:
    """What is no Exception is a failed attempt as well, with its pause and its reason."""
    for error in (Odd(), BaseExceptionGroup("two", [Odd()]), GeneratorExit()):
        folder, pauses, begun = directory / type(error).__name__, Pauses(), list[Path]()

        async def upload(path: Path) -> None:
            begun.append(path)  # noqa: B023
            raise error  # noqa: B023

        folder.mkdir()
        drop(folder, "a", b"1")
        queue = m.AsyncPendingQueue(folder, upload, max_attempts=2, backoff=pauses)
        async with queue:
            await until(lambda: queue.stats.given_up or len(begun) > 2)  # noqa: B023
        assert (len(begun), pauses.asked) == (2, [1]), "it was no attempt"
        assert queue.stats == m.PendingStats(failed=2, given_up=1), "it was no attempt"
        assert json.loads((folder / "a.error.json").read_text())["error"] == repr(error)


def _without_attempts(directory: Path) -> Path:
    for path in directory.glob(".*.attempts"):
        path.unlink()
    return directory


def _cancels_odd_ones(upload: faults.Upload) -> faults.Upload:
    async def call(path: Path) -> None:
        try:
            await upload(path)
        except Exception:
            raise
        except BaseException:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

    return call


FORGETS = Twin(
    "counts from 1 again when it starts",
    faults.given(directory=_without_attempts),
    "AssertionError: attempts",
)
ONCE_MORE = Twin(
    "tries once more than it may", faults.one_more("max_attempts"), "AssertionError: 6 attempts"
)
NO_PAUSE = Twin(
    "does not wait",
    faults.pausing(0.0),
    "AssertionError: it did not wait for its next attempt",
)
ONE_PAUSE = Twin(
    "ends all pauses with the first",
    faults.pausing(1 / 8),
    "AssertionError: one pause was over",
)
COUNTS_CLAIMS = Twin(
    "counts a claim that fails",
    faults.COUNTS_CLAIMS,
    "AssertionError: given up without an upload",
)
NO_ATTEMPT = Twin(
    "takes what is no Exception for a cancellation",
    faults.given(upload=_cancels_odd_ones),
    "AssertionError: it was no attempt",
)
PROOFS = [
    Proof("PQ-4", check_attempts, [FORGETS, ONCE_MORE]),
    Proof("PQ-4", check_pause, [NO_PAUSE]),
    Proof("PQ-4", check_pauses_end, [ONE_PAUSE]),
    Proof("PQ-4", check_claim_that_fails, [COUNTS_CLAIMS]),
    Proof("PQ-4", check_odd_errors, [NO_ATTEMPT]),
]

test_attempts_count_and_have_their_pauses = holding(PROOFS, async_pending_queue, "directory")
test_attempts_counted_wrongly_are_caught = failing(PROOFS, async_pending_queue, "directory")


@pytest.mark.guarantee("PQ-4")
async def test_a_cancelled_upload_does_not_count(directory: Path) -> None:
    drop(directory, "a", b"1")
    for _ in range(4):
        server = Server(holds=True)
        async with AsyncPendingQueue(directory, server.upload, max_attempts=2) as queue:
            await server.until(lambda: server.running)  # noqa: B023
            await queue.stop(0)
        assert files(directory) == {"a.queued": b"1"}
        assert not hidden(directory)  # nothing counts an attempt


@pytest.mark.guarantee("PQ-4")
@pytest.mark.parametrize("refusals", [0, 1], ids=["", "it is hard to put back"])
async def test_an_upload_that_others_cancel_does_not_count_and_is_tried_again(
    directory: Path,
    refusals: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its task is cancelled, by itself or a task group, though nobody stops the queue."""
    begun, pauses = 0, Pauses()

    async def upload(path: Path) -> None:
        nonlocal begun
        begun += 1
        task = asyncio.current_task()
        if begun < 3 and task is not None:
            task.cancel()
            await asyncio.sleep(0)

    def back(source: str, target: str) -> bool:
        return target.endswith(".queued")

    owner = part(async_pending_queue)
    refused: dict[str, Any] = {"times": refusals, "error": errno.EIO, "owner": owner}
    Refusing(monkeypatch, "rename_exclusively", **refused, when=back)
    drop(directory, "a", b"1")
    queue = AsyncPendingQueue(directory, upload, max_attempts=1 + refusals, backoff=pauses)
    async with queue:
        await until(lambda: queue.stats.completed)
    assert (begun, pauses.asked) == (3, [1, 2])
    assert (queue.stats.failed, queue.stats.errors) == (0, refusals)
    assert files(directory) == {"a.completed": b"1"}
    assert not hidden(directory)
    assert [r.getMessage() for r in caplog.records] == ["trouble with the file 'a'"] * refusals


@pytest.mark.guarantee("PQ-4")
async def test_a_file_that_is_given_up_after_a_crash_in_its_last_attempt_says_so(
    directory: Path,
) -> None:
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


@pytest.mark.guarantee("PQ-4")
async def test_back_off_starts_anew_with_each_file_of_a_name(directory: Path) -> None:
    """However the one before has ended."""
    begun: list[str] = []
    pauses = Pauses()

    async def upload(path: Path) -> None:
        begun.append(path.read_text())
        if begun.count(begun[-1]) == 1 or begun[-1] == "fails":
            raise ConnectionError
        if begun[-1] == "vanishes":
            path.unlink()

    queue = AsyncPendingQueue(directory, upload, max_attempts=2, backoff=pauses)
    async with queue:
        for content in ("is completed", "fails", "vanishes", "is completed, too"):
            drop(directory, "a", content.encode())
            PlainWatch.last.announce("a.queued")
            await until(lambda: begun.count(content) == 2)  # noqa: B023
            await turns()
    assert pauses.asked == [1, 1, 1, 1]
    assert (queue.stats.completed, queue.stats.given_up, queue.stats.errors) == (2, 1, 1)


@posix
async def test_the_count_of_attempts_is_a_plain_file(directory: Path) -> None:
    os.umask(mask := os.umask(0))
    drop(directory, "a", b"1")
    upload, pauses = fails_with(ConnectionError("no route")), Pauses(3600.0)
    async with AsyncPendingQueue(directory, upload, backoff=pauses) as queue:
        await until(lambda: queue.stats.waiting)
        assert (directory / ".a.attempts").read_bytes() == b"\0"
        assert (directory / ".a.attempts").stat().st_mode & 0o777 == 0o666 & ~mask
        await queue.stop(0)


@pytest.mark.guarantee("PQ-4")
async def test_an_upload_beyond_its_time_is_cancelled_and_has_failed(directory: Path) -> None:
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


@pytest.mark.guarantee("PQ-4")
@pytest.mark.parametrize("error", [asyncio.CancelledError(), TimeoutError(), OSError("its own")])
async def test_an_upload_that_raises_has_failed_whatever_it_raises(
    directory: Path, error: BaseException
) -> None:
    drop(directory, "a", b"1")
    async with AsyncPendingQueue(directory, fails_with(error), max_attempts=1) as queue:
        await until(lambda: queue.stats.given_up)
    assert queue.stats.failed == 1
    assert queue.stats.errors == 0


class Unspeakable(Exception):
    def __repr__(self) -> str:
        raise ValueError("no repr")

    __str__ = __repr__


@pytest.mark.guarantee("PQ-4")
async def test_an_error_whose_repr_fails_is_a_reason_and_has_its_pause(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pauses = Pauses()

    drop(directory, "a", b"1")
    queue = AsyncPendingQueue(directory, fails_with(Unspeakable()), max_attempts=2, backoff=pauses)
    async with queue:
        await until(lambda: queue.stats.given_up)
    reason = json.loads((directory / "a.error.json").read_text())["error"]
    assert "Unspeakable object at" in reason, "the reason is lost"
    assert queue.stats == PendingStats(failed=2, given_up=1)
    assert pauses.asked == [1]
    logged = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert logged[0].startswith("attempt 1 to upload 'a' failed: <")
    assert len(logged) == 3


class Silent(Exception):
    def __repr__(self) -> str:
        return ""


@pytest.mark.guarantee("PQ-4")
async def test_an_error_without_words_is_a_failure(directory: Path) -> None:
    drop(directory, "a", b"1")
    async with AsyncPendingQueue(directory, fails_with(Silent()), max_attempts=1) as queue:
        await until(lambda: queue.stats.given_up or queue.stats.completed)
    assert files(directory) == {"a.error": b"1"}
    assert json.loads((directory / "a.error.json").read_text())["error"] == ""


@pytest.mark.guarantee("PQ-4")
async def test_more_seconds_than_a_float_holds_are_as_good_as_no_limit(directory: Path) -> None:
    """An int may be more than a float can hold: it is as good as no limit."""
    server = Server(holds=True)
    for name in "ab":
        drop(directory, name, b"1")
    queue = AsyncPendingQueue(
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
