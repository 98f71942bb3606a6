"""A handler that publishes into its own full bus is told so at once."""

from interleave_test import no_interleave


def model(module):
    refused = []

    def handler(event):
        try:
            bus.publish(module.Event("other"))  # the bus is full
            bus.publish(module.Event("other"))
        except module.BusFull as error:
            refused.append(error)

    with no_interleave():
        bus = module.EventBus(max_workers=1, max_queue=1)
        bus.subscribe("topic", handler)
        bus.subscribe("other", lambda event: None)
        bus.start()
        bus.publish(module.Event("topic"))
        bus.wait_idle()
        bus.stop()
    assert len(refused) == 1, "nobody was told that the bus is full"
