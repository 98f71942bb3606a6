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
LIMIT = 48 * 1024  # bytes
PARTS = ("proved", "figures", "mutation", "coverage")
_CASE = ("ratio_median", "ratio_low", "ratio_high")
_ABOUT = ("name", "version", "ours", "guarantees_note")


def path(component: str) -> Path:
    """Where the record of a component is kept."""
    return EVIDENCE / f"{Path(component).name}.json"


def read(component: str) -> dict[str, Any]:
    """The record of a component; with no parts where there is none yet."""
    if not path(component).is_file():
        return {"component": component}
    record: dict[str, Any] = json.loads(path(component).read_text(encoding="utf-8"))
    if "proved" in record:
        record["proved"] = _unfolded(record["proved"])
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
    ordered = {"component": record["component"]}
    ordered |= {part: record[part] for part in PARTS if part in record}
    if "proved" in record:
        ordered["proved"] = _folded(record["proved"])
    for part in ordered.keys() & {"figures", "mutation", "coverage"}:  # `proved` has them whole
        files = {name: sha[:16] for name, sha in ordered[part]["files"].items()}
        ordered[part] = ordered[part] | {"files": files}
    text = dumps(ordered)
    before = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    if _undated(before) == _undated(json.loads(text)):
        return False
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
    now, then = digests(component), part["files"]
    return now.keys() == then.keys() and all(now[name].startswith(then[name]) for name in now)


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


# Proofs: tests by file and function, their cases below, and what goes without saying left out.

_Entries = dict[str, dict[str, Any]]


def _folded(proved: dict[str, Any]) -> dict[str, Any]:
    told: list[list[Any]] = []
    folded: dict[str, Any] = {key: value for key, value in proved.items() if key not in _TESTS}
    everywhere = [entry for kind in _TESTS for entry in proved.get(kind, {}).values()]
    folded["usual"] = {
        key: max(values, key=values.count)
        for key in ("profile", "on", "quick")
        if (values := [entry.get(key) for entry in everywhere])
    }
    for kind in _TESTS:
        files: dict[str, dict[str, dict[str, Any]]] = {}
        for test, entry in proved.get(kind, {}).items():
            file, function, case = _parts(test)
            usual = _usual(folded, kind, function, case)
            kept = {k: v for k, v in entry.items() if usual.get(k) != v}
            kept |= dict.fromkeys(usual.keys() - entry.keys())
            if "explored" in kept:
                kept["explored"] = [
                    [_numbered(told, [kind_, words, exhausted]), schedules]
                    for kind_, words, exhausted, schedules in kept["explored"]
                ]
            kept["id"] = kept.pop("ids")[0]  # each test belongs to one promise
            short = kept["id"] if len(kept) == 1 else kept
            files.setdefault(file, {}).setdefault(function, {})[case] = short
        folded[kind] = files
    return folded | {"told": told}


def _unfolded(folded: dict[str, Any]) -> dict[str, Any]:
    proved = {key: value for key, value in folded.items() if key not in {*_TESTS, "told", "usual"}}
    for kind in _TESTS:
        entries: _Entries = {}
        for file, functions in folded[kind].items():
            for function, cases in functions.items():
                for case, short in cases.items():
                    kept: dict[str, Any] = {"id": short} if isinstance(short, str) else dict(short)
                    kept["ids"] = [kept.pop("id")]
                    entry: dict[str, Any] = _usual(folded, kind, function, case) | kept
                    if "explored" in kept:
                        told: list[list[Any]] = folded["told"]
                        entry["explored"] = [[*told[n], count] for n, count in entry["explored"]]
                    entries[f"{file}::{function}{case}"] = {
                        k: v for k, v in entry.items() if v is not None
                    }
        proved[kind] = entries
    return proved


_TESTS = ("checks", "twins")


def _parts(test: str) -> tuple[str, str, str]:
    file, _, name = test.partition("::")
    function, bracket, case = name.partition("[")
    return file, function, bracket + case


def _usual(folded: dict[str, Any], kind: str, function: str, case: str) -> dict[str, Any]:
    """What an entry has where its record says nothing; None there is for what it has not."""
    check, _, fault = case.removeprefix("[").removesuffix("]").partition("-")
    usual = {key: value for key, value in folded["usual"].items() if value is not None}
    if kind == "twins":
        return usual | ({"fault": fault} if fault else {})
    return usual | ({"at": f"check_{check}"} if case else {})


def _numbered(told: list[list[Any]], words: list[Any]) -> int:
    if words not in told:
        told.append(words)
    return told.index(words)


# Figures: what is the same for a case in every group of a component is kept once.


def pack(figures: "Figures") -> dict[str, Any]:
    """The figures in their compact form: the ratios alone, which is what pages show."""
    about: list[list[Any]] = []
    groups: list[dict[str, Any]] = []
    for measured in figures["groups"]:
        cases: dict[int, list[float]] = {}
        for case in measured["cases"]:
            kept = [case[key] for key in _ABOUT]  # type: ignore[literal-required]
            if kept not in about:
                about.append(kept)
            cases[about.index(kept)] = [case[key] for key in _CASE]  # type: ignore[literal-required]
        rest: dict[str, Any] = {k: v for k, v in measured.items() if k != "cases" and v}
        if rest["title"] == _titled(rest):
            del rest["title"]
        groups.append(rest | {"cases": [[number, *cases[number]] for number in cases]})
    result = {key: value for key, value in figures.items() if key not in {"sources", "component"}}
    usual: dict[str, Any] = {}
    for key in ("timer", "rounds", "floor", "aim"):
        values = [group.get(key) for group in groups]
        if groups and (common := max(values, key=values.count)) is not None:
            usual[key] = common
            for group, value in zip(groups, values, strict=True):
                if value == common:
                    del group[key]
                elif value is None:
                    group[key] = None
    result = {"files": figures["sources"]} | result | {"usual": usual}
    return result | {"cases": about, "groups": groups}


def _titled(group: dict[str, Any]) -> str:
    return f"{group.get('series', '')}, {group.get('point', '')}"


def unpack(component: str, packed: dict[str, Any]) -> "Figures":
    """The figures as the benchmarks wrote them."""
    default: dict[str, Any] = {"series": "", "point": "", "note": "", "aim": None}
    default |= {"other_floors": [], "not_measured": []} | packed["usual"]
    groups = []
    for group in packed["groups"]:
        cases = [
            dict(zip(_ABOUT, packed["cases"][number], strict=True))
            | dict(zip(_CASE, numbers, strict=True))
            | {"ns": 0.0, "ops": 0}
            for number, *numbers in group["cases"]
        ]
        groups.append({"title": _titled(group)} | default | group | {"cases": cases})
    left_out = {"files", "cases", "usual"}
    figures = {key: value for key, value in packed.items() if key not in left_out}
    figures |= {"component": component, "sources": packed["files"], "groups": groups}
    return cast("Figures", figures)


def figures_of(component: str) -> "Figures | None":
    """What the benchmarks measured of a component, if anything."""
    record = read(component)
    return unpack(component, record["figures"]) if "figures" in record else None
