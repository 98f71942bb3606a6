"""Gates on the built site: what a reader sees is what was run. `nox -s docs` runs them."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup, Tag

from tests.kit import ROOT
from tests.kit.blocks import Block, Executed, normal, python_blocks, whole_files
from tests.kit.catalogue import components, parts, users
from tests.kit.site import SITE, pages, redirects

FOREIGN_URL = re.compile(r"(?:url\(|@import\s+)['\"]?((?:https?:)?//[^'\")]+)")
EXECUTED = ROOT / "build" / "executed.json"  # written by the session before
# Python that the site shows and no test runs, as (page, why). Keep it empty.
EXCEPTIONS: dict[tuple[str, str], str] = {}


@pytest.fixture(scope="module")
def html_pages() -> list[Path]:
    found = pages()
    assert found, "there is no built site: run `nox -s docs`"
    return found


@pytest.fixture(scope="module")
def soup() -> Callable[[Path], BeautifulSoup]:
    @cache
    def parse(page: Path) -> BeautifulSoup:
        return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")

    return parse


def compared() -> set[str]:
    """The programs that show a failure, which the session `peers` has executed."""
    found = set()
    for file in (ROOT / "peers" / "results").glob("*.json"):
        for row in json.loads(file.read_text(encoding="utf-8")).get("rows", {}).values():
            found |= {normal(c["program"]) for c in row["cells"].values() if c.get("shows")}
    return found


def unexecuted(blocks: list[Block], executed: Executed) -> list[Block]:
    """The blocks that are neither executed nor a file that is run, byte for byte, nor a cell's."""
    sources, programs = whole_files(), compared()
    return [
        block
        for block in blocks
        if not executed.covers(block)
        and sources.get(str(block.title)) != block.text
        and normal(block.text) not in programs
    ]


def test_every_python_block_was_executed(html_pages: list[Path]) -> None:
    executed = Executed.read(EXECUTED)
    if not executed.fences or not executed.examples:
        pytest.fail("the fences and doctests were not run on these files: use `nox -s docs`")
    blocks = [block for page in html_pages for block in python_blocks(page)]
    assert len(blocks) > 300, "where have the examples gone?"
    left = [
        block
        for block in unexecuted(blocks, executed)
        if (block.page.relative_to(SITE).as_posix(), block.text) not in EXCEPTIONS
    ]
    assert not left, "never executed:\n" + "\n".join(
        f"{block.page.relative_to(SITE)}:\n{block.text}" for block in left
    )


def test_the_gate_sees_a_block_that_never_ran(tmp_path: Path) -> None:
    """The gate's own broken twin: an example nobody ran, and a file with one byte changed."""
    name, text = next(iter(whole_files().items()))
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


def test_part_is_shown_where_its_address_says(soup: Callable[[Path], BeautifulSoup]) -> None:
    for part in parts():
        source = (ROOT / "reference_impl" / f"{part}.py").read_bytes()
        found = re.search(rb"^# https://[^/]+/(\S+)#(\S+)$", source, re.MULTILINE)
        assert found is not None, f"{part}.py has no address"
        page, name = found[1].decode(), found[2].decode()
        assert page in {f"{user}.html" for user in users(part)}
        title = f"reference_impl/{part}.py"
        shown = [block.text for block in python_blocks(SITE / page) if block.title == title]
        assert [text.encode("utf-8") for text in shown] == [source], f"{page} shows it not whole"
        for user in users(part):
            link = soup(SITE / f"{user}.html").find(id=name)
            assert link is not None, f"{user}.html does not show {part}"
            assert ((SITE / page).parent / str(link["href"])).resolve().read_bytes() == source


def test_no_internal_link_is_dead(
    html_pages: list[Path], soup: Callable[[Path], BeautifulSoup]
) -> None:
    @cache
    def places(page: Path) -> set[str]:
        return {str(tag["id"]) for tag in soup(page).select("[id]")}

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
                if name not in places(target) and not name.startswith("__"):
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
            for url in FOREIGN_URL.findall(sheet.read_text(encoding="utf-8"))
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


def too_heavy(site: Path, limit: int) -> str:
    """The five heaviest pages, if one of them is over `limit` bytes; else nothing.

    A page weighs, uncompressed, what is its own: itself and its pictures. Left out is what all
    pages share, and a reader fetches once: the search index, the scripts, the theme's styles.
    """
    weights = {}
    for page in pages(site):
        pictures = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select("img[src]")
        addresses = {str(tag["src"]) for tag in pictures}
        # The 404 page's addresses are absolute, as it is served from anywhere.
        files = {
            (site / unquote(url.lstrip("/")) if url.startswith("/") else page.parent / unquote(url))
            for url in (urlsplit(address).path for address in addresses)
        }
        weights[page] = sum(file.stat().st_size for file in {page, *files} if file.is_file())
    heaviest = sorted(weights, key=lambda page: weights[page], reverse=True)[:5]
    if not heaviest or weights[heaviest[0]] <= limit:
        return ""
    return "\n".join(f"{page.relative_to(site)}: {weights[page]:,} bytes" for page in heaviest)


