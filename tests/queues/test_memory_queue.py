"""MemoryQueue: what it promises, bad input, what the original got wrong, processes, leaks."""

import itertools
import math
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from types import ModuleType
from typing import Any

import pytest

from reference_impl.queues import memory_queue
from reference_impl.queues.memory_queue import (
    BaseQueue,
    DuplicateItemError,
    MemoryQueue,
    QueueClosed,
    QueueFull,
    QueueItem,
    QueueItemStatus,
    QueueStats,
    StaleItemError,
)
from tests.kit.process import run_python
from tests.kit.twins import twin

PENDING, PROCESSING, COMPLETED, FAILED, SUSPENDED = QueueItemStatus
Check = Callable[[ModuleType], None]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def claim(queue: Any) -> Any:
    item = queue.get_next()
    assert item is not None, "nothing is pending"
    return item


def drain(queue: Any) -> list[Any]:
    return [item.data for item in iter(queue.get_next, None)]


def finish(queue: Any, item: Any) -> None:
    item.mark_completed()
    queue.update(item)


def state(queue: Any) -> object:
    """All that there is: the items by arrival, the order of claims, the counts."""
    lines = {priority: list(line) for priority, line in queue._lines.items()}
    return list(queue), lines, list(queue._priorities), queue.stats


def lock_is_free(queue: Any) -> bool:
    """Whether another thread could get the lock now."""
    found = []

    def probe() -> None:
        if queue._lock.acquire(blocking=False):
            queue._lock.release()
            found.append(True)

    thread = threading.Thread(target=probe)
    thread.start()
    thread.join()
    return bool(found)


# Each check runs on the component (the guarantee), and on broken twins, where it must fail.


def check_a_claim_is_exclusive_and_counted(m: ModuleType) -> None:
    queue = m.MemoryQueue()
    queue.add("job")
    item = claim(queue)
    assert (item.status, item.attempts) == (m.PROCESSING, 1)
    assert queue.get(item.id) == item
    assert queue.get_next() is None
    with pytest.raises(TimeoutError, match=r"^nothing was pending for 0 s: try again"):
        queue.wait_next(timeout=0)
    assert (queue.stats.pending, queue.stats.processing) == (0, 1)


def check_order_is_priority_then_arrival(m: ModuleType) -> None:
    queue = m.MemoryQueue()
    for priority, data in [(5, "c"), (1, "a"), (9, "e"), (5, "d"), (1, "b"), (-3, "0")]:
        queue.add(data, priority=priority)
    assert [item.data for item in queue.list_by_status(m.PENDING)] == list("0abcde")
    assert drain(queue) == list("0abcde")


def check_requeued_items_go_behind_their_equals(m: ModuleType) -> None:
    queue = m.MemoryQueue()
    for data in "abc":
        queue.add(data)
    first = claim(queue)
    first.reset_to_pending()
    queue.update(first)
    assert drain(queue) == ["b", "c", "a"]


def check_a_pending_item_keeps_its_place(m: ModuleType) -> None:
    queue = m.MemoryQueue()
    first, *_ = [queue.add(data) for data in "abc"]
    first.data = "A"
    queue.update(first)
    assert drain(queue) == ["A", "b", "c"]


def check_a_new_priority_moves_the_item(m: ModuleType) -> None:
    queue = m.MemoryQueue()
    first, second = queue.add("a"), queue.add("b")
    first.priority, second.priority = 6, 4
    queue.update(first)
    queue.update(second)
    queue.add("c")
    assert drain(queue) == ["b", "c", "a"]


def check_copies_go_in_and_come_out(m: ModuleType) -> None:
    queue = m.MemoryQueue()
    given = {"tags": 1}
    added = queue.add("job", metadata=given)
    given["tags"] = 2
    seen = [added, queue.get(added.id), *queue, *queue.list_by_status(m.PENDING)]
    for item in seen:
        item.metadata["tags"] = 3
        item.priority = item.attempts = 99
        item.status = m.FAILED
    claimed = claim(queue)
    assert (claimed.metadata, claimed.priority, claimed.attempts) == ({"tags": 1}, 5, 1)
    queue.update(claimed)
    claimed.metadata["tags"] = 4
    assert queue.get(claimed.id).metadata == {"tags": 1}


def check_payloads_are_shared(m: ModuleType) -> None:
    queue, payload = m.MemoryQueue(), ["a list"]
    queue.add(payload)
    assert claim(queue).data is payload


def check_a_stale_update_is_refused(m: ModuleType) -> None:
    queue = m.MemoryQueue()
    mine, yours = queue.add("job"), next(iter(queue))
    queue.update(mine)
    assert queue.get(mine.id).version == mine.version
    before = state(queue)
    yours.mark_failed("late")
    with pytest.raises(m.StaleItemError) as caught:
        queue.update(yours)
    assert str(caught.value) == (
        "item 'item-1' was changed or removed after version 1, "
        "which you hold: get it again and decide anew"
    )
    assert state(queue) == before
    queue.update(mine)  # the version after an update is the stored one


def check_versions_are_never_reused(m: ModuleType) -> None:
    queue = m.MemoryQueue()
    old = queue.add("old", item_id="x")
    queue.remove("x")
    with pytest.raises(m.StaleItemError):
        queue.update(old)
    new = queue.add("new", item_id="x")
    assert new.version > old.version
    with pytest.raises(m.StaleItemError):
        queue.update(old)
    assert queue.get("x") == new


