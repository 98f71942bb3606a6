# memory_queue.py: an in-process job queue whose items have a status (MemoryQueue)
# https://executable-guarantees.example/queues/memory_queue.html
# Version 1.0.1 (2026-11-28); Python 3.11 to 3.14, with or without the GIL; standard library only
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""A job queue in memory: claim an item, work on it, report how it went.

Copies go in and copies come out: a claimed item is changed by its `mark_...` methods, and the
queue hears of it by `update`, which refuses a report that comes too late.
"""

import threading
import time
from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from operator import attrgetter
from typing import Generic, Self, TypeVar

__all__ = ["BaseQueue", "MemoryQueue", "QueueItem", "QueueItemStatus", "QueueStats"]
__all__ += ["DuplicateItemError", "QueueClosed", "QueueFull", "StaleItemError"]

T = TypeVar("T")
V = TypeVar("V")
N = TypeVar("N", bound=float)


class QueueFull(ValueError):
    """The queue holds `max_size` live items; nothing was changed."""


class QueueClosed(RuntimeError):
    """The queue takes no new items, or (in `wait_next`) has none left to claim."""


class StaleItemError(RuntimeError):
    """The stored item was changed or removed after this copy was taken; nothing was changed."""


class DuplicateItemError(ValueError):
    """An item with this id is in the queue; nothing was changed."""


class QueueItemStatus(StrEnum):
    """Where an item stands. All but COMPLETED are live."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    SUSPENDED = "suspended"


PENDING, PROCESSING, COMPLETED, FAILED, SUSPENDED = QueueItemStatus


@dataclass(slots=True)
class QueueItem(Generic[T]):
    """One job, as the caller's own copy: changes reach the queue by `MemoryQueue.update`.

    The payload `data` is shared, not copied. `attempts` counts the claims, and `version` the
    changes in the queue: it tells a current copy from a stale one. `created_at` and
    `updated_at` (aware, UTC) are for people; nothing is decided by them.

    Thread safety:
        Safe on distinct objects: a copy is for one thread at a time.
    """

    id: str
    data: T
    priority: int = 5
    status: QueueItemStatus = PENDING
    attempts: int = 0
    max_attempts: int = 3
    last_error: str | None = None
    metadata: dict[str, object] = field(default_factory=dict)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    version: int = 0

    def mark_processing(self) -> None:
        """Set PROCESSING, and count an attempt unless the status is PROCESSING already."""
        if self.status is not PROCESSING:
            self.attempts += 1
        self.status = PROCESSING

    def mark_completed(self) -> None:
        """Set COMPLETED and forget the last error."""
        self.status, self.last_error = COMPLETED, None

    def mark_failed(self, error: str | BaseException) -> None:
        """Set FAILED; of an exception only the `repr` is kept, and no frames with it."""
        self.status, self.last_error = FAILED, error if isinstance(error, str) else repr(error)

    def mark_suspended(self, reason: str | None = None) -> None:
        """Set SUSPENDED, which nobody claims; a `reason` replaces the last error."""
        self.status, self.last_error = SUSPENDED, reason or self.last_error

    def reset_to_pending(self) -> None:
        """Set PENDING; attempts and last error stay, and another claim is granted."""
        self.status = PENDING

    @property
    def can_retry(self) -> bool:
        """Whether an attempt is left, so that a failure or a lost claim is retried."""
        return self.attempts < self.max_attempts


# What the queue keeps of an item: its fields as a tuple. A tuple cannot change, so a list of
# them is a snapshot, and a copy for a caller can be made after the lock is released.
_Stored = tuple[
    str, T, int, QueueItemStatus, int, int, str | None, dict[str, object], datetime, datetime, int
]
_to_stored = attrgetter(*(each.name for each in fields(QueueItem)))