def test_no_page_weighs_more_than_500_kb() -> None:
    assert too_heavy(SITE, 0), "no page was weighed"
    assert not (found := too_heavy(SITE, 500_000)), found


def test_a_heavy_page_is_found(tmp_path: Path) -> None:
    (tmp_path / "life.svg").write_text("x" * 90)
    (tmp_path / "page.html").write_text('<img src="life.svg?v=1"><img src="life.svg?v=1">')
    (tmp_path / "light.html").write_text("<p>")
    assert too_heavy(tmp_path, 100) == "page.html: 138 bytes\nlight.html: 3 bytes"
    assert too_heavy(tmp_path, 138) == ""


def test_each_page_says_where_it_stands(
    html_pages: list[Path], soup: Callable[[Path], BeautifulSoup]
) -> None:
    base = base_address(soup)
    for page in html_pages:
        if page.name != "404.html":
            tag = soup(page).select_one("link[rel=canonical]")
            assert tag is not None, f"{page.relative_to(SITE)} has no canonical address"
            assert tag["href"] == base + page.relative_to(SITE).as_posix()


def test_an_address_that_is_gone_leads_back(soup: Callable[[Path], BeautifulSoup]) -> None:
    """404.html is shown at any depth: what it links to must not depend on where."""
    page = soup(SITE / "404.html")
    root = urlsplit(base_address(soup)).path
    heading = page.select_one("h1")
    assert heading is not None
    assert "404" in heading.text
    addresses = [str(tag.get("href") or tag.get("src")) for tag in page.select("[href], [src]")]
    inside = [url for url in addresses if not urlsplit(url).scheme and not url.startswith("#")]
    assert inside
    for url in inside:
        assert url.startswith(root), f"404.html -> {url}: relative"
        target = SITE / unquote(urlsplit(url).path).removeprefix(root)
        assert target.exists(), f"404.html -> {url}: no such file"


def lost(site: Path) -> list[str]:
    """The old addresses that lead to no page, or to no place on one."""
    faults = []
    for page, address in redirects(site).items():
        path, _, anchor = address.partition("#")
        target = (page.parent / path).resolve()
        if not target.is_file() or (anchor and f'id="{anchor}"' not in target.read_text("utf-8")):
            faults.append(f"{page.relative_to(site).as_posix()} -> {address}")
    return faults


def test_an_old_address_leads_to_a_page() -> None:
    sections = {f"{component.split('/')[0]}/index.html" for component in components()}
    assert sections <= {page.relative_to(SITE).as_posix() for page in redirects()}
    assert not lost(SITE)


def test_an_old_address_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "new.html").write_text('<h1 id="here">')
    for name in ("new.html", "new.html#here", "new.html#there", "gone.html"):
        refresh = f'<meta http-equiv="refresh" content="0; url={name}">'
        (tmp_path / f"{name.replace('#', '-')}-old.html").write_text(refresh)
    found = ["gone.html-old.html -> gone.html", "new.html-there-old.html -> new.html#there"]
    assert lost(tmp_path) == found


def llms_faults(site: Path, base: str) -> list[str]:
    """What llms.txt leaves out, or names in vain."""
    text = (site / "llms.txt").read_text(encoding="utf-8")
    named = set(re.findall(r"^- \[.+?\]\((\S+?)\)", text, re.MULTILINE))
    wanted = {
        base + path.relative_to(site).with_suffix(".md").as_posix()
        for path in pages(site)
        if path.name != "404.html"
    }
    vain = {url for url in named if not (site / url.removeprefix(base)).is_file()}
    return [f"{url} is not named" for url in wanted - named] + [
        f"{url} is named, and is no page" for url in (named - wanted) | vain
    ]


def base_address(soup: Callable[[Path], BeautifulSoup]) -> str:
    """Where the built site believes to be hosted."""
    canonical = soup(SITE / "index.html").select_one("link[rel=canonical]")
    assert canonical is not None
    return str(canonical["href"]).removesuffix("index.html")


def test_llms_txt_names_every_page(soup: Callable[[Path], BeautifulSoup]) -> None:
    faults = llms_faults(SITE, base_address(soup))
    assert not faults, "the navigation in mkdocs.yml lacks a page:\n" + "\n".join(faults)


