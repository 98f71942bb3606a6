"""TTLCache across fork, signals, the interpreter's exit and finalizers."""

import sys

import pytest

from tests.kit.process import run_python


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_a_forked_child_has_a_copy_and_can_leave_the_parents_loads_behind() -> None:
    run_python(
        """
        import os, threading, warnings
        from reference_impl.caches.ttl_cache import TTLCache

        warnings.simplefilter("ignore", DeprecationWarning)  # a fork while threads run
        cache, entered, leave = TTLCache(), threading.Event(), threading.Event()
        cache.set("kept", 1)
        load = lambda: (entered.set(), leave.wait(60), "parent")[2]
        thread = threading.Thread(target=cache.get_or_load, args=("key", load))
        thread.start()
        entered.wait(60)
        if (child := os.fork()) == 0:
            assert cache.get("kept") == 1
            cache.delete("key")  # in the child, the parent's load would never end
            assert cache.get_or_load("key", lambda: "child") == "child"
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        leave.set()
        thread.join()
        assert cache.get("key") == "parent"
        """
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals reach waiting threads on POSIX only")
def test_ctrl_c_ends_a_wait_for_a_load_and_leaves_the_load_alone() -> None:
    run_python(
        """
        import signal, threading
        from reference_impl.caches import ttl_cache
        from tests.caches.ttl_cache.helpers import watched

        entered, leave, ended = threading.Event(), threading.Event(), threading.Event()
        load = lambda: (entered.set(), leave.wait(60), "value")[2]
        with watched(ttl_cache) as waits:
            cache = ttl_cache.TTLCache()
            thread = threading.Thread(target=cache.get_or_load, args=("key", load))
            thread.start()
            entered.wait(60)

        def once(*_):
            signal.signal(signal.SIGINT, lambda *_: None)
            raise KeyboardInterrupt

        def interrupt():
            waits.await_waiting()
            while not ended.is_set():  # one that comes just before the wait is not seen
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        signal.signal(signal.SIGINT, once)
        killer = threading.Thread(target=interrupt)
        killer.start()
        try:
            cache.get_or_load("key", lambda: "not this")
        except KeyboardInterrupt:
            ended.set()
        else:
            raise SystemExit("the wait was not interrupted")
        killer.join()
        leave.set()
        thread.join()
        assert cache.get("key") == "value"
        """
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGALRM on Windows")
@pytest.mark.stress
def test_signals_that_raise_in_a_busy_thread_never_keep_the_lock() -> None:
    run_python(
        """
        import signal, threading
        from reference_impl.caches.ttl_cache import TTLCache

        class Alarm(BaseException):
            pass

        def handler(*_):
            raise Alarm

        def use(number):
            key = number % 13
            cache.set(number, number)
            cache.get(number)
            cache.get_or_load(key, lambda: key, 0.0001, stale=0.0001)
            cache.delete(key)
            cache.get_or_load(key, lambda: cache.get_or_load("inner", lambda: key))
            number % 50 or cache.clear()
            len(cache), cache.keys(), cache.stats

        def beside():
            number = 0
            while not over:
                number += 1
                use(number)

        def look():
            for key in range(13):
                cache.get_or_load(key, lambda: key)
                most.append(len(cache))

        signal.signal(signal.SIGALRM, handler)
        cache, over, most = TTLCache(max_size=10), [], []
        other = threading.Thread(target=beside)
        other.start()  # joins the loads of this thread, and has its own joined
        for number in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + number * 1e-6)
                while True:
                    number += 1
                    use(number)
            except Alarm:
                pass
            thread = threading.Thread(target=look, daemon=True)
            thread.start()
            thread.join(30)
            assert not thread.is_alive(), f"the cache hangs after alarm {number}"
        over.append(True)
        other.join(30)
        assert not other.is_alive()
        assert len(most) == 300 * 13 and max(most) <= 10, max(most)
        """
    )


def test_the_interpreter_exits_with_a_load_in_progress() -> None:
    done = run_python(
        """
        import atexit, threading
        from reference_impl.caches.ttl_cache import TTLCache

        cache, entered = TTLCache(), threading.Event()
        load = lambda: (entered.set(), threading.Event().wait())
        threading.Thread(target=cache.get_or_load, args=("key", load), daemon=True).start()
        entered.wait(60)
        atexit.register(lambda: print("at exit", cache.get_or_load("other", lambda: 1)))
        """
    )
    assert done.stdout == "at exit 1\n"


def test_a_finalizer_may_use_the_cache() -> None:
    """Of what a call drops, on a build with the GIL; and when the interpreter shuts down."""
    run_python(
        """
        from reference_impl.caches.ttl_cache import TTLCache

        class Value:
            def __del__(self):
                cache.set("last words", cache.get("count", 0))
                cache.set("count", cache.get("count", 0) + 1)

        cache = TTLCache(max_size=3)
        for number in range(10):
            cache.set(("value", number), Value())
        assert cache.get("count") >= 7, cache.items()
        cache.clear()
        cache.set("left for the shutdown", Value())
        """
    )