def check_iteration_is_a_snapshot(m: ModuleType) -> None:
    queue = m.MemoryQueue()
    items = [queue.add(data) for data in "abc"]
    walk = iter(queue)
    assert next(walk).data == "a"
    assert lock_is_free(queue)
    queue.remove(items[1].id)  # the walk does not notice
    queue.add("d")
    finish(queue, claim(queue))
    assert [item.data for item in walk] == ["b", "c"]
    assert [item.data for item in queue] == ["a", "c", "d"]


def check_only_live_items_count_as_full(m: ModuleType) -> None:
    queue = m.MemoryQueue(max_size=2)
    queue.add("a")
    queue.add("b")
    before = state(queue)
    with pytest.raises(m.QueueFull, match="2 live items"):
        queue.add("c")
    assert state(queue) == before
    item = claim(queue)
    with pytest.raises(m.QueueFull):
        queue.add("c")
    finish(queue, item)
    queue.add("c")
    assert len(queue) == 3


def check_completed_items_are_forgotten_oldest_first(m: ModuleType) -> None:
    queue = m.MemoryQueue(keep_completed=2)
    for data in "abc":
        queue.add(data)
    items = [claim(queue) for _ in "abc"]
    for item in (items[1], items[0], items[2]):
        finish(queue, item)
    assert [item.data for item in queue.list_by_status(m.COMPLETED)] == ["a", "c"]
    with pytest.raises(m.StaleItemError):
        queue.update(items[1])


def check_reviving_in_a_full_queue_is_refused(m: ModuleType) -> None:
    queue = m.MemoryQueue(max_size=1)
    queue.add("a")
    done = claim(queue)
    finish(queue, done)
    queue.update(done)  # still completed: needs no room
    queue.add("b")
    before = state(queue)
    done.reset_to_pending()
    with pytest.raises(m.QueueFull):
        queue.update(done)
    assert state(queue) == before
    assert drain(queue) == ["b"]


def check_a_closed_queue_takes_nothing_and_gives_the_rest(m: ModuleType) -> None:
    queue = m.MemoryQueue()
    queue.add("a")
    queue.add("z")
    queue.close()
    queue.close()
    with pytest.raises(m.QueueClosed, match=r"^the queue is closed: it takes no new items$"):
        queue.add("b")
    assert claim(queue).data == "a"
    item = queue.wait_next()
    with pytest.raises(m.QueueClosed, match=r"^the queue is closed and nothing is pending$"):
        queue.wait_next()
    assert queue.get_next() is None
    item.reset_to_pending()
    queue.update(item)
    assert queue.wait_next().attempts == 2


def check_failed_items_are_retried_once_each(m: ModuleType) -> None:
    queue = m.MemoryQueue()
    for data, attempts in [("a", 2), ("b", 1)]:
        queue.add(data, max_attempts=attempts)
    for _ in "ab":
        item = claim(queue)
        item.mark_failed(OSError("no route"))
        queue.update(item)
    assert queue.retry_failed() == 1
    assert queue.retry_failed() == 0
    item = claim(queue)
    assert (item.data, item.attempts, item.last_error) == ("a", 2, "OSError('no route')")
    assert queue.get_next() is None
    item.mark_failed("again")
    queue.update(item)
    assert queue.retry_failed() == 0
    assert queue.count_by_status(m.FAILED) == 2


def check_stale_claims_are_taken_back(m: ModuleType) -> None:
    clock = Clock()
    queue = m.MemoryQueue(clock=clock)
    queue.add("a", max_attempts=2)
    lost = claim(queue)
    clock.now = 9.0
    assert queue.requeue_stale(10.0) == 0
    clock.now = 10.0
    assert queue.requeue_stale(10.0) == 1
    assert queue.requeue_stale(10.0) == 0
    item = claim(queue)
    assert (item.data, item.attempts) == ("a", 2)
    lost.mark_completed()
    with pytest.raises(m.StaleItemError):
        queue.update(lost)
    clock.now = 30.0
    assert queue.requeue_stale(10.0) == 0
    failed = queue.get(item.id)
    assert (failed.status, failed.last_error) == (m.FAILED, "not reported within 10.0 s")
    assert queue.get_next() is None


def check_a_progress_report_renews_the_claim(m: ModuleType) -> None:
    clock = Clock()
    queue = m.MemoryQueue(clock=clock)
    queue.add("long job")
    item = claim(queue)
    clock.now = 9.0
    item.mark_processing()
    queue.update(item)
    assert queue.get(item.id).attempts == 1
    clock.now = 18.0
    assert queue.requeue_stale(10.0) == 0
    clock.now = 19.0
    assert queue.requeue_stale(10.0) == 1


def check_a_failing_clock_changes_nothing(m: ModuleType) -> None:
    """It fails at its first call within an operation, or at a later one."""

    def update(queue: Any) -> None:
        item = queue.get("item-1")
        item.mark_failed("x")
        queue.update(item)

    operations = [m.MemoryQueue.get_next, m.MemoryQueue.wait_next, m.MemoryQueue.retry_failed]
    operations += [update, lambda queue: queue.requeue_stale(0)]
    for operation, calls in itertools.product(operations, range(4)):
        queue = m.MemoryQueue(clock=lambda: 0.0)
        for status in (m.PENDING, m.PROCESSING, m.FAILED) * 2:
            item = queue.add("job")
            item.status = status
            queue.update(item)
        queue._clock = iter([0.0] * calls).__next__
        before = state(queue)
        try:
            operation(queue)
        except StopIteration:
            assert state(queue) == before
        else:
            assert calls


