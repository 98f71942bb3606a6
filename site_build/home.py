"""What the home page takes from the records: a few facts, none typed by hand."""

import re
from typing import Any

from site_build.evidence import explored
from site_build.records import EVIDENCE
from tests.kit import ROOT
from tests.kit.catalogue import promises

SHOWN = EVIDENCE / "facts.inc"


def facts(found: dict[str, dict[str, Any]]) -> str:
    """Guarantees, what was explored, blocks that ran, builds; each leads to its record."""
    guarantees = sum(len(promises(component)) for component in found)
    schedules = sum(explored(record)["all"] for record in found.values())
    builds = {b for record in found.values() for b in record.get("proved", {}).get("builds", [])}
    told = [
        (f"{guarantees}", "guarantees, each with checks that can fail", "the-ledger"),
        (f"{schedules:,}", "schedules, interrupts and examples explored", "the-ledger"),
        (f"{blocks():,}", "Python blocks in these pages, all executed", "code-on-the-site"),
        (f"{len(builds)}", "builds of Python really run", "where-it-was-run"),
    ]
    cells = "".join(
        f'<div><a href="evidence/index.html#{where}"><b>{number}</b> {words}</a></div>'
        for number, words, where in told
    )
    return f'<div class="facts">{cells}</div>\n'


def blocks() -> int:
    """Python fences of the pages; the gates of the session `docs` see to it that each is run."""
    pages = [page for page in (ROOT / "docs").rglob("*.md") if "evidence" not in page.parts]
    fence = re.compile(r"^```python$", re.MULTILINE)
    return sum(len(fence.findall(page.read_text(encoding="utf-8"))) for page in pages)
