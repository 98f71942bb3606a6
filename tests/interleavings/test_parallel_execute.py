"""parallel_execute under every schedule of its caller and two workers, up to a bound.

Each model runs on the component, where it must hold, and on broken twins, where the same
search must find the fault. The call's own threads run as they are; in place of an executor
there is a model of one, a thread for each call.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import parallel_execute
from tests.kit.explore import Interleavings
from tests.kit.proofs_old import Faults, Proof, each_proof, each_twin
from tests.kit.twins import twin

interleave_test = pytest.importorskip("interleave_test", reason="needs Python >= 3.12")

FILE = "bridges/parallel_execute.py"
LIMIT = "4 * options.max_workers + 32"


class Threads(Executor):
    """A model of a pool: a thread for each call."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args))
                except BaseException as error:
                    future.set_exception(error)

        thread = threading.Thread(target=run, name="pool")
        thread.start()
        self.threads.append(thread)
        return future


def call_of(m: ModuleType, operation: Callable[[Any], Any], workers: int = 2, **more: Any) -> Any:
    """A call whose threads can be asked for; `run` is all that parallel_execute does with it."""
    options = {"timeout": None, "fail_fast": False, "on_progress": None, "total": None, **more}
    executor = options.pop("executor", None)
    settings = m._Options(workers, **options)
    if executor is None:
        return m._InThreads(operation, settings)
    return m._InExecutor(operation, settings, executor)


def join(call: Any) -> None:
    for thread in getattr(call, "executor", call).threads:
        thread.join()


