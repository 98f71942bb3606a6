"""The tasks of DirectoryWatch's loop, under every schedule and cancellation of detangle.

The whole component runs, on a real directory; its keeper runs only while the loop waits for it.
"""

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import detangle
import pytest
from watchdog import events

from reference_impl.bridges import file_watch
from tests.bridges.file_watch.faults import GIVE, leaves_without_waiting
from tests.bridges.file_watch.helpers import COMPONENT, age
from tests.interleavings.file_watch.teller import Teller, put_observer
from tests.kit.explore import Schedules
from tests.kit.fakes import PATIENCE
from tests.kit.primitives import rebind
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Fault, Twin, build, edit, override


class Keeper:
    """A thread that runs only while the loop waits for it, until it sleeps or ends."""

    made: list["Keeper"] = []
    ident = 1  # as of one that was started

    def __init__(self, *, target: Callable[[], None], **_: object) -> None:
        self._target, self._ended, self._given_up = target, False, False
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        Keeper.made.append(self)

    def _run(self) -> None:
        with contextlib.suppress(SystemExit):
            self._await_turn()
            self._target()
        self._ended = True
        self._back.release()

    def start(self) -> None:
        self._thread.start()
        self.have_a_turn()

    def have_a_turn(self) -> None:
        """On the loop: give the keeper its turn, some time."""

        async def turn() -> None:
            self.go_on()

        asyncio.get_running_loop().create_task(turn(), name="keeper")

    def go_on(self) -> None:
        """On the loop: give the keeper its turn."""
        if not self._ended:
            self._turn.release()
            assert self._back.acquire(timeout=PATIENCE)

    def sleep(self) -> None:
        """In the keeper: give the turn back, and wait for the next."""
        self._back.release()
        self._await_turn()

    def _await_turn(self) -> None:
        _ = self._turn.acquire()
        if self._given_up:
            raise SystemExit

    def is_alive(self) -> bool:
        return True  # for it is joined on its way out

    def join(self) -> None:
        assert self._ended, "it is joined while it runs"

    def give_up(self) -> None:
        """End it, wherever it sleeps."""
        self._given_up = True
        self.go_on()
        self._thread.join(PATIENCE)


class Nap:
    """The condition that a keeper sleeps in; who notifies it on the loop gives it a turn later."""

    def __init__(self, _: object) -> None:
        self._asleep = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, timeout: float | None = None) -> None:
        self._asleep = True
        try:
            Keeper.made[-1].sleep()
        finally:
            self._asleep = False

    def notify(self) -> None:
        if self._asleep:
            self._asleep = False
            Keeper.made[-1].have_a_turn()

    notify_all = notify


class Free(contextlib.nullcontext[None]):
    """A lock that is always free: no two threads run at once."""


@pytest.fixture
def on_one_loop() -> Iterator[Callable[[ModuleType], ModuleType]]:
    """Lets a module's keepers run only while the loop waits for them."""
    undo: list[Callable[[], None]] = []

    def patched(module: ModuleType) -> ModuleType:
        undo.append(rebind(module, Thread=Keeper, RLock=Free, Condition=Nap))
        return module

    yield patched
    for each in undo:
        each()
    for keeper in Keeper.made:
        keeper.give_up()
    Keeper.made.clear()


