"""What AsyncRunner does on its loop, under every schedule of detangle's loop, up to a bound.

That is asyncio's own but for the order.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from reference_impl.bridges import async_runner
from tests.bridges.async_runner.helpers import FILE, NOT_AWAITED, BareLoop, left_behind
from tests.kit.explore import Schedules
from tests.kit.primitives import rebind
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Twin, build, edit


class Work:
    """Coroutines whose clean-up takes two turns, and how often it was begun, ended and broken."""

    def __init__(self) -> None:
        self.begun = self.clean = self.broken = 0

    async def job(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.begun += 1
            try:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                self.clean += 1
            except asyncio.CancelledError:
                self.broken += 1
            raise

    async def parent(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.job(), name="child")

    async def nested(self, depth: int) -> None:
        if depth:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.nested(depth - 1))
        else:
            await self.job()

    async def grandparent(self) -> None:
        """Its background task is nobody's, and its own clean-up begins another."""
        task = asyncio.create_task(self.job(), name="background")
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.begun += 1
            try:
                await asyncio.create_task(asyncio.sleep(0), name="goodbye")
                self.clean += 1
            except asyncio.CancelledError:
                self.broken += 1
            del task
            raise


class Thread:
    """A thread that runs when it is told to."""

    def __init__(self, *, target: Callable[..., None], args: tuple[Any, ...], **_: object) -> None:
        self.run: Callable[[], None] = lambda: target(*args)

    def start(self) -> None:
        pass

    def join(self) -> None:
        pass


class LoopHere(BareLoop):
    """The loop that runs the model, as the runner's own.

    It calls at once what is posted, in the order that the runner relies on.
    """

    def __init__(self) -> None:
        self.create_task = asyncio.get_running_loop().create_task
        self.stopped, self.closed = asyncio.Event(), False
        self.stop = self.stopped.set

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *arguments: Any, context: Any = None
    ) -> None:
        (context or contextvars.copy_context()).run(callback, *arguments)

    def close(self) -> None:
        self.closed = True


class RunnerHere:
    """A runner on the loop that runs the model; `end` closes it."""

    def __init__(self, m: ModuleType) -> None:
        me, self._loop = asyncio.current_task(), LoopHere()
        seen = SimpleNamespace(
            **vars(asyncio)
            | {
                "new_event_loop": lambda: self._loop,
                "get_running_loop": lambda: self._loop,
                "Task": lambda coro, *, loop, name: asyncio.Task(coro, name=name),
                "all_tasks": lambda: asyncio.all_tasks() - {me},
            }
        )
        threads: list[Thread] = []

        def thread(**options: Any) -> Thread:
            threads.append(Thread(**options))
            return threads[-1]

        self._patch = mock.patch.multiple(
            m,
            asyncio=seen,
            ThreadPoolExecutor=lambda **_: None,
            start_new_thread=lambda work, arguments: work(*arguments),
        )
        self._patch.start()
        undo = rebind(m, Thread=thread)
        self._runner = m.AsyncRunner()
        self.submit = self._runner.submit
        self._runner.start()
        undo()
        (self._thread,) = threads

    async def end(self) -> None:
        """Close it, and wait until it has ended."""
        with suppress(TimeoutError):
            self._runner.close(0)
        await self._loop.stopped.wait()
        self._thread.run()
        self._runner.close()
        assert self._loop.closed

    def __enter__(self) -> "RunnerHere":
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.stop()


def winding_down(m: ModuleType, *names: str) -> Callable[[], Coroutine[Any, Any, None]]:
    """A future is cancelled at any moment, and at any moment the runner is closed."""

    async def model() -> None:
        work = Work()
        with RunnerHere(m) as runner:
            futures = [runner.submit(getattr(work, name)()) for name in names]

            async def cancel() -> None:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                futures[0].cancel()

            canceller = asyncio.create_task(cancel(), name="canceller")
            for _ in range(4):
                await asyncio.sleep(0)
            await runner.end()
            await asyncio.sleep(1)  # of the loop's own time: every callback has been called
        assert canceller.done()
        assert all(future.cancelled() for future in futures)
        # In an order that is not asyncio's a parent may cancel its child a second time.
        assert work.broken == 0 or "parent" in names, "a clean-up was cancelled"
        assert work.clean + work.broken == work.begun, "a clean-up was not awaited"

    return model


