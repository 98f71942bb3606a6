"""Processes that end: in a move, by a kill, with a conversion that hangs, in an executor."""

import multiprocessing
import os
import sys
import tempfile
import textwrap
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

import reference_impl.queues.async_converter_pool as ours
from tests.kit.process import run_python
from tests.kit.profile import budget
from tests.queues.async_converter_pool.helpers import Site, run, until

PROGRAM = """
    import asyncio, os, random, signal, sys, threading
    from pathlib import Path
    from reference_impl.queues.async_converter_pool import AsyncConverterPool, Converter

    root = Path({root!r})

    def convert(path):
        begin()
        text = path.read_text()
        if text.startswith("bad"):
            raise ValueError(text)
        return text

    async def submit(text):
        with (root / "submitted").open("a") as file:
            print(text, file=file)

    def begin():
        pass
"""
KILLS = budget(4, 10)
KILL = """
    lock, left = threading.Lock(), random.Random({seed}).randrange(2, 20)

    def begin():
        global left
        with lock:
            left -= 1
            if not left:  # any thread, while others convert, submit and move
                os.kill(os.getpid(), signal.SIGKILL)

    async def main():
        pool = AsyncConverterPool([Converter("c", root / "in", ("*.csv",), convert)], submit)
        await pool.run()

    asyncio.run(main())
"""


@pytest.mark.guarantee("CP-1")
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_killed_again_and_again_while_busy_it_loses_nothing(tmp_path: Path) -> None:
    files = {
        f"{number}.csv": f"{'good' if number % 5 else 'bad'} {number}" for number in range(200)
    }
    (tmp_path / "in").mkdir()
    for name, text in files.items():
        (tmp_path / "in" / name).write_text(text)
    for seed in range(KILLS):
        run_python((PROGRAM + KILL).format(root=str(tmp_path), seed=seed), expect=-9)
    assert list((tmp_path / "in").glob("*.csv")), "nothing was left to convert after the last kill"

    async def restart(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module):
            await site.left()
        # A name that was reserved in the moment of a kill is an empty file.
        kept = [text for text in site.texts("done") + site.texts("error") if text]
        assert sorted(kept) == sorted(files.values())
        submitted = [*site.submitted, *(root / "submitted").read_text().splitlines()]
        assert set(submitted) == {text for text in files.values() if text.startswith("good")}
        assert len(submitted) <= len(set(submitted)) + 4 * KILLS  # at most what the kills cut off

    run(restart, ours, tmp_path)


@pytest.mark.guarantee("CP-3")
def test_a_conversion_that_hangs_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    """stop() leaves its file for the next start, and its thread is a daemon."""
    code = f"""
        import asyncio, threading
        from pathlib import Path
        from reference_impl.queues.async_converter_pool import AsyncConverterPool, Converter

        async def main():
            begun, loop = asyncio.Event(), asyncio.get_running_loop()

            def hang(path):
                loop.call_soon_threadsafe(begun.set)
                threading.Event().wait()

            async def submit(result):
                raise AssertionError

            box = Path({str(tmp_path)!r})
            (box / "x.csv").touch()
            pool = AsyncConverterPool([Converter("c", box, ("*.csv",), hang)], submit)
            running = asyncio.create_task(pool.run())
            await begun.wait()
            await pool.stop(timeout=0.01)
            await running
            assert pool.stats.abandoned == 1
            assert (box / "x.csv").exists()

        asyncio.run(main())
        print("the end")
    """
    assert run_python(code).stdout == "the end\n"


def die(path: Path) -> None:
    if path.name == "die.csv":
        os._exit(1)


def test_a_process_that_dies_ends_the_pool_and_blames_no_file(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
            converters = [site.converter(module, convert=die)]
            with pytest.raises(BrokenExecutor):
                async with site.running(module, converters=converters, executor=executor):
                    for name in ("innocent.csv", "die.csv"):
                        site.drop(name, name)
                    await until(site.ended)
        kept = site.texts("done") + [file.read_text() for file in site.box.glob("*.csv")]
        assert sorted(kept) == ["die.csv", "innocent.csv"]
        assert site.texts("error") == []

    run(main, ours, tmp_path)


def test_a_directory_that_cannot_be_written_is_refused_on_start() -> None:
    """In a process of its own, since the superuser may write everywhere.

    And in a directory of its own: pytest closes the one above its own to others at each start.
    """
    with tempfile.TemporaryDirectory() as folder:
        code = f"""
            import asyncio, os
            from pathlib import Path
            from reference_impl.queues.async_converter_pool import AsyncConverterPool, Converter

            async def submit(result):
                pass

            os.chmod({folder!r}, 0o555)
            if os.getuid() == 0:
                os.setuid(65534)
            converter = Converter("c", Path({folder!r}), ("*",), len)
            try:
                asyncio.run(AsyncConverterPool([converter], submit).run())
            except PermissionError as error:
                print(error)
        """
        printed = run_python(textwrap.dedent(code)).stdout
    assert "watch_dir of converter 'c' must be readable and writable: change its mode" in printed
    assert folder in printed
