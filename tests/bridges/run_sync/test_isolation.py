"""RS-4: a call is as isolated as asyncio.run, and only a loop that is as new serves again."""

import asyncio
import contextlib
import os
import weakref
from collections.abc import AsyncIterator, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference_impl.bridges import run_sync as component
from reference_impl.bridges.run_sync import run_sync
from tests.bridges.run_sync import inside
from tests.bridges.run_sync.faults import Call, seeing
from tests.bridges.run_sync.helpers import (
    WAYS,
    Loops,
    Make,
    Trouble,
    answer,
    both_ways,
    close_idle,
    helper_threads,
    kept,
    within_a_loop,
    without_a_loop,
)
from tests.kit.proofs import Proof
from tests.kit.twins import Twin

# What a coroutine may leave.


async def count_to_two() -> AsyncIterator[int]:
    yield 1
    yield 2


async def leave_a_task() -> None:
    asyncio.create_task(asyncio.sleep(3600))  # noqa: RUF006


async def leave_a_task_made_by_hand() -> None:
    """Past any task factory, and waiting for nothing that the loop knows."""
    forever = asyncio.Event().wait()
    kept.append(asyncio.Task(forever, loop=asyncio.get_running_loop()))
    await asyncio.sleep(0)


async def leave_a_timer() -> None:
    asyncio.get_running_loop().call_later(3600, print)


async def leave_a_callback() -> None:
    def again() -> None:
        asyncio.get_running_loop().call_soon(again)

    again()


async def leave_a_reader() -> None:
    read, write = os.pipe()
    kept.append((read, write))
    asyncio.get_running_loop().add_reader(read, lambda: None)


async def leave_a_generator() -> None:
    numbers = count_to_two()
    kept.append(numbers)
    await anext(numbers)


async def leave_an_executor() -> None:
    await asyncio.to_thread(int)


async def leave_debug_mode() -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(not loop.get_debug())


async def leave_an_exception_handler() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)


async def leave_a_task_factory() -> None:
    asyncio.get_running_loop().set_task_factory(
        lambda loop, coro, **k: asyncio.Task(coro, loop=loop, **k)
    )


async def leave_another_slowness() -> None:
    asyncio.get_running_loop().slow_callback_duration = 9.0


async def leave_an_attribute() -> None:
    """As code does that keeps something on the loop itself."""
    vars(asyncio.get_running_loop())["session"] = 7


async def leave_another_method() -> None:
    """As tools do that watch or patch a loop."""
    vars(asyncio.get_running_loop())["create_future"] = asyncio.Future


async def leave_generators_shut_down() -> None:
    await asyncio.get_running_loop().shutdown_asyncgens()


async def leave_executors_shut_down() -> None:
    await asyncio.get_running_loop().shutdown_default_executor()


async def leave_a_lock_that_is_bound_to_it() -> None:
    lock = asyncio.Lock()
    kept.append(lock)
    async with lock:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lock.acquire(), 0.001)


async def leave_a_reference() -> None:
    """A thread that has it could post to it in the middle of another call."""
    kept.append(asyncio.get_running_loop())


async def leave_a_weak_reference() -> None:
    """As libraries do that keep something for each loop."""
    kept.append(weakref.ref(asyncio.get_running_loop()))


async def leave_a_failure() -> None:
    raise Trouble


LEAVINGS = [value for name, value in list(globals().items()) if name.startswith("leave_")]


async def tidy() -> None:
    async with asyncio.timeout(3600), asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
        group.create_task(asyncio.sleep(0.001))
    async for _ in count_to_two():
        pass


@pytest.fixture(autouse=True)
def _pipes_are_closed() -> Iterator[None]:
    yield
    for read, write in [item for item in kept if isinstance(item, tuple)]:
        os.close(read)
        os.close(write)


def check_isolation(m: ModuleType, way: Call, leave: Make) -> None:
    own = 1 if way is within_a_loop else 0
    way(m, tidy)
    with Loops() as loops:
        way(m, tidy)
        assert loops.made == own, "a tidy call cost a new loop"
        with contextlib.suppress(Trouble):
            way(m, leave)
        way(m, answer)
        assert loops.made == 3 * own + 1, "the loop was used again"


@pytest.mark.guarantee("RS-4")
@both_ways
@pytest.mark.parametrize("leave", LEAVINGS)
def test_a_loop_on_which_something_was_left_is_not_used_again(leave: Make, way: Call) -> None:
    check_isolation(component, way, leave)


