"""The built site as a reader meets it: reading, searching, copying."""

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, TimeoutError, ViewportSize, expect

from tests.browser.conftest import Visit
from tests.kit import COMPONENTS
from tests.kit.catalogue import closure, components, page_of, third_party, title
from tests.kit.site import SITE, pages

PAGES = [path.relative_to(SITE).as_posix() for path in pages() if path.name != "404.html"]
every_page = pytest.mark.parametrize("path", PAGES)
every_component = pytest.mark.parametrize("component", components())

DESKTOP = ViewportSize(width=1280, height=900)
PHONE = ViewportSize(width=390, height=900)
PAPER = ViewportSize(width=680, height=1000)
WORDS, SCREENS = 2_500, 12
# Records, which nobody reads from the first line to the last.
UNBOUNDED = ("evidence/", "review/", "changes")
CLIPBOARD = "navigator.clipboard.readText()"


def test_there_are_pages() -> None:
    assert {f"{component}.html" for component in components()} < set(PAGES)


def test_a_section_without_a_page_leads_to_the_picker(visit: Visit) -> None:
    page = visit.open("caches/index.html")
    expect(page.locator("#what-do-you-need")).to_be_in_viewport()
    assert page.url == f"{visit.address}index.html#what-do-you-need"
    assert not visit.problems


@every_page
def test_a_page_is_whole_in_each_scheme_and_width(
    chromium: Browser, address: str, path: str, scheme: str
) -> None:
    """One load, and all that is to be seen on it: on a desktop, on a phone, on paper."""
    faults: list[str] = []
    dark = scheme == "dark"
    with chromium.new_context(
        viewport=DESKTOP, color_scheme="dark" if dark else "light"
    ) as context:
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        visit = Visit(context.new_page(), address)
        page = visit.open(path)
        expect(page.locator("h1")).to_be_visible()
        faults += too_late(page)
        if not path.startswith(UNBOUNDED):
            faults += too_long(page)
        keep_one_token_of_each_kind(page)
        # The schemes differ in their colours alone, and colours are the same at each width.
        rules = {"only": "color-contrast"} if dark else {}
        faults += [f"desktop: {fault}" for fault in violations(page, **rules)]
        if not dark:
            page.set_viewport_size(PHONE)
            narrow = violations(page, leaving_out="color-contrast")
            faults += [f"phone: {fault}" for fault in narrow + too_wide(page)]
            faults += miscopied(page)
        else:  # a reader whose screen is dark prints, on A4 less its margins
            page.set_viewport_size(PAPER)
            assert unprintable(page), "a screen shows what paper should not"
            page.emulate_media(media="print")
            faults += [f"paper: {fault}" for fault in unprintable(page)]
        faults += visit.problems
    assert not faults, "\n".join(faults)


def miscopied(page: Page) -> list[str]:
    """The blocks whose copy button gives anything but the block, byte for byte."""
    # Hidden, or each copy lays out the page.
    page.evaluate("document.querySelector('.md-container').hidden = true")
    buttons = page.locator("[data-clipboard-target]").count()
    # One by one: for a browser, each evaluation is a gesture of the user, which lets a page copy
    # for the next 5 seconds. On a busy machine all of them take longer.
    copies: list[list[str]] = [
        page.evaluate(
            """async (number) => {
            const button = document.querySelectorAll("[data-clipboard-target]")[number]
            button.click()
            const block = document.querySelector(button.dataset.clipboardTarget)
            return [block.textContent, await navigator.clipboard.readText()]
            }""",
            number,
        )
        for number in range(buttons)
    ]
    return [f"miscopied: {block}: as {copy}" for block, copy in copies if copy != block]


def keep_one_token_of_each_kind(page: Page) -> None:
    """Leave axe one keyword, one string and so on: a page of code has thousands of them."""
    page.evaluate(
        """() => {
        const seen = new Set()
        const code = ".md-content .highlight code span, .player-source code span span"
        for (const token of document.querySelectorAll(code)) {
          if (seen.has(token.className) && !token.childElementCount)
            token.replaceWith(token.textContent)
          seen.add(token.className)
        }
        }"""
    )


