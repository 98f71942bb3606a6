"""The standard library: queue and asyncio."""

import asyncio
import dataclasses
import importlib
import importlib.util
import inspect
import sys
import tempfile
from pathlib import Path
from typing import Any

from peers.adapters.queues import WorkQueue


def _as_a_file(name: str) -> Any:
    """The same module outside the standard library, where its locks can be modelled."""
    folder = Path(tempfile.mkdtemp())
    file = folder / f"{name}_as_a_file.py"
    file.write_text(inspect.getsource(importlib.import_module(name)))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


queue = _as_a_file("queue")

_DOCS = "https://docs.python.org/3.13/library/queue.html"


class Queue(WorkQueue):
    """queue.Queue."""

    name = "queue.Queue"
    package = None
    documented = _DOCS
    take_it = "In the standard library, known to every reader, with `task_done` and `join`."
    imports = "import queue"
    explorable = ("queue_as_a_file",)

    @staticmethod
    def new() -> Any:
        return queue.Queue()

    @staticmethod
    def bounded(size: int) -> Any:
        return queue.Queue(size)

    @staticmethod
    def put(q: Any, item: Any) -> None:
        q.put_nowait(item)

    @staticmethod
    def get(q: Any) -> Any:
        try:
            return q.get_nowait()
        except queue.Empty:
            return None

    @staticmethod
    def wait(q: Any, timeout: float | None = None) -> Any:
        return q.get(timeout=timeout)

    @staticmethod
    def close(q: Any) -> None:
        q.shutdown()


class PriorityQueue(Queue):
    """queue.PriorityQueue with tuples, which its documentation calls the typical pattern."""

    name = "queue.PriorityQueue, (number, data)"
    take_it = "In the standard library; the smallest entry first, whatever an entry is."

    @staticmethod
    def new() -> Any:
        return queue.PriorityQueue()

    @staticmethod
    def bounded(size: int) -> Any:
        return queue.PriorityQueue(size)

    @staticmethod
    def put(q: Any, item: Any) -> None:
        q.put_nowait((1, item))

    @staticmethod
    def get(q: Any) -> Any:
        try:
            return q.get_nowait()[1]
        except queue.Empty:
            return None

    @staticmethod
    def wait(q: Any, timeout: float | None = None) -> Any:
        return q.get(timeout=timeout)[1]


@dataclasses.dataclass(order=True)
class PrioritizedItem:
    """The class of the documentation: what it holds is not compared."""

    priority: int
    item: Any = dataclasses.field(compare=False)


class PrioritizedItems(Queue):
    """queue.PriorityQueue with the class that its documentation has for other data."""

    name = "queue.PriorityQueue, PrioritizedItem"
    take_it = "In the standard library; for data that cannot be compared."
    imports = (
        "import dataclasses\nimport queue\n"
        'PrioritizedItem = dataclasses.make_dataclass("PrioritizedItem", ["priority", '
        '("item", object, dataclasses.field(compare=False))], order=True)'
    )

    @staticmethod
    def new() -> Any:
        return queue.PriorityQueue()

    @staticmethod
    def bounded(size: int) -> Any:
        return queue.PriorityQueue(size)

    @staticmethod
    def put(q: Any, item: Any) -> None:
        q.put_nowait(PrioritizedItem(1, item))

    @staticmethod
    def get(q: Any) -> Any:
        try:
            return q.get_nowait().item
        except queue.Empty:
            return None

    @staticmethod
    def wait(q: Any, timeout: float | None = None) -> Any:
        return q.get(timeout=timeout).item


class SimpleQueue(WorkQueue):
    """queue.SimpleQueue, which is compiled."""

    name = "queue.SimpleQueue"
    package = None
    documented = _DOCS
    take_it = "In the standard library and fast; its put may be called by finalizers."
    imports = "import queue"
    unexplored = "its core is compiled"
    uninterrupted = "its core is compiled"

    @staticmethod
    def new() -> Any:
        return queue.SimpleQueue()

    @staticmethod
    def put(q: Any, item: Any) -> None:
        q.put_nowait(item)

    @staticmethod
    def get(q: Any) -> Any:
        try:
            return q.get_nowait()
        except queue.Empty:
            return None

    @staticmethod
    def wait(q: Any, timeout: float | None = None) -> Any:
        return q.get(timeout=timeout)


class Asyncio(WorkQueue):
    """asyncio.Queue in one event loop: its documentation says that it is not thread-safe."""

    name = "asyncio.Queue"
    package = None
    documented = "https://docs.python.org/3.13/library/asyncio-queue.html"
    take_it = "In the standard library; the queue for the tasks of one event loop."
    imports = "import asyncio"
    asynchronous = True
    uninterrupted = "asyncio.run turns Ctrl-C into a cancellation, which another column asks for"

    @staticmethod
    def new() -> Any:
        return asyncio.Queue()

    @staticmethod
    def bounded(size: int) -> Any:
        return asyncio.Queue(size)

    @staticmethod
    def put(q: Any, item: Any) -> None:
        q.put_nowait(item)

    @staticmethod
    def get(q: Any) -> Any:
        try:
            return q.get_nowait()
        except asyncio.QueueEmpty:
            return None

    @staticmethod
    async def wait(q: Any, timeout: float | None = None) -> Any:
        return await asyncio.wait_for(q.get(), timeout)

    @staticmethod
    def awaited(q: Any) -> Any:
        return q.get()

    @staticmethod
    def close(q: Any) -> None:
        q.shutdown()
