"""What users type, and the page that answers it: it is among the first three that are found."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

QUESTIONS = {
    "stampede": "caches/ttl_cache",
    "thundering herd": "caches/ttl_cache",
    "dogpile": "caches/ttl_cache",
    "memoize": "caches/ttl_cache",
    "cache with expiry": "caches/ttl_cache",
    "ttl": "caches/ttl_cache",
    "lru cache thread safe": "caches/ttl_cache",
    "async cache": "caches/async_ttl_cache",
    "flask": "guides/cache_recipes",
    "setdefault": "guides/thread-safety",
    "singleton": "guides/thread-safety",
    "GIL": "guides/thread-safety",
    "is dict thread safe": "guides/thread-safety",
    "list append thread safe": "guides/thread-safety",
    "async to sync": "bridges/run_sync",
    "call async from sync": "bridges/run_sync",
    "event loop already running": "bridges/run_sync",
    "nest_asyncio": "bridges/run_sync",
    "run coroutine in thread": "bridges/async_runner",
    "thread pool map": "bridges/parallel_execute",
    "run in parallel": "bridges/parallel_execute",
    "limit concurrency": "bridges/async_parallel_execute",
    "gather with limit": "bridges/async_parallel_execute",
    "watch directory": "bridges/file_watch",
    "file upload retry": "queues/async_pending_queue",
    "upload survives crash": "queues/async_pending_queue",
    "job queue": "queues/memory_queue",
    "priority queue": "queues/memory_queue",
    "worker retry": "queues/memory_queue",
    "pub sub": "buses/event_bus",
    "event bus": "buses/event_bus",
    "publish subscribe asyncio": "buses/async_event_bus",
    "keyboardinterrupt": "guides/interrupts",
    "ttlcache": "caches/ttl_cache",
    "TTLCache.get_or_load": "caches/ttl_cache",
    "ctrl-c": "guides/interrupts",
    "test race condition": "guides/testing",
    "copy a component": "guides/copying",
    "celery": "guides/outgrowing",
}


@pytest.fixture(scope="module")
def search(chromium: Browser, address: str) -> Iterator[Page]:
    """A page whose search is open, and has its index."""
    page = chromium.new_page()
    page.goto(f"{address}index.html")
    page.locator("[data-md-component=search-query]").click()
    yield page
    page.close()


def ask(page: Page, words: str) -> list[str]:
    """The pages that are found, best first."""
    field = page.locator("[data-md-component=search-query]")
    field.fill("")
    page.keyboard.press("End")  # it listens to keys
    expect(page.locator(".md-search-result__item")).to_have_count(0)
    field.fill(words)
    page.keyboard.press("End")
    expect(page.locator(".md-search-result__item").first).to_be_attached()
    found = page.locator(".md-search-result__item").evaluate_all(
        "items => items.map(item => item.querySelector('a').pathname)"
    )
    return [re.sub(r"^/|\.html$", "", str(path)) for path in found]


@pytest.mark.parametrize("words", QUESTIONS)
def test_what_users_type_leads_to_the_page(search: Page, words: str) -> None:
    assert QUESTIONS[words] in ask(search, words)[:3]


def test_records_are_not_in_the_way(search: Page) -> None:
    """Evidence, charts, the review and the changes are left out of the search."""
    found = {
        page for words in ("schedule", "mutation", "evidence TC-6") for page in ask(search, words)
    }
    assert found
    assert not [page for page in found if page.startswith(("evidence/", "review/", "changes"))]
