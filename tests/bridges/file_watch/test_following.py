"""FW-7: the path is followed, to another directory and, if so asked, over its absence."""

import asyncio
import errno
import os
import shutil
import subprocess
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from watchdog import events, version

from reference_impl.bridges import file_watch
from tests.bridges.file_watch.faults import deaf_to, made_with, shadowed
from tests.bridges.file_watch.helpers import age, linux
from tests.bridges.file_watch.spying import entered
from tests.bridges.file_watch.test_doubt import failing_call, takes_it_for_gone
from tests.kit.process import run_python
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Fault, Twin

pytestmark = linux


def linked(link: Path, target: Path) -> None:
    """Let the link name another target, in one step."""
    link.with_name(".new").symlink_to(target)
    link.with_name(".new").replace(link)


def two_directories(inbox: Path) -> tuple[Path, Path, Path]:
    """A link, what it names, and another directory; each with a file of one name and look."""
    one, other, link = (inbox.with_name(name) for name in ("one", "other", "link"))
    for each in (one, other):
        each.mkdir()
        (each / "file").touch()
        age(each / "file")
    link.symlink_to(one)
    return one, other, link


async def check_a_link_that_is_switched_ends_it(m: ModuleType, inbox: Path) -> None:
    _, other, link = two_directories(inbox)
    async with entered(m, link, rescan_interval=60.0) as spy:
        assert await spy.name() == "file"
        await spy.at_rest()
        linked(link, other)
        spy.set(60.0)
        with pytest.raises(FileNotFoundError, match="replaced: enter it again"):
            await spy.name()


async def check_a_link_that_is_switched_is_followed(m: ModuleType, inbox: Path) -> None:
    """As Kubernetes does with `..data`: the files look alike, and are others."""
    _, other, link = two_directories(inbox)
    async with entered(m, link, rescan_interval=60.0, missing="wait") as spy:
        assert await spy.name() == "file"
        await spy.at_rest()
        linked(link, other)
        spy.set(60.0)
        assert await spy.name() == "file"
        await spy.nothing_more()
        (other / "late").touch()
        assert await spy.name() == "late"


async def check_a_directory_that_returns_is_watched_again(m: ModuleType, inbox: Path) -> None:
    for recursive in (False, True):
        shutil.rmtree(inbox, ignore_errors=True)
        inbox.mkdir()
        (inbox / "file").touch()
        async with entered(m, inbox, recursive=recursive, missing="wait") as spy:
            for _ in range(3):
                assert await spy.name() == "file"
                shutil.rmtree(inbox)
                await spy.at(spy.clock.now + 1.0)
                inbox.mkdir()
                (inbox / "file").touch()
            assert await spy.name() == "file"
            await spy.caught_up()
            (inbox / "late").touch()
            assert await spy.name() == "late"


async def check_a_directory_may_be_made_after_entry(m: ModuleType, inbox: Path) -> None:
    """Also those above it, one by one; nothing is polled meanwhile."""
    path = inbox / "above" / "below"
    async with entered(m, path, missing="wait") as spy:
        waiting = asyncio.create_task(spy.name())
        await spy.at_rest()
        for each in (path.parent, path):
            each.mkdir()
            await spy.at_rest()
        (path / "file").touch()
        assert await waiting == "file"
        await spy.caught_up()


async def check_a_link_may_be_made_after_entry(m: ModuleType, inbox: Path) -> None:
    one, _, link = two_directories(inbox)
    link.unlink()
    async with entered(m, link, missing="wait") as spy:
        await spy.at_rest()
        link.symlink_to(one)
        assert await spy.name() == "file"


async def check_a_moment_s_doubt_is_no_end(m: ModuleType, inbox: Path) -> None:
    (inbox / "file").touch()
    age(inbox / "file")
    for missing in ("raise", "wait"):
        async with entered(m, inbox, rescan_interval=60.0, missing=missing) as spy:
            assert await spy.name() == "file"
            await spy.at_rest()
            for number, error in enumerate((errno.EIO, errno.EACCES, errno.ESTALE), 1):
                with failing_call("stat", error, inbox.name):
                    await spy.at(60.0 * number)
                await spy.at(60.0 * number + 30.0)
                await spy.nothing_more()


