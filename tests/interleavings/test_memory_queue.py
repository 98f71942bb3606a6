"""MemoryQueue under every schedule of two or three small threads, up to a bound.

Each model runs on the component, where it must hold, and on broken twins, where the same
search must find the fault.
"""

import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from reference_impl.queues import memory_queue
from tests.kit.explore import Interleavings
from tests.kit.primitives import rebind, rebound, silent, unlocked
from tests.kit.proofs import Proof, caught, explored
from tests.kit.twins import Twin, edit, patch
from tests.queues.memory_queue import faults

interleave_test = pytest.importorskip("interleave_test")
spawn: Callable[..., Any] = interleave_test.spawn


def queue_of(m: ModuleType, *payloads: str, **options: Any) -> Any:
    queue = m.MemoryQueue(**{"clock": lambda: 0.0, **options})
    for payload in payloads:
        queue.add(payload)
    return queue


def virtual_time() -> float:
    """The explorer's clock, which goes on when all threads sleep."""
    return time.monotonic()


def claimed(m: ModuleType) -> tuple[Any, Any]:
    queue = queue_of(m, "job")
    return queue, queue.get_next()


def failed(m: ModuleType) -> tuple[Any, Any]:
    queue, item = claimed(m)
    item.mark_failed("x")
    queue.update(item)
    return queue, item


def result(thread: Any) -> Any:
    thread.join()
    return thread.result()


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """The result, or the name of the error."""
    try:
        return call(*arguments)
    except (RuntimeError, ValueError, TimeoutError) as error:
        return type(error).__name__


# The models. Each takes the module, and is one run: it builds its state and asserts.


def two_claims(m: ModuleType) -> None:
    queue = queue_of(m, "a", "b")
    workers = [spawn(queue.get_next), spawn(queue.wait_next)]
    items = [result(worker) for worker in workers]
    assert sorted(item.data for item in items) == ["a", "b"]
    assert [item.attempts for item in items] == [1, 1]
    assert queue.stats.processing == 2


def one_item_two_claims(m: ModuleType) -> None:
    queue = queue_of(m, "a")
    workers = [spawn(queue.get_next), spawn(queue.get_next)]
    items = [result(worker) for worker in workers]
    assert sum(item is not None for item in items) == 1


def two_updates_of_one_version(m: ModuleType) -> None:
    queue, mine = claimed(m)
    yours = queue.get(mine.id)
    mine.mark_completed()
    yours.mark_failed("x")
    threads = [spawn(outcome, queue.update, mine), spawn(outcome, queue.update, yours)]
    outcomes = [result(thread) for thread in threads]
    assert sorted(map(str, outcomes)) == ["None", "StaleItemError"]
    winner = (mine, yours)[outcomes.index(None)]
    assert queue.get(mine.id) == winner


def a_list_while_an_item_goes(m: ModuleType) -> None:
    queue = queue_of(m, "a", "b")
    remover = spawn(queue.remove, "item-1")
    found = [item.data for item in queue.list_by_status(m.PENDING)]
    remover.join()
    assert found in (["a", "b"], ["b"])


def two_adds_to_the_last_place(m: ModuleType) -> None:
    queue = queue_of(m, max_size=1)
    threads = [spawn(outcome, queue.add, data) for data in "ab"]
    outcomes = [result(thread) for thread in threads]
    assert outcomes.count("QueueFull") == 1
    assert len(queue) == 1


def a_waiter_and_an_add(m: ModuleType) -> None:
    queue = queue_of(m)
    waiter = spawn(queue.wait_next, name="waiter")
    adder = spawn(queue.add, "job", name="adder")
    assert result(waiter).data == "job"
    adder.join()


def a_waiter_and_an_update(m: ModuleType) -> None:
    queue, item = claimed(m)
    item.reset_to_pending()
    waiter = spawn(queue.wait_next)
    updater = spawn(queue.update, item)
    assert result(waiter).attempts == 2
    updater.join()


def a_waiter_and_retry_failed(m: ModuleType) -> None:
    queue, _ = failed(m)
    waiter = spawn(queue.wait_next)
    retrier = spawn(queue.retry_failed)
    assert result(waiter).attempts == 2
    assert result(retrier) == 1


def a_waiter_and_requeue_stale(m: ModuleType) -> None:
    queue, _ = claimed(m)
    waiter = spawn(queue.wait_next)
    keeper = spawn(queue.requeue_stale, 0.0)
    assert result(waiter).attempts == 2
    assert result(keeper) == 1


