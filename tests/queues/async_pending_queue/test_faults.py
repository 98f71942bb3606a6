"""AsyncPendingQueue: what may be wrong with files and disks (PQ-6)."""

import asyncio
import errno
import itertools
import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from reference_impl.queues import async_pending_queue
from reference_impl.queues.async_pending_queue import AsyncPendingQueue
from tests.kit.fakes import turns, until
from tests.kit.process import run_python
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin, edit, override
from tests.queues.async_pending_queue import faults
from tests.queues.async_pending_queue.disk import (
    Refusing,
    drop,
    files,
    hidden,
    part,
    without_exclusive_rename,
)
from tests.queues.async_pending_queue.helpers import owning, posix, quiet, stopped_clock
from tests.queues.async_pending_queue.uploads import Server, nothing
from tests.queues.async_pending_queue.watch import PlainWatch, on_plain_watch

pytestmark = pytest.mark.usefixtures("plain_watch")
STEPS = ["rename", "rename_exclusively", "truncate", "unlink", "replace", "lstat"]


@on_plain_watch
async def check_full_disk(m: ModuleType, directory: Path) -> None:
    """Each of the steps fails three times, the first time, the second one, and so on."""
    with quiet():
        for step in STEPS:
            for serial in range(1, 100):
                folder = directory / f"{step}{serial}"
                folder.mkdir()
                if not await _fails(m, folder, step, serial):
                    break
            else:
                raise AssertionError("there is no end to it")


async def _fails(m: ModuleType, directory: Path, step: str, serial: int) -> bool:
    """Let a step fail three times, from the serial number on; whether there were so many."""
    tried: set[str] = set()
    calls = itertools.count(1)

    async def upload(path: Path) -> None:
        content = path.read_text()
        if content == "bad" or content not in tried:
            tried.add(content)
            raise ConnectionError
        await asyncio.sleep(0)

    def left() -> list[str]:
        return [name for name in files(directory) if not name.endswith((".completed", ".error"))]

    for name in ("bad", "good"):
        drop(directory, name, name.encode())
    queue = m.AsyncPendingQueue(directory, upload, max_attempts=5, backoff=lambda failures: 0.0)
    async with owning(queue):
        with pytest.MonkeyPatch.context() as patch:
            refused = Refusing(
                patch,
                step,
                times=3,
                error=errno.ENOSPC,
                when=lambda *_: next(calls) >= serial,
                owner=part(m) if step == "rename_exclusively" else os,
            )
            for _ in range(3000):
                await asyncio.sleep(0)
                if not left():
                    break
        assert set(files(directory).values()) == {b"bad", b"good"}, "lost"
        assert not left(), f"{left()} are left alone"
        failed = refused.left < 3
        assert queue.stats.errors or not failed or step in {"unlink", "lstat"}, (
            "no error is counted"
        )
        await queue.submit("after", b"after")
        await until(lambda: os.path.lexists(directory / "after.completed"))
    return failed


@on_plain_watch
async def check_strange_entries(m: ModuleType, directory: Path) -> None:
    """Links, directories and pipes are announced, and files that are not there.

    One unreadable entry ended the original's `run`.
    """
    (directory / "directory.queued").mkdir()
    (directory / "link.queued").symlink_to(directory.parent)
    (directory / "orphan.processing").mkdir()
    os.mkfifo(directory / "pipe.queued")
    odd = ["new\nline", "\N{SNOWMAN}", " ", "a.queued", "%s", "-rf", os.fsdecode(b"\xff\xfe")]
    for name in odd:
        drop(directory, name, b"1")
    server = Server()
    queue = m.AsyncPendingQueue(directory, server.upload, backoff=lambda n: 3600.0)
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


def _counts_no_errors(stats: property) -> property:
    assert stats.fget is not None
    get = stats.fget
    return property(lambda queue: replace(get(queue), errors=0))


NO_ERRORS = Twin(
    "counts no errors",
    override("AsyncPendingQueue.stats", _counts_no_errors),
    "AssertionError: no error is counted",
)
ONCE = Twin("tries no second time", faults.pausing(9e9), "AssertionError: are left alone")
EVERYTHING = Twin(
    "takes everything for a regular file",
    faults.SEES_REGULAR_FILES,
    "AssertionError: these were uploaded",
)


@on_plain_watch
async def check_late_news(m: ModuleType, directory: Path) -> None:
    """The watch may tell of a file that the queue itself has queued when that has long ended."""
    left = [ConnectionError("once")]

    async def upload(path: Path) -> None:
        if left and path.stem == "put back":
            raise left.pop()

    with quiet():
        async with owning(m.AsyncPendingQueue(directory, upload, backoff=lambda n: 0.0)) as queue:
            await queue.submit("submitted", b"")
            drop(directory, "put back", b"")
            PlainWatch.last.announce("put back.queued")
            await until(lambda: queue.stats.completed == 2)
            for name in ("submitted", "put back"):
                PlainWatch.last.announce(f"{name}.queued")
            await until(lambda: PlainWatch.last.drawn == 3)
            await turns()
            assert queue.stats.errors == 0, "what it has done itself is an error"
            for name in ("submitted", "put back", "never there"):  # these have vanished
                PlainWatch.last.announce(f"{name}.queued")
            await until(lambda: PlainWatch.last.drawn == 6)
            await turns()
            assert queue.stats.errors == 3, "what has vanished is no error"


