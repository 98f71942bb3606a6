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

from tests.kit.twins import Fault, edit, override, patch

Upload = Callable[[Path], Awaitable[None]]


class StandIn:
    """A module with some names replaced; the rest is looked up at each use."""

    def __init__(self, module: Any, **names: Any) -> None:
        self.__dict__.update(names, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def system(**faults: Callable[[Any], Any]) -> Fault:
    """System calls, by their names in `os`, are `fault(the real one)` for the module.

    However it makes them: by os, by os.path or by Path.
    """

    def real(name: str) -> Callable[..., Any]:
        # Looked up at each call: a test that watches the calls replaces them meanwhile.
        owner = os.path if name == "lexists" else os
        return lambda *arguments, **options: getattr(owner, name)(*arguments, **options)

    calls = {name: fault(real(name)) for name, fault in faults.items()}

    def moved(name: str) -> Callable[..., Path]:
        def call(path: Path, target: Any) -> Path:
            calls[name](path, target)
            return type(path)(target)

        return call

    def unlink(path: Path, missing_ok: bool = False) -> None:
        with contextlib.suppress(*[FileNotFoundError] * missing_ok):
            calls["unlink"](path)

    methods = {
        "rename": ("rename", moved("rename")),
        "replace": ("replace", moved("replace")),
        "link": ("hardlink_to", lambda path, target: calls["link"](target, path)),
        "unlink": ("unlink", unlink),
        "lstat": ("lstat", lambda path: calls["lstat"](path)),
    }

    def change(m: ModuleType) -> None:
        looks = {name: calls[name] for name in calls if name == "lexists"}
        vars(m)["os"] = StandIn(os, path=StandIn(os.path, **looks), **calls)
        found = dict(methods[name] for name in calls if name in methods)
        vars(m)["Path"] = type("Path", (type(Path()),), found)

    return patch(change)


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


def _puts_back(link: Any) -> Any:
    def call(source: Path, target: Path) -> None:
        if source.suffix == ".processing" and Path(target).suffix == ".queued":
            Path(source).replace(source.with_suffix(".queued"))
        else:
            link(source, target)

    return call


PUTS_BACK_BY_RENAME = system(link=_puts_back)


def _found(**fields: int) -> Fault:
    """Of each file, lstat says this."""
    places = {"mode": 0, "nlink": 3}

    def make(lstat: Any) -> Any:
        def call(path: Path) -> os.stat_result:
            values = list(lstat(path))
            for name, value in fields.items():
                values[places[name]] = value
            return os.stat_result(values)

        return call

    return system(lstat=make)


SEES_ONE_NAME = _found(nlink=1)
SEES_REGULAR_FILES = _found(mode=stat.S_IFREG | 0o644)
TAKES_NO_ATTEMPT_BACK = system(truncate=lambda _: lambda *arguments: None)


def sees_no(is_hidden: Callable[[Path], bool]) -> Fault:
    """It looks whether there is a file, and overlooks those."""
    return system(lexists=lambda lexists: lambda path: not is_hidden(Path(path)) and lexists(path))


SEES_NO_SUFFIX_IN_USE = sees_no(lambda path: bool(re.search(r"-\d+\.processing$", path.name)))
STARTS_AGAIN = edit("AsyncPendingQueue._offer", "name not in self._running", "True")
SEES_NO_NEWER_FILE = sees_no(lambda path: path.suffix == ".queued")


def _attempts_stay(replace: Any) -> Any:
    def call(source: Path, target: Path) -> None:
        if source.suffix != ".attempts":
            replace(source, target)

    return call


LEAVES_ATTEMPTS = system(replace=_attempts_stay)


def _gives_no_reason(replace: Any) -> Any:
    def call(source: Path, target: Path) -> None:
        if str(target).endswith(".error.json"):
            Path(source).unlink()
        else:
            replace(source, target)

    return call


GIVES_NO_REASON = system(replace=_gives_no_reason)


def copies(*, first: Callable[[Path], None] = lambda source: None) -> Fault:
    """A file gets its next name by a copy, before which this is done with the old one."""

    def make(link: Any) -> Any:
        def call(source: Path, target: Path) -> None:
            if Path(source).suffix != ".processing":
                link(source, target)
                return
            data = Path(source).read_bytes()
            first(source)
            Path(target).write_bytes(data)

        return call

    return system(link=make)


def _submits_nothing(link: Any) -> Any:
    def call(source: Path, target: Path) -> None:
        if Path(source).suffix == ".tmp":
            Path(target).touch()
        else:
            link(source, target)

    return call


SUBMITS_AN_EMPTY_FILE = system(link=_submits_nothing)


def _hides_orphans(scandir: Any) -> Any:
    @contextlib.contextmanager
    def call(path: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(path) as entries:
            yield [entry for entry in entries if not entry.name.endswith(".processing")]

    return call


LEAVES_ORPHANS = system(scandir=_hides_orphans)


def counts_after_the_claim() -> Fault:
    """What should be written before the file is renamed is written after it."""
    late: list[tuple[int, bytes]] = []

    def write(_: Any) -> Any:
        return lambda file, data: late.append((os.dup(file), data))

    def rename(rename: Any) -> Any:
        def call(source: Path, target: Path) -> None:
            rename(source, target)
            while late:
                file, data = late.pop()
                os.write(file, data)
                os.close(file)

        return call

    return system(write=write, rename=rename)


# What a crash test catches, and how.
CRASHES: dict[str, tuple[Fault, str]] = {
    "unlinks the old name before there is the new one": (
        copies(first=lambda source: source.unlink()),
        "lost {",
    ),
    "copies where it should link": (copies(), "became two"),
    "takes a file of two names for two": (SEES_ONE_NAME, "ended otherwise"),
    "leaves orphans": (LEAVES_ORPHANS, "are left alone"),
    "counts an attempt after the claim": (counts_after_the_claim(), "forgot attempts"),
    "submits a file before it is written": (SUBMITS_AN_EMPTY_FILE, "[('s.completed', '')]"),
    "gives up without saying why": (GIVES_NO_REASON, "says not why"),
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
