"""The implementations of the page about one's own: what it shows of them is so."""

import re

import pytest

from tests.kit import ROOT
from tests.recipes import own

PAGE = ROOT / "docs" / "guides" / "own_implementation" / "examples.md"


def test_their_contract_is_kept() -> None:
    pytest.importorskip("cachetools", reason="the page's cachetools is not installed")
    with own.project() as folder:
        options = ("-q", "-p", "no:cacheprovider", "-W", "error", "-rs", "own_test_caches.py")
        done = own.run(folder, "pytest", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    skipped = re.findall(r"^SKIPPED \[\d+\] \S+ (.+)$", done.stdout, re.MULTILINE)
    lacks = ("keys", "items", "cleanup_expired")
    assert sorted(skipped) == sorted(f"not offered: {name}" for name in lacks)


def test_the_page_shows_a_report_of_each() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, attribute in own.ADAPTERS.items():
        assert f'--8<-- "docs/guides/recipes/{name}.txt"' in text
        first = (own.RECIPES / f"{name}.txt").read_text(encoding="utf-8").splitlines()[0]
        assert f"--adapter {name}:{attribute} --as ttl_cache" in first


def test_the_page_says_what_the_reports_say() -> None:
    """Each "TC-6 is *BROKEN*" below a report is a row of it."""
    checked = 0
    for section in PAGE.read_text(encoding="utf-8").split("\n## "):
        if (shown := re.search(r"recipes/(own_\w+)\.txt", section)) is not None:
            report = own.words_of((own.RECIPES / f"{shown[1]}.txt").read_text(encoding="utf-8"))
            assert len(report) == 13
            for name, word in re.findall(r"([A-Z]{2}-\d+)(?: is)? \*([\w ]+)\*", section):
                assert report[name] == word, f"{shown[1]}: {name} is {report[name]}"
                checked += 1
    assert checked


def test_a_report_says_what_the_tool_says_now() -> None:
    """Of one guarantee, which takes seconds and no newer Python."""
    kept = own.words_of((own.RECIPES / "own_dict_cache.txt").read_text(encoding="utf-8"))
    now = own.words_of(own.prove("own_dict_cache", "--guarantee", "TC-7"))
    assert now == {"TC-7": kept["TC-7"]} == {"TC-7": "BROKEN"}
