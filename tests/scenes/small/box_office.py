"""A box office at which several threads sell."""

import threading


class BoxOffice:
    """Sells seats; any thread may call `sell`."""

    def __init__(self, seats: int) -> None:
        self.free = seats
        self.sold_to: list[str] = []
        self._lock = threading.Lock()

    def sell(self, customer: str) -> bool:
        """Sell a seat, if one is free."""
        with self._lock:
            if self.free == 0:
                return False
            self.free -= 1
            self.sold_to.append(customer)
            return True
