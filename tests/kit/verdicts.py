"""A pytest plugin for `prove`: what each check of a reader's file came to, as lines of JSON.

A failure is *BROKEN* unless it says something else: that a public name is not there (*not
offered*), that the check could not look inside or the search came to no end (*not shown*).
The lines are written by the process that runs the test, so that they are there whatever happens
to it later. After a hang it ends, since threads are left in it: pytest-xdist starts another.
"""

import ast
import functools
import json
import os
import re
import traceback
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import Phase, settings

from tests.kit import COMPONENTS, ROOT, catalogue
from tests.kit.copies import UNKNOWN_ARGUMENT, Missing, NotShownError
from tests.kit.explore import EXPLORED, NotExhausted, losing
from tests.kit.prove import write

_TIMEOUT = re.compile(r"Timeout \(>([\d.]+)s\)")
# What a built-in function says of an object that lacks the method for it.
_NO_METHOD = {
    "has no len()": "__len__",
    "is not a container": "__contains__",
    "is not iterable": "__contains__ or __iter__",
    "context manager protocol": "__enter__ or __aenter__",
}
_NO_NAME = re.compile(r"cannot import name '(\w+)'")
_BROKEN_ALREADY = "its guarantee is broken already"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", type=Path, required=True, help="the file to write to")


def pytest_configure(config: pytest.Config) -> None:
    # No shrinking: it takes minutes, and what is told is the first failure.
    settings.register_profile(
        "prove",
        settings.get_profile(str(config.getoption("--profile"))),
        phases=[Phase.explicit, Phase.generate],
        database=None,
    )
    settings.load_profile("prove")
    config.pluginmanager.register(_Verdicts(config), "verdicts of this process")


class _Verdicts:
    def __init__(self, config: pytest.Config) -> None:
        self._results = Path(str(config.getoption("--results")))
        worker = getattr(config, "workerinput", None)
        self._runs = worker is not None or not config.getoption("numprocesses", None)
        self._tells = worker is None or worker["workerid"] == "gw0"  # of what all workers see
        self._controls = worker is None
        self._read = 0
        self._broken: set[str] = set()

    def _write(self, **event: Any) -> None:
        write(self._results, **event)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if self._runs and self._tells:
            self._write(event="collected", count=len(session.items))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be collected has proved nothing of what it is about."""
        if not (self._runs and self._tells) or report.passed:
            return
        file = report.nodeid.partition("::")[0]
        path = ROOT / file
        ids = _named(path) if path.is_file() else []
        why = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        self._write(event="unread", file=file, ids=ids, skipped=report.skipped, why=why[-2000:])

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        ids = _ids(item)
        if ids and set(ids) <= self._known_broken():
            pytest.skip(_BROKEN_ALREADY)
        Missing.asked.clear()
        self._write(event="begun", test=item.nodeid, ids=ids)

    def _known_broken(self) -> set[str]:
        """What is broken by now, as other workers found it, too."""
        with self._results.open("rb") as stream:
            stream.seek(self._read)
            new = stream.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            event = json.loads(line)
            if event.get("word") == "BROKEN" and len(event["ids"]) == 1:
                self._broken.update(event["ids"])
        return self._broken

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        report = yield
        if report.passed and call.when != "call":
            return report
        found: dict[str, Any] = {"word": "holds"}
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            found = {"word": "skipped", "reason": reason.removeprefix("Skipped: ")}
        elif report.failed:
            assert call.excinfo is not None
            found = _judged(call.excinfo.value)
        explored = item.stash.get(EXPLORED, [])
        statistics = str(getattr(item, "hypothesis_statistics", ""))
        examples = sum(int(n) for n in re.findall(r"(\d+) passing\b", statistics))
        self._write(
            event="done",
            test=item.nodeid,
            ids=_ids(item),
            when=call.when,
            seconds=round(call.duration, 3),
            schedules=sum(each["schedules"] for each in explored) + examples,
            **found,
        )
        if found.get("hangs") and not self._controls:
            os._exit(70)
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if self._controls:
            self._write(event="ended", status=int(exitstatus))


def _ids(item: pytest.Item) -> list[str]:
    return list(dict.fromkeys(str(n) for mark in item.iter_markers("guarantee") for n in mark.args))


def _named(path: Path) -> list[str]:
    """The guarantees that a file of tests names, where it could not be asked."""
    found = re.findall(r'"([A-Z]{2}-\d+)"', path.read_text(encoding="utf-8"))
    known = catalogue.all_promises()
    return [each for each in dict.fromkeys(found) if each in known]


# What a failure says.


def _judged(error: BaseException) -> dict[str, Any]:
    found: dict[str, Any] = {"word": "BROKEN", "reason": _line(error)}
    for each in _chain(error):
        if (lost := losing(each)) is not None:
            found["losing"] = lost
        if word := _excuse(each):
            found |= word
            break
    if found["word"] == "BROKEN" and Missing.asked:
        names = ", ".join(sorted(Missing.asked))
        found |= {"word": "not offered", "reason": f"there is no {names}"}
    if timeout := _TIMEOUT.search(str(error)):
        searching = any("explore" in frame.name for frame in _frames(error))
        found["hangs"] = True
        found["reason"] = f"not at an end after {float(timeout[1]):.0f} s"
        if searching:
            found |= {"word": "not shown", "reason": f"the search was {found['reason']}"}
    return found


def _excuse(error: BaseException) -> dict[str, str] | None:
    """Why a failure breaks no promise, or may break another one; None if it breaks its own."""
    if isinstance(error, NotExhausted | NotShownError):
        return {"word": "not shown", "reason": str(error).partition("\n")[0]}
    if isinstance(error, AssertionError) and str(error).startswith("nobody waits"):
        # It may be another promise that callers wait: that one's checks say it.
        return {"word": "suspect", "reason": "nobody waits, as the check needs it"}
    frames = _frames(error)
    if not frames or not _is_ours(frames[-1].filename):
        return None  # raised in the reader's file, or in what that called
    name = _absent(error)
    if name is None:
        return None
    if name.startswith("_") and not name.startswith("__"):
        return {"word": "not shown", "reason": f"the check looks inside, for {name}"}
    if name in _NO_METHOD.values() or _is_public(name):
        return {"word": "not offered", "reason": f"there is no {name}"}
    return None


def _absent(error: BaseException) -> str | None:
    """The name that was not there."""
    if isinstance(error, AttributeError):
        foreign = type(error.obj).__module__ == "builtins"  # None, say, that a call returned
        return None if foreign and not isinstance(error.obj, ModuleType | type) else error.name
    if isinstance(error, ImportError):
        found = _NO_NAME.search(str(error))
        return found[1] if found else None
    if isinstance(error, KeyError):  # of a signature's parameters
        return str(error.args[0])
    if isinstance(error, TypeError):
        found = UNKNOWN_ARGUMENT.search(str(error))
        return found[1] if found else _no_method(str(error))
    return None


def _no_method(message: str) -> str | None:
    return next((name for part, name in _NO_METHOD.items() if part in message), None)


def _is_public(name: str) -> bool:
    """Whether a component offers it: what a test alone lacks is the test's own fault."""
    return name in _offered()


