"""A scene as a figure: its trace for the player, a picture, and the same as a table.

All three come from one recorded trace (tests/scenes), so none can differ from what was run. The
picture and the table are what there is without JavaScript, and on paper. In the picture the lanes
stand close together at the left and the code to their right, in lines of their own: so it is
read at a phone's width, where lanes with the code inside them would be too narrow.
"""

import html
import json
import textwrap
from typing import Any

_WIDTH, _LANE, _FIRST, _LINE = 420, 20, 12, 15
# How wide a letter is: of code, of a sentence, and of what is set in bold.
_LETTER, _SENTENCE, _BOLD = 6.3, 5.9, 7.5
_WIDE = {"name": _BOLD, "outcome": _BOLD, "say": _SENTENCE, "note": _SENTENCE}
# Nothing in the data can end its attribute, or be taken for markup.
_ESCAPED = str.maketrans({sign: f"\\u{ord(sign):04x}" for sign in "<>&'"})

Trace = dict[str, Any]


def draw(trace: Trace) -> str:
    """The figure of one trace.

    The trace is an attribute: Material's instant navigation executes each script of a page's
    content as JavaScript, whatever its type, and stops where one is not.
    """
    packed = json.dumps(_packed(trace), ensure_ascii=False, separators=(",", ":"))
    data = packed.translate(_ESCAPED)
    return "\n".join(
        [
            f"""<figure class="sequence" markdown="0" data-trace='{data}'>""",
            f"<figcaption>{html.escape(trace['title'])}</figcaption>",
            _Picture(trace).svg(),
            "<details><summary>The same as a table</summary>",
            '<div class="interleaving" tabindex="0">',
            _table(trace),
            "</div></details></figure>",
        ]
    )


def _packed(trace: Trace) -> Trace:
    """What the player needs, with each line of source told once, whoever has it."""
    texts: dict[str, int] = {}

    def chunk(each: dict[str, Any]) -> dict[str, Any]:
        return each | {"lines": [texts.setdefault(line, len(texts)) for line in each["lines"]]}

    def pack(run: Trace) -> Trace:
        found = run.get("source", {})
        shown = {
            (file, number): line.strip()
            for file, chunks in found.items()
            for each in chunks
            for number, line in enumerate(each["lines"], each["from"])
        }
        steps = [
            {key: value for key, value in step.items() if key != "code" or value != shown.get(at)}
            for step in run["steps"]
            for at in [(step.get("file"), step.get("line"))]
        ]
        source = {file: list(map(chunk, chunks)) for file, chunks in found.items()}
        return run | {"source": source, "steps": steps}

    kept = pack({key: value for key, value in trace.items() if key not in {"twin", "made"}})
    if "fix" in kept:
        kept["fix"] = pack(kept["fix"])
    return kept | {"texts": list(texts)}


def outcome(trace: Trace) -> str:
    """How it ends, in a sentence."""
    kind, text = trace["outcome"]["kind"], trace["outcome"]["text"]
    if kind != "deadlock":
        return f"The check fails: {text}"
    if not trace.get("circle"):
        return "Deadlock: what has not ended is blocked forever."
    return f"Deadlock: {'; '.join(_waiting(trace['lanes'], *each) for each in trace['circle'])}."


def _waiting(lanes: dict[str, str], lane: str, what: str, holder: str | None) -> str:
    if holder is None:
        return f"{lanes[lane]} waits for {what}, which nobody can give"
    whose = "it holds itself" if holder == lane else f"{lanes[holder]} holds"
    return f"{lanes[lane]} waits for {what}, which {whose}"


def folded(step: dict[str, Any]) -> str:
    """How many lines before a step are left out; nothing where none is."""
    count = step.get("skipped", 0)
    return f"… {count} line{'' if count == 1 else 's'}" if count else ""


