"""The canonical argument checks: what components copy, byte for byte, those that they need.

A component is one file that a reader copies, so that it cannot import these. That each copy is
the same is held by tests/docs/test_layout.py, and what they do by test_argument_checks.py
beside it. Further checks of a component's own use the same words: "NAME must be …, not VALUE".
"""

import functools
import inspect


def _check_type(name: str, value: object, wanted: str, *kinds: type) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{name} must be {wanted}, not {value!r}")


def _check_count(name: str, value: int) -> int:
    _check_type(name, value, "an int", int)
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value!r}")
    return value


def _check_seconds(name: str, value: float, *, zero: bool = True) -> float:
    _check_type(name, value, "a number of seconds", int, float)
    if not (value > 0 or (zero and value == 0)):  # so put, it refuses NaN, too
        least = "at least" if zero else "above"
        raise ValueError(f"{name} must be {least} 0 seconds, not {value!r}")
    return float(min(value, 1e300))  # also for an int that fits no float


def _check_async(name: str, function: object) -> None:
    """Refuse what cannot be awaited when called: a plain function would block the loop."""
    inner = _unwrapped(function)
    # A lambda may return an awaitable; what else is plain cannot.
    plain = inspect.isroutine(inner) and getattr(inner, "__name__", "") != "<lambda>"
    wrong = _is_generator(inner) or (plain and not inspect.iscoroutinefunction(inner))
    if not callable(function) or wrong:
        raise TypeError(
            f"{name} must be a coroutine function, not {function!r}: define it with `async def`, "
            "and put what blocks into asyncio.to_thread"
        )


def _check_plain(name: str, function: object) -> None:
    """Refuse what only makes a coroutine or a generator when called."""
    inner = _unwrapped(function)
    if not callable(function) or _is_generator(inner) or inspect.iscoroutinefunction(inner):
        raise TypeError(
            f"{name} must be a plain function, not {function!r}: define it with `def`, "
            "and await elsewhere"
        )


def _unwrapped(function: object) -> object:
    """What a call runs, behind partials, bound methods and an object's `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    known = inspect.isroutine(function) or inspect.isclass(function)
    if known or inspect.iscoroutinefunction(function):  # the last are marked objects, mocks too
        return function
    return getattr(function, "__call__", function)  # noqa: B004  (of an object that can be called)


def _is_generator(function: object) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
