"""Ratios on a noisy machine: the cases of a group, measured in interleaved rounds.

Absolute times say little on a shared machine, so only ratios within a round are kept: every
round takes one sample of every case, in shuffled order, and divides by the floor's sample of
that same round. What is reported is the median of those ratios, and the range from the 10th
to the 90th percentile. A sample is many operations, as many as last long enough to be timed.
Groups of one thread are timed in processor time, which what else the machine does hardly
touches; groups of several threads, and those that wait, in real time.

The cyclic garbage collector is off while a sample runs, as in `timeit`, and what the subjects
hold is frozen, so that a large cache does not slow down the collections between rounds.
"""

import contextlib
import gc
import importlib.metadata
import itertools
import math
import platform
import random
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Generic, Literal, TypedDict, TypeVar

Batch = Callable[[], object]
Timer = Callable[[], int]
Role = Literal["floor", "ours", "reference", "peer"]
Make = TypeVar("Make")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    `sizes` are numbers of entries, in ascending order; `items` are passed through a queue to
    see whether its memory stays flat.
    """

    rounds: int
    sample_ns: int
    sizes: tuple[int, ...]
    items: int

    def __post_init__(self) -> None:
        if self.rounds < 2:
            raise ValueError(f"rounds={self.rounds}: a range needs 2 rounds at least")
        if self.sample_ns < 1:
            raise ValueError(f"sample_ns={self.sample_ns}: a sample must last 1 ns at least")


FULL = Effort(
    rounds=61,
    sample_ns=5_000_000,
    sizes=(1_000, 10_000, 100_000, 1_000_000),
    items=10_000_000,
)
QUICK = Effort(rounds=5, sample_ns=500_000, sizes=(1_000, 10_000), items=200_000)


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Subject:
    """What a case measures, built and filled.

    `workers` holds one batch per thread; calling a batch performs `operations` operations.
    `check` raises where the subject does not do its work; it runs before the first sample and
    after the last. `between` brings it back to its starting state, untimed, after each sample.
    """

    workers: Sequence[Batch]
    operations: int
    check: Batch
    between: Batch = _nothing
    close: Batch = _nothing


@dataclass(frozen=True, slots=True)
class Contestant(Generic[Make]):
    """What is measured against others. `package` is the distribution that it needs, if any."""

    name: str
    make: Make
    role: Role = "peer"
    package: str = ""
    lacks: str = ""

    def measured(self, make: Callable[[], Subject], skip: str = "") -> "Case":
        """The case that this contestant is in a group."""
        return Case(self.name, make, self.role, self.package, self.lacks, skip)


@dataclass(frozen=True, slots=True)
class Case(Contestant[Callable[[], Subject]]):
    """One thing to measure; `skip` says why it is not, where it is not."""

    skip: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Cases with one floor: of the cases in the role "floor" the fastest is it.

    Groups that follow each other with the same `series` are shown as one table, with a column
    for each `point`. `real_time` is for threads and waits, where processor time does not tell;
    their samples are `longer` times as long, and their rounds as many times fewer.
    """

    title: str
    cases: Sequence[Case]
    note: str = ""
    aim: float | None = None
    series: str = ""
    point: str = ""
    real_time: bool = False
    longer: int = 1


class CaseFigures(TypedDict):
    name: str
    version: str
    ours: bool
    ratio_median: float
    ratio_low: float
    ratio_high: float
    ns: float
    ops: int
    guarantees_note: str


class NotMeasured(TypedDict):
    name: str
    reason: str


class OtherFloor(TypedDict):
    """How our slowest case stands against a floor that is not the fastest."""

    name: str
    ratio_median: float


class GroupFigures(TypedDict):
    title: str
    series: str
    point: str
    floor: str
    other_floors: list[OtherFloor]
    note: str
    aim: float | None
    timer: str
    rounds: int
    cases: list[CaseFigures]
    not_measured: list[NotMeasured]


class TableFigures(TypedDict):
    title: str
    note: str
    columns: list[str]
    rows: list[list[str | int | float]]
    not_measured: list[NotMeasured]


