"""anyio: https://github.com/agronholm/anyio."""

from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import anyio.to_thread

from peers.adapters.parallel import Mapper


class TaskGroup(Mapper):
    """A task for each item, and a limiter for the threads."""

    name = "anyio task group, to_thread"
    package = "anyio"
    documented = "https://anyio.readthedocs.io/en/stable/threads.html"
    take_it = "Structured concurrency on asyncio and Trio, with cancel scopes that hold."
    imports = "import anyio.to_thread\nfrom functools import partial"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        async def main() -> list[Any]:
            limiter = anyio.CapacityLimiter(limit)
            one = partial(anyio.to_thread.run_sync, function, limiter=limiter)  # type: ignore[arg-type]
            async with anyio.create_task_group() as group:
                tasks = [group.start_soon(one, each) for each in items]
            return [each.return_value for each in tasks]

        return anyio.run(main)

    @staticmethod
    def gather(
        function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4
    ) -> Coroutine[Any, Any, list[Any]]:
        async def main() -> list[Any]:
            limiter = anyio.CapacityLimiter(limit)

            async def one(item: Any) -> Any:
                async with limiter:
                    return await function(item)

            async with anyio.create_task_group() as group:
                tasks = [group.start_soon(one, each) for each in items]
            return [each.return_value for each in tasks]

        return main()
