"""Faults of a cache that are made of its public methods: whatever the cache looks like inside."""

from collections.abc import Callable
from contextvars import Context, ContextVar
from dataclasses import replace
from types import ModuleType
from typing import Any

from tests.caches.ttl_cache.helpers import Deaf, Impatient
from tests.kit.primitives import rebind
from tests.kit.twins import Fault, override, patch

ABSENT: Any = object()
Named = tuple[str, Fault]  # what begins a twin


def wrapped(path: str, call: Callable[..., Any]) -> Fault:
    """`call(the original, *arguments)` in place of this method."""

    def make(original: Any) -> Any:
        def method(*arguments: Any, **options: Any) -> Any:
            return call(original, *arguments, **options)

        return method

    return override(path, make)


def in_place_of(method: str) -> Callable[[Callable[..., Any]], Callable[..., Named]]:
    """A function that is given the original first becomes a fault; its docstring is the name."""

    def decorate(call: Callable[..., Any]) -> Callable[..., Named]:
        def of(cache: str = "TTLCache") -> Named:
            return str(call.__doc__), wrapped(f"{cache}.{method}", call)

        return of

    return decorate


def counted(path: str, **wrong: Callable[[Any], int]) -> Fault:
    """`stats`, with counters that are computed from the right ones."""

    def make(stats: Any) -> Any:
        def read(cache: Any) -> Any:
            right = stats.fget(cache)
            return replace(right, **{name: count(right) for name, count in wrong.items()})

        return property(read)

    return override(path, make)


@in_place_of("get")
def does_not_refresh(_: Any, cache: Any, key: Any, default: Any = None) -> Any:
    """looks for a value among all items, which refreshes nothing"""
    return dict(cache.items()).get(key, default)


@in_place_of("get")
def renews(get: Any, cache: Any, key: Any, default: Any = None) -> Any:
    """renews what it reads"""
    found = get(cache, key, ABSENT)
    if found is ABSENT:
        return default
    cache.set(key, found)
    return found


@in_place_of("get")
def takes_none_for_absence(get: Any, cache: Any, key: Any, default: Any = None) -> Any:
    """takes None for absence"""
    found = get(cache, key)
    return default if found is None else found


@in_place_of("__contains__")
def looks_by_get(_: Any, cache: Any, key: Any) -> bool:
    """takes a look for a use"""
    return cache.get(key, ABSENT) is not ABSENT


@in_place_of("set")
def ignores_the_ttl(set_: Any, cache: Any, key: Any, value: Any, _: Any = None) -> None:
    """ignores an entry's own time to live"""
    set_(cache, key, value)


@in_place_of("delete")
def deletes_what_it_sees(delete: Any, cache: Any, key: Any) -> Any:
    """deletes only what is there already"""
    return key in cache and delete(cache, key)


@in_place_of("clear")
def clears_what_it_sees(_: Any, cache: Any) -> None:
    """clears key by key, and misses a load that is under way"""
    for key in cache.keys():  # noqa: SIM118 - no dict
        cache.delete(key)


@in_place_of("get_or_load")
def looks_then_loads(
    _: Any, cache: Any, key: Any, loader: Any, ttl: Any = None, **_more: Any
) -> Any:
    """looks, loads and sets in steps of their own"""
    found = cache.get(key, ABSENT)
    if found is ABSENT:
        found = loader()
        cache.set(key, found, ttl)
    return found


@in_place_of("get_or_load")
def stores_in_any_case(
    load: Any, cache: Any, key: Any, loader: Any, ttl: Any = None, **more: Any
) -> Any:
    """stores what it loaded, whatever came between"""
    value = load(cache, key, loader, ttl, **more)
    cache.set(key, value, ttl)
    return value


@in_place_of("get_or_load")
def swallows_the_failure(
    load: Any, cache: Any, key: Any, loader: Any, ttl: Any = None, **more: Any
) -> Any:
    """swallows the loader's failure"""
    try:
        return load(cache, key, loader, ttl, **more)
    except Exception:
        return None


@in_place_of("get_or_load")
def hands_on_an_interrupt(
    load: Any, cache: Any, key: Any, loader: Any, ttl: Any = None, **more: Any
) -> Any:
    """interrupts those who wait, too"""

    class Interrupted(Exception):
        pass

    def wrapping() -> Any:
        try:
            return loader()
        except KeyboardInterrupt as error:
            raise Interrupted from error

    try:
        return load(cache, key, wrapping, ttl, **more)
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise error.__cause__ from None
        raise


# Loads within loads.

_own: ContextVar[tuple[Any, ...]] = ContextVar("own", default=())
CIRCLE = "would wait for itself"


@in_place_of("get_or_load")
def sees_no_circle(
    load: Any, cache: Any, key: Any, loader: Any, ttl: Any = None, **more: Any
) -> Any:
    """sees no circle"""
    return Context().run(load, cache, key, loader, ttl, **more)


