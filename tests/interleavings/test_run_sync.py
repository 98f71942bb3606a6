"""run_sync's hand-over of helper threads and its interrupts under every schedule, to a bound.

An event loop does not run under a thread scheduler. So the component sees another asyncio, whose
runner steps one coroutine in the thread that runs it. All else is the component's. The race of a
timeout with the end of the coroutine happens on one loop, and is explored there.
"""

import asyncio
import atexit
import gc
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import pytest

from reference_impl.bridges import run_sync as component
from tests.bridges.run_sync import inside
from tests.bridges.run_sync.faults import FILE, around, seeing
from tests.bridges.run_sync.helpers import hasty
from tests.kit.explore import Interleavings, Schedules
from tests.kit.fakes import Pause
from tests.kit.primitives import unlocked
from tests.kit.proofs import Proof, each_proof, each_twin, each_twin_of
from tests.kit.twins import Twin, build, edit

interleave_test = pytest.importorskip("interleave_test")
spawn: Callable[..., Any] = interleave_test.spawn


class ModelLoop:
    """A loop, its runner and its one task; `current` has those that run, by thread."""

    current: dict[int, "ModelLoop | None"] = {}

    late = False  # whether a cancellation was posted to a loop that had gone on

    def __init__(self, **_: object) -> None:
        self.cancelled, self._posting = threading.Event(), threading.Lock()
        self._running = False

    def get_loop(self) -> "ModelLoop":
        return self

    def run(self, coro: Generator[Pause, None, Any], *, context: object) -> Any:
        self._running = True
        try:
            with loop_running(self):
                step = coro.send(None)
                while True:
                    if step.forever:
                        self.cancelled.wait()
                    if self.cancelled.is_set():
                        self.cancelled.clear()
                        step = coro.throw(asyncio.CancelledError())
                    else:
                        step = coro.send(None)
        except StopIteration as stop:
            return stop.value
        finally:
            self._running = False

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        with self._posting:  # another thread may go on meanwhile
            ModelLoop.late |= not self._running
        callback()

    def cancel(self) -> None:
        self.cancelled.set()

    def close(self) -> None:
        pass


@contextmanager
def loop_running(loop: ModelLoop | None = None) -> Iterator[None]:
    """In this thread a loop is running: the model's, or the caller's."""
    me = threading.get_ident()
    before = ModelLoop.current.copy()
    ModelLoop.current[me] = loop
    try:
        yield
    finally:
        del ModelLoop.current[me]
        if me in before:
            ModelLoop.current[me] = before[me]


def get_running_loop() -> ModelLoop | None:
    try:
        return ModelLoop.current[threading.get_ident()]
    except KeyError:
        raise RuntimeError("no running event loop") from None


MODEL = SimpleNamespace(
    Runner=ModelLoop,
    new_event_loop=None,
    get_running_loop=get_running_loop,
    current_task=get_running_loop,
    _set_running_loop=lambda loop: None,
    CancelledError=asyncio.CancelledError,
)


class Hooks:
    """What the modules that are built meanwhile want done at forks, by module."""

    def __init__(self) -> None:
        self._hooks: dict[int, dict[str, Callable[[], None]]] = {}

    def register(self, **hooks: Any) -> None:
        self._hooks[id(hooks["before"].__globals__)] = hooks

    def __call__(self, m: ModuleType) -> SimpleNamespace:
        return SimpleNamespace(**self._hooks[id(vars(m))])


at_fork = Hooks()


@pytest.fixture(autouse=True)
def _hooks_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "register_at_fork", at_fork.register)
    monkeypatch.setattr(atexit, "register", lambda hook: hook)


@contextmanager
def modelled(m: ModuleType) -> Iterator[None]:
    """Nothing is idle, and the locks are the scheduler's; in the end everything is closed."""
    m.asyncio = MODEL  # type: ignore[attr-defined]
    at_fork(m).after_in_child()
    ModelLoop.late = False
    yield
    assert not ModelLoop.late, "a cancellation was posted to the loop of another call"
    at_fork(m).before()