def check_nothing_is_released_under_the_lock(m: ModuleType) -> None:
    """A payload whose finalizer looks at the lock, dropped in each way there is."""
    queue = m.MemoryQueue(keep_completed=1)
    locked: list[bool] = []

    class Payload:
        def __del__(self) -> None:
            locked.append(not lock_is_free(queue))

    queue.add(Payload(), item_id="removed", metadata={"note": Payload()})
    assert queue.remove("removed")
    assert len(locked) == 2, "to be released before the call returns"
    queue.add(Payload())
    assert queue.clear() == 1
    queue.add(Payload())
    assert queue.clear(m.PENDING) == 1
    item = queue.add(Payload(), metadata={"note": Payload()})
    item.data, item.metadata = None, {}
    queue.update(item)
    assert len(locked) == 6
    queue.clear()
    finish(queue, queue.add(Payload()))
    finish(queue, queue.add("the one before is forgotten"))
    full = m.MemoryQueue(max_size=1)
    full.add("a")
    with pytest.raises(m.QueueFull):
        full.add(Payload())
    assert locked == [False] * 8


DROP = "self._drop_locked(item_id)"
ANY_PENDING = "self._claim_locked() if self._priorities"

# (guarantee, check, the faults of each broken twin)
PROOFS: list[tuple[str, Check, list[list[tuple[str, str]]]]] = [
    (
        "MQ-2",
        check_a_claim_is_exclusive_and_counted,
        [[("PROCESSING, tries + 1", "PENDING, tries + 1")], [("tries + 1", "tries")]],
    ),
    (
        "MQ-3",
        check_order_is_priority_then_arrival,
        [[("last=False", "last=True")], [("insort(", "list.insert(self._priorities, 0) or (")]],
    ),
    (
        "MQ-3",
        check_requeued_items_go_behind_their_equals,
        [[("line[item_id] = None", "line[item_id] = line.move_to_end(item_id, last=False)")]],
    ),
    (
        "MQ-3",
        check_a_pending_item_keeps_its_place,
        [[("if new.status is not old.status or", "if True or")]],
    ),
    (
        "MQ-3",
        check_a_new_priority_moves_the_item,
        [[(" or new.priority != old.priority:", ":")]],
    ),
    (
        "MQ-4",
        check_copies_go_in_and_come_out,
        [
            [("item.metadata = item.metadata.copy()", "pass")],
            [('dict(_checked("metadata", metadata, Mapping))', "metadata")],
            [('dict(_checked("item.metadata", item.metadata, Mapping))', "item.metadata")],
        ],
    ),
    (
        "MQ-4",
        check_payloads_are_shared,
        [[("item.metadata = item.metadata.copy()", "item.data = list(item.data)")]],
    ),
    (
        "MQ-4",
        check_nothing_is_released_under_the_lock,
        [
            [(f"dropped = {DROP}\n", f"return {DROP} is not None\n")],
            [
                (
                    f"dropped = [{DROP} for item_id in ids]",
                    f"return len([{DROP} for item_id in ids])",
                )
            ],
            [("forgotten = self._drop_locked", "self._drop_locked")],
        ],
    ),
    (
        "MQ-5",
        check_a_stale_update_is_refused,
        [
            [("or old.version != new.version", "")],
            [("item.version, item.updated_at =", "_, item.updated_at =")],
        ],
    ),
    (
        "MQ-5",
        check_versions_are_never_reused,
        [[("            version = self._version + 1\n", "            version = 1\n")]],
    ),
    (
        "MQ-6",
        check_iteration_is_a_snapshot,
        [
            [("snapshot = list(self._items.values())", "snapshot = self._items.values()")],
            [
                ("snapshot = list(", "yield from map(_copy, list("),
                (
                    "self._items.values())\n        return map(_copy, snapshot)",
                    "self._items.values()))",
                ),
            ],
        ],
    ),
    (
        "MQ-7",
        check_only_live_items_count_as_full,
        [
            [("len(self._items) - len(self._completed_at)", "len(self._items)")],
            [(")) >= max_size", ")) > max_size")],
        ],
    ),
    (
        "MQ-7",
        check_completed_items_are_forgotten_oldest_first,
        [
            [("next(iter(self._completed_at))", "next(reversed(self._completed_at))")],
            [("> self._keep_completed", "> 10 + self._keep_completed")],
        ],
    ),
    (
        "MQ-7",
        check_reviving_in_a_full_queue_is_refused,
        [[("old.status is COMPLETED is not new.status", "False")]],
    ),
    (
        "MQ-9",
        check_a_closed_queue_takes_nothing_and_gives_the_rest,
        [
            [('raise QueueClosed("the queue is closed: it', 'str("the queue is closed: it')],
            [(ANY_PENDING, f"{ANY_PENDING} and not self._closed")],
        ],
    ),
    (
        "MQ-10",
        check_failed_items_are_retried_once_each,
        [
            [("self._line_up_locked(new.id, new.priority)", "pass")],
            [("retried = [item for item in items if item.can_retry]", "retried = items")],
        ],
    ),
    (
        "MQ-10",
        check_stale_claims_are_taken_back,
        [
            [("PENDING if item.can_retry else FAILED", "PENDING")],
            [("if at <= latest]", "]")],
            [("or old.version != new.version", "")],
        ],
    ),
    (
        "MQ-10",
        check_a_progress_report_renews_the_claim,
        [[("[new.status][new.id] = since", "[new.status].setdefault(new.id, since)")]],
    ),
    (
        "MQ-11",
        check_a_failing_clock_changes_nothing,
        [
            [
                ("since, now = self._clock(), datetime.now(UTC)", "now = datetime.now(UTC)"),
                ("self._claimed_at[key] = since", "self._claimed_at[key] = self._clock()"),
            ],
            [("[new.status][new.id] = since", "[new.status][new.id] = self._clock()")],
            [("locked(new.id, new.priority)", "locked(new.id, self._clock() or new.priority)")],
        ],
    ),
]


