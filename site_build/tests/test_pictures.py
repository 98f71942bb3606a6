"""The generated charts and the home page's matrix say what their data say."""

import re
from typing import TYPE_CHECKING, Any

import pytest

from site_build import charts, matrix, records, states
from site_build.evidence import explored
from tests.kit import ROOT
from tests.kit.catalogue import components, promises, title

if TYPE_CHECKING:
    from benchmarks.harness import GroupFigures


def case(name: str, ratio: float, *, ours: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "ratio_low": ratio / 2,
        "ratio_median": ratio,
        "ratio_high": ratio * 2,
        "ours": ours,
    }


def group(*cases: dict[str, Any]) -> "GroupFigures":
    found: Any = {"title": "get & set", "floor": "a <floor>", "cases": list(cases)}
    return found  # type: ignore[no-any-return]


def test_a_chart_tells_in_words_what_it_shows() -> None:
    svg = charts.chart(group(case("a <floor>", 1.0), case("ours", 1.5, ours=True)))
    assert 'aria-label="a &lt;floor&gt; 1.00; ours 1.50"' in svg
    assert "<figcaption>get &amp; set, as a multiple of a &lt;floor&gt;</figcaption>" in svg


def test_a_chart_places_what_is_slower_further_to_the_right() -> None:
    svg = charts.chart(group(case("slow", 40.0), case("quick", 0.2), case("a <floor>", 1.0)))
    places = [float(x) for x in re.findall(r'cx="([\d.]+)"', svg)]
    assert len(places) == 3
    assert places == sorted(places), "the quickest comes first, at the left"
    assert all(0 <= x <= 480 for x in map(float, re.findall(r'x[12]="([\d.-]+)"', svg)))


def test_every_group_is_drawn() -> None:
    drawn = charts.page({component: title(component) for component in components()})
    measured = [figures for each in components() if (figures := records.figures_of(each))]
    groups = [group for figures in measured for group in figures["groups"]]
    assert drawn.count("<svg ") == len(groups) > 0


def test_figures_survive_their_compact_form() -> None:
    for component in components():
        figures = records.figures_of(component)
        if figures is not None:
            assert records.unpack(component, records.pack(figures)) == figures


@pytest.mark.parametrize("component", [name for name in components() if promises(name)])
def test_the_matrix_has_a_row_that_is_the_components(component: str) -> None:
    found = records.read_all()
    text = matrix.render(found, {each: title(each) for each in found})
    rows = [line for line in text.splitlines() if line.startswith(f"| [{title(component)}](")]
    assert len(rows) == 1
    assert set(re.findall(r"\[([A-Z]{2}-\d+)\]", rows[0])) <= set(promises(component))
    assert f"[{explored(found[component])['all']:,}](" in rows[0]


@pytest.mark.parametrize("name", states.lives())
def test_a_state_diagram_names_what_the_component_has(name: str) -> None:
    assert states.faults(states.lives()[name]) == []


def test_a_state_diagram_that_names_something_else_is_found() -> None:
    life = states.lives()["memory_queue"]
    long = "too much to be said in one line at a phone's width, whatever it is"
    wrong: states.Life = {
        **life,
        "states": [*life["states"], "`sleeping`"],
        "steps": [*life["steps"], ("`failed`", "gone", "`give_up`"), ("*", "`failed`", long)],
    }
    assert states.faults(wrong) == [
        "`give_up`: gone is none of the states",
        f"{long}: too long, shorten it",
        "no step comes from or to `sleeping`",
        "queues/memory_queue has no sleeping",
        "queues/memory_queue has no give_up",
    ]


def test_each_step_of_a_state_diagram_is_a_row_and_an_arrow() -> None:
    for life in states.lives().values():
        drawn = states.draw(life)
        assert drawn.count('class="tip"') == len(life["steps"])
        assert drawn.count("<tr>") == len(life["steps"]) + 1


def test_every_state_diagram_is_on_a_page_of_its_component() -> None:
    for name, life in states.lives().items():
        page = (ROOT / "docs" / f"{life['component']}.md").read_text(encoding="utf-8")
        assert f'--8<-- "docs/evidence/states.inc:{name}"' in page