class Figures(TypedDict):
    component: str
    date: str
    command: str
    python: str
    machine: Mapping[str, str | int]
    sources: dict[str, str]
    groups: list[GroupFigures]
    tables: list[TableFigures]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is measured for a component. Groups are built one at a time: some are large."""

    component: str
    groups: Sequence[Callable[[], Group]]
    tables: Sequence[Callable[[], TableFigures]] = ()


def renewed(
    batch: Batch, operations: int, done: Callable[[], int], renew: Batch, close: Batch
) -> Subject:
    """A subject that a batch uses up; `renew` brings it back, and `done` counts what was done."""
    fresh = True

    def between() -> None:
        nonlocal fresh
        if not fresh:
            renew()
            fresh = True

    def once() -> None:
        nonlocal fresh
        between()  # this has been done, unless batches are too short for a sample
        fresh = False
        batch()

    def check() -> None:
        once()
        if (found := done()) != operations:
            raise AssertionError(f"{found} done instead of {operations}")
        between()

    return Subject([once], operations, check, between=between, close=close)


class BenchmarkError(RuntimeError):
    """A case does not do what it is timed for, so its time would mean nothing."""


def version(package: str) -> str:
    """The installed version of a distribution, or this Python's for the standard library."""
    if not package:
        return f"Python {platform.python_version()}"
    return importlib.metadata.version(package)


def missing(package: str) -> str:
    """Why a case that needs `package` cannot run, or "" where it can."""
    try:
        version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"{package} is not installed"
    return ""


