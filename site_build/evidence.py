"""Merge what the sessions proved into docs/evidence, and render the pages that show it.

`python -m site_build.evidence` reads build/evidence/*.json (written by the sessions `tests` and
`interleavings`), build/figures, build/coverage.json and build/sessions, and updates the records
of what ran; the rest stays as it was. What was proved on other sources than today's is refused.
"""

import ast
import json
import sys
import textwrap
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from site_build import records
from tests.kit import ROOT
from tests.kit.catalogue import all_promises, components, digests, is_of, parts_of, promises

RAW = ROOT / "build" / "evidence"
FIGURES = ROOT / "build" / "figures"
COVERAGE = ROOT / "build" / "coverage.json"
SESSIONS = ROOT / "build" / "sessions"


def main(arguments: list[str]) -> None:
    """Merge whatever lies below build/."""
    if arguments:
        raise SystemExit(f"unknown: {' '.join(arguments)}; there are no options")
    raws = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RAW.glob("*.json"))]
    found = list(FIGURES.glob("*.json"))
    if not raws and not found and not COVERAGE.is_file():
        raise SystemExit(f"{RAW} is empty: run `nox -s tests interleavings` first")
    for component in components():
        record = records.read(component)
        merge(record, raws)
        figures = FIGURES / f"{Path(component).name}.json"
        if figures.is_file():
            record["figures"] = records.pack(json.loads(figures.read_text(encoding="utf-8")))
        if COVERAGE.is_file():
            merge_coverage(record, json.loads(COVERAGE.read_text(encoding="utf-8")))
        written = records.write(record)
        print(f"{component}: {'updated' if written else 'as it was'}{told(record)}")
    merge_sessions(SESSIONS)


def told(record: dict[str, Any]) -> str:
    """What of a record is old, in words; nothing where all is of today's files."""
    entries = [*checks(record).values(), *twins(record).values()]
    old = sum(entry.get("old", False) for entry in entries)
    parts = [f"{old} of {len(entries)} tests are of an earlier version"] if old else []
    parts += [
        f"{part} are of an earlier version"
        for part in ("figures", "mutation", "coverage")
        if part in record and not records.is_current(record[part], record["component"])
    ]
    return f"; {', '.join(parts)}: run their sessions again" if parts else ""


# What was proved.


