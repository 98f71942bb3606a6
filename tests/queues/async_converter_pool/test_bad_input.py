"""What cannot be meant is refused: by a converter, a pool, or on start."""

import asyncio
import copy
import math
import os
import pickle
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reference_impl.queues.async_converter_pool import (
    AsyncConverterPool,
    Converter,
    ConverterPoolStats,
)
from tests.queues.async_converter_pool.helpers import (
    converter_of,
    plain,
    start,
    submit,
)


async def coroutine(path: Path) -> str:
    return path.name


class Callable_:
    async def __call__(self, result: str) -> None:
        pass

    def plain(self, result: str) -> None:
        pass


class Awaitable_:
    def __call__(self, result: str) -> Awaitable[None]:
        return submit(result)


PLAIN = "convert must be a plain function, not"

BY_DEF = "define it with `def`, and await elsewhere"

VISIBLE = "patterns must match visible names, as '[*].csv' does, not "


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": 3}, TypeError, "name must be a str, not 3"),
        ({"name": ""}, ValueError, "name must be a name of its own, not ''"),
        ({"watch_dir": 3}, TypeError, "watch_dir must be a path, not 3"),
        ({"patterns": "*.csv"}, TypeError, "patterns must be .*, not '[*].csv'"),
        ({"patterns": ()}, ValueError, f"{VISIBLE}''"),
        ({"patterns": ("",)}, ValueError, f"{VISIBLE}''"),
        ({"patterns": (".x",)}, ValueError, f"{VISIBLE}'.x'"),
        ({"patterns": ("a/b",)}, ValueError, f"{VISIBLE}'a/b'"),
        ({"patterns": (3,)}, TypeError, "patterns must be strings.*3.*"),
        ({"exclude": "*.tmp"}, TypeError, "exclude must be .*, not '[*].tmp'"),
        ({"convert": 3}, TypeError, f"{PLAIN} 3: {BY_DEF}"),
        ({"convert": coroutine}, TypeError, f"{PLAIN} <function coroutine .*>: {BY_DEF}"),
        ({"convert": partial(coroutine)}, TypeError, f"{PLAIN} .*: {BY_DEF}"),
        ({"convert": Callable_()}, TypeError, f"{PLAIN} .*: {BY_DEF}"),
        ({"priority": "1"}, TypeError, "priority must be an int, not '1'"),
        ({"priority": True}, TypeError, "priority must be an int, not True"),
        ({"done_dir": 3}, TypeError, "done_dir must be a path or None, not 3"),
        (
            {"error_dir": b"error"},
            TypeError,
            "error_dir must be a path or None, not b'error'",
        ),
    ],
)
def test_a_converter_refuses_what_cannot_be_meant(
    changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=rf"\A{message}\Z"):
        converter_of(tmp_path, **changes)


COROUTINE = "submit must be a coroutine function, not"

BY_ASYNC_DEF = "define it with `async def`, and put what blocks into asyncio.to_thread"

DURATION = "convert_timeout must be above 0 seconds, not"

