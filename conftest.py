"""The root conftest: fences in docs/ and doctests in reference_impl/ need the ledger, too."""

pytest_plugins = ["tests.support.ledger", "tests.support.blocks"]
