"""The labs and the Run buttons: what they find, and that the page survives it."""

import dataclasses
import gzip
import json
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Worker, expect

from tests.browser.blocks import RECORD, candidates, digest, outcomes
from tests.browser.conftest import Visit
from tests.browser.test_site import DESKTOP, PHONE, too_wide
from tests.kit.profile import budget
from tests.kit.site import SITE
from tests.scenes import Scene, scenes
from tests.scenes.making import exhaust

LAB = SITE / "assets" / "lab"
PAGE = "caches/ttl_cache.html"
OFFERED = [scene for scene in scenes().values() if scene.lab]
# Threads, tasks, and a small file; the full profile has all of them.
QUICK = [
    next(scene for scene in OFFERED if scene.of == name)
    for name in ("ttl_cache", "async_ttl_cache", "counter")
]
TTL_CACHE = QUICK[0]
SCENES = budget(QUICK, OFFERED)
FRAMES = """() => {
  globalThis.frames_ = 0
  const count = () => { globalThis.frames_++; requestAnimationFrame(count) }
  requestAnimationFrame(count)
}"""
START = """async ([module, patience]) => {
  const { Python } = await import(module)
  globalThis.python = new Python(patience)
}"""
ASK = """(request) => globalThis.python.ask("search", request).catch((error) => error.message)"""
LOOP = "def model(module):\n    while True:\n        pass\n"


@pytest.fixture(autouse=True, scope="module")
def _there_is_a_lab() -> None:
    if not (LAB / "lab.zip").is_file():
        reason = "npm could not be reached when the site was built: it has no lab"
        pytest.fail(reason) if "CI" in os.environ else pytest.skip(reason)


def test_a_click_fetches_at_most_6_5_megabytes() -> None:
    """Compressed, as hosts send it: all that a lab loads, and the largest of the labs."""
    files = [path for path in (*LAB.glob("*.*"), *(LAB / "vendor").glob("*.*")) if path.is_file()]
    labs = (LAB / "labs").glob("*.json")
    files.append(max(labs, key=lambda path: path.stat().st_size))
    weight = sum(len(gzip.compress(path.read_bytes(), 6)) for path in files)
    assert 5_000_000 < weight < 6_500_000, "the guide says 6 MB, and so does the button"


class Searcher:
    """The lab's Python, asked as the page asks it."""

    def __init__(self, page: Page, address: str, patience: int = 60) -> None:
        self._page = page
        page.goto(address + "404.html")
        page.evaluate(START, [f"{address}assets/lab/python.mjs", patience])

    def __call__(self, scene: Scene, *, broken: bool, **changes: Any) -> Any:
        about = json.loads((LAB / "labs" / f"{scene.of}.json").read_text(encoding="utf-8"))
        offered = next(each for each in about["scenes"] if each["name"] == scene.name)
        texts = dict(about["files"])
        for name, old, new in offered["edits"] if broken else ():
            assert old in texts[name]
            texts[name] = texts[name].replace(old, new)
        request = {"files": texts, "originals": about["files"], "scene": offered}
        request |= {"check": offered["checkText"], "by": scene.by, "bound": scene.preemptions}
        return self._page.evaluate(ASK, {**request, "limit": 200_000, **changes})


@pytest.fixture(scope="module")
def search(chromium: Browser, address: str) -> Iterator[Searcher]:
    with chromium.new_context() as context:
        yield Searcher(context.new_page(), address)


@pytest.mark.parametrize("scene", SCENES, ids=[scene.id for scene in SCENES])
def test_a_fault_is_found_and_the_file_as_it_is_holds(scene: Scene, search: Searcher) -> None:
    """By line, the browser runs as many schedules as the interpreter of this test."""
    trace = json.loads(scene.trace.read_text(encoding="utf-8"))
    found = search(scene, broken=True)
    assert found["kind"] == "found", found
    assert found["trace"]["outcome"] == trace["outcome"]
    assert found["trace"]["steps"]
    by_line = dataclasses.replace(scene, by="line")
    if scene.by == "line":
        assert found["schedules"] == trace["found"]["schedule"]
    holds = search(by_line, broken=False)
    assert holds["kind"] == "holds", holds
    assert holds["exhausted"]
    assert holds["schedules"] == (trace["holds"] if scene == by_line else exhaust(by_line))
    if budget(quick=False, full=scene.by == "opcode"):
        holds = search(scene, broken=False)
        assert (holds["kind"], holds["exhausted"]) == ("holds", True)


