"""Figures as Markdown: a table per series of groups, and in words whether the aim is reached."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.harness import (
    CaseFigures,
    Figures,
    GroupFigures,
    NotMeasured,
    TableFigures,
)


def render(figures: Figures) -> str:
    """All figures of a component, as compact Markdown without headings."""
    machine = figures["machine"]
    parts = [
        f"Measured on {figures['date']} with {figures['python']}, {machine['processors']} "
        f"processors, by `{figures['command']}`.\n"
        "A figure is how many times as long as the baseline an operation takes: the median of\n"
        "the rounds, and in parentheses the range from the 10th to the 90th percentile.\n"
        "Each round takes every case once, so that what else the machine does falls on all."
    ]
    for _, series in itertools.groupby(figures["groups"], key=_series):
        parts += _groups(list(series))
    for table in figures["tables"]:
        parts += _table(table)
    return "\n\n".join(parts)


def summary(group: GroupFigures) -> str:
    """One group in a few plain lines, for the terminal."""
    lines = [f"{group['title']} ({group['rounds']} rounds, {group['timer']})"]
    for case in group["cases"]:
        mark = ">" if case["ours"] else " "
        lines.append(
            f" {mark} {case['name']:<44} {ratio_and_range(case):<24} {case['ns']:>10,.0f} ns"
        )
    lines += [f"   {_absent(entry)}" for entry in group["not_measured"]]
    return "\n".join(lines)


def verdict(group: GroupFigures) -> str:
    """Whether our cases reach the group's aim, judged by their medians: "" without an aim."""
    aim = group["aim"]
    if aim is None:
        return ""
    worst = max(case["ratio_median"] for case in group["cases"] if case["ours"])
    return "reached" if worst <= aim else f"not reached ({worst:.2f})"


def ratio_and_range(case: CaseFigures) -> str:
    """The median and, in parentheses, the range: "1.38 (1.33 to 1.45)"."""
    low, high = _number(case["ratio_low"]), _number(case["ratio_high"])
    return f"{_number(case['ratio_median'])} ({low} to {high})"


def _series(group: GroupFigures) -> str:
    return group["series"] or group["title"]


def _groups(groups: Sequence[GroupFigures]) -> list[str]:
    first = groups[0]
    names = dict.fromkeys(case["name"] for group in groups for case in group["cases"])
    about: dict[str, CaseFigures] = {}
    for group in groups:
        about |= {case["name"]: case for case in group["cases"]}
    head = ["Case", "Version", *(group["point"] or "Ratio" for group in groups), "Lacks"]
    rows = [
        [
            f"**{name}**" if about[name]["ours"] else name,
            about[name]["version"],
            *(_cell(group, name) for group in groups),
            about[name]["guarantees_note"] or "–",
        ]
        for name in names
    ]
    parts = [f"**{_series(first)}**", _markdown(head, rows, right=range(2, len(head) - 1))]
    sentences = [*dict.fromkeys(group["note"] for group in groups if group["note"])]
    if first["aim"] is not None:
        sentences[:0] = [_aims(groups, first["aim"]), *_others(groups)]
    absent = dict.fromkeys(_absent(entry) for g in groups for entry in g["not_measured"])
    sentences += absent
    if sentences:
        parts.append("\n".join(sentences))
    return parts


def _aims(groups: Sequence[GroupFigures], aim: float) -> str:
    if len(groups) == 1:
        return f"Aim: at most {aim:g} times the baseline; {verdict(groups[0])}."
    found = "; ".join(f"{group['point']}: {verdict(group)}" for group in groups)
    return f"Aim: at most {aim:g} times the baseline. {found}."


def _others(groups: Sequence[GroupFigures]) -> Iterator[str]:
    """How we stand against the baselines that are not the fastest."""
    names = dict.fromkeys(other["name"] for group in groups for other in group["other_floors"])
    for name in names:
        found = [
            " ".join(filter(None, [group["point"], _number(other["ratio_median"])]))
            for group in groups
            for other in group["other_floors"]
            if other["name"] == name
        ]
        yield f"Ours as a multiple of {name}: {'; '.join(found)}."


def _cell(group: GroupFigures, name: str) -> str:
    for case in group["cases"]:
        if case["name"] == name:
            return "1 (the baseline)" if name == group["floor"] else ratio_and_range(case)
    return "not measured"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _absent(entry: NotMeasured) -> str:
    return f"Not measured: {entry['name']} ({entry['reason']})."


def _table(table: TableFigures) -> list[str]:
    rows = [[_value(value) for value in row] for row in table["rows"]]
    parts = [f"**{table['title']}**"]
    if rows:
        parts.append(_markdown(table["columns"], rows, right=range(1, len(table["columns"]))))
    sentences = [table["note"]] if table["note"] else []
    sentences += [_absent(entry) for entry in table["not_measured"]]
    if sentences:
        parts.append("\n".join(sentences))
    return parts


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: range) -> str:
    rule = ["--:" if column in right else "---" for column in range(len(head))]
    cells = [head, rule, *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
