"""run_sync: results, nesting, contexts, isolation, timeouts, interrupts, bad input, leaks."""

import asyncio
import contextlib
import contextvars
import functools
import gc
import inspect
import itertools
import math
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference_impl.bridges import run_sync as component
from reference_impl.bridges.run_sync import run_sync
from tests.kit.process import run_python
from tests.kit.twins import twin

FILE = "bridges/run_sync.py"
Make = Callable[[], Coroutine[Any, Any, Any]]
Call = Callable[..., Any]

_modules = [component]


@pytest.fixture(autouse=True)
def _nothing_idle_is_left() -> Iterator[None]:
    yield
    close_idle()


def close_idle() -> None:
    for module in _modules:
        module._close_idle()
        module._reopen()
    del _modules[1:]


def broken(*faults: tuple[str, str]) -> ModuleType:
    module = twin(FILE, *faults)
    _modules.append(module)
    return module


def without_a_loop(module: ModuleType, make: Make, **options: Any) -> Any:
    return module.run_sync(make(), **options)


def within_a_loop(module: ModuleType, make: Make, **options: Any) -> Any:
    async def main() -> Any:
        return module.run_sync(make(), **options)

    # Not asyncio.run: it would answer Ctrl-C itself.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


WAYS = [without_a_loop, within_a_loop]
both_ways = pytest.mark.parametrize("way", WAYS)


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


# RS-1: results and exceptions.


class Trouble(Exception):
    pass


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


def check_outcomes(module: ModuleType, way: Call, error: BaseException) -> None:
    assert way(module, answer) == 42
    raised = None
    try:
        way(module, lambda: fail(error))
    except BaseException as caught:
        raised = caught
    assert raised is error, f"{raised!r} is not the object that was raised"


ERRORS = [
    Trouble("x"),
    SystemExit(3),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    TimeoutError(),
]


@pytest.mark.guarantee("RS-1")
@both_ways
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_call_returns_the_result_or_raises_the_very_exception(
    way: Call, error: BaseException
) -> None:
    check_outcomes(component, way, error)


@pytest.mark.twin("RS-1")
def test_an_exception_that_is_replaced_is_noticed() -> None:
    module = broken(("self._error = error", "self._error = RuntimeError(str(error))"))
    with pytest.raises(AssertionError, match="is not the object"):
        check_outcomes(module, within_a_loop, Trouble("x"))


@pytest.mark.guarantee("RS-1")
@both_ways
def test_none_is_a_result(way: Call) -> None:
    assert way(component, lambda: asyncio.sleep(0)) is None


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


# RS-2: any depth and width.


async def nest(module: ModuleType, depth: int) -> int:
    return 0 if depth == 0 else 1 + module.run_sync(nest(module, depth - 1))


@pytest.mark.guarantee("RS-2")
@both_ways
def test_calls_may_be_nested_fifty_deep(way: Call) -> None:
    assert way(component, lambda: nest(component, 50)) == 50
    assert len(component._helpers._things) <= 8


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


def check_no_more_threads(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, itertools.count(1)

    def start_five(thread: threading.Thread) -> None:
        if next(started) > 5:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_five)
        with pytest.raises(RuntimeError, match="needs another thread: can't start new thread"):
            within_a_loop(module, lambda: nest(module, 20))
    assert within_a_loop(module, lambda: nest(module, 20)) == 20


@pytest.mark.guarantee("RS-2")
def test_where_no_thread_can_be_started_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    check_no_more_threads(component, monkeypatch)


@pytest.mark.twin("RS-2")
def test_a_message_that_does_not_help_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = broken(("run_sync needs another thread: {error}; nest fewer calls, or await", ""))
    with pytest.raises(AssertionError, match="Regex"):
        check_no_more_threads(module, monkeypatch)


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


@pytest.mark.twin("RS-2")
def test_a_helper_that_is_given_to_two_callers_is_noticed() -> None:
    """The nested call waits for the thread that waits for it, as in a bounded pool."""
    code = """
        import asyncio, faulthandler
        from tests.kit.twins import twin

        m = twin(
            "bridges/run_sync.py",
            ("    helper.do(job)\\n", "    _helpers.put(helper)\\n    helper.do(job)\\n"),
        )
        faulthandler.dump_traceback_later(5, exit=True)

        async def nest(depth):
            return 0 if depth == 0 else 1 + m.run_sync(nest(depth - 1))

        assert m.run_sync(nest(3)) == 3
    """
    assert "Timeout" in run_python(code, expect=1).stderr


# RS-3: contexts.

color: contextvars.ContextVar[str] = contextvars.ContextVar("color", default="none")


def check_context(module: ModuleType, way: Call) -> None:
    async def look() -> str:
        seen = color.get()
        color.set("green")
        return seen

    token = color.set("red")
    try:
        assert way(module, look) == "red", "not the caller's context"
        assert color.get() == "red"
    finally:
        color.reset(token)
    assert way(module, look) == "none", "a former caller's context"


