"""AsyncPendingQueue: a directory has one owner, and no file is uploaded twice at once (PQ-2)."""

import errno
import math
import os
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from reference_impl.queues import async_pending_queue
from reference_impl.queues.async_pending_queue import AsyncPendingQueue
from tests.kit.fakes import turns, until
from tests.kit.process import run_python
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin, must_fail, patch
from tests.queues.async_pending_queue import faults
from tests.queues.async_pending_queue.disk import (
    Refusing,
    drop,
    files,
    without_exclusive_rename,
)
from tests.queues.async_pending_queue.helpers import owning, posix
from tests.queues.async_pending_queue.uploads import Pauses, Server, nothing
from tests.queues.async_pending_queue.watch import PlainWatch, on_plain_watch, started

pytestmark = pytest.mark.usefixtures("plain_watch")


@on_plain_watch
async def check_one_owner(m: ModuleType, directory: Path) -> None:
    """In the original a second process ended the `run` of the first."""
    async with m.AsyncPendingQueue(directory, nothing):
        second = m.AsyncPendingQueue(directory, nothing)
        running = await started(second)
        await second.stop()
        assert running.exception() is not None, "a second owner was let in"
        with pytest.raises(m.DirectoryInUse, match="stop that one, or use another"):
            await running
        with pytest.raises(m.DirectoryInUse):
            await m.AsyncPendingQueue(directory, nothing).__aenter__()
    async with m.AsyncPendingQueue(directory, nothing):
        pass


@on_plain_watch
async def check_half_moved(m: ModuleType, directory: Path) -> None:
    """A put-back by a link stays half done for long: its new name is found, and being uploaded."""
    server = Server(holds=True)
    drop(directory, "a.csv", b"old")
    queue = m.AsyncPendingQueue(directory, server.upload, backoff=Pauses(0.0))
    with pytest.MonkeyPatch.context() as patch:
        without_exclusive_rename(patch, m)
        async with owning(queue):
            await server.until(lambda: server.running)
            unlink = Refusing(
                patch,
                "unlink",
                times=math.inf,
                error=errno.EIO,
                when=lambda path: str(path).endswith(".processing"),
            )
            drop(directory, "a.csv", b"new")
            server.end("a.csv", ConnectionError("no route"))
            await until(lambda: queue.stats.errors)
            PlainWatch.last.announce("a.csv-1.queued")
            await server.until(lambda: "a.csv-1" in server.running)
            unlink.left = 0
            await server.until(lambda: "a.csv" in server.running)
            await turns()
            assert sorted(server.running) == ["a.csv", "a.csv-1"], (
                "one file is uploaded twice at once"
            )
            for name in ("a.csv", "a.csv-1"):
                server.end(name)
            await until(lambda: queue.stats.completed == 2)
        assert files(directory) == {"a.csv.completed": b"new", "a.csv-1.completed": b"old"}


def _has_no_lock(m: ModuleType) -> None:
    vars(m)["fcntl"] = faults.StandIn(m.fcntl, flock=lambda *arguments: None)


NO_LOCK = Twin("has no lock", patch(_has_no_lock), "AssertionError: a second owner was let in")
ONE_NAME = Twin(
    "takes a file of two names for two",
    faults.SEES_ONE_NAME,
    "AssertionError: one file is uploaded twice at once",
)
PROOFS = [Proof("PQ-2", check_one_owner, [NO_LOCK]), Proof("PQ-2", check_half_moved, [ONE_NAME])]

test_a_directory_has_one_owner_and_a_file_one_upload = holding(
    PROOFS, async_pending_queue, "directory"
)
test_two_at_once_are_caught = posix(failing(PROOFS, async_pending_queue, "directory"))


def lock_and_fork(directory: Path, module: str) -> str:
    """An owner forks a child and dies; the child lives on, and there is a next owner."""
    return f"""
        import asyncio, os, signal, sys, warnings
        from pathlib import Path
        from reference_impl.queues import async_pending_queue as ours
        from tests.kit.twins import build
        from tests.queues.async_pending_queue import faults
        module, directory = {module}, Path({str(directory)!r})

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


@posix
@pytest.mark.guarantee("PQ-2")
def test_the_lock_dies_with_its_owner_though_a_forked_child_lives(directory: Path) -> None:
    run_python(lock_and_fork(directory, "ours"))


INHERITED = Twin(
    "leaves its lock to forked children",
    faults.keeps_files_in_children(),
    "AssertionError: DirectoryInUse: ",
)


@posix
@pytest.mark.twin("PQ-2", fault=INHERITED.name, fails=INHERITED.ends)
def test_a_lock_that_a_forked_child_inherits_is_caught(directory: Path) -> None:
    code = lock_and_fork(directory, "build(ours, faults.keeps_files_in_children())")
    must_fail(INHERITED, partial(run_python, code))


@posix
def test_a_fork_does_not_release_the_owners_lock(directory: Path) -> None:
    run_python(
        f"""
        import asyncio, os, warnings
        from pathlib import Path
        from reference_impl.queues.async_pending_queue import AsyncPendingQueue, DirectoryInUse
        from tests.queues.async_pending_queue.uploads import nothing
        directory = Path({str(directory)!r})

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


@pytest.mark.guarantee("PQ-2")
async def test_an_upload_that_takes_an_hour_is_not_taken_for_a_dead_one(directory: Path) -> None:
    """By its file's times the original judged it stuck, and uploaded it again beside itself."""
    server = Server(holds=True)
    drop(directory, "a", b"1")
    os.utime(directory / "a.queued", (0, 0))
    async with AsyncPendingQueue(directory, server.upload) as queue:
        await server.until(lambda: server.running)
        for _ in range(3):
            PlainWatch.last.announce("a.queued")
            await turns()
        assert server.seen == ["a"]
        server.end("a")
        await until(lambda: queue.stats.completed)
    assert server.seen == ["a"]
