"""Event buses, for threads and for an event loop."""
