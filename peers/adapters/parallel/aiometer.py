"""aiometer: https://github.com/florimondmanca/aiometer.

It runs async functions; what blocks goes into `asyncio.to_thread`. What is found of threads and of
Ctrl-C is asyncio.run's.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import aiometer

from peers.adapters.parallel import Mapper

_SEQUENCE = "it takes a sequence of items"


class RunAll(Mapper):
    """The results as a list."""

    name = "aiometer.run_all, to_thread"
    package = "aiometer"
    documented = "https://github.com/florimondmanca/aiometer#usage"
    take_it = "A limit for each second beside the one for at once, on asyncio and Trio."
    imports = "import aiometer\nimport asyncio\nfrom functools import partial"
    wants_sequence = _SEQUENCE

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        async def main() -> list[Any]:
            jobs = [partial(asyncio.to_thread, function, each) for each in items]
            return await aiometer.run_all(jobs, max_at_once=limit)

        return asyncio.run(main())

    @staticmethod
    def gather(
        function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4
    ) -> Coroutine[Any, Any, list[Any]]:
        jobs = [partial(function, each) for each in items]
        return aiometer.run_all(jobs, max_at_once=limit)


class Amap(Mapper):
    """The results as they become available."""

    name = "aiometer.amap, to_thread"
    package = "aiometer"
    documented = "https://github.com/florimondmanca/aiometer#usage"
    take_it = "Results as soon as they are there, with a limit for each second, too."
    imports = "import aiometer\nimport asyncio\nfrom functools import partial"
    wants_sequence = _SEQUENCE

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        async def main() -> list[Any]:
            one = partial(asyncio.to_thread, function)  # type: ignore[call-arg]
            async with aiometer.amap(one, list(items), max_at_once=limit) as results:
                return [each async for each in results]

        return asyncio.run(main())

    @staticmethod
    def gather(
        function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4
    ) -> Coroutine[Any, Any, list[Any]]:
        async def main() -> list[Any]:
            async with aiometer.amap(function, list(items), max_at_once=limit) as results:
                return [each async for each in results]

        return main()