def checks(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tests that prove a guarantee, by their node ID."""
    found: dict[str, dict[str, Any]] = record.get("proved", {}).get("checks", {})
    return found


def twins(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tests that show that a check can fail, by their node ID."""
    found: dict[str, dict[str, Any]] = record.get("proved", {}).get("twins", {})
    return found


def merge(record: dict[str, Any], raws: Iterable[dict[str, Any]]) -> None:
    """Put what these runs proved of one component into its record; keep what did not run.

    What was proved of an earlier version of the files stays, marked as old, until it runs
    again. A result of the full profile is not replaced by one of the quick profile.
    """
    component = record["component"]
    wanted = promises(component)
    fresh = [raw for raw in raws if wanted.keys() & _named_in(raw)]
    if not fresh:
        return
    files = digests(component)
    proved = record.setdefault("proved", {"files": files, "builds": []})
    if proved["files"] != files:
        for entry in (*checks(record).values(), *twins(record).values()):
            entry["old"] = True
    proved["files"] = files
    proved["date"] = datetime.now(UTC).date().isoformat()
    seconds: dict[str, float] = {}
    for raw in sorted(fresh, key=lambda raw: (raw["profile"] == "quick", raw["version"])):
        if any(raw["sources"].get(name) != sha for name, sha in files.items()):
            raise SystemExit(
                f"{component} has changed since {raw['python']} proved it: "
                "run its sessions again, or remove build/evidence"
            )
        if raw["python"] not in proved["builds"]:
            proved["builds"].append(raw["python"])
        key = f"{raw['profile']} {raw['version'][0]}.{raw['version'][1]}"
        for result in raw["results"]:
            named = wanted.keys() & {*result["guarantees"], *result["twins"]}
            if not named or result["outcome"] == "skipped":
                continue
            if result["outcome"] != "passed":
                raise SystemExit(f"{result['test']} {result['outcome']} on {raw['python']}")
            _keep(proved, result, raw, sorted(named))
        took = sum(s for file, s in raw["files"].items() if is_of(file, component))
        seconds[key] = seconds.get(key, 0.0) + took
    proved["seconds"] = proved.get("seconds", {}) | {k: round(s, 1) for k, s in seconds.items()}
    for kind in ("checks", "twins"):
        there = {test: entry for test, entry in proved[kind].items() if exists(test)}
        proved[kind] = dict(sorted(there.items()))


def _named_in(raw: dict[str, Any]) -> set[str]:
    """The guarantees that the tests of a run were about."""
    return {name for result in raw["results"] for name in result["guarantees"] + result["twins"]}


def _keep(
    proved: dict[str, Any], result: dict[str, Any], raw: dict[str, Any], ids: list[str]
) -> None:
    kind = "checks" if result["guarantees"] else "twins"
    entries: dict[str, dict[str, Any]] = proved.setdefault(kind, {})
    proved.setdefault("twins", {})
    before = entries.get(result["test"], {"old": True})
    build = proved["builds"].index(raw["python"])
    if not before.get("old") and before["profile"] == "full" and raw["profile"] == "quick":
        if build not in before["on"]:
            before["quick"] = sorted({build, *before.get("quick", [])})
        return
    builds = {build}
    if not before.get("old") and before["profile"] == raw["profile"]:
        builds |= set(before["on"])
    entry: dict[str, Any] = {"ids": ids, "profile": raw["profile"], "on": sorted(builds)}
    if kind == "checks" and (place := _place(result)) is not None:
        entry["at"] = place
    explored = [
        [each["kind"], each["told"], int(each["exhausted"]), each["schedules"]]
        for each in result["explored"]
        if each["kind"] != "caught"
    ]
    caught = [each for each in result["explored"] if each["kind"] == "caught"]
    entry |= {"explored": explored} if explored else {}
    entry |= {"examples": result["examples"]} if result["examples"] else {}
    entry |= {"fault": result["fault"]} if "fault" in result else {}
    if "fails" in result:
        entry["fails"] = _brief(result["fails"])
    if caught:
        entry["schedule"] = caught[-1]["schedules"]
    entries[result["test"]] = entry


def _brief(ends: list[str]) -> list[str]:
    """How a twin's check fails, for people: the first of the ways that it states."""
    first = ends[0] if len(ends[0]) <= 50 else ends[0][:49] + "…"
    return [first] if len(ends) == 1 else [first, f"{len(ends) - 1} more"]


def _place(result: dict[str, Any]) -> str | None:
    """The function that a reader should see: "file.py:name", the file where it is another.

    None where it is the test itself, or the contract's case that the test inherits.
    """
    if result["source"] is None:
        return None
    file, name = result["source"]
    if name.rpartition(".")[2] == result["test"].partition("[")[0].rpartition("::")[2]:
        return None
    return name if result["test"].startswith(f"{file}::") else f"{file}:{name}"


def explored(record: dict[str, Any]) -> dict[str, int]:
    """What the checks of a component ran: the one place that counts it."""
    entries = [each for entry in checks(record).values() for each in entry.get("explored", [])]
    count = {
        "threads": sum(n for kind, _, _, n in entries if kind == "threads"),
        "asyncio": sum(n for kind, _, _, n in entries if kind == "asyncio"),
        "interrupts": sum(n for kind, _, _, n in entries if kind == "interrupts"),
        "exhausted": sum(exhausted for _, _, exhausted, _ in entries),
        "examples": sum(entry.get("examples", 0) for entry in checks(record).values()),
    }
    kinds = ("threads", "asyncio", "interrupts", "examples")
    return count | {"all": sum(count[kind] for kind in kinds)}


# Sources of tests.


@cache
def functions(file: str) -> dict[str, tuple[int, int]]:
    """The first and last line of each function or name of a file, by its qualified name."""
    found: dict[str, tuple[int, int]] = {}

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([child.lineno, *(d.lineno for d in child.decorator_list)])
                found[prefix + child.name] = first, child.end_lineno or child.lineno
                walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.Assign):  # test_it = holding(TABLE)
                for target in child.targets:
                    names = target.elts if isinstance(target, ast.Tuple) else [target]
                    for name in (each.id for each in names if isinstance(each, ast.Name)):
                        found[prefix + name] = child.lineno, child.end_lineno or child.lineno
            else:
                walk(child, prefix)

    path = ROOT / file
    if path.is_file():
        walk(ast.parse(path.read_text(encoding="utf-8")), "")
    return found


