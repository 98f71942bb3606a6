"""Faults of a cache that are made of its public methods: whatever the cache looks like inside.

Each function stands in for a method of TTLCache or ShardedCache and is given the original first;
`wrapped` puts it there.
"""

from collections.abc import Callable
from contextvars import Context, ContextVar
from dataclasses import replace
from types import ModuleType
from typing import Any

from tests.caches.ttl_cache.helpers import Impatient
from tests.kit.primitives import rebind
from tests.kit.twins import Fault, override, patch

ABSENT: Any = object()


def wrapped(path: str, call: Callable[..., Any]) -> Fault:
    """`call(the original, *arguments)` in place of this method."""

    def make(original: Any) -> Any:
        def method(*arguments: Any, **options: Any) -> Any:
            return call(original, *arguments, **options)

        return method

    return override(path, make)


def counted(path: str, **wrong: Callable[[Any], int]) -> Fault:
    """`stats`, with counters that are computed from the right ones."""

    def make(stats: Any) -> Any:
        def read(cache: Any) -> Any:
            right = stats.fget(cache)
            return replace(right, **{name: count(right) for name, count in wrong.items()})

        return property(read)

    return override(path, make)


# get, in, set.


def does_not_refresh(_: Any, cache: Any, key: Any, default: Any = None) -> Any:
    return dict(cache.items()).get(key, default)


def renews(get: Any, cache: Any, key: Any, default: Any = None) -> Any:
    found = get(cache, key, ABSENT)
    if found is ABSENT:
        return default
    cache.set(key, found)
    return found


def takes_none_for_absence(get: Any, cache: Any, key: Any, default: Any = None) -> Any:
    found = get(cache, key)
    return default if found is None else found


def looks_by_get(_: Any, cache: Any, key: Any) -> bool:
    return cache.get(key, ABSENT) is not ABSENT


def ignores_the_ttl(set_: Any, cache: Any, key: Any, value: Any, _: Any = None) -> None:
    set_(cache, key, value)


# delete, clear.


def deletes_what_it_sees(delete: Any, cache: Any, key: Any) -> bool:
    return key in cache and delete(cache, key)


def clears_what_it_sees(_: Any, cache: Any) -> None:
    for key in cache.keys():  # noqa: SIM118 - no dict
        cache.delete(key)


# get_or_load.


def looks_then_loads(_: Any, cache: Any, key: Any, loader: Any, ttl: Any = None) -> Any:
    found = cache.get(key, ABSENT)
    if found is ABSENT:
        found = loader()
        cache.set(key, found, ttl)
    return found


def stores_in_any_case(load: Any, cache: Any, key: Any, loader: Any, ttl: Any = None) -> Any:
    value = load(cache, key, loader, ttl)
    cache.set(key, value, ttl)
    return value


def swallows_the_failure(load: Any, cache: Any, key: Any, loader: Any, ttl: Any = None) -> Any:
    try:
        return load(cache, key, loader, ttl)
    except Exception:
        return None


def hands_on_an_interrupt(load: Any, cache: Any, key: Any, loader: Any, ttl: Any = None) -> Any:
    class Interrupted(Exception):
        pass

    def wrapping() -> Any:
        try:
            return loader()
        except KeyboardInterrupt as error:
            raise Interrupted from error

    try:
        return load(cache, key, wrapping, ttl)
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise error.__cause__ from None
        raise


# Loads within loads.

_own: ContextVar[tuple[Any, ...]] = ContextVar("own", default=())
CIRCLE = "would wait for itself"


def sees_no_circle(load: Any, cache: Any, key: Any, loader: Any, ttl: Any = None) -> Any:
    return Context().run(load, cache, key, loader, ttl)


def sees_its_own_circles(load: Any, cache: Any, key: Any, loader: Any, ttl: Any = None) -> Any:
    """Those of loads that one thread has begun, and not those by way of other threads."""
    mine = _own.get()
    if (cache, key) in mine:
        raise RuntimeError(CIRCLE)

    def apart() -> Any:
        _own.set((*mine, (cache, key)))
        return load(cache, key, loader, ttl)

    return Context().run(apart)


def refuses_to_wait(load: Any, cache: Any, key: Any, loader: Any, ttl: Any = None) -> Any:
    """Within a load, whether or not that is a circle."""
    if _own.get() and key not in cache:
        raise RuntimeError(CIRCLE)
    token = _own.set((key,))
    try:
        return load(cache, key, loader, ttl)
    finally:
        _own.reset(token)


def _impatient(module: ModuleType) -> None:
    rebind(module, Event=Impatient)


impatient = patch(_impatient)  # who would wait for ever fails with "it hangs"


# The whole cache.


def has_room_for_one_more(
    make: Any, cache: Any, default_ttl: float = 3600.0, max_size: int | None = 1000, **more: Any
) -> None:
    make(cache, default_ttl, None if max_size is None else max_size + 1, **more)


def lives_a_moment_longer(
    make: Any, cache: Any, default_ttl: float = 3600.0, *more: Any, **also: Any
) -> None:
    make(cache, default_ttl + 0.0625, *more, **also)


def drops_in_a_second_step(set_: Any, cache: Any, key: Any, value: Any, ttl: Any = None) -> None:
    """Of a cache for one entry that has room for one more."""
    set_(cache, key, value, ttl)
    while len(cache) > 1:
        cache.delete(cache.keys()[0])


MAKES_ROOM_TOO_LATE = wrapped("TTLCache.__init__", has_room_for_one_more) + wrapped(
    "TTLCache.set", drops_in_a_second_step
)
