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


@pytest.mark.skipif("sys.platform == 'win32'", reason="signals are sent to a thread")
@pytest.mark.guarantee("PE-6")
def test_ctrl_c_while_the_caller_takes_its_lock_back_is_raised_when_it_has_it() -> None:
    done = run_python("""
        import signal, threading
        from reference_impl.bridges import parallel_execute as module
        from tests.kit.primitives import rebind

        asleep, gate, never = threading.Event(), threading.Event(), threading.Event()

        class Watched(threading.Condition):
            def wait(self, timeout=None):
                if threading.current_thread() is threading.main_thread():
                    Watched.callers = self
                    asleep.set()
                return super().wait(timeout)

        def interrupt():
            asleep.wait()
            with Watched.callers:  # free only once the caller sleeps
                Watched.callers.notify()
                for _ in range(50):  # some strike when it has woken up, and waits for the lock
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                    never.wait(0.001)
                assert not raised

        rebind(module, Condition=Watched)
        raised = False
        helper = threading.Thread(target=interrupt)
        helper.start()
        try:
            module.parallel_execute([1], lambda key: gate.wait())
        except KeyboardInterrupt:
            raised = True
        helper.join()
        gate.set()
        assert raised
    """)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.guarantee("PE-4")
def test_a_stuck_thread_does_not_hold_up_the_exit() -> None:
    done = run_python("""
        import threading
        from reference_impl.bridges.parallel_execute import parallel_execute
        results = parallel_execute([1, 2], lambda key: threading.Event().wait(), timeout=0.05)
        assert [type(result.error) for result in results] == [TimeoutError] * 2
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
