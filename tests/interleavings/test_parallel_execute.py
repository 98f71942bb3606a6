"""parallel_execute under every schedule of its caller and two workers, up to a bound.

Each model runs on the component, where it must hold, and on broken twins, where the same
search must find the fault. The call's own threads run as they are; in place of an executor
there is a model of one, a thread for each call.
"""

import _thread
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial, wraps
from threading import get_ident
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import parallel_execute
from tests.bridges.parallel_execute import faults
from tests.bridges.parallel_execute.helpers import LATE, clocked, outcomes, started_at_once
from tests.kit.primitives import Over, rebind, rebound
from tests.kit.profile import budget
from tests.kit.proofs import Proof, caught, explored
from tests.kit.twins import Fault, Twin, patch

interleave_test = pytest.importorskip("interleave_test", reason="needs Python >= 3.12")


class Threads(Executor):
    """A model of a pool: a thread for each call."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args))
                except BaseException as error:
                    future.set_exception(error)

        threading.Thread(target=run, name="pool").start()
        return future


class Modelled:
    """Stands for the current thread, of which the threading module knows nothing here."""

    daemon = True


class Pool(ThreadPoolExecutor):
    """The same, as the kind of executor that a thread of the call hands its keys to."""

    def __init__(self) -> None:
        """It has no threads."""

    submit = Threads.submit


def settle() -> None:
    """Return when all others wait, or have ended: only then does the explorer's time pass."""
    threading.Event().wait(1)


class Few(int):
    """A number of workers, of which 4 times as many + 32 keys are two."""

    def __mul__(self, other: int) -> int:
        return 2 - 32

    __rmul__ = __mul__


class Deadline:
    """A deadline that a thread of its own brings, between any two steps of the others."""

    def __init__(self, m: ModuleType) -> None:
        self._m = m
        self._struck = False
        self._waiting = list[Any]()  # locks for which somebody waits for so long at most

    def __call__(self, call: Callable[[], Any]) -> Any:
        """Make the call, which has a timeout of a second."""
        with clocked(self._m) as self._clock, rebound(self._m, Lock=self._lock):
            return call()

    def keys(self, *keys: int) -> Iterator[int]:
        """The keys of the call; with the first one, time begins to pass."""
        self.thread = interleave_test.spawn(self._strike, name="timer")
        yield from keys

    def _lock(self) -> Any:
        made = threading.Lock()
        acquire = made.acquire

        def acquire_until_struck(blocking: bool = True, timeout: float = -1) -> bool:
            if timeout == -1:
                return acquire(blocking)
            if not self._struck:
                self._waiting.append(made)
                acquire()
                self._waiting.remove(made)
            return not self._struck

        made.acquire = acquire_until_struck  # type: ignore[method-assign]
        return made

    def _strike(self) -> None:
        self._struck, self._clock.now = True, 1.0
        for lock in self._waiting:
            with suppress(RuntimeError):  # it was released, and its waiter is on the way
                lock.release()


def at_once(model: Callable[..., None]) -> Callable[..., None]:
    """The model where each thread is started as its key comes: one thread less to explore."""

    @wraps(model)
    def run(m: ModuleType) -> None:
        with started_at_once(m):
            model(m)

    return run


# The models. Each takes the module, and is one run: it builds its state and asserts.


def keys_are_pulled(m: ModuleType) -> None:
    ran: list[int] = []

    def operation(key: int) -> int:
        ran.append(key)
        return -key

    results = m.parallel_execute(iter(range(2)), operation, 2)
    assert sorted(ran) == [0, 1]
    assert [result.key for result in results] == [0, 1]
    assert outcomes(results) == [0, -1]


def meeting(count: int) -> Callable[[int], None]:
    """An operation that waits for its neighbour: both must run at once."""
    met = [threading.Event() for _ in range(count)]

    def operation(key: int) -> None:
        met[key].set()
        met[key ^ 1].wait()

    return operation


def sleepers_are_woken(m: ModuleType) -> None:
    """Two workers sleep when two keys come: the first wakes one, which wakes the other."""

    def keys() -> Iterator[int]:
        yield from (0, 1)
        settle()
        yield from (2, 3)

    assert outcomes(m.parallel_execute(keys(), meeting(4), 2)) == [None] * 4