def test_a_token_that_is_hard_to_read_is_found(visit: Visit) -> None:
    page = visit.open("buses/event.html")
    keep_one_token_of_each_kind(page)
    assert not violations(page)
    page.add_style_tag(content=".md-typeset .highlight .nc { color: #eee }")
    assert "color-contrast" in str(violations(page))
    assert "color-contrast" in str(violations(page, only="color-contrast"))


def violations(page: Page, *, leaving_out: str | None = None, only: str | None = None) -> list[str]:
    """What axe finds that is serious for readers with other eyes, ears or hands."""
    await_the_keyboards_way(page)
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if leaving_out:
        options["rules"] = {leaving_out: {"enabled": False}}
    if only:
        options["runOnly"] = [only]
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{rule['id']}: {rule['help']}: {node['html'][:200]}"
        for rule in found
        if rule["impact"] in {"serious", "critical"}
        for node in rule["nodes"]
    ]


def await_the_keyboards_way(page: Page) -> None:
    """Material puts each block that scrolls in the tab order, frames after the window is sized."""
    with contextlib.suppress(TimeoutError):  # axe finds those that are not in it, and names them
        page.wait_for_function(
            """() => [...document.querySelectorAll("pre > code")].every(
            (code) => code.scrollWidth <= code.offsetWidth || code.tabIndex === 0)"""
        )


def test_a_block_that_the_keyboard_cannot_scroll_is_found(visit: Visit) -> None:
    page = visit.open("buses/event.html")
    page.set_viewport_size(PHONE)
    assert not violations(page, leaving_out="color-contrast")
    page.evaluate(
        """document.querySelector(".md-content pre > code[tabindex]").removeAttribute("tabindex")"""
    )
    page.set_default_timeout(100)  # milliseconds: nothing puts it back
    assert "scrollable-region-focusable" in str(violations(page, leaving_out="color-contrast"))


def too_wide(page: Page) -> list[str]:
    """What makes a phone scroll sideways, and words drawn beyond their picture's edge."""
    found: list[str] = page.evaluate(
        """() => {
        const faults = []
        const width = document.documentElement.scrollWidth
        if (width > innerWidth) faults.push(`the page scrolls sideways: ${width} px`)
        for (const e of document.querySelectorAll(".md-content svg[viewBox] text")) {
          const box = e.getBoundingClientRect()
          const around = e.ownerSVGElement.getBoundingClientRect()
          if (box.left < around.left - 1 || box.right > around.right + 1)
            faults.push(`drawn beyond the picture's edge: ${e.textContent}`)
        }
        return faults
        }"""
    )
    return found


def too_late(page: Page) -> list[str]:
    """A player that a reader does not come to within two screens."""
    place = page.evaluate(
        """document.querySelector("#see-it-break ~ figure")?.getBoundingClientRect().top"""
    )
    limit = 2 * DESKTOP["height"]
    return [] if place is None or place < limit else [f"see it break: {place:.0f} px down"]


def too_long(page: Page) -> list[str]:
    """More than a reader reads: words without code and what is folded, and screens."""
    words, height = page.evaluate(
        """() => {
        const shown = document.querySelector(".md-content__inner")
        const height = shown.getBoundingClientRect().height
        const folded = "details:not([open]) > :not(summary)"
        const left = `pre, table.peers, figure.sequence, ${folded}, .headerlink`
        const style = document.createElement("style")
        style.textContent = `${left} { display: none !important }`
        document.head.append(style)
        const words = shown.innerText.match(/[\\p{L}\\p{N}_][\\p{L}\\p{N}_'.-]*/gu) ?? []
        style.remove()
        return [words.length, height]
        }"""
    )
    screens = height / DESKTOP["height"]
    faults = [f"{words} words: split it"] if words > WORDS else []
    return faults + ([f"{screens:.1f} screens: split it"] if screens > SCREENS else [])


