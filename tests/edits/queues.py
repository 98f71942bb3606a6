"""The edits of the queues."""

from tests.edits.edit import Edit, commented, renamed, unparsed
from tests.kit.twins import edit

SPOOL = "queues/_spool"

MEMORY_QUEUE = [
    Edit(
        "claims without the lock",
        edit("MemoryQueue.get_next", "self._lock.acquire()", "pass")
        + edit("MemoryQueue.get_next", "self._lock.release()", "pass"),
        "MQ-1 MQ-2",
        "MQ-8 MQ-9 MQ-10 MQ-11 MQ-12",
    ),
    Edit(
        "orders by time and not by number",
        edit(
            "MemoryQueue.add",
            "entry: _Entry = priority, version, key",
            "entry = priority, now.timestamp(), key",
        ),
        "MQ-3",
    ),
    Edit(
        "shares the metadata",
        edit("_copy", "notes.copy() if notes else {}", "notes or {}"),
        "MQ-4",
    ),
    Edit(
        "stores a copy whatever its version is",
        edit(
            "MemoryQueue.update",
            "old is None or old[_VERSION] != held",
            "old is None",
        ),
        "MQ-5 MQ-10",
        "MQ-1",
    ),
    Edit(
        "walks the dict itself",
        edit("MemoryQueue.__iter__", "list(self._items.values())", "self._items.values()"),
        "MQ-6",
        "MQ-1",
    ),
    Edit(
        "holds one item more",
        edit(
            "MemoryQueue._check_room_locked",
            "(live := len(self._items) - len(self._completed_at)) >= max_size",
            "(live := len(self._items) - len(self._completed_at)) > max_size",
        ),
        "MQ-7",
        "MQ-13",
    ),
    Edit(
        "wakes nobody when an item is queued again",
        edit("MemoryQueue._decide_locked", "if wakes and not self._notified: ...", ""),
        "MQ-8",
    ),
    Edit(
        "closes without waking those who wait",
        edit("MemoryQueue.close", "self._notify_locked()", ""),
        "MQ-9",
    ),
    Edit(
        "retries without end",
        edit("MemoryQueue._retries_locked", "old[_ATTEMPTS] < old[_MAX_ATTEMPTS]", "True"),
        "MQ-10",
    ),
    Edit(
        "reads the clock after it has stored an update",
        edit(
            "MemoryQueue.update",
            "self._decide_locked(steps, version, wakes=status is PENDING)",
            "self._decide_locked(steps, version, wakes=status is PENDING)\n"
            "self._last_change = self._clock()",
        ),
        "MQ-11",
    ),
    Edit(
        "does not wake for a delayed item",
        edit("MemoryQueue.wait_next", "if self._timetable: ...", ""),
        "MQ-12",
    ),
    Edit(
        "leaves the line for room without a word",
        edit("MemoryQueue._add_in_turn", "me.gate.release()", ""),
        "MQ-13",
    ),
    Edit("has another layout", unparsed()),
    Edit("calls a private method by another name", renamed("_decide_locked", "_apply_locked")),
]

