"""The comparison is as recent as its code, and red only where it may be."""

import ast
from pathlib import Path
from typing import Any

import pytest

from peers.claims import SAYS, Claim, audits, claims
from peers.results import facts, read
from peers.running import FAMILIES, RESULTS, fingerprint
from site_build.compared import SHORT_CHECKS, SHORT_ROWS, Table, verdict

PEERS = RESULTS.parent
RECORDED = [family for family in FAMILIES if read(family)]
each_family = pytest.mark.parametrize("family", RECORDED)


def test_every_family_is_recorded() -> None:
    assert list(FAMILIES) == RECORDED


def rows_of(family: str) -> dict[str, Path]:
    """The rows that the adapters define, by slug, without importing their libraries."""
    found = {}
    for file in sorted((PEERS / "adapters" / family).glob("[!_]*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and any(
                isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "name"
                for each in node.body
            ):
                found[f"{file.stem}-{node.name}"] = file
    return found


def checks_of(family: str) -> list[str]:
    """The checks that are registered."""
    text = (PEERS / "checks" / f"{family}.py").read_text(encoding="utf-8")
    return [
        node.name
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(each).startswith("FAMILY.check") for each in node.decorator_list)
    ]


@each_family
def test_each_row_and_check_was_recorded(family: str) -> None:
    record = read(family)
    assert set(record["rows"]) == set(rows_of(family))
    assert list(record["checks"]) == checks_of(family)
    for slug, row in record["rows"].items():
        assert list(row["cells"]) == checks_of(family), slug


@each_family
def test_no_cell_is_older_than_its_adapter_or_check(family: str) -> None:
    old = [
        f"{slug} {check}"
        for slug, row in read(family)["rows"].items()
        for check, cell in row["cells"].items()
        if cell["code"] != fingerprint(family, row["head"]["library"], check)
    ]
    assert not old, f"run `nox -s peers -- {family}`: {old}"


def test_another_adapter_or_check_is_another_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {fingerprint("caches", "cachetools", check) for check in checks_of("caches")}
    assert len(now) == len(checks_of("caches"))
    assert fingerprint("caches", "cacheout", "single_flight") not in now


@each_family
def test_a_failure_can_be_seen_without_the_harness(family: str) -> None:
    record = read(family)
    for slug, row in record["rows"].items():
        for check, cell in row["cells"].items():
            if cell["outcome"] == "fails":
                assert cell["failed"][1] >= 10, f"{slug} {check} was not run ten times"
                assert cell.get("shows"), f"{slug} {check} has no reproduction that fails"
                assert len(cell["program"].splitlines()) <= 20, f"{slug} {check}"
            assert cell["outcome"] != "error", f"{slug} {check}: {cell['seen']}"


@each_family
def test_each_adapter_is_sound(family: str) -> None:
    for slug, row in read(family)["rows"].items():
        assert row["cells"]["adapter_sound"]["outcome"] == "holds", slug


@each_family
def test_claims_and_audits_are_of_what_is_there(family: str) -> None:
    rows, checks = rows_of(family), checks_of(family)
    for claim in claims(family):
        assert claim.says in SAYS, claim
        assert set(claim.rows) <= set(rows), claim
        assert set(claim.checks) <= set(checks), claim
        assert claim.sentence, claim
        assert claim.address.startswith("https://"), claim
    assert set(audits(family)) <= set(rows)


@each_family
def test_what_is_red_was_read_by_two(family: str) -> None:
    table = Table(family)
    for row in table.rows:
        for check in table.checks:
            if table.verdict(row, check) == "broken":
                assert table.audits[row].searched, f"{row}: no tracker was searched"


CLAIM = Claim((), (), "yes", "It is.", "https://x", "installed:x:y", "2026-11-30")
NO = Claim((), (), "no", "It is not.", "https://x", "installed:x:y", "2026-11-30")


@pytest.mark.parametrize(
    ("outcome", "claim", "plain", "audited", "kind"),
    [
        ("holds", None, False, False, "holds"),
        ("not offered", CLAIM, True, True, "none"),
        ("not explored", CLAIM, True, True, "open"),
        ("no result", CLAIM, True, True, "open"),
        ("fails", CLAIM, False, True, "broken"),
        ("fails", CLAIM, False, False, "unread"),
        ("fails", None, True, True, "broken"),
        ("fails", None, False, True, "unpromised"),
        ("fails", NO, True, True, "stated"),
    ],
)
def test_only_a_broken_promise_is_red(
    outcome: str, claim: Claim | None, plain: bool, audited: bool, kind: str
) -> None:
    assert verdict({"outcome": outcome}, claim, plain=plain, audited=audited) == kind


def test_home_shows_what_is_there() -> None:
    table = Table("caches")
    assert set(SHORT_ROWS) <= set(table.rows)
    assert set(SHORT_CHECKS) <= set(table.checks)


@each_family
def test_ours_fails_nothing_that_it_promises(family: str) -> None:
    table = Table(family)
    for row, found in table.rows.items():
        for check in table.checks if found["head"]["ours"] else ():
            assert table.verdict(row, check) not in ("broken", "unread", "unpromised"), (row, check)


def test_each_package_has_its_facts() -> None:
    packages: set[Any] = {
        row["head"]["package"] for family in RECORDED for row in read(family)["rows"].values()
    }
    assert packages - {None} == set(facts()["packages"]), "run `python -m peers.facts`"
