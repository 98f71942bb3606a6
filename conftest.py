"""The root conftest: fences in docs/ and doctests in reference_impl/ need the ledger, too."""

import pytest

from tests.kit import copies

pytest_plugins = ["tests.kit.profile", "tests.kit.ledger", "tests.kit.blocks"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer `--copy`."""
    parser.addoption(
        "--copy",
        action="append",
        default=[],
        metavar="COMPONENT=FILE",
        help="prove this file in the place of the component (caches/ttl_cache=path)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Bind the copies before anything imports a component."""
    try:
        copies.bind(config.getoption("--copy"))
    except ValueError as error:
        raise pytest.UsageError(f"--copy: {error}") from None
