"""FW-6: what cannot be examined is neither given nor forgotten; files of other users."""

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from reference_impl.bridges import file_watch
from tests.bridges.file_watch.faults import made_with, sees_files, shadowed
from tests.bridges.file_watch.helpers import age, linux, logged
from tests.bridges.file_watch.spying import entered, quiet
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Fault, Twin

pytestmark = linux
NOBODY = 65534


@contextlib.contextmanager
def failing_call(name: str, error: int, path: str) -> Iterator[None]:
    """A function of os fails within the block, for paths that end so."""
    real: Any = getattr(os, name)

    def fails(given: Any, *arguments: Any, **options: Any) -> Any:
        if os.fsdecode(given).rstrip(os.sep).endswith(path):
            raise OSError(error, os.strerror(error), given)
        return real(given, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, fails)
        yield


def takes_it_for_gone(*names: str) -> Fault:
    """Each failure of these functions of os is that of a file which is not there."""

    def make(name: str) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            try:
                return getattr(os, name)(path, *arguments, **options)
            except OSError as error:
                raise FileNotFoundError(errno.ENOENT, "gone", path) from error

        return call

    return shadowed("os", **{name: make(name) for name in names})


# The system cannot tell for a moment.


async def check_a_file_that_cannot_be_looked_at_is_not_forgotten(
    m: ModuleType, inbox: Path
) -> None:
    (inbox / "known").write_text("x")
    age(inbox / "known")
    for error in (errno.EIO, errno.EACCES, errno.ENOMEM):
        async with entered(m, inbox, rescan_interval=60.0) as spy:
            assert await spy.name() == "known"
            await spy.at_rest()
            with failing_call("lstat", error, "known"):
                await spy.at(60.0)
                await spy.at(60.5)
                await spy.nothing_more()
            await spy.at(61.5)
            await spy.nothing_more()
            await spy.at(120.0)
            await spy.nothing_more()


async def check_a_file_that_cannot_be_looked_at_is_given_soon_after(
    m: ModuleType, inbox: Path
) -> None:
    """No rescan is needed for it, and the wait between the attempts grows."""
    async with quiet(m, inbox) as spy:
        with failing_call("lstat", errno.EIO, "file"):
            (inbox / "file").write_text("x")
            await spy.nothing_more()
            await spy.at(0.5)
            await spy.nothing_more()
        await spy.at(1.25)
        await spy.nothing_more()
        spy.set(1.5)
        assert await spy.name() == "file"
        await spy.nothing_more()


async def check_a_directory_that_cannot_be_listed_is_not_forgotten(
    m: ModuleType, inbox: Path
) -> None:
    (inbox / "deep").mkdir()
    for path in (inbox / "deep" / "below", inbox / "above"):
        path.write_text("x")
        age(path)
    for broken in ("deep", "inbox"):
        async with entered(m, inbox, recursive=True, rescan_interval=60.0) as spy:
            assert set(await spy.names(2)) == {"deep/below", "above"}
            await spy.at_rest()
            with (
                failing_call("scandir", errno.EIO, broken),
                failing_call("lstat", errno.EIO, "below"),
            ):
                await spy.at(60.0)
            await spy.at(60.5)
            await spy.at(120.0)
            await spy.nothing_more()


async def check_who_cannot_ask_whether_a_file_is_open_does_not_give_it(
    m: ModuleType, inbox: Path
) -> None:
    """With no descriptor left, an open file cannot be told from one that was closed."""
    with (inbox / "report").open("w") as report:
        report.write("HEAD;")
        report.flush()
        with contextlib.ExitStack() as broken:
            broken.enter_context(failing_call("open", errno.EMFILE, "report"))
            async with quiet(m, inbox) as spy:
                for now in (0.5, 1.5, 3.5):
                    await spy.at(now)
                    await spy.nothing_more()
                await spy.at(7.25)  # the wait between the attempts grows
                broken.close()
                await spy.at(7.5)
                await spy.nothing_more()  # now it is seen to be open
                report.write("BODY")
                report.close()
                assert await spy.name() == "report"
                await spy.nothing_more()


def opens_another() -> Fault:
    """What cannot be opened counts as a file that nobody writes to."""

    def opened(path: Any, *arguments: Any) -> int:
        try:
            return os.open(path, *arguments)
        except OSError:
            return os.open(os.devnull, os.O_RDONLY)

    return shadowed("os", open=opened) + shadowed("fcntl", fcntl=lambda *_: 0)


