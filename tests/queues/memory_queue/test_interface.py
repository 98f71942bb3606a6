"""MemoryQueue: what the original got wrong, the rest of the interface, leaks."""

import copy
import itertools
import pickle
import weakref
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from enum import IntEnum

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
from tests.kit.profile import budget
from tests.queues.memory_queue import inside
from tests.queues.memory_queue.helpers import claim, drain, entries, finish

PENDING, PROCESSING, COMPLETED, FAILED, SUSPENDED = QueueItemStatus


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
    for mark, *told in (["mark_completed"], ["mark_failed", "x"], ["mark_suspended", "no licence"]):
        item = claim(queue)
        getattr(item, mark)(*told)
        queue.update(item)
    assert queue.stats == QueueStats(1, 1, 1, 1, 1)
    assert [queue.count_by_status(status) for status in QueueItemStatus] == [1] * 5
    assert [len(queue.list_by_status(status)) for status in QueueItemStatus] == [1] * 5
    assert queue.list_by_status(SUSPENDED)[0].last_error == "no licence"
    with pytest.raises(FrozenInstanceError):
        queue.stats.pending = 2  # type: ignore[misc]


def test_counting_does_not_walk_the_items() -> None:
    queue = MemoryQueue[str]()
    for _ in range(3):
        queue.add("job")
    inside.forbid_walks(queue)
    assert queue.count_by_status(PENDING) == len(queue) == queue.stats.pending == 3


class Urgency(IntEnum):
    HIGH = 1


@pytest.mark.guarantee("MQ-7")
def test_what_passes_through_leaves_nothing_behind() -> None:
    def held_after(passed: int) -> int:
        queue = MemoryQueue[int](max_size=10, keep_completed=5)
        fresh = entries(queue)
        for number in range(passed):
            item = queue.add(number, priority=number)
            if number % 2:
                assert queue.remove(item.id)
            else:
                finish(queue, claim(queue))
        held = entries(queue)
        queue.clear()
        assert entries(queue) == fresh
        return held

    assert held_after(10) == held_after(budget(10_001, 100_001))


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
    queue = MemoryQueue[str](max_size=3)
    for data in "abc":
        queue.add(data)
    item = claim(queue)
    assert queue.clear(PENDING) == 2
    assert queue.clear(FAILED) == 0
    queue.add("d")
    queue.add("e")
    with pytest.raises(QueueFull):
        queue.add("f")
    assert queue.clear() == 3
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


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_queue_is_not_copied(duplicate: Callable[[object], object]) -> None:
    queue = MemoryQueue[str]()
    queue.add("job")
    with pytest.raises(TypeError, match=r"^MemoryQueue cannot be copied or pickled: share"):
        duplicate(queue)
    assert drain(queue) == ["job"]


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]
)
def test_items_and_stats_are_copied_and_weakly_referenced(
    duplicate: Callable[[object], object],
) -> None:
    queue = MemoryQueue[str]()
    for value in (queue.add("job", metadata={"x": 1}), queue.stats, QueueItem("x", "job")):
        again = duplicate(value)
        assert again == value
        assert again is not value
        assert weakref.ref(value)() is value


def test_ids_of_a_subclass_of_str_become_exact() -> None:
    class Name(str):
        def __hash__(self) -> int:
            raise AssertionError("called")

        __eq__ = __hash__  # type: ignore[assignment]
        __str__ = __hash__  # type: ignore[assignment]

    queue = MemoryQueue[str]()
    item = queue.add("job", item_id=Name("x"))
    assert type(item.id) is str
    item.id = Name("x")
    queue.update(item)
    assert queue.get(Name("x")) is not None
    assert queue.remove(Name("x"))
