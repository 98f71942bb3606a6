"""Bridges that each break one expectation, and one that breaks none."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from peers.adapters.bridges import Bridge, Function


def _in_thread(work: Callable[[], Any], *, daemon: bool = True) -> "Future[Any]":
    """Do it in a new thread, in a copy of this one's context."""
    future: Future[Any] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=daemon).start()
    return future


class Sound(Bridge):
    """asyncio.run, which refuses to be called below a loop."""

    name = "sound"
    documented = ""
    take_it = ""

    @staticmethod
    def call(function: Function) -> Any:
        return asyncio.run(function())

    @staticmethod
    def timed(function: Function, seconds: float) -> Any:
        return asyncio.run(asyncio.wait_for(function(), seconds))


class Once(Sound):
    """The second call gets nothing."""

    done: threading.Event = threading.Event()

    @staticmethod
    def call(function: Function) -> Any:
        if not Once.done.is_set():
            Once.done.set()
            return asyncio.run(function())
        return None


class MainThreadAlone(Sound):
    """Elsewhere it waits for the main thread to do it."""

    @staticmethod
    def call(function: Function) -> Any:
        if threading.current_thread() is not threading.main_thread():
            threading.Event().wait()
        return asyncio.run(function())


class WaitsForTheLoop(Sound):
    """It has the coroutine run on the caller's loop, and blocks that loop meanwhile."""

    @staticmethod
    def call(function: Function) -> Any:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(function())
        return asyncio.run_coroutine_threadsafe(function(), loop).result()


class ElseWhere(Sound):
    """A loop in a new thread for each call, below a loop or not."""

    @staticmethod
    def call(function: Function) -> Any:
        return _in_thread(lambda: asyncio.run(function())).result()


class OneAtATime(Sound):
    """A lock around each call, below a loop or not."""

    lock = threading.Lock()

    @staticmethod
    def call(function: Function) -> Any:
        with OneAtATime.lock:
            return ElseWhere.call(function)


class OneForAll(Sound):
    """Callers at the same time share the place of the result."""

    result: Any = None

    @staticmethod
    def call(function: Function) -> Any:
        OneForAll.result = None
        asyncio.run(OneForAll.keep(function))
        return OneForAll.result

    @staticmethod
    async def keep(function: Function) -> None:
        OneForAll.result = await function()
        await asyncio.sleep(0.5)


class Wraps(Sound):
    """It raises an exception of its own in place of the coroutine's."""

    @staticmethod
    def call(function: Function) -> Any:
        try:
            return asyncio.run(function())
        except Exception as error:
            raise ValueError(str(error)) from error


class Exceptions(Sound):
    """It passes on what is an Exception, and waits for a result otherwise."""

    @staticmethod
    def call(function: Function) -> Any:
        future: Future[Any] = Future()

        def run() -> None:
            with contextlib.suppress(SystemExit):
                future.set_result(asyncio.run(function()))

        _in_thread(run)
        return future.result()


class OwnContext(Sound):
    """The coroutine runs in an empty context."""

    @staticmethod
    def call(function: Function) -> Any:
        return contextvars.Context().run(lambda: asyncio.run(function()))


class LeftRunning(Sound):
    """An interrupted caller leaves the coroutine to its thread; so does a late one."""

    @staticmethod
    def call(function: Function) -> Any:
        return ElseWhere.call(function)

    @staticmethod
    def timed(function: Function, seconds: float) -> Any:
        return _in_thread(lambda: asyncio.run(function())).result(seconds)


class LoopKept(Sound):
    """One loop, which stands still between the calls."""

    loop: Any = None

    @staticmethod
    def call(function: Function) -> Any:
        LoopKept.loop = LoopKept.loop or asyncio.new_event_loop()
        return LoopKept.loop.run_until_complete(function())


class LoopsKept(Sound):
    """A loop for each call, none of which is closed."""

    loops: tuple[Any, ...] = ()

    @staticmethod
    def call(function: Function) -> Any:
        loop = asyncio.new_event_loop()
        LoopsKept.loops += (loop,)
        return loop.run_until_complete(function())


class ThreadKept(Sound):
    """A loop in a thread, which a forked child does not have."""

    loop: Any = None

    @staticmethod
    def call(function: Function) -> Any:
        if ThreadKept.loop is None:
            ThreadKept.loop = asyncio.new_event_loop()
            threading.Thread(target=ThreadKept.loop.run_forever, daemon=True).start()
        return asyncio.run_coroutine_threadsafe(function(), ThreadKept.loop).result()


SOUND = Sound
CONTROLS = {
    "adapter_sound": Once,
    "plain_thread": MainThreadAlone,
    "within_loop": WaitsForTheLoop,
    "loop_goes_on": ElseWhere,
    "nested": OneAtATime,
    "many_threads": OneForAll,
    "exception": Wraps,
    "system_exit": Exceptions,
    "context_in": OwnContext,
    "ctrl_c": LeftRunning,
    "background_task": LoopKept,
    "threads_left": LoopsKept,
    "timeout": LeftRunning,
    "callers_lock": ElseWhere,
    "fork": ThreadKept,
}
