"""AsyncPendingQueue refuses what it cannot work with, and says why."""

import asyncio
import copy
import functools
import math
import os
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reference_impl.queues.async_pending_queue import (
    AsyncPendingQueue,
    PendingStats,
    exponential_backoff,
)
from tests.kit.fakes import until
from tests.queues.async_pending_queue.disk import drop
from tests.queues.async_pending_queue.uploads import nothing

pytestmark = pytest.mark.usefixtures("plain_watch")


def plain(path: Path) -> None:
    """A function that would hold up the loop."""


class Plain:
    def upload(self, path: Path) -> None: ...

    async def awaitable(self, path: Path) -> None: ...

    async def __call__(self, path: Path) -> None: ...


@pytest.mark.parametrize(
    "upload",
    [
        plain,
        Plain().upload,
        functools.partial(plain),
        functools.partialmethod(nothing),
        print,
        os.stat,
        None,
        "upload",
        Path(),
    ],
)
def test_an_upload_that_is_no_coroutine_function_is_refused(directory: Path, upload: Any) -> None:
    with pytest.raises(TypeError) as caught:
        AsyncPendingQueue(directory, upload)
    assert str(caught.value) == (
        f"upload must be a coroutine function, not {upload!r}: "
        "define it with `async def`, and put what blocks into asyncio.to_thread"
    )


@pytest.mark.parametrize(
    "upload",
    [nothing, Plain().awaitable, Plain(), functools.partial(nothing), lambda path: nothing(path)],
)
async def test_whatever_returns_an_awaitable_will_do(directory: Path, upload: Any) -> None:
    drop(directory, "a", b"1")
    async with AsyncPendingQueue(directory, upload) as queue:
        await until(lambda: queue.stats.completed)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_concurrency": 0}, ValueError, "max_concurrency must be at least 1, not 0"),
        ({"max_concurrency": -5}, ValueError, "max_concurrency must be at least 1, not -5"),
        ({"max_concurrency": 2.5}, TypeError, "max_concurrency must be an int, not 2.5"),
        ({"max_attempts": 0}, ValueError, "max_attempts must be at least 1, not 0"),
        ({"max_attempts": True}, TypeError, "max_attempts must be an int, not True"),
        (
            {"upload_timeout": 0},
            ValueError,
            "upload_timeout must be above 0 seconds, not 0$",
        ),
        ({"upload_timeout": -1.0}, ValueError, "upload_timeout must be above 0 seconds"),
        ({"upload_timeout": math.nan}, ValueError, "upload_timeout must be above 0 seconds"),
        ({"upload_timeout": "1"}, TypeError, "upload_timeout must be a number of seconds"),
        ({"backoff": 1.0}, TypeError, "backoff must be a plain function, not 1.0"),
        ({"backoff": nothing}, TypeError, "backoff must be a plain function, not <function"),
        ({"settle": -1.0}, ValueError, "settle must be at least 0 seconds, not -1.0"),
        ({"settle": "1"}, TypeError, "settle must be a number of seconds, not '1'"),
        ({"directory": 5}, TypeError, "directory must be a path, not 5"),
    ],
)
def test_bad_arguments_are_refused_by_name(
    directory: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        AsyncPendingQueue(**{"directory": directory, "upload": nothing, **options})


NO_DURATIONS: list[tuple[Any, type[Exception]]] = [
    (math.nan, ValueError),
    (-1.0, ValueError),
    (-(10**400), ValueError),
    (True, TypeError),
    ("1", TypeError),
]


@pytest.mark.parametrize(("seconds", "error"), NO_DURATIONS)
async def test_what_is_no_duration_is_refused_by_name(
    directory: Path, seconds: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"^upload_timeout must be"):
        AsyncPendingQueue(directory, nothing, upload_timeout=seconds)
    with pytest.raises(error, match=r"^settle must be"):
        AsyncPendingQueue(directory, nothing, settle=seconds)
    for name in ("base", "cap"):
        with pytest.raises(error, match=f"^{name} must be"):
            exponential_backoff(1, **{name: seconds})
    gate = asyncio.Event()

    async def upload(path: Path) -> None:
        await gate.wait()

    drop(directory, "a", b"1")
    drop(directory, "b", b"1")
    async with AsyncPendingQueue(directory, upload, max_concurrency=1) as queue:
        await until(lambda: queue.stats.uploading)
        with pytest.raises(error, match=r"^timeout must be"):
            await queue.stop(seconds)
        gate.set()
        await until(lambda: queue.stats.completed == 2)  # it was not stopped


async def test_a_number_beyond_a_float_is_a_long_time(directory: Path) -> None:
    assert 0 <= exponential_backoff(1, base=10**400, cap=10**400) <= 1e300
    drop(directory, "a", b"1")
    async with AsyncPendingQueue(directory, nothing, upload_timeout=10**400) as queue:
        await until(lambda: queue.stats.completed)
        await queue.stop(10**400)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_queue_is_not_copied(directory: Path, copied: Callable[[Any], Any]) -> None:
    refusal = "^AsyncPendingQueue cannot be copied or pickled: make another one$"
    with pytest.raises(TypeError, match=refusal):
        copied(AsyncPendingQueue(directory, nothing))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_statistics_are_values(copied: Callable[[Any], Any]) -> None:
    stats = PendingStats(completed=1, waiting=2)
    assert copied(stats) == pickle.loads(pickle.dumps(stats)) == stats
    assert weakref.ref(stats)() is stats


@pytest.mark.parametrize("kind", ["missing", "file"])
async def test_a_directory_that_is_none_is_an_error_at_the_start(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "file":
        path.touch()
    expected = {"missing": FileNotFoundError, "file": NotADirectoryError}[kind]
    with pytest.raises(expected) as caught:
        await AsyncPendingQueue(path, nothing).run()
    assert caught.value.strerror == ("directory must be an existing directory: create it first")
    assert caught.value.filename == str(path)
    with pytest.raises(expected, match="existing directory: create it first"):
        async with AsyncPendingQueue(path, nothing):
            pass
    with pytest.raises(expected, match="existing directory: create it first"):
        await AsyncPendingQueue(path, nothing).submit("a", b"1")
    assert asyncio.all_tasks() == {asyncio.current_task()}
