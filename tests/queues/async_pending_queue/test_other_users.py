"""AsyncPendingQueue: other users' files (PQ-7), and names and locks that are others' (PQ-9)."""

import asyncio
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reference_impl.queues import async_pending_queue
from reference_impl.queues.async_pending_queue import AsyncPendingQueue
from tests.kit.fakes import turns, until
from tests.kit.process import run_python
from tests.kit.proofs import Proof, each_twin_of, failing, holding
from tests.kit.twins import Twin, must_fail, override, within
from tests.queues.async_pending_queue import faults
from tests.queues.async_pending_queue.disk import drop, files, hidden, part
from tests.queues.async_pending_queue.helpers import LOGGER, owning, posix
from tests.queues.async_pending_queue.uploads import Server, nothing
from tests.queues.async_pending_queue.watch import PlainWatch, on_plain_watch

pytestmark = pytest.mark.usefixtures("plain_watch")
NOBODY = 65534
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes files of two owners"
)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that all users may write to, and come to."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        directory = Path(folder, "queue")
        directory.mkdir()
        directory.chmod(0o777)
        yield directory


def protects_links() -> bool:
    setting = Path("/proc/sys/fs/protected_hardlinks")
    return setting.is_file() and setting.read_text().strip() != "0"


def other_users_files(directory: Path, module: str = "ours") -> str:
    """A service user handles files of root in a directory that all may write to."""
    return f"""
        import asyncio, logging, os
        from pathlib import Path
        import concurrent.futures.thread, watchdog.observers  # before it has no right to
        from reference_impl.queues import async_pending_queue as ours
        from tests.kit.twins import build
        from tests.queues.async_pending_queue import test_other_users as here
        from tests.queues.async_pending_queue.disk import drop, files, hidden
        module, directory = {module}, Path({str(directory)!r})
        logging.disable()
        begun = []

        async def upload(path):
            content = path.read_text()
            assert path.stat().st_uid == 0
            begun.append(content)
            if content in ("once", "twice") and begun.count(content) == 1:
                if content == "twice":
                    os.seteuid(0)
                    drop(directory, path.stem, b"newer")
                    os.seteuid({NOBODY})
                raise ConnectionError(content)
            if content == "bad":
                raise ConnectionError(content)

        async def main():
            queue = module.AsyncPendingQueue(
                directory, upload, max_attempts=2, backoff=lambda failures: 0.0
            )
            async with queue:
                async with asyncio.timeout(60):
                    while queue.stats.completed + queue.stats.given_up + queue.stats.errors < 6:
                        await asyncio.sleep(0.01)
                assert not queue.stats.errors, "it cannot move them"

        for name, content in dict(a="at once", b="once", c="bad", d="twice").items():
            drop(directory, name, content.encode())
        (directory / "e.processing").write_text("orphan")  # of an owner that has died
        os.seteuid({NOBODY})
        asyncio.run(main())
        os.seteuid(0)
        found = {{name: data.decode() for name, data in files(directory).items()}}
        assert found == {{
            "a.completed": "at once", "b.completed": "once", "c.error": "bad",
            "d.completed": "newer", "d-1.completed": "twice", "e.completed": "orphan",
        }}, f"ended otherwise: {{found}}"
        assert not hidden(directory)
        """


@as_root
@pytest.mark.guarantee("PQ-7")
def test_files_of_other_users_end_as_all_others_do(shared: Path) -> None:
    """With fs.protected_hardlinks nobody may link them; the first version left them for ever."""
    run_python(other_users_files(shared))


def links_only() -> Any:
    """It moves files by a link and an unlink alone, and looks at its own before it starts."""

    def make(_: Any) -> Any:
        def call(source: str, target: str) -> None:
            os.link(source, target)
            Path(source).unlink()

        return call

    return within(faults.PART, override("rename_exclusively", make))


LINKS = Twin("links what it puts back", links_only(), "AssertionError: it cannot move them")


@as_root
@pytest.mark.skipif(not protects_links(), reason="this kernel lets all users link all files")
@each_twin_of("PQ-7", LINKS)
def test_a_queue_that_links_other_users_files_is_caught(shared: Path, twin: Twin) -> None:
    code = other_users_files(shared, "build(ours, here.links_only())")
    must_fail(twin, lambda: run_python(code))


# Where it cannot be had.


def refused(directory: Path, body: str) -> str:
    """What a queue of nobody's says when it starts."""
    done = run_python(
        f"""
        import asyncio, errno, os
        from pathlib import Path
        import concurrent.futures.thread, watchdog.observers
        from reference_impl.queues import _spool, async_pending_queue
        from reference_impl.queues.async_pending_queue import AsyncPendingQueue
        directory = Path({str(directory)!r})

        async def upload(path):
            pass

        def cannot(source, target):
            raise OSError(errno.EINVAL, "Invalid argument")

        {body}
        os.seteuid({NOBODY})
        try:
            asyncio.run(AsyncPendingQueue(directory, upload).run())
        except OSError as error:
            os.seteuid(0)
            print(type(error).__name__, error)
        """
    )
    return done.stdout


@as_root
@pytest.mark.guarantee("PQ-7")
def test_a_sticky_directory_of_another_user_is_refused(shared: Path) -> None:
    """Nobody but root may rename other users' files in it."""
    said = refused(shared, "directory.chmod(0o1777)")
    assert said.startswith("PermissionError")
    assert "remove the sticky bit" in said
    assert "belongs to root" in said
    assert repr(str(shared)) in said