def two_waiters_and_two_adds(m: ModuleType) -> None:
    queue = queue_of(m)
    waiters = [spawn(queue.wait_next), spawn(queue.wait_next)]
    queue.add("a")
    queue.add("b")
    assert sorted(result(waiter).data for waiter in waiters) == ["a", "b"]


def a_waiter_and_a_thief(m: ModuleType) -> None:
    """The item that woke the waiter is claimed by another; the next one must wake it again."""
    queue = queue_of(m)
    waiter = spawn(queue.wait_next)
    thief = spawn(queue.get_next)
    queue.add("a")
    stolen = result(thief)
    if stolen is not None:
        queue.add("b")
    assert result(waiter).data == ("a" if stolen is None else "b")


def an_interrupted_waiter_and_another(m: ModuleType) -> None:
    """A waiter that got the wake-up and then KeyboardInterrupt leaves the item to the other."""
    victims = set[int]()

    def clock() -> float:  # it is read when an item is about to be claimed
        if threading.get_ident() in victims:
            raise KeyboardInterrupt
        return 0.0

    queue = queue_of(m, clock=clock)

    def work(*, victim: bool) -> Any:
        if victim:
            victims.add(threading.get_ident())
        try:
            item = queue.wait_next()
        except KeyboardInterrupt:
            return "interrupted"
        if item.data == "for the first":
            queue.add("for the second")
        return item.data

    threads = [spawn(work, victim=True), spawn(work, victim=False)]
    queue.add("for the first")
    outcomes = [result(thread) for thread in threads]
    assert "for the first" in outcomes


def a_timed_waiter_and_another(m: ModuleType) -> None:
    queue = queue_of(m)
    timed = spawn(outcome, queue.wait_next, 1.0)
    other = spawn(queue.wait_next)
    queue.add("a")
    if result(timed) != "TimeoutError":
        queue.add("b")
    assert result(other).data in "ab"


def waiters_and_close(m: ModuleType) -> None:
    queue = queue_of(m)
    waiters = [spawn(outcome, queue.wait_next), spawn(outcome, queue.wait_next)]
    queue.close()
    assert [result(waiter) for waiter in waiters] == ["QueueClosed"] * 2


def waiters_an_item_and_close(m: ModuleType) -> None:
    """One wake-up can stand for the item and for the close: whoever gets it passes it on."""
    queue = queue_of(m)
    waiters = [spawn(outcome, queue.wait_next), spawn(outcome, queue.wait_next)]
    queue.add("a")
    queue.close()
    outcomes = [result(waiter) for waiter in waiters]
    assert outcomes.count("QueueClosed") == 1


def an_add_and_close(m: ModuleType) -> None:
    """An add is refused, or its item is claimed: nobody is told that nothing is pending."""
    queue = queue_of(m)
    adder = spawn(outcome, queue.add, "job")
    waiter = spawn(outcome, queue.wait_next)
    closer = spawn(queue.close)
    added, got = result(adder), result(waiter)
    closer.join()
    assert (added == "QueueClosed") is (got == "QueueClosed")
    assert got == "QueueClosed" or got.data == "job"


def a_late_report_and_requeue_stale(m: ModuleType) -> None:
    queue, item = claimed(m)
    item.mark_completed()
    worker = spawn(outcome, queue.update, item)
    requeued = queue.requeue_stale(0.0)
    reported = result(worker)
    assert (requeued, reported) in [(1, "StaleItemError"), (0, None)]
    assert (queue.get_next() is not None) is bool(requeued)


def two_retries(m: ModuleType) -> None:
    queue, _ = failed(m)
    retriers = [spawn(queue.retry_failed), spawn(queue.retry_failed)]
    assert sum(result(retrier) for retrier in retriers) == 1
    assert queue.get_next() is not None
    assert queue.get_next() is None


def a_waiter_and_a_delayed_add(m: ModuleType) -> None:
    queue = queue_of(m, clock=virtual_time)
    waiter = spawn(queue.wait_next)
    adder = spawn(lambda: queue.add("job", delay=1.0))
    assert result(waiter).data == "job"
    assert virtual_time() >= 1.0, "too early"
    adder.join()


