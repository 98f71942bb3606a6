"""All that tests know of how MemoryQueue keeps its items; no guarantee rests on it."""

import itertools
from collections.abc import Iterator
from typing import Any


def assert_consistent(queue: Any) -> None:
    """The lock's invariant: each id is in one place, and heaps hold few void entries."""
    entries = [each for each in queue._order + queue._timetable if queue._is_valid_locked(each)]
    places = itertools.chain((key for *_, key in entries), *queue._since.values())
    assert sorted(places) == sorted(queue._items)
    assert not queue._decided
    assert len(queue._order) + len(queue._timetable) <= 2 * len(queue._items) + 2


def forbid_walks(queue: Any) -> None:
    """Whoever walks all items from now on fails."""

    class NotToBeWalked(dict[str, Any]):
        def __iter__(self) -> Iterator[str]:
            raise AssertionError("walked")

        keys = values = items = __iter__  # type: ignore[assignment]

    queue._items = NotToBeWalked(queue._items)
