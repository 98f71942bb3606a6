"""reference_impl/versions.json and the feed: current, and never losing an old version."""

import hashlib
import json
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from reference_impl._copying import Component, Entry, modules
from reference_impl._history import apply
from site_build import history
from site_build.history import HISTORY, in_git, record
from site_build.history import written as history_written
from site_build.versions import (
    ATOM,
    VERSIONS,
    current,
    feed,
    listed,
    main,
    merge,
    read_changelog,
    written,
)

CHANGELOG = """\
# Changes

In words.

## caches/store

### 1.1.0 (2027-01-05)

- Faster.
- Smaller.

### 1.0.0 (2026-11-23)

The first version.

## queues/gone

### 1.0.0 (2026-11-23)

The first version.
"""


def entry(sha256: str) -> Entry:
    return {"date": "2026-11-23", "sha256": sha256, "changes": "The first version."}


OLD = {"caches/store": {"1.0.0": entry("old")}, "queues/gone": {"1.0.0": entry("gone")}}
STORE = Component("caches/store", "a store (Store)", "1.1.0", "2027-01-05", b"source")
DIGEST = hashlib.sha256(STORE.source).hexdigest()


def test_the_page_lists_the_newest_version_and_folds_the_earlier_ones() -> None:
    text = listed(read_changelog(CHANGELOG))
    assert text.index("## caches/store") < text.index("### 1.1.0 (2027-01-05)")
    newest, folded = text.split("<details", maxsplit=1)
    assert "- Faster.\n- Smaller." in newest
    assert "<summary>1.0.0 (2026-11-23)</summary>\n\nThe first version." in folded


def test_the_file_is_as_generated() -> None:
    assert VERSIONS.read_text(encoding="utf-8") == written(current()), (
        "reference_impl/versions.json is stale: run `python -m site_build.versions`"
    )


def test_a_new_version_keeps_the_old_one_and_what_is_gone() -> None:
    merged = merge(OLD, read_changelog(CHANGELOG), {STORE.path: STORE})
    assert merged == {
        "caches/store": {
            "1.1.0": {"date": "2027-01-05", "sha256": DIGEST, "changes": "- Faster.\n- Smaller."},
            "1.0.0": entry("old"),
        },
        "queues/gone": {"1.0.0": entry("gone")},
    }
    assert list(merged["caches/store"]) == ["1.1.0", "1.0.0"]  # the newest first: it counts
    assert merge(merged, read_changelog(CHANGELOG), {STORE.path: STORE}) == merged


def test_text_may_be_corrected_and_digests_stay() -> None:
    corrected = CHANGELOG.replace("The first version.", "The first.")
    merged = merge(OLD, read_changelog(corrected), {STORE.path: STORE})
    assert merged["caches/store"]["1.0.0"]["changes"] == "The first."
    assert merged["caches/store"]["1.0.0"]["sha256"] == "old"


def test_a_change_without_a_new_version_is_refused() -> None:
    published = merge(OLD, read_changelog(CHANGELOG), {STORE.path: STORE})
    changed = Component("caches/store", "a store (Store)", "1.1.0", "2027-01-05", b"changed")
    with pytest.raises(SystemExit, match=r"caches/store has changed and still says 1\.1\.0"):
        merge(published, read_changelog(CHANGELOG), {STORE.path: changed})
    merged = merge(published, read_changelog(CHANGELOG), {STORE.path: changed}, unpublished=True)
    assert merged["caches/store"]["1.1.0"]["sha256"] == hashlib.sha256(b"changed").hexdigest()
    assert merged["caches/store"]["1.0.0"]["sha256"] == "old"


@pytest.mark.parametrize("unpublished", [False, True])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("### 1.0.0 (2026-11-23)", "", r"has lost caches/store 1\.0\.0: put it back"),
        ("## queues/gone", "## queues/moved", r"has lost queues/gone 1\.0\.0: put it back"),
        ("### 1.1.0", "### 1.2.0", "has '### 1.2.0 .*asks for '### 1.1.0"),
        ("2027-01-05", "2027-01-06", "has .*2027-01-06.*asks for .*2027-01-05"),
        ("## caches/store\n", "## caches/store\n\n### 1.2.0 (2027-02-01)\n\nX.\n", "asks for"),
        ("- Faster.\n- Smaller.", "", r"does not say what caches/store 1\.1\.0 changed"),
        ("## queues/gone", "### 0.9.0 (2026-01-01)\n\nX.\n\n## queues/gone", "no digest of"),
        (
            "\n## queues/gone",
            "\n## queues/new\n\n### 1.0.0 (2026-11-23)\n\nX.\n\n## queues/gone",
            r"no digest of queues/new 1\.0\.0",
        ),
    ],
)
def test_a_changelog_that_does_not_fit_is_refused(
    old: str, new: str, message: str, unpublished: bool
) -> None:
    assert old in CHANGELOG
    changelog = read_changelog(CHANGELOG.replace(old, new, 1))
    with pytest.raises(SystemExit, match=message):
        merge(OLD, changelog, {STORE.path: STORE}, unpublished=unpublished)


def test_a_component_without_changelog_is_refused() -> None:
    with pytest.raises(SystemExit, match="has 'nothing' first below '## caches/store'"):
        merge({}, {}, {STORE.path: STORE})


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(SystemExit, match="the only option is --unpublished"):
        main(["--force"])


