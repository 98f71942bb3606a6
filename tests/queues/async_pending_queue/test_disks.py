"""AsyncPendingQueue on disks that are full, and beside calls that fail for a moment (PQ-6)."""

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from reference_impl.queues import async_pending_queue
from reference_impl.queues.async_pending_queue import AsyncPendingQueue
from tests.kit import ROOT
from tests.kit.fakes import until
from tests.queues.async_pending_queue.disk import Refusing, drop, files, hidden, part
from tests.queues.async_pending_queue.helpers import owning, quiet
from tests.queues.async_pending_queue.watch import PlainWatch

FULL = """
import asyncio, contextlib, errno, itertools, logging, sys
from pathlib import Path
from reference_impl.queues.async_pending_queue import AsyncPendingQueue
directory, lacks = Path(sys.argv[1]), sys.argv[2]
logging.disable()
begun, fillers = [], []

def fill():
    with contextlib.suppress(OSError):
        for number in itertools.count():
            fillers.append(directory / f".filler{number}")
            with fillers[-1].open("wb") as file:
                while lacks == "room":
                    file.write(bytes(4096))
                    file.flush()

def empty():
    while fillers:
        fillers.pop().unlink(missing_ok=True)

async def upload(path):
    begun.append(path.stem)
    if path.stem == "bad" or begun.count(path.stem) == 1:
        raise ConnectionError("no route")

async def main():
    for name in ("bad", "good"):
        (directory / f"{name}.queued").write_bytes(b"1")
    queue = AsyncPendingQueue(directory, upload, max_attempts=3, backoff=lambda n: 0.001)
    async with asyncio.timeout(60), queue:
        fill()
        while len(begun) < 4 and not queue.stats.errors:
            await asyncio.sleep(0.001)
        try:
            await queue.submit("more", bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
        else:
            raise SystemExit("there was room")
        while not queue.stats.errors:
            await asyncio.sleep(0.001)
        empty()
        while queue.stats.completed + queue.stats.given_up < 2:
            await asyncio.sleep(0.001)
        await queue.submit("after", b"1")
        while queue.stats.completed < 2:
            await asyncio.sleep(0.001)
    names = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    assert names == ["after.completed", "bad.error", "bad.error.json", "good.completed"], names
    assert [p.name for p in directory.iterdir() if p.name[0] == "."] == [".pending-queue.lock"]

asyncio.run(main())
"""


def may_mount() -> bool:
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    done = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    return done.returncode == 0


@pytest.mark.guarantee("PQ-6")
@pytest.mark.parametrize(("lacks", "options"), [("room", "size=64k"), ("inodes", "nr_inodes=16")])
def test_a_disk_that_is_full_for_a_while_loses_nothing(
    tmp_path: Path, lacks: str, options: str
) -> None:
    if not may_mount():
        pytest.skip("this user may not mount a small file system in a namespace of its own")
    script = tmp_path / "full.py"
    script.write_text(textwrap.dedent(FULL))
    directory = tmp_path / "queue"
    directory.mkdir()
    mount = f'mount -t tmpfs -o {options} none "$1" && exec "$3" -W error "$2" "$1" "$4"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh", directory, script, sys.executable, lacks]
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


CALLS = ["rename", "rename_exclusively", "lstat", "truncate", "replace"]


@pytest.mark.guarantee("PQ-6")
@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES, errno.EIO, errno.ENOSPC])
async def test_calls_that_fail_for_a_moment_lose_nothing(
    directory: Path, plain_watch: None, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call in turn, for two times, while files fail, succeed and are given up."""
    begun: list[str] = []
    refusing: dict[str, Refusing] = {}

    async def upload(path: Path) -> None:
        begun.append(path.stem)
        if path.stem == "bad" or begun.count(path.stem) == 1:
            raise ConnectionError("no route")

    def of_a_file(path: Any, *_: object) -> bool:
        return Path(path).suffix in {".processing", ".queued", ".attempts", ".tmp"}

    queue = AsyncPendingQueue(directory, upload, max_attempts=9, backoff=lambda n: 0.0)
    with quiet():
        async with owning(queue):
            for name in CALLS:
                owner = part(async_pending_queue) if name == "rename_exclusively" else os
                refusing[name] = Refusing(
                    monkeypatch, name, times=2, error=code, owner=owner, when=of_a_file
                )
            for name in ("bad", "good"):
                drop(directory, name, b"1")
                PlainWatch.last.announce(f"{name}.queued")
            await until(lambda: queue.stats.completed and queue.stats.given_up)
    assert {name: each.left for name, each in refusing.items()} == dict.fromkeys(CALLS, 0)
    assert files(directory) == {"bad.error": b"1", "good.completed": b"1"}
    assert queue.stats.errors
    assert not hidden(directory)