def measure(group: Group, effort: Effort, timer: Timer | None = None) -> GroupFigures:
    """Measure one group.

    Raises:
        BenchmarkError: A case failed its check, or the group has no floor.
    """
    if timer is None:
        timer = time.perf_counter_ns if group.real_time else time.process_time_ns
    enough = effort.sample_ns * group.longer
    rounds = max(2, effort.rounds // group.longer, min(effort.rounds, 15))
    if len({case.name for case in group.cases}) < len(group.cases):
        raise BenchmarkError(f"{group.title!r} has two cases of one name: tell them apart")
    reasons = {case.name: case.skip or missing(case.package) for case in group.cases}
    cases = [case for case in group.cases if not reasons[case.name]]
    if not any(case.role == "floor" for case in cases):
        raise BenchmarkError(f"{group.title!r} has no floor: give one case the role 'floor'")
    with contextlib.ExitStack() as stack:
        subjects: dict[str, Subject] = {}
        for case in cases:
            subject = case.make()
            stack.callback(subject.close)
            subjects[case.name] = subject
            check(case.name, subject)
        stack.enter_context(quiet_collector())
        loops = {name: calibrate(subjects[name], enough, timer) for name in subjects}
        times = take_rounds(subjects, loops, rounds, timer)
        for name, subject in subjects.items():
            check(name, subject)
        operations = {
            name: loops[name] * subject.operations * len(subject.workers)
            for name, subject in subjects.items()
        }
    each = {name: [ns / operations[name] for ns in taken] for name, taken in times.items()}
    floors = {case.name: each[case.name] for case in cases if case.role == "floor"}
    ours = [each[case.name] for case in cases if case.role == "ours"]
    floor = fastest(floors)
    return {
        "title": group.title,
        "series": group.series,
        "point": group.point,
        "floor": floor,
        "other_floors": [
            {"name": name, "ratio_median": max(_median_ratio(times, base) for times in ours)}
            for name, base in floors.items()
            if ours and name != floor
        ],
        "note": group.note,
        "aim": group.aim,
        "timer": "real time" if group.real_time else "processor time",
        "rounds": rounds,
        "cases": [
            _figures(case, ratios(each[case.name], each[floor]), each[case.name], operations)
            for case in cases
        ],
        "not_measured": [
            {"name": name, "reason": reason} for name, reason in reasons.items() if reason
        ],
    }


def check(name: str, subject: Subject) -> None:
    """Let a subject show that it does its work."""
    try:
        subject.check()
        for batch in subject.workers:
            batch()
        subject.between()
        subject.check()
    except Exception as error:
        raise BenchmarkError(f"{name!r} does not do its work: {error!r}") from error


def calibrate(subject: Subject, enough: int, timer: Timer) -> int:
    """How many times the batch must run for a sample of `enough` nanoseconds."""
    loops = 1
    while True:
        elapsed = sample(subject, loops, timer)
        if elapsed >= enough:
            return loops
        loops = math.ceil(loops * min(enough / max(elapsed, 1), 10))


def sample(subject: Subject, loops: int, timer: Timer) -> int:
    """The nanoseconds that `loops` batches take on each of the subject's workers."""
    try:
        if len(subject.workers) > 1:
            return _sample_threads(subject.workers, loops, timer)
        batch = subject.workers[0]
        started = timer()
        for _ in itertools.repeat(None, loops):
            batch()
        return timer() - started
    finally:
        subject.between()


def _sample_threads(workers: Sequence[Batch], loops: int, timer: Timer) -> int:
    """From the moment that all threads are ready until the last has done its batches.

    The threads take the times themselves: this thread may have to wait for a processor.
    """
    started: list[int] = []
    ended: list[int] = []
    failures: list[BaseException] = []
    gate = threading.Barrier(len(workers), action=lambda: started.append(timer()))

    def work(batch: Batch) -> None:
        gate.wait()
        try:
            for _ in itertools.repeat(None, loops):
                batch()
        except BaseException as error:
            failures.append(error)
        ended.append(timer())

    threads = [threading.Thread(target=work, args=(batch,)) for batch in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return max(ended) - started[0]


def take_rounds(
    subjects: Mapping[str, Subject], loops: Mapping[str, int], rounds: int, timer: Timer
) -> dict[str, list[int]]:
    """One sample of each subject per round, the order shuffled anew (and repeatably)."""
    order = list(subjects)
    shuffle = random.Random(0).shuffle
    times: dict[str, list[int]] = {name: [] for name in order}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            times[name].append(sample(subjects[name], loops[name], timer))
        gc.collect(0)
    return times


def fastest(times: Mapping[str, Sequence[float]]) -> str:
    """The case with the lowest median: the honest floor among several ways to write it."""
    return min(times, key=lambda name: statistics.median(times[name]))


def ratios(times: Sequence[float], floor: Sequence[float]) -> list[float]:
    """Round by round, how many times as long as the floor."""
    return [taken / base for taken, base in zip(times, floor, strict=True)]


def _median_ratio(times: Sequence[float], floor: Sequence[float]) -> float:
    return round(statistics.median(ratios(times, floor)), 3)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """The 10th percentile, the median and the 90th percentile."""
    deciles = statistics.quantiles(values, n=10, method="inclusive")
    return deciles[0], statistics.median(values), deciles[-1]


def _figures(
    case: Case, relative: Sequence[float], each: Sequence[float], operations: Mapping[str, int]
) -> CaseFigures:
    low, median, high = spread(relative)
    return {
        "name": case.name,
        "version": version(case.package),
        "ours": case.role == "ours",
        "ratio_median": round(median, 3),
        "ratio_low": round(low, 3),
        "ratio_high": round(high, 3),
        "ns": round(statistics.median(each), 1),
        "ops": operations[case.name],
        "guarantees_note": case.lacks,
    }


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """No cyclic collection inside; what exists now is left out of those asked for by hand."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def untold_memory() -> str:
    """Why `resident` tells nothing, or "" where it does."""
    return "only Linux tells a process how much memory it holds" if resident() is None else ""


def in_new_process(measure: Callable[..., Found], *args: object) -> Found:
    """What a function of a module finds in a Python process that has done nothing else."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, *args).result()


def memory_table(
    title: str, note: str, reasons: Mapping[str, str], measure: Callable[[str], float]
) -> TableFigures:
    """What `measure` finds for each name in a new process, where there is no reason against it."""
    rows: list[list[str | int | float]] = []
    absent: list[NotMeasured] = []
    for name, known in reasons.items():
        if reason := known or untold_memory():
            absent.append({"name": name, "reason": reason})
        else:
            rows.append([name, round(in_new_process(measure, name))])
    return {
        "title": title,
        "note": f"By the growth of a fresh process; {note}.",
        "columns": ["Case", "Bytes"],
        "rows": rows,
        "not_measured": absent,
    }


def resident() -> int | None:
    """The bytes of memory that this process holds now, where the system tells (Linux)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^VmRSS:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
