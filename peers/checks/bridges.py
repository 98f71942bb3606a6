"""What one expects of a call into a coroutine from plain code."""

import asyncio
import contextvars
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.adapters.bridges import Bridge
from peers.checks import Family
from peers.outcomes import DoesNotHold, Holds, NotOffered, once, settle

FAMILY = Family("bridges", "Async code from sync code")

_SEEN: contextvars.ContextVar[str] = contextvars.ContextVar("_SEEN", default="nothing")
_PATIENCE = 5.0


async def _answer() -> int:
    await asyncio.sleep(0.01)
    return 42


def _bounded(what: str, plain: Callable[[], Any], deadline: float = _PATIENCE) -> Any:
    """What it returns or raises, in a thread; a failure if it does not end."""
    (got,), hanging = settle(plain, deadline=deadline)
    if hanging:
        raise DoesNotHold(f"{what} has not returned after {deadline:g} s")
    if isinstance(got, NotOffered):
        raise got
    return got


def _program(row: type[Bridge], what: str, plain: Callable[[], Any]) -> Any:
    """As `_bounded`, in a program as the library lays it out."""
    return _bounded(what, lambda: row.program(plain))


def _wait_until(true: Callable[[], bool], seconds: float = 3.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _told(value: Any) -> str:
    """An exception with its words, what else by itself."""
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"[:160]
    return repr(value)


@FAMILY.check("The adapter works")
def adapter_sound(row: type[Bridge]) -> Holds:
    """In a program laid out for it, a call returns what the coroutine returns, again and again.

    The other cells of a row mean something only if this one holds.
    """

    def plain() -> list[Any]:
        got = [row.call(_answer) for _ in range(3)]
        try:
            got.append(row.timed(_answer, 5))
        except NotOffered:
            got.append(42)
        return got

    got = _program(row, "four calls", plain)
    if got != [42] * 4:
        raise DoesNotHold(f"four calls got {_told(got)}")
    return once("four calls got the coroutine's result")


@FAMILY.check(
    "From plain code",
    uses=("call",),
    reproduction="""
import asyncio
import threading
async def answer():
    await asyncio.sleep(0.01)
    return 42
got = []
thread = threading.Thread(target=lambda: got.append(call(answer)), daemon=True)
thread.start()
thread.join(5)
assert got == [42], f"a call in a plain thread got {got}"
""",
)
def plain_thread(row: type[Bridge]) -> Holds:
    """A call works in any thread of a program that knows nothing of asyncio.

    That is where plain code lives: scripts, callbacks, threads of a framework.
    """
    got = _bounded("a call in a plain thread", lambda: row.call(_answer))
    if isinstance(got, RuntimeError):
        raise NotOffered(f"refused: {_told(got)}")
    if got != 42:
        raise DoesNotHold(f"a call in a plain thread got {_told(got)}")
    return once("it returned the coroutine's result")


@FAMILY.check(
    "Below a running loop",
    plain=True,
    uses=("call",),
    reproduction="""
import asyncio
import threading
async def answer():
    await asyncio.sleep(0.01)
    return 42
got = []
async def main():
    got.append(call(answer))
thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
thread.start()
thread.join(5)
assert got == [42], f"a call from plain code that a running loop had called got {got}"
""",
)
def within_loop(row: type[Bridge]) -> Holds:
    """Plain code that a coroutine has called can make a call, or is refused, and never hangs.

    Libraries cannot know whether a loop runs above them: in a notebook or a web server one does.
    """
    got = _bounded("a call below a running loop", lambda: row.within(lambda: row.call(_answer)))
    if isinstance(got, RuntimeError):
        raise NotOffered(f"refused: {_told(got)}")
    if got != 42:
        raise DoesNotHold(f"a call below a running loop got {_told(got)}")
    return once("it returned the coroutine's result")


@FAMILY.check(
    "The caller's loop goes on",
    uses=("call",),
    reproduction="""
import asyncio
turns = []
async def tick():
    while True:
        await asyncio.sleep(0.05)
        turns.append(1)
async def wait():
    await asyncio.sleep(1)
async def main():
    ticking = asyncio.create_task(tick())
    call(wait)
asyncio.run(main())
assert len(turns) > 2, f"during a call of 1 s another task of the loop made {len(turns)} turns"
""",
)
def loop_goes_on(row: type[Bridge]) -> Holds:
    """While the call waits, the other tasks of the caller's loop go on.

    Otherwise one slow call holds up every request that the loop serves.
    """
    turns: list[int] = []

    def plain() -> None:
        async def tick() -> None:
            while True:
                await asyncio.sleep(0.05)
                turns.append(1)

        async def wait() -> None:
            await asyncio.sleep(1)

        ticking = asyncio.ensure_future(tick())
        try:
            row.call(wait)
        finally:
            ticking.cancel()

    got = _bounded("a call below a running loop", lambda: row.within(plain))
    if isinstance(got, RuntimeError):
        raise NotOffered(f"refused: {_told(got)}")
    if got is not None:
        raise DoesNotHold(f"a call below a running loop got {_told(got)}")
    if len(turns) < 3:
        raise DoesNotHold(
            f"during a call of 1 s another task of the loop made {len(turns)} turns of 0.05 s"
        )
    return once("another task of the loop made its turns during the call")


@FAMILY.check(
    "A call within a call",
    plain=True,
    uses=("call", "program"),
    reproduction="""
import asyncio
import threading
async def nested(depth=3):
    await asyncio.sleep(0.01)
    return 1 + call(lambda: nested(depth - 1)) if depth else 0
got = []
def plain():
    got.append(call(nested))
thread = threading.Thread(target=lambda: program(plain), daemon=True)
thread.start()
thread.join(5)
assert got == [3], f"a call in a call, three deep, got {got}"
""",
)
def nested(row: type[Bridge]) -> Holds:
    """A coroutine that was called from plain code can call plain code that makes a call.

    So it is when one library built like this uses another one.
    """

    async def nest(depth: int) -> int:
        await asyncio.sleep(0.01)
        below: int = row.call(lambda: nest(depth - 1)) + 1 if depth else 0
        return below

    got = _program(row, "a call in a call", lambda: row.call(lambda: nest(3)))
    if isinstance(got, RuntimeError):
        raise NotOffered(f"refused: {_told(got)}")
    if got != 3:
        raise DoesNotHold(f"a call in a call, three deep, got {_told(got)}")
    return once("three deep")


@FAMILY.check(
    "From many threads at once",
    plain=True,
    uses=("call",),
    reproduction="""
import asyncio
import threading
async def answer():
    await asyncio.sleep(0.2)
    return 42
got = []
ask = lambda: got.append(call(answer))
threads = [threading.Thread(target=ask, daemon=True) for _ in range(40)]
for thread in threads: thread.start()
for thread in threads: thread.join(5)
assert got == [42] * 40, f"forty threads made a call each, {got.count(42)} got its result"
""",
)
def many_threads(row: type[Bridge]) -> Holds:
    """Forty threads make a call each at the same time, and each gets its own result.

    A bridge with a bounded pool, or one loop that is not made for threads, shows itself here.
    """

    def one(number: int) -> Any:
        async def answer() -> int:
            await asyncio.sleep(0.2)
            return number

        return row.call(answer)

    got, hanging = settle(*[lambda n=n: one(n) for n in range(40)], deadline=15)
    if hanging:
        raise DoesNotHold(f"{hanging} of 40 calls have not returned after 15 s")
    if all(isinstance(each, RuntimeError) for each in got):
        raise NotOffered(f"refused: {_told(got[0])}")
    if got != list(range(40)):
        wrong = [each for number, each in enumerate(got) if each != number]
        raise DoesNotHold(f"{len(wrong)} of 40 calls got something else, as {_told(wrong[0])}")
    return once("40 threads, each with its own result")


@FAMILY.check(
    "The very exception",
    uses=("call", "program"),
    reproduction="""
import asyncio
error = ValueError("no report")
async def fail():
    raise error
got = []
def plain():
    try: call(fail)
    except BaseException as raised: got.append(raised)
program(plain)
assert got == [error], f"the coroutine raised {error!r}, the caller got {got}"
""",
)
def exception(row: type[Bridge]) -> Holds:
    """What the coroutine raises, the call raises: the same object.

    Handlers for its type, its attributes and its traceback are of use only then.
    """
    error = ValueError("no report")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    got = _program(row, "a call of a failing coroutine", lambda: row.call(fail))
    if got is not error:
        raise DoesNotHold(f"the coroutine raised {_told(error)}, the caller got {_told(got)}")
    return once("the same object")


@FAMILY.check(
    "SystemExit comes out",
    uses=("call", "program"),
    reproduction="""
import asyncio
import threading
async def leave():
    raise SystemExit(3)
got = []
def plain():
    try: got.append(call(leave))
    except SystemExit as raised: got.append(raised.code)
thread = threading.Thread(target=lambda: program(plain), daemon=True)
thread.start()
thread.join(5)
assert got == [3], f"the coroutine raised SystemExit(3), the caller got {got or 'nothing'}"
""",
)
def system_exit(row: type[Bridge]) -> Holds:
    """A coroutine that calls sys.exit ends the call with that SystemExit.

    Command line programs do so deep inside, and would otherwise hang or go on.
    """

    async def leave() -> None:
        await asyncio.sleep(0)
        raise SystemExit(3)

    def plain() -> Any:
        try:
            return row.call(leave)
        except SystemExit as raised:
            return ("exit", raised.code)

    got = _program(row, "a call of a coroutine that exits", plain)
    if isinstance(got, SystemExit):  # past the plain code, which asked for it
        raise DoesNotHold("SystemExit did not come out of the call, but out of the loop above it")
    if got != ("exit", 3):
        raise DoesNotHold(f"the coroutine raised SystemExit(3), the caller got {_told(got)}")
    return once("SystemExit(3) came out of the call")


@FAMILY.check(
    "It sees the caller's context",
    uses=("call", "program"),
    reproduction="""
import contextvars
request = contextvars.ContextVar("request", default="nothing")
async def read():
    return request.get()
got = []
def plain():
    request.set("request 7")
    got.append(call(read))
program(plain)
assert got == ["request 7"], f"the caller's context variable was set, the coroutine saw {got}"
""",
)
def context_in(row: type[Bridge]) -> Holds:
    """The coroutine sees the context variables of its caller.

    Request numbers in logs, tenants and tracing travel in them.
    """

    async def read() -> str:
        return _SEEN.get()

    def plain() -> Any:
        _SEEN.set("request 7")
        return row.call(read)

    got = _program(row, "a call", plain)
    if got != "request 7":
        raise DoesNotHold(f"the caller had set 'request 7', the coroutine saw {_told(got)}")
    return once("it saw the value that its caller had set")


class _Stuck(BaseException):
    """Raised in the main thread when it must go on."""


@FAMILY.check(
    "Ctrl-C",
    plain=True,
    uses=("call", "program"),
    reproduction="""
import asyncio
import os
import signal
import threading
import time
log = []
async def work():
    try: await asyncio.sleep(8)
    finally: log.append("cleaned up")
threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
try: program(lambda: call(work))
except KeyboardInterrupt: log.append("interrupted")
time.sleep(2)
assert sorted(log) == ["cleaned up", "interrupted"], f"2 s after Ctrl-C: {log}"
""",
)
def ctrl_c(row: type[Bridge]) -> Holds:
    """On Ctrl-C the coroutine's clean-up runs, and KeyboardInterrupt comes out of the call.

    Otherwise the transaction is left open, or the program cannot be stopped.
    """
    log: list[str] = []
    began = threading.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.sleep(20)
            log.append("ran to its end")
        finally:
            log.append("cleaned up")

    def interrupt() -> None:
        if began.wait(10):
            time.sleep(0.5)  # until the call waits
            os.kill(os.getpid(), signal.SIGINT)

    def stuck(*_: object) -> None:
        raise _Stuck

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, stuck)
    threading.Thread(target=interrupt, daemon=True).start()
    signal.setitimer(signal.ITIMER_REAL, 12)
    try:
        came_out = _told(row.program(lambda: row.call(work)))
    except _Stuck:
        raise DoesNotHold(f"the call has not returned 10 s after Ctrl-C ({log})") from None
    except BaseException as error:
        came_out = type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if came_out != "KeyboardInterrupt":
        raise DoesNotHold(f"on Ctrl-C {came_out} came out of the call ({log})")
    if not _wait_until(lambda: "cleaned up" in log):
        raise DoesNotHold(
            "KeyboardInterrupt came out, and 3 s later the coroutine still ran, not cancelled"
        )
    return once("KeyboardInterrupt came out, and the clean-up ran")


