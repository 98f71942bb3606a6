"""greenback: https://github.com/oremanj/greenback."""

import asyncio
from collections.abc import Callable
from typing import Any

import greenback

from peers.adapters.bridges import Bridge, Function


class Await(Bridge):
    """Calls below a task that has a portal."""

    name = "greenback.await_"
    package = "greenback"
    documented = "https://greenback.readthedocs.io/en/latest/"
    take_it = "The coroutine runs in the caller's own task, so that nothing is blocked."
    imports = "import asyncio\nimport greenback"

    @staticmethod
    def call(function: Function) -> Any:
        return greenback.await_(function())

    @staticmethod
    def timed(function: Function, seconds: float) -> Any:
        return greenback.await_(asyncio.wait_for(function(), seconds))

    @staticmethod
    def program(plain: Callable[[], Any]) -> Any:
        return asyncio.run(greenback.with_portal_run_sync(plain))

    @staticmethod
    def within(plain: Callable[[], Any]) -> Any:
        async def main() -> Any:
            await greenback.ensure_portal()
            return plain()

        return asyncio.run(main())
