"""The faults of AsyncConverterPool's twins: of what it is made with, hears and sees.

They change what stands around the pool, or its public methods, and know nothing of its inside.
"""

import asyncio
import collections
import contextlib
import dataclasses
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent import futures
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.kit.primitives import primitive, rebind
from tests.kit.twins import Fault, override, patch

Options = dict[str, Any]
MAKE = "AsyncConverterPool.__init__"


def bound(library: ModuleType, **names: Any) -> Fault:
    """These names of a library stand for something else to it."""

    def change(module: ModuleType) -> None:
        rebind(module, library, **names)

    return patch(change)


# What it is made with.


def made_with(change: Callable[[Any, Options], None]) -> Fault:
    """`change(pool, options)` is done to what a pool is made with, all of it by name."""

    def make(original: Any) -> Any:
        def init(self: Any, converters: Any, submit: Any, **options: Any) -> None:
            options |= {"converters": list(converters), "submit": submit}
            change(self, options)
            original(self, **options)

        return init

    return override(MAKE, make)


def submits_by(change: Callable[[Callable[[Any], Awaitable[None]], Any], Any]) -> Fault:
    """Each submission is `change(submit, result)`."""

    def made(pool: Any, options: Options) -> None:
        submit = options["submit"]

        async def changed(result: Any) -> None:
            await change(submit, result)

        options["submit"] = changed

    return made_with(made)


def swallows_refusals() -> Fault:
    """What `submit` raises is nobody's failure."""

    async def quietly(submit: Any, result: Any) -> None:
        with contextlib.suppress(Exception):
            await submit(result)

    return submits_by(quietly)


def waits_after_submitting() -> Fault:
    """Between the end of a submission and the move others have a turn."""

    async def and_wait(submit: Any, result: Any) -> None:
        await submit(result)
        await asyncio.sleep(0)

    return submits_by(and_wait)


def blames_cancelled_submissions() -> Fault:
    """A submission that the pool cancels has failed."""

    async def failing(submit: Any, result: Any) -> None:
        try:
            await submit(result)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            raise RuntimeError("cancelled") from None

    return submits_by(failing)


def _converting(options: Options, change: Callable[[Any, Path], Any]) -> None:
    options["converters"] = [
        dataclasses.replace(each, convert=lambda path, one=each.convert: change(one, path))
        for each in options["converters"]
    ]


def submits_at_once() -> Fault:
    """A result is submitted before the file is looked at again."""

    def made(pool: Any, options: Options) -> None:
        submit, loop = options["submit"], asyncio.get_running_loop()

        def convert(original: Any, path: Path) -> Any:
            result = original(path)
            loop.call_soon_threadsafe(lambda: loop.create_task(submit(result)))
            return result

        async def nothing(result: Any) -> None:
            pass

        _converting(options, convert)
        options["submit"] = nothing

    return made_with(made)


def needs_its_file() -> Fault:
    """A conversion after which the file is gone has failed."""

    def convert(original: Any, path: Path) -> Any:
        result = original(path)
        if not path.exists():
            raise FileNotFoundError(path)
        return result

    return made_with(lambda pool, options: _converting(options, convert))


def urgent_last() -> Fault:
    """The highest number comes first."""

    def made(pool: Any, options: Options) -> None:
        options["converters"] = [
            dataclasses.replace(each, priority=-each.priority) for each in options["converters"]
        ]

    return made_with(made)


def one_slot_more() -> Fault:
    """So many at once, and one more."""

    def made(pool: Any, options: Options) -> None:
        options["max_concurrency"] = options.get("max_concurrency", 4) + 1

    return made_with(made)


def no_timeout() -> Fault:
    """A conversion may last as long as it likes."""
    return made_with(lambda pool, options: options.pop("convert_timeout", None))


# Executors in the place of its own threads, or of the one that it is given.