@FAMILY.check(
    "A task that is left behind",
    uses=("call",),
    # Of nest_asyncio, whose behaviour nest-asyncio2 says to follow.
    reports={"nest_asyncio2": "https://github.com/erdewit/nest_asyncio/pull/79"},
    reproduction="""
import asyncio
import time
log, tasks = [], []
async def linger():
    try:
        while True: log.append(await asyncio.sleep(0.05, "turn"))
    finally: log.append("ended")
async def work():
    tasks.append(asyncio.ensure_future(linger()))
    await asyncio.sleep(0.01)
call(work)
before = len(log)
time.sleep(2)
assert "ended" in log or len(log) > before, "2 s after the call its task neither ended nor went on"
""",
)
def background_task(row: type[Bridge]) -> Holds:
    """A task that the coroutine leaves behind is ended with the call, or goes on.

    One that does neither holds its connection open, and its clean-up never runs.
    """
    turns: list[int] = []
    ended = threading.Event()
    tasks: list[Any] = []

    async def linger() -> None:
        try:
            while True:
                await asyncio.sleep(0.05)
                turns.append(1)
        finally:
            ended.set()

    async def work() -> None:
        tasks.append(asyncio.ensure_future(linger()))
        await asyncio.sleep(0.01)

    def plain() -> str:
        row.call(work)
        time.sleep(0.2)
        return "ended with the call" if ended.is_set() else ""

    got = _program(row, "a call", plain)
    if got:
        return once(got)
    before = len(turns)
    if _wait_until(lambda: ended.is_set() or len(turns) > before + 2):
        return once("it ended with the loop" if ended.is_set() else "it goes on")
    raise DoesNotHold("3 s after the call the task is pending, and no loop runs it")


