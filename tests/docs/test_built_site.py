"""Gates on the built site: what a reader sees is what was run. `nox -s docs` runs them."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

from tests.support import ROOT
from tests.support.blocks import EXECUTED, Block, Executed, component_sources, python_blocks
from tests.support.evidence import BLOCKS
from tests.support.ledger import components

SITE = ROOT / "site"
FOREIGN_URL = re.compile(r"(?:url\(|@import\s+)['\"]?((?:https?:)?//[^'\")]+)")
# Python that the site shows and no test runs, as (page, why). Keep it empty.
EXCEPTIONS: dict[tuple[str, str], str] = {}


@pytest.fixture(scope="module")
def html_pages() -> list[Path]:
    found = sorted(SITE.rglob("*.html"))
    assert found, "there is no built site: run `nox -s docs`"
    return found


@pytest.fixture(scope="module")
def soup() -> Callable[[Path], BeautifulSoup]:
    @cache
    def parse(page: Path) -> BeautifulSoup:
        return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")

    return parse


def unexecuted(blocks: list[Block], executed: Executed) -> list[Block]:
    """The blocks that are neither executed nor a component's file, byte for byte."""
    sources = component_sources()
    return [
        block
        for block in blocks
        if not executed.covers(block) and sources.get(str(block.title)) != block.text
    ]


def test_every_python_block_was_executed(
    html_pages: list[Path],
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    executed = request.config.stash[EXECUTED]
    if not executed.fences or not executed.examples:
        pytest.fail("the fences and doctests did not run in this session: use `nox -s docs`")
    blocks = [block for page in html_pages for block in python_blocks(page)]
    left = [
        block
        for block in unexecuted(blocks, executed)
        if (block.page.relative_to(SITE).as_posix(), block.text) not in EXCEPTIONS
    ]
    share = 100 * (len(blocks) - len(left) - len(EXCEPTIONS)) / len(blocks)
    with capsys.disabled():
        print(f"\n{share:.0f} % of {len(blocks)} Python blocks on the built site were executed")
    assert not left, "never executed:\n" + "\n".join(
        f"{block.page.relative_to(SITE)}:\n{block.text}" for block in left
    )
    counts = {
        "shown": len(blocks),
        "executed": len(blocks) - len(EXCEPTIONS),
        "exceptions": len(EXCEPTIONS),
    }
    assert json.loads(BLOCKS.read_text(encoding="utf-8")) == counts, (
        f"write {json.dumps(counts)} to {BLOCKS.relative_to(ROOT)}, "
        "then run `python -m tests.support.evidence render`"
    )


def test_the_gate_sees_a_block_that_never_ran(tmp_path: Path) -> None:
    """The gate's own broken twin: an example nobody ran, and a file with one byte changed."""
    name, text = next(iter(component_sources().items()))
    page = tmp_path / "page.html"
    page.write_text(
        '<div class="language-python highlight"><pre><code>assert False\n</code></pre></div>'
        '<div class="language-pycon highlight"><pre><code>&gt;&gt;&gt; 1\n2\n</code></pre></div>'
        f'<div class="language-python highlight"><span class="filename">{name}</span>'
        f"<pre><code>{text}#</code></pre></div>"
        '<div class="language-python highlight"><pre><code>ran = True\n</code></pre></div>',
        encoding="utf-8",
    )
    executed = Executed()
    executed.fences.add("ran = True")
    assert len(unexecuted(list(python_blocks(page)), executed)) == 3


@pytest.mark.parametrize("component", components())
def test_whole_file_block_is_the_file(
    component: str, soup: Callable[[Path], BeautifulSoup]
) -> None:
    source = (ROOT / "reference_impl" / f"{component}.py").read_bytes()
    page = SITE / f"{component}.html"
    title = f"reference_impl/{component}.py"
    shown = [block.text for block in python_blocks(page) if block.title == title]
    assert [text.encode("utf-8") for text in shown] == [source]
    link = soup(page).select_one("a[download]")
    assert link is not None, f"{page.name} offers no download"
    assert (page.parent / str(link["href"])).resolve().read_bytes() == source


def test_no_internal_link_is_dead(
    html_pages: list[Path], soup: Callable[[Path], BeautifulSoup]
) -> None:
    dead = []
    for page in html_pages:
        if page.name == "404.html":  # its addresses are absolute: it is served from anywhere
            continue
        for tag in soup(page).select("[href], [src]"):
            address = str(tag.get("href") or tag.get("src"))
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                dead.append(f"{page.relative_to(SITE)} -> {address}: no such file")
            elif parts.fragment and target.suffix == ".html":
                name = unquote(parts.fragment)
                if soup(target).find(id=name) is None and not name.startswith("__"):
                    dead.append(f"{page.relative_to(SITE)} -> {address}: no such place")
    assert not dead, "\n".join(dead)


def test_nothing_is_loaded_from_another_host(
    html_pages: list[Path], soup: Callable[[Path], BeautifulSoup]
) -> None:
    loads = "script[src], img[src], iframe[src], link[rel=stylesheet], link[rel=preload]"
    foreign = [
        f"{page.relative_to(SITE)}: {tag}"
        for page in html_pages
        for tag in soup(page).select(f"{loads}, link[rel=preconnect], link[rel=icon]")
        if urlsplit(str(tag.get("src") or tag.get("href"))).netloc
    ]
    for sheet in SITE.rglob("*.css"):
        foreign += [
            f"{sheet.relative_to(SITE)}: {url}"
            for url in re.findall(
                r"(?:url\(|@import\s+)['\"]?((?:https?:)?//[^'\")]+)", sheet.read_text()
            )
        ]
    assert not foreign, "\n".join(foreign)


def test_pages_have_a_description(
    html_pages: list[Path], soup: Callable[[Path], BeautifulSoup]
) -> None:
    for page in html_pages:
        if page.name != "404.html":
            tag = soup(page).select_one("meta[name=description]")
            assert tag is not None, f"{page.relative_to(SITE)} has no description"
            assert tag.get("content"), f"{page.relative_to(SITE)} has no description"
