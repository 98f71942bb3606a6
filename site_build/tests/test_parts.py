"""How the site shows parts, and counts what is known of them: on a made-up project."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from site_build import evidence, mutation, pages, scores
from site_build.versions import SITE, feed
from tests.tools.helpers import sharing_project


@pytest.fixture(autouse=True)
def _made_up(tmp_path: Path) -> Iterator[None]:
    with sharing_project(tmp_path):
        yield


@pytest.mark.parametrize("component", ["queues/one", "queues/two"])
def test_the_page_names_the_part_and_links_to_its_source(component: str) -> None:
    shown = pages._file(component)
    assert shown["needs"] == "the standard library and its part `reference_impl/queues/_shared.py`"
    text = pages._JINJA.get_template("file.md.j2").render(shown)
    link = '<a id="_shared" href="../src/queues/_shared.py" download>'
    name = "<code>reference_impl/queues/_shared.py</code>"
    assert f"| Part, version 1.0.0 | {link}{name}</a>" in text
    assert f'| File | <a href="../src/{component}.py" download>' in text


def test_several_needs_are_a_sentence() -> None:
    assert pages._listed(["this"]) == "this"
    assert pages._listed(["this", "that", "more"]) == "this, that and more"


def test_the_feed_leads_to_a_page_that_is_there() -> None:
    entry: Any = {"date": "2026-11-23", "sha256": "x", "changes": "New."}
    text = feed({"queues/_shared": {"1.0.0": entry}, "queues/two": {"1.0.0": entry}})
    assert f'href="{SITE}changes.html"' in text
    assert f'href="{SITE}queues/two.html"' in text
    assert f"<id>{SITE}changes.html#queues/_shared-1.0.0</id>" in text
    assert "_shared.html" not in text


def test_coverage_counts_the_part() -> None:
    def file(covered: int, lines: int) -> dict[str, Any]:
        counts = {"covered_lines": covered, "num_statements": lines}
        counts |= {"covered_branches": covered, "num_branches": lines}
        return {"summary": counts | {"percent_covered_display": "50"}}

    files = {
        "reference_impl/queues/two.py": file(3, 4),
        "reference_impl/queues/_shared.py": file(5, 7),
    }
    record: dict[str, Any] = {"component": "queues/two"}
    meta = {"timestamp": "2026-11-30T00:00:00", "version": "7"}
    evidence.merge_coverage(record, {"files": files, "meta": meta})
    assert record["coverage"]["lines"] == [8, 11]
    assert record["coverage"]["files"].keys() == files.keys()


def test_the_mutants_of_a_part_count_where_it_is_shown() -> None:
    assert mutation._mutated("queues/one") == ["queues/one"]
    assert mutation._mutated("queues/two") == ["queues/two", "queues/_shared"]
    record: dict[str, Any] = {"component": "queues/two", "without": [], "survivors": []}
    assert "its part `_shared`, on which the tests of `one` run, too" in scores._survivors(
        record, "Two", Path()
    )


def test_all_tests_of_components_that_share_a_part_run_on_its_mutants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutation, "ROOT", tmp_path)
    settings = '[tool.executable-guarantees.mutation]\n"queues/one" = { without = ["slow"] }\n'
    (tmp_path / "pyproject.toml").write_text(settings)
    for name in ("one", "two"):
        place = tmp_path / "tests" / "queues" / f"test_{name}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()

    class Copied(Exception):
        pass

    def copy(work: Path, modules: list[str], tests: list[str], without: list[str]) -> None:
        raise Copied(modules, tests, without)

    monkeypatch.setattr(mutation, "_copy", copy)
    with pytest.raises(Copied) as caught:
        mutation.run("queues/two")
    modules, tests, without = caught.value.args
    assert modules == ["queues/two", "queues/_shared"]
    assert tests == ["tests/queues/test_two.py", "tests/queues/test_one.py"]
    assert without == ["slow"]
    with pytest.raises(Copied) as caught:
        mutation.run("queues/one")
    assert caught.value.args == (["queues/one"], ["tests/queues/test_one.py"], ["slow"])
