"""anyio: https://github.com/agronholm/anyio."""

from typing import Any

import anyio
from anyio.from_thread import start_blocking_portal

from peers.adapters.bridges import Bridge, Function


class Portal(Bridge):
    """A loop in a thread of its own for each call, as its documentation shows it."""

    name = "anyio.from_thread.start_blocking_portal"
    package = "anyio"
    documented = "https://anyio.readthedocs.io/en/stable/threads.html#starting-a-blocking-portal"
    take_it = (
        "Structured: tasks, context managers and cancellation reach through the portal; trio, too."
    )
    imports = "import anyio\nfrom anyio.from_thread import start_blocking_portal"

    @staticmethod
    def call(function: Function) -> Any:
        with start_blocking_portal() as portal:
            return portal.call(function)

    @staticmethod
    def timed(function: Function, seconds: float) -> Any:
        async def limited() -> Any:
            with anyio.fail_after(seconds):
                return await function()

        with start_blocking_portal() as portal:
            return portal.call(limited)
