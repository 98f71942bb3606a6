"""The built site as a reader meets it: reading, searching, copying."""

import subprocess
import sys
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.browser.conftest import SITE, Visit
from tests.support import COMPONENTS
from tests.support.evidence import page_title
from tests.support.ledger import closure, components

PAGES = sorted(
    path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if path.name != "404.html"
)
every_page = pytest.mark.parametrize("path", PAGES)
every_component = pytest.mark.parametrize("component", components())

CLIPBOARD = "navigator.clipboard.readText()"


def test_there_are_pages() -> None:
    assert {f"{component}.html" for component in components()} < set(PAGES)


@every_page
def test_page_loads_without_error_or_foreign_request(visit: Visit, path: str) -> None:
    page = visit.open(path)
    expect(page.locator("h1")).to_be_visible()
    assert not visit.problems


@every_page
def test_each_copy_button_gives_its_block_exactly(visit: Visit, path: str) -> None:
    page = visit.open(path)
    for button in page.locator("[data-clipboard-target]").all():
        target = button.get_attribute("data-clipboard-target")
        assert target is not None
        button.dispatch_event("click")
        shown = page.locator(target).evaluate("code => code.textContent")
        assert page.evaluate(CLIPBOARD) == shown
    assert not visit.problems


def copied(visit: Visit, component: str) -> str:
    """What the copy button of the whole-file block puts on the clipboard."""
    page = visit.open(f"{component}.html")
    block = page.locator("div.highlight", has_text=f"reference_impl/{component}.py").first
    block.scroll_into_view_if_needed()
    block.hover()
    block.locator("[data-clipboard-target]").click()
    text: str = page.evaluate(CLIPBOARD)
    return text


@every_component
def test_copied_file_is_the_source_and_works_alone(
    visit: Visit, component: str, tmp_path: Path
) -> None:
    """Byte for byte, and its doctests pass in an empty folder without any package."""
    files = closure(component)
    for source in files:
        relative = source.relative_to(COMPONENTS)
        text = copied(visit, relative.with_suffix("").as_posix()).encode("utf-8")
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
    isolated = [sys.executable, "-I", "-S", "-W", "error", "-c", code]
    done = subprocess.run(
        isolated, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@every_component
def test_search_finds_the_component(visit: Visit, component: str) -> None:
    page = visit.open("index.html")
    page.locator("[data-md-component=search-query]").click()
    page.keyboard.type(page_title(component))
    link = page.locator(f".md-search-result__link[href*='{component}.html']").first
    expect(link).to_be_visible()
    assert not visit.problems


@every_page
def test_axe_finds_no_serious_violation(
    chromium: Browser, address: str, path: str, scheme: str, width: int
) -> None:
    with chromium.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    ) as context:
        page = Visit(context.new_page(), address).open(path)
        found = Axe().run(page).response["violations"]
        serious = [
            f"{rule['id']}: {rule['help']}: {node['html'][:200]}"
            for rule in found
            if rule["impact"] in {"serious", "critical"}
            for node in rule["nodes"]
        ]
    assert not serious, "\n".join(serious)