def test_schedules_leave_nothing_behind(search: Searcher) -> None:
    """If one schedule left a stack or one object, 200 of them would be seen."""
    first, second = (search(TTL_CACHE, broken=False, limit=200) for _ in range(2))
    assert first["schedules"] == second["schedules"] == 200
    assert first["suspended"] == second["suspended"] == 0
    assert second["objects"] - first["objects"] < 100


def test_an_error_in_the_text_is_told_with_its_line(search: Searcher) -> None:
    scene = TTL_CACHE
    name = scene.path.name
    files = {f"reference_impl/{scene.component}.py": "import os\n\ndef f(:\n"}
    told = search(scene, broken=False, files=files)
    assert (told["kind"], told["file"], told["line"]) == ("broken", name, 3)
    assert told["text"].startswith("SyntaxError")
    files = dict.fromkeys(files, "import os\nnothing.there\n")
    told = search(scene, broken=False, files=files)
    assert (told["kind"], told["file"], told["line"]) == ("broken", name, 2)
    told = search(scene, broken=False, check="x = 1\n")
    assert told["text"] == "TypeError: the check must define model(module)"


def test_an_endless_loop_is_ended(chromium: Browser, address: str) -> None:
    with chromium.new_context() as context:
        page = context.new_page()
        search = Searcher(page, address, patience=1)
        told = search(TTL_CACHE, broken=False, check=LOOP)
        assert told == (
            "Nothing was heard for 1 seconds, so it was ended: is there an endless loop?"
        )
        await_end(page)


def await_end(page: Page) -> None:
    """A browser takes a moment to end a worker: each call lets it tell of what it has done."""
    while pythons(page):
        page.evaluate("0")


def pythons(page: Page) -> list[Worker]:
    """The workers that run Python; the search of the site has one, too."""
    return [worker for worker in page.workers if worker.url.endswith("lab/worker.mjs")]


