"""The built site: its pages, and the old addresses that lead on to one of them."""

import re
from pathlib import Path

from tests.kit import ROOT

SITE = ROOT / "site"
_LEADS_ON = re.compile(r'<meta http-equiv="refresh" content="0; url=([^"]+)">')


def leads_to(page: Path) -> str | None:
    """Where an old address leads; None for a page that is one to read."""
    match = _LEADS_ON.search(page.read_text(encoding="utf-8"))
    return None if match is None else match[1]


def pages(site: Path = SITE) -> list[Path]:
    """The pages to read, and 404.html."""
    return [page for page in sorted(site.rglob("*.html")) if leads_to(page) is None]


def redirects(site: Path = SITE) -> dict[Path, str]:
    """Where each old address leads, as seen from there."""
    found = {page: leads_to(page) for page in sorted(site.rglob("*.html"))}
    return {page: target for page, target in found.items() if target is not None}
