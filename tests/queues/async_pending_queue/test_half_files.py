"""AsyncPendingQueue: what was sent is what is kept (PQ-8)."""

import asyncio
import contextlib
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reference_impl.queues import async_pending_queue
from reference_impl.queues.async_pending_queue import AsyncPendingQueue
from tests.kit.fakes import until
from tests.kit.process import run_python
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin, override, within
from tests.queues.async_pending_queue import faults
from tests.queues.async_pending_queue.disk import drop, files, hidden
from tests.queues.async_pending_queue.helpers import LOGGER, owning, posix
from tests.queues.async_pending_queue.uploads import Pauses
from tests.queues.async_pending_queue.watch import on_plain_watch

pytestmark = pytest.mark.usefixtures("plain_watch")
on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells who has a file open for writing"
)
Change = Callable[[Path], None]


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b", more")


def rewrite(path: Path) -> None:
    """As long as before, and earlier than before by its time, as a copy may be."""
    earlier = path.stat().st_mtime_ns - 1_000_000_000
    path.write_bytes(b"2")
    os.utime(path, ns=(earlier, earlier))


def replace(path: Path) -> None:
    """By a file that looks the same but for its identity."""
    found, other = path.stat(), path.with_name(".other")
    other.write_bytes(b"2")
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)


CHANGES: list[Change] = [append, rewrite, replace]


@on_plain_watch
async def check_changes(m: ModuleType, directory: Path) -> None:
    """A file that changes while it is uploaded: what is completed was sent, as it is."""
    for change in CHANGES:
        for fails in (False, True):
            await check_change(m, directory / f"{change.__name__} {fails}", change, fails=fails)


async def check_change(m: ModuleType, directory: Path, change: Change, *, fails: bool) -> None:
    sent: list[bytes] = []
    pauses = Pauses()

    async def upload(path: Path) -> None:
        sent.append(path.read_bytes())
        await asyncio.sleep(0)
        if len(sent) <= 2:
            change(path)
            if fails:
                raise ConnectionError("no route")

    directory.mkdir()
    drop(directory, "a", b"1")
    queue = m.AsyncPendingQueue(directory, upload, max_attempts=1, backoff=pauses)
    async with owning(queue):
        await until(lambda: queue.stats.completed or queue.stats.given_up)
    kept = files(directory).get("a.completed")
    assert kept == sent[-1], "kept what was not sent"
    assert (len(sent), pauses.asked) == (3, [1, 2]), "it has no pause that grows"
    assert (queue.stats.failed, queue.stats.errors) == (0, 0), "it counts as an attempt"
    assert not hidden(directory)


@on_plain_watch
async def check_open_file(m: ModuleType, directory: Path) -> None:
    """A program still has it open for writing when the upload has ended, and goes on later."""
    sent: list[bytes] = []
    with contextlib.ExitStack() as stack:
        file = stack.enter_context((directory / "a.queued").open("wb", buffering=0))
        file.write(b"HEAD;")

        async def upload(path: Path) -> None:
            sent.append(path.read_bytes())

        def backoff(failures: int) -> float:
            if failures == 2:
                file.write(b"BODY")
                file.close()
            return 0.0

        queue = m.AsyncPendingQueue(directory, upload, backoff=backoff)
        async with owning(queue):
            await until(lambda: queue.stats.completed)
    assert sent[:2] == [b"HEAD;", b"HEAD;"], "kept half of it"
    assert files(directory) == {"a.completed": b"HEAD;BODY"}
    assert sent[-1] == b"HEAD;BODY"


def never(_: Any) -> Any:
    return lambda *_: False


NO_LOOK = Twin(
    "does not look again",
    within(faults.PART, override("Spool.is_unchanged", lambda _: lambda *_: True)),
    "AssertionError: kept what was not sent",
)
ONLY_SIZES = Twin(
    "compares sizes alone",
    within(
        faults.PART,
        override("look", lambda look: lambda path: _only_size(look(path)))
        + override("Spool.claim", lambda claim: lambda *given: _sized(claim(*given))),
    ),
    "AssertionError: kept what was not sent",
)
SEES_NO_WRITER = Twin(
    "does not ask who writes",
    within(faults.PART, override("is_open_for_writing", never)),
    "AssertionError: kept half of it",
)


