"""State diagrams, drawn from docs/assets/states.toml: a lane for each state, a row for each step.

Inline SVG in the page's colours, with the steps as a table for its text alternative. The pages
include the sections of docs/evidence/states.inc, which is generated and no page itself.
"""

import ast
import builtins
import html
import re
import tomllib
from typing import TypedDict

from tests.kit import ROOT
from tests.kit.catalogue import closure

SOURCE = ROOT / "docs" / "assets" / "states.toml"
DRAWN = ROOT / "docs" / "evidence" / "states.inc"
_WIDTH, _HEAD, _ROW = 420, 26, 34
_LETTER = 6.5  # about what a wide font takes on average


class Life(TypedDict):
    """One diagram."""

    component: str
    title: str
    states: list[str]
    steps: list[tuple[str, str, str]]


def lives() -> dict[str, Life]:
    """The diagrams by name."""
    found: dict[str, Life] = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    return found


def page() -> str:
    """What states.inc should hold: a section for each diagram."""
    return (
        "\n\n".join(
            f"<!-- --8<-- [start:{name}] -->\n{draw(life)}\n<!-- --8<-- [end:{name}] -->"
            for name, life in lives().items()
        )
        + "\n"
    )


def faults(life: Life) -> list[str]:
    """What cannot be drawn or is not so: steps from or to no state, names of nothing, and so on."""
    known, states = _names(life["component"]), life["states"]
    found = []
    for source, target, label in life["steps"]:
        for state in {source, target} - {"*"}:
            if state not in states:
                found.append(f"{label}: {state} is none of the states")
        if _LETTER * len(_plain(label)) > _WIDTH - 8:
            found.append(f"{label}: too long, shorten it")
    reached = {state for step in life["steps"] for state in step[:2]}
    found += [f"no step comes from or to {state}" for state in states if state not in reached]
    for text in [*states, *(step[2] for step in life["steps"])]:
        for name in re.findall(r"`([^`]+)`", text):
            if name not in known:
                found.append(f"{life['component']} has no {name}")
    return found


def _names(component: str) -> set[str]:
    """The public names and the strings in the component's files, and Python's own words."""
    found = {name for name in dir(builtins) if not name.startswith("_")} | {"with", "async with"}
    for file in closure(component):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, ast.alias):
                found.add(node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return {name for name in found if not name.startswith("_")}


def draw(life: Life) -> str:
    """One diagram with its title, and the same as a table."""
    states = life["states"]
    gap = _WIDTH / len(states)
    height = _HEAD + 8 + _ROW * len(life["steps"])
    parts = []
    for number, state in enumerate(states):
        x = gap * (number + 0.5)
        parts.append(
            f'<line x1="{x:g}" x2="{x:g}" y1="{_HEAD}" y2="{height}"/>'
            f'<rect x="{x - gap / 2 + 2:g}" y="2" width="{gap - 4:g}" height="{_HEAD - 4}" rx="4"/>'
            f'<text class="state" x="{x:g}" y="{_HEAD - 9}">{html.escape(_plain(state))}</text>'
        )
    for number, step in enumerate(life["steps"]):
        parts.append(_step(step, states, gap, _HEAD + 8 + _ROW * number))
    rows = "".join(
        f"<tr><td>{_marked(source if source != '*' else 'any of them')}</td>"
        f"<td>{_marked(target)}</td><td>{_marked(label)}</td></tr>"
        for source, target, label in life["steps"]
    )
    title = html.escape(life["title"])
    return "\n".join(
        [
            '<figure class="states" markdown="0">',
            f"<figcaption>{title}</figcaption>",
            f'<svg viewBox="0 0 {_WIDTH} {height + 2}" role="img" '
            f'aria-label="{title}. The table tells each step.">{"".join(parts)}</svg>',
            "<details><summary>The same as a table</summary>",
            '<div class="interleaving" tabindex="0">',
            '<table><thead><tr><th scope="col">From</th><th scope="col">To</th>'
            '<th scope="col">When</th></tr></thead>',
            f"<tbody>{rows}</tbody></table></div></details></figure>",
        ]
    )


def _step(step: tuple[str, str, str], states: list[str], gap: float, top: int) -> str:
    source, target, label = step
    y, end = top + 24, gap * (states.index(target) + 0.5)
    others = [gap * (n + 0.5) for n, state in enumerate(states) if state != target]
    starts = others if source == "*" else [gap * (states.index(source) + 0.5)]
    start = max(starts, key=lambda x: abs(x - end))
    dots = "".join(f'<circle cx="{x:g}" cy="{y}" r="3"/>' for x in starts)
    if source == target:
        arrow = f"M{start:g} {y - 7}h16v7H{end + 5:g}"
        dots = f'<circle cx="{start:g}" cy="{y - 7}" r="3"/>'
        back = end + 9
    else:
        arrow = f"M{start:g} {y}H{end + (5 if end < start else -5):g}"
        back = end + (9 if end < start else -9)
    tip = f"M{end + (1 if back > end else -1):g} {y}L{back:g} {y - 4}V{y + 4}Z"
    width = _LETTER * len(_plain(label))
    if source == target:  # over the loop
        left, y = start - width / 2, y - 14
    else:
        left, y = min(start, end) + 6, y - 7
    left = max(4.0, min(left, _WIDTH - 4 - width))
    text = f'<text x="{left:g}" y="{y}">{html.escape(_plain(label))}</text>'
    return f'{text}<path class="way" d="{arrow}"/>{dots}<path class="tip" d="{tip}"/>'


def _plain(text: str) -> str:
    return text.replace("`", "")


def _marked(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
