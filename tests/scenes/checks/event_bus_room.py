"""A publisher that waits for room gets it once a worker has made some."""

from interleave_test import no_interleave


def model(module):
    seen = []
    with no_interleave():
        bus = module.EventBus(max_workers=1, max_queue=1)
        bus.subscribe("topic", lambda event: seen.append(event.payload))
        bus.start()
        bus.publish(module.Event("topic", 1))  # the bus is full
    bus.publish(module.Event("topic", 2))
    with no_interleave():
        bus.stop()
    assert seen == [1, 2], f"handled: {seen}"
