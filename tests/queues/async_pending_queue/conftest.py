"""Fixtures of AsyncPendingQueue's tests; a coroutine function runs on a loop of its own."""

import inspect
from pathlib import Path

import pytest

from tests.kit.fakes import run
from tests.queues.async_pending_queue.watch import PlainWatch


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run it as `run` does: a hang is a failure, and so is an exception that nobody sees."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "queue"
    path.mkdir()
    return path


@pytest.fixture
def plain_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    # By name: what imports the component here comes before `--copy`.
    monkeypatch.setattr("reference_impl.queues.async_pending_queue.DirectoryWatch", PlainWatch)
