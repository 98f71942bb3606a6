"""The converter pool against a bare executor and the rename that files away what is done.

The floors hand each file to a thread with run_in_executor and then rename it: one file after
the other, or as many at once as the pool converts.
"""

import asyncio
import functools
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from benchmarks.harness import Contestant, Effort, Group, Plan, Subject, TableFigures, renewed
from reference_impl.queues.async_converter_pool import AsyncConverterPool, Converter

CONVERSIONS = 500
AT_ONCE = 4
OTHERS = 300
STEP = 0.02  # seconds
STEPS_OF_REST = 10
DEADLINE = 60.0  # seconds

ConvertAll = Callable[[Path, int, Executor], Coroutine[None, None, None]]


def _nothing(path: Path) -> None:
    """A conversion that takes no time: what is left is the pool's own work."""


async def _in_turn(folder: Path, executor: Executor, paths: Iterable[Path]) -> None:
    loop = asyncio.get_running_loop()
    for path in paths:
        await loop.run_in_executor(executor, _nothing, path)
        path.rename(folder / "done" / path.name)


async def _one_by_one(folder: Path, count: int, executor: Executor) -> None:
    await _in_turn(folder, executor, _paths(folder, count))


async def _side_by_side(folder: Path, count: int, executor: Executor) -> None:
    paths = iter(_paths(folder, count))
    await asyncio.gather(*(_in_turn(folder, executor, paths) for _ in range(AT_ONCE)))


async def _ours(folder: Path, count: int, executor: Executor | None) -> None:
    submitted, all_submitted = 0, asyncio.Event()

    async def submit(_: None) -> None:
        nonlocal submitted
        submitted += 1
        if submitted == count:
            all_submitted.set()

    converter = Converter("bulk", folder, ("*.bulk",), _nothing)
    pool = AsyncConverterPool([converter], submit, max_concurrency=AT_ONCE, executor=executor)
    async with asyncio.timeout(DEADLINE), pool:
        await all_submitted.wait()


async def _ours_alone(folder: Path, count: int, executor: Executor) -> None:
    await _ours(folder, count, None)


def _paths(folder: Path, count: int) -> list[Path]:
    return [folder / f"{number}.bulk" for number in range(count)]


def _subject(convert_all: ConvertAll, count: int) -> Subject:
    scratch, runner, executor = (
        tempfile.TemporaryDirectory(),
        asyncio.Runner(),
        ThreadPoolExecutor(AT_ONCE),
    )
    folder = Path(scratch.name)
    (folder / "done").mkdir()
    for path in _paths(folder, count):
        path.touch()

    def batch() -> None:
        runner.run(convert_all(folder, count, executor))

    def done() -> int:
        return len(list((folder / "done").iterdir()))

    def renew() -> None:
        for path in _paths(folder, count):
            (folder / "done" / path.name).rename(path)

    def close() -> None:
        with scratch, executor, runner:
            pass

    return renewed(batch, count, done, renew, close)


LACKS = "finding the files, priorities, errors, timeouts, files that change, stopping"
CONTESTANTS: list[Contestant[ConvertAll]] = [
    Contestant(
        "run_in_executor and a rename, one file after the other",
        _one_by_one,
        "floor",
        lacks=f"{LACKS}; several at once",
    ),
    Contestant(
        f"run_in_executor and a rename, {AT_ONCE} files at once",
        _side_by_side,
        "floor",
        lacks=LACKS,
    ),
    Contestant("AsyncConverterPool", _ours_alone, "ours"),
    Contestant("AsyncConverterPool, executor=ThreadPoolExecutor", _ours, "ours"),
]


def _conversions(count: int) -> Group:
    return Group(
        f"{count} conversions that do nothing",
        [
            contestant.measured(functools.partial(_subject, contestant.make, count))
            for contestant in CONTESTANTS
        ],
        note=(
            "The files are there at the start; ours includes the pool's start and stop, and\n"
            "without an executor a new thread for each file."
        ),
        real_time=True,
        longer=4,
    )


async def _place(folder: Path, at_once: int) -> int:
    """The place in the order of conversions of an urgent file that comes last."""
    gate, order, submitted = threading.Event(), list[str](), asyncio.Semaphore(0)

    def convert(path: Path) -> None:
        order.append(path.name)
        gate.wait()

    async def submit(_: None) -> None:
        submitted.release()

    inbox = folder / "in"
    inbox.mkdir()
    for number in range(OTHERS + at_once):
        (inbox / f"{number}.bulk").touch()
    outside = folder / "now.urgent"
    outside.touch()
    converters = [
        Converter("bulk", inbox, ("*.bulk",), convert, priority=5),
        Converter("urgent", inbox, ("*.urgent",), convert, priority=1),
    ]
    pool = AsyncConverterPool(converters, submit, max_concurrency=at_once)
    try:
        async with asyncio.timeout(DEADLINE), pool:
            waiting, rested = 0, 0
            while rested < STEPS_OF_REST:  # until the pool has drawn all that it wants
                await asyncio.sleep(STEP)
                stats = pool.stats
                same = stats.running == at_once and stats.waiting == waiting > 0
                rested, waiting = rested + 1 if same else 0, stats.waiting
            outside.rename(inbox / outside.name)
            while pool.stats.waiting == waiting:  # noqa: ASYNC110  (it has no event to tell)
                await asyncio.sleep(STEP)
            gate.set()
            for _ in range(OTHERS + at_once + 1):
                await submitted.acquire()
    finally:
        gate.set()
    return order.index(outside.name) + 1


def _urgent() -> TableFigures:
    rows: list[list[str | int | float]] = []
    for at_once in (1, AT_ONCE, 4 * AT_ONCE):
        with tempfile.TemporaryDirectory() as name:
            place = asyncio.run(_place(Path(name), at_once))
        rows.append([at_once, OTHERS, place, OTHERS + at_once + 1])
    return {
        "title": f"An urgent file that comes while {OTHERS} others wait",
        "note": (
            "Its converter has priority 1, that of the others 5, and all slots are taken when it "
            "comes: it can be the next at best. The last column is where a line without "
            "priorities would put it."
        ),
        "columns": [
            "Conversions at once",
            "Others that wait",
            "Its place",
            "First come, first served",
        ],
        "rows": rows,
        "not_measured": [],
    }


def plans(effort: Effort) -> list[Plan]:
    """What is measured for each component of the family."""
    count = min(CONVERSIONS, max(20, effort.items // 1_000))
    groups = [functools.partial(_conversions, count)]
    return [Plan("queues/async_converter_pool", groups, [_urgent])]
