"""What an asynchronous cache can get wrong, put into AsyncTTLCache from the outside."""

import asyncio
import functools
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

from tests.caches.async_ttl_cache.helpers import logged, step
from tests.kit.twins import Fault, override, patch

Loader = Callable[[], Awaitable[Any]]
Ask = Callable[[Loader], Awaitable[Any]]


def in_place_of(method: str) -> Callable[[Callable[..., object]], Fault]:
    """The decorated `fault(original, cache, ...)` is what the method does."""

    def decorate(fault: Callable[..., object]) -> Fault:
        def make(original: Any) -> Callable[..., object]:
            return lambda cache, *args, **options: fault(original, cache, *args, **options)

        return override(f"AsyncTTLCache.{method}", make)

    return decorate


def when_asked(fault: Callable[[Ask, Any, Any, Loader], Coroutine[Any, Any, Any]]) -> Fault:
    """`fault(ask, cache, key, loader)` is what get_or_load does; `ask(loader)` does it well."""

    @in_place_of("get_or_load")
    def get_or_load(
        original: Any, cache: Any, key: Any, loader: Loader, ttl: float | None = None, **stale: Any
    ) -> object:
        return fault(lambda loader: original(cache, key, loader, ttl, **stale), cache, key, loader)

    return get_or_load


def collaborator(name: str, **replaced: Any) -> Fault:
    """The module that the component imports under this name has other functions."""

    def change(module: ModuleType) -> None:
        setattr(module, name, SimpleNamespace(**(vars(getattr(module, name)) | replaced)))

    return patch(change)


