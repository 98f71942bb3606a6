"""The harness that interrupts: it finds what a handler's exception breaks, and nothing else."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit.fakes import Beside
from tests.kit.interrupts import Ending, Hang, Interrupts, asleep, elsewhere, patience
from tests.kit.twins import Twin, patch


class Counter:
    """A count behind a lock, in several ways."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.condition = threading.Condition(self.lock)
        self.count = self.calls = 0

    def locked(self) -> None:
        """Holds: `with` on the lock itself, and one commit."""
        with self.lock:
            self.count, self.calls = self.count + 1, self.calls + 1

    def in_two_steps(self) -> None:
        """A call stands between the two counts."""
        with self.lock:
            self.count += 1
            len("a call")
            self.calls += 1

    def by_hand(self) -> None:
        """The lock is lost if a handler raises as `acquire` returns."""
        self.lock.acquire()
        try:
            self.count, self.calls = self.count + 1, self.calls + 1
        finally:
            self.lock.release()

    def through_a_function(self) -> None:
        """`with condition` enters a Python function, which loses the lock as it returns."""
        with self.condition:
            self.count, self.calls = self.count + 1, self.calls + 1

    def mended_once(self) -> None:
        """A second exception cuts what makes up for the first."""
        with self.lock:
            self.count += 1
            try:
                len("a call")
            except BaseException:
                len("another")
                self.calls += 1
                raise
            self.calls += 1


def looks_at_it(counter: Counter, ending: Ending) -> None:
    elsewhere(counter.locked)
    assert counter.count == counter.calls, "half a call"
    assert counter.count == 2 or ending.interrupted


def test_what_holds_is_interrupted_at_each_point(interrupts: Interrupts) -> None:
    """On entry, and as `with` has released the lock: two points, and two pairs of them."""
    counted = interrupts.prove(Counter, Counter.locked, looks_at_it)
    assert counted == 2


FAULTS: list[tuple[Callable[[Counter], None], str, bool]] = [
    (Counter.in_two_steps, "AssertionError: half a call", False),
    (Counter.by_hand, "hang", False),
    (Counter.through_a_function, "hang", False),
    (Counter.mended_once, "AssertionError: half a call", True),
]


@pytest.mark.parametrize(
    ("call", "fails", "twice"), FAULTS, ids=lambda each: getattr(each, "__name__", None)
)
def test_what_breaks_is_found(
    call: Callable[[Counter], None], fails: str, twice: bool, interrupts: Interrupts
) -> None:
    twin = Twin("breaks", patch(lambda _: None), fails)
    interrupts.catch(Counter, call, looks_at_it, twin=twin, twice=twice)


def test_one_interrupt_alone_does_not_break_what_is_mended_once(interrupts: Interrupts) -> None:
    def check(counter: Counter, _: Ending) -> None:
        assert counter.count == counter.calls, "half a call"

    assert interrupts.prove(Counter, Counter.mended_once, check, twice=False) > 2
    with pytest.raises(AssertionError, match="half a call") as caught:
        interrupts.prove(Counter, Counter.mended_once, check)
    assert "then as len returned to Counter.mended_once" in "".join(caught.value.__notes__)


@pytest.fixture(scope="module")
def gate() -> Iterator[threading.Event]:
    """It opens when the module is over, so that the thread outlives its test."""
    opened = threading.Event()
    yield opened
    opened.set()


def test_a_thread_that_a_twin_has_stranded_is_not_taken_for_one_that_was_forgotten(
    gate: threading.Event,
) -> None:
    known = threading.Event()

    def stranded() -> None:
        threading.current_thread()  # lists it, as starting a thread does
        known.set()
        gate.wait()

    with patience(0.01), pytest.raises(Hang):
        elsewhere(stranded)
    assert known.wait(60)  # the fixture of every test looks for threads next


def test_a_thread_that_only_runs_at_one_place_does_not_wait() -> None:
    """As one that has no processor: it stays there, and goes on by itself."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("the system does not tell whether a thread waits")
    gate, over = threading.Lock(), threading.Event()
    gate.acquire()

    def run() -> None:
        while not over.is_set():
            hashlib.sha256(bytes(1 << 20))  # in C, without the GIL
        gate.acquire()

    beside = Beside(run)
    ident, native = beside.ident or 0, beside.native_id or 0
    assert not any(asleep(ident, native) for _ in range(20))
    over.set()
    while not asleep(ident, native):
        pass
    gate.release()
    beside.result()
