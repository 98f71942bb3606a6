"""Faults of AsyncPendingQueue's twins: other system calls, other arguments than it was given."""

import asyncio
import contextlib
import inspect
import os
import re
import stat
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.kit.twins import Fault, edit, override, patch, within

Upload = Callable[[Path], Awaitable[None]]


class StandIn:
    """A module with some names replaced; the rest is looked up at each use."""

    def __init__(self, module: Any, **names: Any) -> None:
        self.__dict__.update(names, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


PART = "queues/_spool"


def system(**faults: Callable[[Any], Any]) -> Fault:
    """System calls, by their names in `os`, are `fault(the real one)` for component and part."""

    def real(name: str) -> Callable[..., Any]:
        # Looked up at each call: a test that watches the calls replaces them meanwhile.
        return lambda *arguments, **options: getattr(os, name)(*arguments, **options)

    calls = {name: fault(real(name)) for name, fault in faults.items()}

    def change(m: ModuleType) -> None:
        vars(m)["os"] = StandIn(os, **calls)

    return patch(change) + within(PART, patch(change))


def moves(fault: Callable[[Any], Any]) -> Fault:
    """The rename that overwrites nothing is `fault(the real one)`."""
    return within(PART, override("rename_exclusively", fault))


def given(**changes: Callable[[Any], Any]) -> Fault:
    """The queue works with `change(the argument that it was given)`."""

    def make(original: Any) -> Any:
        signature = inspect.signature(original)

        def init(*arguments: Any, **options: Any) -> None:
            bound = signature.bind(*arguments, **options)
            bound.apply_defaults()
            for name, change in changes.items():
                bound.arguments[name] = change(bound.arguments[name])
            original(*bound.args, **bound.kwargs)

        return init

    return override("AsyncPendingQueue.__init__", make)


def one_more(name: str) -> Fault:
    """The queue works with one more than it was given."""
    return given(**{name: lambda most: most + 1})


def pausing(seconds: float) -> Fault:
    """Each pause is so long, whatever back-off it was given."""
    return given(backoff=lambda _: lambda failures: seconds)


def _puts_back(move: Any) -> Any:
    def call(source: str, target: str) -> None:
        if source.endswith(".processing"):
            Path(source).replace(Path(source).with_suffix(".queued"))
        else:
            move(source, target)

    return call


PUTS_BACK_BY_RENAME = moves(_puts_back)


def _found(**fields: int) -> Fault:
    """Of each file, lstat says this."""
    places = {"mode": 0, "nlink": 3}

    def make(lstat: Any) -> Any:
        def call(path: Any) -> os.stat_result:
            found = lstat(path)
            values = list(found)
            for name, value in fields.items():
                values[places[name]] = value
            times = {name: getattr(found, name) for name in dir(found) if name.endswith("_ns")}
            return os.stat_result(values, times)

        return call

    return system(lstat=make)


SEES_ONE_NAME = _found(nlink=1)
SEES_REGULAR_FILES = _found(mode=stat.S_IFREG | 0o644) + within(
    PART,
    override("is_open_for_writing", lambda _: lambda path: False),  # or it waits for a pipe
)


def _puts_back_with(change: Callable[[int], int]) -> Fault:
    """A file is put back with another number of attempts than it had."""

    def make(put_back: Any) -> Any:
        return lambda spool, name, attempts: put_back(spool, name, change(attempts))

    return within(PART, override("Spool.put_back", make))


COUNTS_CANCELLED = _puts_back_with(lambda attempts: max(1, attempts))
FORGETS_ATTEMPTS = _puts_back_with(lambda attempts: 0)
COUNTS_CLAIMS = within(PART, edit("Spool.claim", "self._count(name, before)", "pass"))


def sees_no(is_hidden: Callable[[Path], bool]) -> Fault:
    """It looks whether there is a file, and overlooks those."""

    def make(exists: Any) -> Any:
        return lambda path: not is_hidden(Path(path)) and exists(path)

    return within(PART, override("exists", make))


SEES_NO_SUFFIX_IN_USE = sees_no(lambda path: bool(re.search(r"-\d+\.processing$", path.name)))
STARTS_AGAIN = edit("Schedule.add", "name in self.running", "False")
SEES_NO_NEWER_FILE = sees_no(lambda path: path.suffix == ".queued")
LEAVES_ATTEMPTS = within(
    PART, edit("Spool.put_back", "self._count(stem, attempts)", "self._count(name, attempts)")
)


def _gives_no_reason(replace: Any) -> Any:
    def call(source: str, target: str) -> None:
        if target.endswith(".error.json"):
            Path(source).unlink()
        else:
            replace(source, target)

    return call


GIVES_NO_REASON = system(replace=_gives_no_reason)


def copies(*, first: Callable[[str], None] = lambda source: None) -> Fault:
    """A file gets its last name by a copy, before which this is done with the old one."""

    def make(rename: Any) -> Any:
        def call(source: str, target: str) -> None:
            if not source.endswith(".processing"):
                rename(source, target)
                return
            data = Path(source).read_bytes()
            first(source)
            Path(target).write_bytes(data)
            with contextlib.suppress(FileNotFoundError):
                Path(source).unlink()

        return call

    return system(rename=make)


def _submits_nothing(move: Any) -> Any:
    def call(source: str, target: str) -> None:
        if source.endswith(".tmp") and target.endswith(".queued"):
            Path(target).touch()
            Path(source).unlink()
        else:
            move(source, target)

    return call


SUBMITS_AN_EMPTY_FILE = moves(_submits_nothing)


def _hides_orphans(scandir: Any) -> Any:
    @contextlib.contextmanager
    def call(path: str) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(path) as entries:
            yield [entry for entry in entries if not entry.name.endswith(".processing")]

    return call


LEAVES_ORPHANS = system(scandir=_hides_orphans)


def counts_after_the_claim() -> Fault:
    """What should be written before the file is renamed is written after it."""
    late: list[tuple[str, int]] = []

    def truncate(_: Any) -> Any:
        return lambda path, size: late.append((path, size))

    def rename(rename: Any) -> Any:
        def call(source: str, target: str) -> None:
            rename(source, target)
            while late:
                os.truncate(*late.pop())

        return call

    return system(truncate=truncate, rename=rename)


# What a crash test catches, and how.
CRASHES: dict[str, tuple[Fault, str]] = {
    "unlinks the old name before there is the new one": (
        copies(first=lambda source: Path(source).unlink()),
        "lost {",
    ),
    "copies where it should rename": (copies(), "became two"),
    "leaves orphans": (LEAVES_ORPHANS, "are left alone"),
    "counts an attempt after the claim": (counts_after_the_claim(), "more attempts than allowed"),
    "submits a file before it is written": (SUBMITS_AN_EMPTY_FILE, "[('s.completed', '')]"),
    "gives up without saying why": (GIVES_NO_REASON, "says not why"),
}
# The same where the file system has no exclusive rename.
CRASHES_OF_LINKS: dict[str, tuple[Fault, str]] = {
    "takes a file of two names for two": (SEES_ONE_NAME, "ended otherwise"),
}


def keeps_files_in_children() -> Fault:
    """What a process has opened stays open in the children that it forks."""
    owners: dict[int, int] = {}

    def opens(call: Any) -> Any:
        def note(*arguments: Any) -> int:
            file = int(call(*arguments))
            owners[file] = os.getpid()
            return file

        return note

    def closes(call: Any) -> Any:
        return lambda file: owners.get(file) == os.getpid() and call(file)

    return system(open=opens, close=closes)


def uploads_in_batches() -> Fault:
    """Each upload keeps its slot until the others that run beside it have ended."""

    def batched(upload: Upload) -> Upload:
        running: set[Path] = set()

        async def call(path: Path) -> None:
            running.add(path)
            try:
                await upload(path)
            finally:
                running.discard(path)
            while running:
                await asyncio.sleep(0)

        return call

    return given(upload=batched)


def lets_uploads_go() -> Fault:
    """An upload goes on when its task is cancelled."""

    def shielded(upload: Upload) -> Upload:
        return lambda path: asyncio.shield(asyncio.ensure_future(upload(path)))

    return given(upload=shielded)


def stops(otherwise: Callable[[float | None], float | None]) -> Fault:
    """It stops with another time limit than it was given."""

    def make(stop: Any) -> Any:
        async def call(queue: Any, timeout: float | None = 30.0) -> None:
            await stop(queue, otherwise(timeout))

        return call

    return override("AsyncPendingQueue.stop", make)


STOPS_AT_ONCE = stops(lambda timeout: 0)


def _is_cancelling() -> bool:
    return any(task.cancelling() for task in asyncio.all_tasks())


STOPS_NO_TIMEOUT = stops(lambda timeout: None if _is_cancelling() else timeout)