DEAF_TO_ECHOES = edit("AsyncPendingQueue._is_echo", "name in self._echoes", "False")
TAKES_ALL_FOR_ECHOES = edit("AsyncPendingQueue._is_echo", "name in self._echoes", "True")
PROOFS = [
    Proof("PQ-6", check_full_disk, [NO_ERRORS, ONCE]),
    Proof("PQ-6", check_strange_entries, [EVERYTHING]),
    Proof(
        "PQ-6",
        check_late_news,
        [
            Twin(
                "takes its own files for new ones",
                DEAF_TO_ECHOES,
                "AssertionError: what it has done itself is an error",
            ),
            Twin(
                "says nothing of files that vanish",
                TAKES_ALL_FOR_ECHOES,
                "AssertionError: what has vanished is no error",
            ),
        ],
    ),
]

test_faulty_files_and_disks_end_nothing = posix(holding(PROOFS, async_pending_queue, "directory"))
test_a_queue_that_faults_stop_is_caught = posix(failing(PROOFS, async_pending_queue, "directory"))


@pytest.mark.guarantee("PQ-6")
async def test_a_pause_that_is_over_at_once_is_seen(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails at the end of an upload; the pause is over before its task is."""
    clock, server = stopped_clock(), Server(holds=True)
    for name in "ab":
        drop(directory, name, b"")
    pauses = iter([1.0, 0.0])
    queue = AsyncPendingQueue(directory, server.upload, backoff=lambda n: next(pauses))
    async with owning(queue):
        await server.until(lambda: len(server.running) == 2)
        server.end("a", ConnectionError("no route"))
        await until(lambda: queue.stats.waiting)
        Refusing(monkeypatch, "rename", error=errno.ENOSPC)
        server.end("b")
        clock.tick(2)  # so the timer comes right after b's last step
        await turns()
        assert sorted(server.running) == ["a", "b"], "one is left alone"
        for name in "ab":
            server.end(name)
        await until(lambda: queue.stats.completed == 2)


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


@pytest.mark.guarantee("PQ-6")
async def test_a_file_that_vanishes_during_its_upload_is_an_error(directory: Path) -> None:
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


@pytest.mark.guarantee("PQ-6")
@pytest.mark.parametrize("cancelled", [False, True], ids=["uploaded", "cancelled"])
@pytest.mark.parametrize(
    ("removed", "dropped"),
    [(".a.attempts", False), ("a.processing", False), ("a.processing", True)],
    ids=["attempts", "file", "file for a newer one"],
)
async def test_what_others_remove_during_an_upload(
    directory: Path, removed: str, dropped: bool, cancelled: bool
) -> None:
    """Whatever is there afterwards waits for a while, and what is not is forgotten."""
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
    (directory / ".a.attempts").write_bytes(b".")  # of an attempt before
    async with owning(AsyncPendingQueue(directory, upload, backoff=lambda n: 3600.0)) as queue:
        await until(lambda: seen)
        await turns()
        assert seen == [b"1"], "it did not wait"
        if removed == ".a.attempts":
            assert (queue.stats.errors, queue.stats.completed) == (0, not cancelled)
            assert hidden(directory) == [".a.attempts"] * cancelled  # it is counted all the same
        else:
            assert (queue.stats.errors, queue.stats.completed) == (1, 0)
            assert queue.stats.waiting == len(files(directory))
        if not queue.stats.waiting:
            assert not hidden(directory)


@pytest.mark.guarantee("PQ-6")
async def test_a_name_that_vanishes_when_the_file_has_its_next_one_loses_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where files have to be linked: its old name was to be unlinked anyway."""
    link, begun = os.link, list[Path]()

    def link_and_unlink(source: str, target: str, **options: bool) -> None:
        link(source, target, **options)
        Path(source).unlink()

    async def upload(path: Path) -> None:
        begun.append(path)
        if len(begun) == 1:
            monkeypatch.setattr(os, "link", link_and_unlink)
            raise ConnectionError("no route")

    without_exclusive_rename(monkeypatch, async_pending_queue)
    drop(directory, "a", b"1")
    async with AsyncPendingQueue(directory, upload, backoff=lambda n: 0.0) as queue:
        await until(lambda: queue.stats.completed)
    assert (len(begun), queue.stats.errors) == (2, 1)
    assert files(directory) == {"a.completed": b"1"}


@pytest.mark.guarantee("PQ-6")
@pytest.mark.parametrize("length", [236, 244, 247, 248])
async def test_names_as_long_as_the_system_allows(directory: Path, length: int) -> None:
    """Found ones are uploaded if their suffixes fit, and else an error, and left as they are."""
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


async def test_what_is_no_regular_file_is_logged_with_its_name_and_a_remedy(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.processing", "b.queued"):
        (directory / name).mkdir()

    queue = AsyncPendingQueue(directory, nothing, backoff=lambda n: 3600.0)
    async with queue:
        await until(lambda: queue.stats.waiting)
    logged = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage() for record in logged] == [
        "'a' cannot be put back: it stays .processing",
        "trouble with the file 'b'",
    ]
    for record, place in zip(logged, ("a.processing", "b.queued"), strict=True):
        assert record.exc_info is not None
        error = record.exc_info[1]
        assert isinstance(error, OSError)
        assert (error.errno, error.filename) == (errno.EINVAL, str(directory / place))
        assert error.strerror == "it is no regular file: move it away"
