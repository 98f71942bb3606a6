"""The one place where AsyncRunner's tests look inside: what is done at a fork and at exit."""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.bridges.async_runner.helpers import place
from tests.kit.fakes import PATIENCE


@contextmanager
def no_other_runners(m: Any) -> Iterator[None]:
    """So that a hook, called by hand, reaches those only that are made meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(m, "_runners", weakref.WeakValueDictionary())
        patch.setattr(m, "_inherited", [])
        yield


@contextmanager
def forked(m: Any, runner: Any) -> Iterator[list[object]]:
    """As in a child, at whose fork another thread held the lock; gives the loops it must keep.

    In the end comes what a fork's parent does later: here it is the same process.
    """
    loop, thread = place(runner)
    try:
        with runner._lock:
            m._after_fork()
            yield m._inherited
    finally:
        vars(loop).pop("close", None)
        loop.call_soon_threadsafe(runner._start_winding_down)
        thread.join(PATIENCE)
        assert loop.is_closed()


def with_another_loop(m: Any, loop: object) -> tuple[Any, list[object]]:
    """A runner of such a loop, told that this is a forked child; and the loops it must keep."""
    runner = m.AsyncRunner()
    runner._loop, runner._thread = loop, threading.current_thread()
    runner._abandon()
    return runner, m._inherited


def exit_at_once(m: Any) -> None:
    """What is done at exit, without patience."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(m, "_EXIT_TIMEOUT", 0)
        m._close_all()