@pytest.mark.guarantee("RS-3")
@both_ways
def test_the_coroutine_sees_the_callers_context(way: Call) -> None:
    check_context(component, way)


@pytest.mark.twin("RS-3")
@pytest.mark.parametrize(
    ("way", "fault"),
    [
        (within_a_loop, ("self._context = copy_context()", "self._context = Context()")),
        (without_a_loop, ("limit), copy_context())", "limit), None)")),
    ],
)
def test_another_context_is_noticed(way: Call, fault: tuple[str, str]) -> None:
    module = broken(fault)
    with pytest.raises(AssertionError, match="context"):
        check_context(module, way)


# RS-4: isolation.

kept: list[object] = []


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    yield
    kept.clear()


async def count_to_two() -> AsyncIterator[int]:
    yield 1
    yield 2


async def leave_a_task() -> None:
    asyncio.create_task(asyncio.sleep(3600))  # noqa: RUF006


async def leave_a_task_made_by_hand() -> None:
    """Past any task factory, and waiting for nothing that the loop knows."""
    forever = asyncio.Event().wait()
    kept.append(asyncio.Task(forever, loop=asyncio.get_running_loop()))
    await asyncio.sleep(0)


async def leave_a_timer() -> None:
    asyncio.get_running_loop().call_later(3600, print)


async def leave_a_callback() -> None:
    def again() -> None:
        asyncio.get_running_loop().call_soon(again)

    again()


async def leave_a_reader() -> None:
    read, write = os.pipe()
    kept.append((read, write))
    asyncio.get_running_loop().add_reader(read, lambda: None)


async def leave_a_generator() -> None:
    numbers = count_to_two()
    kept.append(numbers)
    await anext(numbers)


async def leave_an_executor() -> None:
    await asyncio.to_thread(int)


async def leave_debug_mode() -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(not loop.get_debug())


async def leave_an_exception_handler() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)


async def leave_a_task_factory() -> None:
    asyncio.get_running_loop().set_task_factory(
        lambda loop, coro, **k: asyncio.Task(coro, loop=loop, **k)
    )


async def leave_another_slowness() -> None:
    asyncio.get_running_loop().slow_callback_duration = 9.0


async def leave_an_attribute() -> None:
    """As code does that keeps something on the loop itself."""
    vars(asyncio.get_running_loop())["session"] = 7


async def leave_another_method() -> None:
    """As tools do that watch or patch a loop."""
    vars(asyncio.get_running_loop())["create_future"] = asyncio.Future


async def leave_generators_shut_down() -> None:
    await asyncio.get_running_loop().shutdown_asyncgens()


async def leave_executors_shut_down() -> None:
    await asyncio.get_running_loop().shutdown_default_executor()


async def leave_a_lock_that_is_bound_to_it() -> None:
    lock = asyncio.Lock()
    kept.append(lock)
    async with lock:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lock.acquire(), 0.001)


async def leave_a_reference() -> None:
    """A thread that has it could post to it in the middle of another call."""
    kept.append(asyncio.get_running_loop())


async def leave_a_weak_reference() -> None:
    """As libraries do that keep something for each loop."""
    kept.append(weakref.ref(asyncio.get_running_loop()))


async def leave_a_failure() -> None:
    raise Trouble


LEAVINGS = [value for name, value in list(globals().items()) if name.startswith("leave_")]


async def tidy() -> None:
    async with asyncio.timeout(3600), asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
        group.create_task(asyncio.sleep(0.001))
    async for _ in count_to_two():
        pass


class Loops:
    """Counts the loops that are made."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.made = 0
        self._make = asyncio.new_event_loop
        patch.setattr(asyncio, "new_event_loop", self)

    def __call__(self) -> asyncio.AbstractEventLoop:
        self.made += 1
        return self._make()


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> Loops:
    return Loops(monkeypatch)


def check_isolation(module: ModuleType, loops: Loops, leave: Make, way: Call) -> None:
    way(module, tidy)
    before = loops.made
    way(module, tidy)
    own = 1 if way is within_a_loop else 0
    assert loops.made == before + own, "a tidy call cost a new loop"
    with contextlib.suppress(Trouble):
        way(module, leave)
    way(module, answer)
    assert loops.made == before + 3 * own + 1, "the loop was used again"


@pytest.mark.guarantee("RS-4")
@both_ways
@pytest.mark.parametrize("leave", LEAVINGS)
def test_a_loop_on_which_something_was_left_is_not_used_again(
    loops: Loops, leave: Make, way: Call
) -> None:
    check_isolation(component, loops, leave, way)
    for read, write in [item for item in kept if isinstance(item, tuple)]:
        os.close(read)
        os.close(write)


REFERENCES = ("sys.getrefcount(self.loop), ", "")


@pytest.mark.twin("RS-4")
@pytest.mark.parametrize(
    ("leave", "fault"),
    [
        (leave_a_task_made_by_hand, REFERENCES),
        (leave_a_timer, REFERENCES),
        (leave_a_generator, REFERENCES),
        (leave_a_lock_that_is_bound_to_it, REFERENCES),
        (leave_a_reference, REFERENCES),
        (leave_a_weak_reference, (", weakref.getweakrefcount(self.loop)", ", 0")),
        (leave_an_executor, ('    "_default_executor",\n', "")),
        (leave_debug_mode, ('    "_debug",\n', "")),
        (leave_an_exception_handler, ('    "_exception_handler",\n', "")),
        (leave_a_task_factory, ('    "_task_factory",\n', "")),
        (leave_another_slowness, ('    "slow_callback_duration",\n', "")),
        (leave_an_attribute, (", len(self.loop.__dict__)", "")),
        (leave_another_method, (", len(self.loop.__dict__)", "")),
        (leave_generators_shut_down, ('    "_asyncgens_shutdown_called",\n', "")),
        (leave_executors_shut_down, ('    "_executor_shutdown_called",\n', "")),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of what it left
def test_a_loop_that_is_used_again_is_noticed(
    loops: Loops, leave: Make, fault: tuple[str, str]
) -> None:
    module = broken(fault)
    with pytest.raises(AssertionError, match="used again"):
        check_isolation(module, loops, leave, without_a_loop)


@pytest.mark.guarantee("RS-4")
def test_a_loop_that_cannot_be_looked_into_is_not_used_again(
    loops: Loops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one written in another language."""
    monkeypatch.setattr(component, "_settings", lambda loop: loop.no_such_attribute)
    for _ in range(3):
        assert run_sync(answer()) == 42
    assert loops.made == 3


