"""The standard library: concurrent.futures and asyncio."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from peers.adapters.parallel import Mapper


class Map(Mapper):
    """The pool's `map`, all of it taken before the pool is left."""

    name = "ThreadPoolExecutor.map"
    documented = "https://docs.python.org/3/library/concurrent.futures.html"
    take_it = "Two lines, always there, known to every reader."
    imports = "from concurrent.futures import ThreadPoolExecutor"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        with ThreadPoolExecutor(limit) as pool:
            return list(pool.map(function, items))


class Submit(Mapper):
    """A future for each item, as in the documentation's first example."""

    name = "ThreadPoolExecutor.submit"
    documented = "https://docs.python.org/3/library/concurrent.futures.html"
    take_it = "Each item's future is in your hands: its error, its result, its cancellation."
    imports = "from concurrent.futures import ThreadPoolExecutor"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        with ThreadPoolExecutor(limit) as pool:
            futures = [pool.submit(function, each) for each in items]
            return [each.result() for each in futures]

    @staticmethod
    def settled(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        with ThreadPoolExecutor(limit) as pool:
            futures = [pool.submit(function, each) for each in items]
        return [each.exception() or each.result() for each in futures]


class TaskGroup(Mapper):
    """A task for each item, which waits for a semaphore and runs the function in a thread."""

    name = "asyncio.TaskGroup, to_thread"
    documented = "https://docs.python.org/3/library/asyncio-task.html#task-groups"
    take_it = "The standard library's structured way for a program that is async anyway."
    imports = "import asyncio"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        async def main() -> list[Any]:
            turns = asyncio.Semaphore(limit)

            async def one(item: Any) -> Any:
                async with turns:
                    return await asyncio.to_thread(function, item)

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(each)) for each in items]
            return [each.result() for each in tasks]

        return asyncio.run(main())

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


class Gather(Mapper):
    """A coroutine for each item, which waits for a semaphore; all are gathered."""

    name = "asyncio.gather, to_thread"
    documented = "https://docs.python.org/3/library/asyncio-task.html#asyncio.gather"
    take_it = "The shortest way to results and errors side by side in an async program."
    imports = "import asyncio"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        async def main() -> list[Any]:
            turns = asyncio.Semaphore(limit)

            async def one(item: Any) -> Any:
                async with turns:
                    return await asyncio.to_thread(function, item)

            return await asyncio.gather(*map(one, list(items)))

        return asyncio.run(main())

    @staticmethod
    def settled(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        async def main() -> list[Any]:
            turns = asyncio.Semaphore(limit)

            async def one(item: Any) -> Any:
                async with turns:
                    return await asyncio.to_thread(function, item)

            return await asyncio.gather(*map(one, list(items)), return_exceptions=True)

        return asyncio.run(main())

    @staticmethod
    def gather(
        function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4
    ) -> Coroutine[Any, Any, list[Any]]:
        async def main() -> list[Any]:
            turns = asyncio.Semaphore(limit)

            async def one(item: Any) -> Any:
                async with turns:
                    return await function(item)

            return await asyncio.gather(*map(one, list(items)))

        return main()
