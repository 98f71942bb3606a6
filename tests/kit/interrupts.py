"""Exceptions of signal handlers, raised at each point of a call where CPython runs handlers.

CPython runs signal handlers on entering or resuming a Python function, when a call into C
returns, at a backward jump, and inside a wait. `sys.monitoring` tells of the first two at the
very place where an exception of the handler would appear (PY_START, PY_RESUME, C_RETURN), in
the standard library's frames as well; before a call that can wait, the exception stands for
one that arrives inside the wait. Backward jumps are left out: what a callback raises there goes
past `with` on CPython 3.13.0, which a real handler's exception does not.
"""

import _thread
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar

from tests.kit.explore import Explorer
from tests.kit.fakes import PATIENCE
from tests.kit.twins import Twin, must_fail

S = TypeVar("S")
R = TypeVar("R")
_monitoring: Any = getattr(sys, "monitoring", None)  # from Python 3.12 on
_TOOL = 4  # its number: neither a debugger's, coverage's, a profiler's nor an optimizer's
_WAITS = {"acquire", "poll", "select", "sleep"}
_MOST = 20_000  # points of one call
# Seconds that `elsewhere` waits where a twin should hang. It can only let a twin's test fail.
_HANG = 1.0
_patience = PATIENCE


class Interrupt(BaseException):
    """What the signal handler raises."""


class Hang(Exception):
    """A call beside the interrupted one did not end; a twin states it as "hang"."""


@dataclass
class Ending:
    """How an interrupted call ended."""

    interrupted: bool = False
    result: Any = None
    error: BaseException | None = None  # an Interrupt, or what the call raised by itself

    @property
    def happened(self) -> bool:
        """Whether the call has surely happened: it returned."""
        return self.error is None


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """`elsewhere` waits so long within the block."""
    global _patience
    before, _patience = _patience, seconds
    try:
        yield
    finally:
        _patience = before


def elsewhere(call: Callable[..., R], *arguments: Any) -> R:
    """Run the call in another thread and return its result; a Hang if it does not end.

    The thread is not one of threading's, so that one which a twin has stranded is not taken
    for one that the test forgot.
    """
    ended = _thread.allocate_lock()
    ended.acquire()
    result: list[R] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result.append(call(*arguments))
        except BaseException as error:
            errors.append(error)
        finally:
            # Before Python 3.13 the thread that current_thread() made up for it stays listed.
            threading._active.pop(_thread.get_ident(), None)  # type: ignore[attr-defined]
            ended.release()

    _thread.start_new_thread(run, ())
    if not ended.acquire(timeout=_patience):
        raise Hang(f"{call} does not end in another thread")
    if errors:
        raise errors.pop()
    return result.pop()  # the thread, on its way out, keeps nothing


def asleep(ident: int, native: int) -> bool:
    """Whether that thread waits: it stays at one instruction, and not for want of a processor.

    Where the system does not say what a thread waits for, a thread that got no processor for a
    while is taken for one that waits.
    """

    def where() -> object:
        frame = sys._current_frames().get(ident)
        return frame and (id(frame), frame.f_lasti)

    before = where()
    for _ in range(3):
        time.sleep(0.0005)  # without the GIL: a thread that wants it can run
        if is_late(native) or where() != before:
            return False
    return True


def is_late(native: int) -> bool:
    """Whether a thread runs, or could; False where the system does not tell."""
    try:
        told = Path(f"/proc/self/task/{native}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return told.rpartition(")")[2].split()[0] != "S"


