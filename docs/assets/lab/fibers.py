"""Threads as suspended WebAssembly stacks: what interleave_test needs of `_thread`, on one thread.

A browser's Python has one thread. interleave_test runs one of its threads at a time anyway, and
hands over by a condition; here each of its threads is a stack that JSPI suspends while another
runs. Import this before interleave_test explores, and explore within `callPromising`.
"""

import contextvars
import gc
import itertools
import threading
from collections.abc import Callable
from typing import Any

import interleave_test._scheduler as scheduler
from pyodide.code import run_js
from pyodide.ffi import create_proxy, run_sync

_stacks = run_js("""(() => { const parked = new Map(); return {
  park: (ident) => new Promise((wake) => parked.set(ident, wake)),
  wake: (ident) => { const wake = parked.get(ident); parked.delete(ident); wake() },
  start: (body) => {
    Promise.resolve().then(() => body.callPromising()).finally(() => body.destroy())
  },
  count: () => parked.size,
} })()""")
_COLLECTED = 200  # schedules between two collections

_idents = itertools.count(threading.get_ident() + 1)
_current = threading.get_ident()
_schedules = 0


def suspended() -> int:
    """How many stacks are waiting: none between two searches, or the interpreter is spoilt."""
    return int(_stacks.count())


def _get_ident() -> int:
    return _current


def _start_new_thread(function: Callable[..., object], arguments: tuple[Any, ...]) -> int:
    ident = next(_idents)

    def body() -> None:
        global _current
        _current = ident
        contextvars.Context().run(function, *arguments)

    _stacks.start(create_proxy(body))
    return ident


class _Condition:
    """The scheduler's only one; no lock is needed, as a stack runs alone until it waits."""

    def __init__(self, lock: object = None) -> None:
        global _schedules
        self._waiting: dict[int, None] = {}
        _schedules += 1
        if _schedules % _COLLECTED == 0:
            gc.collect()  # between two schedules, when no stack but the caller's is suspended

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        pass

    def wait(self, timeout: float | None = None) -> bool:
        global _current
        me = _current
        self._waiting[me] = None
        run_sync(_stacks.park(me))
        _current = me
        return True

    def notify_all(self) -> None:
        active: Any = scheduler.current_scheduler()
        waiting = list(self._waiting)
        if not (active._abort or active._done or active._failure):  # wake only what may run now
            granted = {ident for ident, rec in active._byid.items() if rec.granted}
            waiting = [ident for ident in waiting if ident in granted]
        for ident in waiting:
            del self._waiting[ident]
            _stacks.wake(ident)


# An automatic collection would follow suspended stacks into memory that is reused, and crash
# (pyodide issue 6464): it is done by hand, above.
gc.disable()
scheduler._get_ident = threading.get_ident = _get_ident
scheduler._start_new_thread = _start_new_thread
scheduler._RealCondition = _Condition
