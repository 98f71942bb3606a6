"""MemoryQueue in processes of its own: exit, fork, signals."""

import pytest

from tests.kit.process import run_python


def test_a_payload_whose_finalizer_calls_the_queue_does_not_hang() -> None:
    run_python("""
        from reference_impl.queues.memory_queue import MemoryQueue

        class Payload:
            def __del__(self):
                queue.add("from the finalizer")

        queue = MemoryQueue()
        queue.remove(queue.add(Payload()).id)
        queue.add(Payload(), priority=0)
        assert queue.clear() == 2
        assert queue.get_next().data == "from the finalizer"
    """)


def test_exit_with_items_and_a_daemon_waiting_is_silent() -> None:
    done = run_python("""
        import threading
        from reference_impl.queues.memory_queue import MemoryQueue
        queue = MemoryQueue()
        threading.Thread(target=queue.wait_next, daemon=True).start()
        MemoryQueue().add("left")
    """)
    assert (done.stdout, done.stderr) == ("", "")


def test_closing_lets_a_waiting_process_exit() -> None:
    run_python("""
        import threading
        from reference_impl.queues.memory_queue import MemoryQueue, QueueClosed
        outcome = []

        def work():
            try:
                queue.wait_next()
            except QueueClosed:
                outcome.append("closed")

        with MemoryQueue() as queue:
            thread = threading.Thread(target=work)
            thread.start()
        thread.join()
        assert outcome == ["closed"]
    """)


@pytest.mark.skipif("sys.platform == 'win32'", reason="there is no fork on Windows")
def test_a_forked_child_has_a_queue_of_its_own() -> None:
    run_python("""
        import os
        from reference_impl.queues.memory_queue import MemoryQueue
        queue = MemoryQueue()
        queue.add("job")
        child = os.fork()
        if child == 0:
            works = queue.get_next().data == "job" and queue.add("more").id == "item-3"
            os._exit(0 if works else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert (queue.stats.pending, queue.stats.processing) == (1, 0)
    """)


@pytest.mark.skipif("sys.platform == 'win32'", reason="there is no fork on Windows")
def test_a_fork_inside_another_threads_call_leaves_the_childs_copy_locked() -> None:
    """The documented limit: hence fork first, then start threads."""
    run_python("""
        import os, threading, warnings
        from reference_impl.queues import memory_queue
        from tests.kit.primitives import watched
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads, from 3.12
        inside, leave = threading.Event(), threading.Event()

        def clock():
            inside.set()
            leave.wait()
            return 0.0

        with watched(memory_queue) as waits:
            queue = memory_queue.MemoryQueue(clock=clock)
        queue.add("job")
        thread = threading.Thread(target=queue.get_next)
        thread.start()
        inside.wait()
        child = os.fork()
        if child == 0:
            os._exit(0 if waits.held == 1 else 1)  # by nobody who is there
        assert os.waitpid(child, 0)[1] == 0
        leave.set()
        thread.join()
        assert (waits.held, queue.stats.processing) == (0, 1)
    """)


@pytest.mark.skipif("sys.platform == 'win32'", reason="signals are sent to a thread")
@pytest.mark.guarantee("MQ-8")
def test_ctrl_c_in_a_wait_leaves_the_queue_usable() -> None:
    run_python("""
        import signal, threading
        from reference_impl.queues import memory_queue
        from tests.kit.primitives import watched

        with watched(memory_queue) as waits:
            queue = memory_queue.MemoryQueue()
        over = threading.Event()

        def once(*_):
            signal.signal(signal.SIGINT, lambda *_: None)
            raise KeyboardInterrupt

        def interrupt():
            waits.await_waiting()
            len(queue)  # only once the main thread sleeps, and has given its lock back
            while not over.wait(0.01):  # one signal may come just before, and not be seen
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        signal.signal(signal.SIGINT, once)
        helper = threading.Thread(target=interrupt)
        helper.start()
        try:
            queue.wait_next(timeout=60)
        except KeyboardInterrupt:
            over.set()
        else:
            raise SystemExit("not interrupted")
        helper.join()
        queue.add("job")
        assert queue.wait_next(timeout=0).data == "job"
    """)


@pytest.mark.skipif("sys.platform == 'win32'", reason="there is no SIGALRM on Windows")
@pytest.mark.guarantee("MQ-1")
def test_alarms_at_random_moments_lose_nothing_and_lock_nothing() -> None:
    """Real signals, hundreds of them, while the main thread and another one use the queue."""
    done = run_python("""
        import random, signal, sys, threading, time
        from reference_impl.queues.memory_queue import MemoryQueue, QueueClosed, StaleItemError

        class Alarm(BaseException):
            pass

        def ring(*_):
            global armed
            if armed:
                armed = False
                raise Alarm

        def work():
            while True:
                try:
                    item = queue.wait_next()
                except QueueClosed:
                    return
                item.mark_completed()
                try:
                    queue.update(item)
                except StaleItemError:
                    pass  # cleared meanwhile

        armed = False
        signal.signal(signal.SIGALRM, ring)
        sys.setswitchinterval(1e-5)
        queue, chance, alarms = MemoryQueue(max_size=5, keep_completed=3), random.Random(1), 0
        helper = threading.Thread(target=work)
        helper.start()
        while alarms < 300:
            try:
                armed = True
                # Again and again: CPython may begin to wait for a lock with a signal at hand.
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(5e-6, 3e-4), 0.01)
                while True:
                    queue.add(0, priority=chance.randrange(3), timeout=None)
                    item = queue.get_next() if chance.random() < 0.5 else None
                    if item is not None:
                        item.mark_failed("x")
                        queue.update(item, delay=0)
                    queue.retry_failed()
                    queue.requeue_stale(3600)
                    try:
                        queue.wait_next(timeout=1e-5)
                    except TimeoutError:
                        pass
                    queue.clear()
                    sum(1 for _ in queue)
            except Alarm:
                alarms += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert len(threading.enumerate()) == 2
        queue.clear()
        for number in range(20):
            queue.add(number, timeout=60)
        queue.close()
        helper.join(60)
        assert not helper.is_alive(), "the other thread is stranded"
        assert (queue.stats.pending, len(queue)) == (0, 3), queue.stats
    """)
    assert (done.stdout, done.stderr) == ("", "")