@in_place_of("get_or_load")
def sees_its_own_circles(
    load: Any, cache: Any, key: Any, loader: Any, ttl: Any = None, **more: Any
) -> Any:
    """looks for circles among its own thread's loads alone"""
    mine = _own.get()
    if (cache, key) in mine:
        raise RuntimeError(CIRCLE)

    def apart() -> Any:
        _own.set((*mine, (cache, key)))
        return load(cache, key, loader, ttl, **more)

    return Context().run(apart)


@in_place_of("get_or_load")
def refuses_to_wait(
    load: Any, cache: Any, key: Any, loader: Any, ttl: Any = None, **more: Any
) -> Any:
    """refuses every load that a loader would wait for"""
    if _own.get() and key not in cache:
        raise RuntimeError(CIRCLE)
    token = _own.set((key,))
    try:
        return load(cache, key, loader, ttl, **more)
    finally:
        _own.reset(token)


def _locks(lock: type) -> Fault:
    def change(module: ModuleType) -> None:
        rebind(module, Lock=lock)

    return patch(change)


impatient = _locks(Impatient)  # who would wait forever fails with "it hangs"
deaf = _locks(Deaf)  # who waits for a load is not told of its end


# The whole cache.


@in_place_of("__init__")
def has_room_for_one_more(
    make: Any, cache: Any, default_ttl: float = 3600.0, max_size: int | None = 1000, **more: Any
) -> None:
    """has room for one more"""
    make(cache, default_ttl, None if max_size is None else max_size + 1, **more)


@in_place_of("__init__")
def lives_longer(make: Any, cache: Any, default_ttl: float = 3600.0, **more: Any) -> None:
    """keeps an entry a moment too long"""
    make(cache, default_ttl + 0.0625, **more)


@in_place_of("set")
def drops_in_a_second_step(set_: Any, cache: Any, key: Any, value: Any, ttl: Any = None) -> None:
    """stores first and makes room in a second step"""  # in a cache for one entry
    set_(cache, key, value, ttl)
    while len(cache) > 1:
        cache.delete(cache.keys()[0])


def makes_room_too_late() -> Named:
    """Both of these."""
    name, fault = drops_in_a_second_step()
    return name, has_room_for_one_more()[1] + fault


# What leaves, and what is stale.


@in_place_of("__init__")
def tells_everything_twice(
    make: Any, cache: Any, *arguments: Any, on_evict: Any = None, **more: Any
) -> None:
    """tells everything twice"""

    def twice(*left: Any) -> None:
        on_evict(*left)
        on_evict(*left)

    make(cache, *arguments, on_evict=on_evict and twice, **more)


@in_place_of("__init__")
def gives_one_reason(
    make: Any, cache: Any, *arguments: Any, on_evict: Any = None, **more: Any
) -> None:
    """calls everything an eviction"""

    def tell(key: Any, value: Any, _reason: str) -> None:
        on_evict(key, value, "evicted")

    make(cache, *arguments, on_evict=on_evict and tell, **more)


@in_place_of("__init__")
def tells_later(make: Any, cache: Any, *arguments: Any, on_evict: Any = None, **more: Any) -> None:
    """tells of an entry when the next one leaves"""
    waiting = list[Any]()

    def tell(*left: Any) -> None:
        waiting.append(left)
        if len(waiting) > 1:
            on_evict(*waiting.pop(0))

    make(cache, *arguments, on_evict=on_evict and tell, **more)


def tells_what_it_saw() -> Named:
    """A fault of two methods."""
    listeners = dict[int, Any]()

    def make(init: Any, cache: Any, *arguments: Any, on_evict: Any = None, **more: Any) -> None:
        listeners[id(cache)] = on_evict
        init(cache, *arguments, **more)

    def delete(original: Any, cache: Any, key: Any) -> Any:
        value = dict(cache.items()).get(key, ABSENT)
        found = original(cache, key)
        if value is not ABSENT:
            listeners[id(cache)](key, value, "deleted")
        return found

    fault = wrapped("TTLCache.__init__", make) + wrapped("TTLCache.delete", delete)
    return "tells of what it saw before it deleted", fault


@in_place_of("get_or_load")
def knows_no_stale(
    load: Any, cache: Any, key: Any, loader: Any, ttl: Any = None, **_more: Any
) -> Any:
    """takes no stale value"""
    return load(cache, key, loader, ttl)


@in_place_of("get_or_load")
def stale_for_longer(
    load: Any, cache: Any, key: Any, loader: Any, ttl: Any = None, *, stale: Any = None, **more: Any
) -> Any:
    """takes a stale value a moment too long"""
    return load(cache, key, loader, ttl, **({"stale": stale + 0.0625} if stale else {}), **more)


@in_place_of("get_or_load")
def refreshes_each_time(
    load: Any, cache: Any, key: Any, loader: Any, ttl: Any = None, *, stale: Any = None, **more: Any
) -> Any:
    """lets each caller refresh a stale value"""
    if stale is None or key in cache:
        return load(cache, key, loader, ttl, **more)
    value = loader()
    cache.set(key, value, ttl)
    return value
