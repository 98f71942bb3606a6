"""The option `--copy`: a pytest plugin that binds other files before a test imports anything."""

import ast
from pathlib import Path

import pytest

from reference_impl._targets import own_name
from tests.kit import COMPONENTS, copies


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
        copies.bind(dict(map(_binding, config.getoption("--copy") or ())))
    except ValueError as error:
        raise pytest.UsageError(f"--copy: {error}") from None


def _binding(pair: str) -> tuple[str, copies.Binding]:
    component, _, file = pair.partition("=")
    if not (COMPONENTS / f"{component}.py").is_file():
        raise ValueError(f"there is no component {component!r}")
    path = Path(file).resolve()
    if not path.is_file():
        raise ValueError(f"there is no file {file!r}")
    module, root = own_name(path, ast.parse(path.read_bytes()))
    name = f"reference_impl.{component.replace('/', '.')}"
    return name, copies.Binding(str(path), module, root)