def an_earlier_one_while_a_waiter_sleeps(m: ModuleType) -> None:
    queue = queue_of(m, clock=virtual_time)
    queue.add("later", delay=9.0)
    waiter = spawn(queue.wait_next)
    adder = spawn(lambda: queue.add("sooner", delay=1.0))
    assert result(waiter).data == "sooner"
    assert virtual_time() < 9.0, "overslept"
    adder.join()


def one_who_knows_when_it_is_due_gives_up(m: ModuleType) -> None:
    """Perhaps only the one that leaves had heard of the delayed item."""
    queue = queue_of(m, clock=virtual_time)
    impatient = spawn(outcome, queue.wait_next, 1.0)
    patient = spawn(queue.wait_next)
    queue.add("job", delay=5.0)
    assert result(impatient) == "TimeoutError"
    assert result(patient).data == "job"


def an_add_that_waits_and_remove(m: ModuleType) -> None:
    queue = queue_of(m, "a", max_size=1)
    adder = spawn(lambda: queue.add("b", timeout=None))
    remover = spawn(queue.remove, "item-1")
    assert result(adder).data == "b"
    assert result(remover)


def an_add_that_waits_and_clear(m: ModuleType) -> None:
    queue = queue_of(m, "a", max_size=1)
    adder = spawn(lambda: queue.add("b", timeout=None))
    cleaner = spawn(queue.clear, m.PENDING)
    assert result(adder).data == "b"
    assert result(cleaner) in (1, 2)


def an_add_that_waits_and_a_completion(m: ModuleType) -> None:
    queue = queue_of(m, "a", max_size=1)
    item = queue.get_next()
    item.mark_completed()
    adder = spawn(lambda: queue.add("b", timeout=None))
    updater = spawn(queue.update, item)
    assert result(adder).data == "b"
    updater.join()


def an_add_that_waits_and_close(m: ModuleType) -> None:
    queue = queue_of(m, "a", max_size=1)
    adder = spawn(outcome, lambda: queue.add("b", timeout=None))
    closer = spawn(queue.close)
    assert result(adder) == "QueueClosed"
    closer.join()


def two_adds_that_wait(m: ModuleType) -> None:
    queue = queue_of(m, "a", "b", max_size=2)
    adders = [spawn(lambda: queue.add("c", timeout=None)) for _ in range(2)]
    queue.clear()
    for adder in adders:
        adder.join()
    assert len(queue) in (1, 2)


def an_add_that_gives_up_ahead_of_another(m: ModuleType) -> None:
    queue = queue_of(m, "a", max_size=1)
    hasty = spawn(outcome, lambda: queue.add("b", timeout=1.0))
    adder = spawn(lambda: queue.add("c", timeout=None))
    if result(hasty) == "QueueFull":
        queue.remove("item-1")
    else:
        queue.clear()
    assert result(adder).data == "c"


def a_fresh_add_and_one_that_waits(m: ModuleType) -> None:
    """Between the room's being made and its being taken, nobody else takes it."""
    asleep = threading.Event()

    class Bell:
        """Tells when somebody waits for it."""

        def __init__(self) -> None:
            self._lock, self._made = threading.Lock(), False
            self.release = self._lock.release

        def acquire(self, timeout: float = -1) -> bool:
            if self._made:
                asleep.set()
            self._made = True
            return self._lock.acquire(timeout=timeout)

    with rebound(m, Lock=Bell):
        queue = queue_of(m, "a", max_size=1)
        adder = spawn(lambda: queue.add("b", timeout=None))
        asleep.wait()
        queue.remove("item-1")
        assert outcome(queue.add, "c") == "QueueFull"
        assert result(adder).data == "b"


# Linearizability: what threads saw, explained by some order of a sequential model.


def sequential() -> Any:
    """Pending payloads in order, and claimed ones, as a model for detangle.lin."""
    from detangle import lin

    class Sequential(lin.Model):
        name = "MemoryQueue of one priority"

        def init(self) -> Any:
            return (), ()

        def step(self, state: Any, op: Any) -> tuple[bool, Any]:
            pending, claimed = state
            if op.f == "add":
                return True, ((*pending, op.arg), claimed)
            if op.f == "claim":
                if not pending:
                    return op.output is None, state
                return op.output == pending[0], (pending[1:], (*claimed, pending[0]))
            if op.f == "give back":
                if not claimed:
                    return op.output == 0, state
                return op.output == len(claimed), ((*pending, *claimed), ())
            assert op.f == "counts"
            return op.output == (len(pending), len(claimed)), state

    return Sequential()