def _named(check: Check) -> str:
    return check.__name__.removeprefix("check_")


@pytest.mark.parametrize(
    "check",
    [pytest.param(c, id=_named(c), marks=pytest.mark.guarantee(mq)) for mq, c, _ in PROOFS],
)
def test_promise(check: Check) -> None:
    check(memory_queue)


@pytest.mark.parametrize(
    ("check", "faults"),
    [
        pytest.param(c, faults, id=f"{_named(c)}-{n}", marks=pytest.mark.twin(mq))
        for mq, c, twins in PROOFS
        for n, faults in enumerate(twins)
    ],
)
def test_check_catches_a_broken_twin(check: Check, faults: list[tuple[str, str]]) -> None:
    broken = twin("queues/memory_queue.py", *faults)
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        check(broken)
    assert not isinstance(caught.value, (NameError, AttributeError)), "the twin does not run"


# Waiting, with real threads; tests/interleavings explores the same systematically.


class Watched(threading.Condition):
    """Tells when a thread sleeps in it: whoever then gets the lock finds it asleep."""

    def __init__(self, queue: MemoryQueue[str]) -> None:
        super().__init__(queue._lock)
        self.asleep = threading.Semaphore(0)
        self.notified = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.asleep.release()
        return super().wait(timeout)

    def notify(self, n: int = 1) -> None:
        self.notified += 1
        super().notify(n)


class Waiter(threading.Thread):
    """A thread in `wait_next`, known to be asleep when the constructor returns."""

    def __init__(self, queue: MemoryQueue[str], timeout: float | None = None) -> None:
        super().__init__()
        if not isinstance(queue._available, Watched):
            queue._available = Watched(queue)
        self.queue, self.timeout, self.outcome = queue, timeout, ""
        self.start()
        assert queue._available.asleep.acquire(timeout=60)

    def run(self) -> None:
        try:
            self.outcome = self.queue.wait_next(self.timeout).data
        except (TimeoutError, QueueClosed) as error:
            self.outcome = type(error).__name__

    def result(self) -> str:
        self.join(timeout=60)
        assert not self.is_alive(), "still waiting"
        return self.outcome


def failed_item(queue: MemoryQueue[str]) -> QueueItem[str]:
    queue.add("job")
    item = claim(queue)
    item.mark_failed("x")
    queue.update(item)
    return item  # type: ignore[no-any-return]


def revive_completed(queue: MemoryQueue[str]) -> Callable[[], object]:
    item = failed_item(queue)
    finish(queue, item)
    item.reset_to_pending()
    return lambda: queue.update(item)


def set_pending(queue: MemoryQueue[str]) -> Callable[[], object]:
    item = failed_item(queue)
    item.reset_to_pending()
    return lambda: queue.update(item)


def retry(queue: MemoryQueue[str]) -> Callable[[], object]:
    failed_item(queue)
    return queue.retry_failed


def requeue(queue: MemoryQueue[str]) -> Callable[[], object]:
    queue.add("job")
    claim(queue)
    return lambda: queue.requeue_stale(0)


@pytest.mark.guarantee("MQ-8")
@pytest.mark.parametrize(
    "prepare",
    [lambda queue: lambda: queue.add("job"), set_pending, revive_completed, retry, requeue],
    ids=["add", "update", "revive", "retry_failed", "requeue_stale"],
)
def test_whatever_makes_an_item_pending_wakes_a_waiter(
    prepare: Callable[[MemoryQueue[str]], Callable[[], object]],
) -> None:
    queue = MemoryQueue[str]()
    make_pending = prepare(queue)
    waiter = Waiter(queue)
    make_pending()
    assert waiter.result() == "job"


@pytest.mark.guarantee("MQ-8")
def test_an_item_that_is_there_is_claimed_without_waiting() -> None:
    queue = MemoryQueue[str]()
    queue.add("job")
    assert queue.wait_next(timeout=0).data == "job"
    queue.add("again")
    assert queue.wait_next(timeout=math.inf).data == "again"


@pytest.mark.guarantee("MQ-8")
def test_each_of_several_items_wakes_a_waiter_of_its_own() -> None:
    queue = MemoryQueue[str]()
    waiters = [Waiter(queue) for _ in range(3)]
    for data in "abc":
        queue.add(data)
    assert sorted(waiter.result() for waiter in waiters) == ["a", "b", "c"]


