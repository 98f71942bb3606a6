"""run_sync's results and exceptions, depth and width, and contexts."""

import asyncio
import itertools
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, ContextVar, copy_context
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from reference_impl.bridges import run_sync as component
from reference_impl.bridges.run_sync import run_sync
from tests.bridges.run_sync.faults import Call, around
from tests.bridges.run_sync.helpers import (
    Trouble,
    answer,
    helper_threads,
    nest,
    within_a_loop,
    without_a_loop,
)
from tests.kit.process import run_python
from tests.kit.proofs import Proof
from tests.kit.twins import Twin

# RS-1: results and exceptions.


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


ERRORS = [
    Trouble("x"),
    SystemExit(3),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    TimeoutError(),
]


def check_outcomes(m: ModuleType, way: Call) -> None:
    assert way(m, answer) == 42
    assert way(m, lambda: asyncio.sleep(0)) is None
    for error in ERRORS:
        raised = None
        try:
            way(m, lambda error=error: fail(error))
        except BaseException as caught:
            raised = caught
        assert raised is error, f"{raised!r} is not the object that was raised"


@pytest.mark.guarantee("RS-1")
def test_a_callback_of_a_running_loop_may_call_it() -> None:
    """A loop is running there, but no task."""

    async def main() -> int:
        result: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: result.set_result(run_sync(answer())))
        return await result

    assert asyncio.run(main()) == 42


def test_any_coroutine_object_will_do() -> None:
    """Such as one of a compiled module, which is no types.CoroutineType."""

    class Compiled(Coroutine[Any, Any, str]):
        def __init__(self) -> None:
            self._inner = answer()

        def send(self, value: Any) -> Any:
            return self._inner.send(value)

        def throw(self, *error: Any) -> Any:
            return self._inner.throw(*error)

        def close(self) -> None:
            self._inner.close()

        def __await__(self) -> Any:
            return self._inner.__await__()

    assert without_a_loop(component, Compiled) == 42
    assert within_a_loop(component, Compiled, timeout=60.0) == 42


@pytest.mark.guarantee("RS-1")
def test_system_exit_inside_a_nested_coroutine_ends_the_program() -> None:
    done = run_python(
        """
        import asyncio
        from reference_impl.bridges.run_sync import run_sync

        async def leave():
            raise SystemExit(7)

        async def main():
            run_sync(leave())

        asyncio.run(main())
        """,
        expect=7,
    )
    assert done.stderr == ""


def raises_a_copy(original: Call, coro: Any, timeout: float | None) -> Any:
    try:
        return original(coro, timeout=timeout)
    except Trouble as error:
        raise Trouble(*error.args) from None


def forgets_the_result(original: Call, coro: Any, timeout: float | None) -> None:
    original(coro, timeout=timeout)


# RS-2: any depth and width.


def check_nesting(m: ModuleType, way: Call) -> None:
    assert way(m, lambda: nest(m, 50)) == 50
    assert helper_threads() <= 8


@pytest.mark.guarantee("RS-2")
def test_thirty_loops_may_be_inside_a_nested_call_at_once() -> None:
    all_inside = threading.Barrier(30)

    async def inner() -> int:
        return all_inside.wait(timeout=60)

    with ThreadPoolExecutor(30) as pool:
        calls = [pool.submit(within_a_loop, component, inner) for _ in range(30)]
        assert sorted(call.result() for call in calls) == list(range(30))


@pytest.mark.guarantee("RS-2")
def test_it_runs_in_the_callers_thread_or_in_a_daemon_that_is_named() -> None:
    """A daemon, as an idle one must not hold up the exit; the name tells whose it is."""

    async def where() -> threading.Thread:
        return threading.current_thread()

    assert without_a_loop(component, where) is threading.current_thread()
    helper = within_a_loop(component, where)
    assert (helper.name, helper.daemon) == ("run_sync", True)


