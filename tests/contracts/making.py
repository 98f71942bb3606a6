"""How a contract comes by what it examines."""

import inspect
from abc import ABC, abstractmethod
from functools import partial
from types import FunctionType
from typing import Any


class Made(ABC):
    """A subclass gives `make`: a method, or else a class or a function in the place of one."""

    @abstractmethod
    def make(self, *arguments: Any, **options: Any) -> Any:
        """A new object; the arguments are those of the constructor."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        make: Any = vars(cls).get("make")
        # In a class body, `make = make_cache` would become a method, and get the case as `self`.
        if (
            isinstance(make, FunctionType | partial)
            and "self" not in inspect.signature(make).parameters
        ):
            cls.make = staticmethod(make)  # type: ignore[method-assign]