def close_awaits_two_jobs(m: ModuleType) -> Callable[[], Coroutine[Any, Any, None]]:
    return winding_down(m, "job", "job")


def close_awaits_children(m: ModuleType) -> Callable[[], Coroutine[Any, Any, None]]:
    return winding_down(m, "parent", "job")


def close_awaits_background_tasks(m: ModuleType) -> Callable[[], Coroutine[Any, Any, None]]:
    return winding_down(m, "job", "grandparent")


BROKEN = "AssertionError: a clean-up was cancelled"
ON_A_LOOP = [
    Proof(
        "AR-2",
        close_awaits_two_jobs,
        [
            Twin(
                "cancels a task twice",
                edit("_Submission.cancel_task", "not self.is_task_cancelled", "True"),
                BROKEN,
            ),
            Twin("does not await what was submitted", NOT_AWAITED, BROKEN),
        ],
    ),
    Proof(
        "AR-2",
        close_awaits_children,
        [
            Twin(
                "does not settle what was cancelled on the loop",
                edit(
                    "_Submission.settle",
                    "self._cancel()",
                    "pass",
                ),
                "AssertionError: all(future.cancelled()",
            )
        ],
    ),
    Proof(
        "AR-2",
        close_awaits_background_tasks,
        [
            Twin(
                "cancels in the end what it cancelled before",
                edit("_end_tasks", "tasks.difference(cancelled)", "tasks"),
                BROKEN,
            )
        ],
    ),
]


@each_proof(ON_A_LOOP)
def test_every_schedule_of_a_loop(proof: Proof, schedules: Schedules) -> None:
    model = proof.check(build(async_runner))
    schedules.prove(model, delays=2)  # type: ignore[arg-type]
    schedules.sample(model, schedules=300)  # type: ignore[arg-type]


@each_twin(ON_A_LOOP)
def test_the_schedules_catch_a_twin(proof: Proof, twin: Twin, schedules: Schedules) -> None:
    model: Any = proof.check(build(FILE, twin.fault))
    with left_behind():
        schedules.catch(model, twin=twin)


def check_clean_ups_after_any_number_of_turns(m: ModuleType) -> None:
    """asyncio's own order, in which no clean-up of a child is cancelled, however deep it is.

    The cancellation of a future and the close come after every number of turns.
    """

    async def model(cancel: int, close: int) -> None:
        work = Work()
        with RunnerHere(m) as runner:
            futures = [runner.submit(work.nested(depth)) for depth in range(4)]
            futures.append(runner.submit(work.grandparent()))
            for turn in range(max(cancel, close) + 1):
                if turn == cancel:
                    for future in futures[::2]:
                        future.cancel()
                if turn == close:
                    await runner.end()
                    break
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert all(future.cancelled() for future in futures)
        assert work.broken == 0, "a clean-up was cancelled"
        assert work.clean == work.begun, "a clean-up was not awaited"

    for cancel in range(14):
        for close in range(14):
            asyncio.run(model(cancel, close))


SPREAD = "reached |= new\nawait asyncio.sleep(0)"
IN_ORDER = [
    Proof(
        "AR-2",
        check_clean_ups_after_any_number_of_turns,
        [
            Twin(
                "cancels children that are being cancelled",
                edit("AsyncRunner._wind_down", "not task.cancelling()", "True"),
                BROKEN,
            ),
            Twin(
                "cancels all in one turn",
                edit("AsyncRunner._wind_down", "await _spread()", ""),
                BROKEN,
            ),
            Twin(
                "waits for one level of children",
                edit("_spread", SPREAD, f"{SPREAD}\nbreak"),
                BROKEN,
            ),
        ],
    )
]


@each_proof(IN_ORDER)
def test_asyncios_own_order(proof: Proof) -> None:
    proof.hold(build(async_runner))


@each_twin(IN_ORDER)
def test_asyncios_own_order_catches_a_twin(proof: Proof, twin: Twin) -> None:
    with left_behind():
        proof.must_fail(twin, FILE)