def check_leftovers_are_awaited(module: ModuleType, way: Call) -> None:
    cleaned_up = []

    async def clean_up_slowly(what: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned_up.append(what)

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            cleaned_up.append("generator")

    async def leave() -> None:
        kept.append(asyncio.create_task(clean_up_slowly("task")))
        generator = numbers()
        kept.append(generator)
        await anext(generator)
        await asyncio.sleep(0)

    way(module, leave)
    assert cleaned_up == ["task", "generator"], "not awaited"


@pytest.mark.guarantee("RS-4")
@both_ways
def test_tasks_and_generators_left_behind_are_cancelled_and_awaited(way: Call) -> None:
    check_leftovers_are_awaited(component, way)


@pytest.mark.twin("RS-4")
@both_ways
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_leftovers_that_are_dropped_are_noticed(way: Call) -> None:
    module = broken(("self.runner.close()", "self.loop.close()"))
    with pytest.raises(AssertionError, match="not awaited"):
        check_leftovers_are_awaited(module, way)
    kept.clear()
    gc.collect()  # here, where the complaints of what was dropped are expected


@pytest.mark.guarantee("RS-4")
def test_the_threads_current_loop_stays_as_it_is() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        run_sync(answer())
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_a_tidy_call_does_not_look_at_every_task_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """asyncio.all_tasks does, and so costs milliseconds where there are ten thousand."""

    def look(*arguments: Any) -> Any:
        raise AssertionError("looked at all tasks")

    monkeypatch.setattr("asyncio.tasks.all_tasks", look)
    for _ in range(3):
        assert run_sync(answer()) == 42


# What calls do in any order, against a plain prediction.


async def time_out() -> None:
    async with asyncio.timeout(0):
        await asyncio.Event().wait()


KINDS: dict[str, tuple[Make, object, bool]] = {
    "tidy": (tidy, None, True),
    "answer": (answer, 42, True),
    "task": (leave_a_task, None, False),
    "setting": (leave_debug_mode, None, False),
    "timeout": (time_out, TimeoutError, False),
    "trouble": (leave_a_failure, Trouble, False),
}


@given(
    calls=st.lists(
        st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(WAYS), st.sampled_from([1, 2, 3]))
    )
)
@pytest.mark.guarantee("RS-1", "RS-4", "RS-7")
def test_any_series_of_calls(calls: list[tuple[str, Call, int]]) -> None:
    """Results, and how many loops and threads are idle after each."""
    close_idle()
    loops = threads = 0

    async def nested(make: Make, depth: int) -> Any:
        return await make() if depth == 1 else run_sync(nested(make, depth - 1))

    for kind, way, depth in calls:
        make, outcome, leaves_nothing = KINDS[kind]
        levels = depth - (way is without_a_loop)
        try:
            result = way(component, lambda make=make, depth=depth: nested(make, depth))
        except Exception as error:
            result = type(error)
        assert result is outcome or result == outcome
        threads = max(threads, levels)
        assert len(component._helpers._things) == threads
        loops = max(loops, depth)
        if not leaves_nothing:
            # What failed, failed on all levels; what was left was left on the innermost.
            loops -= depth if isinstance(outcome, type) else 1
        assert len(component._loops._things) == loops


# RS-5: timeouts and interrupts.


