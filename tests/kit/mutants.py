"""How the tests run on a mutant: a pytest plugin that `site_build.mutation` adds to its copy.

Each test has a limit of its own, drawn from its time on the sound code; a test that takes
longer ends the process by SIGALRM, which nothing can hold up, so that a mutant that hangs is
told from one that fails. Quick tests come first. Hypothesis draws the same examples each time
and shrinks nothing, since the first failure settles it.
"""

import json
import signal
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import Phase, settings

# Signals, forks and processes outlive a mutant that is stopped, and most take their time.
_LEFT_OUT = {"run_python", "fork", "raise_signal", "pthread_kill", "setitimer", "Popen"}
_CLEAN = Path("mutmut-stats.json")  # in the folder that the tests run in; mutmut writes it

settings.register_profile(
    "mutation",
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
)


@cache
def _durations() -> dict[str, float]:
    """The seconds that each test took on the sound code; none while they are being measured."""
    if not _CLEAN.is_file():
        return {}
    found: dict[str, float] = json.loads(_CLEAN.read_text(encoding="utf-8"))["duration_by_test"]
    return found


def _is_left_out(item: pytest.Item) -> bool:
    code = getattr(getattr(item, "function", None), "__code__", None)
    return code is not None and not _LEFT_OUT.isdisjoint(code.co_names)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if _is_left_out(item)]
    config.hook.pytest_deselected(items=left_out)
    durations, files = _durations(), list(dict.fromkeys(item.path for item in items))
    items[:] = sorted(  # a file stays together, since fixtures may end with it
        (item for item in items if item not in left_out),
        key=lambda item: (files.index(item.path), durations.get(item.nodeid, 0.0)),
    )
    for item in items:  # pytest-timeout would use the same timer
        item.own_markers[:] = [mark for mark in item.own_markers if mark.name != "timeout"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    signal.setitimer(signal.ITIMER_REAL, 5 + 10 * _durations().get(item.nodeid, 6.0))
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
