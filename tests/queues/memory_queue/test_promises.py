"""MemoryQueue: what it promises of calls that come one after another."""

import itertools
from types import ModuleType
from typing import Any

import pytest

from reference_impl.queues import memory_queue
from tests.kit.fakes import PATIENCE, Beside, Clock
from tests.kit.proofs import Proof, each_twin, holding
from tests.kit.twins import Twin
from tests.queues.memory_queue import faults
from tests.queues.memory_queue.helpers import claim, drain, finish, state


class Blocked:
    """Tells whether the queue keeps another thread out: whether a call there does not end."""

    patience = PATIENCE

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def __call__(self) -> bool:
        other = Beside(len, self._queue)
        other.join(self.patience)
        return other.is_alive()


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
    for item in (added, queue.get(added.id), *queue, *queue.list_by_status(m.PENDING)):
        item.metadata["tags"] = 3
        item.priority = item.attempts = 99
        item.status = m.FAILED
    assert queue.get(added.id).metadata == {"tags": 1}
    claimed = claim(queue)
    assert (claimed.metadata, claimed.priority, claimed.attempts) == ({"tags": 1}, 5, 1)
    queue.update(claimed)
    claimed.metadata["tags"] = 4
    [seen] = queue
    assert seen.metadata == {"tags": 1}


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


def check_each_change_is_one_version(m: ModuleType) -> None:
    queue = m.MemoryQueue()
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


def check_iteration_is_a_snapshot(m: ModuleType) -> None:
    queue = m.MemoryQueue()
    items = [queue.add(data) for data in "abc"]
    walk = iter(queue)
    assert next(walk).data == "a"
    assert not Blocked(queue)(), "the walk keeps others out"
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

    operations = [m.MemoryQueue.get_next, m.MemoryQueue.wait_next, update]
    operations += [lambda queue: queue.requeue_stale(0), lambda queue: queue.retry_failed(delay=1)]
    operations += [lambda queue: queue.add("later", delay=1)]
    for operation, calls in itertools.product(operations, range(4)):
        times = itertools.chain(itertools.repeat(0.0))
        queue = m.MemoryQueue(clock=lambda: next(times))  # noqa: B023 - the latest
        for status in (m.PENDING, m.PROCESSING, m.FAILED) * 2:
            item = queue.add("job")
            item.status = status
            queue.update(item)
        times = itertools.chain([0.0] * calls)
        before = state(queue)
        try:
            operation(queue)
        except StopIteration:
            assert state(queue) == before
        else:
            assert calls


def check_nothing_is_released_under_the_lock(m: ModuleType) -> None:
    """A payload whose finalizer needs the queue, dropped in each way there is."""
    queue = m.MemoryQueue(keep_completed=1)
    blocked, locked = Blocked(queue), list[bool]()

    class Payload:
        def __del__(self) -> None:
            locked.append(blocked())

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