class _Handler:
    """Raises in one thread at the points that it is told to."""

    def __init__(self) -> None:
        self._thread = 0
        self._points = 0  # passed since it was armed
        self._ahead: list[int] = []  # how many points from here on it raises, and from there on
        self.raised: list[str] = []  # where

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Hear of every point of every thread within the block."""
        events = _monitoring.events
        callbacks: dict[int, Callable[..., None]] = {
            events.PY_START: self._entered,
            events.PY_RESUME: self._entered,
            events.CALL: self._called,
            events.C_RETURN: self._returned,
            events.C_RAISE: self._passed,
        }
        hook, sys.unraisablehook = sys.unraisablehook, self._ignore
        _monitoring.use_tool_id(_TOOL, "interrupts")
        try:
            for event, callback in callbacks.items():
                _monitoring.register_callback(_TOOL, event, callback)
            _monitoring.set_events(_TOOL, sum(callbacks))
            yield
        finally:
            _monitoring.set_events(_TOOL, 0)
            for event in callbacks:
                _monitoring.register_callback(_TOOL, event, None)
            _monitoring.free_tool_id(_TOOL)
            sys.unraisablehook = hook

    def attempt(self, call: Callable[[S], object], state: S, *ahead: int) -> Ending:
        """Call it; raise at the first of these points, then at the second counted from there."""
        self.raised, self._ahead, self._points = [], list(ahead), 0
        ending = Ending()
        collects = gc.isenabled()
        gc.disable()  # finalizers would run, and be points, at random
        try:
            self._thread = threading.get_ident()
            ending.result = call(state)
            self._thread = 0
        except BaseException as error:
            self._thread = 0
            # Its frames would keep alive what the call had dropped.
            ending.error = error.with_traceback(None)
        finally:
            if collects:
                gc.enable()
        ending.interrupted = bool(self.raised)
        return ending

    def _entered(self, code: CodeType, _offset: int) -> None:
        if _thread.get_ident() == self._thread:
            self._point(code, "on entering")

    def _called(self, code: CodeType, _offset: int, function: Any, _first: Any) -> None:
        if _thread.get_ident() == self._thread and getattr(function, "__name__", "") in _WAITS:
            self._point(code, f"waiting in {function.__name__} of")

    def _returned(self, code: CodeType, _offset: int, function: Any, _first: Any) -> None:
        if _thread.get_ident() == self._thread:
            self._point(code, f"as {getattr(function, '__name__', function)} returned to")

    def _passed(self, *_: object) -> None:
        """An exception that a call into C raises goes on before any handler runs."""

    def _point(self, code: CodeType, how: str) -> None:
        if code.co_filename == __file__ or not self._ahead:
            return
        self._points += 1
        if self._points == self._ahead[0]:
            del self._ahead[0]
            self._points = 0
            self.raised.append(f"{how} {code.co_qualname} ({code.co_filename}:{_line(code)})")
            raise Interrupt

    def _ignore(self, unraisable: Any) -> None:
        """What a finalizer does not let pass is printed, as Python does, and is no failure."""
        if not isinstance(unraisable.exc_value, Interrupt):
            sys.__unraisablehook__(unraisable)


def _line(code: CodeType) -> int:
    frame = sys._getframe()
    while frame.f_code is not code and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_lineno


@dataclass
class Attempt:
    """One call, interrupted or not, and what the check found afterwards."""

    at: tuple[int, ...]  # the points that were asked for
    where: list[str]  # those that the call came to
    error: BaseException | None


def sweep(
    prepare: Callable[[], S],
    call: Callable[[S], object],
    check: Callable[[S, Ending], object],
    *,
    twice: bool = True,
) -> Iterator[Attempt]:
    """Interrupt `call(prepare())` at each of its points, and look at each with `check`.

    With `twice`, each is followed by attempts that interrupt again at each later point. The
    last attempt for a point or pair is one that did not come so far.
    """
    handler = _Handler()

    def attempt(*at: int) -> Attempt:
        state = prepare()
        ending = handler.attempt(call, state, *at)
        try:
            check(state, ending)
        except BaseException as error:
            error.add_note("interrupted " + ", then ".join(handler.raised))
            return Attempt(at, handler.raised, error)
        return Attempt(at, handler.raised, None)

    with handler.installed():
        for point in range(1, _MOST):
            found = attempt(point)
            yield found
            if not found.where:
                return
            for later in range(1, _MOST if twice else 1):
                found = attempt(point, later)
                yield found
                if len(found.where) < 2:
                    break
    raise AssertionError(f"the call does not end within {_MOST:,} points")


class Interrupts(Explorer):
    """Interrupts a call at each of its points, and looks at what it leaves behind."""

    def prove(
        self,
        prepare: Callable[[], S],
        call: Callable[[S], object],
        check: Callable[[S, Ending], object],
        *,
        twice: bool = True,
    ) -> int:
        """Interrupt `call(prepare())` at each point; returns at how many.

        Args:
            prepare: makes what the call is made on, the same each time.
            call: runs in this thread.
            check: looks at what an interrupted call has left, and at one that was not
                interrupted; what it calls by `elsewhere` runs in another thread.
            twice: after each interrupt, come again at each of the points that are left.
        """
        points = attempts = 0
        for attempt in sweep(prepare, call, check, twice=twice):
            if attempt.error is not None:
                raise attempt.error
            attempts += bool(attempt.where)
            points += len(attempt.where) == 1 == len(attempt.at)
        assert points, "the call has no point at which a signal handler can run"
        again = ", then again at each later one" if twice else ""
        told = f"an exception at each point where CPython runs signal handlers{again}"
        self._record(kind="interrupts", exhausted=True, told=told, schedules=attempts)
        return points

    def catch(
        self,
        prepare: Callable[[], S],
        call: Callable[[S], object],
        check: Callable[[S, Ending], object],
        *,
        twin: Twin,
        twice: bool = True,
    ) -> None:
        """The same finds the fault of a broken twin, which ends as that states."""

        def first_failure() -> None:
            for attempt in sweep(prepare, call, check, twice=twice):
                if attempt.error is not None:
                    raise attempt.error

        with patience(_HANG if "hang" in twin.ends else PATIENCE):
            must_fail(twin, first_failure)