@pytest.mark.guarantee("MQ-8")
def test_a_wait_that_ends_takes_nobody_elses_wake_up() -> None:
    """Waits end one by one, by an item or in vain; whoever waits on, or again, is woken."""
    queue, ended = MemoryQueue[str](), threading.Semaphore(0)

    class Told(Waiter):
        def run(self) -> None:
            super().run()
            ended.release()

    for _ in range(3):
        waiters = [Told(queue), Told(queue)]
        assert Waiter(queue, timeout=0.01).result() == "TimeoutError"
        for _ in waiters:
            queue.add("job")
            assert ended.acquire(timeout=60), "an item is pending, and nobody is woken"
        assert [waiter.result() for waiter in waiters] == ["job"] * 2


def test_nobody_is_notified_where_nobody_waits() -> None:
    queue = MemoryQueue[str]()
    queue._available = watched = Watched(queue)
    queue.add("before any wait")
    assert queue.wait_next().data == "before any wait"
    assert Waiter(queue, timeout=0.01).result() == "TimeoutError"
    waiter = Waiter(queue)
    assert watched.notified == 0
    queue.add("awaited")
    assert waiter.result() == "awaited"
    assert watched.notified == 1
    queue.add("after all waits")
    assert watched.notified == 1


@pytest.mark.guarantee("MQ-9")
def test_close_releases_all_who_wait() -> None:
    queue = MemoryQueue[str]()
    waiters = [Waiter(queue), Waiter(queue, timeout=600)]
    queue.close()
    assert [waiter.result() for waiter in waiters] == ["QueueClosed"] * 2


@pytest.mark.guarantee("MQ-1", "MQ-2", "MQ-8", "MQ-9")
def test_threads_hand_out_each_of_many_items_once() -> None:
    """No search, but real threads, which on free-threaded builds run at the same time."""
    queue, start = MemoryQueue[int](max_size=50), threading.Barrier(8)
    claimed: list[list[QueueItem[int]]] = [[] for _ in range(4)]

    def produce(first: int) -> None:
        start.wait()
        for number in range(first, 1000, 4):
            while True:
                try:
                    queue.add(number, priority=number % 3)
                    break
                except QueueFull:
                    queue.retry_failed()

    def work(mine: list[QueueItem[int]]) -> None:
        start.wait()
        while True:
            try:
                item = queue.wait_next()
            except QueueClosed:
                return
            mine.append(item)
            if item.data % 10 == item.attempts:
                item.mark_failed("once more")
            else:
                item.mark_completed()
            queue.update(item)

    producers = [threading.Thread(target=produce, args=(n,)) for n in range(4)]
    workers = [threading.Thread(target=work, args=(mine,)) for mine in claimed]
    for thread in producers + workers:
        thread.start()
    for thread in producers:
        thread.join(timeout=120)
    queue.close()
    for thread in workers:
        thread.join(timeout=120)
    while queue.retry_failed():  # what failed last, when nobody was left to retry it
        claimed[0] += [claim(queue) for _ in range(queue.stats.pending)]
    claims = sorted((item.data, item.attempts) for mine in claimed for item in mine)
    # Those that end in 1 fail their first attempt, and so are claimed twice.
    assert claims == sorted(
        [(number, 1) for number in range(1000)] + [(number, 2) for number in range(1, 1000, 10)]
    )


def test_a_wait_ends_with_its_timeout() -> None:
    assert Waiter(MemoryQueue(), timeout=0.01).result() == "TimeoutError"


# Bad input: the message names argument and value, and nothing has changed.


class Urgency(IntEnum):
    HIGH = 1


BAD_ARGUMENTS: list[tuple[str, Callable[[MemoryQueue[Any]], object], type[Exception], str]] = [
    ("priority-float", lambda q: q.add(1, priority=1.5), TypeError, "priority.*1.5"),  # type: ignore[arg-type]
    ("priority-nan", lambda q: q.add(1, priority=math.nan), TypeError, "priority.*nan"),  # type: ignore[arg-type]
    ("priority-bool", lambda q: q.add(1, priority=True), TypeError, "priority.*True"),
    ("priority-none", lambda q: q.add(1, priority=None), TypeError, "priority.*None"),  # type: ignore[arg-type]
    ("priority-text", lambda q: q.add(1, priority="high"), TypeError, "priority.*'high'"),  # type: ignore[arg-type]
    ("id-number", lambda q: q.add(1, item_id=7), TypeError, "item_id.*7"),  # type: ignore[arg-type]
    ("id-twice", lambda q: q.add(1, item_id="x"), DuplicateItemError, "item_id 'x'"),
    ("id-completed", lambda q: q.add(1, item_id="done"), DuplicateItemError, "item_id 'done'"),
    ("attempts-zero", lambda q: q.add(1, max_attempts=0), ValueError, "max_attempts.*0"),
    ("attempts-float", lambda q: q.add(1, max_attempts=2.0), TypeError, "max_attempts.*2.0"),  # type: ignore[arg-type]
    ("metadata-list", lambda q: q.add(1, metadata=["a"]), TypeError, "metadata.*'a'"),  # type: ignore[arg-type]
    ("timeout-negative", lambda q: q.wait_next(-1), ValueError, "timeout.*-1"),
    ("timeout-nan", lambda q: q.wait_next(math.nan), ValueError, "timeout.*nan"),
    ("timeout-text", lambda q: q.wait_next("1"), TypeError, "timeout .* int or float, not '1'"),  # type: ignore[arg-type]
    ("age-negative", lambda q: q.requeue_stale(-0.1), ValueError, "older_than.*-0.1"),
    ("age-nan", lambda q: q.requeue_stale(math.nan), ValueError, "older_than.*nan"),
    ("age-none", lambda q: q.requeue_stale(None), TypeError, "older_than.*None"),  # type: ignore[arg-type]
    ("get-item", lambda q: q.get(next(iter(q))), TypeError, "item_id.*QueueItem"),  # type: ignore[arg-type]
    ("remove-number", lambda q: q.remove(1), TypeError, "item_id.*1"),  # type: ignore[arg-type]
    ("in-item", lambda q: next(iter(q)) in q, TypeError, "item_id.*QueueItem"),
    ("list-text", lambda q: q.list_by_status("pending"), TypeError, "status.*'pending'"),  # type: ignore[arg-type]
    ("count-text", lambda q: q.count_by_status("lost"), TypeError, "status.*'lost'"),  # type: ignore[arg-type]
    ("clear-text", lambda q: q.clear("failed"), TypeError, "status.*'failed'"),  # type: ignore[arg-type]
    ("update-text", lambda q: q.update("x"), TypeError, "item must be QueueItem, not 'x'"),  # type: ignore[arg-type]
]