class Threads(futures.Executor):
    """A thread for each call, of the kind that the module makes."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        future = futures.Future[Any]()

        def call() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    result = fn(*args, **kwargs)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)

        primitive(self._module, "Thread")(target=call, args=(), name="call", daemon=True).start()
        return future


class LineUp(futures.Executor):
    """So many of its calls run in another executor at once; the others wait in a queue."""

    def __init__(self, executor: futures.Executor, most: int) -> None:
        self._executor, self._free = executor, most
        self._queue = collections.deque[tuple[futures.Future[Any], Any]]()
        self._lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        future = futures.Future[Any]()
        with self._lock:
            self._queue.append((future, lambda: fn(*args, **kwargs)))
        self._go_on()
        return future

    def _go_on(self) -> None:
        with self._lock:
            if not self._queue or not self._free:
                return
            self._free -= 1
            future, call = self._queue.popleft()
        self._executor.submit(call).add_done_callback(lambda done: self._done(future, done))

    def _done(self, future: Any, done: Any) -> None:
        with self._lock:
            self._free += 1
        self._go_on()
        if future.set_running_or_notify_cancel():
            future.set_result(done.result())


class OnTheLoop(futures.Executor):
    """Calls at once, where it is asked to."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        future = futures.Future[Any]()
        future.set_result(fn(*args, **kwargs))
        return future


