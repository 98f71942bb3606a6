"""The edits of the buses."""

from tests.edits.edit import Edit, commented, renamed, replace, unparsed
from tests.kit.twins import edit

DISPATCHER, EVENT_FILE = "buses/_dispatcher", "buses/event"

EVENT_BUS = [
    Edit(
        "cancels without the lock",
        edit("EventBus._cancel", "with self._lock: ...", "..."),
        "EB-4",
        "EB-1 EB-2",
    ),
    Edit(
        "wakes no worker when it accepts an event",
        edit("EventBus._accept_locked", "if wake: ...", ""),
        "EB-1",
        "EB-2 EB-3 EB-4 EB-5 EB-6 EB-7 EB-8 EB-9 EB-10",
    ),
    Edit(
        "accepts events while it drains",
        edit(
            "EventBus._accept_locked",
            "self._state is not _RUNNING",
            "self._state is State.STOPPED",
        ),
        "EB-2",
        "EB-8",
    ),
    Edit(
        "catches nothing but Exception",
        replace("EventBus._call", "except BaseException as error", "except Exception as error"),
        "EB-3",
    ),
    Edit(
        "waits for room in a handler, too",
        edit("EventBus.publish", "if timeout is None and inside: ...", ""),
        "EB-5",
    ),
    Edit(
        "takes one event more than it has room for",
        edit(
            "EventBus._accept_locked",
            "dispatcher.backlog >= self._max_queue",
            "dispatcher.backlog > self._max_queue",
        ),
        "EB-5",
        "EB-1 EB-4",
    ),
    Edit(
        "starts the calls of an ordered handler side by side",
        edit("Dispatcher.start", "mailbox[0] is not accepted", "False"),
        "EB-6",
        "EB-1 EB-2 EB-4 EB-8",
        file=DISPATCHER,
    ),
    Edit(
        "has one worker more",
        edit(
            "EventBus._hire",
            "len(hired) < self._max_workers",
            "len(hired) <= self._max_workers",
        ),
        "EB-7",
        "EB-8",
    ),
    Edit(
        "returns no events from stop",
        edit(
            "EventBus._finish_stop",
            "return [taken[number].event for number in sorted(taken)]",
            "return []",
        ),
        "EB-2 EB-8",
        "EB-1",
    ),
    Edit(
        "runs handlers in the publisher's own context",
        edit(
            "EventBus._work_loop",
            "call[0].context.copy()",
            "call[0].context",
        ),
        "EB-9",
        "EB-1 EB-6",
    ),
    Edit(
        "looks whether it is idle only when it wakes",
        edit(
            "Dispatcher.idle_from_now",
            "return lambda: not self.pending or self.idle_moments != seen",
            "return lambda: not self.pending",
        ),
        "EB-10",
        file=DISPATCHER,
    ),
    Edit("has another layout", unparsed()),
    Edit("calls a private method by another name", renamed("_await_call", "_next_call")),
    Edit("has a comment", commented("def _call(", "TODO: measure how long a handler takes.")),
]

ASYNC_EVENT_BUS = [
    Edit(
        "does not wake up for what it accepts",
        edit("AsyncEventBus._accept", "if routes: ...", ""),
        "AB-1",
        "AB-2 AB-3 AB-4 AB-5 AB-6 AB-7 AB-8 AB-9 AB-10",
    ),
    Edit(
        "leaves those in line waiting when it stops",
        edit("AsyncEventBus._close", "waiter.set_result(None)", "pass"),
        "AB-2",
        "AB-8",
    ),
    Edit(
        "lets a failing handler end its task",
        replace("AsyncEventBus._handle", "except BaseException", "except Exception"),
        "AB-3",
        "AB-8",
    ),
    Edit(
        "keeps the room of what it drops",
        edit("Dispatcher.drop", "self.backlog -= emptied", ""),
        "AB-4",
        "AB-5 AB-8",
        file=DISPATCHER,
    ),
    Edit(
        "waits for room in a handler, too",
        edit(
            "AsyncEventBus.publish",
            "if limit is None and asyncio.current_task() in self._running: ...",
            "",
        ),
        "AB-5",
    ),
    Edit(
        "starts the calls of an ordered handler side by side",
        edit("Dispatcher.start", "mailbox[0] is not accepted", "False"),
        "AB-6",
        "AB-1 AB-2 AB-4 AB-8",
        file=DISPATCHER,
    ),
    Edit(
        "runs one handler more",
        edit(
            "AsyncEventBus._start_calls",
            "dispatcher.started >= self._max_concurrency",
            "dispatcher.started > self._max_concurrency",
        ),
        "AB-7",
        "AB-1 AB-4 AB-5 AB-8",
    ),
    Edit(
        "does not wait for the handlers that stop has cancelled",
        edit(
            "AsyncEventBus._stop",
            "self._cancel_running()\nawait self._reached(drained, None)",
            "self._cancel_running()",
        ),
        "AB-8",
        "AB-2 AB-3",
    ),
    Edit(
        "runs handlers in the publisher's own context",
        edit("AsyncEventBus._start", "call[0].context.copy()", "call[0].context"),
        "AB-9",
        "AB-1",
    ),
    Edit(
        "tells nobody that it is idle",
        edit(
            "AsyncEventBus._settle",
            "if self._watchers and not self._dispatcher.pending: ...",
            "",
        ),
        "AB-10",
        "AB-2 AB-8 AB-1 AB-3 AB-4 AB-6 AB-7 AB-9",
    ),
    Edit("has another layout", unparsed()),
    Edit("calls a private method by another name", renamed("_take_back", "_drop_unstarted")),
]

# It promises nothing by itself: it is proved by EventBus, which is copied with it.
EVENT = [
    Edit(
        "leaves the bus running as the process ends",
        edit("finish_with_process", "atexit.register(finish)", ""),
        "EB-2",
        "EB-8",
    ),
    Edit(
        "takes what a handler returns without a look",
        edit("check_result", "if type(result) not in _SUSPENDED: ...", "return"),
        "EB-3",
        "EB-1",
    ),
    Edit(
        "cancels nothing when a block is left",
        edit("Subscription.__exit__", "self.cancel()", "pass"),
        "EB-4",
    ),
    Edit(
        "takes a timeout of 0 for none",
        edit("check_timeout", "timeout is None", "not timeout"),
        "EB-5 EB-8",
        "EB-1 EB-2 EB-4 EB-6 EB-7 EB-9 EB-10",
    ),
    Edit(
        "sorts the fields of its figures by name",
        replace(
            "BusStats", "    failed: int\n    dropped: int\n", "    dropped: int\n    failed: int\n"
        ),
        "EB-3 EB-4 EB-8",
        "EB-1 EB-2 EB-5 EB-6 EB-7 EB-10",
    ),
    Edit(
        "makes ANY a string",
        edit("", "class AnyTopic(Enum): ...", "class AnyTopic(StrEnum):\n    ..."),
        "EB-1",
    ),
    Edit("has another layout", unparsed()),
    Edit("has a comment", commented("def create(", "The usual way to make one.")),
]

EDITS = {
    "buses/event": EVENT,
    "buses/event_bus": EVENT_BUS,
    "buses/async_event_bus": ASYNC_EVENT_BUS,
}
