"""Use and misuse of DirectoryWatch: arguments, paths, loops, processes, systems without inotify."""

import asyncio
import copy
import math
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers.polling import PollingObserver

from reference_impl.bridges import file_watch
from reference_impl.bridges.file_watch import DirectoryWatch
from tests.bridges.file_watch import inside
from tests.bridges.file_watch.helpers import linux, posix
from tests.bridges.file_watch.spying import Spy, entered, spying
from tests.kit.fakes import PATIENCE, until
from tests.kit.process import run_python

pytestmark = posix

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"path": 7}, TypeError, "path must be a str or a path, not 7"),
    ({"path": b"x"}, TypeError, "path must be a str or a path, not b'x'"),
    ({"patterns": "*.csv"}, TypeError, r"such as \['\*.csv'\], not '\*.csv'"),
    ({"patterns": 7}, TypeError, "patterns must be strings, .* not 7"),
    ({"patterns": ["*", None]}, TypeError, "patterns must be strings, .* not .*None"),
    ({"patterns": []}, ValueError, "patterns must match visible names, .* not ''"),
    ({"patterns": [""]}, ValueError, "patterns must match visible names, .* not ''"),
    ({"patterns": [".*"]}, ValueError, "patterns must match visible names"),
    ({"patterns": ["a/*.csv"]}, ValueError, "patterns must match .* not 'a/"),
    ({"recursive": 1}, TypeError, "recursive must be True or False, not 1"),
    ({"settle": -1.0}, ValueError, "settle must be at least 0 seconds, not -1.0"),
    ({"settle": math.nan}, ValueError, "settle must be at least 0 seconds, not nan"),
    ({"settle": None}, TypeError, "settle must be a number of seconds, not None"),
    ({"settle": True}, TypeError, "settle must be a number of seconds, not True"),
    ({"rescan_interval": 0}, ValueError, "rescan_interval must be above 0 seconds, not 0"),
    ({"rescan_interval": -5}, ValueError, "rescan_interval must be above 0 seconds, not -5"),
    ({"settle": -(10**400)}, ValueError, "settle must be at least 0 seconds, not -1"),
    ({"rescan_interval": math.nan}, ValueError, "rescan_interval must be above 0 seconds, not nan"),
    ({"rescan_interval": True}, TypeError, "rescan_interval must be a number"),
    ({"rescan_interval": "1"}, TypeError, "rescan_interval must be a number"),
    ({"clock": 1.0}, TypeError, "clock must be a function .* not 1.0"),
]


def test_bad_arguments_are_refused(inbox: Path) -> None:
    for options, error, message in BAD:
        arguments: dict[str, Any] = {"path": inbox} | options
        with pytest.raises(error, match=message):
            DirectoryWatch(**arguments)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_watch_is_not_copied(inbox: Path, copied: Callable[[Any], Any]) -> None:
    refusal = "^DirectoryWatch cannot be copied or pickled: make another one$"
    with pytest.raises(TypeError, match=refusal):
        copied(DirectoryWatch(inbox))


def test_any_number_of_seconds_will_do(inbox: Path) -> None:
    async def main() -> None:
        DirectoryWatch(inbox, rescan_interval=math.ulp(0.0))
        for seconds in (math.inf, 10**400, 1e-9):
            options = {"settle": seconds, "rescan_interval": seconds}
            async with entered(file_watch, inbox, **options) as spy:
                await spy.nothing_more()

    asyncio.run(main())


