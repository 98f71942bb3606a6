"""RS-7: run_sync's forks and exits, each in a process of its own."""

import re
from functools import partial

import pytest

from tests.bridges.run_sync.faults import (
    CLOSES_THE_PARENTS,
    IMPORT,
    KEEPS_THREADS,
    OPEN_AT_EXIT,
    SHUT_IN_THE_CHILD,
    SHUT_IN_THE_PARENT,
    load,
)
from tests.kit.process import run_python
from tests.kit.proofs import each_twin_of
from tests.kit.twins import Twin, must_fail

FORK = """
    import asyncio, os, threading
    from pathlib import Path
    LOAD

    async def answer():
        return 42

    async def both_ways():
        return run_sync(answer()), run_sync(answer(), timeout=60)

    def descriptors():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    assert run_sync(both_ways()) == (42, 42)
    child = os.fork()  # with -W error, and so an error from 3.12 on while a thread is idle
    assert threading.active_count() == 1, "a thread is idle"
    assert descriptors() == before
    assert run_sync(both_ways()) == (42, 42)
    assert threading.active_count() == 2, "nothing is kept"  # kept again, in both
    if child:
        assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.guarantee("RS-7")
def test_a_fork_after_use_finds_nothing_open_and_both_go_on() -> None:
    run_python(FORK.replace("LOAD", IMPORT))


@each_twin_of("RS-7", KEEPS_THREADS, SHUT_IN_THE_PARENT, SHUT_IN_THE_CHILD)
def test_a_fork_catches_a_twin(twin: Twin) -> None:
    must_fail(twin, partial(run_python, FORK.replace("LOAD", load(twin))))


FORK_INSIDE = """
    import asyncio, faulthandler, os, sys, threading
    LOAD

    main = threading.main_thread().ident

    def wait(child):
        status = os.waitpid(child, 0)[1]
        while sys._current_frames()[main].f_code.co_name != "select":
            pass  # until the loop sleeps, and needs the descriptors that it shares to wake up
        return status

    async def fork():
        child = os.fork()
        if child:
            faulthandler.dump_traceback_later(DEADLINE, exit=True)
            assert await asyncio.to_thread(wait, child) == 0
        return child

    child = run_sync(fork())
    if not child:
        assert run_sync(asyncio.sleep(0, "in the child")) == "in the child"
        os._exit(0)
    assert run_sync(asyncio.sleep(0, "in the parent")) == "in the parent"
"""


@pytest.mark.guarantee("RS-7")
def test_a_fork_inside_a_coroutine_does_the_parent_no_harm() -> None:
    """The child returns from run_sync; the parent's loop can still be woken by a thread."""
    run_python(FORK_INSIDE.replace("LOAD", IMPORT).replace("DEADLINE", "60"))


@each_twin_of("RS-7", CLOSES_THE_PARENTS)
def test_a_fork_inside_a_coroutine_catches_a_twin(twin: Twin) -> None:
    code = FORK_INSIDE.replace("LOAD", load(twin)).replace("DEADLINE", "2")
    must_fail(twin, partial(run_python, code))


@pytest.mark.guarantee("RS-7")
def test_a_fork_during_another_threads_call_leaves_the_child_usable() -> None:
    run_python("""
        import asyncio, os, threading, warnings
        from reference_impl.bridges.run_sync import run_sync

        warnings.simplefilter("ignore", DeprecationWarning)  # a thread is there on purpose
        began, go_on, results = threading.Event(), threading.Event(), []

        def wait():  # reached when concurrent.futures has its hooks for forks: it is imported late
            began.set()
            return go_on.wait()

        async def main():
            results.append(run_sync(asyncio.to_thread(wait)))

        caller = threading.Thread(target=lambda: asyncio.run(main()))
        caller.start()
        began.wait()
        child = os.fork()
        if not child:
            run_sync(asyncio.sleep(0))

            async def nested():
                return run_sync(asyncio.sleep(0, 42))

            os._exit(run_sync(nested()) - 42)
        assert os.waitpid(child, 0)[1] == 0
        go_on.set()
        caller.join()
        assert results == [True]
    """)


EXIT = """
    import atexit, os, threading

    def usage():
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    before = usage()

    @atexit.register
    def check():  # registered first, so run last
        if usage() != before:
            print("left open", flush=True)
            os._exit(1)
        print("closed")

    LOAD

    async def nest(depth):
        return 0 if depth == 0 else 1 + run_sync(nest(depth - 1))

    assert run_sync(nest(9)) == 9
    assert usage() != before
"""


@pytest.mark.guarantee("RS-7")
def test_the_exit_closes_what_is_idle() -> None:
    done = run_python(EXIT.replace("LOAD", IMPORT))
    assert (done.stdout, done.stderr) == ("closed\n", "")


@each_twin_of("RS-7", OPEN_AT_EXIT)
def test_the_exit_catches_a_twin(twin: Twin) -> None:
    must_fail(twin, partial(run_python, EXIT.replace("LOAD", load(twin))))


@pytest.mark.guarantee("RS-7")
def test_a_call_after_the_exit_hook_works_or_raises() -> None:
    done = run_python("""
        import asyncio, atexit

        async def answer():
            return 42

        async def nested():
            return run_sync(answer())

        @atexit.register
        def late():  # registered first, so run last
            assert run_sync(answer()) == 42
            try:
                assert run_sync(nested()) == 42
            except RuntimeError as error:
                assert "needs another thread" in str(error)
            print("late")

        from reference_impl.bridges.run_sync import run_sync
        assert run_sync(nested()) == 42
    """)
    assert (done.stdout, done.stderr) == ("late\n", "")


SUB_INTERPRETER = """
import sys
sys.path.insert(0, ".")
import asyncio
from reference_impl.bridges.run_sync import run_sync

async def answer():
    return 42

async def nested():
    return run_sync(answer())

print(run_sync(answer()), flush=True)
try:
    run_sync(nested())
except RuntimeError as error:
    print(error, flush=True)
"""


def test_an_isolated_sub_interpreter_is_told_that_it_has_no_such_threads() -> None:
    done = run_python(
        f"""
        import sys
        if sys.version_info < (3, 13):
            import _xxsubinterpreters as interpreters
            interpreter = interpreters.create(isolated=True)
        else:
            import _interpreters as interpreters
            interpreter = interpreters.create("isolated")
        interpreters.run_string(interpreter, {SUB_INTERPRETER!r})
        """,
        expect=None,  # 3.12.1 may crash at its exit, whoever has used asyncio there
    )
    result, refusal = done.stdout.splitlines()
    assert result == "42"
    assert re.fullmatch(r"run_sync needs another thread: .*threads? .*interp.*; nest .*", refusal)
