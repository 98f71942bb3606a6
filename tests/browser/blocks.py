"""Which Python blocks of the site run in a browser: `python -m tests.browser.blocks` records it.

Each block that asserts is run in the lab's Python, in Chromium. The page's script offers Run on
the blocks whose hash is in the record; one that changes loses its button until it is recorded.
"""

import json
import sys
from collections.abc import Iterator

from playwright.sync_api import Page

from tests.browser.conftest import launched, served
from tests.kit import ROOT
from tests.kit.blocks import python_blocks, whole_files
from tests.kit.site import SITE, pages

RECORD = ROOT / "docs" / "assets" / "lab" / "blocks.json"
_LAB = SITE / "assets" / "lab"
_RUN = """async ([module, text]) => {
  const { Python } = await import(module)
  globalThis.python ??= new Python()
  try {
    return (await globalThis.python.ask("run_block", { text })).error
  } catch (error) {
    return error.message
  }
}"""


def digest(text: str) -> str:
    """FNV-1a, as in docs/assets/try.js: browsers offer no hash to a page without TLS."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{value:08x}"


def candidates() -> list[str]:
    """The blocks of the built site that assert something, each once."""
    whole = set(whole_files().values())
    found = dict.fromkeys(
        block.text
        for page in pages()
        for block in python_blocks(page)
        if block.language == "python" and "assert" in block.text and block.text not in whole
    )
    return list(found)


def outcomes(page: Page, address: str, texts: list[str]) -> Iterator[tuple[str, str]]:
    """Each block with the error that it ends with; "" for one that runs."""
    page.goto(address + "404.html")
    module = f"{address}{(_LAB / 'python.mjs').relative_to(SITE).as_posix()}"
    for text in texts:
        yield text, page.evaluate(_RUN, [module, text])


def main() -> None:
    """Run them all, and record those that run."""
    if not (_LAB / "lab.zip").is_file():
        sys.exit("This build of the site has no lab: build it where npm can be reached.")
    texts = candidates()
    with served() as address, launched() as browser:
        found = dict(outcomes(browser.new_page(), address, texts))
    for text, error in found.items():
        if error:
            print(f"{error.splitlines()[-1][:90]:90} {text.strip().splitlines()[0]}")
    runs = sorted(digest(text) for text, error in found.items() if not error)
    print(f"{len(runs)} of {len(texts)} blocks run in a browser.")
    RECORD.write_text(json.dumps(runs, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
