"""A FastAPI app with one AsyncTTLCache: concurrent misses share one load.

Copy the cache beside this file:
    python -m reference_impl copy async_ttl_cache vendored
Run it:
    uvicorn --factory fastapi_app:create_app
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI, HTTPException

from vendored.async_ttl_cache import AsyncTTLCache, CacheStats


@dataclass(frozen=True)
class Report:
    """An answer that is expensive to fetch; frozen, as requests share it."""

    id: str
    verdict: str


async def fetch_report(report_id: str) -> Report:
    """Put your query here; it raises LookupError if there is no such report."""
    return Report(report_id, "passed")


Fetch = Callable[[str], Awaitable[Report]]


def create_app(fetch: Fetch = fetch_report) -> FastAPI:
    """Make the app and its cache; each worker process has its own."""
    cache = AsyncTTLCache[str, Report](default_ttl=60.0, max_size=10_000)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with cache:  # the clean-up runs as long as the app
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/reports/{report_id}")
    async def show(report_id: str) -> Report:
        try:
            return await cache.get_or_load(report_id, lambda: fetch(report_id))
        except LookupError as error:
            raise HTTPException(404, "no such report") from error

    @app.delete("/cache/{report_id}")
    async def invalidate(report_id: str) -> dict[str, bool]:
        return {"removed": await cache.delete(report_id)}

    @app.get("/cache")
    async def statistics() -> CacheStats:
        return cache.stats

    return app