class ForgetsLate(futures.Executor):
    """Nobody hears of the end of a call that could not be cancelled."""

    def __init__(self, executor: futures.Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        future: Any = self._executor.submit(fn, *args, **kwargs)
        cancel = future.cancel

        def forget(_: object) -> None:
            del future.add_done_callback

        def cancelled() -> bool:
            if cancel():
                return True
            future.add_done_callback = forget
            return False

        future.cancel = cancelled
        return future


class Breaks(Threads):
    """What a call raises is the end of the executor."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        def call() -> Any:
            try:
                return fn(*args, **kwargs)
            except Exception as error:
                raise futures.BrokenExecutor("broken") from error

        return super().submit(call)


def runs_in(
    make: Callable[[ModuleType, futures.Executor | None, Options], futures.Executor | None],
) -> Fault:
    """Its executor is `make(module, the one that it is given, options)`."""
    modules: list[ModuleType] = []

    def made(pool: Any, options: Options) -> None:
        options["executor"] = make(modules[-1], options.get("executor"), options)

    return patch(modules.append) + made_with(made)


def _line_up(module: ModuleType, given: futures.Executor | None, options: Options) -> Any:
    most = options.get("max_concurrency", 4)
    options["max_concurrency"] = 1000
    return LineUp(given or Threads(module), most)


def chooses_early() -> Fault:
    """Files are chosen, and then they wait for a slot."""
    return runs_in(_line_up)


def keeps_the_slot() -> Fault:
    """A thread of its own that hangs keeps its slot, as that of an executor does."""
    return runs_in(lambda module, given, _: given or Threads(module))


def ignores_its_executor() -> Fault:
    """It has threads of its own, whatever it is given."""
    return runs_in(lambda *_: None)


def converts_on_the_loop() -> Fault:
    """It has no threads."""
    return runs_in(lambda *_: OnTheLoop())


def never_frees_the_slot() -> Fault:
    """A slot of a given executor's that was lost is lost for good."""
    return runs_in(lambda _, given, __: given and ForgetsLate(given))


def takes_failures_for_the_end() -> Fault:
    """A conversion that raises has broken what it runs in."""
    return runs_in(lambda module, *_: Breaks(module))


class _Careless(futures.Future[Any]):
    def set_running_or_notify_cancel(self) -> bool:
        return self.cancelled() or super().set_running_or_notify_cancel()

    def set_result(self, result: Any) -> None:
        if not self.cancelled():
            super().set_result(result)


def does_not_ask() -> Fault:
    """A thread does not ask whether its conversion was cancelled."""
    return bound(futures, Future=_Careless)


# When it stops.


def stops_when_nothing_waits() -> Fault:
    """Files that wait when it is asked to stop are chosen all the same."""

    def make(original: Any) -> Any:
        async def stop(self: Any, *arguments: Any, **options: Any) -> None:
            while self.stats.waiting:
                await asyncio.sleep(0)
            await original(self, *arguments, **options)

        return stop

    return override("AsyncConverterPool.stop", make)


# What it sees, and how it moves.


def moves_by(move: Callable[[Callable[[str, str], None], str, str], None]) -> Fault:
    """Each rename is `move(the one that overwrites nothing, source, target)`."""

    def change(module: ModuleType) -> None:
        rename = vars(module)["rename_new"]
        vars(module)["rename_new"] = lambda source, target: move(rename, source, target)

    return patch(change)


def overwrites() -> Fault:
    """A name that is taken is taken again."""

    def move(_: Callable[[str, str], None], source: str, target: str) -> None:
        Path(source).replace(target)

    return moves_by(move)


def puts_back_over_another() -> Fault:
    """A file that it moves back takes the place of what is there by then."""

    def move(rename: Callable[[str, str], None], source: str, target: str) -> None:
        back = Path(source).parent.name == "done"
        (os.replace if back else rename)(source, target)

    return moves_by(move)


def looks_by(see: Callable[[Callable[[str], Any], str], Any]) -> Fault:
    """What it sees of a file is `see(what tells the truth, path)`."""

    def change(module: ModuleType) -> None:
        look = vars(module)["look"]
        vars(module)["look"] = lambda path: see(look, path)

    return patch(change)


def sees_no_difference() -> Fault:
    """One file looks like any other."""

    def see(look: Callable[[str], Any], path: str) -> Any:
        found = look(path)
        return found and found._replace(inode=1, size=1, mtime_ns=1)

    return looks_by(see)


def takes_doubt_for_an_end() -> Fault:
    """A file that cannot be examined is gone."""

    def see(look: Callable[[str], Any], path: str) -> Any:
        with contextlib.suppress(OSError):
            return look(path)

    return looks_by(see)


def takes_open_files_for_closed() -> Fault:
    """Nobody has a file open for writing, as far as it knows."""

    def change(module: ModuleType) -> None:
        vars(module)["is_open_for_writing"] = lambda path: False

    return patch(change)


# What it hears.

Hear = Callable[[Any, Path], Iterator[Path]]


class Watches:
    """Makes watches whose news come to the pool through `hear(pool, path)`."""

    def __init__(self, make: Callable[..., Any], hear: Hear, pools: list[Any]) -> None:
        self.make, self.hear, self.pools = make, hear, pools

    def __call__(self, *arguments: Any, **options: Any) -> "_Watch":
        return _Watch(self, self.make(*arguments, **options))

    def lost(self, pool: Any) -> None:
        """A watch of this pool has ended by itself."""


class _Watch:
    def __init__(self, watches: Watches, watch: Any) -> None:
        self._watches, self._watch = watches, watch

    async def __aenter__(self) -> "_Watch":
        await self._watch.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._watch.__aexit__(*error)

    async def __aiter__(self) -> AsyncIterator[Path]:
        pool = self._watches.pools[-1]
        try:
            async for path in self._watch:
                for heard in self._watches.hear(pool, path):
                    yield heard
        except OSError:
            self._watches.lost(pool)
            raise


def put_watch(module: ModuleType, make: Callable[..., Any]) -> Callable[[], None]:
    """Let the module make its watches so; a twin's fault stays between them and the pool."""
    watches: Any = vars(module)["DirectoryWatch"]
    place, name = (watches, "make") if isinstance(watches, Watches) else (module, "DirectoryWatch")
    before = getattr(place, name)
    setattr(place, name, make)
    return lambda: setattr(place, name, before)


def hears(hear: Hear, kind: type[Watches] = Watches) -> Fault:
    """The news of its watches come to a pool through `hear(pool, path)`."""
    pools: list[Any] = []

    def install(module: ModuleType) -> None:
        vars(module)["DirectoryWatch"] = kind(vars(module)["DirectoryWatch"], hear, pools)

    return made_with(lambda pool, _: pools.append(pool)) + patch(install)


def deaf_while_it_converts() -> Fault:
    """While it converts a file, it does not hear of another."""

    def hear(pool: Any, path: Path) -> Iterator[Path]:
        if not pool.stats.running:
            yield path

    return hears(hear)


def hears_of_another() -> Fault:
    """A file that it is told of again is another one to it."""
    known = set[Path]()

    def hear(pool: Any, path: Path) -> Iterator[Path]:
        again = path in known
        known.add(path)
        yield path.parent / ".." / path.parent.name / path.name if again else path

    return hears(hear)


def takes_at_once() -> Fault:
    """A file that it hears of is taken out of its directory."""

    def hear(pool: Any, path: Path) -> Iterator[Path]:
        path.unlink()
        yield path

    return hears(hear)


class _OneForAll(Watches):
    def lost(self, pool: Any) -> None:
        self.stopping = asyncio.ensure_future(pool.stop())


def stops_when_one_is_lost() -> Fault:
    """When one directory is lost, the pool stops."""
    return hears(lambda pool, path: iter([path]), _OneForAll)
