"""run_sync's hand-over of helper threads and its interrupts under every schedule, to a bound.

An event loop does not run under a thread scheduler. So the one function that runs a loop is
replaced: a job's "coroutine" is here a plain function, which tells the job where it begins and
ends as the coroutine does. All else is the component's. The race of a timeout with the end of
the coroutine happens on one loop, and is explored there.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import run_sync as component
from tests.kit.explore import Interleavings, Schedules
from tests.kit.proofs_old import Faults, Proof, each_proof, each_twin
from tests.kit.twins import twin

interleave_test = pytest.importorskip("interleave_test")
spawn: Callable[..., Any] = interleave_test.spawn

FILE = "bridges/run_sync.py"


def without_a_loop(start: Any, context: Any) -> Any:
    job = start.__self__
    return job._coro(job)


@pytest.fixture
def modelled(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], ModuleType]:
    """The module without its loops, and with room for one idle helper."""

    def change(module: ModuleType) -> ModuleType:
        for name, value in (
            ("_run", without_a_loop),
            ("_KEPT", 1),
            ("_loops", None),
            ("_helpers", None),
        ):
            monkeypatch.setattr(module, name, value)
        return module

    return change


def anew(m: Any) -> None:
    """Shelves whose locks the scheduler knows."""
    m._loops, m._helpers = m._Shelf(), m._Shelf()


def call(m: ModuleType, work: Callable[[Any], Any]) -> Any:
    return m._run_elsewhere(m._Job(work, None))


def result(thread: Any) -> Any:
    thread.join()
    return thread.result()


# The models. Each takes the module, and is one run: it builds its state and asserts.


def two_callers(m: ModuleType) -> None:
    anew(m)
    other = spawn(call, m, lambda _: "a", name="caller")
    assert call(m, lambda _: "b") == "b"
    assert result(other) == "a"
    assert len(m._helpers._things) == 1
    m._close_idle()


def a_nested_call(m: ModuleType) -> None:
    anew(m)
    outer = spawn(call, m, lambda _: call(m, lambda _: "inner"), name="caller")
    assert result(outer) == "inner"
    m._close_idle()


def an_exit_inside(m: ModuleType) -> None:
    anew(m)

    def leave(_: Any) -> None:
        raise SystemExit(3)

    def caller() -> Any:
        try:
            call(m, leave)
        except SystemExit as error:
            return error.code

    assert result(spawn(caller, name="caller")) == 3
    m._close_idle()


def two_takers(m: ModuleType) -> None:
    anew(m)
    m._helpers.put("thing")
    takers = [spawn(m._helpers.take), spawn(m._helpers.take)]
    assert sorted(str(result(taker)) for taker in takers) == ["None", "thing"]


def two_puts_for_one_place(m: ModuleType) -> None:
    anew(m)
    puts = [spawn(m._helpers.put, thing) for thing in "ab"]
    assert sorted(result(put) for put in puts) == [False, True]
    assert len(m._helpers._things) == 1


def a_put_and_a_fork(m: ModuleType) -> None:
    """At the moment of the fork the shelf is empty, and what stood there was closed."""
    anew(m)

    def fork() -> Any:
        closed = m._helpers.close()
        at_fork = list(m._helpers._things)
        m._helpers.reopen()
        return closed, at_fork

    forker, putter = spawn(fork), spawn(m._helpers.put, "thing")
    closed, at_fork = result(forker)
    assert at_fork == []
    if result(putter):
        assert closed + m._helpers._things == ["thing"]
    else:
        assert closed + m._helpers._things == []


def a_call_and_the_exit(m: ModuleType) -> None:
    """The helper is closed by the hook or by its caller: no thread stays behind."""
    anew(m)
    caller = spawn(call, m, lambda _: "result", name="caller")
    m._close_idle()
    assert result(caller) == "result"
    assert m._helpers._things == []


class PretendedCoroutine:
    """What a coroutine does that waits until it is cancelled, or `until` is set."""

    def __init__(self, m: ModuleType, until: Any = None) -> None:
        self.log: list[str] = []
        self._cancelled = m.threading.Event() if until is None else until
        self._running = False

    def cancel(self) -> None:
        assert self._running, "a cancellation was posted to the loop of another call"
        self._cancelled.set()

    def __call__(self, job: Any) -> str:
        self._running = True
        job._begin(self.cancel)
        self.log.append("began")
        self._cancelled.wait()
        job._end()
        self._running = False
        self.log.append("cleaned up")
        return "result"


def an_interrupted_caller(m: ModuleType) -> None:
    """KeyboardInterrupt where it waits, however far the helper is by then."""
    anew(m)
    work = PretendedCoroutine(m)
    interrupted: list[Any] = []

    class Interrupted(m._Helper):  # type: ignore[name-defined, misc]
        def _wait_for(self, job: Any) -> None:
            if not interrupted:
                interrupted.append(job)
                raise KeyboardInterrupt
            super()._wait_for(job)

    helper = Interrupted()

    def caller() -> Any:
        m._helpers.put(helper)
        try:
            return call(m, work)
        except KeyboardInterrupt:
            return list(work.log)

    log = result(spawn(caller, name="caller"))
    assert log in ([], ["began", "cleaned up"]), "it was left running"
    helper._thread.join()
    assert work.log == log, "it began after its caller had left"


def an_interrupt_and_the_end(m: ModuleType) -> None:
    """It ends on its own while it is being cancelled; then its loop serves another call."""
    anew(m)
    ended = m.threading.Event()
    ended.set()
    job = m._Job(PretendedCoroutine(m, until=ended), None)
    helper = spawn(job.run, name="helper")
    interrupt = spawn(job.interrupt, name="interrupt")
    result(helper)
    result(interrupt)
    assert job.interrupt() is False


# Which model proves what, how far it is searched, and the twins that it must catch.


def without_lock(text: str) -> Faults:
    return [(text, text.replace("with self._lock:", "if True:"))]


TAKE = "with self._lock:\n            return self._things.pop()"
PUT = "with self._lock:\n            if self._closed"
CLOSE = "with self._lock:\n            self._closed += 1"
END = "with self._lock:\n            self._cancel = None"
INTERRUPT = "with self._lock:\n            self._given_up = True"
BEFORE_IT_IS_FREE = [("    helper.do(job)\n", "    _helpers.put(helper)\n    helper.do(job)\n")]

PROOFS = {
    "two_callers": Proof("RS-1", two_callers, [BEFORE_IT_IS_FREE], "deadlock", "line"),
    "a_nested_call": Proof(
        "RS-2",
        a_nested_call,
        [BEFORE_IT_IS_FREE],
        "deadlock",
        "line",
        diagram="A helper that is put back too early waits for a call that waits for it",
    ),
    "an_exit_inside": Proof(
        "RS-1",
        an_exit_inside,
        [
            [
                (
                    "except BaseException as error:\n            self._error",
                    "except Exception as error:\n            self._error",
                )
            ]
        ],
        "SystemExit",
        "line",
    ),
    "two_takers": Proof("RS-2", two_takers, [without_lock(TAKE)], "IndexError"),
    "two_puts_for_one_place": Proof(
        "RS-7", two_puts_for_one_place, [without_lock(PUT)], "AssertionError"
    ),
    "a_put_and_a_fork": Proof(
        "RS-7",
        a_put_and_a_fork,
        [without_lock(PUT), [("if self._closed or ", "if ")]],
        "AssertionError",
        "line",
        2,
    ),
    "a_call_and_the_exit": Proof(
        "RS-7", a_call_and_the_exit, [[("if self._closed or ", "if ")]], "AssertionError", "line"
    ),
    "an_interrupted_caller": Proof(
        "RS-5",
        an_interrupted_caller,
        [
            [("waiting = job.interrupt()", "waiting = False")],
            [("                self._cancel()\n", "                pass\n")],
            [("if self._given_up:", "if False:")],
        ],
        "deadlock|left running|had left",
        "line",
        2,
    ),
    "an_interrupt_and_the_end": Proof(
        "RS-5",
        an_interrupt_and_the_end,
        [without_lock(END), without_lock(INTERRUPT)],
        "another call|NoneType",
        "line",
        2,
        diagram="Without the lock, an interrupt cancels in a loop that has gone on to another call",
    ),
}


@each_proof(PROOFS)
def test_every_schedule(proof: Proof, interleavings: Interleavings, modelled: Any) -> None:
    module = modelled(component)
    interleavings.prove(lambda: proof.model(module), **proof.search)


@each_twin(PROOFS)
def test_the_search_catches_a_broken_twin(
    proof: Proof, faults: Faults, interleavings: Interleavings, modelled: Any
) -> None:
    broken = modelled(twin(FILE, *faults))
    failure = interleavings.catch(
        lambda: proof.model(broken), diagram=proof.diagram, **proof.search
    )
    text = f"{failure.kind}: {failure.exception!r} {failure.details}"
    assert re.search(proof.reason, text), text


# A timeout against the end and an interrupt's cancellation, on one loop.


def a_timeout_and_the_end(module: ModuleType) -> Callable[[], Coroutine[Any, Any, None]]:
    """All fall due at the same time: the call ends with one of them, and has cleaned up."""

    async def model() -> None:
        due, log = asyncio.Event(), []

        async def work() -> str:
            try:
                await due.wait()
            except asyncio.CancelledError:
                try:
                    await asyncio.sleep(0)
                finally:
                    log.append("cleaned up")
                raise
            log.append("ended")
            return "result"

        async def limited() -> str:
            try:
                return str(await module._within(work(), 1.0))
            except (TimeoutError, asyncio.CancelledError) as error:
                return type(error).__name__

        async def after_one_second(act: Callable[[], object]) -> None:
            await asyncio.sleep(1.0)
            act()

        call = asyncio.create_task(limited(), name="call")
        others = [asyncio.create_task(after_one_second(act)) for act in (due.set, call.cancel)]
        outcome = await call
        assert outcome in ("result", "TimeoutError", "CancelledError")
        end = "ended" if outcome == "result" else "cleaned up"
        assert log == [end], f"{outcome}, and it had not {end}"
        await asyncio.wait(others)

    return model


@pytest.mark.guarantee("RS-5")
def test_every_schedule_of_a_timeout_and_the_end(schedules: Schedules) -> None:
    schedules.prove(a_timeout_and_the_end(component), delays=3)


@pytest.mark.twin("RS-5")
def test_a_timeout_that_does_not_await_the_clean_up_is_found(schedules: Schedules) -> None:
    broken = twin(
        FILE,
        (
            "        async with scope:\n            return await coro",
            "        task = asyncio.ensure_future(coro)\n"
            "        if not (await asyncio.wait([task], timeout=limit))[0]:\n"
            "            task.cancel()\n"
            "            raise TimeoutError\n"
            "        return task.result()",
        ),
    )
    bug = schedules.catch(
        a_timeout_and_the_end(broken), diagram="The timeout returns before the clean-up"
    )
    assert "Error, and it had not cleaned up" in str(bug)
