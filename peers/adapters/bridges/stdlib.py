"""asyncio itself."""

import asyncio
from typing import Any

from peers.adapters.bridges import Bridge, Function


class Run(Bridge):
    """A loop for each call."""

    name = "asyncio.run"
    package = None
    documented = "https://docs.python.org/3/library/asyncio-runner.html"
    take_it = "It is there, and it is what a program's entry needs."
    imports = "import asyncio"

    @staticmethod
    def call(function: Function) -> Any:
        return asyncio.run(function())

    @staticmethod
    def timed(function: Function, seconds: float) -> Any:
        return asyncio.run(asyncio.wait_for(function(), seconds))
