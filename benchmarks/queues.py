"""The job queue against queue.PriorityQueue, hand-written queues, and packages from PyPI.

The floor is the pair `put` and `get` of a queue.PriorityQueue that holds tuples of priority,
serial number and job, as its documentation advises: the least that gives out jobs by priority
and, within a priority, in the order of arrival.
"""

import functools
import heapq
import importlib
import itertools
import queue
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import harness
from reference_impl.queues.memory_queue import MemoryQueue, QueueItemStatus

PRIORITIES = 10
CHUNK = 100
MARKS = 10

Jobs = Sequence[tuple[int, object]]


class Line:
    """A queue to measure: one job in, one job out, and the pair of both without a wrapper."""

    def put(self, priority: int, job: object) -> object:
        raise NotImplementedError

    def take(self) -> object:
        raise NotImplementedError

    def pairs(self, jobs: Jobs) -> harness.Batch:
        """A batch that puts each job in and takes one out."""
        raise NotImplementedError

    def settle(self) -> None:
        """Forget what was claimed and never completed, if the queue remembers it."""


class PriorityQueueLine(Line):
    def __init__(self, make: Callable[[], Any] = queue.PriorityQueue) -> None:
        self._queue = make()
        self._serial = itertools.count()

    def put(self, priority: int, job: object) -> None:
        self._queue.put((priority, next(self._serial), job))

    def take(self) -> object:
        return self._queue.get()[2]

    def pairs(self, jobs: Jobs) -> harness.Batch:
        put, get, serial = self._queue.put, self._queue.get, self._serial

        def batch() -> None:
            for priority, job in jobs:
                put((priority, next(serial), job))
                get()

        return batch


class OursLine(Line):
    """`add` and the claim; what is claimed stays PROCESSING until `settle`."""

    def __init__(self) -> None:
        self._queue: MemoryQueue[object] = MemoryQueue()

    def put(self, priority: int, job: object) -> None:
        self._queue.add(job, priority=priority)

    def take(self) -> object:
        item = self._queue.get_next()
        assert item is not None
        self._queue.remove(item.id)
        return item.data

    def claim(self) -> Callable[[], object]:
        return self._queue.get_next

    def pairs(self, jobs: Jobs) -> harness.Batch:
        add, claim = self._queue.add, self.claim()

        def batch() -> None:
            for priority, job in jobs:
                add(job, priority=priority)
                claim()

        return batch

    def settle(self) -> None:
        self._queue.clear(QueueItemStatus.PROCESSING)


class OursWaitingLine(OursLine):
    """`add` and `wait_next`."""

    def claim(self) -> Callable[[], object]:
        return self._queue.wait_next


class OursCompletedLine(OursLine):
    """`add`, the claim, and `update` to COMPLETED."""

    def pairs(self, jobs: Jobs) -> harness.Batch:
        add, claim, update = self._queue.add, self._queue.get_next, self._queue.update

        def batch() -> None:
            for priority, job in jobs:
                add(job, priority=priority)
                item = claim()
                if item is not None:
                    item.mark_completed()
                    update(item)

        return batch


