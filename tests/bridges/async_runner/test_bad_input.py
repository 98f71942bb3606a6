"""What AsyncRunner refuses, its names, its start that fails, its sleep."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from reference_impl.bridges.async_runner import AsyncRunner
from tests.bridges.async_runner.helpers import descriptors, forever, value, was_closed
from tests.kit.fakes import PATIENCE


async def asynchronous() -> None:
    pass


def generator() -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("bad", "advice"),
    [
        (asynchronous, "not <function asynchronous .*>: call the function"),
        (None, "not None"),
        (generator(), "not <generator object"),
        ("coroutine", "not 'coroutine'"),
        (concurrent.futures.Future(), "not <Future .*: await other awaitables in one"),
    ],
)
def test_anything_but_a_coroutine_is_refused(bad: Any, advice: str) -> None:
    with AsyncRunner() as runner:
        for call in (runner.submit, runner.run):
            with pytest.raises(TypeError, match=f"coro must be a coroutine, {advice}"):
                call(bad)
        assert runner.run(value(1)) == 1


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError)],
)
def test_a_bad_timeout_is_refused_and_the_coroutine_closed(
    timeout: Any, error: type[Exception]
) -> None:
    with AsyncRunner() as runner:
        coro = value()
        with pytest.raises(error, match=f"timeout must be .*, not {timeout!r}"):
            runner.run(coro, timeout)
        assert was_closed(coro)
        with pytest.raises(error, match=f"timeout must be .*, not {timeout!r}"):
            runner.close(timeout)
        assert runner.run(value(1)) == 1, "it was not closed by the refused call"


@pytest.mark.parametrize("name", [None, 3, b"runner"])
def test_a_bad_name_is_refused(name: Any) -> None:
    with pytest.raises(TypeError, match="name must be a str, not"):
        AsyncRunner(name=name)


def test_there_is_no_argument_without_effect() -> None:
    """The original's `max_workers` did nothing."""
    with pytest.raises(TypeError):
        AsyncRunner(max_workers=4)  # type: ignore[call-arg]


def test_a_coroutine_that_has_run_already_fails_its_future() -> None:
    with AsyncRunner() as runner:
        coro = value()
        runner.run(coro)
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            runner.run(coro)


def test_a_start_that_fails_leaves_nothing_and_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = descriptors()
    runner = AsyncRunner()
    with monkeypatch.context() as patch:

        def refuse(_: object) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            runner.start()
    assert descriptors() == before
    coro = value()
    with pytest.raises(RuntimeError, match="not started"):
        runner.submit(coro)
    with runner:
        assert runner.run(value(1)) == 1


def test_threads_and_the_task_that_closes_have_the_runners_name() -> None:
    """And its thread is a daemon: one that is never closed must not hold up the exit for ever."""
    tasks: set[str] = set()

    async def thread() -> threading.Thread:
        return threading.current_thread()

    async def job() -> None:
        try:
            begun.set()
            await forever()
        finally:
            tasks.update(task.get_name() for task in asyncio.all_tasks())

    begun = threading.Event()
    with AsyncRunner(name="bench") as runner:
        own = runner.run(thread())
        assert (own.name, own.daemon) == ("bench", True)
        helper = runner.run(asyncio.to_thread(threading.current_thread))
        assert helper.name.startswith("bench-helper")
        runner.submit(job())
        assert begun.wait(PATIENCE)
        assert "bench" not in tasks
    assert "bench" in tasks


def test_an_idle_runner_sleeps() -> None:
    """Its loop waits in the selector without a timeout: nothing is polled."""
    timeouts: list[object] = []
    waiting = threading.Event()

    async def watch() -> None:
        loop: Any = asyncio.get_running_loop()
        select = loop._selector.select

        def watched(timeout: object = None) -> Any:
            timeouts.append(timeout)
            if timeout is None:
                waiting.set()
            return select(timeout)

        loop._selector.select = watched

    with AsyncRunner() as runner:
        runner.run(watch())
        assert waiting.wait(PATIENCE)
        assert timeouts[-1] is None