PENDING_QUEUE = [
    Edit(
        "puts a file back by os.replace",
        edit(
            "Spool.put_back",
            'rename_new(self.path(name, "processing"), self.path(stem, "queued"))',
            'os.replace(self.path(name, "processing"), self.path(stem, "queued"))',
        ),
        "PQ-1",
        "PQ-7",
        file=SPOOL,
    ),
    Edit(
        "does not look whether it has got the lock",
        edit("directory_lock", "if not _try_lock(file): ...", "_try_lock(file)"),
        "PQ-2",
    ),
    Edit(
        "uploads one file more at once",
        edit(
            "AsyncPendingQueue._dispatch",
            "len(schedule.running) < self._max_concurrency",
            "len(schedule.running) <= self._max_concurrency",
        ),
        "PQ-3",
    ),
    Edit(
        "counts a cancelled upload",
        edit(
            "AsyncPendingQueue._attempt",
            "self._put_back(name, attempt - 1)",
            "self._put_back(name, attempt)",
        ),
        "PQ-4",
    ),
    Edit(
        "swallows the cancellation of an upload",
        edit(
            "AsyncPendingQueue._attempt",
            "if not cancelled and not isinstance(error, SystemExit | KeyboardInterrupt): ...",
            "if not isinstance(error, SystemExit | KeyboardInterrupt):\n    ...",
        ),
        "PQ-4 PQ-5",
    ),
    Edit(
        "stops without waiting for the end",
        edit(
            "Lifecycle.stop",
            "if self.loop is not None and asyncio.current_task() not in self.tasks: ...",
            "",
        ),
        "PQ-5",
        file=SPOOL,
    ),
    Edit(
        "forgets a file after a fault of the disk",
        edit("AsyncPendingQueue._fault", "self._retry(name, name)", "pass"),
        "PQ-6",
        "PQ-1",
    ),
    Edit(
        "moves by link and unlink",
        edit(
            "rename_new",
            "rename_exclusively(source, target)",
            "os.link(source, target, follow_symlinks=False)\nos.unlink(source)",
        ),
        "PQ-7",
        "PQ-1",
        file=SPOOL,
    ),
    Edit(
        "does not look whether the file has changed",
        edit("AsyncPendingQueue._handle", "if not files.is_unchanged(name, before): ...", ""),
        "PQ-8",
    ),
    Edit(
        "does not remember the names that it ignores",
        edit("AsyncPendingQueue._ignore", "self._ignored.add(name)", ""),
        "PQ-9",
    ),
    Edit("has another layout", unparsed()),
    Edit(
        "logs each upload",
        edit(
            "AsyncPendingQueue._handle",
            "files = self._files",
            'files = self._files\n_logger.debug("upload %r", name)',
        ),
    ),
]

CONVERTER_POOL = [
    Edit(
        "submits what was converted, changed or not",
        edit("AsyncConverterPool._handle", "if now not in (seen, None): ...", ""),
        "CP-1",
    ),
    Edit(
        "takes the first converter that has a file",
        edit(
            "AsyncConverterPool._next",
            "min(lanes, key=lambda each: (each.converter.priority, each.last_turn))",
            "lanes[0]",
        ),
        "CP-2",
    ),
    Edit(
        "gives a conversion all the time that it wants",
        edit(
            "AsyncConverterPool._convert", "asyncio.timeout(self._timeout)", "asyncio.timeout(None)"
        ),
        "CP-3",
        "CP-5",
    ),
    Edit(
        "swallows the cancellation of a submission",
        edit(
            "AsyncConverterPool._failure_of_submitting",
            "if task and task.cancelling(): ...",
            "",
        ),
        "CP-4",
        "CP-1",
    ),
    Edit(
        "ends with the first converter that is lost",
        edit(
            "AsyncConverterPool._feed",
            "not all(each.watched for each in self._inboxes) "
            "or len(self._lost) == len(self._lanes)",
            "True",
        ),
        "CP-5",
    ),
    Edit(
        "leaves the source of a copy",
        edit("_Destination._copy_as", "os.unlink(path)", ""),
        "CP-6",
    ),
    Edit(
        "moves by os.replace",
        edit("_renamed", "rename_new(source, target)", "os.replace(source, target)"),
        "CP-1",
        "CP-6",
    ),
    Edit(
        "looks for no other file when a late conversion ends",
        edit("AsyncConverterPool._ended_late", "self._dispatch()", ""),
        "CP-3",
    ),
    Edit(
        "cancels no task when it stops",
        edit("Lifecycle._cancel_tasks", "task.cancel()", "pass"),
        "CP-4",
        file=SPOOL,
    ),
    Edit("has another layout", unparsed()),
    Edit("has a comment", commented("def _next(", "A heap would be quicker with many lanes.")),
]

EDITS = {
    "queues/memory_queue": MEMORY_QUEUE,
    "queues/async_pending_queue": PENDING_QUEUE,
    "queues/async_converter_pool": CONVERTER_POOL,
}
