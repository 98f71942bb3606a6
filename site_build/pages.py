"""Every generated page, as it should read: `python -m site_build render` writes them.

None of them is committed. The texts are the Jinja templates in site_build/templates; here is
what they show, taken from the records of docs/evidence, the sources and the changelog.
"""

import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jinja2

from benchmarks.render import render as render_figures
from reference_impl import _copying
from site_build import (
    charts,
    compared,
    edits,
    evidence,
    home,
    hosting,
    interrupts_table,
    matrix,
    records,
    review,
    scenes,
    scores,
    states,
    versions,
)
from site_build.records import EVIDENCE
from tests.kit import ROOT
from tests.kit.catalogue import digests, promises, title

_JINJA = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=False,  # Markdown, from our own files
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_JINJA.filters["number"] = lambda value: f"{value:,}"
# For a page that is a folder further down than docs/evidence.
_JINJA.filters["deeper"] = lambda text: re.sub(r"""(\]\(|(?:href|src)=")\.\./""", r"\1../../", text)


def pages() -> dict[Path, str]:
    """Every generated page but the review, with its text."""
    found = records.read_all()
    titles = {component: title(component) for component in found}
    result: dict[Path, str] = {}
    for component, record in found.items():
        result |= component_pages(record, titles[component])
    result[EVIDENCE / "index.md"] = index_page(found, titles)
    result[EVIDENCE / "diagrams.inc"] = scenes.render()
    result[EVIDENCE / "matrix.inc"] = matrix.render(found, titles) + "\n"
    result[interrupts_table.TABLE] = interrupts_table.table()
    result[edits.TABLE] = edits.table(titles)
    result[home.SHOWN] = home.facts(found)
    result[compared.SHOWN] = compared.render()
    result[charts.PAGE] = charts.page(titles)
    result[states.DRAWN] = states.page()
    result[scores.PAGE] = scores.page(titles)
    result[versions.FEED] = versions.current_feed()
    result[versions.LISTED] = versions.current_list()
    for path, template in hosting.rendered().items():
        result[path] = _JINJA.get_template(template).render(hosting.addresses())
    return result


def render() -> None:
    """Write the pages; one that reads as before keeps its time, so nothing is built again."""
    for some in (pages, review.pages):  # the review reads the headings of the others
        for path, text in some().items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")


# A component's page.


def component_pages(record: dict[str, Any], name: str) -> dict[Path, str]:
    """The evidence page of one component, and what the component's own pages include of it."""
    component = record["component"]
    file = _file(component)
    shown = {
        "title": name,
        "component": component,
        "name": file["name"],
        "file": _rendered("file.md.j2", file),
        "summary": _summary(record),
        "guarantees": [_guarantee(record, *each) for each in promises(component).items()],
        "sentences": list(filter(None, [scores.summary(component), _coverage(record)])),
        "figures": _figures(component),
        "changes": _changes(component),
    }
    shown |= {"copy": _rendered("copy.md.j2", file), "proofs": _rendered("proofs.md.j2", shown)}
    templates = {".md": "component.md.j2", ".inc": "included.inc.j2"}
    return {
        EVIDENCE / f"{file['name']}{suffix}": _JINJA.get_template(template).render(shown)
        for suffix, template in templates.items()
    }


def _rendered(template: str, values: dict[str, Any]) -> str:
    return _JINJA.get_template(template).render(values).strip()


def _file(component: str) -> dict[str, Any]:
    """How to copy a component, and what it is that one copies."""
    found = _copying.components()[component]
    closure = _copying.closure(found)
    files = []
    for each in closure:
        files.append(
            {
                "name": f"reference_impl/{each.path}.py",
                "base": f"{each.module}.py",
                "raw": f"../src/{each.path}.py",
                "part": each.module if each.is_part else "",
                "version": each.version,
                "lines": len(each.source.splitlines()),
                "size": f"{len(each.source) / 1000:.1f} kB",
                "sha": digests(each.path)[f"reference_impl/{each.path}.py"],
            }
        )
    siblings = [
        f"{'its part ' if each.is_part else ''}`reference_impl/{each.path}.py`"
        for each in closure[1:]
    ]
    packages = [f"the package `{name}`" for name in _copying.third_party(closure)]
    return {
        "component": component,
        "name": found.module,
        "version": found.version,
        "date": found.date,
        "changes": f"../changes.md#{component.replace('/', '')}",  # the anchor that Markdown makes
        "copy": next(iter(_copying.layout([found], Path("vendored")))).as_posix(),
        "proved": bool(promises(component)),
        **hosting.addresses(),
        "files": files,
        "needs": _listed(["the standard library", *siblings, *packages]),
        "packages": _listed(["the standard library", *packages]),
        "seconds": quick_seconds(records.read(component)),
    }