class _Picture:
    """Time runs downwards; each call adds below what is drawn."""

    def __init__(self, trace: Trace) -> None:
        self._trace, self._steps = trace, trace["steps"]
        self._lanes: dict[str, str] = trace["lanes"]
        self._y = 4
        self._parts: list[str] = []
        self._left = _FIRST + _LANE * len(self._lanes)
        stuck = trace["outcome"]["kind"] == "deadlock"
        # The last step of each lane that is blocked in the end.
        blocked = {*self._steps[-1].get("blocked", {})} if stuck else set[str]()
        blocked |= {lane for lane, *_ in trace.get("circle") or ()}
        last = {step["t"]: number for number, step in enumerate(self._steps)}
        self._stuck = {last[lane] for lane in blocked if lane in last}

    def svg(self) -> str:
        spans: dict[str, tuple[int, int]] = {}
        before: tuple[int, int] | None = None
        for lane, numbers in _runs(self._steps):
            x, top = self._x(lane), self._y
            if before is not None:
                self._switch(before, x, top + 8)
            self._write(self._lanes[lane], "name")
            for number in numbers:
                self._step(number)
            bottom = self._y - 4
            self._parts.append(
                f'<rect class="bar" x="{x - 4}" y="{top + 1}" width="8" '
                f'height="{bottom - top}" rx="3"/>'
            )
            spans[lane] = spans.get(lane, (top, 0))[0], bottom
            before = x, bottom
            self._y += 6
        lines = [
            f'<line x1="{self._x(lane)}" x2="{self._x(lane)}" y1="{top}" y2="{bottom}"/>'
            for lane, (top, bottom) in spans.items()
        ]
        self._write(outcome(self._trace), "outcome")
        told = f"{self._trace['title']}. {outcome(self._trace)} The table tells each step."
        return (
            f'<svg viewBox="0 0 {_WIDTH} {self._y + 2}" role="img" '
            f'aria-label="{html.escape(told)}">{"".join(lines + self._parts)}</svg>'
        )

    def _step(self, number: int) -> None:
        step = self._steps[number]
        if folded(step):
            self._write(folded(step), "note")
        kind = "torn" if "torn" in step else "stuck" if number in self._stuck else "code"
        self._write(_does(step), kind)
        if "torn" in step:
            self._write(f"left in the middle of it, after {step['torn']}", "note")
        if "say" in step:
            self._write(step["say"], "say")
        if number in self._stuck:
            self._write("blocked forever from here", "note")

    def _x(self, lane: str) -> int:
        return _FIRST + _LANE * list(self._lanes).index(lane)

    def _switch(self, before: tuple[int, int], x: int, y: int) -> None:
        """The arrow by which the scheduler goes from one lane to the next."""
        from_x, from_y = before
        tip = x - 5 if x > from_x else x + 5
        back = tip - 5 if x > from_x else tip + 5
        self._parts.append(
            f'<path class="switch" d="M{from_x} {from_y}V{y}H{tip}"/>'
            f'<path class="tip" d="M{tip} {y}L{back} {y - 3}V{y + 3}Z"/>'
        )

    def _write(self, text: str, kind: str) -> None:
        left = 4 if kind == "outcome" else self._left
        room = int((_WIDTH - left - 8) / _WIDE.get(kind, _LETTER))
        indent = "" if kind in _WIDE else "  "
        lines = textwrap.wrap(text, room, subsequent_indent=indent)
        if kind in {"torn", "stuck", "outcome"}:
            self._parts.append(
                f'<rect class="{kind}" x="{left - 3}" y="{self._y}" '
                f'width="{_WIDTH - left + 2}" height="{_LINE * len(lines) + 2}" rx="3"/>'
            )
        for line in lines:
            self._y += _LINE
            x = left + _LETTER * (len(line) - len(line.lstrip()))
            self._parts.append(
                f'<text class="{kind}" x="{x:g}" y="{self._y - 3}">'
                f"{html.escape(line.strip())}</text>"
            )
        self._y += 2


def _runs(steps: list[dict[str, Any]]) -> list[tuple[str, list[int]]]:
    """The steps by their numbers, those of a lane together until another one takes over."""
    runs: list[tuple[str, list[int]]] = []
    for number, step in enumerate(steps):
        if not runs or runs[-1][0] != step["t"]:
            runs.append((step["t"], []))
        runs[-1][1].append(number)
    return runs


def _does(step: dict[str, Any]) -> str:
    """What a step does: a system call, or the line that runs."""
    return "the process is killed" if step.get("dies") else step.get("call") or step["code"]


def _table(trace: Trace) -> str:
    lanes: dict[str, str] = trace["lanes"]
    lines = [
        f"<table><caption>{html.escape(trace['title'])}</caption>",
        "<thead><tr>"
        + "".join(f'<th scope="col">{html.escape(each)}</th>' for each in lanes.values())
        + '<th scope="col">What happens</th></tr></thead><tbody>',
    ]
    shared: dict[str, str] = {}
    for step in trace["steps"]:
        cells = (f"<td>{_cell(step) if lane == step['t'] else ''}</td>" for lane in lanes)
        lines.append(f"<tr>{''.join(cells)}<td>{_happens(step, shared, lanes)}</td></tr>")
        shared = step.get("shared", {})
    # Not in a tfoot, which the Markdown for machines would part from the rows by a line.
    lines.append(
        f'<tr class="outcome"><td colspan="{len(lanes) + 1}">'
        f"{html.escape(outcome(trace))}</td></tr></tbody></table>"
    )
    return "\n".join(lines)


def _cell(step: dict[str, Any]) -> str:
    does = html.escape(_does(step))
    parts = [folded(step), does if step.get("dies") else f"<code>{does}</code>"]
    if "torn" in step:
        parts.append(f"left after <code>{html.escape(step['torn'])}</code>")
    return "<br>".join(filter(None, parts))


def _happens(step: dict[str, Any], before: dict[str, str], lanes: dict[str, str]) -> str:
    """The sentence of a step, what it changed of the shared state, and who waits now."""
    changed = [
        f"{html.escape(name)}: <code>{html.escape(' '.join(value.split()))}</code>"
        for name, value in step.get("shared", {}).items()
        if before.get(name) != value
    ]
    waits = [
        f"{html.escape(lanes[lane])} waits for {html.escape(what)}"
        for lane, what in step.get("blocked", {}).items()
    ]
    said = [html.escape(step["say"])] if "say" in step else []
    return "<br>".join([*said, *changed, *waits])
