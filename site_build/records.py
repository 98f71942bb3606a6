"""The evidence as it is kept: one JSON a component, compact, a line for each thing that can change.

A record has the parts `proved` (by the tests), `figures` (by the benchmarks), `mutation` and
`coverage`; each is bound to the digests of the component's files. `docs/evidence/sessions.json`
holds what the sessions themselves took.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tests.kit import ROOT
from tests.kit.catalogue import components, digests

if TYPE_CHECKING:
    from benchmarks.harness import Figures

EVIDENCE = ROOT / "docs" / "evidence"
SESSIONS = EVIDENCE / "sessions.json"
LIMIT = 30_000  # bytes
PARTS = ("proved", "figures", "mutation", "coverage")
_CASE = ("ratio_median", "ratio_low", "ratio_high", "ns")
_ABOUT = ("name", "version", "ours", "guarantees_note")


def path(component: str) -> Path:
    """Where the record of a component is kept."""
    return EVIDENCE / f"{Path(component).name}.json"


def read(component: str) -> dict[str, Any]:
    """The record of a component; with no parts where there is none yet."""
    if not path(component).is_file():
        return {"component": component}
    record: dict[str, Any] = json.loads(path(component).read_text(encoding="utf-8"))
    return record


def read_all() -> dict[str, dict[str, Any]]:
    """Every component's record."""
    return {component: read(component) for component in components()}


def write(record: dict[str, Any]) -> bool:
    """Keep a record; says whether anything but a date differs from what was kept.

    Raises:
        ValueError: it has become too large to be read by people.
    """
    target = path(record["component"])
    before = read(record["component"])
    if _undated(before) == _undated(record):
        return False
    ordered = {"component": record["component"]}
    ordered |= {part: record[part] for part in PARTS if part in record}
    text = dumps(ordered)
    if len(text.encode()) > LIMIT:
        raise ValueError(f"{target.name} would have {len(text.encode()):,} bytes, over {LIMIT:,}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return True


def _undated(value: Any) -> Any:
    """The value without what differs from run to run and tells nothing."""
    if isinstance(value, dict):
        vain = {"date", "seconds"}
        return {key: _undated(each) for key, each in value.items() if key not in vain}
    return [_undated(each) for each in value] if isinstance(value, list) else value


def is_current(part: dict[str, Any], component: str) -> bool:
    """Whether this part of a record is of the files as they are now."""
    return bool(part["files"] == digests(component))


def dumps(value: Any, depth: int = 4) -> str:
    """JSON with a line for each entry down to `depth`, and compact below."""
    return "".join(_dump(value, depth, "")) + "\n"


def _dump(value: Any, depth: int, indent: str) -> Iterator[str]:
    if not depth or not isinstance(value, dict | list) or not value:
        yield json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    yield opening
    inner = indent + " "
    for number, entry in enumerate(value):
        yield ("," if number else "") + "\n" + inner
        if isinstance(value, dict):
            yield json.dumps(entry, ensure_ascii=False) + ": "
            yield from _dump(value[entry], depth - 1, inner)
        else:
            yield from _dump(entry, depth - 1, inner)
    yield f"\n{indent}{closing}"


# Figures: what is the same for a case in every group of a component is kept once.


def pack(figures: "Figures") -> dict[str, Any]:
    """The figures in their compact form, without how often each case was called."""
    about: list[list[Any]] = []
    groups = []
    for group in figures["groups"]:
        cases: dict[int, list[float]] = {}
        for case in group["cases"]:
            kept = [case[key] for key in _ABOUT]  # type: ignore[literal-required]
            if kept not in about:
                about.append(kept)
            cases[about.index(kept)] = [case[key] for key in _CASE]  # type: ignore[literal-required]
        rest = {key: value for key, value in group.items() if key != "cases" and value}
        groups.append(rest | {"cases": [[number, *cases[number]] for number in cases]})
    result = {key: value for key, value in figures.items() if key not in {"sources", "component"}}
    return {"files": figures["sources"]} | result | {"cases": about, "groups": groups}


def unpack(component: str, packed: dict[str, Any]) -> "Figures":
    """The figures as the benchmarks wrote them."""
    default: dict[str, Any] = {
        "series": "",
        "point": "",
        "other_floors": [],
        "note": "",
        "aim": None,
    }
    groups = []
    for group in packed["groups"]:
        cases = [
            dict(zip(_ABOUT, packed["cases"][number], strict=True))
            | dict(zip(_CASE, numbers, strict=True))
            | {"ops": 0}
            for number, *numbers in group["cases"]
        ]
        groups.append(default | {"not_measured": []} | group | {"cases": cases})
    figures = {key: value for key, value in packed.items() if key not in {"files", "cases"}}
    figures |= {"component": component, "sources": packed["files"], "groups": groups}
    return cast("Figures", figures)


def figures_of(component: str) -> "Figures | None":
    """What the benchmarks measured of a component, if anything."""
    record = read(component)
    return unpack(component, record["figures"]) if "figures" in record else None
