"""A losing interleaving as a sequence diagram: inline SVG with its table as the text alternative.

Both are drawn from the explorer's own trace, so neither can differ from what was found. The
lanes stand close together at the left and the code to their right, in lines of their own: so
it is read at a phone's width, where lanes with the code inside them would be too narrow.
"""

import html
import re
import textwrap
from typing import Any

_WIDTH, _LANE, _FIRST, _LINE = 420, 20, 12, 15
_LETTER, _BOLD = 6.3, 7.5  # how wide: code, and what is set in bold

# A thread, the lines that it executes until another takes over, and whether it leaves the last
# one in the middle.
_Run = tuple[str, list[str], bool]


def draw(diagram: dict[str, Any]) -> str:
    """The figure of one trace: title, picture, and the same as a table."""
    runs: list[_Run] = [(thread, codes, bool(torn)) for thread, codes, torn in diagram["runs"]]
    lanes = list(dict.fromkeys(thread for thread, _, _ in runs))
    return "\n".join(
        [
            '<figure class="sequence" markdown="0">',
            f"<figcaption>{html.escape(diagram['title'])}</figcaption>",
            _Picture(lanes, runs, diagram).svg(),
            "<details><summary>The same as a table</summary>",
            '<div class="interleaving" tabindex="0">',
            _table(lanes, runs, diagram),
            "</div></details></figure>",
        ]
    )


class _Picture:
    """Time runs downwards; each call adds below what is drawn."""

    def __init__(self, lanes: list[str], runs: list[_Run], diagram: dict[str, Any]) -> None:
        self._lanes, self._runs, self._diagram = lanes, runs, diagram
        self._y = 4
        self._parts: list[str] = []
        self._left = _FIRST + _LANE * len(lanes)
        # "T1(waiter) blocked on ...", "... blocked on join(T1(waiter))": both have not ended.
        details = diagram["details"] if diagram["outcome"] == "deadlock" else ""
        self._blocked = set(re.findall(r"\b(T\d+)\(", details))

    def svg(self) -> str:
        spans: dict[str, tuple[int, int]] = {}
        before: tuple[int, int] | None = None
        for number, (thread, codes, is_torn) in enumerate(self._runs):
            x = self._x(thread)
            top = self._y
            if before is not None:
                self._switch(before, x, top + 8)
            self._write([thread], "name")
            later = [run for run in self._runs[number + 1 :] if run[0] == thread]
            stuck = not later and thread.split()[0] in self._blocked
            for place, code in enumerate(codes):
                is_last = place == len(codes) - 1
                torn = is_last and is_torn
                self._write([code], "torn" if torn else "stuck" if is_last and stuck else "code")
                if torn:
                    self._write(["left in the middle of it"], "note")
                if is_last and stuck:
                    self._write(["blocked forever from here"], "note")
            bottom = self._y - 4
            self._parts.append(
                f'<rect class="bar" x="{x - 4}" y="{top + 1}" width="8" '
                f'height="{bottom - top}" rx="3"/>'
            )
            spans[thread] = spans.get(thread, (top, 0))[0], bottom
            before = x, bottom
            self._y += 6
        lines = [
            f'<line x1="{self._x(lane)}" x2="{self._x(lane)}" y1="{top}" y2="{bottom}"/>'
            for lane, (top, bottom) in spans.items()
        ]
        self._write([_outcome(self._diagram)], "outcome")
        told = f"{self._diagram['title']}. {_outcome(self._diagram)} The table tells each step."
        return (
            f'<svg viewBox="0 0 {_WIDTH} {self._y + 2}" role="img" '
            f'aria-label="{html.escape(told)}">{"".join(lines + self._parts)}</svg>'
        )

    def _x(self, lane: str) -> int:
        return _FIRST + _LANE * self._lanes.index(lane)

    def _switch(self, before: tuple[int, int], x: int, y: int) -> None:
        """The arrow by which the scheduler goes from one lane to the next."""
        from_x, from_y = before
        tip = x - 5 if x > from_x else x + 5
        back = tip - 5 if x > from_x else tip + 5
        self._parts.append(
            f'<path class="switch" d="M{from_x} {from_y}V{y}H{tip}"/>'
            f'<path class="tip" d="M{tip} {y}L{back} {y - 3}V{y + 3}Z"/>'
        )

    def _write(self, texts: list[str], kind: str) -> None:
        outcome = kind == "outcome"
        left = 4 if outcome else self._left
        room = int((_WIDTH - left - 8) / (_BOLD if kind in {"name", "outcome"} else _LETTER))
        for text in texts:
            lines = textwrap.wrap(text, room, subsequent_indent="" if outcome else "  ")
            if kind in {"torn", "stuck", "outcome"}:
                self._parts.append(
                    f'<rect class="{kind}" x="{left - 3}" y="{self._y}" '
                    f'width="{_WIDTH - left + 2}" height="{_LINE * len(lines) + 2}" rx="3"/>'
                )
            for line in lines:
                self._y += _LINE
                indent = _LETTER * (len(line) - len(line.lstrip()))
                self._parts.append(
                    f'<text class="{kind}" x="{left + indent:g}" y="{self._y - 3}">'
                    f"{html.escape(line.strip())}</text>"
                )
        self._y += 2


def _table(lanes: list[str], runs: list[_Run], diagram: dict[str, Any]) -> str:
    lines = [
        f"<table><caption>{html.escape(diagram['title'])}</caption>",
        "<thead><tr>"
        + "".join(f'<th scope="col">{html.escape(lane)}</th>' for lane in lanes)
        + "</tr></thead><tbody>",
    ]
    for thread, codes, _ in runs:
        cell = "<br>".join(f"<code>{html.escape(code)}</code>" for code in codes)
        cells = (f"<td>{cell}</td>" if lane == thread else "<td></td>" for lane in lanes)
        lines.append("<tr>" + "".join(cells) + "</tr>")
    outcome = html.escape(_outcome(diagram))
    # Not in a tfoot, which the Markdown for machines would part from the rows by a line.
    lines.append(
        f'<tr class="outcome"><td colspan="{len(lanes)}">{outcome}</td></tr></tbody></table>'
    )
    return "\n".join(lines)


def _outcome(diagram: dict[str, Any]) -> str:
    if diagram["outcome"] == "deadlock":
        return "Deadlock: what has not ended is blocked forever."
    return f"The check fails: {diagram['details']}" if diagram["details"] else "The check fails."
