"""How a contract comes by what it examines, and what that may lack."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Set as AbstractSet
from functools import partial
from types import FunctionType
from typing import Any

import pytest


class Made(ABC):
    """A subclass gives `make`: a method, or else a class or a function in the place of one."""

    lacks: AbstractSet[str] = frozenset()  # operations, and the constructor's keywords

    @abstractmethod
    def make(self, *arguments: Any, **options: Any) -> Any:
        """A new object; the arguments are those of the constructor."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not isinstance(cls.lacks, AbstractSet):
            raise TypeError(
                f"{cls.__name__}.lacks must be a set of names, such as "
                f'{{"get_or_load"}}, not {cls.lacks!r}'
            )
        make: Any = vars(cls).get("make")
        # In a class body, `make = make_cache` would become a method, and get the case as `self`.
        if (
            isinstance(make, FunctionType | partial)
            and "self" not in inspect.signature(make).parameters
        ):
            cls.make = staticmethod(make)  # type: ignore[method-assign]

    @pytest.fixture(autouse=True)
    def _without_what_it_lacks(self) -> None:
        """A case that uses something that is not there is skipped."""
        if not self.lacks:
            return
        make = self.make

        def make_lacking(*arguments: Any, **options: Any) -> Any:
            for name in self.lacks & options.keys():
                _skip(name)
            return _Lacking(make(*arguments, **options), self.lacks)

        self.make = make_lacking  # type: ignore[method-assign]


class _Lacking:
    """An object that refuses to be used for what it lacks."""

    def __init__(self, made: Any, lacks: AbstractSet[str]) -> None:
        self._made, self._lacks = made, lacks

    def _use(self, name: str) -> None:
        if name in self._lacks:
            _skip(name)

    def __getattr__(self, name: str) -> Any:
        self._use(name)
        return getattr(self._made, name)

    def __len__(self) -> int:
        self._use("len")
        return len(self._made)

    def __contains__(self, key: Any) -> bool:
        self._use("in")
        return key in self._made


def _skip(name: str) -> None:
    pytest.skip(f"not offered: {name}")
