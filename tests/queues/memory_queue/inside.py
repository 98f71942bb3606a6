"""All that tests know of how MemoryQueue keeps its items; no guarantee rests on it."""

import itertools
from collections.abc import Iterator
from typing import Any


def assert_consistent(queue: Any) -> None:
    """The lock's invariant: each id stands in one place, and no line is empty."""
    assert queue._priorities == sorted(queue._lines)
    assert all(queue._lines.values()), "an empty line was left behind"
    places = itertools.chain(*queue._lines.values(), *queue._since.values())
    assert sorted(places) == sorted(queue._items)


def forbid_walks(queue: Any) -> None:
    """Whoever walks all items from now on fails."""

    class NotToBeWalked(dict[str, Any]):
        def __iter__(self) -> Iterator[str]:
            raise AssertionError("walked")

        keys = values = items = __iter__  # type: ignore[assignment]

    queue._items = NotToBeWalked(queue._items)
