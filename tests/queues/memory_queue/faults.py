"""Faults of MemoryQueue, made of its public methods."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Any

from tests.kit.primitives import rebind
from tests.kit.twins import Fault, override, patch
from tests.queues.memory_queue.helpers import statuses

Update = Callable[[Any], None]


def made_with(**changes: Callable[[Any], Any]) -> Fault:
    """The queue gets other settings than it was given."""

    def make(original: Any) -> Any:
        def init(self: Any, max_size: int | None = None, **options: Any) -> None:
            options["max_size"] = max_size
            for name, change in changes.items():
                options[name] = change(options.get(name))
            original(self, **options)

        return init

    return override("MemoryQueue.__init__", make)


def made_of(**primitives: Any) -> Fault:
    """The component makes its locks of these, or asks these."""

    def change(module: ModuleType) -> None:
        rebind(module, **primitives)

    return patch(change)


def forgets(method: str, option: str) -> Fault:
    """The method is called without this keyword argument."""

    def make(original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            options.pop(option, None)
            return original(*arguments, **options)

        return call

    return override(method, make)


# Claims.


def claims(choose: Callable[[list[Any]], Any]) -> Fault:
    """`get_next` claims another one of the pending items, which are given in their order."""

    def make(_: Any) -> Any:
        def get_next(self: Any) -> Any:
            if not (pending := self.list_by_status(statuses(self).PENDING)):
                return None
            item = choose(pending)
            item.mark_processing()
            self.update(item)
            return item

        return get_next

    return override("MemoryQueue.get_next", make)


def after_claim(change: Callable[[Any, Any], None]) -> Fault:
    """What `get_next` claimed is changed before the caller has it."""

    def make(original: Any) -> Any:
        def get_next(self: Any) -> Any:
            if (item := original(self)) is not None:
                change(self, item)
            return item

        return get_next

    return override("MemoryQueue.get_next", make)


def _uncount(queue: Any, item: Any) -> None:
    item.attempts -= 1
    queue.update(item)


def _unclaim(queue: Any, item: Any) -> None:
    again = queue.get(item.id)
    again.reset_to_pending()
    queue.update(again)


counts_no_attempt = after_claim(_uncount)
leaves_it_in_its_line = after_claim(_unclaim)


# Updates.


def updates(work: Callable[[Any, Any, Update], None]) -> Fault:
    """`update` does this, given the queue, the item and the sound `update`."""

    def make(original: Any) -> Any:
        return lambda self, item, **options: work(
            self, item, lambda each: original(self, each, **options)
        )

    return override("MemoryQueue.update", make)


def _believe(queue: Any, item: Any, update: Update) -> None:
    if (stored := queue.get(item.id)) is not None:
        item.version = stored.version
    update(item)


def _leave_version(queue: Any, item: Any, update: Update) -> None:
    before = item.version
    update(item)
    item.version = before


def _send_behind(items: list[Any], update: Update) -> None:
    for item in items:
        item.mark_suspended()
        update(item)
        item.reset_to_pending()
        update(item)


def _line_up_again(queue: Any, item: Any, update: Update) -> None:
    update(item)
    _send_behind([item], update)


def _put_in_front(queue: Any, item: Any, update: Update) -> None:
    update(item)
    pending = queue.list_by_status(statuses(queue).PENDING)
    _send_behind([each for each in pending if each.id != item.id], update)


def _ignore_progress(queue: Any, item: Any, update: Update) -> None:
    if item.status is not statuses(queue).PROCESSING:
        update(item)


def _lose_what_is_refused(queue: Any, item: Any, update: Update) -> None:
    try:
        update(item)
    except (ValueError, RuntimeError):
        queue.remove(item.id)
        raise


def _forget_the_newest(queue: Any, item: Any, update: Update) -> None:
    completed = queue.list_by_status(statuses(queue).COMPLETED)
    if len(completed) == 2:
        queue.remove(completed[-1].id)
    update(item)


believes_the_last = updates(_believe)
leaves_the_old_version = updates(_leave_version)
sends_what_stays_behind = updates(_line_up_again)
puts_in_front = updates(_put_in_front)
ignores_progress = updates(_ignore_progress)
loses_what_it_refuses = updates(_lose_what_is_refused)
forgets_the_newest = updates(_forget_the_newest)


# Re-queueing.

only_counts_what_it_retries = override(
    "MemoryQueue.retry_failed",
    lambda _: (
        lambda self, **_: sum(i.can_retry for i in self.list_by_status(statuses(self).FAILED))
    ),
)


def _never_give_up(original: Any) -> Any:
    def requeue_stale(self: Any, older_than: float) -> Any:
        failed = {item.id for item in self.list_by_status(statuses(self).FAILED)}
        count = original(self, older_than)
        for item in self.list_by_status(statuses(self).FAILED):
            if item.id not in failed:
                item.reset_to_pending()
                self.update(item)
                count += 1
        return count

    return requeue_stale


never_gives_up = override("MemoryQueue.requeue_stale", _never_give_up)


# Sizes and ids.


def _count_all(original: Any) -> Any:
    def add(self: Any, data: Any, **options: Any) -> Any:
        for done in self.list_by_status(statuses(self).COMPLETED):
            done.mark_suspended()
            self.update(done)
        return original(self, data, **options)

    return add


def _count_removed(original: Any) -> Any:
    def remove(self: Any, item_id: str) -> Any:
        removed = original(self, item_id)
        self.removed = getattr(self, "removed", 0) + removed
        return removed

    return remove


def _made_up_id(original: Any) -> Any:
    def add(self: Any, data: Any, *, item_id: str | None = None, **options: Any) -> Any:
        if item_id is None:
            self.given = getattr(self, "given", 0) + 1
            self.remove(item_id := f"item-{self.given}")
        return original(self, data, item_id=item_id, **options)

    return add


never_forgets = made_with(keep_completed=lambda keep: 99)
has_room_for_one_more = made_with(max_size=lambda most: most and most + 1)
counts_completed_as_live = override("MemoryQueue.add", _count_all)
makes_up_ids_in_use = override("MemoryQueue.add", _made_up_id)
counts_what_was_removed = override("MemoryQueue.remove", _count_removed) + override(
    "MemoryQueue.__len__",
    lambda original: lambda self: original(self) + getattr(self, "removed", 0),
)
closes_in_name_only = override("MemoryQueue.close", lambda _: lambda self: None)


def _close_and_tell(original: Any) -> Any:
    def close(self: Any) -> None:
        self.shut = True
        original(self)

    return close


gives_nothing_once_closed = override("MemoryQueue.close", _close_and_tell) + override(
    "MemoryQueue.get_next",
    lambda original: lambda self: None if hasattr(self, "shut") else original(self),
)


# Copies.


def _one_copy_for_all(original: Any) -> Any:
    def get(self: Any, item_id: str) -> Any:
        shared = self.__dict__.setdefault("shared", {})
        return shared.setdefault(item_id, original(self, item_id))

    return get


gives_all_the_same_copy = override("MemoryQueue.get", _one_copy_for_all)
keeps_the_callers_metadata = patch(lambda m: setattr(m, "dict", lambda notes: notes))
walks_what_is_there_now = override(
    "MemoryQueue.__iter__",
    lambda original: (
        lambda self: (item for item in original(self) if self.get(item.id) is not None)
    ),
)


def holds_its_lock(method: str) -> Fault:
    """The queue's lock stays locked until the method has returned, or its walk ended."""
    locks = list[Any]()

    def lock() -> Any:
        locks.append(threading.RLock())
        return locks[-1]

    def make(original: Any) -> Any:
        def call(*arguments: Any) -> Any:
            with ExitStack() as held:
                for each in locks:
                    held.enter_context(each)
                return original(*arguments)

        def walk(*arguments: Any) -> Iterator[Any]:
            with ExitStack() as held:
                for each in locks:
                    held.enter_context(each)
                yield from original(*arguments)

        return walk if method.endswith(".__iter__") else call

    def change(module: ModuleType) -> None:
        rebind(module, RLock=lock)

    return patch(change) + override(method, make)


# Clocks.


def _own_clock(original: Any) -> Any:
    def init(self: Any, *arguments: Any, clock: Callable[[], float]) -> None:
        self.own_clock = clock
        original(self, *arguments, clock=clock)

    return init


def reads_the_clock_too_late(method: str) -> Fault:
    """The method changes the queue, and then reads the clock again."""

    def make(original: Any) -> Any:
        def call(self: Any, *arguments: Any) -> Any:
            result = original(self, *arguments)
            self.own_clock()
            return result

        return call

    return override("MemoryQueue.__init__", _own_clock) + override(method, make)