def looks_once() -> Fault:
    """What a path names it looks up only once."""
    known: dict[str, os.stat_result] = {}

    def stat(path: Any) -> os.stat_result:
        if path not in known:
            known[path] = os.stat(path)  # noqa: PTH116
        return known[path]

    return shadowed("os", stat=stat)


NO_DIRECTORIES = deaf_to(events.DirCreatedEvent, events.DirMovedEvent)
FOLLOWING = [
    Proof(
        "FW-7",
        check_a_link_that_is_switched_ends_it,
        [Twin("looks up its path only once", looks_once(), "Failed: replaced: enter it again")],
    ),
    Proof(
        "FW-7",
        check_a_link_that_is_switched_is_followed,
        [
            Twin("looks up its path only once", looks_once(), "hang"),
            Twin("does not follow", made_with(missing="raise"), "FileNotFoundError"),
        ],
    ),
    Proof(
        "FW-7",
        check_a_directory_that_returns_is_watched_again,
        [Twin("does not hear that it is back", NO_DIRECTORIES, "hang")],
    ),
    Proof(
        "FW-7",
        check_a_directory_may_be_made_after_entry,
        [
            Twin("does not hear of it", NO_DIRECTORIES, "hang"),
            Twin("does not wait", made_with(missing="raise"), "FileNotFoundError"),
        ],
    ),
    Proof(
        "FW-7",
        check_a_link_may_be_made_after_entry,
        [Twin("does not hear of links", deaf_to(events.FileCreatedEvent), "hang")],
    ),
    Proof(
        "FW-7",
        check_a_moment_s_doubt_is_no_end,
        [
            Twin(
                "takes for gone what it cannot look at",
                takes_it_for_gone("stat"),
                "hang",  # since its keeper ends, and is never at rest
            )
        ],
    ),
]

test_the_path_is_followed = holding(FOLLOWING, file_watch, "inbox")
test_who_stays_behind_is_noticed = failing(FOLLOWING, file_watch, "inbox")


# What comes in between.


