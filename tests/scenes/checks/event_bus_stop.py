"""An event that `publish` has accepted is handled, or `stop` returns it."""

import threading

from interleave_test import no_interleave, spawn


def model(module):
    seen, accepted = [], []
    event = module.Event("topic")
    with no_interleave():
        bus = module.EventBus(max_workers=1)
        bus.subscribe("topic", seen.append)
        bus.start()
        threading.Event().wait(1)  # until the worker sleeps
    stopper = spawn(bus.stop, name="stopper")
    try:
        bus.publish(event)
        accepted.append(event)
    except module.BusStopped:
        pass
    stopper.join()
    found = seen + stopper.result()
    assert found == accepted, "accepted, but neither handled nor returned"
