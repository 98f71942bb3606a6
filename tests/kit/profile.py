"""How much is explored: `quick` for each run of nox and verify, `full` for the evidence.

Every guarantee has its checks in both. What is small is exhausted in both; what is large is
searched by line instead of by opcode, cut after some schedules, or has fewer examples and kills.

`brief` is for copies of what another session proves: each check runs, with a few examples and
schedules, since the question is only whether it takes a file with other private names.
"""

import sys
from typing import Any, TypeVar

import pytest
from hypothesis import Phase, settings

T = TypeVar("T")
PROFILES = ("brief", "quick", "full")
_current: str = "quick"
_schedules: int | None = None


def name() -> str:
    """The profile of this run."""
    return _current


def budget(quick: T, full: T) -> T:
    """The one that this run can afford. Test modules may ask on import."""
    return full if _current == "full" else quick


def is_brief() -> bool:
    """Whether a few schedules do, since another session runs all of them."""
    return _current == "brief"


def most_schedules() -> int:
    """How many schedules a search may run: of more than those, so many are drawn."""
    return budget(400, sys.maxsize) if _schedules is None else _schedules or sys.maxsize


def same_each_time(examples: int, **others: Any) -> settings:
    """How Hypothesis looks for a twin's fault: on the same examples in each run."""
    others |= {"phases": [Phase.generate], "derandomize": True, "database": None}
    return settings(max_examples=examples, **others)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--profile",
        choices=PROFILES,
        default="quick",
        help="how much to explore: quick (the default), full as for the evidence, or brief",
    )
    parser.addoption(
        "--schedules",
        type=int,
        default=None,
        metavar="N",
        help="how many schedules a search may run; 0: all",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    global _current, _schedules
    _current = str(config.getoption("--profile"))
    _schedules = config.getoption("--schedules")
    # Threads share two noisy cores: an example's duration says nothing, so no deadline.
    for profile, examples in (("brief", 5), ("quick", 50), ("full", 100)):
        settings.register_profile(profile, deadline=None, print_blob=True, max_examples=examples)
    if config.getoption("--hypothesis-profile", None) is None:
        settings.load_profile(_current)