def a_sleeper_and_a_new_worker(m: ModuleType) -> None:
    """One worker sleeps when two keys come: it is woken, and a second one is started."""
    operation = meeting(2)

    def keys() -> Iterator[int]:
        yield -1
        settle()
        yield from (0, 1)

    results = m.parallel_execute(keys(), lambda key: key < 0 or operation(key), 2)
    assert outcomes(results) == [True, None, None]


def first_failure_and_the_others(
    m: ModuleType,
    keys: tuple[str, ...] = ("good", "bad", *budget((), ("late",))),
    executor: Executor | None = None,
) -> None:
    """What has run keeps what came of it, whenever it ends; what has not is cancelled."""
    ran: list[str] = []

    def operation(key: str) -> str:
        ran.append(key)
        if key == "bad":
            raise LookupError(key)
        return key

    results = m.parallel_execute(iter(keys), operation, 2, fail_fast=True, executor=executor)
    settle()
    assert tuple(result.key for result in results) == keys
    for key, came in zip(keys, outcomes(results), strict=True):
        own = LookupError if key == "bad" else key
        assert came == (own if key in ran else CancelledError)


def failure_and_pool(m: ModuleType) -> None:
    first_failure_and_the_others(m, ("good", "bad"), Threads())


def failure_and_thread_pool(m: ModuleType) -> None:
    with rebound(m, current_thread=Modelled):
        first_failure_and_the_others(m, ("good", "bad"), Pool())


def nothing_starts_after_a_failure(m: ModuleType) -> None:
    """A key that is claimed after the failure was noted would run: none is."""
    noted: list[int] = []

    def operation(key: int) -> None:
        if key == 0:
            raise LookupError
        noted.append(key)

    results = m.parallel_execute(iter(range(3)), operation, 1, fail_fast=True)
    assert noted == []
    assert outcomes(results) == [LookupError, CancelledError, CancelledError]


def deadline_and_completion(
    m: ModuleType,
    keys: tuple[int, ...] = budget((1,), (1, 2)),
    executor: Executor | None = None,
) -> None:
    """Each key has its value or TimeoutError, and what ends later changes nothing."""
    ran: list[int] = []
    deadline = Deadline(m)
    results = deadline(
        lambda: m.parallel_execute(
            deadline.keys(*keys), ran.append, 1, timeout=1.0, executor=executor
        )
    )
    before = list(results)
    deadline.thread.join()
    settle()
    assert results == before
    assert tuple(result.key for result in results) == keys
    for key, came in zip(keys, outcomes(results), strict=True):
        assert came in (None, LATE)
        assert came == LATE or key in ran


def deadline_and_pool(m: ModuleType) -> None:
    deadline_and_completion(m, (1,), Threads())


def deadline_and_thread_pool(m: ModuleType) -> None:
    with rebound(m, current_thread=Modelled):
        deadline_and_completion(m, (1,), Pool())


