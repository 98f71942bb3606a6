"""A box office that several threads sell at."""

import threading


class BoxOffice:
    """Sells seats; any thread may call `sell`."""

    def __init__(self, seats: list[str]) -> None:
        self.seats = seats
        self._lock = threading.Lock()

    def sell(self) -> str:
        """Return the seat that is sold, or "sold out"."""
        with self._lock:
            if self.seats:
                return self.seats.pop()
            return "sold out"
