"""The matrix of the evidence page: who promises what, its proofs, and one figure each."""

import re
from pathlib import Path
from typing import Any

from site_build.evidence import explored
from site_build.records import figures_of
from tests.kit import ROOT
from tests.kit.catalogue import components, promises

# The fixed rows of a component's first table, and what they are called in a narrow column.
_COLUMNS = {
    "Threads": "Threads",
    "Event loops": "Loops",
    "Processes and fork": "Fork",
    "Ordering and fairness": "Order",
    "Capacity and backpressure": "Bounds",
    "Cancellation and timeouts": "Cancel",
    "Close": "Close",
    "Time source": "Clock",
    "Free-threaded build": "No GIL",
}


def render(found: dict[str, dict[str, Any]], titles: dict[str, str]) -> str:
    """The matrix as a Markdown table."""
    lines = [
        f"| Component | {' | '.join(_COLUMNS.values())} | Explored | One figure |",
        "|---|" + "---|" * len(_COLUMNS) + "--:|---|",
    ]
    for component in components():
        if not promises(component):
            continue
        cells = " | ".join(_proofs(component, aspect) for aspect in _COLUMNS)
        count = explored(found[component])["all"]
        lines.append(
            f"| [{titles[component]}](../{component}.md) | {cells} "
            f"| [{count:,}]({Path(component).name}.md) | {_figure(component)} |"
        )
    return "\n".join(lines)


def _proofs(component: str, aspect: str) -> str:
    """The guarantees that the component's page gives for an aspect, each as a link."""
    page = (ROOT / "docs" / f"{component}.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| \[{aspect}\]\(\S+\) \|.*\|(.*)\|\s*$", page, re.MULTILINE)
    assert row is not None, f"docs/{component}.md says nothing of {aspect}"
    found = re.findall(r"\[([A-Z]{2}-\d+)\]", row[1])
    return " ".join(f"[{name}](../{component}.md#{name.lower()})" for name in found) or "–"


def _figure(component: str) -> str:
    """The first thing that its benchmark measures, in words."""
    figures = figures_of(component)
    if figures is None:
        return "–"
    where = f"../{component}.md#tuning"
    for group in figures["groups"]:
        for case in group["cases"]:
            if case["ours"] and case["name"] != group["floor"]:
                ratio = f"{case['ratio_median']:.2f}"
                return f"[{group['title']}: {ratio} × {group['floor']}]({where})"
    for table in figures["tables"]:
        for row in table["rows"]:
            if "n/a" not in row:
                cells = zip(table["columns"][1:], row[1:], strict=True)
                values = ", ".join(f"{name} {str(cell).split(' (')[0]}" for name, cell in cells)
                return f"[{table['title']}, {row[0]}: {values}]({where})"
    return "–"
