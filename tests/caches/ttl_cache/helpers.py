"""What the tests of TTLCache and ShardedCache share."""

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from types import FrameType, FunctionType, ModuleType
from typing import Any

from tests.contracts import cache_contract as contract
from tests.kit import primitives
from tests.kit.copies import own_file
from tests.kit.fakes import PATIENCE, Beside, Gate
from tests.kit.proofs import Proof
from tests.kit.twins import Fault, Twin

Check = Callable[[ModuleType], None]


class Cases(contract.OfModule):
    """The contract's cases on a module's TTLCache."""

    def make(self, **arguments: Any) -> Any:
        return self.module.TTLCache(**arguments)


class Loader(Gate):
    """A loader that waits at a gate, which opens at the end of its block at the latest."""

    def __init__(self, result: Callable[[], Any]) -> None:
        super().__init__()
        self._result = result

    def __call__(self, given: Any = None) -> Any:
        super().__call__(given)
        return self._result()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.open()

    @property
    def calls(self) -> int:
        """How many threads have come."""
        return len(self.seen)


class Later(Executor):
    """Keeps what it is given until it is told to run it, or to drop it."""

    def __init__(self) -> None:
        self.jobs = list[Callable[[], object]]()

    def submit(self, fn: Callable[..., Any], /, *_arguments: Any, **_options: Any) -> Any:
        self.jobs.append(fn)  # the caches give no arguments, and use no future

    def run(self) -> int:
        """Run it here; returns how much there was."""
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()
        return len(jobs)


def proves(
    guarantee: str,
    check: Callable[..., object],
    name: str = "",
    fault: Fault | None = None,
    fails: str | tuple[str, ...] = "",
    **search: Any,
) -> Proof:
    """A row of a table: the check, and the twin that it catches, if it is given one."""
    return Proof(guarantee, check, [] if fault is None else [Twin(name, fault, fails)], **search)


def raises(error: BaseException) -> Callable[[], Any]:
    """A loader that raises it."""

    def fail() -> Any:
        raise error

    return fail


def outcome(call: Beside) -> Any:
    """What it gave or raised."""
    try:
        return call.result()
    except BaseException as error:
        return error


def until(condition: Callable[[], bool]) -> None:
    """Wait for what must come about; the deadline only ends a hang."""
    deadline, pause = time.monotonic() + PATIENCE, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        pause.wait(0.001)


class Tidings(primitives.Over):
    """A lock of which `acquire` waits for tidings (a load's end), and `with` excludes others."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Get it at once, or else wait."""
        if self.inner.acquire(blocking=False):
            return True
        return blocking and self.wait(timeout)

    def wait(self, timeout: float) -> bool:
        return bool(self.inner.acquire(timeout=timeout))


class Impatient(Tidings):
    """One for twins, of which no wait ends well."""

    def wait(self, timeout: float) -> bool:
        assert super().wait(0.2), "it hangs"
        return True


class Deaf(Tidings):
    """One for twins, whose tidings go astray."""

    def release(self) -> None:
        pass


@contextmanager
def watched(m: ModuleType) -> Iterator[primitives.Waits]:
    """The kit's view of who waits and who holds a lock, with waits for the end of a load."""

    class Watched(Tidings):
        def wait(self, timeout: float) -> bool:
            waits.begin(timeout)
            return super().wait(timeout)

        def __enter__(self) -> bool:
            self.inner.acquire()
            waits.holds(+1)
            return True

        def __exit__(self, *_: object) -> None:
            waits.holds(-1)
            self.inner.release()

    with primitives.watched(m) as waits, primitives.rebound(m, Lock=Watched):
        yield waits


class Key:
    """A key that counts how often any key is hashed or compared; `alive` is as long as it lives."""

    work = 0

    def __init__(self, number: int, alive: list[int] | None = None) -> None:
        self.number = number
        self.alive = [] if alive is None else alive
        self.alive.append(number)

    def __del__(self) -> None:
        self.alive.remove(self.number)

    def __hash__(self) -> int:
        Key.work += 1
        return hash(self.number)

    def __eq__(self, other: object) -> bool:
        Key.work += 1
        return isinstance(other, Key) and self.number == other.number


def steps(m: ModuleType, action: Callable[[], object]) -> int:
    """The lines of the component that `action` runs, and the hashes and comparisons of keys."""
    lines, file = 0, own_file(m)

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != file:
            return None
        lines += event == "line"
        return trace

    before, work = sys.gettrace(), Key.work
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return lines + Key.work - work


def reach(root: object) -> int:
    """How many objects it keeps alive, code and classes apart."""
    seen, todo = dict[int, object](), [root]
    while todo:
        each = todo.pop()
        if id(each) not in seen and not isinstance(each, type | ModuleType | FunctionType):
            seen[id(each)] = each
            todo += gc.get_referents(each)
    return len(seen)