class Shown:
    """A lab on its page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.root = page.locator(".lab[data-lab]")
        self.status = page.locator(".lab-status")
        self.result = page.locator(".lab-result")

    def press(self, name: str) -> None:
        self.root.get_by_role("button", name=name, exact=True).click()

    def type_in(self, editor: str, text: str) -> None:
        self.root.get_by_role("textbox", name=editor).click()
        self.page.keyboard.press("Control+Home")
        self.page.keyboard.insert_text(text)


def test_a_reader_breaks_it_finds_it_and_stops(visit: Visit) -> None:
    requested: list[str] = []
    visit.page.on("request", lambda request: requested.append(request.url))
    lab = Shown(visit.open(PAGE))
    page = lab.page
    assert not any("pyodide" in url for url in requested), "fetched without a click"
    lab.press("Try it")
    lab.press(TTL_CACHE.fault)
    page.evaluate(FRAMES)
    lab.press("Search every interleaving")
    expect(lab.status).to_contain_text("a second")
    seen = page.evaluate("frames_")
    expect(lab.result).to_contain_text("loses: ")
    expect(lab.status).to_contain_text("schedules")
    lab.press("As it is")
    expect(lab.result).to_have_class("lab-result lab-old")
    lab.root.get_by_label("Preemptions at most").fill("3")
    lab.press("Search every interleaving")
    expect(lab.status).to_contain_text("a second")
    page.wait_for_function("(seen) => frames_ > seen + 20", arg=seen)  # while Python is busy
    assert lab.root.get_by_role("button", name="Stop").is_enabled()
    lab.press("Stop")
    expect(lab.result).to_have_text("Stopped.")
    await_end(page)
    assert any(url.endswith("lab.zip") for url in requested), "the worker's requests are seen"
    assert not visit.problems


def test_a_link_carries_the_edit(visit: Visit, chromium: Browser, address: str) -> None:
    lab = Shown(visit.open(PAGE))
    lab.press("Try it")
    lab.press(TTL_CACHE.fault)
    lab.type_in("The file", "# edited: ä\n")
    lab.type_in("The check", "# this, too\n")
    lab.press("Copy a link to this edit")
    expect(lab.status).to_contain_text("copied")
    link = lab.page.evaluate("navigator.clipboard.readText()")
    assert link == lab.page.url
    assert len(link) < 1000
    with chromium.new_context(viewport=DESKTOP) as context:
        other = Shown(context.new_page())
        other.page.goto(link)
        expect(other.result).to_contain_text("read it, then search")
        expect(other.root.get_by_role("textbox", name="The check")).to_contain_text("# this, too")
        assert not pythons(other.page), "an edit of somebody else is run only when asked for"
        other.page.goto("about:blank")
        other.page.goto(link[:-9])
        expect(other.result).to_contain_text("The link is damaged")


def test_a_lab_fits_a_phone_and_is_accessible(chromium: Browser, address: str, scheme: str) -> None:
    dark = scheme == "dark"
    with chromium.new_context(viewport=PHONE, color_scheme="dark" if dark else "light") as context:
        lab = Shown(context.new_page())
        lab.page.goto(f"{address}{PAGE}#lab=ttl_cache.x", wait_until="networkidle")
        expect(lab.result).to_contain_text("damaged")
        wide = too_wide(lab.page)
        found = Axe().run(lab.page, context=".lab").response["violations"]
    assert not found, "\n".join(f"{rule['id']}: {rule['nodes'][0]['html']}" for rule in found)
    assert not wide, "\n".join(wide)


def test_without_suspended_stacks_a_lab_of_threads_says_so(visit: Visit) -> None:
    visit.page.add_init_script("delete WebAssembly.Suspending")
    lab = Shown(visit.open(PAGE))
    visit.page.evaluate("location.hash = '#lab=ttl_cache.x'")
    expect(lab.root.get_by_role("button", name="Search every interleaving")).to_be_disabled()
    expect(lab.root).to_contain_text("cannot suspend a WebAssembly stack")


def test_from_disk_a_lab_says_that_it_needs_a_server(chromium: Browser) -> None:
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto((SITE / PAGE).as_uri())
        expect(page.locator(".lab")).to_contain_text("python -m http.server")
        assert page.locator(".lab button, .run").count() == 0


def test_leaving_the_page_ends_python(visit: Visit) -> None:
    lab = Shown(visit.open(PAGE))
    with lab.page.expect_worker(lambda worker: worker.url.endswith("lab/worker.mjs")):
        lab.press("Try it")
    sidebar = lab.page.locator(".md-sidebar--primary")
    sidebar.locator("label.md-nav__link", has_text="ShardedCache").click()
    sidebar.locator("a[href$='caches/sharded_cache.html']").click()
    expect(lab.page.locator("h1")).to_contain_text("ShardedCache")
    await_end(lab.page)


def test_a_block_runs_and_says_so(visit: Visit) -> None:
    page = visit.open(PAGE)
    button = page.get_by_role("button", name="Run").first
    button.click()
    expect(page.locator(".ran").first).to_contain_text("All its assertions held.")
    expect(page.locator(".ran").first).to_contain_text("in your browser")
    assert not visit.problems


def test_the_blocks_with_a_button_run(chromium: Browser, address: str) -> None:
    runs = set(json.loads(RECORD.read_text(encoding="utf-8")))
    offered = [text for text in candidates() if digest(text) in runs]
    again = "record them again: nox -s runs"
    assert len(offered) > 100, again
    chosen = budget(random.Random(0).sample(offered, 12), offered)
    with chromium.new_context() as context:
        ended = dict(outcomes(context.new_page(), address, chosen))
    faults = [f"{error}\n{text}" for text, error in ended.items() if error]
    assert not faults, "\n".join([again, *faults])