PROOFS = [
    Proof(
        "MQ-2",
        check_a_claim_is_exclusive_and_counted,
        [
            Twin(
                "leaves what it claims in its line",
                faults.leaves_it_in_its_line,
                "AssertionError: queue.get(item.id) == item",
            ),
            Twin(
                "counts no attempt",
                faults.counts_no_attempt,
                "AssertionError: (m.PROCESSING, 1)",
            ),
        ],
    ),
    Proof(
        "MQ-3",
        check_order_is_priority_then_arrival,
        [
            Twin(
                "claims by arrival alone",
                faults.claims(lambda pending: min(pending, key=lambda item: item.id)),
                'AssertionError: drain(queue) == list("0abcde")',
            )
        ],
    ),
    Proof(
        "MQ-3",
        check_requeued_items_go_behind_their_equals,
        [
            Twin(
                "puts re-queued items in front",
                faults.puts_in_front,
                'AssertionError: drain(queue) == ["b", "c", "a"]',
            )
        ],
    ),
    Proof(
        "MQ-3",
        check_a_pending_item_keeps_its_place,
        [
            Twin(
                "sends a changed item behind",
                faults.sends_what_stays_behind,
                'AssertionError: drain(queue) == ["A", "b", "c"]',
            )
        ],
    ),
    Proof("MQ-3", check_a_new_priority_moves_the_item),
    Proof(
        "MQ-4",
        check_copies_go_in_and_come_out,
        [
            Twin(name, fault, 'AssertionError: queue.get(added.id).metadata == {"tags": 1}')
            for name, fault in (
                ("gives all the same copy", faults.gives_all_the_same_copy),
                ("keeps the caller's metadata", faults.keeps_the_callers_metadata),
            )
        ],
    ),
    Proof("MQ-4", check_payloads_are_shared),
    Proof(
        "MQ-4",
        check_nothing_is_released_under_the_lock,
        [
            Twin(
                f"releases what {method} drops before its lock",
                faults.holds_its_lock(f"MemoryQueue.{method}"),
                "AssertionError: locked == [False] * 8",
            )
            for method in ("remove", "clear", "update")
        ],
    ),
    Proof(
        "MQ-5",
        check_a_stale_update_is_refused,
        [
            Twin(
                "believes the last to speak",
                faults.believes_the_last,
                "Failed: DID NOT RAISE StaleItemError",
            ),
            Twin(
                "leaves the old version in the copy",
                faults.leaves_the_old_version,
                "AssertionError: .version == mine.version",
            ),
        ],
    ),
    Proof("MQ-5", check_versions_are_never_reused),
    Proof("MQ-5", check_each_change_is_one_version),
    Proof(
        "MQ-6",
        check_iteration_is_a_snapshot,
        [
            Twin(
                "walks what is there now",
                faults.walks_what_is_there_now,
                'AssertionError: for item in walk] == ["b", "c"]',
            ),
            Twin(
                "holds its lock while it walks",
                faults.holds_its_lock("MemoryQueue.__iter__"),
                "AssertionError: the walk keeps others out",
            ),
        ],
    ),
    Proof(
        "MQ-7",
        check_only_live_items_count_as_full,
        [
            Twin(
                "counts completed items as live",
                faults.counts_completed_as_live,
                'QueueFull: queue.add("c")',
            ),
            Twin(
                "has room for one more",
                faults.has_room_for_one_more,
                "Failed: DID NOT RAISE QueueFull",
            ),
        ],
    ),
    Proof(
        "MQ-7",
        check_completed_items_are_forgotten_oldest_first,
        [
            Twin(
                "forgets the newest",
                faults.forgets_the_newest,
                'AssertionError: queue.list_by_status(m.COMPLETED)] == ["a", "c"]',
            )
        ],
    ),
    Proof("MQ-7", check_reviving_in_a_full_queue_is_refused),
    Proof(
        "MQ-9",
        check_a_closed_queue_takes_nothing_and_gives_the_rest,
        [
            Twin(
                "closes in name only",
                faults.closes_in_name_only,
                "Failed: DID NOT RAISE QueueClosed",
            ),
            Twin(
                "gives nothing once closed",
                faults.gives_nothing_once_closed,
                "AssertionError: nothing is pending",
            ),
        ],
    ),
    Proof(
        "MQ-10",
        check_failed_items_are_retried_once_each,
        [
            Twin(
                "only counts what it retries",
                faults.only_counts_what_it_retries,
                "AssertionError: queue.retry_failed() == 0",
            )
        ],
    ),
    Proof(
        "MQ-10",
        check_stale_claims_are_taken_back,
        [
            Twin(
                "never gives up",
                faults.never_gives_up,
                "AssertionError: queue.requeue_stale(10.0) == 0",
            )
        ],
    ),
    Proof(
        "MQ-10",
        check_a_progress_report_renews_the_claim,
        [
            Twin(
                "ignores reports of progress",
                faults.ignores_progress,
                "AssertionError: queue.requeue_stale(10.0) == 0",
            )
        ],
    ),
    Proof(
        "MQ-11",
        check_a_failing_clock_changes_nothing,
        [
            Twin(
                f"reads the clock after {method}",
                faults.reads_the_clock_too_late(f"MemoryQueue.{method}"),
                "AssertionError: state(queue) == before",
            )
            for method in ("get_next", "update")
        ],
    ),
]

test_promise = holding(PROOFS, memory_queue)


@each_twin(PROOFS)
def test_check_catches_a_broken_twin(
    proof: Proof, twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Blocked, "patience", 0.2)  # here others may be kept out
    proof.must_fail(twin, "queues/memory_queue")
