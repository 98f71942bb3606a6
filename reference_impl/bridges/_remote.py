# _remote.py: what parallel_execute sends to other processes, and what comes back
# https://executable-guarantees.example/bridges/parallel_execute.html#_remote
# Version 1.0.0 (2026-11-30); Python 3.11 to 3.14, with or without the GIL; standard library only
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""How keys, values and errors travel; a part of parallel_execute, not for use on its own.

An executor unpickles in threads and processes of its own. What raises there breaks a process
pool, and so fails all other keys. So it is given bytes, which are unpickled where an exception
is the failure of one key. Where nothing is pickled, in an executor of this process, the
operation is called as it is.
"""

import pickle
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from traceback import TracebackException
from typing import Any, Generic, TypeVar

T = TypeVar("T")

PLAIN = (type(None), bool, int, float, str, bytes)  # travel in any case

# What a constructor of a parcel, and whatever else is pickled, consists of.
Reduced = tuple[Callable[..., Any], tuple[Any, ...]]


class RemoteError(RuntimeError):
    """Tells of an error of another process that cannot be pickled, or not unpickled here.

    Attributes:
        type_name: the qualified name of the error's class.
        text: the error's `str`.
        traceback: what Python would have printed there, with the error's causes.
    """

    def __init__(self, type_name: str, text: str, traceback: str) -> None:
        super().__init__(type_name, text, traceback)
        self.type_name = type_name
        self.text = text
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}"


class Parcel(Generic[T]):
    """Is pickled on its own: what cannot be unpickled fails where the parcel is opened."""

    def __init__(self, content: T) -> None:
        self.content = content
        self.data = b""  # pickled once: the operation goes with each key

    def __reduce__(self) -> Reduced:
        try:
            # Needs more than pickle does, and is loaded where processes are.
            from multiprocessing.reduction import ForkingPickler  # noqa: PLC0415

            self.data = self.data or bytes(ForkingPickler.dumps(self.content))
        except Exception:
            return as_it_is, (self.content,)  # the executor's own way of pickling may do more
        return Sealed, (self.data,)

    def open(self) -> T:
        """Return the content."""
        return self.content


class Sealed(Parcel[Any]):
    """A parcel that has been pickled; its content is the bytes."""

    def __reduce__(self) -> Reduced:
        return Sealed, (self.content,)

    def open(self) -> Any:
        """Unpickle the content, or raise what that raises."""
        return pickle.loads(self.content)  # noqa: S301 - the executor trusts it as well


def as_it_is(given: T) -> T:
    """Return what is given."""
    return given


def packed(given: Any) -> Any:
    """Return what to send it as."""
    return given if type(given) in PLAIN else Parcel(given)


def opened(given: Any) -> Any:
    """Return what was sent, in a parcel or without one."""
    return given.open() if isinstance(given, Parcel) else given


def sealing(executor: Executor) -> Callable[[Any], Any]:
    """Return what operation and keys are sent in: a ProcessPoolExecutor breaks without it.

    Others keep their own pickle, such as cloudpickle, which takes more.
    """
    pools = sys.modules.get("concurrent.futures.process")
    breaks = pools is not None and isinstance(executor, pools.ProcessPoolExecutor)
    return packed if breaks else as_it_is


class Portable(Generic[T]):
    """The operation, as an executor is given it: pickled, it becomes `call_remotely`."""

    def __init__(self, operation: Any) -> None:
        self.operation = operation
        self.__name__ = getattr(opened(operation), "__name__", "operation")  # Dask shows it

    def __call__(self, key: Any) -> T:
        result: T = opened(self.operation)(opened(key))
        return result

    def __reduce__(self) -> Reduced:
        return partial, (call_remotely, self.operation)


def call_remotely(operation: Any, key: Any) -> Any:
    """Call the operation in another process; what comes of it can be sent back in any case."""
    try:
        value = opened(operation)(opened(key))
    except Exception as error:
        carrier = Carrier.of(error)
    else:
        return packed(value)
    raise carrier  # not above: that would make the error its context, which Dask pickles, too


class Carrier(RemoteError):
    """Brings an error from another process."""

    pickled = b""  # what cannot be unpickled

    @classmethod
    def of(cls, error: Exception) -> "Carrier":
        """Return one that brings this error, or only what there is to tell of it."""
        told = TracebackException.from_exception(error)
        carrier = cls(type(error).__qualname__, str(told), "".join(told.format()))
        carrier.add_note(carrier.traceback)  # process pools send what Python would print
        # Where an executor pickles by cloudpickle, which can do more, that has been loaded.
        others = ("cloudpickle", "joblib.externals.cloudpickle")
        for pickler in (pickle, *(sys.modules[name] for name in others if name in sys.modules)):
            with suppress(Exception):
                carrier.pickled = pickler.dumps(error)
                break
        return carrier


def arrived(error: BaseException | None) -> BaseException | None:
    """Return what was raised elsewhere, if that can be unpickled; else what tells of it."""
    if not isinstance(error, Carrier):
        return error
    told = RemoteError(error.type_name, error.text, error.traceback)
    told.add_note(told.traceback)
    with suppress(Exception):
        own = pickle.loads(error.pickled)  # noqa: S301 - the executor trusts it as well
        if isinstance(own, Exception):
            own.__cause__ = error.__cause__ or told
            return own.with_traceback(error.__traceback__)
    return told
