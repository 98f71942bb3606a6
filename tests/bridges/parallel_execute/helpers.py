"""What the tests of parallel_execute share: gates, clocks, executors, views of its threads."""

import _thread
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.kit.fakes import PATIENCE, Clock
from tests.kit.primitives import Over, rebind, rebound
from tests.kit.proofs import Proof, Test, each_twin
from tests.kit.twins import Twin


class Gate(threading.Event):
    """Holds operations until it is opened; that nobody opens it in time fails the test."""

    patience = PATIENCE

    def pass_through(self) -> None:
        assert self.wait(self.patience), "the gate was not opened"


def failing(proofs: Iterable[Proof]) -> Test:
    """A test, to be named in the file, that each proof fails for its twins; gates may stay shut."""

    @each_twin(proofs)
    def fails(proof: Proof, twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Gate, "patience", 1.0)
        proof.must_fail(twin, "bridges/parallel_execute")

    return fails


@contextmanager
def clocked(m: ModuleType) -> Iterator[Clock]:
    """The module's time passes only when the clock is told."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(m, "time", SimpleNamespace(monotonic=clock))
        yield clock


class Asleep:
    """Counts who went to sleep, and for how long; who then gets the lock finds them asleep."""

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []
        self._begun = threading.Semaphore(0)

    def begin(self, timeout: float | None) -> None:
        self.timeouts.append(timeout)
        self._begun.release()

    def await_one(self) -> None:
        assert self._begun.acquire(timeout=Gate.patience), "nobody sleeps"


@contextmanager
def watch(m: ModuleType, *, workers: bool = False) -> Iterator[Asleep]:
    """Tells when the caller sleeps, or when the workers do."""
    caller, asleep = threading.get_ident(), Asleep()

    class Watched(Over):
        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            if self.inner.acquire(False):
                return True
            if blocking and (threading.get_ident() != caller) is workers:
                asleep.begin(None if timeout == -1 else timeout)
            return blocking and bool(self.inner.acquire(True, timeout))

    with rebound(m, Lock=lambda: Watched(threading.Lock())):
        yield asleep


@contextmanager
def started_at_once(m: ModuleType) -> Iterator[None]:
    """Threads are started in the caller's, as keys come, and not by another thread."""
    undo = rebind(m, _thread, start_new_thread=lambda function, arguments: function(*arguments))
    try:
        yield
    finally:
        undo()


class Inline(Executor):
    """Runs each call within `submit`: with it, every outcome is determined."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def fail(key: object) -> None:
    raise LookupError(key)


LATE = "DeadlineExceeded"  # stands for that type, of which each twin has its own


def outcomes(results: Iterable[Any]) -> list[Any]:
    """The values, and the errors' types."""
    return [r.value if r.is_success else kind(r.error) for r in results]


def kind(error: Exception) -> Any:
    """The error's type; LATE for that of the deadline."""
    late = type(error).__name__ == LATE and isinstance(error, TimeoutError)
    return LATE if late else type(error)


def own_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("parallel_execute-")]


def join_own_threads() -> None:
    for thread in own_threads():
        # It is listed from before its start, when it cannot be joined yet.
        thread._started.wait(PATIENCE)  # type: ignore[attr-defined]
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{thread.name} does not end"