def _listed(names: list[str]) -> str:
    """The names in a sentence: "one, another and a third"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def quick_seconds(record: dict[str, Any]) -> float:
    """Seconds of one processor that the quick profile takes on the newest build; 0 if unknown."""
    seconds: dict[str, float] = record.get("proved", {}).get("seconds", {})
    quick = {key: value for key, value in seconds.items() if key.startswith("quick ")}
    return quick[max(quick, key=lambda key: tuple(map(int, key[6:].split("."))))] if quick else 0.0


def _guarantee(record: dict[str, Any], identifier: str, statement: str) -> dict[str, Any]:
    """All that is known of one guarantee."""
    component = record["component"]
    family = component.partition("/")[0]
    statement = statement.replace("](#", f"](../{component}.md#")
    statement = re.sub(r"\]\((?=[\w-]+\.md)", f"](../{family}/", statement)
    proves = {t: e for t, e in evidence.checks(record).items() if identifier in e["ids"]}
    twins = {t: e for t, e in evidence.twins(record).items() if identifier in e["ids"]}
    return {
        "id": identifier,
        "anchor": identifier.lower(),
        "statement": statement,
        "explored": list(_explored(proves.values())),
        "checks": list(_checks(proves)),
        "check_count": len(proves),
        "twins": [_twin(test, entry) for test, entry in twins.items()],
        "scenes": scenes.of_guarantee(identifier),
        "builds": _short(record, [*proves.values(), *twins.values()]),
        "old": any(entry.get("old") for entry in (*proves.values(), *twins.values())),
    }


def _checks(entries: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The checks by their source: the cases of one table or parametrisation together."""
    groups: dict[str, list[str]] = defaultdict(list)
    sources: dict[str, tuple[str, str] | None] = {}
    for test, entry in entries.items():
        found = evidence.source(test, entry)
        key = test.partition("[")[0] if found is None else "\n".join(found)
        sources[key] = found
        groups[key].append(test)
    for key, tests in groups.items():
        found = sources[key]
        yield {
            "tests": tests,
            "file": tests[0].partition("::")[0] if found is None else found[0],
            "source": "" if found is None else found[1],
            "explored": list(_explored(entries[test] for test in tests)),
        }