def _contracts() -> list[str]:
    folder = ROOT / "tests" / "contracts"
    return [path.relative_to(ROOT).as_posix() for path in sorted(folder.glob("*.py"))]


def _defined(test: str) -> tuple[str, str] | None:
    """Where the function of a test is: in its file, or in the contract that it inherits."""
    file, _, name = test.partition("[")[0].partition("::")
    wanted = name.rpartition("::")[2]
    for place in (file, *_contracts()):
        for function in functions(place):
            if function.rpartition(".")[2] == wanted:
                return place, function
    return None


def exists(test: str) -> bool:
    """Whether a test of this node ID can still be there."""
    file, _, name = test.partition("::")
    return (ROOT / file).is_file() and (name.endswith("runTest") or _defined(test) is not None)


def source(test: str, entry: dict[str, Any]) -> tuple[str, str] | None:
    """The source of a check and where it is; None where it is gone."""
    if "at" in entry:
        file, _, name = entry["at"].rpartition(":")
        place = file or test.partition("::")[0], name
    elif (found := _defined(test)) is not None:
        place = found
    else:
        return None
    if place[1] not in functions(place[0]):
        return None
    first, last = functions(place[0])[place[1]]
    lines = (ROOT / place[0]).read_text(encoding="utf-8").splitlines()[first - 1 : last]
    return place[0], textwrap.dedent("\n".join(lines))


# Coverage and the sessions.


def merge_coverage(record: dict[str, Any], report: dict[str, Any]) -> None:
    """What coverage.py saw of a component's own file and of its parts."""
    component = record["component"]
    files = [f"reference_impl/{each}.py" for each in (component, *parts_of(component))]
    if any(file not in report["files"] for file in files):
        return
    summaries = [report["files"][file]["summary"] for file in files]

    def total(name: str) -> int:
        return sum(summary[name] for summary in summaries)

    record["coverage"] = {
        "files": digests(component),
        "date": report["meta"]["timestamp"][:10],
        "tool": f"coverage.py {report['meta']['version']}",
        "lines": [total("covered_lines"), total("num_statements")],
        "branches": [total("covered_branches"), total("num_branches")],
    }


def merge_sessions(folder: Path) -> None:
    """What each session took, as it said itself; those that did not run are kept."""
    kept: dict[str, Any] = {}
    if records.SESSIONS.is_file():
        kept = json.loads(records.SESSIONS.read_text(encoding="utf-8"))
    fresh = {
        file.stem: json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("*.json"))
    }
    if fresh:
        text = records.dumps(dict(sorted((kept | fresh).items())), depth=1)
        records.SESSIONS.write_text(text, encoding="utf-8")


def unproved() -> list[str]:
    """Guarantees without a check or without a twin that was run on today's files."""
    found = []
    for identifier, component in all_promises().items():
        record = records.read(component)
        for name, entries in (("check", checks(record)), ("twin", twins(record))):
            current = [entry for entry in entries.values() if not entry.get("old")]
            if not any(identifier in entry["ids"] for entry in current):
                found.append(f"{identifier} has no {name} that was run: run `nox -s evidence`")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
