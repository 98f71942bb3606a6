"""The comparison's tables as a reader uses them: sorted, filtered, on a phone, without scripts."""

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.browser.conftest import Visit

PAGE = "compare/caches.html"
PHONE = ViewportSize(width=390, height=900)


def rows(page: Page) -> list[str]:
    """The libraries that are shown, in their order."""
    return page.locator("table.peers tbody tr:visible th a").all_inner_texts()


def test_libraries_are_found_by_name(visit: Visit) -> None:
    page = visit.open(PAGE)
    everybody = rows(page)
    page.get_by_label("Library").fill("CACHETOOLS")
    assert rows(page) == [name for name in everybody if "cachetools" in name.lower()] != []
    expect(page.locator(".peers-tools output")).to_have_text(
        f"{len(rows(page))} of {len(everybody)}"
    )
    page.get_by_label("Library").fill("no such library")
    assert rows(page) == []
    page.get_by_label("Library").fill("")
    assert rows(page) == everybody
    assert not visit.problems


def test_libraries_are_filtered_and_sorted_by_a_question(visit: Visit) -> None:
    page = visit.open(PAGE)
    everybody = rows(page)
    question = page.locator("table.peers thead th").nth(3).inner_text()
    page.get_by_label("That keeps").select_option(question)
    kept = page.locator("table.peers tbody tr:visible").all()
    assert 0 < len(kept) < len(everybody)
    for row in kept:
        expect(row.locator("td").nth(2)).to_have_class("holds")
    page.get_by_label("That keeps").select_option("anything")
    page.get_by_label("Sorted by").select_option(question)
    cells = page.locator("table.peers tbody tr td:nth-child(4)").all()
    held = [cell.get_attribute("class") == "holds" for cell in cells]
    assert held == sorted(held, reverse=True)
    page.get_by_label("Sorted by").select_option("name")
    assert rows(page) == sorted(everybody, key=str.lower)
    page.get_by_label("Sorted by").select_option("our order")
    assert rows(page) == everybody


def test_a_cell_leads_to_what_was_seen_and_to_the_program(visit: Visit) -> None:
    page = visit.open(PAGE)
    page.locator("table.peers td.stated a, table.peers td.unpromised a").first.click()
    target = page.locator("tr.here")
    expect(target).to_be_in_viewport()
    cell = target.get_attribute("id")
    assert page.url.endswith(f"#{cell}")
    target.get_by_text("See it fail").click()
    program = page.locator(f"[id='{cell}-program']")
    expect(program).to_be_in_viewport()
    expect(program).to_have_attribute("open", "")
    assert not visit.problems


@pytest.mark.parametrize("width", [1280, 390])
def test_the_table_is_complete_without_scripts(chromium: Browser, address: str, width: int) -> None:
    size = ViewportSize(width=width, height=900)
    with chromium.new_context(viewport=size, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{address}{PAGE}")
        expect(page.locator(".peers-tools")).to_have_count(0)
        cells = page.locator("table.peers td")
        words = cells.locator(".words").all_text_contents()
        assert len(words) == cells.count() > 100
        assert all(words)


def test_a_phone_shows_a_card_for_each_library(visit: Visit) -> None:
    page = visit.open(PAGE)
    page.set_viewport_size(PHONE)
    card = page.locator("table.peers tbody tr").first
    question = card.locator("td .q").first
    expect(question).to_be_visible()
    box, cell = card.bounding_box(), card.locator("td").nth(1).bounding_box()
    assert box is not None
    assert cell is not None
    assert box["width"] <= 390
    assert cell["y"] > (card.locator("td").nth(0).bounding_box() or cell)["y"], (
        "not one below another"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
