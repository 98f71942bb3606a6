"""What an asynchronous cache can get wrong, put into AsyncTTLCache from the outside."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

from tests.caches.async_ttl_cache.helpers import step
from tests.kit.twins import Fault, override, patch

_Loader = Callable[[], Awaitable[Any]]
_Ask = Callable[[_Loader], Awaitable[Any]]


def method(name: str, replacement: Callable[..., object]) -> Fault:
    """Calls `replacement(original, cache, ...)` in place of a method."""

    def make(original: Any) -> Callable[..., object]:
        return lambda cache, *args, **options: replacement(original, cache, *args, **options)

    return override(f"AsyncTTLCache.{name}", make)


def collaborator(name: str, **replaced: Any) -> Fault:
    """The module that the component imports under this name has other functions."""

    def change(module: ModuleType) -> None:
        setattr(module, name, SimpleNamespace(**(vars(getattr(module, name)) | replaced)))

    return patch(change)


def _load(fault: Callable[[_Ask, Any, Any, _Loader], Coroutine[Any, Any, Any]]) -> Fault:
    """Calls `fault(ask, cache, key, loader)` for get_or_load, where `ask(loader)` does it well."""

    def get_or_load(
        original: Any, cache: Any, key: Any, loader: _Loader, ttl: float | None = None
    ) -> Coroutine[Any, Any, Any]:
        return fault(lambda loader: original(cache, key, loader, ttl), cache, key, loader)

    return method("get_or_load", get_or_load)


def _notes(cache: Any) -> dict[Any, Any]:
    """What the fault keeps with the cache."""
    notes: dict[Any, Any] = vars(cache).setdefault("notes", {})
    return notes


async def _forever() -> NoReturn:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody ends it")


# Who is cancelled, and what becomes of the load.


def _task(ask: _Ask, cache: Any, key: Any, loader: _Loader) -> tuple[asyncio.Task[Any], bool]:
    """The one task of all who ask for the key, and whether it has just been made."""
    tasks = _notes(cache)
    if key in tasks:
        return tasks[key], False

    async def load() -> Any:
        return await ask(loader)

    tasks[key] = asyncio.create_task(load())
    tasks[key].add_done_callback(lambda _: tasks.pop(key, None))
    return tasks[key], True


async def _awaits_the_task(*asked: Any) -> Any:
    task, _ = _task(*asked)
    return await task


async def _first_takes_it_along(*asked: Any) -> Any:
    task, mine = _task(*asked)
    return await (task if mine else asyncio.shield(task))


async def _goes_on_for_nobody(*asked: Any) -> Any:
    task, _ = _task(*asked)
    return await asyncio.shield(task)


async def _is_joined_when_abandoned(ask: _Ask, cache: Any, key: Any, loader: _Loader) -> Any:
    running = _notes(cache).get(key)
    if running and running.cancelling():
        return await asyncio.shield(running)

    async def load() -> Any:
        _notes(cache)[key] = asyncio.current_task()
        try:
            return await loader()
        finally:
            _notes(cache).pop(key, None)

    return await ask(load)


async def _drops_what_has_ended(ask: _Ask, cache: Any, key: Any, loader: _Loader) -> Any:
    ended = list[object]()

    async def load() -> Any:
        value = await loader()
        ended.append(value)
        return value

    try:
        return await ask(load)
    except asyncio.CancelledError:
        if ended:
            await cache.delete(key)
        raise


async def _waits_after_a_cancellation(ask: _Ask, cache: Any, key: Any, loader: _Loader) -> Any:
    try:
        value = await ask(loader)
    except asyncio.CancelledError:
        _notes(cache)[key] = "cancelled"
        raise
    return await _forever() if key in _notes(cache) else value


shared_task = _load(_awaits_the_task)
first_takes_it_along = _load(_first_takes_it_along)
goes_on_for_nobody = _load(_goes_on_for_nobody)
joins_the_abandoned = _load(_is_joined_when_abandoned)
drops_what_has_ended = _load(_drops_what_has_ended)
waits_after_a_cancellation = _load(_waits_after_a_cancellation)


# How a load ends, and who hears of it.


def _failing(otherwise: Callable[[_Ask, _Loader], Awaitable[Any]]) -> Fault:
    """Whoever has joined a load that fails gets `otherwise` in place of its exception."""

    async def fault(ask: _Ask, _cache: Any, _key: Any, loader: _Loader) -> Any:
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

    return _load(fault)


async def _spreads_a_cancellation(ask: _Ask, cache: Any, key: Any, loader: _Loader) -> Any:
    joins = _notes(cache).setdefault(key, False)
    _notes(cache)[key] = True

    async def load() -> Any:
        if joins:  # the load that it had joined was cancelled
            raise asyncio.CancelledError
        return await loader()

    return await ask(load)


async def _stores_whatever_has_happened(ask: _Ask, cache: Any, key: Any, loader: _Loader) -> Any:
    value = await ask(loader)
    await cache.set(key, value)
    return value


async def _delete_what_is_there(original: Any, cache: Any, key: Any) -> Any:
    return key in cache and await original(cache, key)


async def _clear_what_is_there(_original: Any, cache: Any) -> None:
    for key in await cache.keys():
        await cache.delete(key)


strands_who_joined = _failing(lambda *_: _forever())
loads_again_for_who_joined = _failing(lambda ask, loader: ask(loader))
spreads_a_cancellation = _load(_spreads_a_cancellation)
stores_whatever_has_happened = _load(_stores_whatever_has_happened)
deletes_only_what_is_there = method("delete", _delete_what_is_there)
clears_one_by_one = method("clear", _clear_what_is_there)


# Loads within loads.

_WITHIN: ContextVar[tuple[Any, ...]] = ContextVar("_WITHIN", default=())


def _refuse_a_circle(cache: Any, key: Any) -> None:
    if (cache, key) in _WITHIN.get():
        raise RuntimeError(
            f"the load of {key!r} would wait for itself: its loader asks for that key, "
            "directly or by way of other loads; let it do without"
        )


async def _in_a_context_of_its_own(ask: _Ask, cache: Any, key: Any, loader: _Loader) -> Any:
    async def inner() -> Any:
        return await loader()

    context = Context()
    context.run(_WITHIN.set, ((cache, key),))
    return await ask(lambda: asyncio.create_task(inner(), context=context))


async def _knows_only_its_own_key(ask: _Ask, cache: Any, key: Any, loader: _Loader) -> Any:
    _refuse_a_circle(cache, key)
    return await _in_a_context_of_its_own(ask, cache, key, loader)


async def _knows_every_key_for_ever(ask: _Ask, cache: Any, key: Any, loader: _Loader) -> Any:
    _refuse_a_circle(cache, key)

    async def load() -> Any:
        _WITHIN.set((*_WITHIN.get(), (cache, key)))
        return await loader()

    return await ask(load)


forgets_who_asks = _load(_in_a_context_of_its_own)
knows_only_its_own_key = _load(_knows_only_its_own_key)
knows_every_key_for_ever = _load(_knows_every_key_for_ever)


# What is kept too long.

_VALUES: ContextVar[list[Any]] = ContextVar("_VALUES")


async def _keeps_the_error(ask: _Ask, _cache: Any, _key: Any, loader: _Loader) -> Any:
    kept = list[Exception]()
    try:
        return await ask(loader)
    except Exception as error:
        kept.append(error)  # whose traceback refers to this frame
        raise


async def _keeps_the_value(ask: _Ask, _cache: Any, _key: Any, loader: _Loader) -> Any:
    async def load() -> Any:
        values = list[Any]()
        _VALUES.set(values)
        values.append(await loader())
        return values[0]

    return await ask(load)


async def _keeps_the_loader(ask: _Ask, cache: Any, _key: Any, loader: _Loader) -> Any:
    _notes(cache)[object()] = loader
    return await ask(loader)


keeps_the_error = _load(_keeps_the_error)
keeps_the_value = _load(_keeps_the_value)
keeps_the_loader = _load(_keeps_the_loader)


# Steps that are not whole, and locks.


async def _suspend_and_call(original: Any, *arguments: Any) -> Any:
    await asyncio.sleep(0)
    return await original(*arguments)


async def _call_and_suspend(original: Any, *arguments: Any) -> Any:
    result = await original(*arguments)
    await asyncio.sleep(0)
    return result


async def _call_soon(original: Any, *arguments: Any) -> None:
    asyncio.get_running_loop().call_soon(step, original(*arguments))


async def _at_once(_: float) -> None: ...


def _with_a_lock(make: Callable[[], object]) -> Fault:
    def initialize(original: Any, cache: Any, *arguments: Any, **options: Any) -> None:
        original(cache, *arguments, **options)
        _notes(cache)["lock"] = make()

    return method("__init__", initialize)


set_suspends = method("set", _suspend_and_call)
get_suspends = method("get", _call_and_suspend)
sets_later = method("set", _call_soon)
cleans_up_in_one_go = collaborator("asyncio", sleep=_at_once)
sleeps_while_it_cleans_up = collaborator("asyncio", sleep=lambda _: asyncio.sleep(0.01))
has_an_asyncio_lock = _with_a_lock(lambda: asyncio.Lock())
has_a_thread_lock = _with_a_lock(lambda: threading.RLock())


# The mapping: expiry, bound, order of use, counters, cost.


def made_with(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Fault:
    """The cache gets other arguments than it is given by name."""

    def initialize(original: Any, cache: Any, *arguments: Any, **options: Any) -> None:
        original(cache, *arguments, **(options | change(options)))

    return method("__init__", initialize)


class _Unmoved(OrderedDict[Any, Any]):
    def move_to_end(self, key: Any, last: bool = True) -> None:
        pass


async def _none_is_no_value(original: Any, cache: Any, key: Any, default: Any = None) -> Any:
    found = await original(cache, key, default)
    return default if found is None else found


async def _look_through_all_keys(original: Any, cache: Any, key: Any) -> Any:
    return key in await cache.keys() and await original(cache, key)


async def _note_each_life(original: Any, cache: Any, key: Any, value: Any, ttl: Any = None) -> None:
    _notes(cache)[key] = ttl
    await original(cache, key, value, ttl)


evicts_the_oldest_write = patch(lambda module: setattr(module, "OrderedDict", _Unmoved))
none_is_no_value = method("get", _none_is_no_value)
searches_when_it_deletes = method("delete", _look_through_all_keys)
notes_each_life = method("set", _note_each_life)
counts_no_expiration = override(
    "AsyncTTLCache.stats",
    lambda original: property(lambda cache: replace(original.fget(cache), expirations=0)),
)


# `async with`.


async def _leave_later(original: Any, cache: Any, *error: object) -> None:
    _notes(cache)["leaving"] = asyncio.create_task(original(cache, *error))


async def _enter_and_leave(original: Any, cache: Any, *error: object) -> None:
    await cache.__aenter__()
    await original(cache, *error)


async def _wait_for_all_tasks(original: Any, cache: Any, *error: object) -> None:
    await original(cache, *error)
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})


async def _cancel_all_loads(original: Any, cache: Any, *error: object) -> None:
    for task in _notes(cache).values():
        if not task.cancelling():
            task.cancel()
    await original(cache, *error)


leaves_without_waiting = method("__aexit__", _leave_later)
keeps_the_timer = method("__aexit__", _enter_and_leave)
waits_for_all_tasks = method("__aexit__", _wait_for_all_tasks)
cancels_all_loads = method("__aexit__", _cancel_all_loads) + joins_the_abandoned
keeps_the_context = patch(lambda module: setattr(module, "Context", copy_context))


# Loops.

knows_no_loop = patch(lambda module: setattr(module, "get_running_loop", lambda: module))
