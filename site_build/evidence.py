"""Merge what the sessions proved into docs/evidence, and render it.

`python -m site_build.evidence` reads build/evidence/*.json (written by the `tests` and
`interleavings` sessions), refuses what was proved on other sources than today's, and writes
docs/evidence/<component>.json. `python -m site_build.evidence render` only renders the
pages again, after a change of the figures or of a page.
"""

import json
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.render import render as render_figures
from reference_impl import _copying
from site_build import charts, matrix, review, scores, sequence, states, versions
from tests.kit import COMPONENTS, ROOT
from tests.kit.catalogue import components, digests, promises

EVIDENCE = ROOT / "docs" / "evidence"
FIGURES = EVIDENCE / "figures"
RAW = ROOT / "build" / "evidence"
BLOCKS = EVIDENCE / "blocks.json"


def main(arguments: list[str]) -> None:
    """Merge and render, or (with "render") render only."""
    if arguments != ["render"]:
        raws = [json.loads(file.read_text(encoding="utf-8")) for file in RAW.glob("*.json")]
        if not raws:
            raise SystemExit(f"{RAW} is empty: run `nox -s tests interleavings` first")
        for component in components():
            _write(json_path(component), json.dumps(merge(component, raws), indent=1) + "\n")
    for path, text in pages().items():
        _write(path, text)


def json_path(component: str) -> Path:
    """Where the evidence of a component is kept."""
    return EVIDENCE / f"{Path(component).name}.json"


def pages() -> dict[Path, str]:
    """Every generated page, as it should read."""
    evidence = {
        component: json.loads(json_path(component).read_text(encoding="utf-8"))
        for component in components()
    }
    result = {
        json_path(component).with_suffix(".md"): render(record)
        for component, record in evidence.items()
    }
    result[EVIDENCE / "index.md"] = render_index(evidence)
    titles = {component: page_title(component) for component in evidence}
    result[matrix.HOME] = matrix.home(evidence, titles)
    result[charts.CHARTS] = charts.page(titles)
    result[states.DRAWN] = states.page()
    result[scores.PAGE] = scores.page(titles)
    return result | review.pages()


def merge(component: str, raws: list[dict[str, Any]]) -> dict[str, Any]:
    """The evidence of one component: per guarantee its tests, twins and explorations."""
    files = digests(component)
    identifiers = set(promises(component))
    fresh = [raw for raw in raws if identifiers & _named_in(raw)]
    for raw in fresh:
        if any(raw["sources"].get(name) != sha for name, sha in files.items()):
            raise SystemExit(
                f"{component} has changed since {raw['python']} proved it: "
                "run `nox -s evidence` again"
            )
    fresh.sort(key=lambda raw: raw["version"])
    rows: dict[str, dict[str, Any]] = {
        identifier: {"tests": {}, "twins": {}, "pythons": []} for identifier in promises(component)
    }
    diagrams: dict[str, Any] = {}
    for raw in fresh:
        for result in raw["results"]:
            if result["outcome"] == "skipped":
                continue
            if result["outcome"] != "passed":
                raise SystemExit(f"{result['test']} {result['outcome']} on {raw['python']}")
            for record in result["explored"]:
                if "diagram" in record and rows.keys() & result["twins"]:
                    diagrams[record["diagram"]["title"]] = record["diagram"]
            for kind, key in (("guarantees", "tests"), ("twins", "twins")):
                for identifier in rows.keys() & result[kind]:
                    _add(rows[identifier], key, result, raw["python"])
    return {
        "component": component,
        "date": datetime.now(UTC).date().isoformat(),
        "files": files,
        "pythons": list(dict.fromkeys(raw["python"] for raw in fresh)),
        "guarantees": rows,
        "diagrams": list(diagrams.values()),
    }


def _named_in(raw: dict[str, Any]) -> set[str]:
    """The guarantees that the tests of a run were about."""
    return {name for result in raw["results"] for name in result["guarantees"] + result["twins"]}


def _add(row: dict[str, Any], key: str, result: dict[str, Any], python: str) -> None:
    explored = [
        {name: record[name] for name in ("kind", "bound", "exhausted", "schedules")}
        for record in result["explored"]
        if record["kind"] != "caught"
    ]
    # The newest interpreter's counts stand: the raws come in the order of their versions.
    row[key][result["test"]] = {"explored": explored, "examples": result["examples"]}
    if python not in row["pythons"]:
        row["pythons"].append(python)


def render(record: dict[str, Any]) -> str:
    """The evidence page of one component; its sections are included in the component's."""
    component = record["component"]
    title = page_title(component)
    parts = [
        f"---\ntitle: {title}\ndescription: What was run to prove the guarantees of {title}.\n---",
        f"# Evidence: {title}",
        "Generated by `nox -s evidence` and `nox -s bench`; a test compares this page with the\n"
        "recorded results, and the results with the source's SHA-256.",
        "## The file verified",
        _section("file", _file(record)),
        "## Guarantees",
        _section("summary", _summary(record)),
        _guarantee_table(record),
        *filter(None, [scores.summary(component)]),
        "## Losing interleavings",
        _section("diagrams", _diagrams(record)),
        "## Figures",
        _section("figures", _figures(component)),
        "## Changes",
        _section("changes", _changes(component)),
        "## Tests by guarantee",
        *_test_lists(record),
    ]
    return "\n\n".join(parts) + "\n"