@pytest.mark.guarantee("MQ-11")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [pytest.param(*row, id=name) for name, *row in BAD_ARGUMENTS],
)
def test_a_bad_argument_is_named_and_changes_nothing(
    call: Callable[[MemoryQueue[Any]], object], error: type[Exception], message: str
) -> None:
    queue = MemoryQueue[Any]()
    queue.add("completed", item_id="done", priority=1)
    finish(queue, claim(queue))
    queue.add("pending", item_id="x")
    before = state(queue)
    with pytest.raises(error, match=f"^{message}"):
        call(queue)
    assert state(queue) == before


@pytest.mark.guarantee("MQ-11")
@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("id", 1, TypeError),
        ("priority", 0.5, TypeError),
        ("priority", False, TypeError),
        ("status", "failed", TypeError),
        ("attempts", -1, ValueError),
        ("attempts", "1", TypeError),
        ("max_attempts", 0, ValueError),
        ("last_error", OSError("x"), TypeError),
        ("metadata", None, TypeError),
        ("version", "1", TypeError),
    ],
)
def test_a_bad_field_in_an_updated_item_changes_nothing(
    field: str, value: object, error: type[Exception]
) -> None:
    queue = MemoryQueue[str]()
    item = queue.add("job")
    before = state(queue)
    setattr(item, field, value)
    with pytest.raises(error, match=f"^item.{field} must be .*{re.escape(repr(value))}"):
        queue.update(item)
    assert state(queue) == before


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"max_size": 0}, ValueError),
        ({"max_size": -1}, ValueError),
        ({"max_size": 1.0}, TypeError),
        ({"max_size": True}, TypeError),
        ({"default_max_attempts": 0}, ValueError),
        ({"default_max_attempts": None}, TypeError),
        ({"keep_completed": -1}, ValueError),
        ({"keep_completed": None}, TypeError),
        ({"clock": 0.0}, TypeError),
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    (name, value), *_ = arguments.items()
    with pytest.raises(error, match=f"^{name} must be .*{value}"):
        MemoryQueue[str](**arguments)


@pytest.mark.guarantee("MQ-11")
def test_incomparable_payloads_are_never_compared() -> None:
    class Incomparable:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

        __lt__ = __gt__ = __eq__
        __hash__ = None  # type: ignore[assignment]

    queue = MemoryQueue[Incomparable]()
    for _ in range(3):
        queue.add(Incomparable())
    item = claim(queue)
    item.reset_to_pending()
    queue.update(item)
    assert len(drain(queue)) == 3


# The original's defects that are not in a check above.


def test_setting_an_item_pending_twice_hands_it_out_once() -> None:
    queue = MemoryQueue[str]()
    item = queue.add("job")
    queue.update(item)
    queue.update(item)
    assert drain(queue) == ["job"]


def test_a_duplicate_id_keeps_the_first_payload() -> None:
    queue = MemoryQueue[str]()
    queue.add("first", item_id="x")
    with pytest.raises(DuplicateItemError):
        queue.add("second", item_id="x")
    assert drain(queue) == ["first"]