def histories(name: str, *threads: list[tuple[str, Any]]) -> Callable[[ModuleType], None]:
    """A model: each thread does its operations, and the history must be linearizable."""

    def model(m: ModuleType) -> None:
        from detangle import History

        queue, history = queue_of(m, max_size=9), History()

        def counts() -> tuple[int, int]:
            stats = queue.stats
            return stats.pending, stats.processing

        def claim() -> Any:
            item = queue.get_next()
            return item and item.data

        calls: dict[str, Callable[..., Any]] = {
            "add": lambda data: queue.add(data) and None,
            "claim": lambda _: claim(),
            "give back": lambda _: queue.requeue_stale(0.0),
            "counts": lambda _: counts(),
        }

        def work(number: int, operations: list[tuple[str, Any]]) -> None:
            for name, argument in operations:
                operation = history.invoke(number, name, argument)
                history.ok(operation, calls[name](argument))

        workers = [spawn(work, number, ops) for number, ops in enumerate(threads)]
        for worker in workers:
            worker.join()
        history.assert_linearizable(sequential())

    model.__name__ = name
    return model


CLAIM, GIVE_BACK, COUNTS = ("claim", None), ("give back", None), ("counts", None)
adds_and_claims = histories("adds_and_claims", [("add", "a"), CLAIM], [("add", "b"), CLAIM])
adds_and_counts = histories("adds_and_counts", [("add", "a"), COUNTS], [("add", "b"), CLAIM])
claims_and_counts = histories("claims_and_counts", [("add", "a"), CLAIM], [COUNTS, GIVE_BACK])
three_threads = histories(
    "three_threads", [("add", "a"), CLAIM], [("add", "b"), GIVE_BACK], [CLAIM, COUNTS]
)


# Which model proves what, how far it is searched, and the twins that it must catch.


def without_lock(method: str, fails: str) -> Twin:
    """It may tear the queue's own containers, or show in the model's assertion."""
    torn = ("KeyError", "IndexError", "RuntimeError: changed size", "deadlock")
    return Twin(f"does not lock in {method}", unlocked(f"MemoryQueue.{method}"), (*torn, fails))


def without_notify(method: str) -> Twin:
    return Twin(f"wakes nobody in {method}", silent(f"MemoryQueue.{method}"), "deadlock")


def impatient(m: ModuleType) -> None:
    """Whoever has waited once, and was woken in vain, gives up."""

    class Bell:
        def __init__(self) -> None:
            self._lock, self._made, self._slept = threading.Lock(), False, set[int]()

        def acquire(self, timeout: float = -1) -> bool:
            if self._made and threading.get_ident() in self._slept:
                raise TimeoutError("woken in vain")
            if self._made and self._lock.locked():
                self._slept.add(threading.get_ident())
            self._made = True
            return self._lock.acquire(timeout=timeout)

        def release(self) -> None:
            self._lock.release()

    rebind(m, Lock=Bell)


