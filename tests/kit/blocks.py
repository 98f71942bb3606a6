"""Which Python the site shows, and which of it was executed.

A pytest plugin that keeps the source of each fence and doctest that passed in this run, and
the reader of the built HTML that is held against it.
"""

import doctest
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kit import COMPONENTS

EXECUTED = pytest.StashKey["Executed"]()


class Executed:
    """The code that passed: fences by their text, doctests by their single examples."""

    def __init__(self) -> None:
        self.fences: set[str] = set()
        self.examples: set[tuple[str, str]] = set()

    def add(self, item: pytest.Item) -> None:
        """Remember what this passed test executed, if it was a fence or a doctest."""
        if isinstance(item, pytest.DoctestItem):
            assert item.dtest is not None
            self.examples |= {(e.source, e.want) for e in item.dtest.examples}
        elif (code := getattr(item, "code", None)) is not None:
            self.fences.add(normal(code))

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
        for folder in (COMPONENTS, root / "tests" / "scale")
        for path in folder.rglob("*.py")
    }


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--blocks-to",
        type=Path,
        default=None,
        help="write how many Python blocks of the built site were executed to this JSON file",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[EXECUTED] = Executed()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    report = yield
    if report.when == "call" and report.passed:
        item.config.stash[EXECUTED].add(item)
    return report
