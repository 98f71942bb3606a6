"""The option `--copy`: a pytest plugin that binds other files before a test imports anything."""

import pytest

from tests.kit import copies


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer `--copy`."""
    parser.addoption(
        "--copy",
        action="append",
        metavar="COMPONENT=FILE",
        help="prove this file in the place of the component (caches/ttl_cache=path)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Bind the copies."""
    try:
        copies.bind(config.getoption("--copy") or ())
    except ValueError as error:
        raise pytest.UsageError(f"--copy: {error}") from None
