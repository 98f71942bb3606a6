"""The table of what interrupts break, from the record that site_build.interrupted writes."""

import json

from site_build.records import EVIDENCE

RECORD = EVIDENCE / "interrupts.json"
TABLE = EVIDENCE / "interrupts.inc"


def table() -> str:
    """The table of the page, with what it was measured on."""
    found = json.loads(RECORD.read_text(encoding="utf-8"))
    lines = [
        "| | call | points | broken after one interrupt | of pairs | broken after two |",
        "|---|---|--:|---|--:|---|",
    ]
    before = ""
    for row in found["rows"]:
        name = "" if row["subject"] == before else f"**{row['subject']}**"
        before = row["subject"]
        cells = (name, row["call"], row["points"], _told(row["once"]), row["pairs"])
        lines.append(f"| {' | '.join(map(str, cells))} | {_told(row['twice'])} |")
    lines += ["", f"CPython {found['python']}, cachetools {found['cachetools']}."]
    return "\n".join(lines) + "\n"


def _told(broken: dict[str, int]) -> str:
    if not broken:
        return "none"
    return f"**{sum(broken.values())}**: " + ", ".join(sorted(broken))
