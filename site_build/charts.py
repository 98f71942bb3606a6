"""The figures as pictures: each group a dot plot on a logarithmic axis, as inline SVG.

Drawn here rather than by a plotting library, since the lines and letters take the page's
colours, light or dark, and its width, down to a phone's. The text alternative says the same.
"""

import html
import math
from pathlib import Path
from typing import TYPE_CHECKING

from site_build.records import EVIDENCE, figures_of
from tests.kit.catalogue import components

if TYPE_CHECKING:
    from benchmarks.harness import CaseFigures, GroupFigures

PAGE = EVIDENCE / "charts.md"
_WIDTH, _ROW, _LEFT, _RIGHT = 480, 38, 8, 472
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def page(titles: dict[str, str]) -> str:
    """The page of all charts; other pages include its sections, one for each component."""
    parts = [
        "---\ntitle: Charts\ndescription: Every ratio that the benchmarks measure, drawn for "
        "the components, their peers and their floors.\nsearch:\n  exclude: true\n---\n# Charts",
        "Each row is a case, its dot the median of the rounds, its line the range from the 10th to "
        "the 90th percentile.\nThe axis is logarithmic: how many times as long as the floor, which "
        "stands at 1. Further left is faster.\nThe figures themselves, and what each case lacks, "
        "stand on the page of the component, under *Tuning*.",
    ]
    for component in components():
        figures = figures_of(component)
        if figures is not None and figures["groups"]:
            name = Path(component).name
            charts = "\n\n".join(chart(group) for group in figures["groups"])
            parts.append(f"## [{titles[component]}](../{component}.md#tuning) {{ #{name} }}")
            parts.append(f"<!-- --8<-- [start:{name}] -->\n{charts}\n<!-- --8<-- [end:{name}] -->")
    return "\n\n".join(parts) + "\n"


def chart(group: "GroupFigures") -> str:
    """One group of cases as an SVG with its caption."""
    cases = sorted(group["cases"], key=lambda case: case["ratio_median"])
    low, high = _ends(cases)
    height = _ROW * len(cases) + 22
    rows = "".join(_row(case, number, low, high, group) for number, case in enumerate(cases))
    axis = "".join(_tick(tick, low, high, height) for tick in _TICKS if low <= tick <= high)
    told = "; ".join(f"{case['name']} {_number(case['ratio_median'])}" for case in cases)
    title = html.escape(f"{group['title']}, as a multiple of {group['floor']}".replace("`", ""))
    return (
        '<figure class="chart" markdown="0">'
        f"<figcaption>{title}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{html.escape(told.replace("`", ""))}">{axis}{rows}</svg></figure>'
    )


def _ends(cases: list["CaseFigures"]) -> tuple[float, float]:
    low = min(1.0, *(case["ratio_low"] for case in cases))
    high = max(2.0, *(case["ratio_high"] for case in cases))
    return max(low, 0.01) / 1.15, high * 1.15


def _x(ratio: float, low: float, high: float) -> float:
    share = (math.log(max(ratio, low)) - math.log(low)) / (math.log(high) - math.log(low))
    return round(_LEFT + share * (_RIGHT - _LEFT), 1)


def _row(case: "CaseFigures", number: int, low: float, high: float, group: "GroupFigures") -> str:
    top = _ROW * number + 14
    y = top + 11
    left, middle, right = (
        _x(case[key], low, high) for key in ("ratio_low", "ratio_median", "ratio_high")
    )
    is_floor = case["name"] == group["floor"]
    figure = "the floor" if is_floor else _number(case["ratio_median"])
    kind = "ours" if case["ours"] else "floor" if is_floor else "peer"
    label = html.escape(f"{case['name']}: {figure}".replace("`", ""))
    return (
        f'<g class="{kind}"><text x="{_LEFT}" y="{top}">{label}</text>'
        f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>'
        f'<circle cx="{middle}" cy="{y}" r="4.5"/></g>'
    )


def _tick(tick: float, low: float, high: float, height: int) -> str:
    x = _x(tick, low, high)
    kind = "one" if tick == 1 else "tick"
    return (
        f'<line class="{kind}" x1="{x}" x2="{x}" y1="0" y2="{height - 16}"/>'
        f'<text class="axis" x="{x}" y="{height - 3}">{tick:g}</text>'
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