def _left() -> tuple[int, int]:
    folder = Path("/proc/self/fd")
    return threading.active_count(), len(list(folder.iterdir())) if folder.exists() else 0


@FAMILY.check(
    "Calls leave nothing behind",
    uses=("call", "program"),
    reproduction="""
import asyncio
import os
import threading
import time
async def answer():
    await asyncio.sleep(0)
left = []
def plain():
    for _ in range(3):
        for _ in range(30): call(answer)
        time.sleep(2)
        left.append((threading.active_count(), len(os.listdir("/proc/self/fd"))))
program(plain)
assert left[2] <= left[0], f"threads and descriptors after 30, 60 and 90 calls: {left}"
""",
)
def threads_left(row: type[Bridge]) -> Holds:
    """However many calls are made, threads and descriptors do not grow in number.

    A server that makes a thousand of them an hour runs out of either by the next day.
    """

    def calls() -> None:
        for _ in range(30):
            row.call(_answer)

    def plain() -> tuple[tuple[int, int], tuple[int, int]]:
        calls()
        _wait_until(lambda: threading.active_count() <= 3)
        first = _left()
        calls()
        calls()
        _wait_until(lambda: all(now <= then for now, then in zip(_left(), first, strict=True)))
        return first, _left()

    got = _bounded("90 calls", lambda: row.program(plain), deadline=30)
    if isinstance(got, BaseException):
        raise DoesNotHold(f"90 calls got {_told(got)}")
    first, last = got
    if any(now > then for now, then in zip(last, first, strict=True)):
        raise DoesNotHold(
            f"{first[0]} threads and {first[1]} descriptors after 30 calls, "
            f"{last[0]} and {last[1]} after 90"
        )
    return once("as many threads and descriptors after 90 calls as after 30")


