"""peers/results/FAMILY.json: what was observed, of which versions, when and where."""

import json
import platform
from collections.abc import Sequence
from typing import Any

from peers.cell import family
from peers.memory import measured
from peers.running import FAMILIES, RESULTS, Subject, described, subjects


def read(family_name: str) -> dict[str, Any]:
    """The family's results, or none."""
    file = RESULTS / f"{family_name}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def facts() -> dict[str, Any]:
    """Of each distribution: licence, size, last release and the like."""
    file = RESULTS / "facts.json"
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
            head = described(subject)
            if name == "caches":
                known = before.get("rows", {}).get(subject.slug, {}).get("head", {})
                size = measured(subject.address) if fresh else known.get("bytes_per_entry")
                head["bytes_per_entry"] = size
            rows[subject.slug] = {
                "head": head,
                "cells": {each: (kept | fresh)[each] for each in checks if each in kept | fresh},
            }
        told = {
            each.name: {
                "question": each.question,
                "expectation": each.expectation,
                "why": each.why,
                "plain": each.plain,
                "reports": list(each.reports.items()),
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
        (RESULTS / f"{name}.json").write_text(compact(record) + "\n")


def compact(value: Any, indent: str = "") -> str:
    """JSON with a line for each object that holds no other: small, and readable in a difference."""
    if not (isinstance(value, dict) and any(isinstance(each, dict) for each in value.values())):
        return json.dumps(value, ensure_ascii=False)
    items = (
        f"{indent} {json.dumps(key)}: {compact(each, indent + ' ')}" for key, each in value.items()
    )
    return "{\n" + ",\n".join(items) + f"\n{indent}}}"