def call(m: ModuleType, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """`run_sync`, where a loop is running."""
    with loop_running():
        return m.run_sync(work())


def result(thread: Any) -> Any:
    thread.join()
    return thread.result()


# The models. Each takes the module, and is one run: it builds its state and asserts.


async def a() -> str:
    return "a"


async def b() -> str:
    return "b"


def two_callers(m: ModuleType) -> None:
    with modelled(m):
        other = spawn(call, m, a, name="caller")
        assert call(m, b) == "b"
        assert result(other) == "a"


def a_nested_call(m: ModuleType) -> None:
    async def outer() -> Any:
        return m.run_sync(a())

    with modelled(m):
        assert result(spawn(call, m, outer, name="caller")) == "a"


def an_exit_inside(m: ModuleType) -> None:
    async def leave() -> NoReturn:
        raise SystemExit(3)

    def caller() -> Any:
        try:
            call(m, leave)
        except SystemExit as error:
            return error.code

    with modelled(m):
        assert result(spawn(caller, name="caller")) == 3


def a_call_and_the_exit(m: ModuleType) -> None:
    """The helper is closed by the hook or by its caller: no thread stays behind."""
    with modelled(m):
        caller = spawn(call, m, a, name="caller")
    assert result(caller) == "a"


class Interrupted:
    """A queue: who first waits for one in the thread of `caller` is interrupted."""

    caller: int | None = None
    after: threading.Event | None = None  # once this is set

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.put = self._queue.put

    def get(self, timeout: float | None = None) -> Any:
        if Interrupted.caller != threading.get_ident():
            return self._queue.get()
        Interrupted.caller = None
        if Interrupted.after is not None:
            Interrupted.after.wait()
        raise KeyboardInterrupt


def interrupted_call(m: ModuleType, *, ends: bool) -> None:
    log: list[str] = []
    begun = threading.Event()

    async def work() -> None:
        log.append("began")
        begun.set()
        try:
            await Pause(forever=not ends)
        finally:
            log.append("cleaned up")

    def caller() -> list[str]:
        Interrupted.caller, Interrupted.after = threading.get_ident(), begun if ends else None
        with suppress(KeyboardInterrupt):
            call(m, work)
        Interrupted.caller = None  # where the end was there first, it has not waited
        return log.copy()

    m.queue = SimpleNamespace(SimpleQueue=Interrupted, Empty=queue.Empty)  # type: ignore[attr-defined]
    with modelled(m):
        seen = result(spawn(caller, name="caller"))
        assert seen in ([], ["began", "cleaned up"]), "it was left running"
    assert log == seen, "it began after its caller had left"


def an_interrupted_caller(m: ModuleType) -> None:
    """KeyboardInterrupt where it waits, however far the helper is by then."""
    interrupted_call(m, ends=False)


def an_interrupt_and_the_end(m: ModuleType) -> None:
    """It ends on its own while it is being cancelled; then its loop serves another call."""
    interrupted_call(m, ends=True)


KEPT = """
try:
    ...
except {} as error:
    self._error = error
"""
HANDS_OUT_BUSY_THREADS = Twin(
    "puts a thread back before it is free",
    edit("_run_elsewhere", "helper.do(job)", "_helpers.put(helper)\nhelper.do(job)"),
    "deadlock",
)
FORGETS_THE_EXIT = edit(
    "_Shelf.put", "self._closed or len(self._things) >= _KEPT", "len(self._things) >= _KEPT"
)
LEAVES = edit("_Helper.do", "waiting = job.interrupt()", "waiting = False")
CANCELS_NOTHING = edit("_Job.interrupt", "self._cancel()", "pass")
BEGINS_IT = edit("_Job._begin", "self._given_up", "False")
PROOFS = [
    Proof("RS-1", two_callers, [HANDS_OUT_BUSY_THREADS], granularity="line"),
    Proof("RS-2", a_nested_call, [HANDS_OUT_BUSY_THREADS], granularity="line"),
    Proof(
        "RS-1",
        an_exit_inside,
        [
            Twin(
                "lets SystemExit end the helper thread",
                edit("_Job.run", KEPT.format("BaseException"), KEPT.format("Exception")),
                "SystemExit",
            )
        ],
        granularity="line",
    ),
    Proof(
        "RS-7",
        a_call_and_the_exit,
        [Twin("keeps a thread idle after the exit", FORGETS_THE_EXIT, "deadlock")],
        granularity="line",
    ),
    Proof(
        "RS-5",
        an_interrupted_caller,
        [
            Twin(
                "leaves at the interrupt at once",
                LEAVES,
                ("deadlock", "AssertionError: left running", "AssertionError: had left"),
            ),
            Twin("waits at an interrupt, and cancels nothing", CANCELS_NOTHING, "deadlock"),
            Twin("begins a coroutine that has been given up", BEGINS_IT, "deadlock"),
        ],
        granularity="line",
    ),
    Proof(
        "RS-5",
        an_interrupt_and_the_end,
        [
            Twin(
                "does not exclude the end of the coroutine while it cancels it",
                unlocked(),
                "AssertionError: the loop of another call",
            )
        ],
        preemptions=2,
        granularity="line",
    ),
]


@each_proof(PROOFS)
def test_every_schedule(proof: Proof, interleavings: Interleavings) -> None:
    proof.explore(build(component), interleavings)


@each_twin(PROOFS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_search_catches_a_twin(proof: Proof, twin: Twin, interleavings: Interleavings) -> None:
    proof.catch(twin, FILE, interleavings)
    gc.collect()  # here, where what a failing schedule leaves may complain


# The shelf of idle things alone, by opcode.


def two_takers(m: ModuleType) -> None:
    shelf = inside.shelf(m)
    shelf.put("thing")
    takers = [spawn(shelf.take), spawn(shelf.take)]
    assert sorted(str(result(taker)) for taker in takers) == ["None", "thing"]


def two_puts_for_one_place(m: ModuleType) -> None:
    shelf = inside.shelf(m)
    puts = [spawn(shelf.put, thing) for thing in "ab"]
    assert sorted(result(put) for put in puts) == [False, True]
    assert len(shelf.close()) == 1


def a_put_and_a_fork(m: ModuleType) -> None:
    """At the moment of the fork the shelf is empty, and what stood there was closed."""
    shelf = inside.shelf(m)

    def fork() -> Any:
        closed = shelf.close()
        at_fork = inside.things(shelf)
        shelf.reopen()
        return closed, at_fork

    forker, putter = spawn(fork), spawn(shelf.put, "thing")
    closed, things = result(forker)
    assert things == []
    kept = ["thing"] if result(putter) else []
    assert closed + shelf.close() == kept


UNLOCKED_TAKE = Twin("does not exclude other takers", unlocked(), "IndexError")
UNLOCKED_PUT = Twin("does not exclude other puts", unlocked(), "AssertionError: [False, True]")
UNLOCKED_FORK = Twin(
    "does not exclude a fork",
    unlocked(),
    ("AssertionError: things == []", "AssertionError: closed +"),
)
OPEN_AT_THE_FORK = Twin("keeps things at a fork", FORGETS_THE_EXIT, "AssertionError: things == []")
SHELVES: dict[Callable[[ModuleType], None], dict[str, Any]] = {
    two_takers: {"granularity": "opcode"},
    two_puts_for_one_place: {"granularity": "opcode"},
    a_put_and_a_fork: {"granularity": "line", "preemptions": 2},
}


@pytest.mark.parametrize("model", SHELVES)
def test_every_schedule_of_a_shelf(
    model: Callable[[ModuleType], None], interleavings: Interleavings
) -> None:
    m = build(component)
    interleavings.prove(lambda: model(m), **SHELVES[model])


@each_twin_of("RS-2", UNLOCKED_TAKE)
def test_the_search_catches_two_takers(twin: Twin, interleavings: Interleavings) -> None:
    catch(two_takers, twin, interleavings)


@each_twin_of("RS-7", UNLOCKED_PUT)
def test_the_search_catches_two_puts(twin: Twin, interleavings: Interleavings) -> None:
    catch(two_puts_for_one_place, twin, interleavings)


@each_twin_of("RS-7", UNLOCKED_FORK, OPEN_AT_THE_FORK)
def test_the_search_catches_a_fork(twin: Twin, interleavings: Interleavings) -> None:
    catch(a_put_and_a_fork, twin, interleavings)


def catch(model: Callable[[ModuleType], None], twin: Twin, interleavings: Interleavings) -> None:
    m = build(FILE, twin.fault)
    interleavings.catch(lambda: model(m), twin=twin, **SHELVES[model])


# A timeout against the end and an interrupt's cancellation, on one loop.


def no_running_loop() -> NoReturn:
    raise RuntimeError("no running event loop")


def untouched(**_: object) -> SimpleNamespace:
    """A runner that gives back what it should run, to be awaited here."""

    class Loop:
        def close(self) -> None:
            pass

    loop = Loop()
    return SimpleNamespace(
        run=lambda coro, *, context: coro, get_loop=lambda: loop, close=lambda: None
    )


AWAITED_HERE = seeing("asyncio", Runner=untouched, get_running_loop=no_running_loop)


def a_timeout_and_the_end(m: ModuleType) -> Callable[[], Coroutine[Any, Any, None]]:
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
                return str(await m.run_sync(work(), timeout=1.0))
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


HASTY = Twin(
    "raises at the timeout without the clean-up",
    around(lambda _, coro, timeout: hasty(coro, timeout)),
    "AssertionError: Error, and it had not cleaned up",
)


@pytest.mark.guarantee("RS-5")
def test_every_schedule_of_a_timeout_and_the_end(schedules: Schedules) -> None:
    schedules.prove(a_timeout_and_the_end(build(component, AWAITED_HERE)), delays=3)


@each_twin_of("RS-5", HASTY)
def test_the_search_catches_a_timeout(twin: Twin, schedules: Schedules) -> None:
    model = a_timeout_and_the_end(build(FILE, AWAITED_HERE + twin.fault))
    schedules.catch(model, twin=twin)