def test_the_feed_has_each_version_the_newest_first() -> None:
    root = ET.fromstring(feed(merge(OLD, read_changelog(CHANGELOG), {STORE.path: STORE})))
    assert root.findtext(f"{ATOM}updated") == "2027-01-05T00:00:00Z"
    entries = root.findall(f"{ATOM}entry")
    assert [entry.findtext(f"{ATOM}title") for entry in entries] == [
        "caches/store 1.1.0",
        "caches/store 1.0.0",
        "queues/gone 1.0.0",
    ]
    assert len({entry.findtext(f"{ATOM}id") for entry in entries}) == 3
    for entry in (root, *entries):
        for required in ("id", "title", "updated"):
            assert entry.findtext(f"{ATOM}{required}")
        assert entry.find(f"{ATOM}link") is not None


# The texts beside the digests.

FIRST, SECOND = b"one\ntwo\nthree\n", b"zero\none\n2\nthree\n"
THIRD = Component("caches/store", "a store (Store)", "1.2.0", "2027-01-05", b"one\n2\nthree\nfour")


def digests(*texts: bytes) -> dict[str, Entry]:
    """The record of versions 1.2.0, 1.1.0 and 1.0.0, or as many as there are."""
    versions = ("1.2.0", "1.1.0", "1.0.0")[-len(texts) :]
    return {
        version: entry(hashlib.sha256(text).hexdigest())
        for version, text in zip(versions, texts, strict=True)
    }


def nowhere(path: str) -> list[bytes]:
    return []


def test_the_history_is_current() -> None:
    stale = "reference_impl/history.json is stale: run `python -m site_build.versions`"
    kept = json.loads(HISTORY.read_text(encoding="utf-8"))
    try:
        recorded = record(current(), modules(), kept, nowhere)
    except SystemExit as error:
        pytest.fail(f"{stale} ({error})")
    assert kept == recorded, stale
    assert HISTORY.read_text(encoding="utf-8") == history_written(recorded)


def test_a_new_version_keeps_the_text_of_the_old_ones() -> None:
    """Found among what was published at first, and in the record itself from then on."""
    versions = {"caches/store": digests(THIRD.source, SECOND, FIRST)}
    recorded = record(versions, {THIRD.path: THIRD}, {}, lambda path: [b"", FIRST, SECOND])
    edits = recorded["caches/store"]
    assert list(edits) == ["1.1.0", "1.0.0"]
    assert apply(edits["1.1.0"], THIRD.source) == SECOND
    assert apply(edits["1.0.0"], SECOND) == FIRST
    assert json.loads(history_written(recorded)) == json.loads(json.dumps(recorded))
    assert record(versions, {THIRD.path: THIRD}, recorded, nowhere) == recorded


def test_only_the_newest_of_the_old_ones_is_looked_for() -> None:
    """As in a clone without its history: the last commit has the version before."""
    second = replace(THIRD, version="1.1.0", source=SECOND)
    kept = record(
        {"caches/store": digests(SECOND, FIRST)}, {second.path: second}, {}, lambda path: [FIRST]
    )
    versions = {"caches/store": digests(THIRD.source, SECOND, FIRST)}
    recorded = record(versions, {THIRD.path: THIRD}, kept, lambda path: [SECOND])
    assert recorded["caches/store"]["1.0.0"] == kept["caches/store"]["1.0.0"]


def test_a_version_whose_text_is_nowhere_is_not_recorded() -> None:
    versions = {"caches/store": digests(THIRD.source, SECOND, FIRST)}
    with pytest.raises(
        SystemExit, match=r"the text of caches/store 1\.0\.0 is nowhere to be found"
    ):
        record(versions, {THIRD.path: THIRD}, {}, lambda path: [SECOND])


def test_a_component_that_is_gone_keeps_every_text() -> None:
    versions = {"caches/store": digests(SECOND, FIRST)}
    recorded = record(versions, {}, {}, lambda path: [FIRST, SECOND])
    assert apply(recorded["caches/store"]["1.1.0"], b"") == SECOND
    assert apply(recorded["caches/store"]["1.0.0"], SECOND) == FIRST


def test_git_knows_what_a_file_has_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each commit, those of merges included, whatever folder it was in."""
    monkeypatch.setattr(history, "ROOT", tmp_path)
    assert list(in_git("caches/store")) == []  # no clone

    def git(*words: str) -> None:
        settings = ("-c", "user.name=x", "-c", "user.email=x", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *settings, *words], cwd=tmp_path, check=True, capture_output=True)

    def commit(path: str, text: bytes, *words: str) -> None:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(text)
        git("add", "-A")
        git("commit", "-q", "-m", "x", *words)

    git("init", "-q")
    commit("old/store.py", b"first\n")
    git("mv", "old", "new")
    commit("new/store.py", b"second\n")
    git("checkout", "-q", "-b", "other")
    commit("new/more.py", b"more\n")
    git("checkout", "-q", "-")
    commit("new/store.py", b"third\n")
    git("merge", "-q", "--no-commit", "other")
    commit("new/store.py", b"merged\n")
    (tmp_path / "new" / "store.py").unlink()
    git("commit", "-q", "-a", "-m", "gone")
    assert sorted(in_git("caches/store")) == [b"first\n", b"merged\n", b"second\n", b"third\n"]
