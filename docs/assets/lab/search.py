"""Searches a check for an interleaving that loses, as the page asks."""

import asyncio
import contextlib
import gc
import importlib
import inspect
import json
import linecache
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import fibers  # before interleave_test explores

from tests.kit import recording, showing

ROOT = Path("/lab")  # where the archive is unpacked
_PACKAGES = ("reference_impl", "tests.scenes")  # what readers edit
_MANY = 400  # steps of a trace, of which a reader can make nothing any more
sys.dont_write_bytecode = True

Tell = Callable[[int | str], None]  # the number of schedules, or what is done now


class Broken(Exception):
    """The edited text cannot be run; says where."""

    def __init__(self, error: BaseException, files: Sequence[str]) -> None:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
        place = getattr(error, "filename", None), getattr(error, "lineno", None)
        if place[0] not in files and frames:  # not a syntax error of the text itself
            place = frames[-1].filename, frames[-1].lineno
        file, self.line = place
        self.file = Path(file or files[0]).name
        self.told = f"{type(error).__name__}: {getattr(error, 'msg', None) or error}"


def search(asked: str, tell: Tell) -> str:
    """Explore the check's model of the files; with the trace, if an interleaving loses."""
    return json.dumps(_searched(json.loads(asked), tell))


def _searched(request: dict[str, Any], tell: Tell) -> dict[str, Any]:
    try:
        module = _module(request["files"])
        model = _model(request["scene"]["check"], request["check"])
    except Broken as broken:
        return {"kind": "broken", "file": broken.file, "line": broken.line, "text": broken.told}
    explore = _tasks if inspect.iscoroutinefunction(model) else _threads
    request["traced"] = [str(ROOT / name) for name in request["scene"]["traced"]]
    result = explore(module, model, request, tell)
    gc.collect()
    result["suspended"], result["objects"] = fibers.suspended(), len(gc.get_objects())
    return result


_imported: tuple[dict[str, str], ModuleType] | None = None


def _module(files: dict[str, str]) -> ModuleType:
    """The first of the files as a fresh import, all of them as they were edited."""
    global _imported
    if _imported is not None and _imported[0] == files:
        return _imported[1]
    for name in [name for name in sys.modules if name.startswith(_PACKAGES)]:
        del sys.modules[name]
    for name, text in files.items():
        (ROOT / name).write_text(text, encoding="utf-8")
    linecache.clearcache()
    importlib.invalidate_caches()
    first = next(iter(files))
    try:
        module = importlib.import_module(first.removesuffix(".py").replace("/", "."))
    except BaseException as error:
        raise Broken(error, [str(ROOT / name) for name in files]) from None
    _imported = files, module
    return module


def _model(name: str, text: str) -> Callable[[ModuleType], Any]:
    """The check's own function. It is not traced, as in the proofs."""
    file = f"/check/{name}"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    space: dict[str, Any] = {"__name__": name.removesuffix(".py")}
    try:
        exec(compile(text, file, "exec"), space)
        if not callable(space.get("model")):
            raise TypeError("the check must define model(module)")
    except BaseException as error:
        raise Broken(error, [file]) from None
    model: Callable[[ModuleType], Any] = space["model"]
    return model


class _Counter:
    """Counts the schedules, and tells of them ten times a second."""

    def __init__(self, tell: Tell) -> None:
        self._count, self._tell, self._last = 0, tell, 0.0
        self._began = time.perf_counter()

    def __call__(self) -> None:
        self._count += 1
        now = time.perf_counter()
        if now - self._last > 0.1:
            self._last = now
            self._tell(self._count)

    def seconds(self) -> float:
        """How long the search has taken, without the recording of what it found."""
        return time.perf_counter() - self._began


def _threads(module: ModuleType, model: Any, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
    import interleave_test

    count = _Counter(tell)

    def counted() -> None:
        count()
        model(module)

    result = interleave_test.explore(
        counted,
        strategy="dfs",
        max_preemptions=request["bound"],
        granularity=request["by"],
        iterations=request["limit"],
        include=request["traced"],
        seed=0,
        raise_on_failure=False,
    )
    told = {"schedules": result.schedules_run, "exhausted": result.exhausted}
    told["seconds"] = count.seconds()
    if result.failure is None:
        return {"kind": "holds", **told}
    tell("recording")
    view = recording.View(module, **request["scene"]["view"])
    run = recording.threads(lambda: model(module), result.failure.schedule, view, request["traced"])
    return {"kind": "found", **told, "trace": _trace(run, view, request, result.schedules_run)}


@contextlib.contextmanager
def _outside_a_loop() -> Iterator[None]:
    """Detangle runs its own loop: the page's must not be seen, and no stack is suspended."""
    running = asyncio.events._get_running_loop()
    asyncio.events._set_running_loop(None)
    gc.enable()
    try:
        yield
    finally:
        gc.disable()
        asyncio.events._set_running_loop(running)


def _tasks(module: ModuleType, model: Any, request: dict[str, Any], tell: Tell) -> dict[str, Any]:
    import detangle

    count = _Counter(tell)

    async def counted() -> None:
        count()
        await model(module)

    with _outside_a_loop():
        try:
            strategy = detangle.DFS(max_delays=request["bound"])
            options = {"runs": request["limit"], "database": False}
            stats = detangle.explore(counted, strategy=strategy, **options)
        except detangle.BugFound as found:
            told = {"schedules": found.report.runs, "exhausted": False, "seconds": count.seconds()}
            tell("recording")
            view, runs = recording.View(module, **request["scene"]["view"]), found.report.runs
            run = recording.tasks(counted, found.report.token, view, request["traced"], "counted")
            trace = _trace(run, view, request, runs)
            return {"kind": "found", **told, "trace": trace}
    told = {"schedules": stats.runs, "exhausted": stats.exhausted, "seconds": count.seconds()}
    return {"kind": "holds", **told}


def _trace(
    run: recording.Run, view: recording.View, request: dict[str, Any], schedule: int
) -> dict[str, Any]:
    """What the player shows: nobody has chosen the lines that matter, nor told a story."""
    shown = showing.contended(run, view)
    steps = showing.main_steps(shown)[:_MANY]
    names = {Path(name).name: name for name in request["files"]}
    for step in steps:
        names.setdefault(step["file"], step["_code"].co_filename)
    texts = {name: (ROOT / path).read_text(encoding="utf-8") for name, path in names.items()}
    originals = {Path(name).name: text for name, text in request["originals"].items()}
    return {
        "title": "An interleaving that loses",
        "kind": request["scene"]["kind"],
        "found": {"schedule": schedule, "by": request["by"], "bound": request["bound"]},
        "lanes": shown.lanes,
        "source": showing.excerpts(steps, texts, originals),
        "steps": showing.packed(steps),
        "outcome": shown.outcome,
        **({"circle": shown.circle} if shown.circle else {}),
    }
