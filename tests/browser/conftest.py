"""A local server for the built site, and a real Chromium to walk it."""

import contextlib
import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.kit.site import SITE

expect.set_options(timeout=60_000)  # milliseconds: a bound of what hangs, on a busy machine, too


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The site's address on a free local port, with a slash at its end."""
    assert (SITE / "index.html").is_file(), "there is no built site: run `nox -s browser`"
    handler = functools.partial(_Quiet, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="site")
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Debian's Chromium where it is installed, or the one that Playwright downloads."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    # Root, as in a container, cannot have the sandbox; the pages are our own.
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        if path is None and not Path(playwright.chromium.executable_path).exists():
            pytest.fail("no Chromium: apt-get install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(executable_path=path, args=quiet)
        yield browser
        browser.close()


@pytest.fixture(scope="session", autouse=True)
def address() -> Iterator[str]:
    """Where the site is served."""
    with served() as found:
        yield found


@pytest.fixture(scope="session", autouse=True)
def chromium() -> Iterator[Browser]:
    """The browser."""
    with launched() as browser:
        yield browser


class Visit:
    """A page that remembers what went wrong while it was open."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.problems: list[str] = []
        page.on("console", lambda m: self._note(m.text if m.type in {"error", "warning"} else ""))
        page.on("pageerror", lambda error: self._note(str(error)))
        page.on("request", lambda request: self._check(request.url))
        page.on("response", lambda r: self._note(f"{r.status} {r.url}" if r.status >= 400 else ""))

    def _note(self, problem: str) -> None:
        if problem:
            self.problems.append(problem)

    def _check(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:")):
            self.problems.append(f"request to another host: {url}")

    def open(self, path: str) -> Page:
        """Go to a page of the site and wait until it has loaded."""
        self.page.goto(self.address + path, wait_until="networkidle")
        return self.page


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    """The reader's colour scheme."""
    return str(request.param)


@pytest.fixture
def visit(chromium: Browser, address: str) -> Iterator[Visit]:
    """A desktop window with access to the clipboard."""
    with chromium.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield Visit(context.new_page(), address)
