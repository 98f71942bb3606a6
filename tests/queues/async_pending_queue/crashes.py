"""Deaths of AsyncPendingQueue's owner at each step, and by SIGKILL while it is busy.

`crash_everywhere` and `kill_at_random` fork, so they want a process of their own without
threads (tests.kit.process.run_python). A child runs the queue and ends in the middle of
it; the parent then looks at the directory and runs the queue again.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.queues.async_pending_queue.disk import (
    drop,
    drop_beside,
    files,
    hidden,
    part,
    unfinished,
    without_exclusive_rename,
)
from tests.queues.async_pending_queue.helpers import MEMORY
from tests.queues.async_pending_queue.watch import PlainWatch, started

if sys.platform != "win32":
    import fcntl

CRASHED = 77
# What the component does to names, and what makes data durable. Attempts are counted by
# `truncate`, both ways. Where the file system has no exclusive rename, it links and unlinks.
STEPS = {"rename", "replace", "unlink", "fsync", "truncate"}
EXCLUSIVE, LINKED = STEPS | {"rename_exclusively"}, STEPS | {"link"}


@contextlib.contextmanager
def dying_at(point: int, module: ModuleType, steps: set[str]) -> Iterator[list[str]]:
    """End the process at this point: odd ones come before a step, even ones after it.

    Gives the steps as they are done.
    """
    done: list[str] = []
    passed = 0
    owners = {step: part(module) if step == "rename_exclusively" else os for step in steps}
    before = {step: getattr(owner, step) for step, owner in owners.items()}

    def pass_point() -> None:
        nonlocal passed
        passed += 1
        if passed == point:
            os._exit(CRASHED)

    def dying(step: str) -> Callable[..., object]:
        def call(*args: Any, **options: Any) -> object:
            pass_point()
            result = before[step](*args, **options)
            done.append(step)
            pass_point()
            return result

        return call

    try:
        for step, owner in owners.items():
            setattr(owner, step, dying(step))
        yield done
    finally:
        for step, owner in owners.items():
            setattr(owner, step, before[step])


class Server:
    """Uploads what it is told to, and writes down what happens; its memory is a file.

    Contents that begin with "bad" always fail, those with "once" the first time. "hang" hangs
    in the first process. "twice" has a new file of its name dropped, and then fails.
    """

    def __init__(self, directory: Path, log: Path) -> None:
        self.directory, self.log = directory, log

    def note(self, what: str, content: str) -> None:
        file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(file, f"{what} {content}\n".encode())
        os.close(file)

    def count(self, what: str, content: str) -> int:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return lines.count(f"{what} {content}")

    async def upload(self, path: Path) -> None:
        content = path.read_text()
        first = not self.count("begin", content)
        self.note("begin", content)
        if content == "twice" and first:
            drop(self.directory, path.stem, b"newer")
            PlainWatch.last.announce(f"{path.stem}.queued")
        await asyncio.sleep(0)
        if content.startswith("bad") or (first and content in {"once", "twice"}):
            raise ConnectionError(content)
        if content == "hang" and not self.count("restart", ""):
            self.note("hangs", "")
            await asyncio.get_running_loop().create_future()
        self.note("end", content)


BEFORE = {
    "a.queued": "good",
    "b.queued": "once",
    "c.queued": "bad",
    "d.processing": "orphan",
    "e.queued": "twice",
    "f.queued": "again",
    "f.completed": "old",
    "g.queued": "hang",
    "h.processing": "bad orphan",
    "x\ny.queued": "odd",
}
AFTER = {
    "a.completed": "good",
    "b.completed": "once",
    "c.error": "bad",
    "d.completed": "orphan",
    "e.completed": "newer",
    "e-1.completed": "twice",
    "f.completed": "old",
    "f-1.completed": "again",
    "g.completed": "hang",
    "h.error": "bad orphan",
    "s.completed": "submitted",
    "x\ny.completed": "odd",
}
ATTEMPTS = 4  # enough for a failure and two crashes


def prepare(directory: Path) -> None:
    """What a dead owner and some producers have left."""
    for name, content in BEFORE.items():
        (directory / name).write_text(content)
    for name in ("d", "h"):
        (directory / f".{name}.attempts").write_bytes(b".")
    (directory / ".gone.attempts").write_bytes(b"..")
    (directory / f".pending-{'0' * 16}.tmp").write_bytes(b"half a f")


async def life(module: ModuleType, server: Server) -> None:
    """Submit, recover, upload, fail, try again, give up, stop with an upload under way."""
    queue = module.AsyncPendingQueue(
        server.directory,
        server.upload,
        max_concurrency=2,
        max_attempts=ATTEMPTS,
        backoff=lambda failures: 0.0,
    )
    with contextlib.suppress(FileExistsError):
        await queue.submit("s", b"submitted")
        server.note("submitted", "")
    running = await started(queue)
    turns = 0
    while not running.done():
        await asyncio.sleep(0)
        turns += 1
        left = unfinished(server.directory)
        if not left or (left == ["g.processing"] and not server.count("restart", "")):
            break
        assert turns < 5_000, f"these are left alone: {left}"
    await queue.stop(0)
    await running


def check_survivors(server: Server) -> None:
    """Nothing that was accepted is lost, and what was attempted is counted."""
    found: dict[str, set[int]] = {}
    for name in files(server.directory):
        path = server.directory / name
        content, info = path.read_text(), path.stat()
        found.setdefault(content, set()).add(info.st_ino)
        if name.endswith(".processing") and info.st_nlink == 1 and content != "hang":
            sidecar = server.directory / f".{path.stem}.attempts"
            counted = max(1, sidecar.stat().st_size if sidecar.exists() else 0)
            assert counted >= server.count("begin", content), f"{name} forgot attempts"
    expected = {*BEFORE.values()}
    if server.count("begin", "twice"):
        expected.add("newer")
    if server.count("submitted", ""):
        expected.add("submitted")
    assert expected <= set(found), f"lost {expected - set(found)}"
    strange = set(found) - expected - {"submitted"}
    assert not strange, f"nobody made {strange}"
    twice = [content for content, inodes in found.items() if len(inodes) > 1]
    assert not twice, f"one file became two: {twice}"


def check_end(server: Server) -> None:
    """Each file has come to its end, once, and nothing else is left."""
    found = {name: data.decode() for name, data in files(server.directory).items()}
    other = sorted(found.items() - AFTER.items())
    assert found == AFTER, f"ended otherwise: {other}"
    assert not hidden(server.directory), f"left behind: {hidden(server.directory)}"
    assert server.count("begin", "bad") <= ATTEMPTS, "more attempts than allowed"
    assert server.count("begin", "bad orphan") < ATTEMPTS, "an attempt before was forgotten"
    for name in ("c", "h"):
        assert (server.directory / f"{name}.error.json").is_file(), f"{name} says not why"


def forked(work: Callable[[], object]) -> int:
    """Do the work in a forked child; its exit code, or minus the signal that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def crash_everywhere(
    module: ModuleType, *, second: int, stride: int = 1, linked: bool = False
) -> None:
    """End the process at each point; at each `second` one die once more while recovering.

    A `stride` leaves out points: enough to meet a fault that there is at many of them. With
    `linked` the file system has no exclusive rename.
    """
    vars(module)["DirectoryWatch"] = PlainWatch
    wanted = LINKED if linked else EXCLUSIVE
    if linked:
        without_exclusive_rename(pytest.MonkeyPatch(), module)  # the process is its own
    logging.disable(logging.CRITICAL)
    point, survived, seen = 0, 0, set[str]()
    for point in itertools.count(1, stride):
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            server = Server(Path(folder, "queue"), Path(folder, "log"))
            server.directory.mkdir()
            prepare(server.directory)

            def live(point: int, server: Server = server) -> None:
                with dying_at(point, module, wanted) as steps:
                    asyncio.run(life(module, server))
                with server.log.with_name("steps").open("a") as file:
                    file.write(" ".join(steps) + "\n")

            points = [point]
            if not point % second:
                points.append(random.Random(point).randrange(1, 60))
            codes = []
            for each in points:
                codes.append(forked(lambda each=each: live(each)))  # type: ignore[misc]
                assert codes[-1] in {0, CRASHED}, f"point {point}: exit code {codes[-1]}"
                survived += codes[-1] == CRASHED
                try:
                    check_survivors(server)
                except AssertionError as error:
                    raise AssertionError(
                        f"dying at points {points[: len(codes)]}: {error}"
                    ) from None
                server.note("restart", "")
            assert forked(lambda: live(0)) == 0
            try:
                check_end(server)
            except AssertionError as error:
                raise AssertionError(f"dying at points {points}: {error}") from None
            seen |= set((Path(folder) / "steps").read_text().split())
        if codes[0] == 0:
            break
    assert seen == wanted, f"never seen: {wanted - seen}"
    print(f"{point - 1} points, {survived} deaths survived, {len(AFTER)} files each")


