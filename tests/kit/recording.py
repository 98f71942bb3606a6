"""A schedule that loses, replayed and written down step by step: what a page needs to show it.

Only the standard library and the explorers: the lab in the page records with this same file.
A step is a source line as one thread or task has executed it, with what is shared as it is
*after* it. interleave-test has no hook for that: two of its private methods are wrapped, and
its version is pinned.
"""

import asyncio
import contextlib
import dis
import linecache
import re
import reprlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import CodeType, FrameType, ModuleType
from typing import Any

_short = reprlib.Repr()
_short.maxstring, _short.maxother, _short.maxlevel = 40, 60, 3
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_MODULE = re.compile(r"\b[\w.]+__(?:twin\d+|edited)\.")

Step = dict[str, Any]


@dataclass
class View:
    """What of a run is shown; as in the scenes' files."""

    module: ModuleType
    subject: str = ""
    watch: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    locals: Sequence[str] | None = None
    functions: Sequence[str] = ()
    lines: Sequence[str] = ()
    locks: dict[str, str] = field(default_factory=dict)
    signals: Sequence[str] = ()  # locks that wake somebody: nobody holds them


@dataclass
class Run:
    """All steps of a replayed schedule, and how it ended."""

    lanes: dict[str, str]
    steps: list[Step]
    outcome: dict[str, str]
    circle: list[list[str | None]] = field(default_factory=list)
    switches: list[tuple[Any, Any, int]] = field(default_factory=list)


def say(value: object) -> str:
    """A short repr, the same in each run."""
    try:
        text = _short.repr(value)
    except Exception as error:  # an object that is still being made
        text = f"<{type(value).__name__}: {type(error).__name__}>"
    return _MODULE.sub("", _ADDRESS.sub("", text))


class _Notes:
    """Collects the steps; each is completed when the next one begins."""

    def __init__(self, view: View) -> None:
        self._view = view
        # Who holds and who awaits what: for the explorer to say.
        self.waiting: Callable[[], tuple[dict[str, str | None], dict[str, str]]] = lambda: ({}, {})
        self._subjects: list[Any] = []
        self.steps: list[Step] = []
        self.lanes: dict[str, str] = {}
        self._last: dict[str, Step] = {}  # by thread
        self._lines: dict[tuple[str, int], int] = {}  # where each frame stands

    def note(self, thread: str, frame: FrameType, line: int, offset: int | None = None) -> None:
        """`thread` goes on with this line, or with this instruction of it."""
        self._see(frame)
        place = thread, id(frame)
        last = self._last.get(thread)
        was_left = bool(self.steps) and self.steps[-1]["t"] != thread
        goes_on = self._lines.get(place) == line and not (
            last is not None and last["_frame"] is frame and _jumps_back(last, offset)
        )
        self._lines[place] = line
        if last is not None and "result" in last and not was_left:
            before = last["_frame"], last["line"]
            if before == (frame, line):
                return  # what it does with the exception
        if goes_on and last is not None and last["_frame"] is frame and last["line"] == line:
            if not was_left:
                last["_offset"] = offset
                return
            if offset is not None:
                last["torn"] = _instruction(frame.f_code, last["_offset"])
        elif goes_on and not was_left:
            return  # back from a function that the line calls
        self.complete()  # no sooner: it takes longer than the lines themselves
        code = linecache.getline(frame.f_code.co_filename, line).strip()
        step = {"t": thread, "file": shown_name(frame.f_code.co_filename), "line": line}
        step |= {"fn": frame.f_code.co_qualname, "code": code}
        step |= {"_frame": frame, "_offset": offset, "_code": frame.f_code}
        self.steps.append(step)
        self._last[thread] = step

    def raised(self, thread: str, frame: FrameType, error: type[BaseException]) -> None:
        """An exception comes up in a line, which need not have begun again."""
        if not self.steps or self.steps[-1]["_frame"] is not frame:
            self._lines.pop((thread, id(frame)), None)
            self.note(thread, frame, frame.f_lineno)
        self.steps[-1].setdefault("result", f"raises {error.__name__}")

    def _see(self, frame: FrameType) -> None:
        found = frame.f_locals.get("self")
        if type(found).__name__ == self._view.subject and all(
            found is not each for each in self._subjects
        ):
            self._subjects.append(found)

    def complete(self) -> None:
        """Say what the last step has left behind."""
        if not self.steps:
            return
        step = self.steps[-1]
        wanted = self._view.locals
        found = step["_frame"].f_locals
        names = [name for name in found if name != "self"] if wanted is None else wanted
        step["vars"] = {name: say(found[name]) for name in names if name in found}
        step["shared"] = {name: self._value(each) for name, each in self._view.watch.items()}
        step["locks"], step["blocked"] = self.waiting()

    def _value(self, expression: str) -> str:
        try:
            return say(self._evaluated(expression))
        except Exception:  # not there yet
            return "–"

    def _evaluated(self, expression: str) -> Any:
        subjects: list[Any] = [*self._subjects, None]
        names = {"s": subjects[0], "all": self._subjects, "m": self._view.module}
        return eval(expression, {}, names)  # our own scenes'

    def holders(self) -> Iterator[tuple[str, Any]]:
        """What the shared objects and the module hold, by its name."""
        for name, expression in self._view.locks.items():
            with contextlib.suppress(Exception):  # not there yet
                yield name, self._evaluated(expression)
        if self._view.locks:
            return
        seen: set[int] = set()
        many = len(self._subjects) > 1
        owners = [(vars(self._view.module), "")]
        for number, each in enumerate(self._subjects):
            owners.append((_attributes(each), f"{number + 1}." if many else ""))
        for names, prefix in owners:
            for name, value in list(names.items()):
                for path, found in _within(name, value):
                    if id(found) not in seen:
                        seen.add(id(found))
                        yield prefix + path.replace("._", ".").lstrip("_"), found


