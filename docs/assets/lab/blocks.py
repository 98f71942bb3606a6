"""Runs a Python block of a page in the browser."""

import concurrent.futures.thread  # noqa: F401  # its lock is made before locks are modelled
import contextlib
import io
import json
import shutil
import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path

import fibers  # noqa: F401  # before interleave_test runs threads

_NAME = "<this block>"
_PACKAGES = ("reference_impl", "vendored")
_ALONE = ("asyncio", "interleave_test")  # they have schedulers of their own


def run_block(asked: str, tell: Callable[[int], None]) -> str:
    """What the block prints, and the exception that ends it, if one does."""
    _lay_out_copies()
    for name in [name for name in sys.modules if name.partition(".")[0] in _PACKAGES]:
        del sys.modules[name]  # as a script finds it
    text = json.loads(asked)["text"]
    threads = "thread" in text.lower() and not any(name in text for name in _ALONE)
    run = _in_threads if threads else _run
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        error = run(text)
    told = "" if error is None else _told(error)
    return json.dumps({"printed": printed.getvalue(), "error": told, "threads": threads})


@cache
def _lay_out_copies() -> None:
    """Have `vendored`, as the copy tool makes it: side by side, or by family where it has two."""
    here = Path(__file__).parent
    for file in here.glob("reference_impl/*/*.py"):
        for folder in (here / "vendored", here / "vendored" / file.parent.name):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / file.name)


def _run(text: str) -> BaseException | None:
    try:
        exec(compile(text, _NAME, "exec"), {"__name__": "__main__"})
    except BaseException as error:
        return error
    return None


def _in_threads(text: str) -> BaseException | None:
    """In modelled threads, of which one runs until it waits: one schedule of all that there are."""
    import interleave_test

    errors: list[BaseException | None] = []
    failure = interleave_test.explore(
        lambda: errors.append(_run(text)),
        strategy="dfs",
        iterations=1,
        granularity="line",
        include=["/no/file/is/traced"],
        raise_on_failure=False,
    ).failure
    if failure is None or errors[:1] not in ([], [None]):
        return errors[0]
    return failure.exception or RuntimeError(f"{failure.kind}: {failure.details}")


def _told(error: BaseException) -> str:
    text = "".join(traceback.format_exception_only(error)).strip()
    own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == _NAME]
    return f"Line {own[-1].lineno}: {text}" if own else text