@pytest.mark.guarantee("FW-7")
def test_a_directory_that_appears_just_before_the_observer_is_found(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = inbox / "above" / "below"
    original: Any = vars(file_watch)["Observer"]
    made: list[None] = []

    class Late(original):  # type: ignore[misc]
        def start(self) -> None:
            if not made:
                made.append(None)
                path.mkdir(parents=True)
                (path / "file").touch()
            super().start()

    async def main() -> None:
        async with entered(file_watch, path, missing="wait") as spy:
            assert await spy.name() == "file"

    monkeypatch.setattr(file_watch, "Observer", Late)
    asyncio.run(main())


@pytest.mark.guarantee("FW-7")
def test_a_directory_that_goes_just_before_the_observer_is_waited_for(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Any = vars(file_watch)["Observer"]
    gone: list[None] = []

    class Late(original):  # type: ignore[misc]
        def start(self) -> None:
            if not gone:
                gone.append(None)
                inbox.rmdir()
            super().start()

    async def main() -> None:
        async with entered(file_watch, inbox, missing="wait") as spy:
            await spy.at_rest()
            inbox.mkdir()
            (inbox / "file").touch()
            assert await spy.name() == "file"
        gone.clear()
        (inbox / "file").unlink()
        with pytest.raises(FileNotFoundError, match="enter it again"):
            async with entered(file_watch, inbox):
                pytest.fail("entered")

    monkeypatch.setattr(file_watch, "Observer", Late)
    asyncio.run(main())


@pytest.mark.guarantee("FW-7")
def test_a_file_where_the_directory_should_be_is_waited_out(inbox: Path) -> None:
    async def main() -> None:
        path = inbox / "later"
        path.touch()
        async with entered(file_watch, path, missing="wait", rescan_interval=60.0) as spy:
            await spy.at_rest()
            path.unlink()
            path.mkdir()
            (path / "file").touch()
            assert await spy.name() == "file"

    asyncio.run(main())


@pytest.mark.guarantee("FW-7")
def test_a_change_of_the_working_directory_changes_nothing(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.chdir(inbox.parent)
        async with file_watch.DirectoryWatch("inbox", rescan_interval=0.01) as watch:
            (inbox.parent / "elsewhere").mkdir()
            monkeypatch.chdir(inbox.parent / "elsewhere")
            (inbox / "late").touch()
            assert await anext(watch) == Path("inbox", "late")
            os.link(inbox / "late", inbox / "link")  # found by a rescan
            while await anext(watch) != Path("inbox", "link"):
                pass

    asyncio.run(main())


@pytest.mark.guarantee("FW-7")
def test_leaving_while_the_directory_is_missing_leaves_nothing(inbox: Path) -> None:
    async def main() -> None:
        before = set(threading.enumerate())
        for _ in range(2):
            watch = file_watch.DirectoryWatch(inbox / "missing", missing="wait")
            async with watch:
                waiting = asyncio.ensure_future(anext(watch))
                await asyncio.sleep(0)
            with pytest.raises(StopAsyncIteration):
                await waiting
        assert set(threading.enumerate()) == before

    asyncio.run(main())


# Mounts, in a namespace of our own.

MOUNTS = """
    import asyncio, subprocess, sys, tempfile
    from pathlib import Path
    from reference_impl.bridges.file_watch import DirectoryWatch

    inbox = Path(tempfile.mkdtemp()) / "inbox"
    inbox.mkdir()
    (inbox / "under").touch()

    def mount(*words):
        subprocess.run(["mount", *words], check=True)

    def umount():
        subprocess.run(["umount", "-l", str(inbox)], check=True)  # a scan may be under way

    async def until(watch, name):
        async with asyncio.timeout(60):
            while (await anext(watch)).name != name:
                pass

    async def raises():
        async with DirectoryWatch(inbox, rescan_interval=0.05) as watch:
            await until(watch, "under")
            mount("-t", "tmpfs", "none", str(inbox))
            (inbox / "over").touch()
            try:
                await until(watch, "never")
            except FileNotFoundError as error:
                assert "enter it again" in str(error)
            else:
                raise AssertionError
        async with DirectoryWatch(inbox, rescan_interval=0.05) as watch:
            await until(watch, "over")
            umount()
            try:
                await until(watch, "never")
            except FileNotFoundError:
                print("both ends")

    async def follows():
        async with DirectoryWatch(inbox, rescan_interval=0.05, missing="wait") as watch:
            await until(watch, "under")
            other = inbox.with_name("other")
            other.mkdir()
            (other / "bound").touch()
            mount("--bind", str(other), str(inbox))
            await until(watch, "bound")
            umount()
            await until(watch, "under")
            print("there and back")

    asyncio.run(raises())
    asyncio.run(follows())
"""


@pytest.mark.guarantee("FW-7")
def test_mounts_are_followed() -> None:
    program = shutil.which("unshare")
    words = [str(program), "-m"] if os.geteuid() == 0 else [str(program), "-Urm"]
    if program is None or subprocess.run([*words, "true"], check=False).returncode:
        pytest.skip("no namespace may be made here")
    code = (
        "import os, subprocess, sys\n"
        f"words = {words!r}\n"
        f"code = {MOUNTS!r}\n"
        "import textwrap\n"
        "done = subprocess.run([*words, sys.executable, '-c', textwrap.dedent(code)],"
        " capture_output=True, text=True)\n"
        "print(done.stdout, done.stderr)\n"
        "sys.exit(done.returncode)\n"
    )
    done = run_python(code)
    assert "both ends" in done.stdout
    assert "there and back" in done.stdout


# An old watchdog.


@pytest.mark.guarantee("FW-5")
def test_a_watchdog_that_is_too_old_is_refused_with_what_to_do(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        before = set(threading.enumerate())
        watch = file_watch.DirectoryWatch(inbox)
        with monkeypatch.context() as patch:
            patch.setattr(version, "VERSION_MAJOR", 6)
            patch.setattr(version, "VERSION_STRING", "6.0.0")
            message = r"needs watchdog 7 or later, and found 6\.0\.0: run pip install 'watchdog>=7'"
            with pytest.raises(RuntimeError, match=message):
                await watch.__aenter__()
        assert set(threading.enumerate()) == before
        async with watch:
            (inbox / "file").touch()
            assert (await anext(watch)).name == "file"

    asyncio.run(main())