def timer(call: Any) -> Any:
    """The call's deadline as a thread: it may strike between any two steps of the others.

    The explorer's own clock moves only when nothing else can.
    """

    def strike() -> None:
        with call.lock:
            call.deadline = 0.0
            call.news.notify()

    def wait_for(predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        while not predicate():
            if call.deadline == 0.0:
                return False
            call.news.wait()
        return True

    call.news.wait_for = wait_for
    return interleave_test.spawn(strike, name="timer")


def kind(result: Any) -> Any:
    return result.value if result.is_success else type(result.error)


# The models. Each takes the module, and is one run: it builds its state and asserts.


def keys_are_pulled(m: ModuleType) -> None:
    ran: list[int] = []

    def operation(key: int) -> int:
        ran.append(key)
        return -key

    results = call_of(m, operation).run(iter(range(2)))
    assert sorted(ran) == [0, 1]
    assert [(result.key, kind(result)) for result in results] == [(0, 0), (1, -1)]


def announced_sleep(call: Any) -> threading.Semaphore:
    """Counts the workers that fall asleep: told under the lock, so nothing comes in between."""
    asleep, wait = threading.Semaphore(0), call.work.wait

    def announced(*arguments: Any) -> Any:
        asleep.release()
        return wait(*arguments)

    call.work.wait = announced
    return asleep


def meeting(count: int) -> Callable[[int], None]:
    """An operation that waits for its neighbour: both must run at once."""
    met = [threading.Event() for _ in range(count)]

    def operation(key: int) -> None:
        met[key].set()
        met[key ^ 1].wait()

    return operation


def sleepers_are_woken(m: ModuleType) -> None:
    """Two workers sleep when two keys come: the first wakes one, which wakes the other."""
    call = call_of(m, meeting(4))
    asleep = announced_sleep(call)

    def keys() -> Iterator[int]:
        yield from (0, 1)
        asleep.acquire()
        asleep.acquire()
        yield from (2, 3)

    assert [kind(result) for result in call.run(keys())] == [None] * 4


def a_sleeper_and_a_new_worker(m: ModuleType) -> None:
    """One worker sleeps when two keys come: it is woken, and a second one is started."""
    operation = meeting(2)
    call = call_of(m, lambda key: key < 0 or operation(key))
    asleep = announced_sleep(call)

    def keys() -> Iterator[int]:
        yield -1
        asleep.acquire()
        yield from (0, 1)

    assert [kind(result) for result in call.run(keys())] == [True, None, None]


def first_failure_and_the_others(
    m: ModuleType, keys: tuple[str, ...] = ("good", "bad", "late"), executor: Executor | None = None
) -> None:
    """What has run keeps what came of it, whenever it ends; what has not is cancelled."""
    ran: list[str] = []

    def operation(key: str) -> str:
        ran.append(key)
        if key == "bad":
            raise LookupError(key)
        return key

    call = call_of(m, operation, fail_fast=True, executor=executor)
    results = call.run(iter(keys))
    join(call)
    assert tuple(result.key for result in results) == keys
    for result in results:
        own = LookupError if result.key == "bad" else result.key
        assert kind(result) == (own if result.key in ran else CancelledError)


def failure_and_pool(m: ModuleType) -> None:
    first_failure_and_the_others(m, ("good", "bad"), Threads())


def nothing_starts_after_a_failure(m: ModuleType) -> None:
    """A key that is claimed after the failure was noted would run: none is."""
    noted: list[int] = []

    def operation(key: int) -> None:
        if key == 0:
            raise LookupError
        noted.append(key)

    call = call_of(m, operation, 1, fail_fast=True)
    results = call.run(iter(range(3)))
    assert noted == []
    assert [kind(result) for result in results] == [LookupError, CancelledError, CancelledError]


def deadline_and_completion(
    m: ModuleType, keys: tuple[int, ...] = (1, 2), executor: Executor | None = None
) -> None:
    """Each key has its value or TimeoutError, and what ends later changes nothing."""
    ran: list[int] = []
    call = call_of(m, ran.append, 1, timeout=1.0, executor=executor)
    deadline = timer(call)
    results = call.run(iter(keys))
    before = list(results)
    deadline.join()
    join(call)
    assert results == before
    assert tuple(result.key for result in results) == keys
    for result in results:
        assert kind(result) in (None, TimeoutError)
        assert result.is_failure or result.key in ran


def deadline_and_pool(m: ModuleType) -> None:
    deadline_and_completion(m, (1,), Threads())


def a_stuck_operation_and_the_deadline(m: ModuleType) -> None:
    """It ends only after the call has returned: the call must not wait for it."""
    gate = threading.Event()
    call = call_of(m, lambda key: gate.wait() if key else "done", timeout=1.0)
    results = call.run(iter((0, 1)))
    gate.set()
    join(call)
    assert kind(results[0]) in ("done", TimeoutError)
    assert kind(results[1]) is TimeoutError


def a_full_window(m: ModuleType) -> None:
    """The caller sleeps until there is room, and again until all is done."""
    drawn: list[int] = []
    ended: list[int] = []

    def keys() -> Iterator[int]:
        for key in range(4):
            assert len(drawn) - len(ended) <= 2
            drawn.append(key)
            yield key

    results = call_of(m, ended.append, 1).run(keys())
    assert [kind(result) for result in results] == [None] * 4


def an_exit_among_others(m: ModuleType) -> None:
    """SystemExit in an operation ends the call and its threads, whatever else goes on."""
    error = SystemExit()

    def operation(key: int) -> None:
        if key == 0:
            raise error

    call = call_of(m, operation)
    with pytest.raises(SystemExit) as caught:
        call.run(iter(range(3)))
    assert caught.value is error
    join(call)


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

    call_of(m, operation, 1, on_progress=on_progress).run(iter((0, 1)))
    assert told == [1, 2]


AND_READY = "and len(self.ready) > self.sleeping + self.waking"
POP = "                index = self.ready.popleft()\n"
LATE: Faults = [
    (
        "        if index not in self.unfinished:\n"
        "            return\n"
        "        del self.unfinished[index]\n",
        "        self.unfinished.pop(index, None)\n",
    ),
    ("results, self.results = self.results, []", "results = self.results"),
]


PROOFS = {
    "keys_are_pulled": Proof(
        "PE-1",
        keys_are_pulled,
        [
            [
                (POP, "                index = self.ready[0]\n"),
                (
                    "                self.lock.release()\n",
                    "                self.lock.release()\n"
                    "                with self.lock:\n"
                    "                    if index in self.ready:\n"
                    "                        self.ready.remove(index)\n",
                ),
            ]
        ],
        reason="AssertionError",
        granularity="line",
        diagram="Two workers look at the same key, and both run it",
    ),
    "sleepers_are_woken": Proof(
        "PE-3",
        sleepers_are_woken,
        [
            [("if self.sleeping and self.ready and not self.waking", "if False")],
            [("            self.waking = False\n", "")],
            [("self.work.notify()", "pass")],
        ],
        reason="deadlock",
        granularity="line",
    ),
    "a_sleeper_and_a_new_worker": Proof(
        "PE-3",
        a_sleeper_and_a_new_worker,
        [
            [(AND_READY, "and not self.threads")],
            [(AND_READY, f"{AND_READY} + bool(count)")],
        ],
        reason="deadlock",
        granularity="line",
    ),
    "first_failure": Proof(
        "PE-5",
        first_failure_and_the_others,
        [[("for index in self.ready:", "for index in list(self.unfinished):")]],
        reason="AssertionError",
        granularity="line",
        diagram="An operation that runs at the first failure is reported as cancelled",
    ),
    "failure_and_pool": Proof(
        "PE-5",
        failure_and_pool,
        [[("for index in self.ready:", "for index in list(self.unfinished):")]],
        reason="AssertionError",
        granularity="line",
    ),
    "nothing_starts_after_a_failure": Proof(
        "PE-5",
        nothing_starts_after_a_failure,
        [[("outcome.is_failure and self.options.fail_fast", "False")]],
        reason="AssertionError",
        granularity="opcode",
    ),
    "deadline_and_completion": Proof(
        "PE-4",
        deadline_and_completion,
        [LATE],
        reason="AssertionError",
        granularity="line",
        diagram="An operation ends after the deadline, and its result changes the list",
    ),
    "deadline_and_pool": Proof("PE-4", deadline_and_pool, [LATE], "AssertionError", "line"),
    "a_stuck_operation": Proof(
        "PE-4",
        a_stuck_operation_and_the_deadline,
        [[("() if self.stuck else self.threads", "self.threads")]],
        reason="deadlock",
        granularity="line",
    ),
    "a_full_window": Proof(
        "PE-3",
        a_full_window,
        [
            [("self.urgent or len(self.unfinished) <= self.wanted", "self.urgent")],
            [("full = len(self.unfinished) >= self.limit", "full = False")],
        ],
        reason="",
        granularity="line",
        variant=[(LIMIT, "2")],
    ),
    "an_exit_among_others": Proof(
        "PE-6",
        an_exit_among_others,
        [
            [("        self.work.notify_all()\n", "        pass\n")],
            [("            self.fatal = outcome if self.fatal is None else self.fatal\n", "")],
        ],
        reason="",
        granularity="line",
    ),
    "progress": Proof(
        "PE-6",
        progress_and_a_waiting_operation,
        [[("self.options.on_progress is not None and self.completed > self.reported", "False")]],
        reason="deadlock",
        granularity="line",
    ),
}


def explored(proof: Proof, *faults: tuple[str, str]) -> ModuleType:
    changes = [*faults, *proof.variant]
    return twin(FILE, *changes) if changes else parallel_execute


@each_proof(PROOFS)
def test_every_schedule(proof: Proof, interleavings: Interleavings) -> None:
    module = explored(proof)
    interleavings.prove(lambda: proof.model(module), **proof.search)


@each_twin(PROOFS)
def test_the_search_catches_a_broken_twin(
    proof: Proof, faults: Faults, interleavings: Interleavings
) -> None:
    broken = explored(proof, *faults)
    failure = interleavings.catch(
        lambda: proof.model(broken), diagram=proof.diagram, **proof.search
    )
    assert proof.reason in f"{failure.kind} {type(failure.exception).__name__}"
