"""MemoryQueue: what it refuses; the message names argument and value, and nothing has changed."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from reference_impl.queues.memory_queue import DuplicateItemError, MemoryQueue
from tests.queues.memory_queue.helpers import claim, drain, finish, state

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
    ("delay-negative", lambda q: q.add(1, delay=-1), ValueError, "delay.*-1"),
    ("delay-nan", lambda q: q.add(1, delay=math.nan), ValueError, "delay.*nan"),
    ("delay-bool", lambda q: q.add(1, delay=False), TypeError, "delay.*False"),
    ("delay-none", lambda q: q.add(1, delay=None), TypeError, "delay.*None"),  # type: ignore[arg-type]
    ("room-negative", lambda q: q.add(1, timeout=-0.1), ValueError, "timeout.*-0.1"),
    ("room-nan", lambda q: q.add(1, timeout=math.nan), ValueError, "timeout.*nan"),
    ("room-bool", lambda q: q.add(1, timeout=False), TypeError, "timeout.*False"),
    ("room-twice", lambda q: q.add(1, item_id="x", timeout=1), DuplicateItemError, "item_id 'x'"),
    ("retry-text", lambda q: q.retry_failed(delay="1"), TypeError, "delay.*'1'"),  # type: ignore[arg-type]
    ("update-nan", lambda q: q.update(next(iter(q)), delay=math.nan), ValueError, "delay.*nan"),
    ("update-done", lambda q: q.update(next(iter(q)), delay=1), ValueError, "delay must be 0.*1"),
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


@pytest.mark.parametrize("endless", [10**400, math.inf])
def test_a_number_beyond_all_floats_is_without_end(endless: float) -> None:
    queue = MemoryQueue[str](max_size=10**400)
    queue.add("job", timeout=endless, priority=10**400, max_attempts=10**400)
    item = queue.wait_next(timeout=endless)
    assert queue.requeue_stale(endless) == 0
    item.mark_failed("x")
    queue.update(item)
    assert queue.retry_failed(delay=endless) == 1
    assert queue.add("never", delay=endless).priority == 5
    assert (queue.get_next(), queue.stats.pending) == (None, 2)


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