@as_root
@pytest.mark.skipif(not protects_links(), reason="this kernel lets all users link all files")
@pytest.mark.guarantee("PQ-7")
def test_a_file_system_that_can_only_link_is_refused_if_links_are_protected(
    shared: Path,
) -> None:
    said = refused(
        shared, "_spool.rename_exclusively = async_pending_queue.rename_exclusively = cannot"
    )
    assert said.startswith("PermissionError")
    assert "fs.protected_hardlinks forbids links" in said
    assert "use another one, or set that to 0" in said
    assert [path.name for path in shared.iterdir()] == [".pending-queue.lock"]


async def test_a_file_system_that_can_neither_rename_nor_link_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    for module in (async_pending_queue, part(async_pending_queue)):
        monkeypatch.setattr(module, "rename_exclusively", cannot)
    monkeypatch.setattr(os, "link", cannot)
    with pytest.raises(OSError, match="Operation not supported"):
        await AsyncPendingQueue(directory, nothing).run()
    assert not hidden(directory)


@as_root
@pytest.mark.guarantee("PQ-9")
def test_a_lock_file_of_another_user_is_named(shared: Path) -> None:
    """Run once as root, and then as the service."""
    said = refused(shared, "(directory / '.pending-queue.lock').touch(mode=0o600)")
    assert said.startswith("PermissionError")
    assert repr(str(shared / ".pending-queue.lock")) in said
    assert "belongs to root" in said
    assert "let this user read it, or remove it while no queue runs" in said


@as_root
@pytest.mark.guarantee("PQ-9")
def test_a_lock_file_that_may_be_read_is_enough(shared: Path) -> None:
    body = "(directory / '.pending-queue.lock').touch(mode=0o644)"
    run_python(
        f"""
        import asyncio, os
        from pathlib import Path
        import concurrent.futures.thread, watchdog.observers
        from reference_impl.queues.async_pending_queue import AsyncPendingQueue, DirectoryInUse
        directory = Path({str(shared)!r})

        async def upload(path):
            pass

        async def main():
            async with AsyncPendingQueue(directory, upload):
                try:
                    await AsyncPendingQueue(directory, upload).run()
                except DirectoryInUse:
                    return
                raise SystemExit("a second owner was let in")

        {body}
        os.seteuid({NOBODY})
        asyncio.run(main())
        """
    )


@as_root
@pytest.mark.guarantee("PQ-9")
def test_a_directory_of_another_user_is_named(shared: Path) -> None:
    said = refused(shared, "directory.chmod(0o755)")
    assert said.startswith("PermissionError")
    assert "must be writable for this user: it belongs to root" in said
    assert repr(str(shared)) in said


# Names that are not *.queued.


@on_plain_watch
async def check_ignored(m: ModuleType, directory: Path) -> None:
    """report.csv stays as it is, is counted once, and holds up nothing."""
    for name in ("report.csv", "b.csv", "queued", "own.completed", "own.error", "own.error.json"):
        (directory / name).write_bytes(b"1")
    drop(directory, "a", b"2")
    server = Server(holds=True)
    queue = m.AsyncPendingQueue(directory, server.upload, max_concurrency=1)
    async with owning(queue):
        await server.until(lambda: server.running)
        await turns()
        for name in ("late.txt", "report.csv", "gone.tmp"):
            if name == "late.txt":
                (directory / name).write_bytes(b"3")
            PlainWatch.last.announce(name)
        await turns()
        assert queue.stats.ignored == 4, "they are not counted"
        assert server.seen == ["a"], "these were uploaded"
        server.end("a")
        await until(lambda: queue.stats.completed)
    assert (directory / "report.csv").read_bytes() == b"1"


PROOFS = [
    Proof(
        "PQ-9",
        check_ignored,
        [
            Twin(
                "does not count them",
                override(
                    "AsyncPendingQueue.stats",
                    lambda stats: property(lambda queue: _uncounted(stats.fget(queue))),
                ),
                "AssertionError: they are not counted",
            ),
            Twin(
                "takes every name for a queued one",
                faults.given(directory=lambda path: _renamed(path)),
                ("AssertionError: these were uploaded", "AssertionError: they are not counted"),
            ),
        ],
    )
]


def _uncounted(stats: Any) -> Any:
    stats.ignored = 0
    return stats


def _renamed(directory: Path) -> Path:
    for path in directory.glob("*.csv"):
        path.rename(path.with_name(f"{path.name}.queued"))
    return directory


test_other_names_are_left_alone = holding(PROOFS, async_pending_queue, "directory")
test_a_queue_that_takes_other_names_is_caught = failing(PROOFS, async_pending_queue, "directory")


@pytest.mark.guarantee("PQ-9")
async def test_the_first_name_that_is_ignored_is_logged_with_a_remedy(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("report.csv", "zeta.csv"):
        (directory / name).write_bytes(b"1")
    for _ in range(2):  # once per run
        caplog.clear()
        async with AsyncPendingQueue(directory, nothing) as queue:
            await until(lambda: queue.stats.ignored == 2)
        (record,) = [record for record in caplog.records if record.name == LOGGER]
        assert record.levelname == "WARNING"
        assert repr(str(directory / "report.csv")) in record.getMessage()
        assert "rename it to 'report.csv.queued'" in record.getMessage()


@posix
async def test_a_switched_link_ends_the_queue_and_its_uploads_end_where_they_began(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch says so; the file is put back in the directory that it is in."""
    monkeypatch.undo()
    link, other = directory.with_name("link"), directory.with_name("other")
    link.symlink_to(directory)
    other.mkdir()
    drop(directory, "a", b"1")
    server = Server(holds=True)
    queue = AsyncPendingQueue(link, server.upload)
    running = asyncio.create_task(queue.run())
    await server.until(lambda: server.running)
    (fresh := directory.with_name("fresh")).symlink_to(other)
    fresh.replace(link)
    with pytest.raises(FileNotFoundError):
        await running
    assert files(directory) == {"a.queued": b"1"}
    assert not files(other)