def _copy(stored: _Stored[T]) -> QueueItem[T]:
    item = QueueItem(*stored)
    item.metadata = item.metadata.copy()
    return item


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How many items had which status at one instant."""

    pending: int
    processing: int
    completed: int
    failed: int
    suspended: int


class BaseQueue(ABC, Generic[T]):
    """What a job queue offers, wherever it keeps its items. `add` may take more arguments."""

    @abstractmethod
    def add(self, data: T) -> QueueItem[T]:
        """Add a pending item, and return a copy of it."""

    @abstractmethod
    def get_next(self) -> QueueItem[T] | None:
        """Claim the next pending item, if there is one."""

    @abstractmethod
    def update(self, item: QueueItem[T]) -> None:
        """Store what the caller changed in a copy."""

    @abstractmethod
    def remove(self, item_id: str) -> bool:
        """Remove an item, and say whether it was there."""

    @abstractmethod
    def get(self, item_id: str) -> QueueItem[T] | None:
        """Return a copy of an item, if it is there."""

    @abstractmethod
    def list_by_status(self, status: QueueItemStatus) -> list[QueueItem[T]]:
        """Return copies of the items that have this status."""

    @abstractmethod
    def count_by_status(self, status: QueueItemStatus) -> int:
        """Count the items that have this status."""

    @abstractmethod
    def clear(self, status: QueueItemStatus | None = None) -> int:
        """Remove the items that have this status, or all, and return how many."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many items there are, of any status."""


