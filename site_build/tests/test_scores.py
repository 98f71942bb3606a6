"""The mutation scores: the page shows every result, and refuses what cannot be right."""

from pathlib import Path
from typing import Any

import pytest

from site_build import scores
from tests.kit.catalogue import components, digests, title

COMPONENT = components()[0]
CHANGE = ["Thing.get", "a < b", "a <= b"]


def result(**changed: Any) -> dict[str, Any]:
    survivor = {"status": "survived"} | dict(
        zip(("function", "before", "after"), CHANGE, strict=True)
    )
    record = {
        "component": COMPONENT,
        "date": "2026-01-02",
        "files": digests(COMPONENT),
        "python": "CPython",
        "tool": "mutmut",
        "without": [],
        "mutants": 8,
        "killed": 5,
        "timeouts": 2,
        "survived": 1,
        "no_tests": 0,
        "survivors": [survivor],
    }
    return scores.checked(record | changed)


def explain(folder: Path, *more: str) -> None:
    lines = ["[[explained]]", "why = 'No b equals a.'", f"changes = [{CHANGE}]", *more]
    path = folder / f"{Path(COMPONENT).name}.toml"
    path.write_text("\n".join(lines), encoding="utf-8")


def page(folder: Path, **changed: Any) -> str:
    titles = {component: title(component) for component in components()}
    return scores.page(titles, {COMPONENT: result(**changed)}, folder)


def test_the_page_shows_the_score_and_each_survivor(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert "| 8 | 5 | 2 | 0 | 1 | 0 | 87.5 % |" in text
    assert "- a < b\n+ a <= b" in text
    assert scores.NOT_EXPLAINED in text
    assert "earlier version" not in text


def test_an_explanation_is_beside_its_survivor(tmp_path: Path) -> None:
    explain(tmp_path)
    text = page(tmp_path)
    assert "| 8 | 5 | 2 | 0 | 1 | 0 | 87.5 % |" in text
    assert "No b equals a.\n\n```diff\n@@ Thing.get @@" in text
    assert scores.NOT_EXPLAINED not in text


def test_a_mutant_that_no_test_could_notice_is_not_in_the_score(tmp_path: Path) -> None:
    explain(tmp_path, "equivalent = true")
    assert "| 8 | 5 | 2 | 1 | 0 | 0 | 100.0 % |" in page(tmp_path)
    assert "notice 100.0 % of 7 faults" in scores.sentence(result(), tmp_path)


def test_a_score_of_other_sources_is_said_to_be_old(tmp_path: Path) -> None:
    assert "| 2026-01-02, of an earlier version |" in page(tmp_path, files={})
    assert "(of an earlier version)" in scores.sentence(result(files={}), tmp_path)


@pytest.mark.parametrize("changed", [{"killed": 6}, {"survivors": []}])
def test_a_result_that_cannot_be_right_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="do not add up"):
        result(**changed)


def test_each_explanation_is_of_a_survivor() -> None:
    """In current results; an older one says on its page that it is of an earlier version."""
    for component, found in scores.results().items():
        if scores.is_current(found):
            survivors = set(map(scores.change, found["survivors"]))
            gone = scores.explanations(component).keys() - survivors
            assert not gone, f"these survive no longer: take them out of {component}'s .toml"
