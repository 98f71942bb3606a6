"""Mutation scores as a page, with an explanation of each survivor.

`site_build.mutation` puts the results into the records. docs/evidence/mutation/<name>.toml is
written by hand: its
`[[explained]]` tables have a reason (`why`), and the `changes` that it is the reason for, each
as its function, the line before and the line after. Those of a table with `equivalent = true`
change nothing that anyone could observe: no test can fail, and the score leaves them out.
"""

import tomllib
from pathlib import Path
from typing import Any

from site_build.records import EVIDENCE, read_all
from site_build.records import is_current as of_today
from tests.kit.catalogue import parts_shown, users

EXPLAINED = EVIDENCE / "mutation"
PAGE = EVIDENCE / "mutation.md"
NOT_EXPLAINED = "Not explained."
_Explained = dict[tuple[str, str, str], tuple[str, bool]]


def results() -> dict[str, dict[str, Any]]:
    """What the runs found, by component; a result that cannot be right is refused."""
    found: dict[str, dict[str, Any]] = {}
    for component, record in read_all().items():
        if "mutation" in record:
            found[component] = checked({"component": component, **record["mutation"]})
    return found


def checked(record: dict[str, Any]) -> dict[str, Any]:
    """The same result, if it adds up."""
    ends = [record[name] for name in ("killed", "timeouts", "survived", "no_tests")]
    survivors = len(record["survivors"])
    if sum(ends) != record["mutants"] or survivors != record["survived"] + record["no_tests"]:
        raise ValueError(
            f"the mutants of {record['component']} do not add up: run the session `mutation` again"
        )
    return record


def explanations(component: str, folder: Path = EXPLAINED) -> _Explained:
    """Why a mutant may survive, and whether no test could tell it from the sound code.

    By its function, the line before and the line after.
    """
    path = folder / f"{Path(component).name}.toml"
    if not path.is_file():
        return {}
    return {
        (function, before, after): (table["why"].strip(), table.get("equivalent", False))
        for table in tomllib.loads(path.read_text(encoding="utf-8"))["explained"]
        for function, before, after in table["changes"]
    }


def change(mutant: dict[str, str]) -> tuple[str, str, str]:
    """What tells a survivor from the others of its component."""
    return mutant["function"], mutant["before"], mutant["after"]


def equivalents(record: dict[str, Any], folder: Path = EXPLAINED) -> int:
    """How many of the survivors no test could notice."""
    why = explanations(record["component"], folder)
    return sum(why.get(change(mutant), ("", False))[1] for mutant in record["survivors"])


def score(record: dict[str, Any], folder: Path = EXPLAINED) -> str:
    """The share of the mutants that the tests noticed, of those that can be noticed."""
    found = record["killed"] + record["timeouts"]
    return f"{100 * found / (record['mutants'] - equivalents(record, folder)):.1f} %"


def is_current(record: dict[str, Any]) -> bool:
    """Whether the mutants were made of the files as they are now."""
    return of_today(record, record["component"])


def page(
    titles: dict[str, str],
    found: dict[str, dict[str, Any]] | None = None,
    folder: Path = EXPLAINED,
) -> str:
    """The page of all scores."""
    found = results() if found is None else found
    missing = [titles[component] for component in titles if component not in found]
    parts = [
        "---\ntitle: Mutation scores\ndescription: How many small faults, put into each "
        "component one at a time, its tests notice, and which they do not.\n"
        "search:\n  exclude: true\n---\n"
        "# Mutation scores",
        "A mutant is a component with one small fault: a comparison turned round, an argument "
        "left out,\na constant changed. [mutmut](https://mutmut.readthedocs.io) makes them, and "
        "the component's tests run on each.\nA mutant that fails a test is killed. One that makes "
        "a test take far longer than on the sound code is stopped,\nand counted apart. "
        "The score is the share of both among the mutants that are not equivalent:\n"
        "an equivalent mutant does what the sound code does, and its reason stands with it below.",
        "What runs is the component's own test files, without the broken twins, the stress tests, "
        "the explored interleavings,\nand the tests that fork, send signals or start processes: a "
        "mutant that hangs must not leave a process behind.\nSo what only a fork or the "
        "interpreter's exit runs shows here as not reached, though the suite tests it.\n"
        "mutmut leaves decorated functions and code outside functions as they are.",
        _table(found, titles, folder),
        *([f"Not measured: {', '.join(missing)}."] if missing else []),
        "`nox -s mutation -- NAME` measures a component again.",
        *(_survivors(record, titles[component], folder) for component, record in found.items()),
    ]
    return "\n\n".join(parts) + "\n"


def summary(component: str, folder: Path = EXPLAINED) -> str:
    """The score in a sentence for the component's evidence page; empty if there is none."""
    record = results().get(component)
    return "" if record is None else sentence(record, folder)


def sentence(record: dict[str, Any], folder: Path = EXPLAINED) -> str:
    """The score of one result in a sentence."""
    version = "" if is_current(record) else " (of an earlier version)"
    name = Path(record["component"]).name
    return (
        f"[Mutation score](mutation.md#{name}){version}: the tests notice "
        f"{score(record, folder)} of {record['mutants'] - equivalents(record, folder)} faults."
    )


def cell(component: str) -> str:
    """The score for a table of all components."""
    record = results().get(component)
    if record is None:
        return "–"
    return score(record) + ("" if is_current(record) else " (of an earlier version)")


def _table(found: dict[str, dict[str, Any]], titles: dict[str, str], folder: Path) -> str:
    lines = [
        "| Component | Mutants | Killed | Timed out | Equivalent | Survived | Not reached | Score "
        "| Date |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for component, record in found.items():
        version = "" if is_current(record) else ", of an earlier version"
        same = equivalents(record, folder)
        lines.append(
            f"| [{titles[component]}](#{Path(component).name}) | {record['mutants']} "
            f"| {record['killed']} | {record['timeouts']} | {same} "
            f"| {record['survived'] - same} | {record['no_tests']} | {score(record, folder)} "
            f"| {record['date']}{version} |"
        )
    means = sorted({f"{record['python']}, by {record['tool']}" for record in found.values()})
    return "\n".join([*lines, "", f"Measured on {'; '.join(means)}."])


def _survivors(record: dict[str, Any], title: str, folder: Path) -> str:
    component = record["component"]
    parts = [f"## {title} {{ #{Path(component).name} }}"]
    if record["without"]:
        names = ", ".join(f"`{name}`" for name in record["without"])
        parts.append(f"Left out as well, since they see mutmut's wrappers: tests named {names}.")
    for part in parts_shown(component):
        others = ", ".join(f"`{Path(each).name}`" for each in users(part) if each != component)
        parts.append(f"With its part `{Path(part).name}`, on which the tests of {others} run, too.")
    why = explanations(component, folder)
    groups: dict[str, list[dict[str, str]]] = {}
    for mutant in record["survivors"]:
        reason, _ = why.get(change(mutant), (NOT_EXPLAINED, False))
        groups.setdefault(reason, []).append(mutant)
    for reason in sorted(groups, key=lambda text: text == NOT_EXPLAINED):
        parts += [f"{reason}", "```diff\n" + "\n".join(map(_diff, groups[reason])) + "\n```"]
    if not groups:
        parts.append("None survived.")
    return "\n\n".join(parts)


def _diff(mutant: dict[str, str]) -> str:
    reached = "" if mutant["status"] == "survived" else " (not reached)"
    return (
        f"@@ {mutant['function']}{reached} @@\n- {mutant['before']}\n"
        f"+ {mutant['after'] or '(nothing)'}"
    )
