"""MemoryQueue interrupted at each point where CPython runs signal handlers, once and twice."""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from reference_impl.queues import memory_queue
from tests.kit import interrupts as interrupts_of_kit
from tests.kit.copies import own_file
from tests.kit.fakes import Beside, Clock
from tests.kit.interrupts import Ending, Interrupts, asleep, elsewhere
from tests.kit.proofs import each_twin_of
from tests.kit.twins import Twin, build, override
from tests.queues.memory_queue import faults
from tests.queues.memory_queue.helpers import finish, statuses, wait_next


@dataclass
class State:
    """A queue, what it held before the call, and the threads that wait in it."""

    m: ModuleType
    queue: Any
    clock: Clock
    given: Any = None  # what the call is about
    before: Any = None
    waiters: list[Beside] = field(default_factory=list)


def snapshot(queue: Any, m: ModuleType) -> Any:
    """All that callers see of it, but the dates."""
    rows = [(item.id, item.status, item.version, item.attempts, item.priority) for item in queue]
    lists = [[item.id for item in queue.list_by_status(s)] for s in m.QueueItemStatus]
    return rows, lists, queue.stats


def some_of_each(m: ModuleType, **options: Any) -> State:
    """Pending, delayed and failed items, as many completed as are kept, and one that is claimed."""
    clock = Clock()
    queue = m.MemoryQueue(keep_completed=1, clock=clock, **options)
    for data in ("failed", "also failed", "completed", "claimed"):
        queue.add(data)
    for _ in range(2):
        item = queue.get_next()
        item.mark_failed("x")
        queue.update(item)
    finish(queue, queue.get_next())
    given = queue.get_next()
    queue.add("a", priority=1, metadata={"x": 1}, item_id="a")
    queue.add("b", priority=3)
    queue.add("delayed", delay=5.0)
    return State(m, queue, clock, given, snapshot(queue, m))


def empty(m: ModuleType) -> State:
    clock = Clock()
    queue = m.MemoryQueue(clock=clock)
    return State(m, queue, clock, before=snapshot(queue, m))


