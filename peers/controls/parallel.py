"""Mappers of the standard library: one that keeps all, and for each check one that breaks it."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context
from typing import Any

from peers.adapters.parallel import Mapper


class _Run:
    """Threads that draw items themselves; a control overrides the one thing that it does wrong."""

    def __init__(self, function: Callable[[Any], Any], items: Iterable[Any], limit: int) -> None:
        self.function, self.limit = function, limit
        self.numbered = enumerate(items)
        self.results: dict[int, Any] = {}
        self.errors: list[Exception] = []
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.context = copy_context()
        self.threads: list[threading.Thread] = []

    def work(self) -> None:
        while not self.stopped.is_set():
            try:
                with self.lock:
                    place, item = next(self.numbered)
                self.results[place] = self.call(item)
            except StopIteration:
                return
            except Exception as error:
                self.failed(error)

    def call(self, item: Any) -> Any:
        return self.context.copy().run(self.function, item)

    def failed(self, error: Exception) -> None:
        self.errors.append(error)
        self.stopped.set()

    def wait(self) -> None:
        for thread in self.threads:
            thread.join()

    def all(self) -> list[Any]:
        for _ in range(self.limit):
            self.threads.append(threading.Thread(target=self.work, daemon=True))
            self.threads[-1].start()
        try:
            self.wait()
        except BaseException:
            self.interrupted()
            raise
        if self.errors:
            raise self.errors[0]
        return [self.results[place] for place in sorted(self.results)]

    def interrupted(self) -> None:
        self.stopped.set()


class Sound(Mapper):
    """It keeps all."""

    name = "sound"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        return _Run(function, items, limit).all()

    @staticmethod
    def settled(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        def careful(item: Any) -> Any:
            try:
                return function(item)
            except Exception as error:
                return error

        return _Run(careful, items, limit).all()

    @staticmethod
    def gather(
        function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4
    ) -> Coroutine[Any, Any, list[Any]]:
        async def main() -> list[Any]:
            turns = asyncio.Semaphore(limit)

            async def one(item: Any) -> Any:
                async with turns:
                    return await function(item)

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(each)) for each in items]
            return [each.result() for each in tasks]

        return main()


class OneByOne(Mapper):
    """No two at the same time."""

    name = "one by one"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        return [function(each) for each in items]


class AsCompleted(Mapper):
    """What is done first comes first."""

    name = "as completed"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        with ThreadPoolExecutor(limit) as pool:
            futures = [pool.submit(function, each) for each in items]
            return [each.result() for each in as_completed(futures)]


class AllDrawn(Mapper):
    """A list of all items first."""

    name = "all drawn"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        return _Run(function, list(items), limit).all()


class CutOff(Mapper):
    """The results end where an item fails."""

    name = "cut off"

    @staticmethod
    def settled(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        run = _Run(function, items, limit)
        try:
            run.all()
        except Exception as error:
            run.results[len(run.results)] = error
        return list(run.results.values())


class Wrapped(Mapper):
    """A failure in an exception of its own."""

    name = "wrapped"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        try:
            return _Run(function, items, limit).all()
        except Exception as error:
            raise RuntimeError("an item failed") from error


class GoesOn(Mapper):
    """After a failure, it runs the rest."""

    name = "goes on"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        class Run(_Run):
            def failed(self, error: Exception) -> None:
                self.errors.append(error)

        return Run(function, items, limit).all()


class Leaves(Mapper):
    """After a failure, it waits for nobody."""

    name = "leaves"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        class Run(_Run):
            def wait(self) -> None:
                while not self.errors and any(each.is_alive() for each in self.threads):
                    self.stopped.wait(0.01)

        return Run(function, items, limit).all()


class Swallows(Mapper):
    """An iterator that raises has just ended."""

    name = "swallows"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        def drawn() -> Iterable[Any]:
            try:
                yield from items
            except Exception:
                return

        return _Run(function, drawn(), limit).all()


class NoContext(Mapper):
    """The threads' own context."""

    name = "no context"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        class Run(_Run):
            def call(self, item: Any) -> Any:
                return self.function(item)

        return Run(function, items, limit).all()


_POOL = ThreadPoolExecutor(2)


class OnePool(Mapper):
    """All calls share two threads."""

    name = "one pool"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        return list(_POOL.map(function, items))


class NoLimit(Mapper):
    """A thread for each item."""

    name = "no limit"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        return _Run(function, items, 50).all()


class LeavesThreads(Mapper):
    """A thread more with each call."""

    name = "leaves threads"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return _Run(function, items, limit).all()


class Deaf(Mapper):
    """After Ctrl-C the rest is run."""

    name = "deaf"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        class Run(_Run):
            def interrupted(self) -> None:
                self.wait()

        return Run(function, items, limit).all()


class Patient(Mapper):
    """After Ctrl-C it waits for what runs."""

    name = "patient"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        class Run(_Run):
            def interrupted(self) -> None:
                self.stopped.set()
                self.wait()

        return Run(function, items, limit).all()


class Unstructured(Mapper):
    """Tasks that nobody waits for once one has failed or the call is cancelled."""

    name = "unstructured"

    @staticmethod
    def gather(
        function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4
    ) -> Coroutine[Any, Any, list[Any]]:
        async def main() -> list[Any]:
            tasks = [
                asyncio.ensure_future(function(each)) for each in itertools.islice(items, limit)
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            return [each.result() for each in tasks]

        return main()


SOUND = Sound
CONTROLS = {
    "adapter_sound": OneByOne,
    "order": AsCompleted,
    "lazy_input": AllDrawn,
    "others_results": CutOff,
    "error_type": Wrapped,
    "failure_stops": GoesOn,
    "failure_leaves_none": Leaves,
    "source_raises": Swallows,
    "context": NoContext,
    "nested": OnePool,
    "limit_kept": NoLimit,
    "threads_left": LeavesThreads,
    "ctrl_c": Deaf,
    "ctrl_c_stuck": Patient,
    "cancelled_leaves_none": Unstructured,
    "failed_async_leaves_none": Unstructured,
}