@functools.cache
def _offered() -> set[str]:
    """The names of all components' classes, functions, and arguments."""
    found = set[str]()
    for component in catalogue.components():
        tree = ast.parse((COMPONENTS / f"{component}.py").read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {each.id for each in targets if isinstance(each, ast.Name)}
    return found


def _is_ours(file: str) -> bool:
    return Path(file).is_relative_to(ROOT / "tests")


def _chain(error: BaseException) -> list[BaseException]:
    """The failure, what an explorer found in it, and what it came from."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or any(each is other for other in found):
            continue
        found.append(each)
        report = getattr(each, "report", None)
        failure = getattr(each, "failure", None) or getattr(report, "failure", None)
        waiting += [getattr(failure, "exception", None), each.__cause__]
        if not each.__suppress_context__:
            waiting.append(each.__context__)
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
    return found


def _frames(error: BaseException) -> traceback.StackSummary:
    return traceback.extract_tb(error.__traceback__)


def _line(error: BaseException) -> str:
    """What went wrong, in a line."""
    for each in _chain(error):
        failure = getattr(each, "failure", None)
        if failure is not None and getattr(failure, "exception", None) is None:
            return f"{failure.kind}: {str(failure.details).strip().splitlines()[0]}"
    error = _found(error)
    text = str(error).partition("\n")[0]
    if not text and isinstance(error, AssertionError):
        *_, last = _frames(error)
        text = last.line or ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _found(error: BaseException) -> BaseException:
    """What an explorer's report is about: the model's own exception."""
    failure = getattr(error, "failure", None) or getattr(
        getattr(error, "report", None), "failure", None
    )
    inner = getattr(failure, "exception", None)
    return _found(inner) if isinstance(inner, BaseException) and inner is not error else error
