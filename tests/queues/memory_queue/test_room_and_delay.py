"""MemoryQueue: waiting for room, and for an item that is not due, with real threads."""

import math
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from reference_impl.queues import memory_queue
from tests.kit.fakes import Beside, Clock
from tests.kit.primitives import Waits, watched
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin
from tests.queues.memory_queue import faults
from tests.queues.memory_queue.helpers import asleep, claim, drain, finish, watched_queue


def waiting_add(queue: Any, waits: Waits, data: str, **options: Any) -> Beside:
    """A thread that waits for room, known to be asleep by now; its result is the item."""
    adder = Beside(queue.add, data, **{"timeout": None, **options})
    waits.await_waiting()
    return adder


def complete(queue: Any) -> None:
    finish(queue, claim(queue))


WAYS: list[Callable[[Any], object]] = [
    complete,
    lambda queue: queue.remove("first"),
    lambda queue: queue.clear(),
]


def check_an_add_waits_for_room(m: ModuleType) -> None:
    for make_room in WAYS:
        with watched(m) as waits:
            queue = m.MemoryQueue(max_size=1)
            queue.add("a", item_id="first", timeout=None)
            adder = waiting_add(queue, waits, "b", priority=1, metadata={"x": 1})
            assert len(queue) == 1
            make_room(queue)
            item = adder.result()
        assert (item.data, item.priority, item.metadata) == ("b", 1, {"x": 1})
        assert queue.get(item.id) == item
        assert claim(queue).data == "b"


def check_adds_get_room_in_their_order(m: ModuleType) -> None:
    with watched(m) as waits:
        queue = m.MemoryQueue(max_size=1)
        queue.add("first", item_id="first")
        adders = [waiting_add(queue, waits, data) for data in "abc"]
        for data, adder in zip("abc", adders, strict=True):
            complete(queue)
            assert adder.result().data == data, "another was quicker"
            with pytest.raises(m.QueueFull, match="1 live items"):
                queue.add("barges")


def check_a_wait_for_room_ends(m: ModuleType) -> None:
    with watched(m) as waits:
        queue = m.MemoryQueue(max_size=1)
        queue.add("a")
        for timeout in (0, 0.01):
            with pytest.raises(m.QueueFull, match="1 live items, its max_size"):
                queue.add("b", timeout=timeout)
        waits.forget()
        adders = [waiting_add(queue, waits, data) for data in "bc"]
        with pytest.raises(m.QueueFull, match=r"^others wait for room"):
            queue.add("d", timeout=0.01)
        queue.close()
        for adder in adders:
            with pytest.raises(m.QueueClosed):
                adder.result()
    assert drain(queue) == ["a"]


def check_one_that_gives_up_holds_up_nobody(m: ModuleType) -> None:
    """The second of three leaves; the third gets what comes after the first."""
    with watched(m) as waits:
        queue = m.MemoryQueue(max_size=1)
        queue.add("a")
        first = waiting_add(queue, waits, "b")
        with pytest.raises(m.QueueFull):
            queue.add("c", timeout=0.001)
        waits.forget()
        third = waiting_add(queue, waits, "d")
        complete(queue)
        assert first.result().data == "b"
        complete(queue)
        assert third.result().data == "d"


def check_much_room_serves_many(m: ModuleType) -> None:
    with watched(m) as waits:
        queue = m.MemoryQueue(max_size=3)
        for data in "xyz":
            queue.add(data)
        adders = [waiting_add(queue, waits, data) for data in "abc"]
        assert queue.clear() == 3
        assert [adder.result().data for adder in adders] == list("abc")
    assert drain(queue) == list("abc")


def check_a_delayed_item_is_claimed_once_it_is_due(m: ModuleType) -> None:
    clock = Clock()
    queue = m.MemoryQueue(clock=clock)
    queue.add("later", priority=1, delay=5.0)
    queue.add("latest", priority=0, delay=9)
    queue.add("now")
    assert [item.data for item in queue.list_by_status(m.PENDING)] == ["now", "later", "latest"]
    assert (queue.stats.pending, len(queue)) == (3, 3)
    assert drain(queue) == ["now"]
    with pytest.raises(TimeoutError):
        queue.wait_next(timeout=0)
    clock.now = 4.999
    assert queue.get_next() is None
    clock.now = 5.0
    assert queue.wait_next(timeout=0).data == "later"
    queue.add("behind")
    clock.now = 9.0
    assert drain(queue) == ["latest", "behind"]


def check_an_item_that_is_due_has_its_place_by_arrival(m: ModuleType) -> None:
    clock = Clock()
    queue = m.MemoryQueue(clock=clock)
    for data, delay in [("b", 2.0), ("a", 0.0), ("c", 1.0)]:
        queue.add(data, delay=delay)
    clock.now = 1.0
    assert claim(queue).data == "a"
    clock.now = 2.0
    queue.add("d")
    assert [item.data for item in queue.list_by_status(m.PENDING)] == ["b", "c", "d"]
    assert drain(queue) == ["b", "c", "d"]