def test_a_page_that_nobody_reads_to_its_end_is_found(visit: Visit) -> None:
    page = visit.open("buses/event.html")
    assert not too_long(page)
    page.evaluate(
        """(count) => {
        const text = document.createElement("p")
        text.textContent = "word ".repeat(count)
        text.style.height = "20000px"
        document.querySelector(".md-content__inner").append(text)
        }""",
        WORDS,
    )
    (words, screens) = too_long(page)
    assert "words: split it" in words
    assert "screens: split it" in screens


@every_component
def test_the_limits_that_bite_are_on_the_first_screen(visit: Visit, component: str) -> None:
    page = visit.open(f"{component}.html")
    page.set_viewport_size(DESKTOP)
    box = page.locator(".admonition.abstract").first.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < DESKTOP["height"]


def copied(visit: Visit, source: Path) -> str:
    """What the copy button of the whole-file block puts on the clipboard."""
    page = visit.open(f"{page_of(source)}/reference.html")
    title = source.relative_to(COMPONENTS.parent).as_posix()
    block = page.locator("div.highlight", has=page.get_by_text(title, exact=True)).first
    block.scroll_into_view_if_needed()
    block.hover()
    block.locator("[data-clipboard-target]").click()
    text: str = page.evaluate(CLIPBOARD)
    return text


@every_component
def test_copied_file_is_the_source_and_works_alone(
    visit: Visit, component: str, tmp_path: Path
) -> None:
    """Byte for byte, and its doctests pass in an empty folder, with no package but its own."""
    files = closure(component)
    for source in files:
        relative = source.relative_to(COMPONENTS)
        text = copied(visit, source).encode("utf-8")
        assert text == source.read_bytes()
        # A single file needs no package around it; two keep their places in any package.
        target = tmp_path / (relative.name if len(files) == 1 else f"anywhere/{relative}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text)
    name = component.replace("/", ".")
    module = name.rpartition(".")[2] if len(files) == 1 else f"anywhere.{name}"
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import doctest, {module} as copied; "
        "result = doctest.testmod(copied); print(result); "
        "sys.exit(result.failed or not result.attempted)"
    )
    # Without -S the test's own environment is there: only who needs a package may have it.
    isolated = [sys.executable, "-I", *(() if third_party(component) else ("-S",))]
    isolated += ["-W", "error", "-c", code]
    done = subprocess.run(
        isolated, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@every_component
def test_search_finds_the_component(visit: Visit, component: str) -> None:
    page = visit.open("index.html")
    page.locator("[data-md-component=search-query]").click()
    page.keyboard.type(title(component))
    link = page.locator(f".md-search-result__link[href*='{component}.html']").first
    expect(link).to_be_visible()
    assert not visit.problems


def test_the_search_index_is_fetched_when_the_search_is_used(visit: Visit) -> None:
    fetched: list[str] = []
    visit.page.on("request", lambda request: fetched.append(request.url))
    page = visit.open("index.html")
    assert not [url for url in fetched if "search_index" in url]
    page.locator("[data-md-component=search-query]").click()
    page.keyboard.type("TTLCache")
    expect(page.locator(".md-search-result__link[href*='ttl_cache.html']").first).to_be_visible()
    assert [url for url in fetched if "search_index" in url]
    assert not visit.problems


def test_a_link_to_a_search_finds_something(visit: Visit) -> None:
    page = visit.open("index.html?q=ttlcache")
    expect(page.locator(".md-search-result__link[href*='ttl_cache.html']").first).to_be_visible()


def unprintable(page: Page) -> list[str]:
    """What print shows that serves nobody, and what it cuts off at the sheet's edge."""
    found: list[str] = page.evaluate(
        """() => {
        const name = (e) => `${e.tagName} ${e.className}: ${e.textContent.trim().slice(0, 60)}`
        const faults = []
        const controls = ".md-header, .md-tabs, .md-sidebar, .md-footer, .headerlink"
        for (const e of document.querySelectorAll(controls + ", .md-code__nav"))
          if (e.getClientRects().length) faults.push(`shown: ${name(e)}`)
        for (const e of document.querySelectorAll(".md-content pre code, .md-content table, svg")) {
          const box = e.getBoundingClientRect()
          if (!box.width) continue
          if (e.scrollWidth > e.clientWidth + 1 && e.tagName === "CODE")
            faults.push(`scrolls: ${name(e)}`)
          if (e.scrollHeight > e.clientHeight + 1 && e.tagName === "CODE")
            faults.push(`cut: ${name(e)}`)
          if (box.right > document.documentElement.clientWidth + 1)
            faults.push(`too wide: ${name(e)}`)
        }
        return faults
        }"""
    )
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return found if back == "rgb(255, 255, 255)" else [*found, f"on {back}"]


def test_dark_mode_is_a_button_and_is_remembered(visit: Visit) -> None:
    page = visit.open("index.html")
    body = page.locator("body")
    expect(body).to_have_attribute("data-md-color-scheme", "default")
    page.get_by_title("Switch to dark mode").click()
    expect(body).to_have_attribute("data-md-color-scheme", "slate")
    visit.open("guides/glossary.html")
    expect(page.locator("body")).to_have_attribute("data-md-color-scheme", "slate")
    assert not visit.problems


def test_a_phone_navigates_to_a_component(chromium: Browser, address: str) -> None:
    with chromium.new_context(viewport=PHONE) as context:
        visit = Visit(context.new_page(), address)
        page = visit.open("index.html")
        drawer = page.locator(".md-sidebar--primary")
        expect(drawer).not_to_be_in_viewport()
        page.locator(".md-header label[for=__drawer]").click()
        expect(drawer).to_be_in_viewport()
        drawer.locator("label.md-nav__link", has_text="Caches").click()
        drawer.locator("label.md-nav__link", has_text="ShardedCache").click()
        drawer.locator("a[href$='caches/sharded_cache.html']").click()
        expect(page.locator("h1")).to_contain_text("ShardedCache")
        assert not visit.problems


def test_the_keyboard_reaches_every_link(visit: Visit) -> None:
    page = visit.open("index.html")
    links = set(page.locator(".md-content a[href]").evaluate_all("all => all.map(a => a.href)"))
    focused = "document.activeElement.href ?? document.activeElement.tagName"
    reached: set[str] = set()
    for _ in range(4 * len(links)):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(focused))
    assert len(links) > 50
    assert not links - reached


