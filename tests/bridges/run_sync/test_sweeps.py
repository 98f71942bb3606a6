"""RS-5 and RS-7: run_sync interrupted at each point where CPython runs signal handlers."""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import run_sync as component
from tests.bridges.run_sync.faults import FILE
from tests.bridges.run_sync.helpers import Loops, answer, close_idle, helper_threads
from tests.kit.fakes import Beside
from tests.kit.interrupts import Ending, Interrupts
from tests.kit.profile import budget
from tests.kit.proofs import each_twin_of
from tests.kit.twins import Twin, build, edit


class Call:
    """One call, and all that it may have left behind."""

    def __init__(self, m: ModuleType, *, kept: bool, loop: bool, timeout: float | None) -> None:
        close_idle()
        self.m, self.timeout, self.log = m, timeout, list[str]()
        self.outer = asyncio.new_event_loop() if loop else None
        self.loops = Loops()
        self.loops.__enter__()
        if kept:
            self.use()
        self.hooks, self.sigint = sys.get_asyncgen_hooks(), signal.getsignal(signal.SIGINT)
        self.coro = self.work()
        asyncio._set_running_loop(self.outer)

    async def work(self) -> str:
        try:
            self.log.append("began")
            await asyncio.sleep(0)
            await asyncio.sleep(0.0001)
        finally:
            self.log.append("cleaned up")
        return "result"

    def __call__(self) -> Any:
        return self.m.run_sync(self.coro, timeout=self.timeout)

    def use(self) -> None:
        """Both ways, as a call that nothing has interrupted."""

        async def both() -> Any:
            return self.m.run_sync(answer())

        assert self.m.run_sync(both()) == 42

    def check(self, ending: Ending) -> None:
        try:
            running = asyncio._get_running_loop()
            asyncio._set_running_loop(None)
            assert running is self.outer, "the thread's loop is another one"
            if ending.error is None:
                assert ending.result == "result"
            assert self.log in ([], ["began", "cleaned up"]), "it was left running"
            assert sys.get_asyncgen_hooks() == self.hooks, "hooks are left"
            assert signal.getsignal(signal.SIGINT) is self.sigint, "a handler is left"
            Beside(self.use).result()
            self.use()
            idle = self.loops.open - (self.outer is not None)
            close_idle()
            assert idle <= 4, "loops are left"
            assert self.loops.open == 0, "a loop is open"
            assert helper_threads() == 0, "a thread is left"
        finally:
            asyncio._set_running_loop(None)
            if self.outer:
                self.outer.close()
            self.loops.__exit__()


TWICE = budget(False, True)
WAYS = {
    "no loop": {"kept": True, "loop": False, "timeout": None},
    "no loop, a timeout": {"kept": True, "loop": False, "timeout": 60},
    "no loop, the first call": {"kept": False, "loop": False, "timeout": None},
    "in a loop": {"kept": True, "loop": True, "timeout": None},
    "in a loop, the first call": {"kept": False, "loop": True, "timeout": 60},
}
