"""Caches for asyncio that each break one expectation, and one that breaks none."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ClassVar

from peers.adapters.async_caches import AsyncCache

_loading: ContextVar[tuple[Any, ...]] = ContextVar("_loading", default=())


class _Load:
    """A load in progress, and how many wait for it."""

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self.task = task
        self.waiters = 0


class _Cache:
    """One load for each key, in a task of its own, which lives as long as somebody waits."""

    def __init__(self, function: Callable[[Any], Any], size: int = 100) -> None:
        self.function = function
        self.size = size
        self.values: OrderedDict[Any, Any] = OrderedDict()
        self.loads: dict[Any, _Load] = {}

    async def __call__(self, key: Any) -> Any:
        if self.has(key):
            self.touch(key)
            return self.values[key]
        self.refuse_circle(key)
        load = self.loads.get(key)
        if load is None:
            load = await self.begin(key)
        return await self.wait_for(key, load)

    def has(self, key: Any) -> bool:
        return key in self.values

    def touch(self, key: Any) -> None:
        self.values.move_to_end(key)

    def refuse_circle(self, key: Any) -> None:
        if (id(self), key) in _loading.get():
            raise RuntimeError(f"the load of {key!r} asks for itself")

    async def begin(self, key: Any) -> _Load:
        load = _Load(asyncio.create_task(self.load(key)))
        self.loads[key] = load
        load.task.add_done_callback(lambda _: self.end(key, load))
        return load

    async def load(self, key: Any) -> Any:
        _loading.set((*_loading.get(), (id(self), key)))
        return await self.function(key)

    async def wait_for(self, key: Any, load: _Load) -> Any:
        load.waiters += 1
        try:
            return await asyncio.shield(load.task)
        finally:
            load.waiters -= 1
            if not load.waiters and not load.task.done():
                self.forget(key, load)
                load.task.cancel()

    def end(self, key: Any, load: _Load) -> None:
        current = self.loads.get(key) is load
        self.forget(key, load)
        if current and not load.task.cancelled() and load.task.exception() is None:
            self.store(key, load.task.result())

    def forget(self, key: Any, load: _Load) -> None:
        if self.loads.get(key) is load:
            del self.loads[key]

    def store(self, key: Any, value: Any) -> None:
        self.values[key] = value
        self.touch(key)
        if len(self.values) > self.size:
            self.values.popitem(last=False)

    def drop(self, key: Any) -> None:
        self.values.pop(key, None)
        self.loads.pop(key, None)


class Sound(AsyncCache):
    """Keeps all."""

    name = "sound"
    documented = ""
    take_it = ""
    kind: ClassVar[type[_Cache]] = _Cache

    @classmethod
    def cached(cls, function: Callable[[Any], Any]) -> Any:
        return cls.kind(function)

    @classmethod
    def bounded(cls, function: Callable[[Any], Any], size: int) -> Any:
        return cls.kind(function, size)

    @staticmethod
    def invalidate(function: Any, key: Any) -> Any:
        function.drop(key)


class InvalidatesNothing(Sound):
    """Its adapter calls nothing."""

    @staticmethod
    def invalidate(function: Any, key: Any) -> Any:
        """Do nothing."""


class _EachLoads(_Cache):
    async def begin(self, key: Any) -> _Load:
        load = await super().begin(key)
        self.loads.pop(key)
        self.store(key, await load.task)
        return load


class EachLoads(Sound):
    """Each caller who misses loads."""

    kind = _EachLoads


class _Lease(_Cache):
    async def wait_for(self, key: Any, load: _Load) -> Any:
        done, _ = await asyncio.wait([load.task], timeout=2)
        return await load.task if done else await self.load(key)


class Lease(Sound):
    """Callers wait for two seconds at most, and then load themselves."""

    kind = _Lease


class _LateMark(_Cache):
    async def begin(self, key: Any) -> _Load:
        await asyncio.sleep(0)  # as the call to a lock elsewhere
        return await super().begin(key)


class LateMark(Sound):
    """It gives way between the look for a load and the mark that there is one."""

    kind = _LateMark


class _NoneIsMissing(_Cache):
    def has(self, key: Any) -> bool:
        return self.values.get(key) is not None


class NoneIsMissing(Sound):
    """It takes None for "not there"."""

    kind = _NoneIsMissing


class _Fifo(_Cache):
    def touch(self, key: Any) -> None:
        """Leave the order as it is."""


class Fifo(Sound):
    """It drops what was stored first."""

    kind = _Fifo


class _FirstLoads(_Cache):
    """The first caller loads in its own task, and tells the others."""

    async def __call__(self, key: Any) -> Any:
        if key in self.values:
            return self.values[key]
        if key in self.loads:
            return await asyncio.shield(self.loads[key].task)
        told: Any = asyncio.get_running_loop().create_future()
        self.loads[key] = _Load(told)
        try:
            value = await self.function(key)
        except BaseException as error:
            self.fail(key, told, error)
            raise
        del self.loads[key]
        self.values[key] = value
        told.set_result(value)
        return value

    def fail(self, key: Any, told: Any, error: BaseException) -> None:
        del self.loads[key]
        told.set_exception(error)
        told.exception()


class FirstLoads(Sound):
    """A cancellation of the first caller is told to the others."""

    kind = _FirstLoads


class _Forgetful(_FirstLoads):
    def fail(self, key: Any, told: Any, error: BaseException) -> None:
        del self.loads[key]


class Forgetful(Sound):
    """The first caller tells the others nothing when its load has failed."""

    kind = _Forgetful


class _Poisoned(_FirstLoads):
    def fail(self, key: Any, told: Any, error: BaseException) -> None:
        told.set_exception(error)
        told.exception()


class Poisoned(Sound):
    """A load that failed or was cancelled stays what later callers find."""

    kind = _Poisoned


class _NoShield(_Cache):
    async def wait_for(self, key: Any, load: _Load) -> Any:
        return await load.task


class NoShield(Sound):
    """Cancelling who waits cancels the load."""

    kind = _NoShield


class _WaitsForItself(_Cache):
    def refuse_circle(self, key: Any) -> None:
        """Take no notice."""


class WaitsForItself(Sound):
    """A load that asks for its own key waits for itself."""

    kind = _WaitsForItself


class _KnowsItself(_Cache):
    def refuse_circle(self, key: Any) -> None:
        if (id(self), key) in _loading.get()[-1:]:
            raise RuntimeError(f"the load of {key!r} asks for itself")


class KnowsItself(Sound):
    """It refuses a load that asks for its own key, but none that does so by way of another."""

    kind = _KnowsItself


class _OneAtATime(_Cache):
    async def load(self, key: Any) -> Any:
        async with self.one:
            return await super().load(key)

    def __init__(self, function: Callable[[Any], Any], size: int = 100) -> None:
        super().__init__(function, size)
        self.one = asyncio.Lock()


class OneAtATime(Sound):
    """One load at a time, whatever the key."""

    kind = _OneAtATime


class _StoresAnyway(_Cache):
    def end(self, key: Any, load: _Load) -> None:
        self.loads.setdefault(key, load)
        super().end(key, load)


class StoresAnyway(Sound):
    """A load stores its value, dropped or not."""

    kind = _StoresAnyway


class _FailureDrops(_Cache):
    def end(self, key: Any, load: _Load) -> None:
        super().end(key, load)
        if load.task.cancelled() or load.task.exception() is not None:
            self.drop(key)


class FailureDrops(Sound):
    """A load that fails drops its key, whoever stored a value there."""

    kind = _FailureDrops


class _FirstLoop(_Cache):
    loop: Any = None

    async def begin(self, key: Any) -> _Load:
        self.loop = self.loop or asyncio.get_running_loop()
        self.loop.call_soon(lambda: None)  # a closed loop refuses
        return await super().begin(key)


class FirstLoop(Sound):
    """It keeps the loop that used it first."""

    kind = _FirstLoop


class _OneForAll(_Cache):
    shared: ClassVar[dict[Any, _Load]] = {}

    def __init__(self, function: Callable[[Any], Any], size: int = 100) -> None:
        super().__init__(function, size)
        self.loads = self.shared


class OneForAll(Sound):
    """Loads in progress are kept by key, for all caches together."""

    kind = _OneForAll


SOUND = Sound
CONTROLS = {
    "adapter_sound": InvalidatesNothing,
    "single_flight": EachLoads,
    "single_flight_slow": Lease,
    "explored": LateMark,
    "explored_cancellation": FirstLoads,
    "none_cached": NoneIsMissing,
    "exact_lru": Fifo,
    "cancelled_first_caller": FirstLoads,
    "cancelled_waiter": NoShield,
    "cancelled_alone": Poisoned,
    "failing_loader": Forgetful,
    "failure_not_stored": Poisoned,
    "recursion": WaitsForItself,
    "circle": KnowsItself,
    "other_keys": OneAtATime,
    "invalidation": StoresAnyway,
    "late_failure": FailureDrops,
    "two_loops": FirstLoop,
    "same_key_two_caches": OneForAll,
}