def test_the_keyboard_stops_at_nothing_unseen_in_the_header(visit: Visit) -> None:
    page = visit.open("index.html")
    page.set_viewport_size(DESKTOP)
    seen = """() => {
        const focused = document.activeElement
        // The radio buttons of the colour scheme are drawn as the labels beside them.
        const e = focused.matches(".md-option") ? focused.nextElementSibling : focused
        const shown = e.checkVisibility({ opacityProperty: true, visibilityProperty: true })
        const box = e.getBoundingClientRect()
        const name = `${e.tagName} ${e.className}`
        return [!!e.closest(".md-header"), shown && box.width > 0 && box.height > 0, name]
    }"""
    stops = []
    for _ in range(10):
        page.keyboard.press("Tab")
        page.wait_for_timeout(300)  # milliseconds: what fades in or out does so in 250
        stops.append(page.evaluate(seen))
    header = [(visible, name) for within, visible, name in stops if within]
    assert any("md-search__input" in name for _, name in header)
    assert [name for visible, name in header if not visible] == []


@every_component
def test_a_page_reads_from_disk_without_javascript(chromium: Browser, component: str) -> None:
    with chromium.new_context(java_script_enabled=False, offline=True) as context:
        page = context.new_page()
        page.goto((SITE / f"{component}.html").as_uri())
        expect(page.locator("h1")).to_contain_text(title(component))
        expect(page.get_by_text("Is this the one?")).to_be_visible()
        page.goto((SITE / component / "reference.html").as_uri())
        expect(page.locator(".whole-file code").first).to_contain_text("SPDX-License-Identifier")
        page.locator(".md-footer__link--next").click()
        expect(page.locator("h1")).to_be_visible()