IN_DOUBT = [
    Proof(
        "FW-6",
        check_a_file_that_cannot_be_looked_at_is_not_forgotten,
        [
            Twin(
                "takes for gone what it cannot look at",
                takes_it_for_gone("lstat"),
                "AssertionError: == sentinel",
            )
        ],
    ),
    Proof(
        "FW-6",
        check_a_file_that_cannot_be_looked_at_is_given_soon_after,
        [Twin("passes over what it cannot look at", takes_it_for_gone("lstat"), "hang")],
    ),
    Proof(
        "FW-6",
        check_a_directory_that_cannot_be_listed_is_not_forgotten,
        [
            Twin(
                "takes for gone what it cannot list",
                takes_it_for_gone("scandir", "lstat"),
                "AssertionError: == sentinel",
            )
        ],
    ),
    Proof(
        "FW-6",
        check_who_cannot_ask_whether_a_file_is_open_does_not_give_it,
        [
            Twin(
                "takes what it cannot open for closed",
                opens_another(),
                ("AssertionError: == early", "AssertionError: == sentinel"),
            )
        ],
    ),
]

test_doubt_gives_and_forgets_nothing = holding(IN_DOUBT, file_watch, "inbox")
test_hasty_conclusions_are_noticed = failing(IN_DOUBT, file_watch, "inbox")