class HeapLine(Line):
    """A heap of bare jobs behind a lock and a condition, written by hand."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, object]] = []
        self._serial = itertools.count()
        self._some = threading.Condition()

    def put(self, priority: int, job: object) -> None:
        with self._some:
            heapq.heappush(self._heap, (priority, next(self._serial), job))
            self._some.notify()

    def take(self) -> object:
        with self._some:
            while not self._heap:
                self._some.wait()
            return heapq.heappop(self._heap)[2]

    def pairs(self, jobs: Jobs) -> harness.Batch:
        put, take = self.put, self.take

        def batch() -> None:
            for priority, job in jobs:
                put(priority, job)
                take()

        return batch


class DequesLine(HeapLine):
    """One deque per priority behind a lock and a condition, written by hand."""

    def __init__(self) -> None:
        self._lines: list[deque[object]] = [deque() for _ in range(PRIORITIES)]
        self._some = threading.Condition()

    def put(self, priority: int, job: object) -> None:
        with self._some:
            self._lines[priority].append(job)
            self._some.notify()

    def take(self) -> object:
        with self._some:
            while True:
                for line in self._lines:
                    if line:
                        return line.popleft()
                self._some.wait()


class HueyLine(Line):
    """What huey keeps its jobs in when it runs in one process. Jobs are bytes."""

    def __init__(self) -> None:
        self._storage = importlib.import_module("huey.storage").MemoryStorage()

    def put(self, priority: int, job: object) -> None:
        self._storage.enqueue(job, -priority)

    def take(self) -> object:
        found: object = self._storage.dequeue()
        return found

    def pairs(self, jobs: Jobs) -> harness.Batch:
        put, take = self._storage.enqueue, self._storage.dequeue

        def batch() -> None:
            for priority, job in jobs:
                put(job, -priority)
                take()

        return batch


def _culsans() -> Line:
    return PriorityQueueLine(lambda: importlib.import_module("culsans").PriorityQueue().sync_q)


def _janus() -> Line:
    return PriorityQueueLine(lambda: importlib.import_module("janus").PriorityQueue().sync_q)


@dataclass(frozen=True, slots=True)
class Contestant(harness.Contestant[Callable[[], Line]]):
    def case(self, build: Callable[[Line], harness.Subject]) -> harness.Case:
        return self.measured(lambda: build(self.make()))


NO_ITEMS = "copies, status, attempts, versions, re-queueing"
FLOOR = Contestant("queue.PriorityQueue, put + get", PriorityQueueLine, "floor", lacks=NO_ITEMS)
OTHERS = [
    Contestant("Condition + heap by hand", HeapLine, "reference", lacks=NO_ITEMS),
    Contestant("Condition + deque per priority by hand", DequesLine, "reference", lacks=NO_ITEMS),
    Contestant("culsans.PriorityQueue", _culsans, package="culsans", lacks=NO_ITEMS),
    Contestant("janus.PriorityQueue", _janus, package="janus", lacks=NO_ITEMS),
    Contestant(
        "huey.storage.MemoryStorage",
        HueyLine,
        package="huey",
        lacks=f"{NO_ITEMS}; waiting, jobs other than bytes",
    ),
]
CLAIM = Contestant("MemoryQueue, add + get_next", OursLine, "ours")
WAIT = Contestant("MemoryQueue, add + wait_next", OursWaitingLine, "ours")
CONVOYS = (
    "With several threads a locked design runs now freely, now in convoys, where each\n"
    "operation waits for the lock to change hands: read the range, not the median."
)
COMPLETE = Contestant("MemoryQueue, add + get_next + update", OursCompletedLine, "ours")


def _jobs(count: int, seed: int = 0) -> list[tuple[int, object]]:
    chance = random.Random(seed)
    return [(chance.randrange(PRIORITIES), b"job %d" % number) for number in range(count)]


def _passing(threads: int, waiting: int) -> Callable[[Line], harness.Subject]:
    """Jobs pass through one by one, on each thread, while `waiting` others stay in the queue."""

    def build(line: Line) -> harness.Subject:
        for priority, job in _jobs(waiting):
            line.put(priority, job)

        def check() -> None:
            """What comes out, by priority and order of arrival, is what went in."""
            for _ in range(waiting):
                line.take()
            jobs = _jobs(CHUNK)
            for priority, job in jobs:
                line.put(priority, job)
            expected = [job for _, job in sorted(jobs, key=lambda pair: pair[0])]
            found = [line.take() for _ in jobs]
            if found != expected:
                raise AssertionError(f"out of order: {found}")
            for priority, job in _jobs(waiting):
                line.put(priority, job)

        workers = [line.pairs(_jobs(CHUNK, seed)) for seed in range(1, threads + 1)]
        return harness.Subject(workers, CHUNK, check, between=line.settle)

    return build


def _group(
    series: str,
    point: str,
    ours: Sequence[Contestant],
    threads: int = 1,
    waiting: int = 0,
    *,
    aim: float | None = None,
    note: str = "",
) -> harness.Group:
    return harness.Group(
        f"{series}, {point}",
        [contestant.case(_passing(threads, waiting)) for contestant in (FLOOR, *ours, *OTHERS)],
        note=note,
        aim=aim,
        series=series,
        point=point,
        real_time=threads > 1,
        longer=20 if threads > 8 else 10 if threads > 1 else 1,
    )


class _Echo:
    """A thread that sends back what it gets, as soon as it gets it."""

    def __init__(
        self, make: Callable[[], tuple[Callable[[object], object], harness.Batch]]
    ) -> None:
        self._send, self._take = make()
        self._send_back, self._receive = make()
        self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while (job := self._take()) is not None:
            self._send_back(job)

    def round_trip(self, job: object) -> object:
        self._send(job)
        return self._receive()

    def restart(self) -> None:
        """Go on in a new thread: on which processor it lands should not stick to a case."""
        self.close()
        self._start()

    def close(self) -> None:
        self._send(None)
        self._thread.join()


def _echo(make: Callable[[], tuple[Callable[[object], object], harness.Batch]]) -> harness.Subject:
    echo = _Echo(make)
    jobs = [object() for _ in range(20)]

    def batch() -> None:
        for job in jobs:
            echo.round_trip(job)

    def check() -> None:
        for job in jobs:
            if echo.round_trip(job) is not job:
                raise AssertionError("another job came back")

    return harness.Subject([batch], len(jobs), check, between=echo.restart, close=echo.close)


def _standard_ends() -> tuple[Callable[[object], object], harness.Batch]:
    line: queue.PriorityQueue[tuple[int, int, object]] = queue.PriorityQueue()
    serial = itertools.count()
    return (lambda job: line.put((0, next(serial), job))), (lambda: line.get()[2])


def _simple_ends() -> tuple[Callable[[object], object], harness.Batch]:
    line: queue.SimpleQueue[object] = queue.SimpleQueue()
    return line.put, line.get


def _our_ends() -> tuple[Callable[[object], object], harness.Batch]:
    line: MemoryQueue[object] = MemoryQueue()

    def take() -> object:
        item = line.wait_next()
        line.remove(item.id)
        return item.data

    return line.add, take


def _culsans_ends() -> tuple[Callable[[object], object], harness.Batch]:
    line = importlib.import_module("culsans").PriorityQueue().sync_q
    serial = itertools.count()
    return (lambda job: line.put((0, next(serial), job))), (lambda: line.get()[2])


Ends = tuple[Callable[[object], object], Callable[[], object]]
ENDS: list[harness.Contestant[Callable[[], Ends]]] = [
    harness.Contestant("queue.PriorityQueue, get", _standard_ends, "floor", lacks=NO_ITEMS),
    harness.Contestant("MemoryQueue, wait_next + remove", _our_ends, "ours"),
    harness.Contestant(
        "queue.SimpleQueue (C), get", _simple_ends, "reference", lacks=f"priorities, {NO_ITEMS}"
    ),
    harness.Contestant(
        "culsans.PriorityQueue, get", _culsans_ends, package="culsans", lacks=NO_ITEMS
    ),
]


def _wake_up() -> harness.Group:
    return harness.Group(
        "wake-up: a job to a waiting thread, and its answer back",
        [ends.measured(functools.partial(_echo, ends.make)) for ends in ENDS],
        note=(
            "A round trip is two wake-ups. Most of it is the system's time to run a thread that\n"
            "slept, and that depends on the processors that it chooses: read the range."
        ),
        real_time=True,
        longer=4,
    )


def _counting(sizes: Sequence[int]) -> harness.Group:
    """What a dashboard asks for, against itself with few items."""

    def build(size: int) -> harness.Subject:
        line: MemoryQueue[object] = MemoryQueue()
        for priority, job in _jobs(size):
            line.add(job, priority=priority)
        count = line.count_by_status

        def batch() -> None:
            for _ in range(CHUNK):
                count(QueueItemStatus.PENDING)

        def check() -> None:
            if count(QueueItemStatus.PENDING) != size:
                raise AssertionError(f"{count(QueueItemStatus.PENDING)} instead of {size}")

        return harness.Subject([batch], CHUNK, check)

    return harness.Group(
        "count_by_status, against itself",
        [
            harness.Case(
                f"{size:,} items",
                functools.partial(build, size),
                "floor" if size == sizes[0] else "ours",
            )
            for size in sizes
        ],
    )


def plans(effort: harness.Effort) -> list[harness.Plan]:
    """What is measured for each component of the family."""
    groups: list[Callable[[], harness.Group]] = []
    for waiting in sorted({0, effort.sizes[0], effort.sizes[-2]}):
        point = f"{waiting:,} jobs waiting"
        ours = [CLAIM, WAIT]
        groups.append(
            functools.partial(_group, "add + claim", point, ours, waiting=waiting, aim=1.9)
        )
    groups += [
        functools.partial(
            _group,
            "add + claim, several threads",
            f"{threads} threads",
            [CLAIM],
            threads,
            note=CONVOYS,
        )
        for threads in (8, 100)
    ]
    groups += [
        functools.partial(
            _group,
            "add + claim + complete",
            "1 thread" if threads == 1 else f"{threads} threads",
            [COMPLETE],
            threads,
            aim=4.0 if threads == 1 else None,
            note="The others have nothing to complete: they only put and get.",
        )
        for threads in (1, 8, 100)
    ]
    groups += [_wake_up, functools.partial(_counting, effort.sizes[:3])]
    return [harness.Plan("queues/memory_queue", groups, [lambda: _flat(effort.items)])]


def _pass_through(items: int) -> list[int]:
    """The memory of this fresh process, each time after a tenth of the items."""
    line: MemoryQueue[object] = MemoryQueue(max_size=1_000)

    def marks() -> Iterator[int]:
        for _ in range(MARKS):
            for number in range(items // MARKS):
                line.add(b"job", priority=number % PRIORITIES)
                item = line.get_next()
                assert item is not None
                item.mark_completed()
                line.update(item)
            yield harness.resident() or 0

    return list(marks())


def _flat(items: int) -> harness.TableFigures:
    """Memory while many items are added, claimed and completed."""
    absent: list[harness.NotMeasured] = []
    rows: list[list[str | int | float]] = []
    if reason := harness.untold_memory():
        absent.append({"name": "MemoryQueue", "reason": reason})
    else:
        found = harness.in_new_process(_pass_through, items)
        rows = [
            [
                f"{items // MARKS * (at + 1):,}",
                round(bytes_ / 1024),
                round((bytes_ - found[0]) / 1024),
            ]
            for at, bytes_ in enumerate(found)
        ]
    return {
        "title": f"Memory while {items:,} items are added, claimed and completed",
        "note": "Resident memory of a fresh process that keeps the last 1,000 completed items.",
        "columns": ["Items passed", "KiB", "Growth since the first mark, KiB"],
        "rows": rows,
        "not_measured": absent,
    }
