"""reference_impl/versions.json and the feed: current, and never losing an old version."""

import hashlib
import xml.etree.ElementTree as ET

import pytest

from reference_impl._copying import Component, Entry
from site_build.versions import (
    ATOM,
    VERSIONS,
    current,
    feed,
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
