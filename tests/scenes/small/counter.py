"""A counter that several threads share."""

import threading


class Counter:
    """Counts visits; any thread may call `add`."""

    def __init__(self) -> None:
        self.visits = 0
        self._lock = threading.Lock()

    def add(self) -> int:
        """Count one visit, and return its number."""
        with self._lock:
            self.visits += 1
            return self.visits