class AsyncTeller(Teller):
    """The same for a loop of detangle's, which waits until it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.ended, self._loop = asyncio.Event(), asyncio.get_running_loop()

    def stop(self) -> None:
        super().stop()
        self._loop.call_soon_threadsafe(self.ended.set)


Model = Callable[[], Coroutine[Any, Any, None]]


def check_tasks_that_take(m: Any) -> Model:
    """Two tasks iterate, one of them may be cancelled at any await; files come meanwhile."""
    files = ["0", "1", "2"]

    async def model() -> None:
        given: list[str] = []
        enough, teller = asyncio.Event(), AsyncTeller()

        async def take() -> None:
            async for path in watch:
                given.append(path.name)
                if len(given) == len(files):
                    enough.set()
                await asyncio.sleep(0)

        async def produce() -> None:
            for name in files:
                path = Path(folder, name)
                path.touch()
                age(path)
                teller.handler.dispatch(events.FileClosedEvent(str(path)))
                await asyncio.sleep(0)

        put_observer(m, lambda **_: teller)
        with tempfile.TemporaryDirectory() as folder:
            async with m.DirectoryWatch(folder, rescan_interval=None) as watch:
                tasks = [asyncio.create_task(take(), name=f"taker {number}") for number in (0, 1)]
                detangle.inject_cancellation(tasks[0])
                await asyncio.create_task(produce(), name="observer")
                await enough.wait()
            await asyncio.wait(tasks)  # the end of the block ends the iteration
            assert given == files, given
            assert teller.stopped.is_set()

    return model


def check_one_who_enters(m: Any) -> Model:
    """Entering, iterating and leaving may be cancelled at any await; the keeper ends."""

    async def model() -> None:
        teller, before = AsyncTeller(), len(Keeper.made)
        put_observer(m, lambda **_: teller)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "file").touch()
            watch = m.DirectoryWatch(folder, rescan_interval=None)

            async def use() -> None:
                async with watch:
                    assert (await anext(watch)).name == "file"

            task = asyncio.create_task(use(), name="user")
            detangle.inject_cancellation(task)
            await asyncio.wait([task])
            if not task.cancelled():
                await task
                assert teller.stopped.is_set(), "the block was left before the keeper had ended"
            if len(Keeper.made) > before:  # it was not cancelled before it began
                await teller.ended.wait()

    return model


def gives_late() -> Fault:
    """What it has taken it gives at its next turn."""

    def make(original: Any) -> Any:
        async def give(self: Any) -> Path:
            path: Path = await original(self)
            await asyncio.sleep(0)
            return path

        return give

    return override(GIVE, make)


def gives_no_end() -> Fault:
    """Who iterates waits for ever when the block has been left."""

    def make(original: Any) -> Any:
        async def give(self: Any) -> Path:
            try:
                return Path(await original(self))
            except StopAsyncIteration:
                await asyncio.Event().wait()
                raise

        return give

    return override(GIVE, make)


ON_THE_LOOP = [
    Proof(
        "FW-2",
        check_tasks_that_take,
        [
            Twin("waits with a file in hand", gives_late(), "DeadlockError: enough.wait()"),
            Twin("does not tell of the end", gives_no_end(), "DeadlockError: asyncio.wait(tasks)"),
        ],
    ),
    Proof(
        "FW-5",
        check_one_who_enters,
        [
            Twin(
                "does not wait for its keeper",
                leaves_without_waiting(),
                "AssertionError: the block was left before the keeper had ended",
            ),
            Twin(
                "keeps its keeper where nobody gets in",
                edit(
                    "DirectoryWatch.__aenter__",
                    "await self.__aexit__()",
                    "pass",
                ),
                "DeadlockError: teller.ended.wait()",
            ),
        ],
    ),
]


@each_proof(ON_THE_LOOP)
def test_no_cancellation_takes_a_file_or_leaves_the_keeper(
    proof: Proof, schedules: Schedules, on_one_loop: Callable[[ModuleType], ModuleType]
) -> None:
    model: Any = proof.check(on_one_loop(file_watch))
    schedules.prove(model, delays=2)
    schedules.sample(model, schedules=500)


@each_twin(ON_THE_LOOP)
def test_a_fault_on_the_loop_is_caught(
    proof: Proof,
    twin: Twin,
    schedules: Schedules,
    on_one_loop: Callable[[ModuleType], ModuleType],
) -> None:
    model: Any = proof.check(on_one_loop(build(COMPONENT, twin.fault)))
    schedules.catch(model, twin=twin)
