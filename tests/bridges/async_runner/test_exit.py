"""AR-2 at the end of a process: its own exit, that of a `multiprocessing` child, a sub-interpreter.

Each program has a process of its own.
"""

import re
import sys
from functools import partial
from typing import Any

import pytest

from tests.bridges.async_runner.helpers import FILE
from tests.kit.process import run_python
from tests.kit.proofs import each_twin_of
from tests.kit.twins import Fault, Twin, build, must_fail

IMPORT = "from reference_impl.bridges.async_runner import AsyncRunner"
LATE = Twin(
    "is closed once its helpers have been joined",
    Fault(
        source=lambda source: (
            "import threading\n_kept = vars(threading).pop('_register_atexit')\n"
            + source
            + "\nthreading._register_atexit = _kept\n"
        )
    ),
    "TimeoutExpired",
)


def loaded() -> Any:
    """In a process of its own: the twin's runner."""
    return build(FILE, LATE.fault).AsyncRunner


RELEASES = """
    import asyncio, threading
    LOAD

    begun, release = threading.Event(), threading.Event()

    def helper():
        begun.set()
        release.wait()

    async def job():
        try:
            await asyncio.to_thread(helper)
        finally:
            await asyncio.sleep(0)
            release.set()
            print("clean", flush=True)

    runner = AsyncRunner()
    runner.start()
    runner.submit(job())
    begun.wait()
"""


@pytest.mark.guarantee("AR-2")
def test_the_exit_lets_a_clean_up_release_a_helper() -> None:
    done = run_python(RELEASES.replace("LOAD", IMPORT))
    assert (done.stdout, done.stderr) == ("clean\n", "")


@each_twin_of("AR-2", LATE)
def test_the_exit_catches_a_twin(twin: Twin) -> None:
    load = "from tests.bridges.async_runner import test_exit; AsyncRunner = test_exit.loaded()"
    must_fail(twin, partial(run_python, RELEASES.replace("LOAD", load), deadline=6.0))


@pytest.mark.guarantee("AR-2")
def test_the_exit_releases_a_thread_that_waits_for_a_coroutine() -> None:
    """A thread that is no daemon, and so holds the process up, gets an answer each time."""
    done = run_python("""
        import asyncio, threading
        from concurrent.futures import CancelledError
        from reference_impl.bridges.async_runner import AsyncRunner

        begun = threading.Event()

        async def forever():
            try:
                begun.set()
                await asyncio.Event().wait()
            finally:
                print("clean", flush=True)

        def use():
            try:
                runner.run(forever())
            except CancelledError:
                print("cancelled", flush=True)
            try:
                runner.submit(asyncio.sleep(0))
            except RuntimeError as error:
                print(error, flush=True)

        runner = AsyncRunner(name="bench")
        runner.start()
        threading.Thread(target=use).start()
        begun.wait()
    """)
    assert done.stdout.splitlines() == [
        "clean",
        "cancelled",
        "bench is closed, as the main thread has ended: "
        "let the main thread wait for the threads that use it",
    ]
    assert done.stderr == ""


def test_the_exit_settles_the_future_of_a_coroutine_that_is_stuck() -> None:
    """So that the thread that waits for it ends, and the process with it. It is logged once."""
    done = run_python("""
        import threading
        from concurrent.futures import CancelledError
        from reference_impl.bridges import async_runner

        async_runner._EXIT_TIMEOUT = 0.1
        begun = threading.Event()

        async def stuck():
            begun.set()
            threading.Event().wait()

        def use():
            try:
                runner.run(stuck())
            except CancelledError:
                print("cancelled", flush=True)

        runner = async_runner.AsyncRunner()
        runner.start()
        threading.Thread(target=use).start()
        begun.wait()
    """)
    assert done.stdout == "cancelled\n"
    assert done.stderr == (
        "the interpreter exits: async-runner has not ended after 0.1 s, with 1 coroutines left: "
        "their futures are cancelled\n"
    )


CHILD = """
import asyncio, multiprocessing, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of a fork with threads
from reference_impl.bridges.async_runner import AsyncRunner

def child(report):
    begun = threading.Event()

    async def job():
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            with open(report, "a") as file:
                file.write("clean")

    runner = AsyncRunner()
    runner.start()
    runner.submit(job())
    begun.wait()

if __name__ == "__main__":
    import sys
    with AsyncRunner() as runner:
        runner.run(asyncio.sleep(0))
        process = multiprocessing.get_context(sys.argv[1]).Process(target=child, args=[sys.argv[2]])
        process.start()
        process.join()
        assert process.exitcode == 0
        runner.run(asyncio.sleep(0))
"""


@pytest.mark.guarantee("AR-2")
@pytest.mark.skipif(sys.platform == "win32", reason="no fork here")
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_the_end_of_a_child_of_multiprocessing_closes_its_runner(
    method: str, tmp_path: Any
) -> None:
    """CPython does not call atexit's hooks there before 3.13 (cpython#83856)."""
    program, report = tmp_path / "program.py", tmp_path / "report"
    program.write_text(CHILD)
    run_python(f"""
        import runpy, sys
        sys.argv = ["program.py", {method!r}, {str(report)!r}]
        runpy.run_path({str(program)!r}, run_name="__main__")
    """) if method == "fork" else run_python(f"""
        import os, subprocess, sys
        environment = dict(os.environ, PYTHONPATH=os.getcwd())
        command = [sys.executable, {str(program)!r}, {method!r}, {str(report)!r}]
        subprocess.run(command, check=True, env=environment)
    """)
    assert report.read_text() == "clean"


def test_an_isolated_sub_interpreter_is_told_that_it_has_no_such_threads() -> None:
    code = """
import sys
sys.path.insert(0, ".")
from reference_impl.bridges.async_runner import AsyncRunner
try:
    AsyncRunner(name="bench").start()
except RuntimeError as error:
    print(error, flush=True)
"""
    done = run_python(
        f"""
        import sys
        if sys.version_info < (3, 13):
            import _xxsubinterpreters as interpreters
            interpreter = interpreters.create(isolated=True)
        else:
            import _interpreters as interpreters
            interpreter = interpreters.create("isolated")
        interpreters.run_string(interpreter, {code!r})
        """,
        expect=None,  # 3.12.1 may crash at its exit, whoever has used asyncio there
    )
    assert re.fullmatch(r"bench cannot start its thread: .*threads? .*interp.*\n", done.stdout)
