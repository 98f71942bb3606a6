"""All edits, by component."""

from tests.edits import bridges, buses, caches, queues
from tests.edits.edit import Edit

EDITS: dict[str, list[Edit]] = queues.EDITS | caches.EDITS | buses.EDITS | bridges.EDITS

# What promises nothing itself is proved by a component that is copied with it.
PROVED_AS = {"buses/event": "buses/event_bus"}
