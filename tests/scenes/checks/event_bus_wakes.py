"""A worker that is about to sleep does not miss an event."""

from interleave_test import no_interleave


def model(module):
    seen = []
    with no_interleave():
        bus = module.EventBus(max_workers=1)
        bus.subscribe("topic", seen.append)
        bus.start()
    bus.publish(module.Event("topic"))
    with no_interleave():
        bus.wait_idle()
        bus.stop()
    assert len(seen) == 1, "the event was not handled"