STALE = 'AssertionError: == ["None", "StaleItemError"]'
LISTS = without_lock("list_by_status", 'AssertionError: in (["a", "b"], ["b"])')
FULL = 'AssertionError: outcomes.count("QueueFull") == 1'
PROOFS = [
    Proof("MQ-2", two_claims, [without_lock("get_next", 'AssertionError: == ["a", "b"]')]),
    Proof(
        "MQ-2",
        one_item_two_claims,
        [without_lock("get_next", "AssertionError: is not None for item in items) == 1")],
    ),
    Proof("MQ-5", two_updates_of_one_version, [without_lock("update", STALE)]),
    Proof("MQ-6", a_list_while_an_item_goes, [LISTS], granularity="opcode"),
    Proof("MQ-7", two_adds_to_the_last_place, [without_lock("add", FULL)]),
    Proof("MQ-8", a_waiter_and_an_add, [without_notify("add")]),
    Proof("MQ-8", a_waiter_and_an_update, [without_notify("update")]),
    Proof("MQ-8", a_waiter_and_retry_failed, [without_notify("retry_failed")]),
    Proof("MQ-8", a_waiter_and_requeue_stale, [without_notify("requeue_stale")]),
    Proof("MQ-8", two_waiters_and_two_adds, [without_notify("add")], granularity="line"),
    Proof(
        "MQ-8",
        a_waiter_and_a_thief,
        [
            Twin(
                "gives up when it was woken in vain",
                patch(impatient),
                "TimeoutError: woken in vain",
            )
        ],
        granularity="line",
    ),
    Proof(
        "MQ-8",
        an_interrupted_waiter_and_another,
        [
            Twin(
                "takes the wake-up along when it is interrupted",
                silent("MemoryQueue.wait_next"),
                "deadlock",
            )
        ],
        granularity="line",
    ),
    Proof("MQ-8", a_timed_waiter_and_another, [without_notify("add")], granularity="line"),
    Proof(
        "MQ-9",
        waiters_and_close,
        [
            Twin("wakes one of those who wait", silent("MemoryQueue.wait_next"), "deadlock"),
            without_notify("close"),
        ],
        granularity="line",
    ),
    Proof(
        "MQ-9",
        waiters_an_item_and_close,
        [
            Twin(
                "keeps the wake-up of close to itself when it gets an item",
                edit(
                    "MemoryQueue.wait_next",
                    "owes = owes and bool(self._order or self._closed)",
                    "owes = owes and bool(self._order)",
                ),
                "deadlock",
            )
        ],
        granularity="line",
    ),
    Proof(
        "MQ-9",
        an_add_and_close,
        [without_lock("add", 'AssertionError: is (got == "QueueClosed")')],
        granularity="line",
    ),
    Proof(
        "MQ-10",
        a_late_report_and_requeue_stale,
        [
            without_lock("update", "AssertionError: (requeued, reported) in ["),
            without_lock("requeue_stale", "AssertionError: (requeued, reported) in ["),
            Twin(
                "believes the last to speak",
                faults.believes_the_last,
                "AssertionError: (requeued, reported) in [",
            ),
        ],
    ),
    Proof(
        "MQ-10",
        two_retries,
        [without_lock("retry_failed", "AssertionError: for retrier in retriers) == 1")],
    ),
    Proof(
        "MQ-12",
        a_waiter_and_a_delayed_add,
        [
            without_notify("add"),
            Twin(
                "adds it without the delay",
                faults.forgets("MemoryQueue.add", "delay"),
                "AssertionError: too early",
            ),
        ],
        granularity="line",
    ),
    Proof(
        "MQ-12",
        an_earlier_one_while_a_waiter_sleeps,
        [
            Twin(
                "wakes nobody for a delayed item",
                silent("MemoryQueue.add"),
                ("AssertionError: overslept", 'AssertionError: result(waiter).data == "sooner"'),
            )
        ],
        granularity="line",
    ),
    Proof(
        "MQ-12",
        one_who_knows_when_it_is_due_gives_up,
        [
            Twin(
                "tells nobody else when it leaves",
                silent("MemoryQueue.wait_next"),
                "deadlock",
            )
        ],
        granularity="line",
    ),
    Proof("MQ-13", an_add_that_waits_and_remove, [without_notify("remove")]),
    Proof("MQ-13", an_add_that_waits_and_clear, [without_notify("clear")]),
    Proof("MQ-13", an_add_that_waits_and_a_completion, [without_notify("update")]),
    Proof("MQ-13", an_add_that_waits_and_close, [without_notify("close")]),
    Proof("MQ-13", two_adds_that_wait, [without_notify("add")], granularity="line"),
    Proof(
        "MQ-13",
        an_add_that_gives_up_ahead_of_another,
        [without_notify("add")],
        granularity="line",
    ),
    Proof(
        "MQ-13",
        a_fresh_add_and_one_that_waits,
        [
            Twin(
                "lets everybody go first",
                faults.made_of(get_ident=lambda: 1),
                'AssertionError: outcome(queue.add, "c") == "QueueFull"',
            )
        ],
        granularity="line",
    ),
    Proof(
        "MQ-1",
        adds_and_claims,
        [without_lock("get_next", "NotLinearizable")],
    ),
    Proof("MQ-1", adds_and_counts, [without_lock("add", "NotLinearizable")], granularity="line"),
    Proof(
        "MQ-1",
        claims_and_counts,
        [without_lock("requeue_stale", "NotLinearizable")],
        granularity="opcode",
    ),
]

test_every_schedule = explored(PROOFS, memory_queue)
test_the_search_catches_a_broken_twin = caught(PROOFS, "queues/memory_queue")


@pytest.mark.guarantee("MQ-1")
def test_sampled_schedules_of_three_threads(interleavings: Interleavings) -> None:
    interleavings.sample(lambda: three_threads(memory_queue), schedules=400)
