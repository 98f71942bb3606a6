"""The player of recorded scenes: stepping, what it shows, and that it keeps the page calm."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect

from tests.browser.conftest import Visit
from tests.browser.test_site import keep_one_token_of_each_kind
from tests.kit import ROOT
from tests.kit.site import SITE

PATH = "caches/ttl_cache.html"
NAME = "ttl_cache-lost_count"  # the page's first scene: a line is left in its middle
TRACE: dict[str, Any] = json.loads((ROOT / f"docs/evidence/traces/{NAME}.json").read_text("utf-8"))
STEPS: list[dict[str, Any]] = TRACE["steps"]
TORN = next(number for number, step in enumerate(STEPS) if "torn" in step)
SAMPLES = Path(__file__).parent / "data"
SIZES = [(360, 780), (390, 844), (1280, 900)]


@pytest.fixture
def page(visit: Visit) -> Iterator[Page]:
    """The component's page; nothing may go wrong on it."""
    yield visit.open(PATH)
    assert not visit.problems


@pytest.fixture
def page_from_disk(visit: Visit) -> Iterator[Page]:
    """The same from a file."""
    visit.address = SITE.as_uri() + "/"
    yield visit.open(PATH)
    assert not visit.problems


def player(page: Page) -> Locator:
    return page.locator(".player").first


def at(page: Page) -> str:
    return player(page).locator(".player-counter").inner_text()


def mount(page: Page, trace: dict[str, Any]) -> Locator:
    """A player for a trace of our own, in the place of the page's."""
    expect(player(page)).to_be_visible()
    page.evaluate(
        """(trace) => {
        document.querySelector(".md-content article").innerHTML = "<div id='mine'></div>"
        globalThis.mine = stepThrough(document.querySelector("#mine"), trace)
        }""",
        trace,
    )
    return page.locator("#mine .player")


def sample(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text("utf-8"))
    return found


def test_each_control_steps_and_the_page_stays_where_it_is(page_from_disk: Page) -> None:
    page = page_from_disk
    last = len(STEPS)
    player(page).scroll_into_view_if_needed()
    place, height = page.evaluate("scrollY"), player(page).bounding_box()
    button = player(page).get_by_role("button", name="Next", exact=True)
    button.click()
    assert at(page) == f"step 2 of {last}"
    player(page).get_by_role("button", name="Previous").click()
    assert at(page) == f"step 1 of {last}"
    button.focus()
    for key, expected in {
        "ArrowRight": f"step 2 of {last}",
        "End": "outcome",
        "ArrowLeft": f"step {last} of {last}",
        "Home": f"step 1 of {last}",
    }.items():
        page.keyboard.press(key)
        assert at(page) == expected
    switches = [n for n in range(1, last) if STEPS[n]["t"] != STEPS[n - 1]["t"]]
    for switch in switches:
        player(page).get_by_role("button", name="Next switch").click()
        assert at(page) == f"step {switch + 1} of {last}"
    slider = player(page).get_by_role("slider", name="Step")
    slider.fill("2")
    assert at(page) == f"step 3 of {last}"
    assert slider.get_attribute("aria-valuetext") == f"Step 3 of {last}"
    slider.press("ArrowRight")
    assert at(page) == f"step 4 of {last}"
    player(page).locator("[data-step='0']").first.click()
    assert at(page) == f"step 1 of {last}"
    assert page.evaluate("scrollY") == place
    assert player(page).bounding_box() == height, "something moves from step to step"


def test_a_step_is_shown_with_all_that_it_changed(page: Page) -> None:
    slider = player(page).get_by_role("slider")
    said = player(page).locator("[aria-live=polite]")
    slider.fill(str(TORN))
    step = STEPS[TORN]
    expect(said).to_contain_text(f"Interrupted in the middle, after {step['torn']}.")
    expect(said).to_contain_text(f"after {step['skipped']} folded lines")
    now = player(page).locator(".player-now")
    expect(now).to_contain_text(step["code"])
    expect(now).to_contain_text(str(step["line"]))
    seen = now.bounding_box()
    box = player(page).locator(".player-source").bounding_box()
    assert seen is not None
    assert box is not None
    assert box["y"] <= seen["y"] <= box["y"] + box["height"] - seen["height"]
    told = next(number for number, step in enumerate(STEPS) if "say" in step)
    slider.fill(str(told))
    expect(said).to_contain_text(STEPS[told]["say"])
    changed = [
        number
        for number in range(1, len(STEPS))
        if STEPS[number]["shared"] != STEPS[number - 1]["shared"]
    ]
    assert changed
    for number in changed:
        slider.fill(str(number))
        before, after = STEPS[number - 1]["shared"], STEPS[number]["shared"]
        names = [name for name in after if after[name] != before[name]]
        rows = player(page).locator(".player-values").first.locator(".player-new th")
        assert rows.all_inner_texts() == names
    slider.fill(str(len(STEPS)))
    expect(said).to_contain_text(TRACE["outcome"]["text"])
    assert player(page).locator(".player-edited").count(), "the fault is not marked"


def test_the_fix_is_a_button_away(page: Page) -> None:
    slider = player(page).get_by_role("slider")
    slider.fill(str(len(STEPS)))
    toggle = player(page).get_by_role("button", name="The same with the fix")
    expect(toggle).to_have_attribute("aria-pressed", "false")
    toggle.click()
    expect(toggle).to_have_attribute("aria-pressed", "true")
    expect(player(page).locator(".player-about")).to_contain_text(TRACE["fix"]["say"])
    assert at(page) == "outcome"
    expect(player(page).locator(".player-say")).to_contain_text(TRACE["fix"]["outcome"]["text"])
    waits = [number for number, step in enumerate(TRACE["fix"]["steps"]) if step.get("blocked")]
    slider.fill(str(waits[0]))
    expect(player(page).locator(".player-state")).to_contain_text("waits for lock")
    toggle.click()
    expect(player(page).locator(".player-about")).to_contain_text(TRACE["fault"])