def _within(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A value, its attributes, and those of what it maps keys to."""
    yield name, value
    inner = [(name, value)]
    if isinstance(value, dict) and not name.startswith("__"):
        inner = [(f"{name}[{key!r}]", each) for key, each in list(value.items())[:9]]
    for path, each in inner:
        for attribute, found in _attributes(each).items():
            yield f"{path}.{attribute}", found


def _attributes(thing: object) -> dict[str, Any]:
    found = dict(getattr(thing, "__dict__", {}))
    for kind in type(thing).__mro__:
        for name in getattr(kind, "__slots__", ()):
            if isinstance(name, str) and hasattr(thing, name):
                found[name] = getattr(thing, name)
    return found


def _jumps_back(last: Step, offset: int | None) -> bool:
    """Whether the same line begins once more, as in a loop of one line."""
    if offset is None or last["_offset"] is None:
        return offset is None
    return bool(offset <= last["_offset"])


def _instruction(code: CodeType, offset: int | None) -> str:
    """The instruction at an offset, in words that a reader can look up."""
    for each in dis.get_instructions(code):
        if each.offset == offset:
            return f"{each.opname} {each.argrepr}".strip()
    return ""


def shown_name(filename: str) -> str:
    """The file's name, whatever it is called for the explorers."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    return name.partition(".py")[0] + ".py"


# ---- threads -----------------------------------------------------------------------------


def threads(model: Callable[[], object], schedule: Any, view: View, include: Sequence[Any]) -> Run:
    """Replay a schedule of interleave-test, and note each line that each thread executes."""
    return _watched(model, schedule, None, view, include)


def guided(
    model: Callable[[], object], schedule: Any, like: Run, view: View, include: Sequence[Any]
) -> Run:
    """Run another version of the file with the switches that another run had.

    Where that version does not come to such a place, or the other thread is blocked there, the
    thread goes on.
    """
    return _watched(model, schedule, like.switches, view, include)


def _watched(
    model: Callable[[], object],
    schedule: Any,
    switches: list[tuple[Any, Any, int]] | None,
    view: View,
    include: Sequence[Any],
) -> Run:
    import interleave_test  # pyright: ignore[reportMissingImports]
    from interleave_test import _scheduler  # pyright: ignore[reportMissingImports]

    kind: Any = _scheduler.Scheduler
    notes, circle, blocked = _Notes(view), list[list[str | None]](), list[Any]()
    original = kind._on_instruction, kind._on_line, kind._fail

    def after(call: Callable[..., Any], scheduler: Any, code: CodeType, place: int) -> Any:
        result = call(scheduler, code, place)  # other threads may have run until it returns
        rec = scheduler.me()
        if rec is None or rec.no_yield or not scheduler._should_trace(code.co_filename):
            return result
        rec.no_yield += 1  # what a repr runs is nobody's step
        try:
            frame = sys._getframe(2)
            by_line = scheduler._granularity == "line"
            notes.lanes[f"T{rec.tid}"] = rec.name
            notes.waiting = lambda: (_locks(notes), _blocked(scheduler, notes))
            line = place if by_line else frame.f_lineno
            if line is not None:  # an instruction that is of no line
                notes.note(f"T{rec.tid}", frame, line, None if by_line else place)
        finally:
            rec.no_yield -= 1
        return result

    def on_instruction(scheduler: Any, code: CodeType, offset: int) -> Any:
        return after(original[0], scheduler, code, offset)

    def on_line(scheduler: Any, code: CodeType, line: int) -> Any:
        return after(original[1], scheduler, code, line)

    def fail(scheduler: Any, how: str, error: Any, details: str = "") -> None:
        if how == "deadlock" and not circle:
            locks = _locks(notes)
            for waiter, what in _blocked(scheduler, notes).items():
                circle.append([waiter, what, locks.get(what)])
            blocked.append({waiter: what for waiter, what, _ in circle})
        original[2](scheduler, how, error, details)

    strategy = _strategy(interleave_test, schedule, switches)
    kind._on_instruction, kind._on_line, kind._fail = on_instruction, on_line, fail
    try:
        ended = interleave_test.explore(
            model,
            iterations=1,
            strategy=strategy,
            granularity=schedule.granularity,
            include=list(include),
            raise_on_failure=False,
        ).failure
    finally:
        kind._on_instruction, kind._on_line, kind._fail = original
    notes.waiting = lambda: (_locks(notes), blocked[0] if blocked else {})
    notes.complete()
    return Run(notes.lanes, notes.steps, _ended(ended), circle, strategy.switches)


def _ended(failure: Any) -> dict[str, str]:
    if failure is None:
        return {"kind": "holds", "text": "The check holds."}
    if failure.exception is None:
        return {"kind": failure.kind, "text": str(failure.details).partition("\n")[0]}
    error = failure.exception
    text = f"{type(error).__name__}: {error}".partition("\n")[0]
    return {"kind": "exception", "text": text}


def _strategy(library: Any, schedule: Any, switches: list[tuple[Any, Any, int]] | None) -> Any:
    """Replays the schedule, or follows the switches; it notes the switches that there are."""

    class Replay(library.ReplayStrategy):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(schedule)
            self.switches: list[tuple[Any, Any, int]] = []
            self._arrivals: Counter[Any] = Counter()
            self._next = 0

        def pick(self, runnable: Any, current: Any, index: int) -> Any:
            place = self._place(current)
            chosen = self._choose(runnable, current, place, index)
            if chosen is not current:
                before = None if current is None else current.tid
                self.switches.append((before, place, chosen.tid))
            return chosen

        def _place(self, current: Any) -> Any:
            """Where a thread stands: the same in both versions, and each time another."""
            if current is None:
                return None
            place = current.tid, *_location(current.last_location)
            self._arrivals[place] += 1
            return (*place, self._arrivals[place])

        def _choose(self, runnable: Any, current: Any, place: Any, index: int) -> Any:
            return super().pick(runnable, current, index)

    class Guided(Replay):
        def _choose(self, runnable: Any, current: Any, place: Any, index: int) -> Any:
            wanted = list(enumerate(switches or ()))[self._next :]
            if current is None:  # it is blocked, or has ended
                wanted = [each for each in wanted[:1] if each[1][0] is None]
            else:
                wanted = [each for each in wanted if each[1][0] is not None][:1]
                wanted = [each for each in wanted if each[1][1] == place]
            for number, (_, _, target) in wanted:
                self._next = number + 1
                for rec in runnable:
                    if rec.tid == target:
                        return rec
            return current or min(runnable, key=lambda rec: (rec.tid == 0, rec.tid))

        def observe(self, chosen: Any, index: int) -> None:
            """A forced decision is nobody's choice."""

    return Replay() if switches is None else Guided()


def _location(location: Any) -> tuple[str, str]:
    """A scheduler's note of a place as the text of the line, and an instruction in it."""
    if not isinstance(location, tuple):  # "ttl_cache.py.twin3:120", of a primitive's call
        name, _, line = str(location).rpartition(":")
        files = [file for file in linecache.cache if file.endswith(name)] if name else []
        return linecache.getline(files[0], int(line)).strip() if files else "", "call"
    how, code, where = location
    if how == "line":
        return linecache.getline(code.co_filename, where).strip(), ""
    lines = [line for first, last, line in code.co_lines() if first <= where < last]
    text = linecache.getline(code.co_filename, lines[0] or 0) if lines else ""
    return text.strip(), _instruction(code, where)


def _locks(notes: _Notes) -> dict[str, str | None]:
    """Who holds each lock of the shared objects."""
    found: dict[str, str | None] = {}
    for name, thing in notes.holders():
        lock = thing
        while not hasattr(lock, "_owner") and type(lock).__name__ == "Condition":
            lock = lock._lock
        if type(lock).__module__ == "interleave_test._primitives" and hasattr(lock, "_owner"):
            found[name] = None if lock._owner is None else f"T{lock._owner.tid}"
    return found


def _blocked(scheduler: Any, notes: _Notes) -> dict[str, str]:
    """Who waits for what."""
    found = {}
    for rec in scheduler._recs:
        if rec.blocked_on is not None and f"T{rec.tid}" in notes.lanes:
            named = [name for name, thing in notes.holders() if _waits(thing, rec.blocked_on)]
            found[f"T{rec.tid}"] = named[0] if named else str(rec.blocked_on.describe_now())
    return found


def _waits(thing: Any, waiters: Any) -> bool:
    if type(thing).__module__ != "interleave_test._primitives":
        return False
    inner = getattr(thing, "_lock", None)
    return getattr(thing, "_ws", None) is waiters or getattr(inner, "_ws", None) is waiters


# ---- tasks -------------------------------------------------------------------------------


def tasks(
    model: Callable[[], Any], token: str, view: View, include: Sequence[Any], main: str = "model"
) -> Run:
    """Replay a schedule of detangle, and note each line that each task executes."""
    import detangle

    notes, names = _Notes(view), dict[Any, str]()
    folders = tuple(map(str, include))

    def lane() -> str | None:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            return None
        if task is None:  # in a callback
            notes.lanes["L"] = "event loop"
            return "L"
        if task not in names:
            number = sum(name != "T0" for name in names.values()) + 1
            coro: Any = task.get_coro()
            is_main = getattr(coro, "__name__", "") == main and "T0" not in names.values()
            names[task] = "T0" if is_main else f"T{number}"
            notes.lanes[names[task]] = task.get_name()
        return names[task]

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(folders):
            return None
        sys.settrace(None)
        try:
            if (thread := lane()) is not None:
                if event == "line":
                    notes.note(thread, frame, frame.f_lineno)
                elif event == "exception" and argument[0] not in {
                    StopIteration,
                    StopAsyncIteration,
                }:
                    notes.raised(thread, frame, argument[0])
        finally:
            sys.settrace(trace)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        result = detangle.replay(model, token, raise_on_failure=False)
    finally:
        sys.settrace(before)
    notes.complete()
    failure = result.failure
    if failure is None:
        outcome = {"kind": "holds", "text": "The check holds."}
    elif failure.kind == "deadlock":
        outcome = {"kind": "deadlock", "text": "every task that has not ended waits"}
    else:
        outcome = {"kind": "exception", "text": str(failure.message).partition("\n")[0]}
    return Run(notes.lanes, notes.steps, outcome)
