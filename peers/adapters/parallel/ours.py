"""This project's components."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

from peers.adapters.parallel import Mapper
from reference_impl.bridges.async_parallel_execute import async_parallel_execute
from reference_impl.bridges.parallel_execute import parallel_execute


class ParallelExecute(Mapper):
    """With `fail_fast` where the first failure is to be raised."""

    name = "parallel_execute"
    ours = True
    documented = "https://executable-guarantees.example/bridges/parallel_execute.html"
    take_it = "One file to copy, in which each key has its result or its error."
    imports = (
        "from concurrent.futures import CancelledError\n"
        "from reference_impl.bridges.parallel_execute import parallel_execute"
    )

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        results = parallel_execute(items, function, limit, fail_fast=True)
        for each in results:
            if each.is_failure and not isinstance(each.error, CancelledError):
                raise each.error
        return [each.value for each in results]  # type: ignore[union-attr]

    @staticmethod
    def settled(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        results = parallel_execute(items, function, limit)
        return [each.value if each.is_success else each.error for each in results]


class AsyncParallelExecute(Mapper):
    """Its twin on an event loop; what blocks goes into `asyncio.to_thread`."""

    name = "async_parallel_execute, to_thread"
    ours = True
    documented = "https://executable-guarantees.example/bridges/async_parallel_execute.html"
    take_it = "The same results for async functions, with no task left behind."
    imports = (
        "import asyncio\n"
        "from concurrent.futures import CancelledError\n"
        "from functools import partial\n"
        "from reference_impl.bridges.async_parallel_execute import async_parallel_execute"
    )

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        one = partial(asyncio.to_thread, function)  # type: ignore[call-arg]
        results = asyncio.run(async_parallel_execute(items, one, limit, fail_fast=True))
        for each in results:
            if each.is_failure and not isinstance(each.error, CancelledError):
                raise each.error
        return [each.value for each in results]  # type: ignore[union-attr]

    @staticmethod
    def settled(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        one = partial(asyncio.to_thread, function)  # type: ignore[call-arg]
        results = asyncio.run(async_parallel_execute(items, one, limit))
        return [each.value if each.is_success else each.error for each in results]

    @staticmethod
    def gather(
        function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4
    ) -> Coroutine[Any, Any, list[Any]]:
        async def main() -> list[Any]:
            results = await async_parallel_execute(items, function, limit, fail_fast=True)
            return [each.unwrap() for each in results]

        return main()
