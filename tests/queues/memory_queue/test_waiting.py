"""MemoryQueue: waiting, with real threads; tests/interleavings explores it systematically."""

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from reference_impl.queues import memory_queue
from reference_impl.queues.memory_queue import MemoryQueue, QueueClosed, QueueFull, QueueItem
from tests.kit.fakes import PATIENCE, Beside
from tests.queues.memory_queue.helpers import asleep, claim, finish, wait_next, watched_queue


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
    queue, waits = watched_queue(memory_queue)
    make_pending = prepare(queue)
    waiter = asleep(queue, waits)
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
    queue, waits = watched_queue(memory_queue)
    waiters = [asleep(queue, waits) for _ in range(3)]
    for data in "abc":
        queue.add(data)
    assert sorted(waiter.result() for waiter in waiters) == ["a", "b", "c"]


@pytest.mark.guarantee("MQ-8")
def test_a_wait_that_ends_takes_nobody_elses_wake_up() -> None:
    """Waits end one by one, by an item or in vain; whoever waits on, or again, is woken."""
    queue, waits = watched_queue(memory_queue)
    ended = threading.Semaphore(0)

    def wait_and_tell() -> Any:
        try:
            return wait_next(queue)
        finally:
            ended.release()

    for _ in range(3):
        waiters = [Beside(wait_and_tell), Beside(wait_and_tell)]
        waits.await_waiting(2)
        assert asleep(queue, waits, timeout=0.01).result() == "TimeoutError"
        for _ in waiters:
            queue.add("job")
            assert ended.acquire(timeout=PATIENCE), "an item is pending, and nobody is woken"
        assert [waiter.result() for waiter in waiters] == ["job"] * 2


def test_the_bell_is_rung_once_where_nobody_waits() -> None:
    queue, waits = watched_queue(memory_queue)
    for data in "abc":
        queue.add(data)
        assert queue.wait_next().data == data
    assert waits.notified == 1
    assert asleep(queue, waits, timeout=0.01).result() == "TimeoutError"
    waiter = asleep(queue, waits)
    queue.add("awaited")
    assert waiter.result() == "awaited"
    assert waits.notified == 2


@pytest.mark.guarantee("MQ-9")
def test_close_releases_all_who_wait() -> None:
    queue, waits = watched_queue(memory_queue)
    waiters = [asleep(queue, waits), asleep(queue, waits, timeout=600)]
    queue.close()
    assert [waiter.result() for waiter in waiters] == ["QueueClosed"] * 2


def test_a_wait_ends_with_its_timeout() -> None:
    queue, waits = watched_queue(memory_queue)
    assert asleep(queue, waits, timeout=0.01).result() == "TimeoutError"


@pytest.mark.guarantee("MQ-1")
def test_threads_hand_out_each_of_many_items_once() -> None:
    """No search, but real threads, which on free-threaded builds run at the same time."""
    queue, start = MemoryQueue[int](max_size=50), threading.Barrier(8)

    def produce(first: int) -> None:
        start.wait()
        for number in range(first, 1000, 4):
            while True:
                try:
                    queue.add(number, priority=number % 3)
                    break
                except QueueFull:
                    queue.retry_failed()

    def work() -> list[QueueItem[int]]:
        start.wait()
        mine = list[QueueItem[int]]()
        while True:
            try:
                item = queue.wait_next()
            except QueueClosed:
                return mine
            mine.append(item)
            if item.data % 10 == item.attempts:
                item.mark_failed("once more")
            else:
                item.mark_completed()
            queue.update(item)

    producers = [Beside(produce, number) for number in range(4)]
    workers = [Beside(work) for _ in range(4)]
    for producer in producers:
        producer.result()
    queue.close()
    claimed = [item for worker in workers for item in worker.result()]
    while queue.retry_failed():  # what failed last, when nobody was left to retry it
        claimed += [claim(queue) for _ in range(queue.stats.pending)]
    # Those that end in 1 fail their first attempt, and so are claimed twice.
    assert sorted((item.data, item.attempts) for item in claimed) == sorted(
        [(number, 1) for number in range(1000)] + [(number, 2) for number in range(1, 1000, 10)]
    )