NUMBER = "convert_timeout must be a number of seconds"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"converters": []},
            ValueError,
            "converters must hold at least one Converter, not none",
        ),
        ({"converters": 3}, TypeError, "converters must be an iterable of Converters, not 3"),
        ({"converters": [3]}, TypeError, "converters must be an iterable of Converters, not 3"),
        ({"submit": 3}, TypeError, f"{COROUTINE} 3: {BY_ASYNC_DEF}"),
        ({"submit": Awaitable_()}, TypeError, f"{COROUTINE} .*: {BY_ASYNC_DEF}"),
        ({"submit": print}, TypeError, f"{COROUTINE} <.* print>: {BY_ASYNC_DEF}"),
        ({"submit": plain}, TypeError, f"{COROUTINE} <function plain .*>: {BY_ASYNC_DEF}"),
        ({"submit": partial(plain)}, TypeError, f"{COROUTINE} .*: {BY_ASYNC_DEF}"),
        ({"submit": Callable_().plain}, TypeError, f"{COROUTINE} .*: {BY_ASYNC_DEF}"),
        ({"max_concurrency": 0}, ValueError, "max_concurrency must be at least 1, not 0"),
        ({"max_concurrency": 1.0}, TypeError, "max_concurrency must be an int, not 1.0"),
        ({"executor": 4}, TypeError, "executor must be an Executor or None, not 4"),
        (
            {"convert_timeout": 0},
            ValueError,
            "convert_timeout must be above 0 seconds, not 0",
        ),
        ({"convert_timeout": -1}, ValueError, f"{DURATION} -1"),
        ({"convert_timeout": math.nan}, ValueError, f"{DURATION} nan"),
        ({"convert_timeout": -(10**400)}, ValueError, f"{DURATION} -10*"),
        ({"convert_timeout": True}, TypeError, f"{NUMBER}, not True"),
        ({"convert_timeout": False}, TypeError, f"{NUMBER}, not False"),
        ({"convert_timeout": "1"}, TypeError, f"{NUMBER}, not '1'"),
        ({"convert_timeout": ""}, TypeError, f"{NUMBER}, not ''"),
        ({"settle": -1}, ValueError, "settle must be at least 0 seconds, not -1"),
        ({"settle": None}, TypeError, "settle must be a number of seconds, not None"),
    ],
)
def test_a_pool_refuses_what_cannot_be_meant(
    changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    settings = {"converters": [converter_of(tmp_path)], "submit": submit, **changes}
    with pytest.raises(error, match=rf"\A{message}\Z"):
        AsyncConverterPool(settings.pop("converters"), settings.pop("submit"), **settings)


@pytest.mark.parametrize(
    ("seconds", "error"),
    [
        (math.nan, ValueError),
        (-1.0, ValueError),
        (-(10**400), ValueError),
        (True, TypeError),
        ("1", TypeError),
    ],
)
def test_what_is_no_duration_stops_no_pool(
    seconds: Any, error: type[Exception], tmp_path: Path
) -> None:
    done, results = asyncio.Event(), list[str]()

    async def submitted(result: str) -> None:
        results.append(result)
        done.set()

    async def main() -> None:
        async with AsyncConverterPool(
            [converter_of(tmp_path)], submitted, convert_timeout=10**400
        ) as pool:
            with pytest.raises(error, match=r"^timeout must be"):
                await pool.stop(seconds)
            (tmp_path / "a.csv").write_text("1")  # it was not stopped
            await done.wait()
            await pool.stop(10**400)

    asyncio.run(main())
    assert len(results) == 1


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_pool_is_not_copied(tmp_path: Path, copied: Callable[[Any], Any]) -> None:
    refusal = "^AsyncConverterPool cannot be copied or pickled: make another one$"
    with pytest.raises(TypeError, match=refusal):
        copied(AsyncConverterPool([converter_of(tmp_path)], submit))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_statistics_and_converters_are_values(copied: Callable[[Any], Any], tmp_path: Path) -> None:
    """A converter is pickled by the name of its function, so that needs one."""
    stats = ConverterPoolStats(1, 2, 3, 4, 5, 6, ("lost",))
    for value in (stats, Converter("names", tmp_path, ("*.csv",), os.fspath)):
        assert copied(value) == pickle.loads(pickle.dumps(value)) == value
        assert weakref.ref(value)() is value
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(Converter("names", tmp_path, ("*.csv",), lambda path: path.name))


def test_submit_may_be_whatever_gives_an_awaitable(tmp_path: Path) -> None:
    queue = asyncio.Queue[str]()
    kinds: list[Callable[[str], Awaitable[None]]] = [
        submit,
        partial(submit),
        Callable_(),
        partial(Callable_()),
        queue.put,
        lambda result: submit(result),
    ]
    for each in kinds:
        AsyncConverterPool([converter_of(tmp_path)], each)


def refused(*converters: "Converter[str]", match: str) -> None:
    with pytest.raises(ValueError, match=rf"\A{match}\Z"):
        AsyncConverterPool(converters, submit)


def test_converters_of_one_directory_may_share_patterns_but_no_name(tmp_path: Path) -> None:
    one = converter_of(tmp_path / "in", name="one", patterns=("*.csv", "*.txt"))
    AsyncConverterPool([one, converter_of(tmp_path / "in", name="two")], submit)
    named_alike = converter_of(tmp_path / "other", name="one")
    refused(one, named_alike, match="converters must have different names, not 'one' twice")


def test_moving_files_to_where_they_are_converted_again_is_refused(tmp_path: Path) -> None:
    again = "which might convert its files again: name another directory, not"
    itself = f"of converter 'c' must not be watched by 'c', {again} {str(tmp_path)!r}"
    refused(converter_of(tmp_path, done_dir=tmp_path), match=f"done_dir {itself}")
    refused(converter_of(tmp_path, error_dir=tmp_path), match=f"error_dir {itself}")
    nested = converter_of(tmp_path / "done", name="nested")
    by_nested = f"must not be watched by 'nested', {again} {str(tmp_path / 'done')!r}"
    refused(converter_of(tmp_path), nested, match=f"done_dir of converter 'c' {by_nested}")


@pytest.mark.parametrize(
    ("what", "name", "error", "problem"),
    [
        ("watch_dir", "none", FileNotFoundError, "is missing: create it"),
        ("watch_dir", "file", NotADirectoryError, "is no directory: name one"),
        ("done_dir", "none", FileNotFoundError, "is missing: create it"),
        ("error_dir", "file", NotADirectoryError, "is no directory: name one"),
    ],
)
def test_directories_that_cannot_be_used_are_refused_on_start(
    what: str, name: str, error: type[OSError], problem: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "in").mkdir()
    with pytest.raises(error) as caught:
        start(converter_of(**{"tmp_path": tmp_path / "in", what: tmp_path / name}))
    assert caught.value.strerror == f"{what} of converter 'c' {problem}"
    assert caught.value.filename == str(tmp_path / name)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("make", "error", "problem"),
    [
        (Path.touch, NotADirectoryError, "is no directory: name one"),
        (lambda path: path.symlink_to("nowhere"), FileNotFoundError, "is missing: create it"),
    ],
    ids=["a file", "a link to nothing"],
)
def test_what_is_in_the_place_of_done_is_refused_on_start(
    make: Callable[[Path], None], error: type[OSError], problem: str, tmp_path: Path
) -> None:
    make(tmp_path / "done")
    with pytest.raises(error) as caught:
        start(converter_of(tmp_path))
    assert caught.value.strerror == f"done_dir of converter 'c' {problem}"
    assert caught.value.filename == str(tmp_path / "done")


@pytest.mark.parametrize("missing", [os.R_OK, os.W_OK, os.X_OK], ids=["read", "write", "enter"])
def test_each_right_to_a_directory_is_needed(
    missing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a user would see it who lacks one of the rights; the superuser has all."""

    def access(path: str, mode: int) -> bool:
        return path != str(tmp_path / "done") or not mode & missing

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(PermissionError) as caught:
        start(converter_of(tmp_path))
    problem = "must be readable and writable: change its mode"
    assert caught.value.strerror == f"done_dir of converter 'c' {problem}"
