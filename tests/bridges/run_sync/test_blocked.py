"""RS-5: a coroutine that blocks its thread in a running loop's call, and so cannot be cancelled."""

import asyncio
import importlib
import logging
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import run_sync as component
from reference_impl.bridges.run_sync import run_sync
from tests.bridges.run_sync import inside
from tests.bridges.run_sync.faults import FILE, Call, around
from tests.bridges.run_sync.helpers import helper_threads, until, within_a_loop
from tests.kit.fakes import Beside
from tests.kit.proofs import Proof, each_twin, holding
from tests.kit.twins import Twin


def check_a_blocked_thread_is_left(m: ModuleType) -> None:
    """It is told where that is; once it is free, the coroutine is cancelled, and cleans up."""
    log: list[str] = []
    needed, begun, told = threading.Lock(), threading.Event(), threading.Event()

    async def work() -> None:
        try:
            begun.set()
            with needed:
                log.append("free")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("cleaned up")

    def call() -> str:
        try:
            within_a_loop(m, work, timeout=0.01)
        except TimeoutError as error:
            return str(error)
        finally:
            told.set()
        return "no timeout"

    before = helper_threads()
    with needed:
        caller = Beside(call)
        assert begun.wait(60)
        in_time = told.wait(16)
    message = caller.result()
    assert in_time, "it waits for a thread that is blocked"
    assert "blocks its thread 'run_sync' in " in message
    assert "test_blocked.py:" in message
    until(lambda: log == ["free", "cleaned up"], "its coroutine goes on")
    until(lambda: helper_threads() <= before, "its thread goes on")


def never_looks(original: Call, coro: Any, timeout: float | None) -> Any:
    return original(asyncio.wait_for(coro, timeout))


PROOFS = [
    Proof(
        "RS-5",
        check_a_blocked_thread_is_left,
        [
            Twin(
                "waits without an end for a thread that is blocked",
                around(never_looks),
                "AssertionError: it waits for a thread that is blocked",
            )
        ],
    )
]

test_it_holds = holding(PROOFS, component)


@each_twin(PROOFS)
def test_the_check_catches_a_twin(proof: Proof, twin: Twin) -> None:
    proof.must_fail(twin, FILE)


def test_a_lock_that_the_caller_holds() -> None:
    lock = threading.RLock()

    async def needs_it() -> None:
        with lock:
            pass

    with inside.impatient(component), lock:
        with pytest.raises(TimeoutError, match=r"in .*needs_it .*release what it needs before"):
            within_a_loop(component, needs_it, timeout=0)


def test_a_log_handler_whose_lock_the_caller_holds() -> None:
    errors: list[TimeoutError] = []
    logger = logging.getLogger("tests.run_sync.blocked")

    async def log() -> None:
        logger.error("inner")

    class Forwards(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "outer":
                try:
                    run_sync(log(), timeout=0)
                except TimeoutError as error:
                    errors.append(error)

    async def main() -> None:
        logger.error("outer")

    handler = Forwards()
    logger.addHandler(handler)
    try:
        with inside.impatient(component):
            asyncio.run(main())
    finally:
        logger.removeHandler(handler)
    assert "in Handler." in str(errors[0])


MODULE = """
import importlib
from reference_impl.bridges.run_sync import run_sync

async def needs_it():
    importlib.import_module(__name__)

try:
    run_sync(needs_it(), timeout=0)
except TimeoutError as error:
    told = str(error)
"""


def test_a_module_that_the_caller_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.joinpath("blocked_import.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))

    async def main() -> Any:
        return importlib.import_module("blocked_import")

    before = helper_threads()
    with inside.impatient(component):
        module = asyncio.run(main())
        until(lambda: helper_threads() <= before, "its thread goes on")
    assert "in _ModuleLock.acquire" in module.told
    sys.modules.pop("blocked_import")


def test_a_clean_up_that_takes_long_is_awaited() -> None:
    """Its loop goes on meanwhile, so that nothing is blocked."""
    opened: list[Any] = []
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            gate = asyncio.Event()
            opened.append((asyncio.get_running_loop(), gate))
            await gate.wait()
            log.append("cleaned up")

    with inside.impatient(component, 0.5) as seen:  # longer than a step takes on a busy machine

        def open_late() -> None:
            until(lambda: opened and seen[-3:] == [None] * 3, "nobody looks")
            loop, gate = opened[0]
            loop.call_soon_threadsafe(gate.set)

        opener = Beside(open_late)
        with pytest.raises(TimeoutError, match=r"^cancelled after 0 s$"):
            within_a_loop(component, work, timeout=0)
        opener.result()
    assert log == ["cleaned up"]


def test_a_recursion_error_stays_one() -> None:
    """However little of the stack is left for the call, which has to start a thread each time."""

    async def answer() -> int:
        return 42

    def at_depth(left: int) -> Any:
        if left:
            return at_depth(left - 1)
        coro = answer()
        try:
            return run_sync(coro)
        finally:
            coro.close()  # where the call itself was too deep

    async def main() -> list[str]:
        depth, outcomes = sys.getrecursionlimit() - 150, list[str]()
        while outcomes[-5:] != ["RecursionError"] * 5:
            inside.close(component)
            inside.reopen(component)
            try:
                outcomes.append(str(at_depth(depth)))
            except RecursionError:
                outcomes.append("RecursionError")
            depth += 1
        return outcomes

    before = helper_threads()
    # Not in the main thread, where it starts threads by way of one that has a stack of its own.
    outcomes = Beside(asyncio.run, main()).result()
    assert set(outcomes) == {"42", "RecursionError"}
    assert within_a_loop(component, answer) == 42
    inside.close(component)
    inside.reopen(component)
    until(lambda: helper_threads() <= before, "a thread is left")
