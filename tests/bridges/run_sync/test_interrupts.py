"""RS-5: timeouts and interrupts of run_sync cancel the coroutine and await its clean-up."""

import asyncio
import inspect
import math
import threading
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import run_sync as component
from reference_impl.bridges.run_sync import run_sync
from tests.bridges.run_sync import inside
from tests.bridges.run_sync.faults import IMPORT, LEAVES_IT, Call, around, load
from tests.bridges.run_sync.helpers import (
    answer,
    both_ways,
    hasty,
    within_a_loop,
)
from tests.kit.process import run_python
from tests.kit.proofs import Proof, each_twin_of
from tests.kit.twins import Twin, must_fail


def check_timeout(m: ModuleType, way: Call) -> None:
    log = []

    async def hang() -> None:
        try:
            await asyncio.sleep(0.2)
        finally:
            await asyncio.sleep(0)
            log.append("cleaned up")

    async def refuse_to_be_cancelled() -> str:
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            log.append("cancelled")
        return "late"

    with pytest.raises(TimeoutError, match=r"^cancelled after 0 s$"):
        way(m, hang, timeout=0)
    assert log == ["cleaned up"]
    assert way(m, refuse_to_be_cancelled, timeout=0) == "late"
    assert log == ["cleaned up", "cancelled"]
    assert way(m, answer, timeout=60) == 42


def check_its_own_timeouts_keep_their_words(m: ModuleType, way: Call) -> None:
    own = TimeoutError()

    async def inner() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    async def in_the_clean_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise own

    with pytest.raises(TimeoutError, match=r"^$"):
        way(m, inner, timeout=60)
    with pytest.raises(TimeoutError, match=r"^$") as caught:
        way(m, in_the_clean_up, timeout=0)
    assert caught.value is own


def says_nothing(original: Call, coro: Any, timeout: float | None) -> Any:
    try:
        return original(coro, timeout=timeout)
    except TimeoutError:
        raise TimeoutError from None


def always_says_it(original: Call, coro: Any, timeout: float | None) -> Any:
    try:
        return original(coro, timeout=timeout)
    except TimeoutError as error:
        error.args = (f"cancelled after {timeout} s",)
        raise


PROOFS = [
    Proof(
        "RS-5",
        check_timeout,
        [
            Twin(
                "ignores the timeout",
                around(lambda original, coro, _: original(coro)),
                "Failed: DID NOT RAISE",
            ),
            Twin(
                "raises though the coroutine would still return",
                around(lambda original, coro, timeout: original(hasty(coro, timeout))),
                "TimeoutError: cancelled after 0 s",
            ),
            Twin(
                "does not say after how long",
                around(says_nothing),
                "AssertionError: cancelled after",
            ),
        ],
    ),
    Proof(
        "RS-5",
        check_its_own_timeouts_keep_their_words,
        [
            Twin(
                "puts its words into the coroutine's mouth",
                around(always_says_it),
                "AssertionError: cancelled after 60 s",
            )
        ],
    ),
]


@both_ways
@pytest.mark.parametrize("timeout", [None, 60, 60.0, math.inf, 10**400, threading.TIMEOUT_MAX])
def test_a_timeout_that_is_not_reached_changes_nothing(way: Call, timeout: float | None) -> None:
    assert way(component, answer, timeout=timeout) == 42


def test_without_a_wait_no_timeout_is_seen() -> None:
    async def busy() -> str:
        return "done"

    assert run_sync(busy(), timeout=0) == "done"


@pytest.mark.parametrize("times", [1, 2, 5])
def test_each_interrupt_of_the_wait_cancels_once_and_the_clean_up_is_awaited(times: int) -> None:
    """KeyboardInterrupt in the thread that waits, each time that the coroutine waits again."""
    waits, log = [threading.Event() for _ in range(times)], list[str]()

    async def work() -> None:
        for wait in waits:
            wait.set()
            try:
                while not interrupts.over.is_set():
                    await asyncio.sleep(0)
                for _ in range(3):  # a cancellation that was posted before arrives
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                log.append("cancelled")
            else:
                log.append("went on")
        await asyncio.sleep(0)
        log.append("cleaned up")

    with inside.Interrupts(component, waits) as interrupts:
        with pytest.raises(KeyboardInterrupt):
            within_a_loop(component, work)
        assert log == ["cancelled"] * times + ["cleaned up"], "it was left running"
        assert interrupts.has_ended


