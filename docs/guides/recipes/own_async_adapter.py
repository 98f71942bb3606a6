"""An adapter: an asynchronous cache whose calls block, while its loop runs in a thread."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

LOOP = asyncio.new_event_loop()
threading.Thread(target=LOOP.run_forever, daemon=True).start()


class Blocking:
    """Makes each coroutine of the cache a call; what is plain there stays so."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._cache, name)
        if not callable(found):
            return found
        return lambda *given, **named: asyncio.run_coroutine_threadsafe(
            found(*given, **named), LOOP
        ).result()

    def get_or_load(self, key: Any, loader: Callable[[], Any], *given: Any, **named: Any) -> Any:
        async def load() -> Any:
            return await asyncio.to_thread(loader)  # it may call the cache, which needs the loop

        coroutine = self._cache.get_or_load(
            key, load if callable(loader) else loader, *given, **named
        )
        return asyncio.run_coroutine_threadsafe(coroutine, LOOP).result()

    def __len__(self) -> int:
        return len(self._cache)

    def __contains__(self, key: Any) -> bool:
        return key in self._cache
