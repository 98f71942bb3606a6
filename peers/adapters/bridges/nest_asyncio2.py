"""nest-asyncio2: https://github.com/Chaoses-Ib/nest-asyncio2."""

import asyncio
from typing import Any

import nest_asyncio2

from peers.adapters.bridges import Bridge, Function


class Applied(Bridge):
    """asyncio.run, once `apply` has patched it."""

    name = "nest_asyncio2.apply, asyncio.run"
    package = "nest-asyncio2"
    documented = "https://github.com/Chaoses-Ib/nest-asyncio2#usage"
    take_it = "In a notebook: the call runs on the loop that is running, and that loop goes on."
    imports = "import asyncio\nimport nest_asyncio2"

    @staticmethod
    def call(function: Function) -> Any:
        nest_asyncio2.apply()
        return asyncio.run(function())

    @staticmethod
    def timed(function: Function, seconds: float) -> Any:
        nest_asyncio2.apply()
        return asyncio.run(asyncio.wait_for(function(), seconds))