def test_a_loop_that_cannot_be_looked_into_is_not_used_again() -> None:
    """Such as one written in another language."""
    with inside.opaque_loops(component), Loops() as loops:
        for _ in range(3):
            assert run_sync(answer()) == 42
        assert loops.made == 3


def check_that_what_was_left_is_awaited(m: ModuleType, way: Call) -> None:
    cleaned_up = []

    async def clean_up_slowly(what: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned_up.append(what)

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            cleaned_up.append("generator")

    async def leave() -> None:
        kept.append(asyncio.create_task(clean_up_slowly("task")))
        generator = numbers()
        kept.append(generator)
        await anext(generator)
        await asyncio.sleep(0)

    way(m, leave)
    assert cleaned_up == ["task", "generator"], "not awaited"


def check_no_loop_that_is_referred_to(m: ModuleType, way: Call) -> None:
    check_isolation(m, way, leave_a_reference)


def check_no_loop_that_is_referred_to_weakly(m: ModuleType, way: Call) -> None:
    check_isolation(m, way, leave_a_weak_reference)


def careless(**options: Any) -> SimpleNamespace:
    """A runner that drops what is left, instead of ending it."""
    runner = asyncio.Runner(**options)
    loop = runner.get_loop()
    return SimpleNamespace(run=runner.run, get_loop=runner.get_loop, close=loop.close)


PROOFS = [
    Proof(
        "RS-4",
        check_that_what_was_left_is_awaited,
        [
            Twin(
                "drops what the coroutine left",
                seeing("asyncio", Runner=careless),
                "AssertionError: not awaited",
            )
        ],
    ),
    Proof(
        "RS-4",
        check_no_loop_that_is_referred_to,
        [
            Twin(
                "overlooks what still refers to a loop",
                seeing("sys", getrefcount=lambda _: 1),
                "AssertionError: the loop was used again",
            )
        ],
    ),
    Proof(
        "RS-4",
        check_no_loop_that_is_referred_to_weakly,
        [
            Twin(
                "overlooks weak references to a loop",
                seeing("weakref", getweakrefcount=lambda _: 0),
                "AssertionError: the loop was used again",
            )
        ],
    ),
]


@pytest.mark.guarantee("RS-4")
def test_the_threads_current_loop_stays_as_it_is() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        run_sync(answer())
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_a_tidy_call_does_not_look_at_every_task_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """asyncio.all_tasks does, and so costs milliseconds where there are ten thousand."""

    def look(*arguments: Any) -> Any:
        raise AssertionError("looked at all tasks")

    monkeypatch.setattr("asyncio.tasks.all_tasks", look)
    for _ in range(3):
        assert run_sync(answer()) == 42


# What calls do in any order, against a plain prediction.


async def time_out() -> None:
    async with asyncio.timeout(0):
        await asyncio.Event().wait()


KINDS: dict[str, tuple[Make, object, bool]] = {
    "tidy": (tidy, None, True),
    "answer": (answer, 42, True),
    "task": (leave_a_task, None, False),
    "setting": (leave_debug_mode, None, False),
    "timeout": (time_out, TimeoutError, False),
    "trouble": (leave_a_failure, Trouble, False),
}


@given(
    calls=st.lists(
        st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(WAYS), st.sampled_from([1, 2, 3]))
    )
)
@pytest.mark.guarantee("RS-4")
def test_any_series_of_calls(calls: list[tuple[str, Call, int]]) -> None:
    """Results, and how many loops and threads are idle after each."""
    close_idle()
    idle_loops = threads = 0

    async def nested(make: Make, depth: int) -> Any:
        return await make() if depth == 1 else run_sync(nested(make, depth - 1))

    with Loops() as loops:
        for kind, way, depth in calls:
            make, outcome, leaves_nothing = KINDS[kind]
            levels = depth - (way is without_a_loop)
            try:
                result = way(component, lambda make=make, depth=depth: nested(make, depth))
            except Exception as error:
                result = type(error)
            assert result is outcome or result == outcome
            threads = max(threads, levels)
            assert helper_threads() == threads
            idle_loops = max(idle_loops, depth)
            if not leaves_nothing:
                # What failed, failed on all levels; what was left was left on the innermost.
                idle_loops -= depth if isinstance(outcome, type) else 1
            assert loops.open == idle_loops
