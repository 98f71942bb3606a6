"""parallel_execute, when a signal handler raises in its caller's thread, anywhere, and again."""

import _thread
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from types import ModuleType
from typing import Any, ClassVar

import pytest

from reference_impl.bridges import parallel_execute as module
from tests.bridges.parallel_execute.faults import given
from tests.bridges.parallel_execute.helpers import LATE, clocked, outcomes, own_threads
from tests.kit.fakes import PATIENCE
from tests.kit.interrupts import Ending, Interrupt, Interrupts, elsewhere, patience, sweep
from tests.kit.primitives import Over, rebind
from tests.kit.process import run_python
from tests.kit.proofs import each_twin_of
from tests.kit.twins import Fault, Twin, build, judge, patch


class Key:
    """Can be referred to weakly."""

    def __init__(self, number: int) -> None:
        self.number = number


class Scene:
    """A call with two workers: operations 0 and 1 are held until all keys are drawn."""

    patience: ClassVar[float] = PATIENCE
    options: ClassVar[dict[str, Any]] = {}
    most = 2  # operations that have been taken when the call ends, and may begin after that

    def __init__(self, m: ModuleType) -> None:
        self.m = m
        self.keys = [Key(number) for number in (3, 2, 1, 0)]
        self.refs = [weakref.ref(key) for key in self.keys]
        self.ran: list[int] = []
        self.gate = _thread.allocate_lock()
        self.gate.acquire()
        self.opened = False  # an operation that passes holds the gate, too
        self.threads = _thread._count()

    def call(self) -> Any:
        """What is interrupted."""
        with self.world():
            return self.m.parallel_execute(self.drawn(), self.operation, 2, **self.options)

    def world(self) -> AbstractContextManager[Any]:
        """What is there during the call."""
        return nullcontext()

    def drawn(self) -> Iterator[Key]:
        """Each key exists no longer than the call, or its operation, keeps it."""
        while self.keys:
            yield self.keys.pop()
        self.open()

    def operation(self, key: Key) -> int:
        """Begins at once, and ends when the gate is open."""
        self.ran.append(key.number)
        with self.gate:
            return key.number

    def open(self) -> None:
        """Let the operations end."""
        if not self.opened:
            self.opened = True
            self.gate.release()

    def expect(self, ending: Ending) -> None:
        """Look at a call that was not interrupted."""
        assert ending.error is None, "another error than the handler's"
        assert outcomes(ending.result) == [0, 1, 2, 3], "other outcomes"

    def look(self, ending: Ending) -> None:
        """Look at what the call has left, and let it end."""
        begun, held = len(self.ran), not self.opened
        if type(ending.error) is Interrupt:
            _forget_frames(ending.error)
            self.keys.clear()
            self.await_end(lambda: [ref() for ref in self.refs[:2] if held and ref()])
        else:
            # Not interrupted; or in a callback of a weak reference, which lets nothing pass.
            self.expect(ending)
            ending.result = ending.error = None
        self.open()
        self.await_end(own_threads)
        self.await_end(lambda: _thread._count() > self.threads)
        assert not held or set(self.ran) <= {0, 1}, "an operation began after the end"
        assert len(self.ran) <= begun + self.most, "operations began after the end"

    def await_end(self, left: Any) -> None:
        """Return when nothing is left."""
        deadline = time.monotonic() + self.patience
        while left():
            assert time.monotonic() < deadline, f"left: {left()}"
            time.sleep(0)


def _forget_frames(error: BaseException | None) -> None:
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


class Progress(Scene):
    """The caller is told of each outcome; the second operation fails, and nothing more begins."""

    options: ClassVar[dict[str, Any]] = {"fail_fast": True, "on_progress": lambda *_: None}

    def operation(self, key: Key) -> int:
        """The same, but one fails."""
        if super().operation(key) == 1:
            raise LookupError
        return key.number

    def expect(self, ending: Ending) -> None:
        """One failure, and up to two that did not begin."""
        assert outcomes(ending.result)[:2] == [0, LookupError]


