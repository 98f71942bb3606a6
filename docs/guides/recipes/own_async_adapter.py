"""An adapter: an asynchronous cache whose calls block, while its loop runs in a thread."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

LOOP = asyncio.new_event_loop()
threading.Thread(target=LOOP.run_forever, daemon=True).start()


def on_loop(function: Callable[[], Any]) -> Any:
    """What the function gives, or its coroutine, when the loop calls it."""

    async def call() -> Any:
        found = function()
        return await found if inspect.isawaitable(found) else found

    return asyncio.run_coroutine_threadsafe(call(), LOOP).result()


class Blocking:
    """The cache, each of whose operations is done when its call returns."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        found = on_loop(lambda: getattr(self._cache, name))
        if not callable(found):
            return found
        return lambda *given, **named: on_loop(lambda: found(*given, **named))

    def get_or_load(self, key: Any, loader: Callable[[], Any], *given: Any, **named: Any) -> Any:
        async def load() -> Any:
            return await asyncio.to_thread(loader)  # it may call the cache, which needs the loop

        given = load if callable(loader) else loader, *given
        return on_loop(lambda: self._cache.get_or_load(key, *given, **named))

    def __len__(self) -> int:
        return int(on_loop(lambda: len(self._cache)))

    def __contains__(self, key: Any) -> bool:
        return bool(on_loop(lambda: key in self._cache))
