"""dramatiq: https://github.com/Bogdanp/dramatiq."""

from typing import Any

import dramatiq.brokers.stub

from peers.adapters.queues import WorkQueue


class Stub(WorkQueue):
    """The broker for unit tests, which keeps messages in memory."""

    name = "dramatiq StubBroker"
    package = "dramatiq"
    documented = "https://dramatiq.io/guide.html#unit-testing"
    take_it = "For unit tests of dramatiq's actors; in production it has RabbitMQ or Redis."
    imports = "import dramatiq.brokers.stub"
    unexplored = "its middleware and its messages take too many steps"

    @staticmethod
    def new() -> Any:
        q: Any = dramatiq.brokers.stub.StubBroker()
        q.declare_queue("default")
        return q

    @staticmethod
    def put(q: Any, item: Any) -> None:
        q.enqueue(dramatiq.Message("default", "actor", (item,), {}, {}))

    @staticmethod
    def get(q: Any) -> Any:
        consumer = q.consume("default", timeout=0)
        message = consumer.__next__()
        return message and message.args[0]

    @staticmethod
    def wait(q: Any, timeout: float | None = 3600.0) -> Any:
        # In place of a message that did not come in time there is None, which has no args.
        return q.consume("default", timeout=int(1000 * (timeout or 0))).__next__().args[0]
