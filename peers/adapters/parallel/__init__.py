"""One function over many items, at most so many at once."""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ClassVar

from peers.adapters import Row
from peers.outcomes import NotOffered


class Mapper(Row):
    """A call that returns when all items are done."""

    unexplored = "it starts threads of its own"
    # Why it takes no iterator, if it takes none.
    wants_sequence: ClassVar[str] = ""

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        """What the blocking function returns for each item; the first failure is raised."""
        raise NotOffered("no blocking functions")

    @staticmethod
    def settled(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        """What the blocking function returns or raises for each item, in their order."""
        raise NotOffered("the first failure ends the call, and no result can be had after it")

    @staticmethod
    def gather(
        function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4
    ) -> Coroutine[Any, Any, list[Any]]:
        """To be awaited: what the async function returns for each item."""
        raise NotOffered("it is called outside an event loop, and cannot be cancelled")
