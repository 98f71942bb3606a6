"""AsyncPendingQueue.submit: whole files, on disk before they have their name, or none (PQ-1)."""

import asyncio
import errno
import functools
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reference_impl.queues import async_pending_queue
from reference_impl.queues.async_pending_queue import AsyncPendingQueue
from tests.kit.fakes import Gate, turns, until
from tests.kit.process import run_python
from tests.queues.async_pending_queue import inside
from tests.queues.async_pending_queue.disk import (
    STATES,
    around_moves,
    files,
    hidden,
    part,
    without_exclusive_rename,
)
from tests.queues.async_pending_queue.helpers import posix
from tests.queues.async_pending_queue.uploads import nothing

pytestmark = pytest.mark.usefixtures("plain_watch")


def when_written(patch: pytest.MonkeyPatch, step: Callable[[], object] = lambda: None) -> list[int]:
    """Do the step each time that data is on disk; gives a list that grows with each."""
    fsync, written = os.fsync, list[int]()

    def call(file: int) -> None:
        fsync(file)
        if stat.S_ISREG(os.fstat(file).st_mode):  # and no directory
            written.append(file)
            step()

    patch.setattr(os, "fsync", call)
    return written


@pytest.mark.guarantee("PQ-1")
@pytest.mark.parametrize("state", STATES)
async def test_submit_refuses_a_name_that_is_there(
    directory: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / f"a.{state}").write_bytes(b"old")
    written = when_written(monkeypatch)
    with pytest.raises(FileExistsError) as caught:
        await AsyncPendingQueue(directory, nothing).submit("a", b"new")
    assert not written  # it is refused before that
    assert caught.value.errno == errno.EEXIST
    assert caught.value.strerror == "there is such a file: submit under another name"
    assert caught.value.filename == str(directory / f"a.{state}")
    assert files(directory) == {f"a.{state}": b"old"}
    assert not hidden(directory)


@pytest.mark.guarantee("PQ-1")
@pytest.mark.parametrize("state", STATES)
async def test_submit_refuses_a_name_that_is_taken_while_it_writes(
    directory: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    when_written(monkeypatch, lambda: (directory / f"a.{state}").write_bytes(b"other"))
    with pytest.raises(FileExistsError):
        await AsyncPendingQueue(directory, nothing).submit("a", b"new")
    assert files(directory) == {f"a.{state}": b"other"}
    assert not hidden(directory)


@pytest.mark.guarantee("PQ-1")
async def test_of_submissions_of_one_name_one_succeeds(directory: Path) -> None:
    queue = AsyncPendingQueue(directory, nothing)
    results = await asyncio.gather(
        *(queue.submit("a", b"%d" % n) for n in range(20)), return_exceptions=True
    )
    assert sum(isinstance(result, Path) for result in results) == 1
    assert sum(isinstance(result, FileExistsError) for result in results) == 19
    assert not hidden(directory)


async def test_a_submission_survives_the_sweep_of_an_owner_that_starts(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sweep() -> None:
        if len(written) == 1:
            (directory / hidden(directory)[0]).unlink()

    written = when_written(monkeypatch, sweep)
    await AsyncPendingQueue(directory, nothing).submit("a", b"1")
    assert files(directory) == {"a.queued": b"1"}
    assert len(written) == 2


async def test_a_queue_that_starts_spares_its_own_submission(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_swept = Gate()
    written = when_written(monkeypatch, has_swept)
    queue = AsyncPendingQueue(directory, nothing)
    submission = asyncio.create_task(queue.submit("a", b"1"))
    try:
        await until(lambda: written)
        async with queue:
            has_swept.open()
            await submission
            await until(lambda: queue.stats.completed)
    finally:
        has_swept.open()
    assert len(written) == 1
    assert not inside.submissions(queue)


async def test_a_submission_may_be_claimed_before_its_owner_is_told_of_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def claim(_: Path, target: Path) -> None:
        target.rename(directory / "a.processing")

    around_moves(monkeypatch, async_pending_queue, after=claim)
    path = await AsyncPendingQueue(directory, nothing).submit("a", b"1")
    assert path == directory / "a.queued"
    assert files(directory) == {"a.processing": b"1"}


@pytest.mark.parametrize("linked", [False, True], ids=["renamed", "linked"])
async def test_submitted_data_is_on_disk_before_it_has_its_name(
    directory: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    steps: list[str] = []

    def recorded(step: str, call: Callable[..., object], *given: object, **options: bool) -> object:
        steps.append(step)
        return call(*given, **options)

    owners = {"fsync": os, "link": os, "rename_exclusively": part(async_pending_queue)}
    if linked:
        without_exclusive_rename(monkeypatch, async_pending_queue)
    for step, owner in owners.items():
        monkeypatch.setattr(owner, step, functools.partial(recorded, step, getattr(owner, step)))
    await AsyncPendingQueue(directory, nothing).submit("a", b"1")
    last = [] if sys.platform == "win32" else ["fsync"]  # of the directory
    assert steps == ["fsync", "rename_exclusively", *(["link"] if linked else []), *last]
    assert list(directory.iterdir()) == [directory / "a.queued"]


@pytest.mark.parametrize("fault", [None, OSError(errno.ENOSPC, "No space left on device")])
async def test_a_submission_cancelled_while_it_is_written_leaves_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError | None
) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(AsyncPendingQueue(directory, nothing).submit("a", b"1"))

    def be_cancelled() -> None:
        asyncio.run_coroutine_threadsafe(cancel(), loop).result()
        if fault is not None:
            raise fault

    async def cancel() -> None:
        task.cancel()
        await turns(3)
        task.cancel()

    when_written(monkeypatch, be_cancelled)
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.__cause__ is fault
    assert not list(directory.iterdir())


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


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("", ValueError, "no path, and not hidden, not ''"),
        (".hidden", ValueError, "not '.hidden'"),
        ("a/b", ValueError, "not 'a/b'"),
        ("a\0b", ValueError, "not 'a"),
        ("x" * 237, ValueError, "at most 236 bytes"),
        ("\N{SNOWMAN}" * 79, ValueError, "at most 236 bytes"),
        pytest.param(
            "\ud800", ValueError, r"^name must be .* can encode, not '\\ud800'$", marks=posix
        ),
        (b"a", TypeError, "name must be a str, not b'a'"),
        (None, TypeError, "name must be a str, not None"),
    ],
)
async def test_submit_refuses_what_cannot_be_a_name(
    directory: Path, name: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await AsyncPendingQueue(directory, nothing).submit(name, b"1")
    assert not list(directory.iterdir())


async def test_submit_takes_bytes_and_names_of_any_kind(directory: Path) -> None:
    queue = AsyncPendingQueue(directory, nothing)
    for data in ("text", bytearray(b"1"), None, memoryview(b"1")):
        kind = type(data).__name__
        with pytest.raises(TypeError, match=f"^data must be bytes, not {kind}$"):
            await queue.submit("a", data)  # type: ignore[arg-type]
    assert not list(directory.iterdir())
    for name in ("x" * 236, "new\nline", "a.queued", " "):
        path = await queue.submit(name, b"1")
        assert path.read_bytes() == b"1"
