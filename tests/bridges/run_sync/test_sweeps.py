"""RS-5 and RS-7: run_sync interrupted at each point where CPython runs signal handlers."""

import asyncio
import gc
import os
import signal
import sys
import time
from functools import partial
from typing import Any

import pytest

from reference_impl.bridges import run_sync as component
from tests.bridges.run_sync.helpers import Loops, answer, helper_threads
from tests.kit.fakes import Beside
from tests.kit.interrupts import Ending, Interrupt, Interrupts
from tests.kit.process import run_python
from tests.kit.profile import budget
from tests.kit.twins import Fault, Twin, build, edit


class Component:
    """A copy of its own, whose idle loops and threads are closed as before a fork."""

    def __init__(self, fault: Fault | None = None) -> None:
        self._hooks: dict[str, Any] = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "register_at_fork", lambda **hooks: self._hooks.update(hooks))
            self.module = build(component, fault)

    def close_idle(self) -> None:
        self._hooks["before"]()
        self._hooks["after_in_parent"]()


class Call:
    """One call, and all that it may have left behind."""

    def __init__(
        self, m: Component, *, kept: bool, loop: bool, timeout: float | None, first: str = ""
    ) -> None:
        m.close_idle()
        self.helpers = helper_threads()
        self.m, self.timeout, self.log = m, timeout, list[str]()
        self.outer = asyncio.new_event_loop() if loop else None
        self.loops = Loops()
        self.loops.__enter__()
        if kept:
            self.use()
        self.hooks, self.sigint = sys.get_asyncgen_hooks(), signal.getsignal(signal.SIGINT)
        self.coro = self.work(first)
        asyncio._set_running_loop(self.outer)

    async def work(self, first: str) -> str:
        try:
            self.log.append("began")
            if first == "callback":
                asyncio.get_running_loop().call_soon(self.interrupt)
            elif first:
                self.interrupt()
            await asyncio.sleep(0)
            await asyncio.sleep(0.0001)
        finally:
            self.log.append("cleaned up")
        return "result"

    def interrupt(self) -> None:
        """The first interrupt; the sweep makes the second."""
        raise Interrupt

    def __call__(self) -> Any:
        return self.m.module.run_sync(self.coro, timeout=self.timeout)

    def use(self) -> None:
        """Both ways, as a call that nothing has interrupted."""

        async def both() -> Any:
            return self.m.module.run_sync(answer())

        assert self.m.module.run_sync(both()) == 42

    def left(self) -> bool:
        return helper_threads() > self.helpers or self.loops.open > 0

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
            idle = self.loops.open
            deadline = time.monotonic() + 2.0  # what was begun beside may just be coming
            self.m.close_idle()
            while self.left() and time.monotonic() < deadline:
                time.sleep(0.001)
                self.m.close_idle()
            assert idle <= 4, "loops are left"
            assert not self.left(), "a loop is open, or a thread is left"
        finally:
            asyncio._set_running_loop(None)
            if self.outer:
                self.outer.close()
            self.m.close_idle()
            self.loops.__exit__()


WAYS: dict[str, dict[str, Any]] = {
    "no loop": {"kept": True, "loop": False, "timeout": None},
    "no loop, a timeout": {"kept": True, "loop": False, "timeout": 60},
    "no loop, the first call": {"kept": False, "loop": False, "timeout": None},
    "in a loop": {"kept": True, "loop": True, "timeout": None},
    "in a loop, the first call": {"kept": False, "loop": True, "timeout": 60},
}
# Asyncio's own code has some hundred points: too many for two at each of them.
ONCE = {way for way, options in WAYS.items() if not options["loop"]}
AGAIN = {f"no loop, again after one in a {first}": first for first in ("callback", "coroutine")}
for name, where in budget({}, AGAIN).items():
    WAYS[name] = WAYS["no loop"] | {"first": where}
    ONCE.add(name)


@pytest.mark.guarantee("RS-7")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_at_any_point_loses_nothing(way: str, interrupts: Interrupts) -> None:
    prepare = partial(Call, Component(), **WAYS[way])
    interrupts.prove(prepare, Call.__call__, Call.check, twice=way not in ONCE)


POPS = edit(
    "_Shelf.take",
    "thing = self._taken[me] = self._things[-1]\ndel self._things[-1]",
    "thing = self._taken[me] = self._things.pop()",
)
TWINS = [
    (
        "no loop",
        Twin("takes a loop off before it notes it", POPS, "AssertionError: a loop is open"),
    ),
    (
        "no loop",
        Twin(
            "leaves the thread the hooks of its loop",
            edit("_Loop._guarded", "sys.set_asyncgen_hooks(*hooks)", "pass"),
            "AssertionError: hooks are left",
        ),
    ),
]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what it lost
@pytest.mark.parametrize(
    ("way", "twin"),
    [
        pytest.param(
            way,
            twin,
            id=twin.name,
            marks=pytest.mark.twin("RS-7", fault=twin.name, fails=twin.ends),
        )
        for way, twin in TWINS
    ],
)
def test_the_sweep_catches_a_twin(way: str, twin: Twin, interrupts: Interrupts) -> None:
    prepare = partial(Call, Component(twin.fault), **WAYS[way])
    interrupts.catch(prepare, Call.__call__, Call.check, twin=twin, twice=False)
    gc.collect()


STORM = """
    import asyncio, os, random, signal, threading, time, warnings
    from reference_impl.bridges.run_sync import run_sync

    warnings.simplefilter("ignore", RuntimeWarning)  # a call that did not begin
    signals, armed = 0, False

    class Alarm(BaseException):
        pass

    def ring(*_):
        global signals
        if armed:  # else it went to another thread, which was late
            signals += 1
            raise Alarm

    async def work():
        await asyncio.sleep(0)
        await asyncio.sleep(0.0001)
        return 42

    async def within():
        return run_sync(work())

    def use():
        assert run_sync(work()) == 42
        assert run_sync(within()) == 42

    use()
    signal.signal(signal.SIGALRM, ring)
    outer = asyncio.new_event_loop()
    draw = random.Random(7)
    for number in range(CALLS):
        coro = work()
        in_a_loop = number % 2
        try:
            try:
                if in_a_loop:
                    asyncio._set_running_loop(outer)
                armed = True
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-6, 8e-4))
                assert run_sync(coro) == 42
            finally:
                armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
                running = asyncio._get_running_loop()
                asyncio._set_running_loop(None)
        except Alarm:
            pass
        assert running is (outer if in_a_loop else None), "another loop"
        if number % 50 == 0:
            user = threading.Thread(target=use)
            user.start()
            user.join(60)
            assert not user.is_alive(), "a lock is held"
    use()
    outer.close()
    deadline = time.monotonic() + 60
    while len(os.listdir("/proc/self/fd")) > 40 or threading.active_count() > 9:
        assert time.monotonic() < deadline, "something is left"
        time.sleep(0.01)
    assert signals > CALLS / 10, signals
    print("calm")
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that ring")
@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors as Linux lists them")
def test_a_storm_of_real_signals_leaves_it_usable() -> None:
    code = STORM.replace("CALLS", str(budget(500, 5_000)))
    assert run_python(code).stdout == "calm\n"