def test_paths_begin_with_the_directory_as_it_was_passed(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        (inbox / "there").touch()
        (inbox.parent / "link").symlink_to(inbox)
        monkeypatch.chdir(inbox.parent)
        for given in ("inbox", Path("link"), "inbox/../link/", inbox):
            async with DirectoryWatch(given) as watch:
                assert await anext(watch) == Path(given) / "there"
                (inbox / "late").write_text("x")
                assert await anext(watch) == Path(given) / "late"
                (inbox / "late").unlink()
        monkeypatch.chdir(inbox)
        async with DirectoryWatch(".") as watch:
            assert await anext(watch) == Path("there")
        spaced = inbox.with_name("inbox ")
        spaced.mkdir()
        (spaced / "file").touch()
        async with DirectoryWatch(spaced) as watch:
            assert await anext(watch) == spaced / "file"

    asyncio.run(main())


def test_a_watch_is_for_the_loop_that_entered_it(inbox: Path) -> None:
    async def main() -> None:
        watch = DirectoryWatch(inbox)
        outside = "^iterate inside `async with`, on the loop that entered this watch$"
        with pytest.raises(RuntimeError, match=outside):
            await anext(watch)
        await watch.__aexit__()  # which is for nothing
        async with watch:
            in_use = "^this watch is in use already: make another one, or leave it first$"
            with pytest.raises(RuntimeError, match=in_use):
                await watch.__aenter__()

            async def take() -> Path:
                return await anext(watch)

            def elsewhere() -> None:
                with pytest.raises(RuntimeError, match=outside):
                    asyncio.run(take())
                with pytest.raises(RuntimeError, match="leave this watch on the loop"):
                    asyncio.run(watch.__aexit__())

            await asyncio.to_thread(elsewhere)
            (inbox / "file").touch()
            assert (await take()).name == "file"
        await watch.__aexit__()
        await asyncio.to_thread(lambda: asyncio.run(watch.__aexit__()))  # which is for nothing

    asyncio.run(main())


def test_leaving_elsewhere_ends_the_threads_if_the_loop_is_closed(inbox: Path) -> None:
    before, loop = set(threading.enumerate()), asyncio.new_event_loop()
    with spying(file_watch, inbox) as spy:
        watch = DirectoryWatch(inbox, rescan_interval=None, clock=spy.clock)
        loop.run_until_complete(watch.__aenter__())
        loop.run_until_complete(spy.at_rest())
        loop.close()
        threads = set(threading.enumerate()) - before
        assert threads
        with pytest.raises(RuntimeError, match=r"^leave this watch on the loop that entered it$"):
            asyncio.run(watch.__aexit__())
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_one_watch_serves_one_loop_after_another(inbox: Path) -> None:
    watch = DirectoryWatch(inbox)

    async def main(name: str) -> None:
        async with watch:
            (inbox / name).touch()
            while (await anext(watch)).name != name:
                pass

    for name in ("one", "two"):
        asyncio.run(main(name))


def test_two_watches_of_one_directory_are_both_told(inbox: Path) -> None:
    async def main() -> None:
        async with DirectoryWatch(inbox) as one, DirectoryWatch(inbox) as other:
            (inbox / "file").touch()
            assert await anext(one) == await anext(other) == inbox / "file"

    asyncio.run(main())


@linux
def test_files_that_one_process_makes_another_is_given(inbox: Path) -> None:
    async def main() -> None:
        async with entered(file_watch, inbox) as spy:
            code = f"open({str(inbox / 'theirs')!r}, 'w').close()"
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
            assert await spy.name() == "theirs"
            await process.wait()

    asyncio.run(main())


def test_the_interpreter_exits_with_a_watch_that_was_never_left() -> None:
    run_python("""
        import asyncio, tempfile
        from reference_impl.bridges.file_watch import DirectoryWatch

        loop = asyncio.new_event_loop()
        watch = DirectoryWatch(tempfile.mkdtemp())
        loop.run_until_complete(watch.__aenter__())
        loop.close()
        print("the end")
    """)


@linux
def test_a_forked_child_may_enter_a_watch_of_its_own() -> None:
    done = run_python("""
        import asyncio, os, tempfile, warnings
        from pathlib import Path
        from reference_impl.bridges.file_watch import DirectoryWatch

        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork among threads
        inbox = Path(tempfile.mkdtemp())

        async def child():
            async with DirectoryWatch(inbox) as watch:
                (inbox / "file").touch()
                assert (await anext(watch)).name == "file"

        async def main():
            async with DirectoryWatch(inbox):
                if not (pid := os.fork()):
                    asyncio._set_running_loop(None)
                    asyncio.set_event_loop(None)
                    asyncio.run(child())
                    print("child")
                    os._exit(0) if not __import__("sys").stdout.flush() else None
                assert os.waitpid(pid, 0)[1] == 0

        asyncio.run(main())
    """)
    assert "child" in done.stdout


# Where closing is not told: macOS, Windows, and here with watchdog's polling observer.


@pytest.fixture
def _polling(monkeypatch: pytest.MonkeyPatch) -> None:
    inside.without_inotify(file_watch, lambda: PollingObserver(timeout=0.01), monkeypatch)


async def given(spy: Spy, wanted: str, text: str) -> None:
    """The file is given with that text, after whatever polling saw of it while it was written."""
    size = -1
    while size != len(text):
        if await spy.name() == wanted:
            size = inside.size_given(spy.watch, wanted)


@pytest.mark.usefixtures("_polling")
@pytest.mark.parametrize("settle", [0.0, 0.01])
def test_without_events_of_closing_what_is_created_or_changed_is_given(
    inbox: Path, settle: float
) -> None:
    async def main() -> None:
        (inbox / "there").touch()
        (inbox / "deep").mkdir()
        clock = asyncio.get_running_loop().time
        async with entered(file_watch, inbox, recursive=True, settle=settle, clock=clock) as spy:
            await given(spy, "there", "")
            (inbox / "deep" / "late").write_text("x")
            await given(spy, "deep/late", "x")
            (inbox / "there").write_text("changed")
            await given(spy, "there", "changed")
            (inbox / "there").rename(inbox / "moved")
            await given(spy, "moved", "changed")
            (inbox / "deep").rename(inbox / "deeper")
            await given(spy, "deeper/late", "x")

    asyncio.run(main())


@pytest.mark.usefixtures("_polling")
def test_without_events_of_closing_a_file_settles(inbox: Path) -> None:
    async def main() -> None:
        async with entered(file_watch, inbox, settle=5.0) as spy:
            (inbox / "slow").write_text("HEAD;")
            (inbox.parent / "whole").touch()
            await until(lambda: inside.size_settling(spy.watch, "slow") == len("HEAD;"))
            spy.set(5.0)
            assert await spy.name() == "slow"

    asyncio.run(main())
