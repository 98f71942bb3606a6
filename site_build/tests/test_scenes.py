"""A scene as a figure, and the sections that pages include."""

import html
import json
import re
from typing import Any

import pytest

from site_build import lab, machines, scenes, sequence
from tests.kit import ROOT
from tests.kit.catalogue import components
from tests.scenes import scenes as all_scenes


def step(lane: str, code: str, **more: Any) -> dict[str, Any]:
    return {"t": lane, "code": code, "shared": {"n": "0"}, **more}


LONG = "self._n = seen + 1  # " + "a long remark " * 5
LOST: dict[str, Any] = {
    "title": "lost & found",
    "lanes": {"T1": "reader", "T2": "writer"},
    "twin": "a digest, which a page has no use for",
    "source": {"a.py": [{"from": 1, "lines": ["return", "# isn't it?", "return"]}]},
    "steps": [
        step("T1", "self._n += 1", torn="LOAD_ATTR _n", skipped=3),
        step("T2", "self._n += 1", shared={"n": "1"}, say="It writes <1>.", skipped=1),
        step("T1", LONG, shared={"n": "1"}),
        step("T1", "return", shared={"n": "1"}, file="a.py", line=3),
    ],
    "outcome": {"kind": "exception", "text": "AssertionError: 1 < 2, isn't it?"},
}
DEADLOCK = LOST | {
    "steps": [step("T1", "with a:"), step("T2", "with b:", blocked={"T2": "a"})],
    "outcome": {"kind": "deadlock", "text": "T2 is blocked"},
    "circle": [["T2", "a", "T1"], ["T1", "b", None]],
}
CRASH = LOST | {
    "lanes": {"P1": "first process", "P2": "after the restart"},
    "steps": [
        step("P1", "os.rename(a, b)", call="rename a → b"),
        step("P1", "os.rename(a, b)", call="dies", dies=True),
        step("P2", "os.unlink(b)", call="unlink b"),
    ],
}


def parts(trace: dict[str, Any]) -> tuple[str, str]:
    """The picture and the table."""
    picture, _, table = sequence.draw(trace).partition("<details>")
    return picture, table


def texts(picture: str, kind: str) -> list[str]:
    return re.findall(rf'<text class="{kind}"[^>]*>([^<]+)<', picture)


def test_a_losing_interleaving_is_drawn_as_it_came_about() -> None:
    picture, table = parts(LOST)
    assert texts(picture, "name") == ["reader", "writer", "reader"]
    assert texts(picture, "torn") == ["self._n += 1"]
    notes = ["… 3 lines", "left in the middle of it, after LOAD_ATTR _n", "… 1 line"]
    assert texts(picture, "note") == notes
    assert texts(picture, "say") == ["It writes &lt;1&gt;."]
    assert "The check fails: AssertionError: 1 &lt; 2" in picture
    places = [float(y) for y in re.findall(r'<text[^>]* y="([\d.]+)"', picture)]
    assert places == sorted(set(places)), "time runs downwards, and no line lies on another"
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", table)
    assert [bool(writer) for _, writer, _ in rows] == [False, True, False, False]
    assert (
        rows[0][0]
        == "… 3 lines<br><code>self._n += 1</code><br>left after <code>LOAD_ATTR _n</code>"
    )
    assert rows[1][2] == "It writes &lt;1&gt;.<br>n: <code>1</code>"
    assert rows[3][2] == "", "nothing has changed"
    assert "<tfoot" not in table, "the Markdown for machines would cut the table there"


def test_a_deadlock_says_who_waits_for_whom() -> None:
    picture, table = parts(DEADLOCK)
    assert texts(picture, "stuck") == ["with a:", "with b:"]
    picture, _ = parts(DEADLOCK | {"circle": []})
    assert texts(picture, "stuck") == ["with b:"], "only what is known to be blocked is shown so"
    told = "writer waits for a, which reader holds; reader waits for b, which nobody can give."
    assert f"Deadlock: {told}" in table
    assert "writer waits for a</td>" in table


def test_a_crash_shows_system_calls_and_the_death() -> None:
    picture, table = parts(CRASH)
    assert texts(picture, "code") == ["rename a → b", "the process is killed", "unlink b"]
    assert "<td>the process is killed</td>" in table


def test_the_figure_holds_its_trace_for_the_player_alone() -> None:
    """It is an attribute that nothing in it can end, and no text for search or for machines."""
    drawn = sequence.draw(LOST)
    (data,) = re.findall(r"data-trace='([^']*)'", drawn)
    assert not set(data) & set("<>&\n")
    kept = json.loads(html.unescape(data))
    assert kept.pop("source") == {"a.py": [{"from": 1, "lines": [0, 1, 0]}]}
    assert kept.pop("texts") == ["return", "# isn't it?"], "each line once"
    assert "code" not in kept["steps"][-1], "it is in the source"
    kept["steps"][-1]["code"] = "return"
    assert kept == {key: value for key, value in LOST.items() if key not in {"source", "twin"}}
    assert "<script" not in drawn, "instant navigation would execute it"
    prose = machines._prose(drawn, "https://example.org/page.html")
    assert "data-trace" not in prose
    assert "<svg" not in prose
    assert "AssertionError: 1 &lt; 2" in prose


def test_there_is_a_section_for_each_component_file_and_scene() -> None:
    text = scenes.render()
    found = re.findall(r"^<!-- --8<-- \[start:(.+)\] -->$", text, re.MULTILINE)
    assert len(found) == len(set(found))
    wanted = {component.partition("/")[2] for component in components()}
    wanted |= {each.of for each in all_scenes().values()}
    wanted |= {each.id for each in all_scenes().values() if each.page}
    assert set(found) == wanted


def section(name: str) -> str:
    return scenes.render().partition(f"[start:{name}] -->\n")[2].partition("\n<!-- --8<--")[0]


def test_a_page_shows_one_scene_folds_the_others_and_ends_with_the_lab(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lab, "is_there", lambda: True)  # also where npm could not be reached
    for name in {each.of for each in all_scenes().values()}:
        mine = [each for each in all_scenes().values() if each.of == name]
        shown = [each for each in mine if each.page]
        text = section(name)
        assert text.count("<figure") == len(shown)
        assert text.count('<details class="scene"') == max(0, len(shown) - 1)
        has_lab = any(each.lab for each in mine)
        assert text.rstrip().endswith("</div>") == has_lab
        assert (f'data-lab="{name}"' in text) == has_lab


def test_a_component_without_a_scene_says_so() -> None:
    assert section("event") == "No losing schedule is recorded yet."


def test_a_guarantee_has_the_figures_that_are_about_it() -> None:
    for each in all_scenes().values():
        if each.guarantee:
            assert scenes.figure(each) in scenes.of_guarantee(each.guarantee)
    assert scenes.of_guarantee("XX-1") == []


def test_what_a_page_includes_is_there() -> None:
    text = scenes.render()
    for path in (ROOT / "docs").rglob("*.md"):
        page = path.read_text(encoding="utf-8")
        for name in re.findall(r'"docs/evidence/diagrams\.inc:(.+)"', page):
            assert f"[start:{name}]" in text, f"{path.name} includes {name}"