def test_order_does_not_depend_on_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    times = itertools.chain([5, 5, 5, 1], itertools.repeat(0))  # stands still, then steps back

    class Wall(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Wall":
            return cls(2026, 1, 1, tzinfo=UTC) + timedelta(hours=next(times))

    monkeypatch.setattr(memory_queue, "datetime", Wall)
    queue = MemoryQueue[int]()
    for number in range(20):
        queue.add(number)
    assert drain(queue) == list(range(20))


def test_waiting_counts_and_stats_know_every_status() -> None:
    queue = MemoryQueue[str]()
    for _ in range(5):
        queue.add("job")
    claim(queue)
    marks: list[Callable[[QueueItem[str]], None]] = [
        QueueItem.mark_completed,
        lambda item: item.mark_failed("x"),
        lambda item: item.mark_suspended("no licence"),
    ]
    for mark in marks:
        item = claim(queue)
        mark(item)
        queue.update(item)
    assert queue.stats == QueueStats(1, 1, 1, 1, 1)
    assert [queue.count_by_status(status) for status in QueueItemStatus] == [1] * 5
    assert [len(queue.list_by_status(status)) for status in QueueItemStatus] == [1] * 5
    assert queue.list_by_status(SUSPENDED)[0].last_error == "no licence"
    with pytest.raises(FrozenInstanceError):
        queue.stats.pending = 2  # type: ignore[misc]


def test_counting_does_not_walk_the_items() -> None:
    class NotToBeWalked(dict[str, Any]):
        def __iter__(self) -> Iterator[str]:
            raise AssertionError("walked")

        keys = values = items = __iter__  # type: ignore[assignment]

    queue = MemoryQueue[str]()
    for _ in range(3):
        queue.add("job")
    queue._items = NotToBeWalked(queue._items)
    assert queue.count_by_status(PENDING) == len(queue) == queue.stats.pending == 3


def entries(queue: MemoryQueue[Any]) -> int:
    """All that the queue's containers hold."""
    count = len(queue._items) + len(queue._lines) + len(queue._priorities)
    count += sum(len(line) for line in queue._lines.values())
    return count + sum(len(line) for line in queue._since.values())


@pytest.mark.guarantee("MQ-7")
def test_what_passes_through_leaves_nothing_behind() -> None:
    queue = MemoryQueue[int](max_size=10, keep_completed=5)
    for number in range(100_000):
        item = queue.add(number, priority=number)
        if number % 2:
            assert queue.remove(item.id)
        else:
            finish(queue, claim(queue))
    assert entries(queue) == 2 * 5
    queue.clear()
    assert entries(queue) == 0


# The rest of the interface.


def test_defaults_and_fields_of_an_item() -> None:
    queue = MemoryQueue[str](default_max_attempts=7)
    item = queue.add("job", priority=Urgency.HIGH)
    assert (item.id, item.data, item.priority, item.status) == ("item-1", "job", 1, PENDING)
    assert (item.attempts, item.max_attempts, item.last_error, item.metadata) == (0, 7, None, {})
    assert item.created_at == item.updated_at
    assert item.created_at.utcoffset() == timedelta(0)
    created = item.created_at
    item.created_at = item.updated_at = datetime(1999, 1, 1, tzinfo=UTC)
    queue.update(item)
    stored = queue.get(item.id)
    assert stored is not None
    assert stored.created_at == created <= stored.updated_at == item.updated_at
    claimed = claim(queue)
    assert claimed.created_at == created <= claimed.updated_at
    assert claimed.updated_at.utcoffset() == timedelta(0)
    assert [status.value for status in QueueItemStatus] == [
        *("pending", "processing", "completed", "failed", "suspended")
    ]


def test_three_attempts_and_a_thousand_completed_items_by_default() -> None:
    queue = MemoryQueue[int]()
    for number in range(1001):
        assert queue.add(number).max_attempts == 3
        finish(queue, claim(queue))
    assert [item.data for item in queue] == list(range(1, 1001))


@pytest.mark.guarantee("MQ-5")
def test_each_change_is_one_version() -> None:
    queue = MemoryQueue[str]()
    versions = [queue.add("job").version]
    item = claim(queue)
    versions.append(item.version)
    item.mark_failed("x")
    queue.update(item)
    versions.append(item.version)
    assert (queue.retry_failed(), queue.requeue_stale(0)) == (1, 0)
    item = claim(queue)
    versions.append(item.version)
    assert queue.requeue_stale(0) == 1
    versions.append(next(iter(queue)).version)
    assert versions == [1, 2, 3, 5, 6]


def test_made_up_ids_avoid_given_ones() -> None:
    queue = MemoryQueue[str]()
    queue.add("a", item_id="item-2")
    assert queue.add("b").id == "item-3"
    assert queue.remove("item-3")
    assert queue.add("c").id not in ("item-2", "item-3")


def test_marks_change_only_the_copy() -> None:
    item = QueueItem("x", "job")
    item.mark_processing()
    item.mark_processing()
    assert (item.status, item.attempts, item.can_retry) == (PROCESSING, 1, True)
    item.mark_failed("first")
    item.mark_suspended()
    assert (item.status, item.last_error) == (SUSPENDED, "first")
    item.reset_to_pending()
    assert (item.status, item.attempts, item.last_error) == (PENDING, 1, "first")
    item.mark_processing()
    assert item.attempts == 2
    item.attempts = 3
    assert not item.can_retry
    item.mark_completed()
    assert (item.status, item.last_error) == (COMPLETED, None)


def test_an_explicit_reset_grants_another_claim() -> None:
    queue = MemoryQueue[str](default_max_attempts=1)
    queue.add("job")
    item = claim(queue)
    item.reset_to_pending()
    queue.update(item)
    assert claim(queue).attempts == 2


def test_a_suspended_item_waits_for_its_reset() -> None:
    queue = MemoryQueue[str]()
    queue.add("job")
    item = claim(queue)
    item.mark_suspended("no licence")
    queue.update(item)
    assert (queue.get_next(), queue.retry_failed(), queue.requeue_stale(0)) == (None, 0, 0)
    item.reset_to_pending()
    queue.update(item)
    assert drain(queue) == ["job"]


def test_a_claim_by_update_takes_the_item_out_of_its_line() -> None:
    queue = MemoryQueue[str]()
    item = queue.add("job")
    item.mark_processing()
    queue.update(item)
    assert queue.get_next() is None
    assert queue.requeue_stale(0) == 1


def test_clear_removes_a_status_or_all() -> None:
    queue = MemoryQueue[str]()
    for data in "abc":
        queue.add(data)
    item = claim(queue)
    assert queue.clear(PENDING) == 2
    assert queue.clear(FAILED) == 0
    with pytest.raises(QueueFull):
        MemoryQueue._check_room_locked(queue, 1)
    assert queue.clear() == 1
    assert queue.is_empty
    with pytest.raises(StaleItemError):
        queue.update(item)


def test_size_len_in_and_is_empty_agree() -> None:
    queue = MemoryQueue[str]()
    assert (queue.size, len(queue), queue.is_empty) == (0, 0, True)
    item = queue.add("job")
    finish(queue, claim(queue))
    assert (queue.size, len(queue), queue.is_empty) == (1, 1, False)
    assert item.id in queue
    assert "other" not in queue
    assert queue.get("other") is None
    assert not queue.remove("other")


def test_it_is_a_base_queue_and_a_context_manager() -> None:
    with MemoryQueue[str]() as queue:
        assert isinstance(queue, BaseQueue)
    with pytest.raises(QueueClosed):
        queue.add("job")
    with pytest.raises(TypeError, match="abstract"):
        BaseQueue()  # type: ignore[abstract]


def test_errors_derive_from_fitting_built_ins() -> None:
    assert issubclass(QueueFull, ValueError)
    assert issubclass(DuplicateItemError, ValueError)
    assert issubclass(QueueClosed, RuntimeError)
    assert issubclass(StaleItemError, RuntimeError)


def test_an_abandoned_queue_is_freed_without_the_collector() -> None:
    queue = MemoryQueue[str]()
    queue.add("job")
    finish(queue, claim(queue))
    gone = weakref.ref(queue)
    del queue
    assert gone() is None


# Processes: each in an interpreter of its own.


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
        from reference_impl.queues.memory_queue import MemoryQueue
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads, from 3.12
        inside, leave = threading.Event(), threading.Event()

        def clock():
            inside.set()
            leave.wait()
            return 0.0

        queue = MemoryQueue(clock=clock)
        queue.add("job")
        thread = threading.Thread(target=queue.get_next)
        thread.start()
        inside.wait()
        child = os.fork()
        if child == 0:
            os._exit(0 if not queue._lock.acquire(timeout=0.01) else 1)
        assert os.waitpid(child, 0)[1] == 0
        leave.set()
        thread.join()
        assert queue.stats.processing == 1
    """)


@pytest.mark.skipif("sys.platform == 'win32'", reason="signals are sent to a thread")
@pytest.mark.guarantee("MQ-8")
def test_ctrl_c_in_a_wait_leaves_the_queue_usable() -> None:
    run_python("""
        import signal, threading
        from reference_impl.queues.memory_queue import MemoryQueue
        queue = MemoryQueue()
        asleep = threading.Event()
        wait = queue._available.wait
        queue._available.wait = lambda timeout=None: (asleep.set(), wait(timeout))[1]

        def once(*_):
            signal.signal(signal.SIGINT, lambda *_: None)
            raise KeyboardInterrupt

        def interrupt():
            asleep.wait()
            waiting = True
            while waiting:  # one signal may come just before the wait, and not be seen
                with queue._lock:  # free only once the main thread sleeps
                    waiting = queue._waiting > 0
                    if waiting:
                        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        signal.signal(signal.SIGINT, once)
        helper = threading.Thread(target=interrupt)
        helper.start()
        try:
            queue.wait_next(timeout=60)
        except KeyboardInterrupt:
            pass
        else:
            raise SystemExit("not interrupted")
        helper.join()
        assert queue._waiting == 0
        queue.add("job")
        assert queue.wait_next(timeout=0).data == "job"
    """)


@pytest.mark.skipif("sys.platform == 'win32'", reason="signals are sent to a thread")
@pytest.mark.guarantee("MQ-1", "MQ-8")
def test_ctrl_c_while_a_waiter_takes_the_lock_back_takes_it_from_nobody() -> None:
    done = run_python("""
        import signal, threading
        from reference_impl.queues.memory_queue import MemoryQueue
        queue = MemoryQueue()
        asleep, never, interrupted = threading.Event(), threading.Event(), False
        wait = queue._available.wait
        queue._available.wait = lambda timeout=None: (asleep.set(), wait(timeout))[1]

        def interrupt():
            asleep.wait()
            with queue._lock:  # free only once the main thread sleeps
                queue._available.notify()
                for _ in range(50):  # some strike when it has woken up, and waits for the lock
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                    never.wait(0.001)
                assert not interrupted and queue._waiting == 1

        helper = threading.Thread(target=interrupt)
        helper.start()
        try:
            queue.wait_next()
        except KeyboardInterrupt:
            interrupted = True
        helper.join()
        assert interrupted and queue._waiting == 0
        queue.add("job")
        assert queue.wait_next(timeout=0).data == "job"
    """)
    assert (done.stdout, done.stderr) == ("", "")
