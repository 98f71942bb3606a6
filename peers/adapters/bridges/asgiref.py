"""asgiref: https://github.com/django/asgiref."""

import asyncio
from typing import Any

from asgiref.sync import async_to_sync

from peers.adapters.bridges import Bridge, Function


class AsyncToSync(Bridge):
    """What Django uses."""

    name = "asgiref.sync.async_to_sync"
    package = "asgiref"
    documented = "https://docs.djangoproject.com/en/stable/topics/async/#async-to-sync"
    take_it = (
        "It is Django's own: plain code that a coroutine calls through its sync_to_async runs in "
        "the first thread, and may make calls again."
    )
    imports = "import asyncio\nfrom asgiref.sync import async_to_sync"

    @staticmethod
    def call(function: Function) -> Any:
        return async_to_sync(function)()

    @staticmethod
    def timed(function: Function, seconds: float) -> Any:
        async def limited() -> Any:
            return await asyncio.wait_for(function(), seconds)

        return async_to_sync(limited)()
