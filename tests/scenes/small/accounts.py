"""Accounts with a lock each; a transfer needs two of them."""

import threading
from operator import attrgetter


class Account:
    """A balance, and the lock that guards it."""

    def __init__(self, number: int, balance: int) -> None:
        self.number = number
        self.balance = balance
        self.lock = threading.Lock()

    def __repr__(self) -> str:
        return f"account {self.number}"


def move(amount: int, source: Account, target: Account) -> None:
    """Take both locks, that of the lower number first, and move the amount."""
    first, second = sorted([source, target], key=attrgetter("number"))
    with first.lock:
        with second.lock:
            source.balance -= amount
            target.balance += amount
