"""peers/results/FAMILY.json: what was observed, of which versions, when and where."""

import json
import platform
from collections.abc import Sequence
from typing import Any

from peers.cell import family
from peers.running import FAMILIES, RESULTS, Subject, described, subjects


def read(family_name: str) -> dict[str, Any]:
    """The family's results, or none."""
    file = RESULTS / f"{family_name}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def write(cells: Sequence[tuple[Subject, str, dict[str, Any]]], today: str) -> None:
    """Merge these cells into the files of their families; rows and checks that are gone go."""
    for name in FAMILIES:
        mine = [each for each in cells if each[0].family == name]
        if not mine:
            continue
        checks, before = family(name).checks, read(name)
        rows: dict[str, Any] = {}
        for subject in subjects(name):
            kept = before.get("rows", {}).get(subject.slug, {}).get("cells", {})
            fresh = {check: cell for found, check, cell in mine if found.slug == subject.slug}
            stamp = {"date": today, "python": platform.python_version()}
            if subject.row.package:
                stamp["version"] = described(subject)["version"]
            fresh = {check: cell | stamp for check, cell in fresh.items()}
            rows[subject.slug] = {
                "head": described(subject),
                "cells": {each: (kept | fresh)[each] for each in checks if each in kept | fresh},
            }
        told = {
            each.name: {
                "question": each.question,
                "expectation": each.expectation,
                "why": each.why,
                "plain": each.plain,
                "reports": dict(each.reports),
            }
            for each in checks.values()
        }
        record = {
            "family": name,
            "title": family(name).title,
            "machine": f"{platform.system()} {platform.machine()}",
            "checks": told,
            "rows": rows,
        }
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(_compact(record))


def _compact(record: dict[str, Any]) -> str:
    """JSON with a line for each check and each cell: small, and readable in a difference."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = ["{"]
    for key in ("family", "title", "machine"):
        lines.append(f" {line(key)}: {line(record[key])},")
    lines.append(' "checks": {')
    lines += _items(record["checks"], "  ")
    lines.append(' },\n "rows": {')
    rows = []
    for slug, row in record["rows"].items():
        cells = "\n".join(_items(row["cells"], "    "))
        rows.append(
            f'  {line(slug)}: {{\n   "head": {line(row["head"])},\n   "cells": {{\n{cells}\n   }}\n  }}'
        )
    lines.append(",\n".join(rows))
    lines.append(" }\n}\n")
    return "\n".join(lines)


def _items(items: dict[str, Any], indent: str) -> list[str]:
    found = [
        f"{indent}{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in items.items()
    ]
    return [each + ("," if number < len(found) - 1 else "") for number, each in enumerate(found)]