def check_timeout(module: ModuleType, way: Call) -> None:
    log = []

    async def hang() -> None:
        try:
            await asyncio.sleep(0.2)
        finally:
            await asyncio.sleep(0)
            log.append("cleaned up")

    async def refuse_to_be_cancelled() -> str:
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            log.append("cancelled")
        return "late"

    with pytest.raises(TimeoutError, match=r"^cancelled after 0 s$"):
        way(module, hang, timeout=0)
    assert log == ["cleaned up"]
    assert way(module, refuse_to_be_cancelled, timeout=0) == "late"
    assert log == ["cleaned up", "cancelled"]
    assert way(module, answer, timeout=60) == 42


@pytest.mark.guarantee("RS-5")
@both_ways
def test_a_timeout_cancels_and_awaits_the_clean_up(way: Call) -> None:
    check_timeout(component, way)


SAYS = '            error.args = (f"cancelled after {limit} s",)  # it comes without a word\n'
BODY = (
    "    scope = asyncio.timeout(limit)\n"
    "    try:\n"
    "        async with scope:\n"
    "            return await coro\n"
    "    except TimeoutError as error:\n"
    "        if scope.expired() and isinstance(error.__cause__, asyncio.CancelledError):\n"
    f"{SAYS}"
    "        raise"
)
ABANDON = (
    "    task = asyncio.ensure_future(coro)\n"
    "    if not (await asyncio.wait([task], timeout=limit))[0]:\n"
    "        raise TimeoutError\n"
    "    return task.result()"
)


@pytest.mark.twin("RS-5")
@pytest.mark.parametrize(
    "fault", [(BODY, ABANDON), (BODY, "    return await coro"), (SAYS, "            pass\n")]
)
def test_a_timeout_that_abandons_ignores_or_says_nothing_is_noticed(fault: tuple[str, str]) -> None:
    module = broken(fault)
    # For "late", for no timeout, or for a message that does not match.
    with pytest.raises((TimeoutError, pytest.fail.Exception, AssertionError)):
        check_timeout(module, without_a_loop)


def check_its_own_timeouts_keep_their_words(module: ModuleType, way: Call) -> None:
    own = TimeoutError()

    async def inner() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    async def in_the_clean_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise own

    with pytest.raises(TimeoutError, match=r"^$"):
        way(module, inner, timeout=60)
    with pytest.raises(TimeoutError, match=r"^$") as caught:
        way(module, in_the_clean_up, timeout=0)
    assert caught.value is own


@pytest.mark.guarantee("RS-1", "RS-5")
@both_ways
def test_the_coroutines_own_timeouts_keep_their_words(way: Call) -> None:
    check_its_own_timeouts_keep_their_words(component, way)


@pytest.mark.twin("RS-1", "RS-5")
@pytest.mark.parametrize(
    "fault",
    [
        ("scope.expired() and isinstance", "isinstance"),
        (" and isinstance(error.__cause__, asyncio.CancelledError):", ":"),
    ],
    ids=["an inner one", "one of the clean-up"],
)
def test_a_timeout_that_puts_words_into_anothers_mouth_is_noticed(fault: tuple[str, str]) -> None:
    with pytest.raises(AssertionError):
        check_its_own_timeouts_keep_their_words(broken(fault), without_a_loop)


@both_ways
@pytest.mark.parametrize("timeout", [None, 60, 60.0, math.inf, 10**400, threading.TIMEOUT_MAX])
def test_a_timeout_that_is_not_reached_changes_nothing(way: Call, timeout: float | None) -> None:
    assert way(component, answer, timeout=timeout) == 42


def test_without_a_wait_no_timeout_is_seen() -> None:
    async def busy() -> str:
        return "done"

    assert run_sync(busy(), timeout=0) == "done"


