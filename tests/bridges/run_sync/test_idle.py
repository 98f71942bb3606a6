"""RS-7: what run_sync keeps idle does not grow, and holds nothing of the last call."""

import asyncio
import gc
import itertools
import threading
import weakref
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import run_sync as component
from reference_impl.bridges.run_sync import run_sync
from tests.bridges.run_sync import inside
from tests.bridges.run_sync.faults import FILE, Call, around
from tests.bridges.run_sync.helpers import WAYS, answer, close_idle, nest, within_a_loop
from tests.kit.profile import budget
from tests.kit.proofs import Proof, each_twin, holding
from tests.kit.twins import Twin, edit


def usage() -> tuple[int, int]:
    return threading.active_count(), len(list(Path("/dev/fd").iterdir()))


def check_growth(m: ModuleType, calls: int = 5, in_loop: int = 5, callers: int = 0) -> None:
    before = usage()
    for _ in range(calls):
        assert m.run_sync(answer()) == 42

    async def main() -> None:
        for _ in range(in_loop):
            assert m.run_sync(answer()) == 42

    within = asyncio.new_event_loop()
    within.run_until_complete(main())
    within.close()
    for _ in range(callers):
        caller = threading.Thread(target=within_a_loop, args=(m, answer))
        caller.start()
        caller.join()
    threads, descriptors = usage()
    assert threads - before[0] <= 1, "threads grow"
    assert descriptors - before[1] <= 3, "descriptors grow"


@pytest.mark.guarantee("RS-7")
def test_ten_thousand_calls_and_two_hundred_short_lived_threads_leave_nothing() -> None:
    check_growth(component, budget(4_000, 10_000), budget(1_000, 2_000), budget(50, 200))


def check_at_most_eight(m: ModuleType) -> None:
    before = usage()
    within_a_loop(m, lambda: nest(m, 30))
    threads, descriptors = usage()
    assert threads - before[0] <= 8, "more than 8 threads kept"
    assert descriptors - before[1] <= 8 * 3, "more than 8 loops kept"


class Payload:
    pass


payload_of: ContextVar[Payload] = ContextVar("payload_of")


def in_this_thread(call: Callable[..., Any], way: Call) -> Any:
    return copy_context().run(call, way)


def in_another_thread(call: Callable[..., Any], way: Call) -> Any:
    results: list[Any] = []

    def run(context: Context) -> None:
        results.append(context.run(call, way))

    thread = threading.Thread(target=run, args=(copy_context(),))
    thread.start()
    thread.join()
    return results[0]


def check_nothing_is_kept_alive(m: ModuleType) -> None:
    """No argument, no result, and no context, though the loop and thread are new."""

    async def work(payload: Payload) -> Payload:
        payload_of.set(Payload())
        return payload

    def call(way: Call) -> "list[weakref.ref[Payload]]":
        before, argument = Payload(), Payload()
        payload_of.set(before)
        result = way(m, lambda: work(argument))
        return [weakref.ref(before), weakref.ref(result)]

    gc.collect()
    gc.disable()
    try:
        for way, run in itertools.product(WAYS, (in_this_thread, in_another_thread)):
            references = run(call, way)
            assert [reference() for reference in references] == [None, None], "kept alive"
            close_idle()
    finally:
        gc.enable()


remembered: list[object] = []


def remembers(original: Call, coro: Any, timeout: float | None) -> Any:
    remembered[:] = [original(coro, timeout=timeout)]
    return remembered[0]


NEW_LOOPS = edit(
    "_run",
    "loop = loops.get(lambda: Context().run(_Loop))",
    "loops._add(_Loop())\nloop = loops.get(lambda: Context().run(_Loop))",
)
NEW_THREADS = edit(
    "_run_elsewhere",
    "helper = helpers.get(_Helper)",
    "helpers._add(_Helper())\nhelper = helpers.get(_Helper)",
)
PROOFS = [
    Proof(
        "RS-7",
        check_growth,
        [
            Twin("makes a loop for each call", NEW_LOOPS, "AssertionError: descriptors grow"),
            Twin("starts a thread for each call", NEW_THREADS, "AssertionError: threads grow"),
        ],
    ),
    Proof(
        "RS-7",
        check_at_most_eight,
        [
            Twin(
                "keeps everything",
                edit("_Shelf.put", "len(self._things) >= _KEPT", "False"),
                "AssertionError: more than 8 threads kept",
            )
        ],
    ),
    Proof(
        "RS-7",
        check_nothing_is_kept_alive,
        [
            Twin("remembers the last result", around(remembers), "AssertionError: kept alive"),
            Twin(
                "makes its loops in the caller's context",
                edit("_run", "Context().run(_Loop)", "_Loop()"),
                "AssertionError: kept alive",
            ),
        ],
    ),
]

test_it_holds = holding(PROOFS, component)


@each_twin(PROOFS)
def test_the_check_catches_a_twin(proof: Proof, twin: Twin) -> None:
    proof.must_fail(twin, FILE)
    remembered.clear()


def test_a_fork_during_another_or_after_the_exit_does_not_open_the_shelves() -> None:
    """As many have to open them as have closed them; calls work meanwhile."""
    inside.close(component)
    inside.close(component)
    assert run_sync(nest(component, 1)) == 1
    inside.reopen(component)
    assert run_sync(nest(component, 1)) == 1
    assert inside.idle(component) == (0, 0)
    inside.reopen(component)
    assert run_sync(nest(component, 1)) == 1
    assert inside.idle(component) == (2, 1)


def test_a_childs_shelves_are_new_and_open() -> None:
    """What a fork's hooks do in the child, whose parent's threads may hold the locks."""
    with inside.as_a_child(component):
        assert inside.idle(component) == (0, 0)
        assert run_sync(nest(component, 1)) == 1
        assert inside.idle(component) == (2, 1)


def test_a_loop_that_another_process_made_is_neither_closed_nor_dropped() -> None:
    """Either would unregister the descriptors of the parent, which has them, too."""
    references: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    with inside.another_process(component) as become_another:

        async def become_a_child() -> None:
            references.append(weakref.ref(asyncio.get_running_loop()))
            become_another()

        run_sync(become_a_child())
    gc.collect()
    loop = references[0]()
    assert loop is not None
    assert not loop.is_closed()
    inside.close_abandoned(component)
    assert loop.is_closed()