@pytest.mark.guarantee("FW-6")
def test_with_no_descriptor_left_nothing_is_lost(inbox: Path) -> None:
    async def main() -> None:
        (inbox / "known").touch()
        age(inbox / "known")
        original = inbox.with_name("original")
        original.touch()
        async with entered(file_watch, inbox, rescan_interval=60.0) as spy:
            assert await spy.name() == "known"
            await spy.at_rest()
            os.link(original, inbox / "link")  # which needs no descriptor
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
            try:
                await spy.at(60.0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            spy.set(60.5)
            assert await spy.name() == "link"
            await spy.nothing_more()

    asyncio.run(main())


@pytest.mark.guarantee("FW-6")
def test_a_folder_that_cannot_be_read_is_logged_once_until_it_could_be(
    inbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        (inbox / "deep").mkdir()
        (inbox / "deep" / "file").touch()
        async with entered(file_watch, inbox, recursive=True, rescan_interval=60.0) as spy:
            assert await spy.name() == "deep/file"
            await spy.at_rest()
            now, messages = 0.0, []
            for _ in range(2):
                with failing_call("scandir", errno.EACCES, "deep"):
                    for _ in range(3):
                        now += 60.0
                        await spy.at(now)
                now += 60.0
                await spy.at(now)
                messages.append(logged(caplog))
                caplog.clear()
            assert [len(each) for each in messages] == [1, 1]
            assert f"'{spy.root}/deep/'" in messages[0][0]

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert not any(record.exc_info for record in caplog.records)


# Files of another user, whose writers cannot be seen.


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory in which everybody may write; the test is nobody, and its files are root's."""
    if os.geteuid() != 0:
        pytest.skip("only root can make files of two owners")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    inbox = folder / "inbox"
    inbox.mkdir(mode=0o777)
    inbox.chmod(0o777)
    yield inbox
    shutil.rmtree(folder)


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Within the block the process is another user, without privileges."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def written_by_root(path: Path) -> Any:
    """A file of root's that is open for writing, unbuffered."""
    file = path.open("wb", 0)
    path.chmod(0o644)
    return file


async def check_a_file_of_another_user_is_given_once_unchanged(m: ModuleType, shared: Path) -> None:
    """A producer that writes slowly: its pauses are shorter than the quiet period."""
    for settle, quiet_for in ((0.0, 0.5), (2.0, 2.0)):
        name = f"report-{settle}"
        with written_by_root(shared / name) as report, nobody():
            report.write(b"HEAD;")
            async with entered(m, shared, settle=settle) as spy:
                spy.settles = True
                await spy.at_rest()
                await spy.nothing_more()
                for pause in range(1, 4):
                    report.write(b"more;")
                    await spy.at(pause * quiet_for)
                    await spy.nothing_more()
                spy.set(4 * quiet_for)
                assert await spy.name() == name
        (shared / name).unlink()


async def check_a_closed_file_of_another_user_may_still_be_open(
    m: ModuleType, shared: Path
) -> None:
    with written_by_root(shared / ".other") as other, nobody():
        async with quiet(m, shared) as spy:
            os.seteuid(0)
            (shared / ".other").rename(shared / "report")
            assert await spy.name() == "report"  # moved in: it is whole, they say
            with (shared / "report").open("ab", 0) as first:
                os.seteuid(NOBODY)
                first.write(b"one")
            await spy.nothing_more()
            await spy.at_rest()
            other.write(b"another")
            await spy.at(0.5)
            await spy.nothing_more()
            spy.set(1.0)
            assert await spy.name() == "report"


async def check_a_directory_that_may_not_be_read_for_a_moment(m: ModuleType, shared: Path) -> None:
    (shared / "known").touch()
    age(shared / "known")
    for path in (shared, shared / "known"):
        os.chown(path, NOBODY, NOBODY)
    with nobody():
        async with entered(m, shared, rescan_interval=60.0) as spy:
            assert await spy.name() == "known"
            await spy.at_rest()
            shared.chmod(0)
            await spy.at(60.0)
            shared.chmod(0o777)
            await spy.at(120.0)
            await spy.nothing_more()


OTHERS = [
    Proof(
        "FW-6",
        check_a_file_of_another_user_is_given_once_unchanged,
        [
            Twin(
                "takes a file whose writers it cannot see for whole",
                shadowed("fcntl", fcntl=lambda *_: 0) + made_with(settle=0.0),
                "AssertionError: == sentinel",
            )
        ],
    ),
    Proof(
        "FW-6",
        check_a_closed_file_of_another_user_may_still_be_open,
        [
            Twin(
                "takes each file for its own",
                shadowed("os", geteuid=lambda: 0),
                "AssertionError: == sentinel",
            )
        ],
    ),
    Proof(
        "FW-6",
        check_a_directory_that_may_not_be_read_for_a_moment,
        [
            Twin(
                "takes for gone what it may not read",
                takes_it_for_gone("scandir", "lstat"),
                "AssertionError: == sentinel",
            )
        ],
    ),
]

test_other_users_files_are_whole = holding(OTHERS, file_watch, "shared")
test_other_users_half_files_are_noticed = failing(OTHERS, file_watch, "shared")


# What tells a file from another one.

serial = itertools.count(1)


async def check_a_file_settles_although_its_inode_drifts(m: ModuleType, inbox: Path) -> None:
    (inbox / "file").touch()
    age(inbox / "file")
    real = os.lstat

    def drifting(path: Any, **options: Any) -> Any:
        found = real(path, **options)
        names = ("st_dev", "st_mtime_ns", "st_size", "st_mode", "st_uid")
        return SimpleNamespace(
            st_ino=next(serial), **{each: getattr(found, each) for each in names}
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "lstat", drifting)
        async with entered(m, inbox, settle=5.0) as spy:
            await spy.at_rest()
            spy.set(5.0)
            assert await spy.name() == "file"


async def check_a_time_that_was_set_back_is_no_news(m: ModuleType, inbox: Path) -> None:
    """As cp -p and rsync -t do with the copy, when they have closed it."""
    async with quiet(m, inbox, rescan_interval=60.0) as spy:
        (inbox / "copy").write_text("x")
        assert await spy.name() == "copy"
        age(inbox / "copy")
        for now in (60.0, 120.0):
            await spy.at(now)
            await spy.nothing_more()
        (inbox / "copy").write_text("y")
        assert await spy.name() == "copy"


LOOKS = [
    Proof(
        "FW-1",
        check_a_file_settles_although_its_inode_drifts,
        [Twin("sees a change each time", sees_files(lambda _: {"st_size": next(serial)}), "hang")],
    ),
    Proof(
        "FW-2",
        check_a_time_that_was_set_back_is_no_news,
        [
            Twin(
                "takes each other time for news",
                sees_files(lambda _: {"st_mtime_ns": next(serial)}),
                "AssertionError: == sentinel",
            )
        ],
    ),
]

test_what_tells_files_apart = holding(LOOKS, file_watch, "inbox")
test_files_that_are_mixed_up_are_noticed = failing(LOOKS, file_watch, "inbox")