@FAMILY.check(
    "A call with a time limit",
    uses=("timed", "program"),
    reproduction="""
import asyncio
log = []
async def work():
    try: await asyncio.sleep(20)
    finally: log.append("cleaned up")
def plain():
    try: timed(work, 0.5)
    except TimeoutError: log.append("TimeoutError")
program(plain)
assert log == ["cleaned up", "TimeoutError"], f"a call with a limit of 0.5 s: {log}"
""",
)
def timeout(row: type[Bridge]) -> Holds:
    """A call that is given up in time raises TimeoutError, after the coroutine's clean-up.

    What still runs unseen after that holds its connection, and writes when nobody expects it.
    """
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(20)
        finally:
            log.append("cleaned up")

    def plain() -> Any:
        try:
            return row.timed(work, 0.5)
        except TimeoutError:
            return ("TimeoutError", list(log))

    got = _program(row, "a call with a limit of 0.5 s", plain)
    if got != ("TimeoutError", ["cleaned up"]):
        raise DoesNotHold(f"a call with a limit of 0.5 s: {_told(got)}")
    return once("TimeoutError, after the clean-up")


@FAMILY.check(
    "A lock that the caller holds",
    uses=("call", "program"),
    reproduction="""
import threading
lock = threading.RLock()
async def work():
    return lock.acquire(timeout=3)
def plain():
    with lock: return call(work)
assert program(plain), "the coroutine waited 3 s for an RLock that its caller holds"
""",
)
def callers_lock(row: type[Bridge]) -> Holds:
    """A coroutine may take an RLock that its caller holds, and sees its thread-local values.

    So plain code behaves; a coroutine that runs in another thread waits for its own caller.
    """
    lock = threading.RLock()
    local = threading.local()

    async def work() -> tuple[bool, str]:
        taken = lock.acquire(timeout=3)
        if taken:
            lock.release()
        return taken, getattr(local, "value", "nothing")

    def plain() -> Any:
        local.value = "the caller's"
        with lock:
            return row.call(work)

    got = _bounded("a call by the holder of an RLock", lambda: row.program(plain), deadline=10)
    if isinstance(got, BaseException):
        raise DoesNotHold(f"a call by the holder of an RLock got {_told(got)}")
    taken, value = got
    if not taken:
        raise DoesNotHold("the coroutine waited 3 s for an RLock that its caller holds")
    if value != "the caller's":
        raise DoesNotHold(f"the coroutine saw {_told(value)} in a thread-local of its caller")
    return once("the coroutine took the lock, and saw the caller's thread-local value")


