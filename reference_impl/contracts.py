"""The contracts of the caches and of the buses, as pytest classes for implementations of your own.

In a test file of yours, with what makes yours in the place of the original:

    from mypkg.adapters import make_cache
    from reference_impl.contracts import CacheContract


    class TestMine(CacheContract):
        make = make_cache

pytest then runs every case of the contract against it. `make` is what makes a new object: a
class, a function, or a method (`def make(self, **arguments): return MyCache(**arguments)`).
A function whose parameters include `self` is taken for a method.

An implementation that offers less says so in the class, or inherits only the parts of the contract
that it is to keep: `class TestMine(ExpiryCases, BoundCases)`. Each part says which guarantee it is
and which operations it uses.

- `lacks = {"get_or_load", "on_evict"}` names operations, and keywords of the constructor: the
  cases that use one of them are skipped, as *not offered*.
- `test_of_that_name = None` leaves out a single case.

The cases are calls of one thread. What threads make of an implementation between them is shown by
`executable-guarantees prove --adapter`, which explores their interleavings.
"""

# The bases are found at run time only.
# mypy: disallow-subclassing-any=False, disable-error-code="name-defined"

import importlib
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

try:
    import pytest
except ImportError as error:
    raise ImportError(
        "the contracts are tests of pytest, which is not installed: "
        'pip install "executable-guarantees[prove]"'
    ) from error

__all__ = [
    "BadInputCases",
    "BlockingHarness",
    "BoundCases",
    "BusContract",
    "CacheContract",
    "Clock",
    "EvictionCases",
    "ExpiryCases",
    "InvalidationCases",
    "LeavingCases",
    "LoadingCases",
    "NoneCases",
    "StatsCases",
]

# The proofs' package has another name here: your project may have a package `tests` of its own.
_MOUNTED = "reference_impl._contract_cases"


def _proofs() -> Path:
    """The proofs: in an installation among the package's data, in a clone beside the package."""
    package = Path(__file__).resolve().parent
    places = [package / "_proofs" / "tests", package.parent / "tests"]
    for place in places:
        if (place / "contracts" / "cache_contract.py").is_file():
            return place
    raise ImportError(
        f"this installation of executable-guarantees lacks its proofs (in {places[0]}): "
        'install it anew, pip install --force-reinstall "executable-guarantees[prove]"'
    )


def _contract(name: str) -> Any:
    """The module of this name among the contracts; its assertions say what they compared."""
    if _MOUNTED not in sys.modules:
        spec = ModuleSpec(_MOUNTED, None, is_package=True)
        spec.submodule_search_locations = [str(_proofs())]
        pytest.register_assert_rewrite(_MOUNTED)
        sys.modules[_MOUNTED] = module_from_spec(spec)
    return importlib.import_module(f"{_MOUNTED}.contracts.{name}")


_caches = _contract("cache_contract")
_buses = _contract("bus_contract")


class Clock(_caches.Clock):
    """The clock that the cases give a cache as `clock`: it stands still until `tick(seconds)`."""


class ExpiryCases(_caches.ExpiryCases):
    """TC-2: only live entries can be seen, whichever way one looks.

    Uses: `get`, `set`, `delete`, `get_or_load`, `cleanup_expired`, `keys`, `items`, `size`, `len`,
    `in`.
    """


class BoundCases(_caches.BoundCases):
    """TC-3: never more than `max_size` entries.

    Uses: `set`, `get_or_load`, `keys`, `items`, `stats`, `len`.
    """


class EvictionCases(_caches.EvictionCases):
    """TC-4: room is made by expired entries first, then by the least recently used one.

    Uses: `get`, `set`, `get_or_load`, `keys`, `items`, `stats`, `len`, `in`.
    """


class StatsCases(_caches.StatsCases):
    """TC-5: the counters in `stats` agree with what happened.

    Uses: `get`, `set`, `delete`, `clear`, `get_or_load`, `cleanup_expired`, `keys`, `items`,
    `stats`, `size`, `len`, `in`.
    """


class LoadingCases(_caches.LoadingCases):
    """TC-6, the part of one thread: a value is loaded once, a failure is passed on, not stored.

    Uses: `get_or_load`, `in`.
    """


