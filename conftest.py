"""The root conftest: fences in docs and doctests in reference_impl need the plugins, too."""

import signal

pytest_plugins = [
    "tests.kit.under_test",
    "tests.kit.profile",
    "tests.kit.ledger",
    "tests.kit.blocks",
    "tests.kit.vendored",
]


def pytest_configure() -> None:
    """Have Ctrl-C, which some fences raise, heard also by a run in a shell's background (`&`)."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
