"""blinker: https://github.com/pallets-eco/blinker."""

from collections.abc import Callable
from typing import Any

import blinker

from peers.adapters.buses import Bus


class Signal(Bus):
    """Its signal, sent to plain functions."""

    name = "blinker.Signal"
    package = "blinker"
    documented = "https://blinker.readthedocs.io/en/stable/"
    take_it = "The signals of Flask: small, with senders and weak references to receivers."
    imports = "import blinker"
    explorable = ("blinker",)

    @staticmethod
    def new() -> Any:
        return blinker.Signal()

    @staticmethod
    def subscribe(bus: Any, handler: Callable[[Any], Any]) -> Any:
        # A closure of ours would be forgotten at once: its documentation has weak=False for it.
        return bus.connect(lambda _, value: handler(value), weak=False)

    @staticmethod
    def unsubscribe(bus: Any, token: Any) -> None:
        bus.disconnect(token)

    @staticmethod
    def emit(bus: Any, value: Any) -> None:
        bus.send("sender", value=value)
