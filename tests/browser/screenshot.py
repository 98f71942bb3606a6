"""Take the README's screenshot from the built site: `nox -s screenshot`."""

import shutil

from playwright.sync_api import sync_playwright

from tests.kit import ROOT
from tests.kit.site import SITE


def main() -> None:
    """Write docs/assets/component-page.png, the top of TTLCache's page."""
    page_file = SITE / "caches" / "ttl_cache.html"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1100, "height": 760})
        page.goto(page_file.as_uri())
        page.screenshot(path=ROOT / "docs" / "assets" / "component-page.png")
        browser.close()


if __name__ == "__main__":
    main()