class MemoryQueue(BaseQueue[T]):
    """Jobs between threads: the most urgent first, each to one worker at a time, with retries.

    Examples:
        >>> queue = MemoryQueue[str](max_size=100)
        >>> queue.add("report.xml", priority=1).id
        'item-1'
        >>> item = queue.get_next()
        >>> item.data, item.status.value, item.attempts
        ('report.xml', 'processing', 1)
        >>> item.mark_completed()
        >>> queue.update(item)
        >>> queue.stats.completed
        1

    Args:
        max_size: Most live items at a time; None, the default, is no limit.
        default_max_attempts: For items added without `max_attempts`; at least 1.
        keep_completed: How many COMPLETED items to remember; older ones are forgotten.
        clock: Seconds, for the age of claims; called under the lock, must not call the queue.

    Raises:
        TypeError, ValueError: A bad argument, here and in each method; nothing has changed.

    Cost:
        No call for one item grows with the number of items. It grows, by a binary search,
        with the number of distinct priorities that are pending.

    Thread safety:
        Atomic and internally synchronized. No user code runs and no payload is released
        under the lock, so a payload's `__del__` may call the queue that drops it.

    * Signal handlers, and finalizers that the cyclic collector runs, must not call the queue:
      the thread that they interrupt may hold the lock.
    * Fork: the child's copy is its own, but locked for ever if another thread was inside a
      call at that moment. Fork first, then start threads.
    * Interpreter exit: there is no thread to stop. `close` releases the threads that wait;
      what is left in memory is lost.
    * Free-threaded build: the same guarantees; nothing rests on the GIL.
    """

    def __init__(
        self,
        max_size: int | None = None,
        *,
        default_max_attempts: int = 3,
        keep_completed: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_size = None if max_size is None else _at_least(1, "max_size", max_size, int)
        self._max_attempts = _at_least(1, "default_max_attempts", default_max_attempts, int)
        self._keep_completed = _at_least(0, "keep_completed", keep_completed, int)
        if not callable(clock):
            raise TypeError(f"clock must be a function that returns seconds, not {clock!r}")
        self._clock = clock
        # Whenever the lock is free, the id of each item in _items stands in one place: in the
        # line of its priority while it is pending, else in _since under its status.
        # _priorities are those of the lines, sorted, and no line is empty.
        # Never entered twice; an RLock since Ctrl-C cannot end a wait without giving it back.
        self._lock = threading.RLock()
        self._available = threading.Condition(self._lock)  # another item is pending, or closed
        self._waiting = 0  # threads in _available.wait()
        self._items: dict[str, _Stored[T]] = {}
        self._lines: dict[int, OrderedDict[str, None]] = {}
        self._priorities: list[int] = []
        self._claimed_at: dict[str, float] = {}
        self._completed_at: OrderedDict[str, float] = OrderedDict()
        self._since: dict[QueueItemStatus, dict[str, float]] = {
            PROCESSING: self._claimed_at,
            COMPLETED: self._completed_at,
            FAILED: {},
            SUSPENDED: {},
        }
        self._version = 0  # the latest that was given out
        self._closed = False

    def add(
        self,
        data: T,
        *,
        item_id: str | None = None,
        priority: int = 5,
        max_attempts: int | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> QueueItem[T]:
        """Add a pending item behind those of its priority, and return a copy of it.

        Args:
            data: The payload, shared with the caller.
            item_id: Must not be in the queue; made up if None.
            priority: Lower numbers are claimed first.
            max_attempts: Claims after which `retry_failed` and `requeue_stale` give it up.
            metadata: Notes on the item; copied one level deep.

        Raises:
            QueueFull: There are `max_size` live items: retry when workers have finished some.
            QueueClosed: The queue is closed.
            DuplicateItemError: An item with this id is in the queue, perhaps completed.
        """
        if item_id is not None:
            _checked("item_id", item_id, str)
        if type(priority) is not int:
            priority = int(_checked("priority", priority, int))
        limit = self._max_attempts
        if max_attempts is not None:
            limit = _at_least(1, "max_attempts", max_attempts, int)
        notes = {} if metadata is None else dict(_checked("metadata", metadata, Mapping))
        now = datetime.now(UTC)
        with self._lock:
            if self._closed:
                raise QueueClosed("the queue is closed: it takes no new items")
            version = self._version + 1
            if item_id is None:
                while (key := f"item-{version}") in self._items:
                    version += 1
            elif (key := item_id) in self._items:
                raise DuplicateItemError(f"item_id {key!r} is in the queue: remove it first")
            if self._max_size is not None:
                self._check_room_locked(self._max_size)
            new = key, data, priority, PENDING, 0, limit, None, notes, now, now, version
            self._version = version
            self._items[key] = new
            self._line_up_locked(key, priority)
        return _copy(new)

    def get_next(self) -> QueueItem[T] | None:
        """Claim the next pending item, if there is one.

        In the same step it becomes PROCESSING and the attempt is counted. Nobody else gets it
        until its `update` to PENDING, or until `requeue_stale` takes the claim back.
        """
        with self._lock:
            claimed = self._claim_locked() if self._priorities else None
        return None if claimed is None else _copy(claimed)

    def wait_next(self, timeout: float | None = None) -> QueueItem[T]:
        """Claim the next pending item, waiting up to `timeout` seconds for one.

        Raises:
            TimeoutError: Nothing was pending in time.
            QueueClosed: The queue is closed and nothing is pending.
        """
        if timeout is not None:
            timeout = min(_at_least(0, "timeout", timeout, int, float), threading.TIMEOUT_MAX)
        with self._lock:
            try:
                if not self._priorities:
                    self._wait_locked(timeout)
                claimed = self._claim_locked()
            except BaseException:
                # Say KeyboardInterrupt: a notify may have come first, for an item that this
                # thread now leaves to the next one.
                if self._priorities:
                    self._available.notify()
                raise
        return _copy(claimed)

    def update(self, item: QueueItem[T]) -> None:
        """Store what the caller changed; `item.version` becomes the stored version.

        Any change of status is allowed. An item set to PENDING goes behind its equals; one
        that was PENDING at that priority already keeps its place.

        Raises:
            StaleItemError: The item was changed or removed after this copy was taken.
            QueueFull: A completed item was to live again, and there is no room.
        """
        new = _checked_copy(item)
        forgotten = None
        with self._lock:
            stored = self._items.get(new.id)
            old = None if stored is None else QueueItem(*stored)
            if old is None or old.version != new.version:
                raise StaleItemError(
                    f"item {new.id!r} was changed or removed after version {new.version}, "
                    "which you hold: get it again and decide anew"
                )
            if self._max_size is not None and old.status is COMPLETED is not new.status:
                self._check_room_locked(self._max_size)
            self._replace_locked(old, new, self._clock())
            if len(self._completed_at) > self._keep_completed:
                forgotten = self._drop_locked(next(iter(self._completed_at)))
        item.version, item.updated_at = new.version, new.updated_at
        del stored, old, forgotten  # what only these held is released here, with the lock free

    def remove(self, item_id: str) -> bool:
        """Remove an item, whatever its status, and say whether it was there."""
        _checked("item_id", item_id, str)
        with self._lock:
            dropped = self._drop_locked(item_id)
        return dropped is not None

    def get(self, item_id: str) -> QueueItem[T] | None:
        """Return a copy of an item, if it is there."""
        _checked("item_id", item_id, str)
        with self._lock:
            stored = self._items.get(item_id)
        return None if stored is None else _copy(stored)

    def list_by_status(self, status: QueueItemStatus) -> list[QueueItem[T]]:
        """Return copies: the pending in the order of claims, others as they got the status."""
        _checked("status", status, QueueItemStatus)
        with self._lock:
            found = [self._items[item_id] for item_id in self._ids_locked(status)]
        return [_copy(stored) for stored in found]

    def count_by_status(self, status: QueueItemStatus) -> int:
        """Count the items that have this status, without walking them."""
        _checked("status", status, QueueItemStatus)
        return int(getattr(self.stats, status.value))

    def clear(self, status: QueueItemStatus | None = None) -> int:
        """Remove the items that have this status, or all, and return how many."""
        if status is not None:
            _checked("status", status, QueueItemStatus)
        with self._lock:
            ids = list(self._items) if status is None else self._ids_locked(status)
            dropped = [self._drop_locked(item_id) for item_id in ids]
        return len(dropped)

    def retry_failed(self) -> int:
        """Make FAILED items with an attempt left PENDING, and return how many."""
        with self._lock:
            items = [QueueItem(*self._items[key]) for key in self._since[FAILED]]
            retried = [item for item in items if item.can_retry]
            since = self._clock()
            for item in retried:
                self._replace_locked(item, replace(item, status=PENDING), since)
        return len(retried)

    def requeue_stale(self, older_than: float) -> int:
        """Take back claims of `older_than` seconds or more; return how many are PENDING again.

        Age counts from the claim or the last update to PROCESSING. Without an attempt left
        the item becomes FAILED. `last_error` says why, and the former worker's late update
        is a StaleItemError.
        """
        _at_least(0, "older_than", older_than, int, float)
        with self._lock:
            latest = (since := self._clock()) - older_than
            reason = f"not reported within {older_than} s"
            keys = [key for key, at in self._claimed_at.items() if at <= latest]
            stale = [QueueItem(*self._items[key]) for key in keys]
            for item in stale:
                status = PENDING if item.can_retry else FAILED
                self._replace_locked(item, replace(item, status=status, last_error=reason), since)
        return sum(item.can_retry for item in stale)

    def close(self) -> None:
        """Refuse new items; threads that wait get QueueClosed; what is left can be claimed."""
        with self._lock:
            self._closed = True
            self._available.notify_all()

    @property
    def stats(self) -> QueueStats:
        """The counts of all statuses at one instant."""
        with self._lock:
            counts = {status.value: len(ids) for status, ids in self._since.items()}
            pending = len(self._items) - sum(counts.values())
        return QueueStats(pending=pending, **counts)

    @property
    def size(self) -> int:
        """How many items there are, the remembered completed ones among them."""
        return len(self)

    @property
    def is_empty(self) -> bool:
        """Whether `size` is 0."""
        return len(self) == 0

    def __len__(self) -> int:
        with self._lock:
            return len(self._items)

    def __contains__(self, item_id: str) -> bool:
        return self.get(item_id) is not None

    def __iter__(self) -> Iterator[QueueItem[T]]:
        with self._lock:
            snapshot = list(self._items.values())
        return map(_copy, snapshot)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _wait_locked(self, timeout: float | None) -> None:
        self._waiting += 1
        try:
            self._available.wait_for(lambda: self._priorities or self._closed, timeout)
        finally:
            self._waiting -= 1
        if not self._priorities:
            if self._closed:
                raise QueueClosed("the queue is closed and nothing is pending")
            raise TimeoutError(f"nothing was pending for {timeout} s: try again, or give up")

    def _claim_locked(self) -> _Stored[T]:
        since, now = self._clock(), datetime.now(UTC)
        first = self._priorities[0]
        line = self._lines[first]
        key, _ = line.popitem(last=False)
        if not line:
            del self._lines[first], self._priorities[0]
        _, data, rank, _, tries, limit, error, notes, added, _, _ = self._items[key]
        version = self._version = self._version + 1
        new = key, data, rank, PROCESSING, tries + 1, limit, error, notes, added, now, version
        self._items[key] = new
        self._claimed_at[key] = since
        return new

    def _line_up_locked(self, item_id: str, priority: int) -> None:
        line = self._lines.get(priority)
        if line is None:
            line = self._lines[priority] = OrderedDict()
            insort(self._priorities, priority)
        line[item_id] = None
        if self._waiting:
            self._available.notify()

    def _replace_locked(self, old: QueueItem[T], new: QueueItem[T], since: float) -> None:
        # `since` is given, as the clock may fail: it is read before any change, of any item.
        if new.status is not old.status or new.priority != old.priority:
            self._leave_locked(old)
        self._version = new.version = self._version + 1
        new.created_at, new.updated_at = old.created_at, datetime.now(UTC)
        self._items[new.id] = _to_stored(new)
        if new.status is PENDING:
            self._line_up_locked(new.id, new.priority)
        else:
            self._since[new.status][new.id] = since

    def _leave_locked(self, item: QueueItem[T]) -> None:
        if item.status is not PENDING:
            del self._since[item.status][item.id]
            return
        line = self._lines[item.priority]
        del line[item.id]
        if not line:
            del self._lines[item.priority]
            del self._priorities[bisect_left(self._priorities, item.priority)]

    def _drop_locked(self, item_id: str) -> QueueItem[T] | None:
        if (stored := self._items.pop(item_id, None)) is None:
            return None
        item = QueueItem(*stored)
        self._leave_locked(item)
        return item

    def _ids_locked(self, status: QueueItemStatus) -> list[str]:
        if status is PENDING:
            return [key for priority in self._priorities for key in self._lines[priority]]
        return list(self._since[status])

    def _check_room_locked(self, max_size: int) -> None:
        if (live := len(self._items) - len(self._completed_at)) >= max_size:
            raise QueueFull(f"the queue holds {live} live items, its max_size: try again later")


def _checked(name: str, value: V, *kinds: type) -> V:
    if type(value) in kinds or (isinstance(value, kinds) and not isinstance(value, bool)):
        return value
    wanted = " or ".join(kind.__name__ for kind in kinds)
    raise TypeError(f"{name} must be {wanted}, not {value!r}")


def _at_least(least: int, name: str, value: N, *kinds: type) -> N:
    if not _checked(name, value, *kinds) >= least:  # so put, it catches NaN, too
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return value


def _checked_copy(item: QueueItem[T]) -> QueueItem[T]:
    _checked("item", item, QueueItem)
    return QueueItem(
        id=_checked("item.id", item.id, str),
        data=item.data,
        priority=int(_checked("item.priority", item.priority, int)),
        status=_checked("item.status", item.status, QueueItemStatus),
        attempts=_at_least(0, "item.attempts", item.attempts, int),
        max_attempts=_at_least(1, "item.max_attempts", item.max_attempts, int),
        last_error=_checked("item.last_error", item.last_error, str, type(None)),
        metadata=dict(_checked("item.metadata", item.metadata, Mapping)),
        created_at=item.created_at,  # given, since the default would read the clock for nothing
        updated_at=item.updated_at,
        version=_checked("item.version", item.version, int),
    )
