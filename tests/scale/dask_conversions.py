"""The converters of an AsyncConverterPool, run by the workers of a Dask cluster.

`python -m tests.scale.dask_conversions /shared/reports tcp://scheduler:8786`
"""

import asyncio
import contextlib
import csv
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TypedDict

from distributed import Client  # pyright: ignore[reportMissingImports]

from reference_impl.queues.async_converter_pool import AsyncConverterPool, Converter


class Report(TypedDict):
    """What becomes of a file; it travels from a worker to this process, so it is plain data."""

    unit: str
    passed: bool
    steps: list[dict[str, str]]


def convert(path: Path) -> Report:
    """Runs in a thread of this process, or in a worker that sees the file at the same path."""
    with path.open(newline="", encoding="utf-8") as file:
        steps = list(csv.DictReader(file))
    if not steps:
        raise ValueError(f"{path.name} holds no step: was the test aborted?")
    passed = [float(s["low"]) <= float(s["measured"]) <= float(s["high"]) for s in steps]
    return {"unit": path.stem, "passed": all(passed), "steps": steps}


def report_pool(
    inbox: Path, submit: Callable[[Report], Awaitable[None]], executor: Executor | None = None
) -> AsyncConverterPool[Report]:
    """The pool, whoever converts: without an executor, threads of its own."""
    reports = Converter("reports", inbox, ("*.csv",), convert)
    # max_concurrency: as many as the cluster has threads, or some of them idle.
    return AsyncConverterPool([reports], submit, max_concurrency=8, executor=executor)


async def show(report: Report) -> None:
    """Runs in this process, which also moves the files to done/ and error/."""
    print(report["unit"], "passed" if report["passed"] else "failed", flush=True)


def main() -> None:
    """Convert until Ctrl-C; the files under way stay for the next start."""
    inbox, scheduler = sys.argv[1:]
    # pure=False: Dask would otherwise give a file that comes again under its name the result of
    # the first one, for as long as it holds that.
    with Client(scheduler) as client, contextlib.suppress(KeyboardInterrupt):
        asyncio.run(report_pool(Path(inbox), show, client.get_executor(pure=False)).run())


if __name__ == "__main__":
    main()