def threads_are_started_by_a_thread(m: ModuleType) -> None:
    """A key comes while the threads for those before it are being started."""

    def start(function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        threading.Thread(target=function, args=arguments, name="starter").start()

    undo = rebind(m, _thread, start_new_thread=start)
    try:
        assert outcomes(m.parallel_execute(iter(range(2)), meeting(2), 2)) == [None] * 2
    finally:
        undo()


def a_stuck_operation_and_the_deadline(m: ModuleType) -> None:
    """It ends only after the call has returned: the call must not wait for it."""
    gate, deadline = threading.Event(), Deadline(m)

    def operation(key: int) -> Any:
        return gate.wait() if key else "done"

    results = deadline(
        lambda: m.parallel_execute(deadline.keys(0, 1), operation, budget(1, 2), timeout=1.0)
    )
    gate.set()
    deadline.thread.join()
    settle()
    assert outcomes(results) in (["done", LATE], [LATE] * 2)


def a_full_window(m: ModuleType) -> None:
    """The caller sleeps until there is room, and again until all is done."""
    drawn: list[int] = []
    ended: list[int] = []

    def keys() -> Iterator[int]:
        for key in range(4):
            assert len(drawn) - len(ended) <= 2
            drawn.append(key)
            yield key

    assert outcomes(m.parallel_execute(keys(), ended.append, Few(1))) == [None] * 4


def an_exit_among_others(m: ModuleType) -> None:
    """SystemExit in an operation ends the call and its threads, whatever else goes on."""
    error, threads = SystemExit(), list[threading.Thread]()

    def operation(key: int) -> None:
        if key == 0:
            raise error

    def thread(**options: Any) -> threading.Thread:
        threads.append(threading.Thread(**options))
        return threads[-1]

    with rebound(m, Thread=thread), pytest.raises(SystemExit) as caught:
        m.parallel_execute(iter(range(budget(2, 3))), operation, 2)
    assert caught.value is error
    for each in threads:
        each.join()


def progress_and_a_waiting_operation(m: ModuleType) -> None:
    """The second operation waits until the end of the first was told of."""
    told: list[int] = []
    first = threading.Event()

    def operation(key: int) -> None:
        if key == 1:
            first.wait()

    def on_progress(completed: int, total: int | None) -> None:
        told.append(completed)
        first.set()

    m.parallel_execute(iter((0, 1)), operation, 1, on_progress=on_progress)
    assert told == [1, 2]


def a_stream_with_a_window(m: ModuleType) -> None:
    """Two keys in flight at most, those among them whose result nobody has taken."""
    drawn: list[int] = []
    taken: list[int] = []

    def keys() -> Iterator[int]:
        for key in range(budget(3, 4)):
            assert len(drawn) - len(taken) < 2
            drawn.append(key)
            yield key

    for index, result in m.parallel_as_completed(keys(), lambda key: -key, Few(1)):
        assert result == m.Success(index, -index)
        taken.append(index)
    assert sorted(taken) == drawn


def a_stream_that_is_left(m: ModuleType) -> None:
    """It is closed when one result was taken: what had begun ends, the rest does not begin."""
    ran: list[int] = []
    threads = list[threading.Thread]()

    def thread(**options: Any) -> threading.Thread:
        threads.append(threading.Thread(**options))
        return threads[-1]

    def operation(key: int) -> int:
        ran.append(key)
        return -key

    with rebound(m, Thread=thread):
        results = m.parallel_as_completed(iter(range(3)), operation, 1)
        index, result = next(results)
        results.close()
        begun = len(ran)
    for each in threads:
        each.join()
    assert (index, result.unwrap()) == (0, 0)
    assert ran == list(range(len(ran)))
    assert len(ran) <= begun + 1  # taken before, begun after


def an_operation_that_waits_for_the_consumer(m: ModuleType) -> None:
    """The second operation waits for the first one's result to be taken."""
    taken = threading.Event()

    def operation(key: int) -> None:
        if key == 1:
            taken.wait()

    for _ in m.parallel_as_completed(iter((0, 1)), operation, 1):
        taken.set()


class Astray(Over):
    """A lock whose release goes astray where `is_lost` says so of a lock with such waiters."""

    def __init__(self, is_lost: Callable[[set[int]], bool]) -> None:
        super().__init__(threading.Lock())
        self._is_lost, self._waited = is_lost, set[int]()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self.inner.acquire(False):
            return True
        if blocking:
            self._waited.add(get_ident())
        return blocking and bool(self.inner.acquire(True, timeout))

    def release(self) -> None:
        if not self._is_lost(self._waited):
            self.inner.release()


def wakes_workers(times: int) -> Fault:
    """Of the wake-ups of workers, only so many reach one; the caller's all do."""

    def change(m: ModuleType) -> None:
        def lock() -> Astray:
            caller, left = get_ident(), [times]

            def is_lost(waited: set[int]) -> bool:
                if waited and caller not in waited:
                    left[0] -= 1
                return left[0] < 0

            return Astray(is_lost)

        rebind(m, Lock=lock)

    return patch(change)


def wakes_nobody(m: ModuleType) -> None:
    """Whoever waits for a lock that is no mutex waits forever."""
    rebind(m, Lock=lambda: Astray(bool))


def excludes_nobody(m: ModuleType) -> None:
    """The mutex lets everybody in."""
    rebind(m, RLock=Open)


class Open:
    """A lock that is always free."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        """There is nothing to do."""

    def __enter__(self) -> None:
        """There is nothing to do."""

    def __exit__(self, *_: object) -> None:
        """There is nothing to do."""


by_line = partial(Proof, granularity="line")
LOCKLESS = Twin(
    "locks nothing",
    patch(excludes_nobody),
    ("deadlock", "IndexError", "KeyError", "AssertionError: == [0, "),
)
ONE_WAKE_UP = Twin("wakes the first worker only", wakes_workers(1), "deadlock")
NO_WAKE_UP = Twin("wakes no worker", wakes_workers(0), "deadlock")
ONE_WORKER = Twin("has one worker", faults.has_one_worker, "deadlock")
CANCELS = Twin("cancels what runs", faults.cancels_what_runs, "AssertionError: came == (own if")
GOES_ON = Twin("ignores fail_fast", faults.ignores_fail_fast, "AssertionError: noted == []")
LETS_IN = Twin(
    "lets late results in", faults.lets_late_results_in, "AssertionError: results == before"
)
WAITS = Twin("waits for stuck operations", faults.waits_for_all_operations, "deadlock")
SILENT = Twin("wakes nobody", patch(wakes_nobody), "deadlock")
GREEDY = Twin(
    "draws all keys at once",
    faults.draws_all_at_once,
    "AssertionError: len(drawn) - len(ended) <= 2",
)
SLEEPS_ON = Twin("lets idle workers sleep on", wakes_workers(0), "deadlock")
KEEPS_EXITS = Twin(
    "keeps an exit to itself", faults.keeps_exits_to_itself, "Failed: DID NOT RAISE SystemExit"
)
TELLS_LATE = Twin("tells of progress at the end", faults.tells_of_progress_at_the_end, "deadlock")
ALL_AT_THE_END = Twin("gives all results at the end", faults.gives_all_at_the_end, "deadlock")
DRAWS_ALL = Twin(
    "draws all keys at once",
    faults.draws_all_for_a_stream,
    "AssertionError: len(drawn) - len(taken) < 2",
)
PROOFS = [
    by_line("PE-1", at_once(keys_are_pulled), [LOCKLESS]),
    by_line(
        "PE-3", at_once(sleepers_are_woken), [ONE_WAKE_UP, NO_WAKE_UP], preemptions=budget(0, 1)
    ),
    by_line("PE-3", at_once(a_sleeper_and_a_new_worker), [ONE_WORKER]),
    by_line("PE-5", at_once(first_failure_and_the_others), [CANCELS]),
    by_line("PE-5", failure_and_pool, [CANCELS]),
    by_line("PE-5", at_once(failure_and_thread_pool), preemptions=budget(0, 1)),
    Proof("PE-5", at_once(nothing_starts_after_a_failure), [GOES_ON]),
    by_line("PE-4", at_once(deadline_and_completion), [LETS_IN]),
    by_line("PE-4", deadline_and_pool, [LETS_IN]),
    by_line("PE-4", at_once(deadline_and_thread_pool), preemptions=budget(0, 1)),
    by_line("PE-3", threads_are_started_by_a_thread, [ONE_WORKER]),
    by_line("PE-4", at_once(a_stuck_operation_and_the_deadline), [WAITS]),
    by_line("PE-3", at_once(a_full_window), [SILENT, GREEDY]),
    by_line("PE-6", at_once(an_exit_among_others), [SLEEPS_ON, KEEPS_EXITS]),
    by_line("PE-11", at_once(a_stream_with_a_window), [SILENT, DRAWS_ALL]),
    by_line("PE-11", at_once(a_stream_that_is_left), [SLEEPS_ON]),
    by_line("PE-11", at_once(an_operation_that_waits_for_the_consumer), [ALL_AT_THE_END]),
    by_line("PE-6", at_once(progress_and_a_waiting_operation), [TELLS_LATE]),
]

test_every_schedule = explored(PROOFS, parallel_execute)
test_the_search_catches_a_broken_twin = caught(PROOFS, "bridges/parallel_execute")