class Deadline(Scene):
    """Time is up when all keys are drawn, and the operations are stuck."""

    options: ClassVar[dict[str, Any]] = {"timeout": 1.0}

    def world(self) -> AbstractContextManager[Any]:
        """Time passes as the keys say."""
        return clocked(self.m)

    def drawn(self) -> Iterator[Key]:
        """Nobody opens the gate."""
        while self.keys:
            yield self.keys.pop()
        self.m.time.monotonic.now = 1.0

    def expect(self, ending: Ending) -> None:
        """None of them has ended."""
        assert outcomes(ending.result) == [LATE] * 4


class Exit(Scene):
    """The first operation exits."""

    def operation(self, key: Key) -> int:
        """The same, but it ends the call."""
        if super().operation(key) == 0:
            raise SystemExit
        return key.number

    def expect(self, ending: Ending) -> None:
        """The exit is raised."""
        assert type(ending.error) is SystemExit


class Direct(Executor):
    """Runs each call within `submit`, and keeps no exception to itself."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return a future that is done."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class InCaller(Scene):
    """The operations run in the caller's thread, and can be interrupted themselves."""

    most = 0

    def __init__(self, m: ModuleType) -> None:
        super().__init__(m)
        self.options = {"executor": Direct()}  # type: ignore[misc]
        self.open()


class Pooled(Scene):
    """The operations run in a pool, which is given two keys at once."""

    def __init__(self, m: ModuleType) -> None:
        super().__init__(m)
        self.pool = ThreadPoolExecutor(2)
        self.options = {"executor": self.pool}  # type: ignore[misc]

    def drawn(self) -> Iterator[Key]:
        """It opens the gate before it is held up itself."""
        yield self.keys.pop()
        self.open()
        while self.keys:
            yield self.keys.pop()

    def look(self, ending: Ending) -> None:
        """The pool works afterwards, and its threads end."""
        self.await_end(lambda: [t for t in own_threads() if t.name.endswith("submit")])
        self.open()
        assert [self.pool.submit(int).result(self.patience) for _ in range(3)] == [0] * 3
        self.pool.shutdown()
        super().look(ending)


class Stream(Scene):
    """The results are taken as they come."""

    def call(self) -> Any:
        """What is interrupted: all that is asked of the iterator, and its end."""
        with self.world():
            return dict(self.m.parallel_as_completed(self.drawn(), self.operation, 2))

    def expect(self, ending: Ending) -> None:
        """The same, in whatever order they came."""
        assert ending.error is None, "another error than the handler's"
        assert outcomes([ending.result[index] for index in range(4)]) == [0, 1, 2, 3]


class Left(Scene):
    """Two results are taken, then it is closed."""

    def call(self) -> Any:
        """What is interrupted; an interrupted `close` is made good by dropping it."""
        results = self.m.parallel_as_completed(self.drawn(), self.operation, 2)
        try:
            return [next(results)[1], next(results)[1]]
        finally:
            results.close()
            del results

    def expect(self, ending: Ending) -> None:
        """Whichever two ended first."""
        assert ending.error is None, "another error than the handler's"
        assert len(ending.result) == 2


class LeftInPool(Left, Pooled):
    """The same in a pool."""

    def call(self) -> Any:
        """What is interrupted."""
        results = self.m.parallel_as_completed(self.drawn(), self.operation, 2, executor=self.pool)
        try:
            return [next(results)[1], next(results)[1]]
        finally:
            results.close()
            del results


SCENES = [Pooled, Scene, Progress, Deadline, Exit, InCaller]
STREAMS = [Stream, Left, LeftInPool]


@pytest.mark.guarantee("PE-6")
@pytest.mark.parametrize("scene", SCENES)
def test_an_interrupt_at_any_point_ends_the_call_and_its_threads(
    scene: type[Scene], interrupts: Interrupts
) -> None:
    interrupts.prove(lambda: scene(module), scene.call, scene.look)


@pytest.mark.guarantee("PE-11")
@pytest.mark.parametrize("scene", STREAMS)
def test_an_interrupt_at_any_point_ends_a_stream_and_its_threads(
    scene: type[Scene], interrupts: Interrupts
) -> None:
    interrupts.prove(lambda: scene(module), scene.call, scene.look)


# Twins: locks as Python code, as threading's conditions and events are.

_made: list[Any] = []