def test_a_deadlock_has_its_circle_and_a_crash_its_death(page: Page) -> None:
    trace = sample("deadlock")
    box = mount(page, trace)
    assert page.evaluate("mine.length") == len(trace["steps"]) + 1
    page.evaluate("mine.go(2)")
    expect(box.locator(".player-state")).to_contain_text("the second waits for a.lock")
    page.evaluate("mine.go(mine.length - 1)")
    said = box.locator(".player-say")
    expect(said).to_contain_text("The first waits for b.lock, which the second holds.")
    expect(said).to_contain_text("The second waits for a.lock, which the first holds.")
    assert said.locator("svg path[marker-end]").count() == 2 * len(trace["circle"])
    expect(box.locator(".player-state")).to_contain_text("blocked forever on b.lock")
    trace = sample("crash")
    box = mount(page, trace)
    expect(box.locator(".player-say")).to_contain_text(trace["steps"][0]["call"])
    died = next(number for number, step in enumerate(trace["steps"]) if step.get("dies"))
    page.evaluate("(step) => mine.go(step)", died)
    expect(box.locator(".player-say")).to_contain_text("The process is killed here.")
    page.evaluate("(step) => mine.go(step)", died + 1)
    expect(box.locator(".player-state")).to_contain_text("first process is dead")
    expect(box.locator(".player-new")).to_contain_text(".claimed/a.queued: 'old'\na.queued: 'new'")


def test_it_fits_each_screen_and_finger(page: Page) -> None:
    players = page.locator(".player")
    for width, height in SIZES:
        page.set_viewport_size(ViewportSize(width=width, height=height))
        expect(players.first).to_be_visible()
        # The room for the largest step is kept frames after the window is sized.
        page.evaluate(
            """() => new Promise((done) =>
            requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"""
        )
        sizes = page.evaluate(
            """() => [document.documentElement.scrollWidth, ...["offsetHeight", "scrollWidth",
            "clientWidth"].map((key) => document.querySelector(".player")[key])]"""
        )
        assert sizes[0] == width
        assert sizes[1] <= height
        assert sizes[2] <= sizes[3], "something is drawn beyond its edge"
        least = 24 if width > 720 else 44
        for button in players.first.locator("button, input").all():
            target = button.bounding_box()
            assert target is not None
            assert target["height"] >= least
            assert target["width"] >= least


def test_it_is_accessible_at_each_kind_of_step(visit: Visit, scheme: str) -> None:
    visit.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page = visit.open(PATH)
    mount(page, TRACE | {"steps": STEPS[: TORN + 1]})
    page.evaluate("(step) => mine.go(step)", TORN)
    assert not violations(page)
    player(page).get_by_role("button", name="The same with the fix").click()
    assert not violations(page)
    mount(page, sample("deadlock"))
    page.evaluate("mine.go(mine.length)")
    assert not violations(page)
    assert not visit.problems


def violations(page: Page) -> list[tuple[str, str]]:
    """What axe finds in the player alone."""
    keep_one_token_of_each_kind(page)
    found = Axe().run(page, context="#mine").response["violations"]
    return [(rule["id"], node["html"]) for rule in found for node in rule["nodes"]]


def test_a_page_that_is_reached_without_a_load_has_it(visit: Visit) -> None:
    page = visit.page
    # Material follows links by itself where the sitemap says that they are of this site.
    sitemap = (SITE / "sitemap.xml").read_text(encoding="utf-8")
    base = re.findall("<loc>(.*)index.html</loc>", sitemap)[0]
    here = sitemap.replace(base, visit.address)
    page.route("**/sitemap.xml", lambda route: route.fulfill(body=here, content_type="text/xml"))
    visit.open("caches/sharded_cache.html")
    page.evaluate("globalThis.stayed = true")
    sidebar = page.locator(".md-sidebar--primary")
    sections = sidebar.locator("label.md-nav__link")
    sections.filter(has=page.get_by_text("TTLCache", exact=True)).click()
    sidebar.locator(f"a[href$='{PATH.partition('/')[2]}']").first.click()
    expect(page.locator("h1")).to_contain_text("TTLCache")
    expect(player(page)).to_be_visible()
    assert page.evaluate("globalThis.stayed"), "the page was loaded anew"
    player(page).get_by_role("button", name="Next", exact=True).click()
    assert at(page) == f"step 2 of {len(STEPS)}"
    assert not visit.problems


def test_without_javascript_picture_and_table_are_there(chromium: Browser) -> None:
    with chromium.new_context(java_script_enabled=False, offline=True) as context:
        page = context.new_page()
        page.goto((SITE / PATH).as_uri())
        figure = page.locator("figure.sequence").first
        expect(figure.locator("svg")).to_be_visible()
        figure.locator("summary").click()
        expect(figure.locator("table")).to_contain_text(TRACE["outcome"]["text"])


def test_picture_and_table_unfold_and_are_what_is_printed(visit: Visit) -> None:
    page = visit.open(PATH)
    figure = page.locator("figure.sequence").first
    picture, button = figure.locator("> svg"), figure.locator(".player-unfold")
    expect(picture).to_be_hidden()
    button.click()
    expect(button).to_have_attribute("aria-expanded", "true")
    expect(picture).to_be_visible()
    button.click()
    page.emulate_media(media="print")
    expect(picture).to_be_visible()
    expect(player(page)).to_be_hidden()