def check_a_retry_can_be_delayed(m: ModuleType) -> None:
    clock = Clock()
    queue = m.MemoryQueue(max_size=2, clock=clock)
    for data in "ab":
        queue.add(data)
    first, second = claim(queue), claim(queue)
    first.mark_failed("x")
    queue.update(first)
    assert queue.retry_failed(delay=3.0) == 1
    second.reset_to_pending()
    queue.update(second, delay=7.0)
    assert queue.stats.pending == 2
    with pytest.raises(m.QueueFull):
        queue.add("c")
    assert queue.get_next() is None, "too early"
    clock.now = 3.0
    assert claim(queue).data == "a"
    assert queue.get_next() is None, "too early"
    clock.now = 7.0
    assert claim(queue).data == "b"


def check_a_delayed_item_can_be_changed_and_dropped(m: ModuleType) -> None:
    clock = Clock()
    queue = m.MemoryQueue(clock=clock)
    items = [queue.add(data, delay=2.0) for data in "abcd"]
    items[0].data, items[0].priority = "A", 9
    queue.update(items[0])  # keeps its delay
    assert queue.get_next() is None, "an update ends no delay"
    queue.update(items[1], delay=5.0)
    items[2].mark_suspended()
    queue.update(items[2])
    assert queue.remove(items[3].id)
    clock.now = 2.0
    assert drain(queue) == ["A"]
    items[2].reset_to_pending()
    queue.update(items[2])
    assert drain(queue) == ["c"]
    clock.now = 5.0
    assert drain(queue) == ["b"]
    queue.add("e", delay=1.0)
    assert queue.clear(m.PENDING) == 1
    clock.now = 99.0
    assert queue.get_next() is None


PROOFS = [
    Proof(
        "MQ-13",
        check_an_add_waits_for_room,
        [
            Twin(
                "does not wait",
                faults.forgets("MemoryQueue.add", "timeout"),
                "AssertionError: nobody waits",
            )
        ],
    ),
    Proof(
        "MQ-13",
        check_adds_get_room_in_their_order,
        [
            Twin(
                "has room for one more",
                faults.has_room_for_one_more,
                "AssertionError: nobody waits",
            )
        ],
    ),
    Proof("MQ-13", check_a_wait_for_room_ends),
    Proof("MQ-13", check_one_that_gives_up_holds_up_nobody),
    Proof("MQ-13", check_much_room_serves_many),
    Proof(
        "MQ-12",
        check_a_delayed_item_is_claimed_once_it_is_due,
        [
            Twin(
                "adds it without the delay",
                faults.forgets("MemoryQueue.add", "delay"),
                "AssertionError: queue.list_by_status(m.PENDING)] ==",
            )
        ],
    ),
    Proof("MQ-12", check_an_item_that_is_due_has_its_place_by_arrival),
    Proof(
        "MQ-12",
        check_a_retry_can_be_delayed,
        [
            Twin(
                f"forgets the delay in {method}",
                faults.forgets(f"MemoryQueue.{method}", "delay"),
                "AssertionError: too early",
            )
            for method in ("update", "retry_failed")
        ],
    ),
    Proof("MQ-12", check_a_delayed_item_can_be_changed_and_dropped),
]

test_promise = holding(PROOFS, memory_queue)


@pytest.fixture(autouse=True)
def little_patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A twin that does not wait is not waited for."""
    if "twin" in request.node.name:
        patient = Waits.await_waiting
        monkeypatch.setattr(Waits, "await_waiting", lambda self: patient(self, patience=0.2))


test_check_catches_a_broken_twin = failing(PROOFS, "queues/memory_queue")


# Waiting for what is not due. The clock says how long; real time is waited.


@pytest.mark.guarantee("MQ-12")
def test_a_waiter_sleeps_until_the_first_is_due() -> None:
    clock = Clock()
    queue, waits = watched_queue(memory_queue, clock=clock)
    queue.add("in an hour", delay=3600)
    waiter = asleep(queue, waits)
    assert waits.timeouts[-1] == 3600
    clock.tick(600)
    queue.add("in ten minutes", delay=600)
    waits.await_waiting()
    assert waits.timeouts[-1] == 600
    clock.tick(600)
    queue.add("now", priority=9)
    assert waiter.result() == "in ten minutes"


@pytest.mark.guarantee("MQ-12")
def test_a_waiter_gets_what_becomes_due_while_it_sleeps() -> None:
    queue = memory_queue.MemoryQueue[str]()
    queue.add("soon", delay=0.02)
    queue.add("later", delay=3600)
    begun = time.monotonic()
    assert queue.wait_next().data == "soon"
    assert time.monotonic() - begun >= 0.019
    with pytest.raises(TimeoutError):
        queue.wait_next(timeout=0.01)


@pytest.mark.guarantee("MQ-12")
def test_a_sleeper_hears_of_what_another_call_found_due() -> None:
    """The clock may be ahead of real time: whoever lines up what is due wakes the sleepers."""
    clock = Clock()
    queue, waits = watched_queue(memory_queue, clock=clock)
    for data in "ab":
        queue.add(data, delay=3600)
    waiter = asleep(queue, waits)
    clock.tick(3600)
    assert claim(queue).data == "a"
    assert waiter.result() == "b"


@pytest.mark.parametrize("delay", [math.inf, 10**400])
def test_a_delay_without_end_waits_for_an_update(delay: float) -> None:
    queue, waits = watched_queue(memory_queue, clock=Clock())
    item = queue.add("job", delay=delay)
    waiter = asleep(queue, waits)
    assert waits.timeouts[-1] is None
    item.mark_suspended()
    queue.update(item)
    item.reset_to_pending()
    queue.update(item)
    assert waiter.result() == "job"