class PythonLock(Over):
    """A lock whose methods are Python functions; `free` lets go those whom it has stranded."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        _made.append(self)

    def acquire(self, *arguments: Any) -> bool:
        """Interrupted as it returns, it is taken by nobody who knows."""
        return bool(self.inner.acquire(*arguments))

    def release(self) -> None:
        """Interrupted on entering, it is not released."""
        self.inner.release()


def free() -> None:
    """Release whatever is taken until nobody waits."""
    deadline = time.monotonic() + PATIENCE
    while own_threads():
        assert time.monotonic() < deadline
        for lock in _made:
            with suppress(RuntimeError):
                lock.inner.release()
        time.sleep(0)
    _made.clear()


def _python_bells(m: ModuleType) -> None:
    rebind(m, Lock=lambda: PythonLock(threading.Lock()))


def _python_mutex(m: ModuleType) -> None:
    rebind(m, RLock=lambda: PythonLock(threading.RLock()))


LEFT = "AssertionError: left: "
TWINS = [
    Twin("wakes its threads by Python code", patch(_python_bells), LEFT),
    Twin("takes its lock by Python code", patch(_python_mutex), LEFT),
]


@each_twin_of("PE-11", *TWINS)
def test_the_sweep_finds_what_a_broken_stream_leaves(
    twin: Twin, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scene, "patience", 0.5)
    broken = build("bridges/parallel_execute", twin.fault)
    try:
        interrupts.catch(lambda: Stream(broken), Stream.call, Stream.look, twin=twin)
    finally:
        free()


@each_twin_of("PE-6", *TWINS)
def test_the_sweep_finds_what_a_twin_leaves(
    twin: Twin, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scene, "patience", 0.5)
    broken = build("bridges/parallel_execute", twin.fault)
    try:
        interrupts.catch(lambda: Scene(broken), Scene.call, Scene.look, twin=twin)
    finally:
        free()


# Twins that leave threads for good: they run in a process of its own.


def start_in_the_caller(m: ModuleType) -> None:
    """`Thread.start` runs where it can be interrupted."""
    rebind(m, _thread, start_new_thread=lambda function, arguments: function(*arguments))


class Forwarding(Executor):
    """A pool that nobody takes for one."""

    def __init__(self, pool: Executor) -> None:
        self.submit = pool.submit  # type: ignore[method-assign]


def _forward(arguments: dict[str, Any]) -> None:
    arguments["executor"] = Forwarding(arguments["executor"])


SUBMITS_IN_THE_CALLER = given(_forward)


def first_fault(scene: type[Scene], fault: Fault) -> str:
    """What the first interrupt that does harm has left; in a process that ends after that."""
    broken = build("bridges/parallel_execute", fault)
    scene.patience = 1.0

    def look(state: Scene, ending: Ending) -> None:
        """Beside the caller, since it may hang."""
        state.threads += 1  # the one that looks
        with patience(2.0):
            elsewhere(state.look, ending)

    for attempt in sweep(lambda: scene(broken), scene.call, look, twice=False):
        if attempt.error is not None:
            kind = type(attempt.error).__name__.replace("Hang", "hang")
            return f"{kind}: {attempt.error}".partition("\n")[0]
    return "none"


IN_THE_CALLER = [
    Twin(
        "starts threads in the caller's",
        patch(start_in_the_caller),
        (LEFT, "AssertionError: another error"),
    ),
    Twin(
        "submits in the caller's thread",
        SUBMITS_IN_THE_CALLER,
        (LEFT, "hang: ", "TimeoutError: ", "AssertionError: other outcomes"),
    ),
]


@pytest.mark.skipif("sys.version_info < (3, 12)", reason="sys.monitoring needs Python >= 3.12")
@each_twin_of("PE-6", *IN_THE_CALLER)
def test_a_twin_that_calls_python_code_in_the_callers_thread_strands_others(twin: Twin) -> None:
    number = IN_THE_CALLER.index(twin)
    done = run_python(f"""
        import os
        from tests.bridges.parallel_execute.test_interrupts import (
            IN_THE_CALLER, Pooled, Scene, first_fault,
        )
        scene = (Scene, Pooled)[{number}]
        print(first_fault(scene, IN_THE_CALLER[{number}].fault), flush=True)
        os._exit(0)
    """)
    judge(twin, done.stdout.strip())
