"""What the tests of EventBus share: buses that end with their block, logs, hooks at waits."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from reference_impl.buses import event_bus
from reference_impl.buses.event import Event
from tests.kit.fakes import Gate
from tests.kit.primitives import Over, Waits, primitive, rebound
from tests.kit.primitives import watched as kit_watched
from tests.kit.proofs import Proof
from tests.kit.twins import Twin

Check = Callable[..., None]


class Proofs(list[Proof]):
    """A file's proofs, each check with its guarantee and its twins above it."""

    def prove(self, guarantee: str, *twins: Twin, **search: Any) -> Callable[[Check], Check]:
        """The check is one of them."""

        def add(check: Check) -> Check:
            self.append(Proof(guarantee, check, list(twins), **search))
            return check

        return add


@contextmanager
def running(m: ModuleType, *args: int, gates: int = 0, **options: Any) -> Iterator[Any]:
    """A started bus and its gates; afterwards the gates are open and the bus is stopped."""
    bus = m.EventBus(*args, **options)
    doors = [Gate() for _ in range(gates)]
    bus.start()
    try:
        yield (bus, *doors) if doors else bus
    finally:
        for door in doors:
            door.open()
        bus.stop()


def workers(name: str = "event-bus") -> list[threading.Thread]:
    """The threads of the bus of this name, in order of their making."""
    found = [thread for thread in threading.enumerate() if thread.name.startswith(f"{name}-")]
    return sorted(found, key=lambda thread: int(thread.name.rpartition("-")[2]))


@contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    """What the buses log meanwhile, those of twins included."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    keep, logger = Keep(), logging.getLogger(event_bus.__name__.rpartition(".")[0])
    logger.addHandler(keep)
    try:
        yield records
    finally:
        logger.removeHandler(keep)


class Hooks:
    """What happens at each wait of a watched bus; `waits` counts them.

    `muted` keeps wake-ups back until `unmute`, `impatient` waits without patience, and notes in
    `cut` how long it should have waited.
    """

    def __init__(self, waits: Waits) -> None:
        self.before: Callable[[], object] = lambda: None
        self.after: Callable[[], object] = lambda: None
        self.cut: list[float] = []
        self.muted = self.impatient = False
        self.kept: list[Any] = []
        self.waits, self.forget, self.await_waiting = waits, waits.forget, waits.await_waiting

    def unmute(self) -> None:
        """Give the wake-ups that were kept back."""
        self.muted = False
        while self.kept:
            self.kept.pop().release()

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Who waits meanwhile is interrupted."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        before, self.before = self.before, interrupt
        yield
        self.before = before


class _Lock(Over):
    """A lock of a bus: one that is ever acquired with a timeout is where threads wait."""

    def __init__(self, inner: Any, hooks: Hooks) -> None:
        super().__init__(inner)
        self._hooks = hooks
        self._bell: Any = None

    def acquire(self, *arguments: Any, timeout: float | None = None) -> bool:
        if timeout is None:
            return bool(self.inner.acquire(*arguments))
        bell = self._bell = self._bell or threading.Lock()
        if bell.acquire(blocking=False):
            return True
        hooks = self._hooks
        hooks.before()
        hooks.waits.begin(None if timeout < 0 else timeout)
        if hooks.impatient and timeout > 0:
            hooks.cut.append(timeout)
            timeout = 0
        woken = bool(bell.acquire(timeout=timeout))
        hooks.after()
        return woken

    def release(self) -> None:
        if self._bell is None:
            self.inner.release()
        elif self._hooks.muted:
            self._hooks.kept.append(self._bell)
        else:
            self._bell.release()


@contextmanager
def hooked(m: ModuleType) -> Iterator[Hooks]:
    """Watched, and with hooks at the waits of the buses made within the block."""
    with kit_watched(m) as waits:
        made, hooks = primitive(m, "Lock"), Hooks(waits)
        with rebound(m, Lock=lambda: _Lock(made(), hooks)):
            yield hooks


@contextmanager
def watched(m: ModuleType) -> Iterator[Waits]:
    """Watch the waits and the locks of the buses that are made within the block."""
    with hooked(m) as hooks:
        yield hooks.waits


@contextmanager
def occupied(m: ModuleType, *waiting: Event, **options: Any) -> Iterator[tuple[Any, Gate, Hooks]]:
    """A bus whose only worker is held by a handler of "gate"; these events wait behind."""
    with hooked(m) as hooks, running(m, 1, gates=1, **options) as (bus, gate):
        bus.subscribe("gate", gate)
        bus.publish(Event("gate"))
        gate.await_entered()
        for event in waiting:
            bus.publish(event)
        hooks.forget()
        yield bus, gate, hooks
