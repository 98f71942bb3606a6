"""What the tests of MemoryQueue share: claims, the state that callers see, waiting threads."""

import collections
import gc
import sys
from types import ModuleType
from typing import Any

from tests.kit.fakes import Beside
from tests.kit.primitives import Waits, watched


def statuses(queue: Any) -> Any:
    """The QueueItemStatus of the module that the queue comes from, which may be a twin's."""
    return sys.modules[type(queue).__module__].QueueItemStatus


def claim(queue: Any) -> Any:
    item = queue.get_next()
    assert item is not None, "nothing is pending"
    return item


def drain(queue: Any) -> list[Any]:
    return [item.data for item in iter(queue.get_next, None)]


def finish(queue: Any, item: Any) -> None:
    item.mark_completed()
    queue.update(item)


def state(queue: Any) -> object:
    """All that callers see: the items by arrival, each status in its order, the counts."""
    lists = {status: queue.list_by_status(status) for status in statuses(queue)}
    return list(queue), lists, queue.stats


def entries(root: object) -> int:
    """How much the containers hold that can be reached from here, whatever their names."""
    seen, ahead, count = set[int](), [root], 0
    while ahead:
        each = ahead.pop()
        if id(each) in seen or isinstance(each, type | ModuleType):
            continue
        seen.add(id(each))
        if isinstance(each, dict | list | set | collections.deque):
            count += len(each)
        ahead += gc.get_referents(each)
    return count


def watched_queue(m: ModuleType, **options: Any) -> tuple[Any, Waits]:
    """A queue of which is known who waits in it."""
    with watched(m) as waits:
        return m.MemoryQueue(**options), waits


def wait_next(queue: Any, timeout: float | None = None) -> Any:
    """The payload that `wait_next` gives, or the name of the error."""
    try:
        return queue.wait_next(timeout).data
    except (TimeoutError, RuntimeError) as error:
        return type(error).__name__


def asleep(queue: Any, waits: Waits, timeout: float | None = None) -> Beside:
    """A thread in `wait_next`, known to be asleep by now; its result is that of `wait_next`."""
    waiter = Beside(wait_next, queue, timeout)
    waits.await_waiting()
    return waiter