def check_interrupts(module: ModuleType, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """KeyboardInterrupt in the thread that waits, each time that the coroutine waits again."""
    waits = [threading.Event() for _ in range(times)]
    left, log, helpers, jobs = threading.Event(), [], [], []
    wait_for, stop = module._Helper._wait_for, module._Helper.stop

    def interrupted(helper: Any, job: Any) -> None:
        helpers.append(helper)
        jobs.append(job)
        if len(jobs) <= times:
            assert waits[len(jobs) - 1].wait(60)
            raise KeyboardInterrupt
        left.set()
        wait_for(helper, job)

    def stopped(helper: Any) -> None:
        left.set()
        stop(helper)

    monkeypatch.setattr(module._Helper, "_wait_for", interrupted)
    monkeypatch.setattr(module._Helper, "stop", stopped)

    async def work() -> None:
        for wait in waits:
            wait.set()
            try:
                while not left.is_set():
                    await asyncio.sleep(0)
                for _ in range(3):  # a cancellation that was posted before arrives
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                log.append("cancelled")
            else:
                log.append("went on")
        await asyncio.sleep(0)
        log.append("cleaned up")

    try:
        with pytest.raises(KeyboardInterrupt):
            within_a_loop(module, work)
        assert log == ["cancelled"] * times + ["cleaned up"], "it was left running"
        assert set(jobs) == {jobs[0]}
        assert not helpers[0]._thread.is_alive()
    finally:
        helpers[0].stop()


@pytest.mark.guarantee("RS-5")
@pytest.mark.parametrize("times", [1, 2, 5])
def test_each_interrupt_of_the_wait_cancels_once_and_the_clean_up_is_awaited(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_interrupts(component, monkeypatch, times)


@pytest.mark.twin("RS-5")
@pytest.mark.parametrize(
    ("times", "fault"),
    [
        (1, ("            waiting = True\n", "            raise\n            waiting = True\n")),
        (1, ("                self._cancel()\n", "                pass\n")),
        (2, ("            self._begun = True\n", "")),
    ],
    ids=["left running", "waited for, not cancelled", "the second leaves it"],
)
def test_an_interrupt_that_leaves_it_running_is_noticed(
    times: int, fault: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = broken(fault)
    with pytest.raises(AssertionError, match="left running"):
        check_interrupts(module, monkeypatch, times)


def check_an_interrupt_before(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper comes to the job when its caller has been interrupted."""
    given_up, began, still_to_come = threading.Event(), [], []

    class Late(module._Job):  # type: ignore[misc, name-defined]
        def run(self) -> None:
            assert given_up.wait(60)
            super().run()

        def interrupt(self) -> bool:
            still_to_come.append(bool(super().interrupt()))
            given_up.set()
            return still_to_come[-1]

    def interrupted(helper: Any, job: Any) -> None:
        raise KeyboardInterrupt

    async def work() -> None:
        began.append(True)

    monkeypatch.setattr(module, "_Job", Late)
    monkeypatch.setattr(module._Helper, "_wait_for", interrupted)
    coro = work()
    with pytest.raises(KeyboardInterrupt):
        within_a_loop(module, lambda: coro)
    assert not began, "it began"
    assert still_to_come == [False], "its end was waited for"
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    assert module._helpers._things == []


@pytest.mark.guarantee("RS-5")
def test_an_interrupt_before_it_has_begun_never_begins_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_an_interrupt_before(component, monkeypatch)


@pytest.mark.twin("RS-5")
def test_a_coroutine_that_begins_without_a_caller_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = broken(("            self._given_up = True\n", ""))
    with pytest.raises(AssertionError, match="it began"):
        check_an_interrupt_before(module, monkeypatch)


SIGINT = """
    import asyncio, signal, threading
    from reference_impl.bridges.run_sync import run_sync

    log, seen, main_thread = [], threading.Event(), threading.main_thread().ident

    def press_ctrl_c(seen):
        # A signal can be missed where it comes just before a wait: so press again.
        while not seen.is_set():
            signal.pthread_kill(main_thread, signal.SIGINT)
            seen.wait(1)

    async def work():
        presser = threading.Thread(target=press_ctrl_c, args=(seen,))
        presser.start()
        try:
            await asyncio.Event().wait()
        finally:
            seen.set()
            presser.join()
            await asyncio.sleep(0)
            log.append("cleaned up")

    async def main():
        run_sync(work())
"""


@pytest.mark.guarantee("RS-5")
@pytest.mark.parametrize(
    "call",
    ["run_sync(work())", "asyncio.new_event_loop().run_until_complete(main())"],
    ids=["no loop", "in a loop"],
)
def test_ctrl_c_cancels_and_awaits_the_clean_up(call: str) -> None:
    run_python(
        SIGINT
        + f"""
    try:
        {call}
    except KeyboardInterrupt:
        assert log == ["cleaned up"], log
    else:
        raise AssertionError("no KeyboardInterrupt")
    import gc, warnings
    warnings.simplefilter("ignore", ResourceWarning)  # of our own loop
    gc.collect()
    """
    )


@pytest.mark.guarantee("RS-5")
def test_a_second_ctrl_c_cancels_the_clean_up() -> None:
    run_python(
        SIGINT
        + """
    async def stubborn():
        try:
            await work()
        finally:
            again = threading.Event()
            presser = threading.Thread(target=press_ctrl_c, args=(again,))
            presser.start()
            try:
                await asyncio.Event().wait()
            finally:
                again.set()
                presser.join()
                log.append("gave up")

    async def main():
        run_sync(stubborn())

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
    except KeyboardInterrupt:
        assert log == ["cleaned up", "gave up"], log
    else:
        raise AssertionError("no KeyboardInterrupt")
    loop.close()
    """
    )


def test_under_asyncio_run_the_first_ctrl_c_only_schedules_a_cancellation() -> None:
    """So a blocking call goes on for its full time: the page says so."""
    run_python(
        SIGINT
        + """
    async def work():
        presser = threading.Thread(target=press_ctrl_c, args=(seen,))
        presser.start()
        await asyncio.to_thread(seen.wait)
        presser.join()
        log.append("went on to its end")

    async def main():
        theirs = signal.getsignal(signal.SIGINT)

        def note(*arguments):
            if not seen.is_set():
                seen.set()
                theirs(*arguments)

        signal.signal(signal.SIGINT, note)
        run_sync(work())
        signal.signal(signal.SIGINT, theirs)
        await asyncio.sleep(0)
        log.append("not reached")

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        assert log == ["went on to its end"], log
    else:
        raise AssertionError("no KeyboardInterrupt")
    """
    )


@pytest.mark.guarantee("RS-5")
def test_under_asyncio_run_the_second_ctrl_c_cancels_and_awaits_the_clean_up() -> None:
    run_python(
        SIGINT
        + """
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        assert log == ["cleaned up"], log
    else:
        raise AssertionError("no KeyboardInterrupt")
    """
    )


@pytest.mark.guarantee("RS-1", "RS-5")
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


# RS-6: bad input.


async def numbers() -> AsyncIterator[int]:
    yield 1


@pytest.mark.guarantee("RS-6")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (answer, r"not the function <function answer at .*>: call answer\(\.\.\.\)"),
        (asyncio.Event().wait, r"call wait\(\.\.\.\)"),
        (functools.partial(answer), r"the function functools.partial.*: call function\(\.\.\.\)"),
        (numbers(), "not <async_generator object numbers"),
        ((number for number in [1]), "what an `async def` returns, not <generator"),
        (42, "not 42"),
        (None, "not None"),
    ],
    ids=["function", "method", "partial", "async generator", "generator", "int", "none"],
)
@both_ways
def test_what_is_no_coroutine_is_refused(way: Call, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"coro must be a coroutine.*{message}"):
        way(component, lambda: value)
    assert component._loops._things == []


@pytest.mark.guarantee("RS-6")
def test_a_future_is_refused_and_left_alone() -> None:
    async def main() -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        with pytest.raises(TypeError, match="not <Future pending>: await it in the loop it is of"):
            run_sync(future)  # type: ignore[arg-type]
        assert not future.done()

    asyncio.run(main())


def check_refusal(module: ModuleType, way: Call, timeout: Any, error: type, text: str) -> None:
    coro = answer()
    with pytest.raises(error, match=text):
        way(module, lambda: coro, timeout=timeout)
    state = inspect.getcoroutinestate(coro)
    coro.close()
    assert state == inspect.CORO_CLOSED


BAD_TIMEOUTS = [
    (-1, ValueError, "timeout must be 0 seconds or more, not -1"),
    (-0.001, ValueError, "not -0.001"),
    (-math.inf, ValueError, "not -inf"),
    (math.nan, ValueError, "not nan"),
    ("5", TypeError, "timeout must be a number of seconds or None, not '5'"),
    (True, TypeError, "not True"),
]


@pytest.mark.guarantee("RS-6")
@both_ways
@pytest.mark.parametrize(("timeout", "error", "text"), BAD_TIMEOUTS)
def test_a_bad_timeout_is_refused_and_the_coroutine_closed(
    way: Call, timeout: Any, error: type, text: str
) -> None:
    check_refusal(component, way, timeout, error, text)


@pytest.mark.twin("RS-6")
def test_a_refused_coroutine_that_is_not_closed_is_noticed() -> None:
    module = broken(("            coro.close()\n", "            pass\n"))
    with pytest.raises(AssertionError):
        check_refusal(module, without_a_loop, -1, ValueError, "not -1")


@pytest.mark.twin("RS-6")
def test_a_timeout_of_nan_that_is_accepted_is_noticed() -> None:
    module = broken(("not timeout >= 0", "timeout < 0"))
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_refusal(module, without_a_loop, math.nan, ValueError, "not nan")


@pytest.mark.guarantee("RS-6")
def test_a_coroutine_that_another_task_drives_is_not_closed() -> None:
    async def main() -> None:
        go_on = asyncio.Event()
        theirs = go_on.wait()
        task = asyncio.create_task(theirs)
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            run_sync(theirs)
        with pytest.raises(ValueError, match="timeout"):
            run_sync(theirs, timeout=-1)
        assert inspect.getcoroutinestate(theirs) == inspect.CORO_SUSPENDED
        go_on.set()
        await task

    asyncio.run(main())


# RS-7: nothing grows.


def usage() -> tuple[int, int]:
    return threading.active_count(), len(list(Path("/dev/fd").iterdir()))


def check_growth(module: ModuleType, calls: int, in_loop: int, callers: int) -> None:
    before = usage()
    for _ in range(calls):
        assert module.run_sync(answer()) == 42

    async def main() -> None:
        for _ in range(in_loop):
            assert module.run_sync(answer()) == 42

    within = asyncio.new_event_loop()
    within.run_until_complete(main())
    within.close()
    for _ in range(callers):
        caller = threading.Thread(target=within_a_loop, args=(module, answer))
        caller.start()
        caller.join()
    threads, descriptors = usage()
    assert threads - before[0] <= 1, "threads grow"
    assert descriptors - before[1] <= 3, "descriptors grow"


@pytest.mark.guarantee("RS-7")
def test_ten_thousand_calls_and_two_hundred_short_lived_threads_leave_nothing() -> None:
    check_growth(component, 10_000, 2_000, 200)


@pytest.mark.twin("RS-7")
@pytest.mark.parametrize(
    "fault",
    [
        ("loops.take() or Context()", "Context()"),
        ("_helpers.take() or _Helper()", "_Helper()"),
    ],
)
def test_growth_is_noticed(fault: tuple[str, str]) -> None:
    module = broken(fault)
    with pytest.raises(AssertionError, match="grow"):
        check_growth(module, 5, 5, 0)


def check_at_most_eight(module: ModuleType) -> None:
    before = usage()
    within_a_loop(module, lambda: nest(module, 30))
    threads, descriptors = usage()
    assert threads - before[0] <= 8, "more than 8 threads kept"
    assert descriptors - before[1] <= 8 * 3, "more than 8 loops kept"


@pytest.mark.guarantee("RS-7")
def test_at_most_eight_idle_threads_and_loops_are_kept() -> None:
    check_at_most_eight(component)


@pytest.mark.twin("RS-7")
@pytest.mark.parametrize(("kind", "other"), [("_helpers", "_loops"), ("_loops", "_helpers")])
def test_more_than_eight_are_noticed(kind: str, other: str) -> None:
    module = broken(("len(self._things) >= _KEPT", f"(self is {other} and len(self._things) >= 8)"))
    with pytest.raises(AssertionError, match="more than 8"):
        check_at_most_eight(module)


class Payload:
    pass


payload_of: contextvars.ContextVar[Payload] = contextvars.ContextVar("payload_of")


def check_nothing_is_kept_alive(module: ModuleType, way: Call) -> None:
    """No argument, no result, and no context, though the loop and thread are new."""

    async def work(payload: Payload) -> Payload:
        payload_of.set(Payload())
        return payload

    def call() -> "list[weakref.ref[Payload]]":
        before, argument = Payload(), Payload()
        payload_of.set(before)
        result = way(module, lambda: work(argument))
        return [weakref.ref(before), weakref.ref(result)]

    gc.collect()
    gc.disable()
    try:
        references = contextvars.copy_context().run(call)
        assert [reference() for reference in references] == [None, None], "kept alive"
    finally:
        gc.enable()


@pytest.mark.guarantee("RS-7")
@both_ways
def test_an_idle_thread_and_loop_keep_nothing_of_the_last_call(way: Call) -> None:
    check_nothing_is_kept_alive(component, way)


@pytest.mark.twin("RS-7")
@pytest.mark.parametrize(
    ("way", "fault"),
    [
        (without_a_loop, ("Context().run(_Loop)", "_Loop()")),
        (within_a_loop, ("            del job  #", "            #")),
    ],
)
def test_something_that_is_kept_alive_is_noticed(way: Call, fault: tuple[str, str]) -> None:
    module = broken(fault)
    with pytest.raises(AssertionError, match="kept alive"):
        check_nothing_is_kept_alive(module, way)


FORK = """
    import asyncio, os, threading
    from pathlib import Path
    {load}

    async def answer():
        return 42

    async def both_ways():
        return run_sync(answer()), run_sync(answer(), timeout=60)

    def descriptors():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    assert run_sync(both_ways()) == (42, 42)
    child = os.fork()  # with -W error, and so an error from 3.12 on while a thread is idle
    assert threading.active_count() == 1
    assert descriptors() == before
    assert run_sync(both_ways()) == (42, 42)
    assert threading.active_count() == 2  # kept again, in both
    if child:
        assert os.waitpid(child, 0)[1] == 0
"""
IMPORT = "from reference_impl.bridges.run_sync import run_sync"


@pytest.mark.guarantee("RS-7")
def test_a_fork_after_use_finds_nothing_open_and_both_go_on() -> None:
    run_python(FORK.format(load=IMPORT))


def load_twin(*faults: tuple[str, str]) -> str:
    return (
        "from tests.kit.twins import twin\n"
        f"    run_sync = twin('bridges/run_sync.py', *{faults!r}).run_sync"
    )


@pytest.mark.twin("RS-7")
@pytest.mark.parametrize(
    "faults",
    [
        [("before=_close_idle, ", ""), ("after_in_parent=_reopen, ", "")],
        [("after_in_parent=_reopen, ", "")],
        [("after_in_child=_start_anew", "after_in_child=lambda: None")],
    ],
    ids=["not closed", "not opened again", "closed in the child"],
)
def test_a_fork_that_goes_wrong_is_noticed(faults: list[tuple[str, str]]) -> None:
    failed = run_python(FORK.format(load=load_twin(*faults)), expect=1)
    assert "AssertionError" in failed.stderr or "multi-threaded" in failed.stderr


FORK_INSIDE = """
    import asyncio, faulthandler, os, sys, threading
    {load}

    main = threading.main_thread().ident

    def wait(child):
        status = os.waitpid(child, 0)[1]
        while sys._current_frames()[main].f_code.co_name != "select":
            pass  # until the loop sleeps, and needs the descriptors that it shares to wake up
        return status

    async def fork():
        child = os.fork()
        if child:
            faulthandler.dump_traceback_later({deadline}, exit=True)
            assert await asyncio.to_thread(wait, child) == 0
        return child

    child = run_sync(fork())
    if not child:
        assert run_sync(asyncio.sleep(0, "in the child")) == "in the child"
        os._exit(0)
    assert run_sync(asyncio.sleep(0, "in the parent")) == "in the parent"
"""


@pytest.mark.guarantee("RS-7")
def test_a_fork_inside_a_coroutine_does_the_parent_no_harm() -> None:
    """The child returns from run_sync; the parent's loop can still be woken by a thread."""
    run_python(FORK_INSIDE.format(load=IMPORT, deadline=60))


@pytest.mark.twin("RS-7")
def test_an_inherited_loop_that_is_closed_is_noticed() -> None:
    load = load_twin(("if os.getpid() == self._pid:", "if True:"))
    failed = run_python(FORK_INSIDE.format(load=load, deadline=3), expect=1)
    assert "Timeout" in failed.stderr


@pytest.mark.guarantee("RS-7")
def test_a_fork_during_another_threads_call_leaves_the_child_usable() -> None:
    run_python("""
        import asyncio, os, threading, warnings
        from reference_impl.bridges.run_sync import run_sync

        warnings.simplefilter("ignore", DeprecationWarning)  # a thread is there on purpose
        began, go_on, results = threading.Event(), threading.Event(), []

        async def wait():
            began.set()
            return await asyncio.to_thread(go_on.wait)

        async def main():
            results.append(run_sync(wait()))

        caller = threading.Thread(target=lambda: asyncio.run(main()))
        caller.start()
        began.wait()
        child = os.fork()
        if not child:
            run_sync(asyncio.sleep(0))

            async def nested():
                return run_sync(asyncio.sleep(0, 42))

            os._exit(run_sync(nested()) - 42)
        assert os.waitpid(child, 0)[1] == 0
        go_on.set()
        caller.join()
        assert results == [True]
    """)


def idle() -> tuple[int, int]:
    return len(component._loops._things), len(component._helpers._things)


@pytest.mark.guarantee("RS-7")
def test_a_fork_during_another_or_after_the_exit_does_not_open_the_shelves() -> None:
    """As many have to open them as have closed them; calls work meanwhile."""
    component._close_idle()
    component._close_idle()
    assert run_sync(nest(component, 1)) == 1
    component._reopen()
    assert run_sync(nest(component, 1)) == 1
    assert idle() == (0, 0)
    component._reopen()
    assert run_sync(nest(component, 1)) == 1
    assert idle() == (2, 1)


@pytest.mark.guarantee("RS-7")
def test_a_childs_shelves_are_new_and_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fork's hooks do in the child, whose parent's threads may hold the locks."""
    with monkeypatch.context() as patch, component._loops._lock, component._helpers._lock:
        for name in ("_loops", "_helpers"):
            patch.setattr(component, name, None)  # to be put back
        component._start_anew()
        assert idle() == (0, 0)
        assert run_sync(nest(component, 1)) == 1
        assert idle() == (2, 1)
        component._close_idle()


@pytest.mark.guarantee("RS-7")
def test_a_loop_that_another_process_made_is_neither_closed_nor_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Either would unregister the descriptors of the parent, which has them, too."""
    references: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def become_a_child() -> None:
        references.append(weakref.ref(asyncio.get_running_loop()))
        monkeypatch.setattr(component, "os", SimpleNamespace(getpid=lambda: -1))

    run_sync(become_a_child())
    monkeypatch.undo()
    gc.collect()
    loop = references[0]()
    assert loop is not None
    assert not loop.is_closed()
    component._abandoned.pop().close()
    assert loop.is_closed()


EXIT = """
    import atexit, os, threading

    def usage():
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    before = usage()

    @atexit.register
    def check():  # registered first, so run last
        print("closed" if usage() == before else "left open")

    {load}

    async def nest(depth):
        return 0 if depth == 0 else 1 + run_sync(nest(depth - 1))

    assert run_sync(nest(9)) == 9
    assert usage() != before
"""


@pytest.mark.guarantee("RS-7")
def test_the_exit_closes_what_is_idle() -> None:
    done = run_python(EXIT.format(load=IMPORT))
    assert (done.stdout, done.stderr) == ("closed\n", "")


@pytest.mark.twin("RS-7")
def test_an_exit_that_leaves_loops_open_is_noticed() -> None:
    load = load_twin(("atexit.register(_close_idle)", ""))
    assert run_python(EXIT.format(load=load)).stdout == "left open\n"


@pytest.mark.guarantee("RS-7", "RS-2")
def test_a_call_after_the_exit_hook_works_or_raises() -> None:
    done = run_python("""
        import asyncio, atexit

        async def answer():
            return 42

        async def nested():
            return run_sync(answer())

        @atexit.register
        def late():  # registered first, so run last
            assert run_sync(answer()) == 42
            try:
                assert run_sync(nested()) == 42
            except RuntimeError as error:
                assert "needs another thread" in str(error)
            print("late")

        from reference_impl.bridges.run_sync import run_sync
        assert run_sync(nested()) == 42
    """)
    assert (done.stdout, done.stderr) == ("late\n", "")