def kill_at_random(module: ModuleType, kills: int, seed: int = 0, user: int | None = None) -> None:
    """SIGKILL a busy owner again and again, while producers go on; then count what there is.

    With a `user` the owners run as that one, and the producers' files are of this process's.
    """
    logging.disable(logging.CRITICAL)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        directory, log = Path(folder, "queue"), Path(folder, "log")
        locks = Path(folder, "locks")
        for path in (Path(folder), directory, locks):
            path.mkdir(exist_ok=True)
            path.chmod(0o777)
        server = Server(directory, log)
        dropped: set[str] = set()
        done: set[str] = set()
        busy = 0

        def produce(count: int) -> None:
            for _ in range(count):
                content = f"content {len(dropped)}"
                # Some names come again and again, while the one before is on its way.
                name = chance.choice([f"again {chance.randrange(20)}", f"file {len(dropped)}"])
                try:
                    drop_beside(directory, name, content.encode())
                except FileExistsError:
                    drop_beside(directory, f"file {len(dropped)}", content.encode())
                dropped.add(content)

        def present() -> dict[str, str]:
            return {name: data.decode() for name, data in files(directory).items()}

        def collect() -> None:
            """Take note of what is completed, and clean up, as an operator would."""
            for name, content in present().items():
                if name.endswith(".completed"):
                    done.add(content)
                    (directory / name).unlink()

        def own(ready: int, number: int, end: bool) -> None:
            if user is not None:
                import concurrent.futures.thread  # noqa: F401 (it may not read them later)

                import watchdog.observers  # noqa: F401

                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            asyncio.run(_own(module, server, locks, ready, number, end=end))

        produce(100)
        for number in range(kills):
            produce(chance.randrange(30))
            receiving, sending = os.pipe()
            child = os.fork()
            if not child:
                own(sending, number, end=False)
                os._exit(1)
            os.close(sending)
            assert os.read(receiving, 1), "the owner ended before it uploaded anything"
            os.close(receiving)
            time.sleep(chance.random() * 0.02)
            produce(chance.randrange(5))
            os.kill(child, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
            found = present()
            busy += any(name.endswith(".processing") for name in found)
            lines = log.read_text().splitlines()
            submitted = {line[10:] for line in lines if line.startswith("submitted ")}
            missing = (dropped | submitted) - done - set(found.values())
            assert not missing, f"kill {number} lost {missing}"
            collect()
        assert forked(lambda: own(os.open(os.devnull, os.O_WRONLY), kills, True)) == 0
        collect()
        lines = log.read_text().splitlines()
        submitted = {line[10:] for line in lines if line.startswith("submitted ")}
        assert done >= dropped | submitted, f"lost {(dropped | submitted) - done}"
        assert not files(directory)
        assert not hidden(directory)
        assert not any(line.startswith("at once") for line in lines), "uploaded twice at once"
        if user is not None:
            owners = {line.rpartition(" ")[2] for line in lines if line.startswith("of user ")}
            assert owners == {str(os.getuid()), str(user)}, f"files of {owners}"
        ends = sum(line.startswith("end ") for line in lines)
        print(f"{kills} kills, {busy} while busy; {len(done)} files, {ends} uploads to the end")
        assert busy


async def _own(
    module: ModuleType, server: Server, locks: Path, ready: int, number: int, *, end: bool
) -> None:
    """Upload until the directory is empty (`end`) or for ever, and submit files meanwhile."""
    chance = random.Random(number)

    async def upload(path: Path) -> None:
        content = path.read_text()
        lock = os.open(locks / content, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                server.note("at once", content)
            server.note("begin", content)
            server.note("of user", str(path.stat().st_uid))
            os.write(ready, b".")
            await asyncio.sleep(chance.random() * 0.004)
            if chance.random() < 0.2:
                raise ConnectionError
            server.note("end", content)
        finally:
            os.close(lock)

    queue = module.AsyncPendingQueue(
        server.directory, upload, max_attempts=1_000_000, backoff=lambda failures: 0.001
    )
    async with queue:
        submitted = 0
        while not end:
            name = f"submitted {number} {submitted}"
            await queue.submit(name, name.encode())
            server.note("submitted", name)
            submitted += 1
        while unfinished(server.directory):
            await asyncio.sleep(0.01)