def is_inside(thread: threading.Thread, m: ModuleType) -> bool:
    """Whether the thread is in a call of the component."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code.co_filename != own_file(m):
        frame = frame.f_back
    return frame is not None


def waits(thread: threading.Thread, m: ModuleType) -> bool:
    """Whether it waits there."""
    return is_inside(thread, m) and asleep(thread.ident or 0, thread.native_id or 0)


def beside(state: State, call: Callable[..., Any], *arguments: Any) -> None:
    state.waiters.append(waiter := Beside(call, *arguments))
    while waiter.is_alive() and not waits(waiter, state.m):
        time.sleep(0.001)


def awaited(m: ModuleType) -> State:
    """An empty queue in which two threads wait for an item."""
    state = empty(m)
    for _ in range(2):
        beside(state, wait_next, state.queue)
    return state


def add_in_turn(queue: Any, data: str) -> Any:
    return queue.add(data, timeout=None).data


def full(m: ModuleType) -> State:
    """A full queue in which two threads wait for room."""
    clock = Clock()
    queue = m.MemoryQueue(2, clock=clock)
    state = State(m, queue, clock)
    for data in "ab":
        queue.add(data)
    state.given = queue.get_next()
    state.before = snapshot(queue, m)
    for data in "cd":
        beside(state, add_in_turn, queue, data)
    return state


def fed_meanwhile(m: ModuleType) -> State:
    """An empty queue that gets an item once this thread sleeps in it, or has been interrupted."""
    state = empty(m)
    me = threading.current_thread()

    def feed() -> None:
        until = time.monotonic() + 0.02
        while not is_inside(me, m) and time.monotonic() < until:
            time.sleep(0.001)
        while is_inside(me, m) and not waits(me, m):
            time.sleep(0.001)
        state.queue.add("fed")

    state.waiters.append(Beside(feed))
    return state


# What must be so afterwards, found out in another thread.


def use_fully(state: State) -> None:
    """All that is pending can be claimed, counts add up, and waiters are woken."""
    queue, statuses = state.queue, list(state.m.QueueItemStatus)
    counts = queue.stats
    numbers = [getattr(counts, status.value) for status in statuses]
    assert sum(numbers) == len(queue) == len(list(queue))
    assert [len(queue.list_by_status(status)) for status in statuses] == numbers
    state.clock.tick(10_000.0)
    claimed = 0
    while (item := queue.get_next()) is not None:
        finish(queue, item)
        claimed += 1
    assert claimed == counts.pending, "pending, and not to be claimed"
    queue.clear()
    queue.add("fresh", item_id="fresh", timeout=60)
    assert queue.wait_next(timeout=60).data == "fresh"
    assert queue.remove("fresh")


def check_use(state: State) -> None:
    elsewhere(use_fully, state)
    waiter = Beside(wait_next, state.queue)
    elsewhere(state.queue.add, "wakes")
    assert waiter.result() == "wakes", "a wake-up is lost"


def await_end(*waiters: Beside) -> None:
    """Return once one of them has ended."""
    until = time.monotonic() + interrupts_of_kit._patience
    while all(waiter.is_alive() for waiter in waiters):
        if time.monotonic() > until:
            raise interrupts_of_kit.Hang("a waiter is stranded")
        time.sleep(0.001)


def check_woken(state: State, ending: Ending) -> None:
    """If the item is there a waiter gets it without further ado, and the other the next one."""
    try:
        if ending.happened or elsewhere(len, state.queue):
            await_end(*state.waiters)
        for _ in state.waiters:
            elsewhere(state.queue.add, "for the rest")
        for waiter in state.waiters:
            await_end(waiter)
            assert waiter.result() in ("new", "for the rest")
        check_use(state)
    except BaseException:
        state.queue.close()  # a twin leaves no thread behind
        raise


def check_let_in(state: State, ending: Ending) -> None:
    """If there is room, the first gets it without further ado, and then the other one."""
    if not ending.happened and elsewhere(snapshot, state.queue, state.m) == state.before:
        elsewhere(state.queue.remove, "item-1")
    assert state.waiters[0].result() == "c"
    elsewhere(state.queue.clear)
    assert state.waiters[1].result() == "d"
    check_use(state)


def check_released(state: State, ending: Ending) -> None:
    """Closing has happened or has not: then it happens now."""
    if ending.happened:
        with pytest.raises(state.m.QueueClosed):
            elsewhere(state.queue.add, "late")
    else:
        elsewhere(state.queue.close)
    for waiter in state.waiters:
        with suppress(state.m.QueueClosed):
            assert waiter.result() == "QueueClosed"


def check_fed(state: State, ending: Ending) -> None:
    state.waiters[0].result()
    assert elsewhere(len, state.queue) == 1
    check_use(state)


# The calls.


def set_to(status: str, **options: Any) -> Callable[[State], object]:
    def call(state: State) -> None:
        state.given.status = state.m.QueueItemStatus(status)
        state.queue.update(state.given, **options)

    return call


def refused(call: Callable[[State], object], *errors: type[Exception]) -> Callable[[State], None]:
    def refuse(state: State) -> None:
        with pytest.raises(errors):
            call(state)

    return refuse


def limited(m: ModuleType) -> State:
    return some_of_each(m, max_size=6)


CHANGES: list[tuple[str, Callable[[ModuleType], State], Callable[[State], object]]] = [
    ("add", some_of_each, lambda s: s.queue.add("new")),
    ("add-first", empty, lambda s: s.queue.add("new")),
    ("add-named", some_of_each, lambda s: s.queue.add("new", item_id="n", metadata={"x": 1})),
    ("add-delayed", some_of_each, lambda s: s.queue.add("new", delay=2.0)),
    ("add-in-turn", some_of_each, lambda s: s.queue.add("new", timeout=60)),
    ("get_next", some_of_each, lambda s: s.queue.get_next()),
    ("get_next-none", empty, lambda s: s.queue.get_next()),
    ("wait_next", some_of_each, lambda s: s.queue.wait_next()),
    *((f"update-{s}", some_of_each, set_to(s)) for s in memory_queue.QueueItemStatus),
    ("update-delayed", some_of_each, set_to("pending", delay=2.0)),
    ("remove", some_of_each, lambda s: s.queue.remove("a")),
    ("clear", some_of_each, lambda s: s.queue.clear()),
    ("clear-pending", some_of_each, lambda s: s.queue.clear(s.m.PENDING)),
    ("retry_failed", some_of_each, lambda s: s.queue.retry_failed()),
    ("retry_failed-delayed", some_of_each, lambda s: s.queue.retry_failed(delay=2.0)),
    ("requeue_stale", some_of_each, lambda s: s.queue.requeue_stale(0)),
    ("get", some_of_each, lambda s: s.queue.get("a")),
    ("list", some_of_each, lambda s: s.queue.list_by_status(s.m.PENDING)),
    ("iterate", some_of_each, lambda s: list(s.queue)),
    ("stats", some_of_each, lambda s: s.queue.stats),
    ("len", some_of_each, lambda s: len(s.queue)),
]


def check_all_or_nothing(
    interrupts: Interrupts,
    m: ModuleType,
    prepare: Callable[[ModuleType], State],
    call: Callable[[State], object],
    twin: Twin | None = None,
) -> None:
    """What there is afterwards is what there was before, or what the whole call leaves."""
    whole = prepare(m)
    call(whole)
    wanted = snapshot(whole.queue, m)

    def check(state: State, ending: Ending) -> None:
        found = elsewhere(snapshot, state.queue, m)
        if ending.happened:
            assert found == wanted
        else:
            assert found in (state.before, wanted), "half a call"
        check_use(state)

    if twin is None:
        interrupts.prove(lambda: prepare(m), call, check)
    else:
        interrupts.catch(lambda: prepare(m), call, check, twin=twin)


@pytest.mark.guarantee("MQ-11")
@pytest.mark.parametrize(
    ("prepare", "call"), [pytest.param(*row, id=name) for name, *row in CHANGES]
)
def test_an_interrupted_call_has_happened_or_has_not(
    interrupts: Interrupts,
    prepare: Callable[[ModuleType], State],
    call: Callable[[State], object],
) -> None:
    check_all_or_nothing(interrupts, memory_queue, prepare, call)


def _one_by_one(_: Any) -> Any:
    def retry_failed(self: Any) -> int:
        failed = self.list_by_status(statuses(self).FAILED)
        for item in failed:
            item.reset_to_pending()
            self.update(item)
        return len(failed)

    return retry_failed


@each_twin_of(
    "MQ-11",
    Twin(
        "retries one item after the other",
        override("MemoryQueue.retry_failed", _one_by_one),
        "AssertionError: half a call",
    ),
    Twin(
        "takes its lock through a function",
        faults.made_of(RLock=threading.Condition),
        "hang",
    ),
)
def test_half_a_call_is_found(interrupts: Interrupts, twin: Twin) -> None:
    broken = build("queues/memory_queue", twin.fault)
    check_all_or_nothing(interrupts, broken, some_of_each, lambda s: s.queue.retry_failed(), twin)


MISSES: list[tuple[str, Callable[[ModuleType], State], Callable[[State], None]]] = [
    ("full", limited, refused(lambda s: s.queue.add("x"), memory_queue.QueueFull)),
    (
        "full-later",
        limited,
        refused(lambda s: s.queue.add("x", timeout=1e-4), memory_queue.QueueFull),
    ),
    ("duplicate", some_of_each, refused(lambda s: s.queue.add("x", item_id="a"), ValueError)),
    ("stale", some_of_each, refused(lambda s: s.queue.update(stale(s)), RuntimeError)),
    ("nothing", empty, refused(lambda s: s.queue.wait_next(timeout=1e-4), TimeoutError)),
]


def stale(state: State) -> Any:
    state.given.version = 0
    return state.given


@pytest.mark.guarantee("MQ-11")
@pytest.mark.parametrize(
    ("prepare", "call"), [pytest.param(*row, id=name) for name, *row in MISSES]
)
def test_an_interrupted_refusal_changes_nothing(
    interrupts: Interrupts,
    prepare: Callable[[ModuleType], State],
    call: Callable[[State], object],
) -> None:
    check_all_or_nothing(interrupts, memory_queue, prepare, call)


@pytest.mark.guarantee("MQ-8")
def test_an_interrupted_add_strands_no_waiter(interrupts: Interrupts) -> None:
    interrupts.prove(
        lambda: awaited(memory_queue), lambda state: state.queue.add("new"), check_woken
    )


@pytest.mark.guarantee("MQ-8")
def test_an_interrupted_waiter_takes_no_wake_up_along(interrupts: Interrupts) -> None:
    interrupts.prove(
        lambda: fed_meanwhile(memory_queue), lambda state: state.queue.wait_next(), check_fed
    )


@pytest.mark.guarantee("MQ-9")
@pytest.mark.parametrize("prepare", [awaited, full])
def test_an_interrupted_close_strands_no_waiter(
    interrupts: Interrupts, prepare: Callable[[ModuleType], State]
) -> None:
    interrupts.prove(
        lambda: prepare(memory_queue), lambda state: state.queue.close(), check_released
    )


ROOM: list[tuple[str, Callable[[State], object]]] = [
    ("update", set_to("completed")),
    ("remove", lambda state: state.queue.remove("item-1")),
    ("clear", lambda state: state.queue.clear()),
]


@pytest.mark.guarantee("MQ-13")
@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in ROOM])
def test_interrupted_room_strands_no_add(
    interrupts: Interrupts, call: Callable[[State], object]
) -> None:
    interrupts.prove(lambda: full(memory_queue), call, check_let_in)


@pytest.mark.guarantee("MQ-13")
def test_an_interrupted_wait_for_room_holds_up_nobody(interrupts: Interrupts) -> None:
    """Of three adds that wait, the last is interrupted: the next one still gets in."""

    def check(state: State, ending: Ending) -> None:
        waiters = [*state.waiters, Beside(add_in_turn, state.queue, "e")]
        for waiter in waiters:
            while waiter.is_alive():
                elsewhere(state.queue.clear)
                waiter.join(0.001)
        assert [waiter.result() for waiter in waiters] == ["c", "d", "e"]
        check_use(state)

    call = refused(lambda state: state.queue.add("x", timeout=1e-4), memory_queue.QueueFull)
    interrupts.prove(lambda: full(memory_queue), call, check)


class _Bell:
    """A lock that is released through a function."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.acquire = self._lock.acquire

    def release(self) -> None:
        self._lock.release()


@each_twin_of(
    "MQ-8",
    Twin("wakes through a function", faults.made_of(Lock=_Bell), "hang"),
)
def test_a_wake_up_that_is_cut_is_found(interrupts: Interrupts, twin: Twin) -> None:
    broken = build("queues/memory_queue", twin.fault)
    interrupts.catch(
        lambda: awaited(broken), lambda state: state.queue.add("new"), check_woken, twin=twin
    )
