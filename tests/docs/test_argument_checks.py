"""What the canonical argument checks let through, and in which words they refuse the rest."""

import asyncio
import functools
import inspect
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any
from unittest.mock import AsyncMock

import pytest

from tests.kit.argument_checks import (
    _check_async,
    _check_count,
    _check_plain,
    _check_seconds,
    _check_type,
)

HUGE = 10**400  # no float holds it


def refuses(words: str, check: Callable[..., object], *arguments: Any, **options: Any) -> None:
    kind = ValueError if "at least" in words or "above" in words else TypeError
    with pytest.raises(kind) as caught:
        check("limit", *arguments, **options)
    assert str(caught.value) == words


def test_a_value_of_another_type_is_named_with_the_argument() -> None:
    _check_type("limit", 3, "an int", int)
    _check_type("limit", "x", "a str or None", str, type(None))
    refuses("limit must be an int, not '3'", _check_type, "3", "an int", int)
    refuses("limit must be an int, not None", _check_type, None, "an int", int)


def test_a_bool_is_no_number() -> None:
    _check_type("limit", True, "a bool", bool)
    refuses("limit must be an int, not True", _check_type, True, "an int", int)
    refuses("limit must be an int, not True", _check_count, True)
    refuses("limit must be a number of seconds, not False", _check_seconds, False)


@pytest.mark.parametrize("count", [1, 2, HUGE])
def test_a_count_is_given_back(count: int) -> None:
    assert _check_count("limit", count) == count


def test_a_count_is_an_int_of_at_least_one() -> None:
    refuses("limit must be at least 1, not 0", _check_count, 0)
    refuses(f"limit must be at least 1, not {-HUGE}", _check_count, -HUGE)
    refuses("limit must be an int, not 1.0", _check_count, 1.0)
    refuses("limit must be an int, not nan", _check_count, math.nan)


@pytest.mark.parametrize(
    ("seconds", "found"),
    [(0, 0.0), (0.0, 0.0), (-0.0, 0.0), (2, 2.0), (0.5, 0.5), (HUGE, 1e300), (math.inf, 1e300)],
)
def test_seconds_are_a_float_that_can_be_added_up(seconds: float, found: float) -> None:
    """A thousand of the largest are finite, too."""
    result = _check_seconds("limit", seconds)
    assert type(result) is float
    assert result == found
    assert math.isfinite(1000 * result)


def test_seconds_are_a_number_of_at_least_zero() -> None:
    refuses("limit must be at least 0 seconds, not -1", _check_seconds, -1)
    refuses("limit must be at least 0 seconds, not nan", _check_seconds, math.nan)
    refuses("limit must be at least 0 seconds, not -inf", _check_seconds, -math.inf)
    refuses(f"limit must be at least 0 seconds, not {-HUGE}", _check_seconds, -HUGE)
    refuses("limit must be a number of seconds, not '1'", _check_seconds, "1")
    refuses("limit must be a number of seconds, not None", _check_seconds, None)
    refuses("limit must be a number of seconds, not Decimal('1')", _check_seconds, Decimal(1))


def test_seconds_may_have_to_be_above_zero() -> None:
    assert _check_seconds("limit", 5e-324, zero=False) == 5e-324
    for nothing in (0, 0.0, -0.0, math.nan):
        words = f"limit must be above 0 seconds, not {nothing!r}"
        refuses(words, _check_seconds, nothing, zero=False)


class Uploads:
    """Functions of each kind, as methods."""

    async def __call__(self, name: str) -> None: ...

    async def upload(self, name: str) -> None: ...

    def blocking(self, name: str) -> None: ...

    def generating(self) -> Iterator[int]:
        yield 1

    async def streaming(self) -> AsyncIterator[int]:
        yield 1

    @staticmethod
    async def static(name: str) -> None: ...

    @classmethod
    async def of_the_class(cls, name: str) -> None: ...


class Blocking:
    """An object whose call is a plain function."""

    def __call__(self, name: str) -> None: ...


class Generating:
    """An object whose call makes a generator."""

    def __call__(self) -> Iterator[int]:
        yield 1


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    return functools.partial(functools.partial(function), name="x")


UPLOADS = Uploads()
COROUTINES: dict[str, Callable[..., Any]] = {
    "a function": asyncio.to_thread,
    "a bound method": UPLOADS.upload,
    "a static method": UPLOADS.static,
    "a class method": Uploads.of_the_class,
    "an object with an async call": UPLOADS,
    "a mock of one": AsyncMock(),
    "partials of a method": wrapped(UPLOADS.upload),
    "partials of an object": wrapped(UPLOADS),
}
PLAIN: dict[str, Callable[..., Any]] = {
    "a function": wrapped,
    "a built-in function": time.sleep,
    "a bound method": UPLOADS.blocking,
    "a method of a built-in type": [1].append,
    "an object that can be called": Blocking(),
    "partials of a method": wrapped(UPLOADS.blocking),
    "partials of an object": wrapped(Blocking()),
}
EITHER: dict[str, Callable[..., Any]] = {
    "a lambda": lambda name: UPLOADS.upload(name),
    "a partial of a lambda": functools.partial(lambda name: UPLOADS.upload(name), "x"),
    "a class": Uploads,
}
NEITHER: dict[str, Any] = {
    "a generator function": UPLOADS.generating,
    "an async generator function": UPLOADS.streaming,
    "a partial of one": wrapped(UPLOADS.streaming),
    "an object whose call is one": Generating(),
    "a coroutine": "a coroutine",  # made in the test, which closes it
    "a number": 3,
    "nothing": None,
    "a name": "upload",
}


def no_coroutine_function(function: object) -> str:
    return (
        f"limit must be a coroutine function, not {function!r}: define it with `async def`, "
        "and put what blocks into asyncio.to_thread"
    )


def no_plain_function(function: object) -> str:
    return (
        f"limit must be a plain function, not {function!r}: define it with `def`, and await "
        "elsewhere"
    )


@pytest.mark.parametrize("kind", COROUTINES)
def test_a_coroutine_function_is_no_plain_one(kind: str) -> None:
    _check_async("limit", COROUTINES[kind])
    refuses(no_plain_function(COROUTINES[kind]), _check_plain, COROUTINES[kind])


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_function_is_no_coroutine_function(kind: str) -> None:
    _check_plain("limit", PLAIN[kind])
    refuses(no_coroutine_function(PLAIN[kind]), _check_async, PLAIN[kind])


@pytest.mark.parametrize("kind", EITHER)
def test_what_may_return_anything_is_let_through(kind: str) -> None:
    _check_async("limit", EITHER[kind])
    _check_plain("limit", EITHER[kind])


@pytest.mark.parametrize("kind", NEITHER)
def test_what_is_neither_is_refused_by_both(kind: str) -> None:
    value = UPLOADS.upload("x") if kind == "a coroutine" else NEITHER[kind]
    refuses(no_coroutine_function(value), _check_async, value)
    refuses(no_plain_function(value), _check_plain, value)
    if inspect.iscoroutine(value):
        value.close()