def page_title(component: str) -> str:
    """The component's name, as its page's heading gives it."""
    text = (ROOT / "docs" / f"{component}.md").read_text(encoding="utf-8")
    match = re.search(r"^# (.+)$", text, re.MULTILINE)
    assert match is not None, f"docs/{component}.md has no heading"
    return match[1].strip()


def version(component: str) -> tuple[str, str]:
    """The component's version and the date of its last change, from the file's header."""
    text = (COMPONENTS / f"{component}.py").read_text(encoding="utf-8")
    match = re.search(r"^# Version (\S+) \(([\d-]+)\)", text, re.MULTILINE)
    assert match is not None, f"{component}.py has no version in its header"
    return match[1], match[2]


def _section(name: str, text: str) -> str:
    return f"<!-- --8<-- [start:{name}] -->\n{text}\n<!-- --8<-- [end:{name}] -->"


def _file(record: dict[str, Any]) -> str:
    """How to copy a component, and what it is that one copies."""
    component = record["component"]
    number, date = version(component)
    changes = f"../changes.md#{component.replace('/', '')}"  # the anchor that Markdown makes
    lines = [
        "The [copy tool](../guides/copying.md) writes it into a package of yours, "
        "with whatever it needs:",
        "",
        "```shell",
        f"python -m reference_impl copy {Path(component).name} your_package",
        "```",
        "",
        "To see its tests, its interleavings and the examples of this page pass on your machine, "
        "in a checkout:",
        "",
        "```shell",
        f"python -m pip install nox && nox -s verify -- {Path(component).name}",
        "```",
        "",
        f"| Version | {number}, last changed on {date} |",
        "|---|---|",
        f"| Changes | [version by version]({changes}) |",
    ]
    for name, sha in record["files"].items():
        path = ROOT / name
        source = path.read_bytes()
        length = len(source.splitlines())
        # HTML, not Markdown: Zensical does not follow the link docs/src, and would complain.
        raw = f'<a href="../src/{path.relative_to(COMPONENTS).as_posix()}" download>'
        lines += [
            f"| File | {raw}<code>{name}</code></a>, {length} lines, {len(source) / 1000:.1f} kB |",
            f"| SHA-256 | <code>{sha[:32]}<wbr>{sha[32:]}</code> |",
        ]
    siblings = [f"`{name}`" for name in list(record["files"])[1:]]
    parts = _copying.closure(_copying.components()[component])
    packages = [f"the package `{name}`" for name in _copying.third_party(parts)]
    lines.append(f"| Needs | {' and '.join(['the standard library', *siblings, *packages])} |")
    # HTML again: MkDocs would make it a link to the page.
    lines.append(f'| For machines | <a href="../{component}.md">its page as Markdown</a> |')
    return "\n".join(lines)


def totals(record: dict[str, Any]) -> dict[str, int]:
    """Distinct tests and twins of a component, and what they explored."""
    tests: dict[str, Any] = {}
    twins: set[str] = set()
    for row in record["guarantees"].values():
        tests |= row["tests"]
        twins |= row["twins"].keys()
    explored = [entry for test in tests.values() for entry in test["explored"]]
    return {
        "guarantees": len(record["guarantees"]),
        "tests": len(tests),
        "twins": len(twins),
        "threads": sum(e["schedules"] for e in explored if e["kind"] == "threads"),
        "asyncio": sum(e["schedules"] for e in explored if e["kind"] == "asyncio"),
        "exhausted": sum(e["exhausted"] for e in explored),
        "examples": sum(test["examples"] for test in tests.values()),
    }


def _summary(record: dict[str, Any]) -> str:
    count = totals(record)
    if not record["guarantees"]:
        return (
            "It promises nothing by itself: its guarantees are those of the files that import it."
        )
    explored = [
        f"{count[kind]:,} {name}"
        for kind, name in (
            ("threads", "thread interleavings"),
            ("asyncio", "asyncio schedules"),
            ("examples", "Hypothesis examples"),
        )
        if count[kind]
    ]
    return (
        f"On {record['date']}, {count['guarantees']} guarantees were proved by "
        f"{count['tests']} tests, and {count['twins']} tests on broken twins showed that those "
        f"checks can fail. They ran {', '.join(explored) or 'no exploration'}; "
        f"{count['exhausted']} searches were exhaustive up to their stated bound.\n\n"
        f"Builds: {'; '.join(record['pythons'])}."
    )


