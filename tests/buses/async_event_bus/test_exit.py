"""AsyncEventBus: what is told where its loop or its process ends without stop()."""

import asyncio
import gc
import logging
import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from reference_impl.buses import async_event_bus
from tests.buses.async_event_bus.helpers import event, forever, instead
from tests.buses.event_bus import children
from tests.buses.event_bus.children import START, in_children
from tests.buses.event_bus.helpers import logged
from tests.kit.fakes import run, turns
from tests.kit.process import run_python
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Twin, must_fail, override

METHODS = multiprocessing.get_all_start_methods()
forking = pytest.mark.skipif("fork" not in METHODS, reason="no fork here")


async def left(m: ModuleType) -> None:
    """A bus with one handler that hangs and four events behind it, which nobody stops."""
    bus = m.AsyncEventBus(1, on_error=lambda *_: None, name="abandoned")
    await bus.start()
    bus.subscribe("topic", lambda _: forever())
    for number in range(5):
        bus.publish_nowait(event(number))
    await turns()


def told(use: Callable[[], object]) -> list[str]:
    with logged() as records:
        use()
        gc.collect()
    return [record.getMessage() for record in records if "destroyed" not in record.getMessage()]


def check_the_end_of_its_loop_is_told(m: ModuleType) -> None:
    """asyncio.run ends, and cancels what is left."""
    found = told(lambda: run(left(m)))
    assert found == ["abandoned: its loop ended without stop(), calls dropped: 4"]


def check_a_loop_that_was_closed_is_told(m: ModuleType) -> None:
    """Nothing was cancelled: it is told when the bus is collected."""

    def close() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # of the task that asyncio misses as well
        bus = m.AsyncEventBus(1, name="orphan")
        bus.subscribe("topic", print)
        loop.run_until_complete(bus.start())
        for number in range(5):
            bus.publish_nowait(event(number))
        loop.close()

    found = told(close)
    assert found == ["orphan: its loop was closed without stop(), calls dropped: 5"]


def check_nothing_is_told_of_a_bus_that_was_stopped(m: ModuleType) -> None:
    async def main() -> None:
        bus = m.AsyncEventBus(1, on_error=lambda *_: None)
        await bus.start()
        bus.subscribe("topic", lambda _: forever())
        for number in range(3):
            await bus.publish(event(number))
        await turns()
        assert len(await bus.stop(0)) == 2
        async with m.AsyncEventBus() as other:  # which is idle as its loop ends
            await other.publish(event())
        await other.start()

    assert told(lambda: run(main())) == []


COUNTS_NOTHING = Twin(
    "counts nothing that it drops",
    override(
        "AsyncEventBus.stats",
        lambda original: property(
            lambda self: replace(original.fget(self), dropped=0, pending=0),
        ),
    ),
    "AssertionError: assert [] == ['",
)


async def tells_of_it(original: Any, bus: Any, *arguments: Any, **options: Any) -> Any:
    found = await original(bus, *arguments, **options)
    logging.getLogger(async_event_bus.__name__).warning("calls dropped: %d", len(found))
    return found


PROOFS = [
    Proof("AB-2", check_the_end_of_its_loop_is_told, [COUNTS_NOTHING]),
    Proof("AB-2", check_a_loop_that_was_closed_is_told, [COUNTS_NOTHING]),
    Proof(
        "AB-2",
        check_nothing_is_told_of_a_bus_that_was_stopped,
        [
            Twin(
                "tells of what stop returns",
                instead("stop", tells_of_it),
                "AssertionError: assert ['calls dropp",
            )
        ],
    ),
]
test_holds = holding(PROOFS, async_event_bus)
test_twin_fails = failing(PROOFS, async_event_bus)


LEAVES = """
    async def main():
        global bus
        bus = module.AsyncEventBus(1, name="left")
        await bus.start()
        bus.subscribe("topic", lambda _: asyncio.get_running_loop().create_future())
        for number in range(5):
            bus.publish_nowait(module.Event("topic", number))

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
"""
TOLD = "left: the process exits without stop(), calls dropped: 5"


def check_the_end_of_a_child_is_told(module: str, method: str) -> None:
    """Its loop is neither run on nor closed."""
    done = run_python(in_children(LEAVES, module, method))
    assert done.stderr.splitlines().count(TOLD) == 1


@pytest.mark.guarantee("AB-2")
@pytest.mark.parametrize("method", METHODS)
def test_the_end_of_a_child_of_each_kind_is_told(method: str) -> None:
    check_the_end_of_a_child_is_told("async_event_bus", method)


FORGETS_CHILDREN = Twin(
    "asks nobody to be called at the end of a process",
    children.forgets_children(),
    "AssertionError: TOLD) == 1",
)


@forking
@pytest.mark.twin("AB-2", fault=FORGETS_CHILDREN.name, fails=FORGETS_CHILDREN.ends)
def test_a_child_whose_end_is_not_told_is_caught() -> None:
    module = "build(async_event_bus, children.forgets_children())"
    must_fail(FORGETS_CHILDREN, partial(check_the_end_of_a_child_is_told, module, "fork"))


@pytest.mark.guarantee("AB-2")
@pytest.mark.parametrize("end", ["", "loop.close()"])
def test_the_end_of_the_process_is_told(end: str) -> None:
    done = run_python(f"{START}\n    module = async_event_bus\n{LEAVES}    {end}\n")
    assert done.stderr.splitlines().count(TOLD) == 1


@pytest.mark.guarantee("AB-2")
def test_a_loss_is_told_once() -> None:
    """When the loop ends; then not at the exit."""
    done = run_python(
        f"""{START}
    module = async_event_bus
    async def main():
        global bus
        bus = module.AsyncEventBus(1, on_error=lambda *_: None)
        await bus.start()
        bus.subscribe("topic", lambda _: asyncio.get_running_loop().create_future())
        for number in range(5):
            bus.publish_nowait(Event("topic", number))
        await asyncio.sleep(0)

    asyncio.run(main())
    """
    )
    assert done.stderr == "event-bus: its loop ended without stop(), calls dropped: 4\n"


@forking
def test_a_forked_child_tells_nothing_of_its_parents_bus() -> None:
    done = run_python(
        f"""{START}
    async def main():
        async with async_event_bus.AsyncEventBus(1) as bus:
            gate = asyncio.Event()
            bus.subscribe("topic", lambda _: gate.wait())
            await bus.publish(Event("topic"))
            await asyncio.sleep(0)
            process = multiprocessing.get_context("fork").Process(target=print)
            process.start()
            process.join()
            gate.set()

    asyncio.run(main())
    """
    )
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="no signal handlers of the loop")
def test_a_sigterm_that_the_loop_handles_drains() -> None:
    serve = """
    import signal
    async def main():
        stopping = asyncio.Event()
        {handler}
        async with async_event_bus.AsyncEventBus(1) as bus:
            bus.subscribe("topic", lambda event: print(event.payload, flush=True))
            bus.subscribe("kill", lambda event: os.kill(os.getpid(), signal.SIGTERM))
            await bus.publish(Event("kill"))
            for number in range(3):
                await bus.publish(Event("topic", number))
            await stopping.wait()

    asyncio.run(main())
    """
    handler = "asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)"
    killed = run_python(START + serve.format(handler=""), expect=-15)
    assert killed.stdout == killed.stderr == ""
    drained = run_python(START + serve.format(handler=handler))
    assert drained.stdout.split() == ["0", "1", "2"]
