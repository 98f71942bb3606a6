"""What the tests know of EventBus's inside: its hooks for exit and fork."""

from reference_impl.buses import event_bus


def exits() -> None:
    """What atexit calls."""
    event_bus._stop_all()


def is_forked() -> None:
    """What the child of a fork calls."""
    event_bus._after_fork()