def made_with(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Fault:
    """The cache gets other arguments than it is given by name."""

    @in_place_of("__init__")
    def initialize(original: Any, cache: Any, *arguments: Any, **options: Any) -> None:
        original(cache, *arguments, **(options | change(options)))

    return initialize


def notes(cache: Any) -> dict[Any, Any]:
    """What a fault keeps with the cache."""
    kept: dict[Any, Any] = vars(cache).setdefault("notes", {})
    return kept


async def forever() -> NoReturn:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody ends it")


# Who is cancelled, and what becomes of the load.


def _task(ask: Ask, cache: Any, key: Any, loader: Loader) -> tuple[asyncio.Task[Any], bool]:
    """The one task of all who ask for the key, and whether it has just been made."""
    tasks = notes(cache)
    if key in tasks:
        return tasks[key], False

    async def load() -> Any:
        return await ask(loader)

    tasks[key] = asyncio.create_task(load())
    tasks[key].add_done_callback(lambda _: tasks.pop(key, None))
    return tasks[key], True


@when_asked
async def all_await_one_task(*asked: Any) -> Any:
    task, _ = _task(*asked)
    return await task


@when_asked
async def ends_with_the_first_caller(*asked: Any) -> Any:
    task, mine = _task(*asked)
    return await (task if mine else asyncio.shield(task))


@when_asked
async def goes_on_for_nobody(*asked: Any) -> Any:
    task, _ = _task(*asked)
    return await asyncio.shield(task)


@when_asked
async def joins_the_abandoned(ask: Ask, cache: Any, key: Any, loader: Loader) -> Any:
    running = notes(cache).get(key)
    if running and running.cancelling():
        return await asyncio.shield(running)

    async def load() -> Any:
        notes(cache)[key] = asyncio.current_task()
        try:
            return await loader()
        finally:
            notes(cache).pop(key, None)

    return await ask(load)


@when_asked
async def drops_what_has_ended(ask: Ask, cache: Any, key: Any, loader: Loader) -> Any:
    ended = list[object]()

    async def load() -> Any:
        ended.append(value := await loader())
        return value

    try:
        return await ask(load)
    except asyncio.CancelledError:
        if ended:
            await cache.delete(key)
        raise


@when_asked
async def strands_who_stays(ask: Ask, cache: Any, key: Any, loader: Loader) -> Any:
    try:
        value = await ask(loader)
    except asyncio.CancelledError:
        notes(cache)[key] = "somebody left"
        raise
    return await forever() if key in notes(cache) else value


# How a load ends, and who hears of it.


def _joining_a_failure(otherwise: Callable[[Ask, Loader], Awaitable[Any]]) -> Fault:
    """Whoever has joined a load that fails gets `otherwise` in place of its exception."""

    @when_asked
    async def fault(ask: Ask, _cache: Any, _key: Any, loader: Loader) -> Any:
        mine = list[bool]()

        async def load() -> Any:
            mine.append(True)
            return await loader()

        try:
            return await ask(load)
        except Exception:
            if mine:
                raise
        return await otherwise(ask, loader)

    return fault


strands_who_joined_a_failure = _joining_a_failure(lambda *_: forever())
repeats_a_failure = _joining_a_failure(lambda ask, loader: ask(loader))


@when_asked
async def lengthens_the_traceback(ask: Ask, cache: Any, key: Any, loader: Loader) -> Any:
    try:
        return await ask(loader)
    except OSError as error:
        try:
            raise error.with_traceback(notes(cache).get(key, error.__traceback__))
        finally:
            notes(cache)[key] = error.__traceback__


@when_asked
async def adds_what_is_handled(ask: Ask, _cache: Any, _key: Any, loader: Loader) -> Any:
    handled = sys.exception()
    try:
        return await ask(loader)
    except OSError as error:
        while error.__context__ is not None:
            error = error.__context__  # type: ignore[assignment]
        error.__context__ = handled
        raise


@when_asked
async def stores_whatever_has_happened(ask: Ask, cache: Any, key: Any, loader: Loader) -> Any:
    value = await ask(loader)
    await cache.set(key, value)
    return value


@in_place_of("delete")
async def deletes_only_what_is_there(original: Any, cache: Any, key: Any) -> Any:
    return key in cache and await original(cache, key)


@in_place_of("clear")
async def deletes_one_by_one(_original: Any, cache: Any) -> None:
    for key in await cache.keys():
        await cache.delete(key)


# Loads within loads.

_LOADING: ContextVar[tuple[Any, Any] | None] = ContextVar("_LOADING", default=None)


async def _in_an_empty_context(ask: Ask, cache: Any, key: Any, loader: Loader) -> Any:
    async def inner() -> Any:
        return await loader()

    context = Context()
    context.run(_LOADING.set, (cache, key))
    return await ask(lambda: asyncio.create_task(inner(), context=context))


@when_asked
async def sees_only_its_own_key(ask: Ask, cache: Any, key: Any, loader: Loader) -> Any:
    if _LOADING.get() == (cache, key):
        raise RuntimeError(
            f"the load of {key!r} would wait for itself: its loader asks for that key, "
            "directly or by way of other loads; let it do without"
        )
    return await _in_an_empty_context(ask, cache, key, loader)


loads_in_an_empty_context = when_asked(_in_an_empty_context)


# A stale value, and its refresh.


def _with_stale(change: Callable[[float], float]) -> Fault:
    @in_place_of("get_or_load")
    def get_or_load(original: Any, *arguments: Any, stale: float = 0.0) -> Any:
        return original(*arguments, stale=change(stale))

    return get_or_load


waits_for_the_refresh = _with_stale(lambda _: 0.0)
stale_for_twice_as_long = _with_stale(lambda stale: 2 * stale)


@when_asked
async def refreshes_for_each(ask: Ask, cache: Any, key: Any, loader: Loader) -> Any:
    value = await ask(loader)
    if key not in cache:
        notes(cache)[object()] = asyncio.ensure_future(loader())
    return value


@when_asked
async def ends_with_who_noticed(ask: Ask, _cache: Any, _key: Any, loader: Loader) -> Any:
    me: Any = asyncio.current_task()

    async def load() -> Any:
        refresh: Any = asyncio.current_task()
        me.add_done_callback(lambda me: me.cancelled() and refresh.cancel())
        return await loader()

    return await ask(load)


@when_asked
async def ends_with_who_waits(ask: Ask, cache: Any, key: Any, loader: Loader) -> Any:
    async def load() -> Any:
        notes(cache)[key] = asyncio.current_task()
        return await loader()

    try:
        return await ask(load)
    except BaseException:
        if key in notes(cache):
            notes(cache)[key].cancel()
        raise


@when_asked
async def stores_each_refresh(ask: Ask, cache: Any, key: Any, loader: Loader) -> Any:
    given = list[object]()

    async def load() -> Any:
        value = await loader()
        if given:
            asyncio.get_running_loop().call_later(0.0, step, cache.set(key, value))
        return value

    given.append(await ask(load))
    return given[0]


@when_asked
async def shields_each_load(ask: Ask, cache: Any, _key: Any, loader: Loader) -> Any:
    async def load() -> Any:
        inner = notes(cache)[object()] = asyncio.ensure_future(loader())
        return await asyncio.shield(inner)

    return await ask(load)


# What is told of the entries that leave.


def telling(change: Callable[..., object]) -> Fault:
    """`change(tell, key, value, reason)` is called in place of what was given as `on_evict`."""
    return made_with(
        lambda given: {"on_evict": functools.partial(change, given.get("on_evict", print))}
    )


def _cleared(tell: Callable[..., object], key: Any, value: Any, reason: str) -> object:
    return tell(key, value, "cleared" if reason == "expired" else reason)


tells_of_expired_as_cleared = telling(_cleared)


@in_place_of("set")
async def raises_what_it_raises(original: Any, cache: Any, *arguments: Any) -> None:
    with logged() as errors:
        await original(cache, *arguments)
    for record in errors:
        if record.exc_info and record.exc_info[1]:
            raise record.exc_info[1]


# What is kept too long.


@when_asked
async def keeps_an_error(ask: Ask, _cache: Any, _key: Any, loader: Loader) -> Any:
    kept = list[Exception]()
    try:
        return await ask(loader)
    except Exception as error:
        kept.append(error)  # whose traceback refers to this frame
        raise


@when_asked
async def keeps_each_loader(ask: Ask, cache: Any, _key: Any, loader: Loader) -> Any:
    notes(cache)[object()] = loader
    return await ask(loader)


@in_place_of("set")
async def notes_each_life(original: Any, cache: Any, key: Any, value: Any, ttl: Any) -> None:
    notes(cache)[key] = ttl
    await original(cache, key, value, ttl)


keeps_a_context = patch(lambda module: setattr(module, "Context", copy_context))


# Steps that are not whole, and locks.


@in_place_of("set")
async def deletes_before_it_sets(original: Any, cache: Any, key: Any, *rest: Any) -> None:
    await cache.delete(key)
    await original(cache, key, *rest)


@in_place_of("set")
async def suspends_in_set(original: Any, *arguments: Any) -> None:
    await asyncio.sleep(0)
    await original(*arguments)


@in_place_of("get")
async def suspends_in_get(original: Any, *arguments: Any) -> Any:
    result = await original(*arguments)
    await asyncio.sleep(0)
    return result


@in_place_of("set")
async def sets_later(original: Any, *arguments: Any) -> None:
    asyncio.get_running_loop().call_soon(step, original(*arguments))


async def _at_once(_: float) -> None: ...


cleans_up_in_one_go = collaborator("asyncio", sleep=_at_once)
sleeps_to_clean_up = collaborator("asyncio", sleep=lambda _: asyncio.sleep(0.01))


def _with_a_lock(make: Callable[[], object]) -> Fault:
    @in_place_of("__init__")
    def initialize(original: Any, cache: Any, *arguments: Any, **options: Any) -> None:
        original(cache, *arguments, **options)
        notes(cache)["lock"] = make()

    return initialize


has_a_lock_for_tasks = _with_a_lock(lambda: asyncio.Lock())
has_a_lock_for_threads = _with_a_lock(lambda: threading.RLock())


# The mapping, and its loop.


@in_place_of("get")
async def evicts_the_oldest_write(original: Any, cache: Any, key: Any, *default: Any) -> Any:
    keys = await cache.keys()
    found = await original(cache, key, *default)
    for newer in keys[keys.index(key) + 1 :] if key in keys else ():
        await original(cache, newer)
    return found


@in_place_of("get")
async def takes_none_for_no_value(original: Any, cache: Any, key: Any, default: Any = None) -> Any:
    found = await original(cache, key, default)
    return default if found is None else found


@in_place_of("delete")
async def searches_to_delete(original: Any, cache: Any, key: Any) -> Any:
    return key in await cache.keys() and await original(cache, key)


@in_place_of("get")
async def uses_it_first(original: Any, cache: Any, *arguments: Any) -> Any:
    len(cache)
    return await original(cache, *arguments)


counts_no_expiration = override(
    "AsyncTTLCache.stats",
    lambda original: property(lambda cache: replace(original.fget(cache), expirations=0)),
)
takes_all_loops_for_one = patch(lambda module: setattr(module, "get_running_loop", lambda: module))


# `async with`.


@in_place_of("__aexit__")
async def leaves_too_early(original: Any, cache: Any, *error: object) -> None:
    notes(cache)["leaving"] = asyncio.create_task(original(cache, *error))


@in_place_of("__aexit__")
async def never_ends_the_clean_up(original: Any, cache: Any, *error: object) -> None:
    await cache.__aenter__()
    await original(cache, *error)


@in_place_of("__aexit__")
async def _cancel_what_is_noted(original: Any, cache: Any, *error: object) -> None:
    for task in notes(cache).values():
        if not task.cancelling():
            task.cancel()
    await original(cache, *error)


cancels_all_loads = _cancel_what_is_noted + joins_the_abandoned
