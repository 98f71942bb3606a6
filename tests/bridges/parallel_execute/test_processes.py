"""parallel_execute in processes of its own: signals, exit, fork; and many calls at once."""

from typing import Any

import pytest

from reference_impl.bridges.parallel_execute import parallel_execute
from tests.bridges.parallel_execute.helpers import (
    outcomes,
)
from tests.kit.process import run_python


@pytest.mark.skipif("sys.platform == 'win32'", reason="signals are sent to a thread")
@pytest.mark.guarantee("PE-6")
def test_ctrl_c_ends_the_call_and_then_the_process() -> None:
    done = run_python("""
        import itertools, signal, threading
        from reference_impl.bridges.parallel_execute import parallel_execute

        all_begun, over, ran = threading.Barrier(5), threading.Event(), []

        def stuck(key):
            ran.append(key)
            all_begun.wait()
            threading.Event().wait()

        def once(*_):
            signal.signal(signal.SIGINT, lambda *_: None)
            raise KeyboardInterrupt

        def interrupt():
            all_begun.wait()
            while not over.wait(0.01):  # one may come just before a wait, and not be seen
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        signal.signal(signal.SIGINT, once)
        helper = threading.Thread(target=interrupt)
        helper.start()
        drawn = itertools.count()
        try:
            parallel_execute(drawn, stuck, 4)
        except KeyboardInterrupt:
            over.set()
        else:
            raise SystemExit("not interrupted")
        helper.join()
        assert sorted(ran) == [0, 1, 2, 3]
        assert next(drawn) == 4 * 4 + 32
    """)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.skipif("sys.platform == 'win32'", reason="there is no SIGALRM on Windows")
@pytest.mark.guarantee("PE-6")
def test_a_storm_of_alarms_leaves_no_thread() -> None:
    """Each alarm raises wherever it strikes, some in what cleans up after the one before."""
    done = run_python("""
        import _thread, signal, threading, time
        from reference_impl.bridges.parallel_execute import parallel_execute

        class Interrupt(BaseException):
            pass

        armed = False  # a signal may reach another thread, which is late

        def strike(*_):
            if armed:
                raise Interrupt

        def keys():  # none comes after the operations have begun, so that threads sleep
            yield from range(8)
            time.sleep(60)

        def interrupted(seconds):
            global armed
            try:
                try:
                    armed = True
                    signal.setitimer(signal.ITIMER_REAL, seconds, 0.00005)
                    parallel_execute(keys(), str, 4)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            finally:
                armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)

        signal.signal(signal.SIGALRM, strike)
        for n in range(400):
            try:
                interrupted(0.0001 + n * 0.000005)
            except Interrupt:
                pass
            else:
                raise SystemExit("not interrupted")
        deadline = time.monotonic() + 60
        while threading.active_count() > 1 or _thread._count() > 0:
            assert time.monotonic() < deadline, threading.enumerate()
            time.sleep(0.01)
    """)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.guarantee("PE-4")
def test_a_stuck_thread_does_not_hold_up_the_exit() -> None:
    done = run_python("""
        import threading
        from reference_impl.bridges.parallel_execute import parallel_execute
        results = parallel_execute([1, 2], lambda key: threading.Event().wait(), timeout=0.05)
        assert [type(result.error).__name__ for result in results] == ["DeadlineExceeded"] * 2
    """)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.skipif("sys.platform == 'win32'", reason="there is no fork on Windows")
def test_a_forked_child_may_call() -> None:
    run_python("""
        import os
        from reference_impl.bridges.parallel_execute import parallel_execute
        def works():
            results = parallel_execute(range(99), str)
            return [result.unwrap() for result in results] == list(map(str, range(99)))
        assert works()
        child = os.fork()
        if child == 0:
            os._exit(0 if works() else 1)
        assert os.waitpid(child, 0)[1] == 0
    """)


@pytest.mark.skipif("sys.platform == 'win32'", reason="signals are sent to a thread")
def test_signal_handlers_and_finalizers_may_call() -> None:
    run_python("""
        import signal, threading
        from reference_impl.bridges.parallel_execute import parallel_execute
        seen = []

        def call(*_):
            seen.extend(result.value for result in parallel_execute(range(20), str, 2))

        class Dropped:
            __del__ = call

        def operation(key):
            if key == 3:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

        signal.signal(signal.SIGUSR1, call)
        assert len(parallel_execute(range(100), operation, 2)) == 100
        Dropped()
        assert len(seen) == 40
    """)


@pytest.mark.stress
@pytest.mark.guarantee("PE-1")
def test_many_calls_at_once_under_real_threads() -> None:
    def call(number: int) -> list[Any]:
        return outcomes(parallel_execute(iter(range(number)), str, 1 + number % 7))

    for _ in range(20):
        for number, values in enumerate(outcomes(parallel_execute(range(200), call, 8))):
            assert values == [str(key) for key in range(number)]