def _explored(entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Explorations in words: "1,204 schedules: every interleaving of 2 threads with ..."."""
    sums: dict[tuple[str, str], int] = defaultdict(int)
    examples = 0
    for entry in entries:
        examples += entry.get("examples", 0)
        for kind, told, _, schedules in entry.get("explored", []):
            sums["interrupt" if kind == "interrupts" else "schedule", told] += schedules
    for (unit, told), schedules in sums.items():
        yield f"{schedules:,} {unit}{'' if schedules == 1 else 's'}: {told}"
    if examples:
        yield f"{examples:,} Hypothesis examples"


def _twin(test: str, entry: dict[str, Any]) -> dict[str, Any]:
    fault = entry.get("fault") or test.rpartition("::")[2].replace("_", " ")
    fails = [str(each).replace("|", "&#124;") for each in entry.get("fails", [])]
    return {"test": test, "fault": fault, "fails": fails, "schedule": entry.get("schedule")}


def _short(record: dict[str, Any], entries: Iterable[dict[str, Any]]) -> str:
    """The builds, those of the quick profile alone last."""
    builds = record.get("proved", {}).get("builds", [])
    entries = list(entries)
    used = {number for entry in entries for number in entry["on"]}
    quick = {number for entry in entries for number in entry.get("quick", [])} - used
    found = [_version(builds, used)]
    found += [f"quick: {_version(builds, quick)}"] if quick else []
    return "; ".join(found)


def _version(builds: list[str], numbers: Iterable[int]) -> str:
    names = [
        builds[number].split(",")[0].removeprefix("CPython ")
        + ("t" if "free-threaded" in builds[number] else "")
        for number in numbers
    ]
    return ", ".join(sorted(names, key=lambda name: [int(n) for n in re.findall(r"\d+", name)]))


def _summary(record: dict[str, Any]) -> str:
    if not promises(record["component"]):
        return (
            "It promises nothing by itself: its guarantees are those of the files that import it."
        )
    if "proved" not in record:
        return "Nothing was proved yet: run `nox -s evidence`."
    count = evidence.explored(record)
    ran = [
        f"{count[kind]:,} {name}"
        for kind, name in (
            ("threads", "thread interleavings"),
            ("asyncio", "asyncio schedules"),
            ("interrupts", "interrupts"),
            ("examples", "Hypothesis examples"),
        )
        if count[kind]
    ]
    checks, twins = evidence.checks(record), evidence.twins(record)
    profiles = {entry["profile"] for entry in checks.values()}
    return (
        f"On {record['proved']['date']}, {len(promises(record['component']))} guarantees were "
        f"proved by {len(checks)} checks in the {' and '.join(sorted(profiles))} profile, and "
        f"{len(twins)} broken twins showed that those checks can fail. "
        f"They ran {', '.join(ran) or 'no exploration'}; "
        f"{count['exhausted']} searches were exhaustive up to their stated bound.\n\n"
        f"Builds: {'; '.join(sorted(record['proved']['builds']))}."
    )


def _coverage(record: dict[str, Any]) -> str:
    if "coverage" not in record:
        return ""
    found = record["coverage"]
    current = records.is_current(found, record["component"])
    parts = [
        f"{100 * covered / total:.1f} % of its {total} {name}"
        for name, (covered, total) in (("lines", found["lines"]), ("branches", found["branches"]))
        if total
    ]
    old = "" if current else " (of an earlier version)"
    return f"Coverage{old}: the tests run {' and '.join(parts)} ({found['tool']})."


def _figures(component: str) -> str:
    figures = records.figures_of(component)
    if figures is None:
        return "It is measured with the components that import it."
    return render_figures(figures)


def _changes(component: str) -> str:
    """What somebody lacks who has copied it before, the newest version first."""
    text = versions.CHANGELOG.read_text(encoding="utf-8")
    *later, (first, (date, _)) = versions.read_changelog(text)[component].items()
    parts = [
        f"If you copied it before {day}, you lack {number}:\n\n{changes}"
        for number, (day, changes) in later
    ]
    return "\n\n".join([*parts, f"{first} of {date} is the first version."])


# The ledger of all components.


def index_page(found: dict[str, dict[str, Any]], titles: dict[str, str]) -> str:
    """The ledger of all components, and what a verification costs."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rows = []
    for component, record in found.items():
        if not promises(component):
            continue
        count = evidence.explored(record)
        coverage = record.get("coverage")
        rows.append(
            {
                "title": titles[component],
                "name": Path(component).name,
                "guarantees": len(promises(component)),
                "checks": len(evidence.checks(record)),
                "twins": len(evidence.twins(record)),
                "explored": count["all"],
                "exhausted": count["exhausted"],
                "date": record.get("proved", {}).get("date", "never"),
                "coverage": f"{100 * coverage['lines'][0] / coverage['lines'][1]:.0f} %"
                if coverage
                else "–",
                "mutation": scores.cell(component),
                "seconds": quick_seconds(record),
            }
        )
    sessions: dict[str, Any] = {}
    if records.SESSIONS.is_file():
        sessions = json.loads(records.SESSIONS.read_text(encoding="utf-8"))
    return _JINJA.get_template("index.md.j2").render(
        rows=rows,
        sessions=sessions,
        builds=sorted({b for r in found.values() for b in r.get("proved", {}).get("builds", [])}),
        matrix=", ".join(pyproject["tool"]["executable-guarantees"]["pythons"]),
    )
