"""What the review promises of the components' texts: its verdicts name these tests."""

import inspect
import tomllib

import pytest

from reference_impl.bridges.parallel_execute import parallel_execute
from reference_impl.caches.async_ttl_cache import AsyncTTLCache
from reference_impl.caches.ttl_cache import TTLCache
from reference_impl.queues.memory_queue import MemoryQueue
from tests.kit import COMPONENTS, ROOT


@pytest.mark.parametrize(
    ("documented", "heading"),
    [
        (MemoryQueue, "Thread safety:"),
        (TTLCache, "Thread safety:"),
        (AsyncTTLCache, "Async safety:"),
        (parallel_execute, "Thread safety:"),
    ],
)
def test_the_docstring_says_what_is_promised_to_threads(documented: object, heading: str) -> None:
    assert heading in (inspect.getdoc(documented) or "")


def test_the_docstring_warns_of_what_the_operation_shares() -> None:
    text = " ".join((inspect.getdoc(parallel_execute) or "").split())
    assert "operation" in text.partition("Thread safety:")[2]


def test_the_async_cache_shares_no_code_with_a_locking_one() -> None:
    assert not issubclass(AsyncTTLCache, TTLCache)


def test_no_component_sleeps_to_synchronise() -> None:
    for path in COMPONENTS.rglob("*.py"):
        assert "time.sleep(" not in path.read_text(encoding="utf-8"), path.name


def test_the_hosted_matrix_has_every_platform_and_python() -> None:
    text = (ROOT / ".github" / "workflows" / "site.yml").read_text(encoding="utf-8")
    for system in ("ubuntu", "macos", "windows"):
        assert f"{system}-latest" in text
    pythons = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for python in pythons["tool"]["executable-guarantees"]["pythons"]:
        assert f'"{python}"' in text
