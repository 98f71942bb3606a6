"""AsyncRunner's forks, exits and signals."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from reference_impl.bridges import async_runner
from reference_impl.bridges.async_runner import AsyncRunner
from tests.bridges.async_runner import inside
from tests.bridges.async_runner.helpers import Job, begin, forever, logged, place, value, was_closed
from tests.kit.fakes import PATIENCE, Beside
from tests.kit.process import run_python

unix_only = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

SETUP = """
    import asyncio, os, sys, threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of fork with threads
    from reference_impl.bridges.async_runner import AsyncRunner

    async def value(of=None):
        return of

    async def forever():
        await asyncio.get_running_loop().create_future()
"""


def test_what_a_child_inherits_is_closed_without_its_loop() -> None:
    """What the hook does in the child, where another thread may have held the lock."""
    with inside.no_other_runners(async_runner):
        runner, unused = begin(async_runner, name="bench"), AsyncRunner()
        loop, pending = place(runner)[0], runner.submit(forever())
        with inside.forked(async_runner, runner) as inherited:
            for call in (runner.submit, runner.run):
                coro = value()
                with pytest.raises(
                    RuntimeError, match="bench is closed in this process, as it was started"
                ):
                    call(coro)
                assert was_closed(coro)
            with pytest.raises(RuntimeError, match="fork: make another AsyncRunner"):
                runner.start()
            runner.close()
            loop.close()
            assert not loop.is_closed(), "the parent's descriptors were taken off its selector"
            assert loop in inherited, "it can be closed by the collector"
            assert not pending.done()
            with unused:
                assert unused.run(value(1)) == 1
        assert pending.cancelled()


def test_a_child_inherits_a_loop_that_takes_no_attribute() -> None:
    """Such as one written in another language: it is kept, and that is all."""
    loop = object()
    with inside.no_other_runners(async_runner):
        runner, inherited = inside.with_another_loop(async_runner, loop)
        assert inherited.pop() is loop
        runner.close()


@unix_only
@pytest.mark.guarantee("AR-3")
@pytest.mark.parametrize("ending", ["os._exit(0)", "sys.exit(0)"])
def test_a_forked_child_has_a_closed_runner_and_does_the_parents_no_harm(ending: str) -> None:
    run_python(
        SETUP
        + f"""
    from tests.kit.primitives import rebind
    from reference_impl.bridges import async_runner
    locks = []
    def lock():
        locks.append(threading.Lock())
        return locks[-1]
    undo = rebind(async_runner, Lock=lock)
    runner, unused = AsyncRunner(name="bench"), AsyncRunner()
    undo()
    runner.start()
    pending = runner.submit(forever())
    runner.run(value())
    # As if another thread held them at the fork.
    held = [lock for lock in locks if lock.acquire(blocking=False)]
    child = os.fork()
    if child:
        for lock in held:
            lock.release()
    else:
        warnings.simplefilter("ignore", ResourceWarning)  # the parent's loop is not closed
        try:
            for call in (runner.submit, runner.run):
                coro = value()
                try:
                    call(coro)
                except RuntimeError as error:
                    assert "as it was started before the fork: make another" in str(error)
                else:
                    raise AssertionError("accepted")
                assert coro.cr_frame is None
            try:
                runner.start()
            except RuntimeError as error:
                assert "make another AsyncRunner" in str(error)
            runner.close()
            with unused:
                assert unused.run(value(1)) == 1
            with AsyncRunner() as other:
                assert other.run(value(2)) == 2
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        {ending}
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for number in range(100):
        assert runner.run(value(number), 60) == number
    runner.close(60)
    assert pending.cancelled()
    """
    )


@pytest.fixture
def no_other_runners() -> Iterator[None]:
    with inside.no_other_runners(async_runner):
        yield


@pytest.mark.usefixtures("no_other_runners")
def test_the_exit_hook_closes_every_runner_and_tells_which_have_not_ended() -> None:
    jobs = [Job(gated=True) for _ in "ab"]
    runners = [AsyncRunner(name="first"), AsyncRunner(name="second"), AsyncRunner(name="unused")]
    try:
        for runner, job in zip(runners, jobs, strict=False):
            runner.start()
            runner.submit(job())
            assert job.begun.wait(PATIENCE)
        with logged(async_runner.__name__) as records:
            inside.exit_at_once(async_runner)
        assert [(record.levelname, record.getMessage()) for record in records] == [
            (
                "WARNING",
                f"the interpreter exits: {name} has not ended after 0 s, with 1 coroutines left: "
                "their futures are cancelled",
            )
            for name in ("first", "second")
        ]
        for runner in runners:
            with pytest.raises(RuntimeError, match="is closed"):
                runner.start()
    finally:
        for runner, job in zip(runners, jobs, strict=False):
            job.open()
            runner.close(PATIENCE)
    assert [(job.clean, job.broken) for job in jobs] == [(1, 0)] * 2


@pytest.mark.usefixtures("no_other_runners")
def test_the_exit_goes_on_where_a_runner_cannot_be_closed() -> None:
    """An exception would keep the interpreter from all that comes later, executors included."""

    class Broken(AsyncRunner):
        def close(self, timeout: float | None = None) -> None:
            raise LookupError(timeout)

    broken, other = Broken(), AsyncRunner()
    with logged(async_runner.__name__) as records:
        inside.exit_at_once(async_runner)
    assert [record.getMessage() for record in records] == [
        "the interpreter exits: a runner cannot be closed"
    ]
    for runner in (broken, other):
        with pytest.raises(RuntimeError, match="as the main thread has ended"):
            runner.start()


def test_the_interpreters_exit_closes_a_running_runner() -> None:
    done = run_python(
        SETUP
        + """
    async def job():
        try:
            await asyncio.to_thread(int)
            await forever()
        finally:
            await asyncio.sleep(0)
            print("clean", flush=True)
    runner = AsyncRunner()
    runner.start()
    runner.submit(job())
    runner.run(asyncio.to_thread(int))
    """
    )
    assert done.stdout == "clean\n"
    assert done.stderr == ""


def test_the_interpreter_does_not_wait_for_ever_for_a_stuck_coroutine() -> None:
    done = run_python(
        SETUP
        + """
    from reference_impl.bridges import async_runner
    async_runner._EXIT_TIMEOUT = 0.1
    begun = threading.Event()
    async def stuck():
        begun.set()
        threading.Event().wait()
    runner = AsyncRunner()
    runner.start()
    runner.submit(stuck())
    begun.wait()
    """
    )
    assert "the interpreter exits: async-runner has not ended after 0.1 s" in done.stderr


@unix_only
def test_an_interrupt_cancels_the_coroutine_and_waits_for_its_clean_up() -> None:
    done = run_python(
        """
    import asyncio, signal, sys, threading
    from reference_impl.bridges.async_runner import AsyncRunner

    main = threading.main_thread().ident
    cleaned, begun, over = [], threading.Event(), threading.Event()
    async def job():
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("clean")

    pending = [True]
    def interrupt(_, frame):
        if pending:
            pending.clear()
            raise KeyboardInterrupt
    signal.signal(signal.SIGINT, interrupt)

    def send():
        begun.wait()  # the coroutine can begin before its caller waits
        while sys._current_frames()[main].f_code.co_name != "run":
            pass
        while pending:  # a signal just before the wait for a lock can be missed
            signal.pthread_kill(main, signal.SIGINT)
            over.wait(0.05)

    sender = threading.Thread(target=send)
    sender.start()
    with AsyncRunner() as runner:
        try:
            runner.run(job())
        except KeyboardInterrupt:
            print("interrupted after", *cleaned)
        assert runner.run(asyncio.sleep(0, 1)) == 1
    over.set()
    sender.join()
    """
    )
    assert done.stdout == "interrupted after clean\n"


@unix_only
def test_close_may_be_interrupted_and_repeated() -> None:
    """The handler raises once, in the wait for the thread."""
    job = Job(gated=True)
    runner = AsyncRunner()
    runner.start()
    future = runner.submit(job())
    assert job.begun.wait(PATIENCE)
    pending = [True]

    def interrupt(*_: object) -> None:
        if pending:
            pending.clear()
            raise KeyboardInterrupt

    over = threading.Event()

    def send() -> None:
        assert job.cleaning.wait(PATIENCE)
        while pending:
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)
            over.wait(0.05)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        sender = Beside(send)
        with pytest.raises(KeyboardInterrupt):
            runner.close()
        over.set()
        sender.result()
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(RuntimeError, match="closed"):
        runner.submit(value())
    job.open()
    runner.close(PATIENCE)
    assert future.cancelled()
    assert (job.clean, job.broken) == (1, 0)