def check_no_more_threads(m: ModuleType, _: Call) -> None:
    start, started = threading.Thread.start, itertools.count(1)

    def start_five(thread: threading.Thread) -> None:
        if next(started) > 5:
            raise RuntimeError("can't start new thread")
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_five)
        with pytest.raises(RuntimeError, match="needs another thread: can't start new thread"):
            within_a_loop(m, lambda: nest(m, 20))
    assert within_a_loop(m, lambda: nest(m, 20)) == 20


@pytest.mark.guarantee("RS-2")
def test_where_descriptors_run_out_it_raises_and_recovers() -> None:
    run_python("""
        import os, resource, warnings
        from reference_impl.bridges.run_sync import run_sync

        # asyncio itself leaves a half-made loop behind when it runs out of descriptors.
        warnings.simplefilter("ignore", ResourceWarning)

        async def nest(depth):
            return 0 if depth == 0 else 1 + run_sync(nest(depth - 1))

        resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
        try:
            run_sync(nest(100))
        except OSError as error:
            assert "Too many open files" in str(error)
        else:
            raise AssertionError("100 loops with 80 descriptors?")
        assert run_sync(nest(10)) == 10
        assert len(os.listdir("/proc/self/fd")) < 40
    """)


depth: ContextVar[int] = ContextVar("depth", default=0)


def has_eight_threads(original: Call, coro: Any, timeout: float | None) -> Any:
    def call() -> Any:
        depth.set(depth.get() + 1)
        assert depth.get() <= 8, "the pool is full"
        return original(coro, timeout=timeout)

    try:
        return copy_context().run(call)
    finally:
        coro.close()


def says_nothing(original: Call, coro: Any, timeout: float | None) -> Any:
    try:
        return original(coro, timeout=timeout)
    except RuntimeError:
        raise RuntimeError("failed") from None


# RS-3: contexts.

color: ContextVar[str] = ContextVar("color", default="none")


def check_context(m: ModuleType, way: Call) -> None:
    async def look() -> str:
        seen = color.get()
        color.set("green")
        return seen

    def call(coro: Coroutine[Any, Any, str]) -> str:
        token = color.set("red")
        try:
            assert m.run_sync(coro) == "red", "not the caller's context"
            assert color.get() == "red", "it has changed the caller's context"
        finally:
            color.reset(token)
        return str(m.run_sync(look()))

    assert way(SimpleNamespace(run_sync=call), look) == "none", "a former caller's context"


def shares_the_context(original: Call, coro: Any, timeout: float | None) -> Any:
    contexts: list[Context] = []

    async def shared(coro: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coro
        finally:
            contexts.append(copy_context())

    result = original(shared(coro), timeout=timeout)
    for variable, value in contexts[0].items():
        variable.set(value)
    return result


PROOFS = [
    Proof(
        "RS-1",
        check_outcomes,
        [
            Twin(
                "raises another exception of the same kind",
                around(raises_a_copy),
                "AssertionError: is not the object",
            ),
            Twin(
                "forgets the result",
                around(forgets_the_result),
                "AssertionError: way(m, answer) == 42",
            ),
        ],
    ),
    Proof(
        "RS-2",
        check_nesting,
        [
            Twin(
                "refuses the ninth call within a call",
                around(has_eight_threads),
                "AssertionError: the pool is full",
            )
        ],
    ),
    Proof(
        "RS-2",
        check_no_more_threads,
        [
            Twin(
                "does not say what there is too little of",
                around(says_nothing),
                "AssertionError: Regex",
            )
        ],
    ),
    Proof(
        "RS-3",
        check_context,
        [
            Twin(
                "runs the coroutine in an empty context",
                around(lambda original, coro, timeout: Context().run(original, coro)),
                "AssertionError: not the caller's context",
            ),
            Twin(
                "keeps what the coroutine sets",
                around(shares_the_context),
                "AssertionError: it has changed the caller's context",
            ),
        ],
    ),
]
