"""What a page shows of a replayed schedule: the steps that a reader needs, and their source.

Only the standard library, as recording.py: the lab in the page shows with this same file.
"""

import ast
import difflib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.kit.recording import Run, Step, View


def contended(run: Run, view: View) -> Run:
    """The steps of the lanes that are shown, in the functions that are shown."""
    aside = {"T0", "L"} - view.roles.keys()  # the model itself, and the loop's callbacks
    lanes = {t: role for t, role in run.lanes.items() if t not in aside}
    if view.roles and any(t in view.roles for t in lanes):
        lanes = {t: role for t, role in lanes.items() if t in view.roles}
    steps = [step for step in run.steps if step["t"] in lanes]
    order = dict.fromkeys(step["t"] for step in steps)
    lanes = {t: view.roles.get(t, lanes[t]) for t in order}
    circle = [
        [who, what, holder if holder in lanes and what not in view.signals else None]
        for who, what, holder in run.circle
        if who in lanes
    ]
    outcome = dict(run.outcome)
    if circle:
        outcome["text"] = "; ".join(_waiting(lanes, *each) for each in circle)
    for step in steps:
        waits = step["blocked"].items()
        step["blocked"] = {t: what for t, what in waits if t in lanes and what[:5] != "join("}
        locks = {what: t for what, t in step["locks"].items() if what not in view.signals}
        step["locks"] = {what: t if t in lanes else None for what, t in locks.items()}
        if step["t"] in step["blocked"]:
            step.pop("torn", None)  # it waits there
    if view.functions:
        steps = [step for step in steps if step["fn"] in view.functions]
    return Run(lanes, steps, outcome, circle, run.switches)


def _waiting(lanes: dict[str, str], who: Any, what: Any, holder: Any) -> str:
    held = f"which {lanes[holder]} holds" if holder else "and nobody can wake it"
    return f"{lanes[who]} waits for {what}, {held}"


def tell(run: Run, story: Sequence[dict[str, Any]]) -> None:
    """Tie each sentence to its step; one that matches no step is an error."""
    names = {role: t for t, role in run.lanes.items()}
    for each in story:
        thread = names.get(each["thread"], each["thread"])
        mine = [s for s in run.steps if s["t"] == thread]
        found = [s for s in mine if each["line"] in f"{s['code']}\n{s.get('call', '')}"]
        nth = each.get("nth", 1)
        if len(found) < nth:
            lines = "\n".join(f"  {s['t']} {s['code']}" for s in run.steps)
            raise ValueError(
                f"no step {nth} of {each['thread']} has {each['line']!r}; the steps are:\n{lines}"
            )
        if "say" in found[nth - 1]:
            raise ValueError(f"two sentences for {found[nth - 1]['code']!r} of {each['thread']}")
        found[nth - 1]["say"] = each["text"]


def main_steps(run: Run, lines: Sequence[str] = ()) -> list[Step]:
    """What a reader needs: what is told, what changes something, and both sides of a switch.

    With `lines` (pieces of them): what is told, these lines, and where a thread is stopped.
    """
    steps, kept, skipped = run.steps, list[Step](), Counter[str]()
    for number, step in enumerate(steps):
        before = steps[number - 1] if number else None
        after = steps[number + 1] if number + 1 < len(steps) else None
        at_switch = (before is not None and before["t"] != step["t"]) or (
            after is None or after["t"] != step["t"]
        )
        changes = before is not None and any(
            step[part] != before[part] for part in ("shared", "locks", "blocked")
        )
        shown = at_switch or changes or before is None or {"torn", "result"} & step.keys()
        if lines:
            shown = any(line in step["code"] for line in lines) or step["t"] in step["blocked"]
        if shown or "say" in step:
            if skipped[step["t"]]:
                step["skipped"] = skipped.pop(step["t"])
            kept.append(step)
        else:
            skipped[step["t"]] += 1
    return kept


def packed(steps: Sequence[Step]) -> list[Step]:
    """The steps without what only the recording needs, nor what is empty."""
    return [
        {key: value for key, value in step.items() if key[0] != "_" and value not in ({}, None)}
        for step in steps
    ]


def excerpts(
    steps: Sequence[Step], texts: dict[str, str], originals: dict[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """The functions of the steps, without docstrings; what the fault has changed is marked."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, text in texts.items():
        places = {step["line"] for step in steps if step["file"] == name}
        if not places:
            continue
        lines = text.splitlines()
        changed, removed = _differences(originals.get(name, text), text)
        wanted = sorted(set().union(*(_function(text, place) for place in sorted(places))))
        chunks: list[dict[str, Any]] = []
        for number in wanted:
            if not chunks or chunks[-1]["from"] + len(chunks[-1]["lines"]) != number:
                chunks.append({"from": number, "lines": []})
            chunks[-1]["lines"].append(lines[number - 1])
        for chunk in chunks:
            inside = range(chunk["from"], chunk["from"] + len(chunk["lines"]))
            if here := [number for number in changed if number in inside]:
                chunk["changed"] = here
            if gone := [[at, line] for at, line in removed if at in inside]:
                chunk["removed"] = gone
        found[name] = chunks
    return found


def _differences(original: str, text: str) -> tuple[list[int], list[tuple[int, str]]]:
    """The lines that are new, and those that are gone, with the line that stands there now."""
    before, after = original.splitlines(), text.splitlines()
    changed: list[int] = []
    removed: list[tuple[int, str]] = []
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for how, first, last, start, end in matcher.get_opcodes():
        if how != "equal":
            changed += range(start + 1, end + 1)
            removed += [(start + 1, line) for line in before[first:last]]
    return changed, removed


def _function(text: str, line: int) -> set[int]:
    """The lines of the innermost function that holds this one, its docstring left out."""
    best: Any = None
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
            node.lineno <= line <= (node.end_lineno or 0)
        ):
            best = node if best is None or node.lineno >= best.lineno else best
    if best is None:
        return {line}
    found = set(range(best.lineno, best.end_lineno + 1))
    first = best.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and best.body[1:]:
        found -= set(range(first.lineno, (first.end_lineno or 0) + 1))
    return found