def _only_size(look: Any) -> Any:
    return look and look._replace(device=0, inode=0, mtime_ns=0)


def _sized(claimed: Any) -> Any:
    return claimed[0], _only_size(claimed[1])


PROOFS = [Proof("PQ-8", check_changes, [NO_LOOK, ONLY_SIZES])]
LINUX_PROOFS = [Proof("PQ-8", check_open_file, [SEES_NO_WRITER])]

test_what_is_kept_was_sent = holding(PROOFS, async_pending_queue, "directory")
test_bytes_that_nobody_sent_are_caught = failing(PROOFS, async_pending_queue, "directory")
test_a_file_that_is_written_to_is_not_kept = on_linux(
    holding(LINUX_PROOFS, async_pending_queue, "directory")
)
test_half_a_file_that_is_kept_is_caught = on_linux(
    failing(LINUX_PROOFS, async_pending_queue, "directory")
)


@pytest.mark.guarantee("PQ-8")
async def test_a_change_is_logged(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    sent = 0

    async def upload(path: Path) -> None:
        nonlocal sent
        sent += 1
        if sent == 1:
            append(path)

    drop(directory, "a", b"1")
    async with AsyncPendingQueue(directory, upload, backoff=lambda n: 0.0) as queue:
        await until(lambda: queue.stats.completed)
    assert [(r.levelname, r.getMessage()) for r in caplog.records if r.name == LOGGER] == [
        ("WARNING", "'a' was written to while it was uploaded: once more")
    ]


@on_linux
@pytest.mark.guarantee("PQ-8")
async def test_a_doubt_is_a_yes(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For lack of descriptors nobody can be seen writing: it is uploaded again."""
    sent, refusals = 0, 2

    async def upload(path: Path) -> None:
        nonlocal sent
        sent += 1

    def scarce(path: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal refusals
        if str(path).endswith(".processing") and refusals:
            refusals -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
        return real(path, *arguments, **options)

    real = open
    monkeypatch.setattr("builtins.open", scarce)
    drop(directory, "a", b"1")
    async with AsyncPendingQueue(directory, upload, backoff=lambda n: 0.0) as queue:
        await until(lambda: queue.stats.completed)
    assert (sent, refusals) == (3, 0)


@posix
@on_linux
@pytest.mark.guarantee("PQ-8")
@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes files of two owners"
)
def test_a_producer_of_another_user_that_writes_slowly(tmp_path: Path) -> None:
    """Whose open file the queue's user cannot see: with `settle`, and by what changed."""
    run_python(
        """
        import asyncio, os, tempfile
        from pathlib import Path
        import concurrent.futures.thread, watchdog.observers  # before it has no right to
        from reference_impl.queues.async_pending_queue import AsyncPendingQueue
        folder = tempfile.TemporaryDirectory()
        Path(folder.name).chmod(0o777)
        directory = Path(folder.name, "queue")
        directory.mkdir()
        directory.chmod(0o777)
        sent = []

        async def upload(path):
            sent.append(path.read_bytes())
            if len(sent) == 1 and not file.closed:
                write.set()
                await written.wait()

        async def produce():
            await write.wait()
            file.write(b"BODY")
            file.close()
            written.set()

        async def main():
            global write, written
            write, written = asyncio.Event(), asyncio.Event()
            producing = asyncio.create_task(produce())
            queue = AsyncPendingQueue(directory, upload, settle=0.01, backoff=lambda n: 0.0)
            async with asyncio.timeout(60), queue:
                while not queue.stats.completed:
                    await asyncio.sleep(0.01)
            await producing

        file = (directory / "a.queued").open("wb", buffering=0)
        file.write(b"HEAD;")
        os.seteuid(65534)
        asyncio.run(main())
        os.seteuid(0)
        assert (directory / "a.completed").read_bytes() == sent[-1] == b"HEAD;BODY"
        assert sent == [b"HEAD;", b"HEAD;BODY"], sent
        folder.cleanup()
        """
    )
