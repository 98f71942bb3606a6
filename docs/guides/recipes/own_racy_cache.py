"""An attempt with a bug: a hit skips the lock, since each operation on a dict is atomic."""

from collections.abc import Hashable
from typing import Any

from own_dict_cache import DictCache


class RacyCache(DictCache):
    """What is true when it is checked need not be true when `get` acts on it."""

    def get(self, key: Hashable, default: Any = None) -> Any:
        if key not in self:
            self._count(misses=1)
            return default
        entry = self._entries.pop(key)
        self._entries[key] = entry
        self._count(hits=1)
        return entry[0]
