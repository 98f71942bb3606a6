"""Faults of run_sync, and the twins that fail in processes of their own, which load them here."""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.kit.fakes import Beside
from tests.kit.twins import Fault, Twin, build, override, patch

FILE = "bridges/run_sync"
Call = Callable[..., Any]


def around(change: Callable[[Call, Any, float | None], Any]) -> Fault:
    """Another `run_sync`: `change` gets the original, the coroutine and the timeout."""

    def make(original: Call) -> Call:
        return lambda coro, *, timeout=None: change(original, coro, timeout)

    return override("run_sync", make)


def seeing(name: str, **others: Any) -> Fault:
    """The component sees these in the place of what the module of that name has."""

    def change(module: ModuleType) -> None:
        seen = vars(getattr(module, name)) | others
        setattr(module, name, SimpleNamespace(**seen))

    return patch(change)


def without_hooks(*names: str) -> Fault:
    """These hooks of a fork ("before") or the exit ("atexit") are never registered."""
    prelude = f"""
import atexit, os
_register, _at_fork = atexit.register, os.register_at_fork
if "atexit" in {names}:
    atexit.register = lambda hook: hook
os.register_at_fork = lambda **hooks: _at_fork(
    **{{name: hook for name, hook in hooks.items() if name not in {names}}}
)
"""
    epilogue = "\natexit.register, os.register_at_fork = _register, _at_fork\n"
    return Fault(source=lambda source: prelude + source + epilogue)


LEAVES_IT = Twin(
    "leaves the coroutine running when it is interrupted",
    around(lambda original, coro, timeout: Beside(original, coro, timeout=timeout).result()),
    "AssertionError: left running",
)
KEEPS_THREADS = Twin(
    "keeps idle threads over a fork",
    without_hooks("before", "after_in_parent"),
    ("AssertionError: multi-threaded", "AssertionError: a thread is idle"),  # from 3.12 on, 3.11
)
SHUT_IN_THE_PARENT = Twin(
    "keeps nothing idle after a fork",
    without_hooks("after_in_parent"),
    "AssertionError: nothing is kept",
)
SHUT_IN_THE_CHILD = Twin(
    "keeps nothing idle in a child",
    without_hooks("after_in_child"),
    "AssertionError: nothing is kept",
)
CLOSES_THE_PARENTS = Twin(
    "closes the loop that a child inherits",
    seeing("os", getpid=lambda: 1),
    "AssertionError: Timeout",
)
OPEN_AT_EXIT = Twin(
    "leaves loops and threads open at exit",
    without_hooks("atexit"),
    "AssertionError: left open",
)
SUBPROCESS = [
    LEAVES_IT,
    KEEPS_THREADS,
    SHUT_IN_THE_PARENT,
    SHUT_IN_THE_CHILD,
    CLOSES_THE_PARENTS,
    OPEN_AT_EXIT,
]
IMPORT = "from reference_impl.bridges.run_sync import run_sync"


def load(twin: Twin) -> str:
    """The statement that gives a process the twin's `run_sync` instead of IMPORT's."""
    return f"from tests.bridges.run_sync import faults; run_sync = faults.loaded({twin.name!r})"


def loaded(name: str) -> Any:
    """In that process: the twin's `run_sync`."""
    (twin,) = (twin for twin in SUBPROCESS if twin.name == name)
    return build(FILE, twin.fault).run_sync