def test_an_interrupt_before_it_has_begun_never_begins_it() -> None:
    began = []

    async def work() -> None:
        began.append(True)

    coro = work()
    with inside.interrupted_before_it_begins(component) as still_to_come:
        with pytest.raises(KeyboardInterrupt):
            within_a_loop(component, lambda: coro)
    assert not began, "it began"
    assert still_to_come == [False], "its end was waited for"
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    assert inside.idle(component)[1] == 0


def ctrl_c(*calls: str, load: str = IMPORT) -> str:
    """A program that presses Ctrl-C while `work()` waits, and what else it does."""
    return SIGINT.replace("LOAD", load) + "".join(calls)


SIGINT = """
    import asyncio, os, signal, threading
    LOAD

    log, seen, main_thread = [], threading.Event(), threading.main_thread().ident

    def press_ctrl_c(seen):
        # A signal can be missed where it comes just before a wait: so press again.
        while not seen.is_set():
            signal.pthread_kill(main_thread, signal.SIGINT)
            seen.wait(1)

    async def until_interrupted(seen):
        presser = threading.Thread(target=press_ctrl_c, args=(seen,))
        presser.start()
        try:
            await asyncio.Event().wait()
        finally:
            seen.set()
            presser.join()

    async def work():
        try:
            await until_interrupted(seen)
        finally:
            await asyncio.sleep(0)
            log.append("cleaned up")

    async def main():
        run_sync(work())
"""
NO_LOOP = """
    def call():
        run_sync(work())
"""
IN_A_LOOP = """
    def call():
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()
"""
UNDER_RUN = """
    def call():
        asyncio.run(main())
"""
EXPECT = """
    try:
        call()
    except KeyboardInterrupt:
        if log != expected:
            print("left running", log, flush=True)
            os._exit(1)
    else:
        raise AssertionError("no KeyboardInterrupt")
"""
CLEANED_UP = """
    expected = ["cleaned up"]
"""


@pytest.mark.guarantee("RS-5")
@pytest.mark.parametrize(
    "call", [NO_LOOP, IN_A_LOOP, UNDER_RUN], ids=["no loop", "in a loop", "asyncio.run"]
)
def test_ctrl_c_cancels_and_awaits_the_clean_up(call: str) -> None:
    """Under asyncio.run the second one does: the first only schedules a cancellation."""
    run_python(ctrl_c(call, CLEANED_UP, EXPECT))


@each_twin_of("RS-5", LEAVES_IT)
def test_ctrl_c_catches_a_twin(twin: Twin) -> None:
    code = ctrl_c(IN_A_LOOP, CLEANED_UP, EXPECT, load=load(twin))
    must_fail(twin, partial(run_python, code))


@pytest.mark.guarantee("RS-5")
def test_a_second_ctrl_c_cancels_the_clean_up() -> None:
    again = """
    async def stubborn():
        try:
            await work()
        finally:
            try:
                await until_interrupted(threading.Event())
            finally:
                log.append("gave up")

    async def main():
        run_sync(stubborn())

    expected = ["cleaned up", "gave up"]
    """
    run_python(ctrl_c(IN_A_LOOP, again, EXPECT))


def test_under_asyncio_run_the_first_ctrl_c_only_schedules_a_cancellation() -> None:
    """So a blocking call goes on for its full time: the page says so."""
    note = """
    async def work():
        presser = threading.Thread(target=press_ctrl_c, args=(seen,))
        presser.start()
        await asyncio.to_thread(seen.wait)
        presser.join()
        log.append("went on to its end")

    async def main():
        theirs = signal.getsignal(signal.SIGINT)

        def note(*arguments):
            if not seen.is_set():
                seen.set()
                theirs(*arguments)

        signal.signal(signal.SIGINT, note)
        run_sync(work())
        signal.signal(signal.SIGINT, theirs)
        await asyncio.sleep(0)
        log.append("not reached")

    expected = ["went on to its end"]
    """
    run_python(ctrl_c(UNDER_RUN, note, EXPECT))