def test_the_gate_sees_what_llms_txt_lacks(tmp_path: Path) -> None:
    """Its broken twin: a page left out, and one that is gone."""
    for name in ("a.html", "a.md", "b.html", "b.md", "404.html"):
        (tmp_path / name).touch()
    lines = ["- [A](https://x/a.md)", "- [B](https://x/b.md)", "- [C](https://x/c.md): gone"]
    (tmp_path / "llms.txt").write_text("\n".join(lines[:2]), encoding="utf-8")
    assert llms_faults(tmp_path, "https://x/") == []
    (tmp_path / "llms.txt").write_text("\n".join(lines[1:]), encoding="utf-8")
    assert llms_faults(tmp_path, "https://x/") == [
        "https://x/a.md is not named",
        "https://x/c.md is named, and is no page",
    ]


def test_markdown_of_a_page_has_its_code_and_its_links(
    html_pages: list[Path], soup: Callable[[Path], BeautifulSoup]
) -> None:
    base, faults = base_address(soup), []
    for page in html_pages:
        if page.name == "404.html":
            continue
        text = page.with_suffix(".md").read_text(encoding="utf-8")
        name = page.with_suffix(".md").relative_to(SITE)
        faults += [
            f"{name} lacks, or has changed:\n{block.text}"
            for block in python_blocks(page)
            if block.language == "python" and f"```python\n{block.text}```" not in text
        ]
        for path, _, anchor in re.findall(rf"\]\({re.escape(base)}([^)#]*)(#([^)]*))?\)", text):
            target = SITE / unquote(path)
            if not target.is_file():
                faults.append(f"{name} -> {path}: no such file")
            elif anchor and soup(target).find(id=unquote(anchor)) is None:
                faults.append(f"{name} -> {path}#{anchor}: no such place")
    assert not faults, "\n".join(faults)


# What a trace may weigh, and by how much scenes and player may make a page heavier (uncompressed
# bytes): than it was with the pictures that they replaced, which weighed this much.
TRACE_LIMIT, GROWTH = 20_000, 60_000
PICTURES = {
    "bridges/async_parallel_execute": 7_547,
    "bridges/async_runner": 13_555,
    "bridges/file_watch": 2_947,
    "bridges/parallel_execute": 9_971,
    "bridges/run_sync": 14_761,
    "buses/async_event_bus": 3_628,
    "buses/event_bus": 6_206,
    "caches/async_ttl_cache": 2_768,
    "caches/sharded_cache": 12_399,
    "caches/ttl_cache": 32_955,
    "queues/async_converter_pool": 9_644,
    "queues/async_pending_queue": 3_530,
    "queues/memory_queue": 6_043,
}
PLAYER = [SITE / "assets" / "player.js", SITE / "assets" / "player.css"]


def scenes_of(page: BeautifulSoup) -> list[Tag]:
    """The figures that step through a recorded trace."""
    return list(page.select("figure.sequence[data-trace]"))


def test_each_component_page_has_a_player(soup: Callable[[Path], BeautifulSoup]) -> None:
    without = [
        component
        for component in components()
        if component != "buses/event"  # a value that never changes: no schedule can lose
        and not scenes_of(soup(SITE / f"{component}.html"))
    ]
    assert not without, "write tests/scenes/NAME.toml, and run `python -m tests.scenes NAME`"


def test_no_trace_is_heavy(html_pages: list[Path], soup: Callable[[Path], BeautifulSoup]) -> None:
    weights = {
        (page.name, json.loads(str(each["data-trace"]))["scene"]): len(str(each["data-trace"]))
        for page in html_pages
        for each in scenes_of(soup(page))
    }
    assert weights, "where have the scenes gone?"
    heavy = {name: weight for name, weight in weights.items() if weight > TRACE_LIMIT}
    assert not heavy


def what_scenes_weigh(page: BeautifulSoup) -> int:
    """What a reader loads for the scenes of a page: their HTML, and the player."""
    own = sum(len(str(each).encode("utf-8")) for each in scenes_of(page))
    return own + sum(file.stat().st_size for file in PLAYER)


def test_no_component_page_has_grown_by_more_than_60_kb(
    soup: Callable[[Path], BeautifulSoup],
) -> None:
    weights = {name: what_scenes_weigh(soup(SITE / f"{name}.html")) for name in components()}
    assert min(weights.values()) > 5_000, "the player was not weighed"
    grown = {name: weight - PICTURES.get(name, 0) for name, weight in weights.items()}
    assert not {name: growth for name, growth in grown.items() if growth > GROWTH}