class InvalidationCases(_caches.InvalidationCases):
    """TC-7: a load never undoes what happened to its key while it ran.

    Uses: `get`, `set`, `delete`, `clear`, `get_or_load`, `cleanup_expired`, `in`.
    """


class NoneCases(_caches.NoneCases):
    """TC-10: `None` is a value like any other, and a key like any other.

    Uses: `get`, `set`, `get_or_load`, `keys`, `items`, `stats`, `in`.
    """


class LeavingCases(_caches.LeavingCases):
    """TC-11: `on_evict(key, value, reason)` is called once for each entry that leaves.

    Uses: `get`, `set`, `delete`, `clear`, `get_or_load`, `cleanup_expired`, `keys`, `items`,
    `size`, `len`, `in`, and the constructor's `on_evict`.
    """


class BadInputCases(_caches.BadInputCases):
    """Bad input is refused in TTLCache's words (`ttl must be ...`), and changes nothing.

    No guarantee has an ID for it. It is the strictest part: leave it out if yours refuses in other
    words, or takes what TTLCache refuses.

    Uses: `get`, `set`, `delete`, `get_or_load`, `items`, `stats`, `in`, and the constructor's
    `on_evict`.
    """


class CacheContract(
    ExpiryCases,
    BoundCases,
    EvictionCases,
    StatsCases,
    LoadingCases,
    InvalidationCases,
    NoneCases,
    LeavingCases,
    BadInputCases,
):
    """The whole contract of the caches: TC-2 to TC-5, TC-7, TC-10, TC-11, and of TC-6 a part.

    `make(**arguments)` gives a new, empty cache. The arguments are keywords of TTLCache's
    constructor:

    - `default_ttl`: seconds that an entry lives, 3600 if it is not given;
    - `max_size`: how many entries there are at most, 1000 if it is not given, None for no bound;
    - `clock`: a function that tells the seconds; the cache reads the time nowhere else;
    - `on_evict`: a function of key, value and reason, for `LeavingCases` and `BadInputCases` only.

    The cache has these operations, with the meaning that they have in TTLCache:

    - `get(key, default=None)`, `set(key, value, ttl=None)`, `delete(key) -> bool`, `clear()`;
    - `get_or_load(key, loader, ttl=None)`, where `loader` takes no argument;
      `BadInputCases` gives it a `stale` as well;
    - `cleanup_expired() -> int`, `keys() -> list` and `items() -> list`, the least recently used
      entry first, `len(cache)`, `key in cache`, and the property `size`;
    - the property `stats`, with `hits`, `misses`, `hit_rate`, `evictions`, `expirations`, `loads`
      and `load_failures`.

    The calls block. An asynchronous cache needs an adapter, whose loop runs in a thread.
    """


class BlockingHarness(_buses.BlockingHarness):
    """What `BusContract.make` returns for a bus whose calls block: `BlockingHarness(MyBus(...))`.

    The bus has EventBus's operations. It refuses in EventBus's words, with the exceptions of
    `reference_impl.buses.event`.
    """


class BusContract(_buses.BusContract):
    """The whole contract of the buses, for EventBus's interface.

    `make(limit=4, **options)` gives a new bus, not started, behind a harness. At most `limit` of
    its handlers run at once; the options are `max_queue`, `on_error` and `name`:

        class TestMine(BusContract):
            def make(self, limit=4, **options):
                return BlockingHarness(MyBus(limit, **options))

    The harness is what the cases call, from the test's thread but for `publish_in_handler`. Each
    call blocks until it is done:

    - the bus's own `start()`, `stop(timeout=None, *, drain=True) -> list`, `publish(event,
      timeout=None)`, `wait_idle(timeout=None)`, `subscribe(event_type, handler, *,
      ordered=False)`, `unsubscribe(event_type, handler) -> bool`, `stats` and `is_running`;
    - `publish_in_handler(event)`: publish from a handler, without waiting for room;
    - `gate()`: an object whose `handler` keeps each event in the list `seen`, then waits until
      `open()`; `await_entered(calls=1)` returns once that many more calls have begun;
    - `stopping(returned, drain=...)`: a handler that stops the bus and appends to the list what
      that returned;
    - `close()`: after the case; it opens the gates and stops the bus.

    `BlockingHarness` has all of it for a bus whose calls block. Events, statistics and exceptions
    are those of `reference_impl.buses.event`: a harness translates, if the bus has its own.
    """
