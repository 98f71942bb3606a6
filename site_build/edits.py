"""The table of what the proofs tell apart, from the record that `python -m tests.edits` writes."""

import json
from typing import Any

from site_build.records import EVIDENCE
from tests.kit import ROOT
from tests.kit.catalogue import digest

RECORD = EVIDENCE / "edits.json"
TABLE = EVIDENCE / "edits.inc"


def table(titles: dict[str, str]) -> str:
    """A row for each edit: the component, what was changed, and what broke, with how it did."""
    found: dict[str, Any] = {}
    if RECORD.is_file():
        found = json.loads(RECORD.read_text(encoding="utf-8"))
    if not found:
        return "Nothing was recorded yet: run `python -m tests.edits`.\n"
    lines = ["| Component | The copy that … | Broken guarantees | Seconds |", "|---|---|---|--:|"]
    for component, record in found.items():
        name = f"**{titles[component]}**{_age(record)}"
        for each in record["edits"]:
            lines.append(f"| {name} | {_text(each['edit'])} | {_broken(each)} | {_seconds(each)} |")
            name = ""
    builds = "; ".join(sorted({record["python"] for record in found.values()}))
    lines += ["", f"Quick profile; {builds}."]
    if any(not each["whole"] for record in found.values() for each in record["edits"]):
        lines += ["\N{DAGGER} Only the guarantees that are named were proved, and no others."]
    return "\n".join(lines) + "\n"


def _age(record: dict[str, Any]) -> str:
    now = {name: _digest(name) for name in record["sources"]}
    return "" if now == record["sources"] else " (an earlier version)"


def _digest(name: str) -> str:
    path = ROOT / name
    return digest(path)[:16] if path.is_file() else ""


def _broken(edit: dict[str, Any]) -> str:
    if edit["harmless"] and not edit["broken"]:
        return "none: it is harmless"
    told = [f"{name} ({_text(how)})" if how else name for name, how in edit["broken"].items()]
    return ("; ".join(told) or "none") + ("" if edit["whole"] else " \N{DAGGER}")


def _seconds(edit: dict[str, Any]) -> str:
    return f"{edit['seconds']:.0f}"


def _text(said: str) -> str:
    """What Markdown is not to take for its own."""
    plain = " ".join(said.split())
    for sign in "\\`*_[]<>|":
        plain = plain.replace(sign, f"\\{sign}")
    return plain
