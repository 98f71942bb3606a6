"""Operations, keys, values and errors that do not travel between processes; importable there."""

import os
import pickle
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

PARENT = os.getpid()  # a child that does not inherit it, imports this again


def refuse(*_: object) -> Any:
    """What unpickling comes to."""
    raise LookupError("cannot be unpickled")


class TwoArguments(Exception):
    """Pickles, and does not unpickle: the second argument is not in `args`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")


class Unpicklable(Exception):
    """Holds what cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.hook = lambda: None


class ReduceRaises(Exception):
    """Raises as it is pickled."""

    def __reduce__(self) -> Any:
        raise ZeroDivisionError("cannot be pickled")


class UnpicklingRaises(Exception):
    """Raises as it is unpickled."""

    def __reduce__(self) -> Any:
        return refuse, ()


class AnotherThing(Exception):
    """Is no exception any more when it has travelled."""

    def __reduce__(self) -> Any:
        return str, ("a text",)


class NoText(Exception):
    """Cannot be pickled, and has no text either."""

    def __str__(self) -> str:
        raise LookupError("no text")

    def __reduce__(self) -> Any:
        raise ZeroDivisionError("cannot be pickled")


class OnlyThere(Exception):
    """Unpickles in the process that raised it, and nowhere else."""

    def __reduce__(self) -> Any:
        return only_in, (os.getpid(),)


def only_in(process: int) -> OnlyThere:
    if os.getpid() != process:
        raise LookupError("another process")
    return OnlyThere("there")


class Travels(Exception):
    """Unpickles as what it was."""


class Odd:
    """A value, or a key, that cannot be unpickled."""

    def __reduce__(self) -> Any:
        return refuse, ()


ERRORS: dict[str, Callable[[], Exception]] = {
    "two arguments": lambda: TwoArguments(7, "refused"),
    "unpicklable": lambda: Unpicklable("refused (7)"),
    "__reduce__ raises": lambda: ReduceRaises("refused (7)"),
    "unpickling raises": lambda: UnpicklingRaises("refused (7)"),
    "another thing": lambda: AnotherThing("refused (7)"),
    "only there": lambda: OnlyThere("refused (7)"),
    "in a group": lambda: ExceptionGroup("refused (7)", [TwoArguments(7, "refused")]),
}
NAMED = {  # those that cannot travel within a process, either
    "two arguments": "TwoArguments",
    "__reduce__ raises": "ReduceRaises",
    "unpickling raises": "UnpicklingRaises",
    "another thing": "AnotherThing",
}


def fail_oddly(key: str) -> str:
    """Raise the error of that name; other keys are their own value."""
    if key in ERRORS:
        try:
            raise KeyError("what was behind it")
        except KeyError as cause:
            error = ERRORS[key]()
            raise error from cause
    return key


def without_text(key: int) -> None:
    raise NoText


def travel(key: str) -> None:
    raise Travels(key, 7)


def give(key: str) -> Any:
    """Return the value of that name."""
    return {"unpicklable": lambda: None, "odd": Odd(), "odd inside": [Odd()]}.get(key, [key])


def length(key: Any) -> int:
    return len(key)


def leave(key: int) -> None:
    raise SystemExit(key)


class Exit:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> Any:
        return leave, (3,)


def give_an_exit(key: int) -> Exit:
    return Exit()


class Unknown:
    """An operation that the other process does not know."""

    def __call__(self, key: str) -> str:
        return key

    def __reduce__(self) -> Any:
        return refuse, ()


class Pickling(Executor):
    """A model of a process pool: what cannot be unpickled breaks it."""

    broken = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.broken:
            raise RuntimeError("broken")
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        call, arguments = self.sent((fn, args))
        try:
            value, error = call(*arguments), None
        except BaseException as raised:
            value, error = None, raised
        value, error = self.sent((value, error))
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
        return future

    def sent(self, things: Any) -> Any:
        """The other side's copy; what cannot be pickled is sent as an error."""
        try:
            data = pickle.dumps(things)
        except Exception as error:
            data = pickle.dumps((None, error))
        try:
            return pickle.loads(data)
        except Exception:
            self.broken = True
            return None, RuntimeError("broken")
