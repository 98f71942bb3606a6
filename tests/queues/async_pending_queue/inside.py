"""The one place where the tests look inside an AsyncPendingQueue."""

from reference_impl.queues.async_pending_queue import AsyncPendingQueue


def submissions(queue: AsyncPendingQueue) -> set[str]:
    """The temporaries of submissions that it takes to be under way."""
    return queue._writing
