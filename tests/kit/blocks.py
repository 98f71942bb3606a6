"""Which Python the site shows, and which of it was executed.

A pytest plugin that keeps the source of each fence and doctest that passed, in a file that
`--executed-to` names, and the reader of the built HTML that is held against it.
"""

import doctest
import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kit import COMPONENTS
from tests.kit.catalogue import all_digests

_EXECUTED = pytest.StashKey["Executed"]()


class Executed:
    """The code that passed: fences by their text, doctests by their single examples."""

    def __init__(self) -> None:
        self.fences: set[str] = set()
        self.examples: set[tuple[str, str]] = set()
        self.sources: dict[str, str] = {}  # the digests of the components that it ran on

    def add(self, fences: Iterable[str], examples: Iterable[Sequence[str]]) -> None:
        """Remember what a passed test executed."""
        self.fences.update(fences)
        self.examples.update((source, want) for source, want in examples)

    def write(self, path: Path) -> None:
        """Keep it for the gate, which runs when the site is built."""
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "fences": sorted(self.fences),
            "examples": sorted(self.examples),
            "sources": all_digests(),
        }
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Executed":
        """What a session has written; empty where none did, or it ran on other components."""
        executed = cls()
        if path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["sources"] == all_digests():
                executed.add(record["fences"], record["examples"])
        return executed

    def covers(self, block: "Block") -> bool:
        """Whether all of the block was executed."""
        if block.language == "pycon":
            examples = doctest.DocTestParser().get_examples(block.text)
            return bool(examples) and all((e.source, e.want) in self.examples for e in examples)
        return normal(block.text) in self.fences


@dataclass(frozen=True)
class Block:
    """A Python block of a built page; `text` is exactly what its copy button gives."""

    page: Path
    language: str
    text: str
    title: str | None = None


def normal(code: str) -> str:
    """The code without blank lines around it and without trailing blanks."""
    return "\n".join(line.rstrip() for line in code.strip("\n").splitlines()).strip("\n")


def python_blocks(page: Path) -> Iterator[Block]:
    """Each Python block that a reader sees on a built page, but for signatures."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    for highlight in soup.select("div.highlight"):
        classes: Any = highlight.get("class") or []
        language = next((c[9:] for c in classes if c.startswith("language-")), "")
        if not language.startswith(("py", "ipython")) or "doc-signature" in classes:
            continue
        code, title = highlight.select_one("pre code"), highlight.select_one(".filename")
        assert code is not None, f"{page.name} has a highlighted block without code"
        yield Block(page, language, code.get_text(), title.get_text() if title else None)


def whole_files() -> dict[str, str]:
    """The files that pages may show whole, since a session runs them."""
    root = COMPONENTS.parent
    return {
        path.relative_to(root).as_posix(): path.read_bytes().decode("utf-8")
        for folder in (COMPONENTS, root / "tests" / "scale", root / "docs" / "guides" / "recipes")
        for path in folder.rglob("*.py")
    }


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--executed-to",
        type=Path,
        help="write the Python of pages and docstrings that was executed to this JSON file",
    )


def pytest_configure(config: pytest.Config) -> None:
    global _executed
    _executed = config.stash[_EXECUTED] = Executed()


# pytest_runtest_logreport is not told of its config.
_executed: Executed | None = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    report = yield
    if report.when == "call" and report.passed:
        if isinstance(item, pytest.DoctestItem):
            assert item.dtest is not None
            report.executed = [[], [[e.source, e.want] for e in item.dtest.examples]]
        elif (code := getattr(item, "code", None)) is not None:
            report.executed = [[normal(code)], []]
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if (found := getattr(report, "executed", None)) is not None and _executed is not None:
        _executed.add(*found)


def pytest_sessionfinish(session: pytest.Session) -> None:
    target: Path | None = session.config.getoption("--executed-to")
    if target is not None and not hasattr(session.config, "workerinput"):
        session.config.stash[_EXECUTED].write(target)
