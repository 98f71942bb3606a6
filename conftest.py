"""The root conftest: fences in docs and doctests in reference_impl need the plugins, too."""

pytest_plugins = [
    "tests.kit.under_test",
    "tests.kit.profile",
    "tests.kit.ledger",
    "tests.kit.blocks",
]
