"""This project's bridges."""

from typing import Any

from peers.adapters.bridges import Bridge, Function
from reference_impl.bridges.async_runner import AsyncRunner
from reference_impl.bridges.run_sync import run_sync


class RunSync(Bridge):
    """One call."""

    name = "run_sync"
    ours = True
    documented = "https://executable-guarantees.example/bridges/run_sync.html"
    take_it = "One file to copy, for code that cannot know whether a loop runs above it."
    imports = "from reference_impl.bridges.run_sync import run_sync"

    @staticmethod
    def call(function: Function) -> Any:
        return run_sync(function())

    @staticmethod
    def timed(function: Function, seconds: float) -> Any:
        return run_sync(function(), timeout=seconds)


class Runner(Bridge):
    """A loop in a thread of its own, here for each call."""

    name = "AsyncRunner"
    ours = True
    documented = "https://executable-guarantees.example/bridges/async_runner.html"
    take_it = "One file to copy, for many calls that share what lives on one loop."
    imports = "from reference_impl.bridges.async_runner import AsyncRunner"

    @staticmethod
    def call(function: Function) -> Any:
        with AsyncRunner() as runner:
            return runner.run(function())

    @staticmethod
    def timed(function: Function, seconds: float) -> Any:
        with AsyncRunner() as runner:
            return runner.run(function(), timeout=seconds)
