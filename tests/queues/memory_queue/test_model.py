"""MemoryQueue against a plain model: a list of dicts, searched by brute force."""

import itertools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings, stateful
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reference_impl.queues import memory_queue
from tests.kit.profile import budget, same_each_time
from tests.kit.proofs import Proof, failing
from tests.kit.twins import Twin
from tests.queues.memory_queue import faults, inside

LIVE = ("pending", "processing", "failed", "suspended")
PRIORITIES = st.integers(-1, 1)
DELAYS = st.just(0) | st.integers(1, 2)
STATUSES = st.sampled_from(["pending", "processing", "completed", "failed", "suspended"])


def machine(m: ModuleType) -> type[RuleBasedStateMachine]:
    """The state machine for this module, which may be a broken twin."""

    class MemoryQueueMachine(RuleBasedStateMachine):
        @initialize(
            max_size=st.none() | st.integers(1, 4),
            keep_completed=st.integers(0, 2),
            attempts=st.integers(1, 2),
        )
        def start(self, max_size: int | None, keep_completed: int, attempts: int) -> None:
            self.now = 0.0
            self.queue = m.MemoryQueue(
                max_size,
                default_max_attempts=attempts,
                keep_completed=keep_completed,
                clock=lambda: self.now,
            )
            self.max_size, self.keep, self.attempts = max_size, keep_completed, attempts
            self.rows: list[dict[str, Any]] = []  # in the order of arrival
            self.tick = itertools.count()  # numbers each change
            self.copies: list[tuple[Any, int]] = []  # given out, with the row's state then
            self.closed = False

        # The model's side.

        def with_status(self, status: str) -> list[dict[str, Any]]:
            rows = [row for row in self.rows if row["status"] == status]
            if status != "pending":
                return sorted(rows, key=lambda row: row["turn"])
            delayed = sorted(self.delayed(rows), key=lambda row: (row["due"], row["turn"]))
            ready = [row for row in rows if row not in delayed]
            return sorted(ready, key=lambda row: (row["priority"], row["turn"])) + delayed

        def delayed(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [row for row in rows if row["due"] > self.now]

        def claimable(self) -> list[dict[str, Any]]:
            pending = self.with_status("pending")
            return [row for row in pending if row not in self.delayed(pending)]

        def full(self) -> bool:
            live = sum(row["status"] in LIVE for row in self.rows)
            return self.max_size is not None and live >= self.max_size

        def place(self, row: dict[str, Any], status: str, priority: int, delay: int = 0) -> None:
            row["changed"] = next(self.tick)
            moved = status == "pending" and row["priority"] != priority
            stays_delayed = row["status"] == status and self.delayed([row]) and not delay
            if (row["status"] != status or moved or delay) and not stays_delayed:
                row["turn"], row["due"] = row["changed"], self.now + delay
            row.update(status=status, priority=priority, since=self.now)
            done = self.with_status("completed")
            for forgotten in done[: max(0, len(done) - self.keep)]:
                self.rows.remove(forgotten)

        def row_of(self, item: Any) -> dict[str, Any] | None:
            return next((row for row in self.rows if row["id"] == item.id), None)

        def keep_copy(self, item: Any) -> None:
            row = self.row_of(item)
            if row is not None:
                self.copies.append((item, row["changed"]))

        # The rules.

        @rule(
            priority=PRIORITIES, item_id=st.none() | st.sampled_from(["x", "item-3"]), delay=DELAYS
        )
        def add(self, priority: int, item_id: str | None, delay: int) -> None:
            if self.closed:
                error = m.QueueClosed
            elif any(row["id"] == item_id for row in self.rows):
                error = m.DuplicateItemError
            elif self.full():
                error = m.QueueFull
            else:
                item = self.queue.add(object(), priority=priority, item_id=item_id, delay=delay)
                assert self.row_of(item) is None, "an id in use was made up"
                row = {"id": item.id, "data": item.data, "attempts": 0, "status": "pending"}
                row["priority"], row["turn"] = priority, next(self.tick)
                row["due"] = self.now + delay
                self.rows.append(row | {"changed": row["turn"]})
                self.keep_copy(item)
                return
            with pytest.raises(error):
                self.queue.add(object(), priority=priority, item_id=item_id, delay=delay)

        @rule(wait=st.booleans())
        def claim(self, wait: bool) -> None:
            pending = self.claimable()
            if not pending and wait:
                with pytest.raises(m.QueueClosed if self.closed else TimeoutError):
                    self.queue.wait_next(timeout=0)
                return
            item = self.queue.wait_next(timeout=0) if wait else self.queue.get_next()
            if not pending:
                assert item is None
                return
            assert item.id == pending[0]["id"]
            pending[0]["attempts"] += 1
            self.place(pending[0], "processing", item.priority)
            self.keep_copy(item)

        @precondition(lambda self: self.copies)
        @rule(data=st.data(), status=STATUSES, priority=PRIORITIES, delay=DELAYS)
        def update(self, data: st.DataObject, status: str, priority: int, delay: int) -> None:
            delay = delay if status == "pending" else 0
            # The newest copies are the likeliest to be current.
            index = data.draw(st.integers(0, min(5, len(self.copies) - 1)), label="copy")
            item, changed = self.copies[-1 - index]
            row = self.row_of(item)
            before = (item.status, item.priority)
            item.status, item.priority = m.QueueItemStatus(status), priority
            if row is None or row["changed"] != changed:
                error = m.StaleItemError
            elif row["status"] == "completed" and status != "completed" and self.full():
                error = m.QueueFull
            else:
                self.queue.update(item, delay=delay)
                del self.copies[-1 - index]
                row["attempts"] = item.attempts
                self.place(row, status, priority, delay)
                self.keep_copy(item)
                return
            with pytest.raises(error):
                self.queue.update(item, delay=delay)
            item.status, item.priority = before

        @precondition(lambda self: self.rows)
        @rule(data=st.data())
        def get(self, data: st.DataObject) -> None:
            row = data.draw(st.sampled_from(self.rows))
            self.keep_copy(self.queue.get(row["id"]))

        @rule(item_id=st.sampled_from(["x", "item-1", "item-2", "item-3"]))
        def remove(self, item_id: str) -> None:
            found = [row for row in self.rows if row["id"] == item_id]
            assert self.queue.remove(item_id) is bool(found)
            self.rows = [row for row in self.rows if row not in found]

        @rule(status=STATUSES)
        def clear(self, status: str) -> None:
            found = self.with_status(status)
            assert self.queue.clear(m.QueueItemStatus(status)) == len(found)
            self.rows = [row for row in self.rows if row not in found]

        @rule(delay=DELAYS)
        def retry_failed(self, delay: int) -> None:
            self.requeue(
                [r for r in self.with_status("failed") if r["attempts"] < self.attempts],
                lambda: self.queue.retry_failed(delay=delay),
                delay,
            )

        @rule(age=st.integers(0, 3))
        def requeue_stale(self, age: int) -> None:
            stale = [r for r in self.with_status("processing") if self.now - r["since"] >= age]
            self.requeue(stale, lambda: self.queue.requeue_stale(age))

        def requeue(
            self, rows: list[dict[str, Any]], call: Callable[[], int], delay: int = 0
        ) -> None:
            assert call() == sum(row["attempts"] < self.attempts for row in rows)
            for row in rows:
                status = "pending" if row["attempts"] < self.attempts else "failed"
                self.place(row, status, row["priority"], delay)
                self.keep_copy(self.queue.get(row["id"]))

        @rule(seconds=st.integers(0, 2))
        def time_passes(self, seconds: int) -> None:
            self.now += seconds

        @rule(sure=st.integers(0, 9))
        def close(self, sure: int) -> None:
            if sure == 9:  # rarely: a closed queue is soon a dull one
                self.queue.close()
                self.closed = True

        # What must hold after every step.

        @invariant()
        def the_same_items_in_the_same_order(self) -> None:
            if not hasattr(self, "queue"):
                return
            assert [(i.id, i.data, i.attempts) for i in self.queue] == [
                (row["id"], row["data"], row["attempts"]) for row in self.rows
            ]
            for status in m.QueueItemStatus:
                rows = self.with_status(status.value)
                found = self.queue.list_by_status(status)
                assert [item.id for item in found] == [row["id"] for row in rows]
                assert {item.status for item in found} <= {status}
                assert self.queue.count_by_status(status) == len(rows)
                assert getattr(self.queue.stats, status.value) == len(rows)
            assert self.queue.size == len(self.queue) == len(self.rows)

    return MemoryQueueMachine


@pytest.mark.guarantee("MQ-3")
class TestMemoryQueue(machine(memory_queue).TestCase):  # type: ignore[misc]
    settings = settings(max_examples=budget(100, 300), stateful_step_count=40)


class Inspected(machine(memory_queue)):  # type: ignore[misc]
    """The same, with a look inside after every step."""

    @invariant()
    def every_id_stands_in_one_place(self) -> None:
        if (queue := getattr(self, "queue", None)) is not None:
            inside.assert_consistent(queue)


class TestInside(Inspected.TestCase):  # type: ignore[misc,name-defined]
    settings = settings(max_examples=budget(30, 100), stateful_step_count=40)


SEARCH = same_each_time(2000, stateful_step_count=40)
SAME = "AssertionError: for i in self.queue] == ["  # the queue holds what the model holds


def check_model(m: ModuleType) -> None:
    stateful.run_state_machine_as_test(machine(m), settings=SEARCH)


PROOF = Proof(
    "MQ-3",
    check_model,
    [
        Twin(
            "claims the least urgent",
            faults.claims(lambda pending: max(pending, key=lambda item: item.priority)),
            'AssertionError: item.id == pending[0]["id"]',
        ),
        Twin(
            "leaves what it claims in its line",
            faults.leaves_it_in_its_line,
            "AssertionError: for item in found] == [",
        ),
        Twin(
            "counts what was removed",
            faults.counts_what_was_removed,
            "AssertionError: self.queue.size == len(self.queue) == len(self.rows)",
        ),
        Twin("counts no attempt", faults.counts_no_attempt, SAME),
        Twin(
            "forgets a new delay",
            faults.forgets("MemoryQueue.update", "delay"),
            "AssertionError: for item in found] == [",
        ),
        Twin(
            "believes the last to speak",
            faults.believes_the_last,
            (
                "Failed: DID NOT RAISE StaleItemError",
                "QueueFull: self.queue.update(item, delay=delay)",
            ),
        ),
        Twin(
            "leaves the old version",
            faults.leaves_the_old_version,
            "StaleItemError: self.queue.update(item, delay=delay)",
        ),
        Twin("never forgets", faults.never_forgets, SAME),
        Twin(
            "has room for one more", faults.has_room_for_one_more, "Failed: DID NOT RAISE QueueFull"
        ),
        Twin("never gives up", faults.never_gives_up, "AssertionError: assert call() == sum("),
        Twin(
            "makes up ids in use",
            faults.makes_up_ids_in_use,
            ("AssertionError: an id in use was made up", "Failed: DID NOT RAISE QueueFull", SAME),
        ),
        Twin("loses what it refuses", faults.loses_what_it_refuses, SAME),
        Twin(
            "closes in name only",
            faults.closes_in_name_only,
            (
                "Failed: DID NOT RAISE QueueClosed",
                "TimeoutError: self.queue.wait_next(timeout=0)",
                "DuplicateItemError: self.queue.add(object()",
            ),
        ),
    ],
)

test_the_model_catches_a_broken_twin = failing([PROOF], "queues/memory_queue")
