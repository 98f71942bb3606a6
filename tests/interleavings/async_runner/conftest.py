"""AsyncRunner's models are built for a run, and nothing of them outlives it."""

import atexit
import threading

import pytest


@pytest.fixture(autouse=True)
def _no_exit_closes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runners of a model that are left do not outlive it in a hook of what is built meanwhile."""
    monkeypatch.setattr(atexit, "register", lambda hook: hook)
    monkeypatch.setattr(threading, "_register_atexit", lambda hook: hook)