@FAMILY.check(
    "In a forked child",
    uses=("call", "program"),
    reproduction="""
import asyncio
import os
import time
async def answer():
    await asyncio.sleep(0.01)
    return 42
program(lambda: call(answer))
child = os.fork()
if child == 0:
    os._exit(program(lambda: call(answer)))
end = time.monotonic() + 5
while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end: time.sleep(0.1)
if not done[0]: os.kill(child, 9)
assert done[0], "a call in a child forked after a first call has not returned after 5 s"
assert os.waitstatus_to_exitcode(done[1]) == 42, "the child's call did not return the result"
""",
)
def fork(row: type[Bridge]) -> Holds:
    """A child that is forked after a first call can make calls as well.

    Pre-forking servers and multiprocessing on Linux import and call first, and fork then.
    """
    got = row.program(lambda: row.call(_answer))
    if got != 42:
        raise DoesNotHold(f"the call before the fork got {_told(got)}")
    child = os.fork()
    if child == 0:
        try:
            os._exit(row.program(lambda: row.call(_answer)))
        finally:
            os._exit(1)
    status: list[int] = []

    def ended() -> bool:
        done, how = os.waitpid(child, os.WNOHANG)
        if done:
            status.append(os.waitstatus_to_exitcode(how))
        return bool(done)

    if not _wait_until(ended, 8):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise DoesNotHold("the call in the forked child has not returned after 8 s")
    if status != [42]:
        raise DoesNotHold(f"the call in the forked child raised; the child's status: {status[0]}")
    return once("the child's call returned the coroutine's result")