def _guarantee_table(record: dict[str, Any]) -> str:
    component = record["component"]
    lines = [
        "| ID | Tests | Broken twins | Explored | Hypothesis examples | Builds |",
        "|---|---|---|---|---|---|",
    ]
    for identifier, row in record["guarantees"].items():
        anchor = identifier.lower()
        explored = _merged(entry for test in row["tests"].values() for entry in test["explored"])
        examples = sum(test["examples"] for test in row["tests"].values())
        lines.append(
            f"| [{identifier}](../{component}.md#{anchor}){{ #{anchor} }} "
            f"| {len(row['tests'])} | {len(row['twins'])} | {'; '.join(explored) or '–'} "
            f"| {examples or '–'} | {_short(row['pythons'])} |"
        )
    return "\n".join(lines)


def _merged(entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Explorations of the same kind and bound as one: "1,204 schedules, exhaustive: ..."."""
    sums: dict[tuple[str, str, bool], int] = defaultdict(int)
    for entry in entries:
        sums[entry["kind"], entry["bound"], entry["exhausted"]] += entry["schedules"]
    for (_kind, bound, exhausted), schedules in sums.items():
        yield f"{schedules:,} {'exhausting' if exhausted else 'drawn:'} {bound}"


def _short(pythons: list[str]) -> str:
    return ", ".join(
        python.split(",")[0].removeprefix("CPython ") + ("t" if "free-threaded" in python else "")
        for python in pythons
    )


def _test_lists(record: dict[str, Any]) -> Iterator[str]:
    for identifier, row in record["guarantees"].items():
        proves = [f"- `{name}`" for name in row["tests"]]
        twins = [f"- `{name}` (broken twin)" for name in row["twins"]]
        yield f"### Tests of {identifier}\n\n" + "\n".join(proves + twins)


def _figures(component: str) -> str:
    path = FIGURES / f"{Path(component).name}.json"
    if not path.exists():
        return "It is measured with the components that import it."
    return render_figures(json.loads(path.read_text(encoding="utf-8")))


def _diagrams(record: dict[str, Any]) -> str:
    return "\n\n".join(map(sequence.draw, record["diagrams"])) or "None is drawn."


def _changes(component: str) -> str:
    """What somebody lacks who has copied it before, the newest version first."""
    text = versions.CHANGELOG.read_text(encoding="utf-8")
    *later, (first, (date, _)) = versions.read_changelog(text)[component].items()
    parts = [
        f"If you copied it before {day}, you lack {number}:\n\n{changes}"
        for number, (day, changes) in later
    ]
    return "\n\n".join([*parts, f"{first} of {date} is the first version."])


def render_index(evidence: dict[str, dict[str, Any]]) -> str:
    """The ledger of all components."""
    lines = [
        "| Component | Guarantees | Tests | Broken twins | Interleavings and schedules "
        "| Exhaustive searches | Verified |",
        "|---|---|---|---|---|---|---|",
    ]
    for component, record in evidence.items():
        count = totals(record)
        if not count["guarantees"]:
            continue
        name = Path(component).name
        lines.append(
            f"| [{page_title(component)}]({name}.md) | {count['guarantees']} "
            f"| {count['tests']} | {count['twins']} | {count['threads'] + count['asyncio']:,} "
            f"| {count['exhausted']} | <time>{record['date']}</time> |"
        )
    run = sorted({python for record in evidence.values() for python in record["pythons"]})
    blocks = json.loads(BLOCKS.read_text(encoding="utf-8"))
    share = 100 * blocks["executed"] / blocks["shown"]
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    matrix = ", ".join(pyproject["tool"]["executable-guarantees"]["pythons"])
    return f"""---
title: Evidence
description: Which test proves which guarantee, what was explored, and on which builds.
---
# Evidence

Each guarantee on this site has an ID, and each ID has tests that prove it and broken twins that
show that those tests can fail. No figure on these pages is typed by hand: `nox -s evidence`,
`bench` and `mutation` write them, and a test fails where a component's SHA-256 is not the one
that was verified.

## The ledger

{chr(10).join(lines)}

## Where it was run

{chr(10).join(f"- {python}" for python in run)}

The matrix of the hosted workflow is {matrix}, on Linux, macOS and Windows.
What is not in the list above was not run for these pages.
Correctness does not rest on the GIL in any component. Builds that could not be had were not run:
for them the exploration is an argument, not a run. It covers every switch between two steps of
Python, and takes for granted that one operation of a lock, dict, list, deque or OrderedDict is
one step there, too, as CPython promises.

## How much the tests notice

Small faults put into the components one at a time: the [mutation scores](mutation.md) say how
many of them the tests notice, and list those that they do not.

## Code on the site

{blocks["executed"]} of the {blocks["shown"]} Python blocks on the built site were executed:
{share:.0f} %. Listed exceptions: {blocks["exceptions"]}.
The signatures in the API references are not counted: mkdocstrings writes them from the source.

## Check it yourself

`nox` proves everything again, and `nox -s evidence` writes these pages anew.
"""


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
