"""`update`: untouched copies of earlier versions become the newest, the others stay."""

import json
from pathlib import Path

import pytest

from tests.tools.helpers import Run, clear_caches, entry, older, source, tree, write_tree

PLAIN = source("queues/two", "class Two: ...\n", version="0.9.0", summary="two (Two)")


@pytest.fixture
def grown(package: Path) -> Path:
    """The made-up package, with a queue that has got a part and a sibling since 0.9.0."""
    uses = "from ..bridges.watch import Watch\nfrom ._shared import step\n\n\nclass Two: ...\n"
    place = package / "versions.json"
    versions = json.loads(place.read_text(encoding="utf-8"))
    old = {"queues/_shared": source("queues/_shared", "", version="0.9.0", page="queues/two")}
    new = {
        "queues/_shared": source("queues/_shared", "def step(): ...\n", page="queues/two"),
        "queues/two": source("queues/two", uses, summary="two (Two)"),
    }
    for path, data in new.items():
        versions[path] = {"1.0.0": entry(data, "New."), "0.9.0": entry(PLAIN, "Old.")}
    versions["queues/_shared"]["0.9.0"] = entry(old["queues/_shared"], "Old.")
    write_tree(package, {f"{path}.py": data for path, data in new.items()})
    write_tree(package.parent / "history", {"_shared.py": old["queues/_shared"]})
    place.write_text(json.dumps(versions), encoding="utf-8")
    clear_caches()
    return package


def test_an_untouched_copy_is_updated_and_says_what_has_changed(
    run: Run, package: Path, tmp_path: Path
) -> None:
    write_tree(tmp_path, {"a/store.py": older(package), "b/store.py": older(package)})
    place = tmp_path / "a" / "store.py"
    place.chmod(0o640)
    status, out, err = run("update", tmp_path / "a")
    assert (status, err) == (0, "")
    assert f"{place}: older: caches/store 1.1.0" in out
    assert "  1.2.0 (2026-11-23): Work of 1.2.0." in out
    assert f"wrote {place}\n" in out
    assert place.read_bytes() == (package / "caches/store.py").read_bytes()
    assert place.stat().st_mode & 0o777 == 0o640
    assert tree(tmp_path / "b")["store.py"] == older(package).decode()
    status, out, _ = run("update", tmp_path / "a", tmp_path / "b")
    assert status == 0
    assert f"{place}: vetted: caches/store 1.2.0" in out
    assert run("check", tmp_path / "a", tmp_path / "b")[0] == 0


def test_a_dry_run_writes_nothing(run: Run, grown: Path, tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/queues/two.py": PLAIN, "a/__init__.py": b""})
    before = tree(tmp_path)
    status, out, _ = run("update", "--dry-run", tmp_path / "a")
    assert status == 0
    assert {line for line in out.splitlines() if line.startswith("would write")} == {
        f"would write {tmp_path / 'a' / name}"
        for name in (
            *("queues/two.py", "queues/_shared.py", "queues/__init__.py"),
            *("bridges/watch.py", "bridges/__init__.py"),
        )
    }
    assert tree(tmp_path) == before


def test_what_the_newest_version_needs_comes_with_it(run: Run, grown: Path, tmp_path: Path) -> None:
    """Missing files are written, untouched older ones replaced."""
    shared = (grown.parent / "history" / "_shared.py").read_bytes()
    write_tree(tmp_path, {"a/queues/two.py": PLAIN, "a/queues/_shared.py": shared})
    status, _, err = run("update", tmp_path / "a")
    assert (status, err) == (0, "")
    for path in ("queues/two.py", "queues/_shared.py", "bridges/watch.py"):
        assert (tmp_path / "a" / path).read_bytes() == (grown / path).read_bytes()
    assert run("check", tmp_path / "a")[0] == 0


def test_a_part_is_updated_by_itself(run: Run, grown: Path, tmp_path: Path) -> None:
    assert run("copy", "two", tmp_path / "a")[0] == 0
    part = tmp_path / "a" / "queues" / "_shared.py"
    part.write_bytes((grown.parent / "history" / "_shared.py").read_bytes())
    status, out, _ = run("update", tmp_path / "a")
    assert status == 0
    assert [line for line in out.splitlines() if line.startswith("wrote")] == [f"wrote {part}"]
    assert run("check", tmp_path / "a")[0] == 0


def test_a_modified_copy_is_left_and_told(run: Run, package: Path, tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/a.py": older(package) + b"mine\n", "b/store.py": older(package)})
    write_tree(tmp_path, {"own.py": b"mine\n"})
    status, out, _ = run("update", tmp_path / "a", tmp_path / "own.py", tmp_path / "b")
    assert status == 1
    assert f"{tmp_path / 'a' / 'a.py'}: modified: caches/store, whose header says 1.1.0" in out
    assert "+mine" not in out
    assert "own.py: no copy" in out
    assert (tmp_path / "a" / "a.py").read_bytes() == older(package) + b"mine\n"
    assert f"wrote {tmp_path / 'b' / 'store.py'}" in out


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"queues/_shared.py": b"mine\n"}, "_shared.py differs (no copy of a component)"),
        ({"queues/_shared": b"", "bridges": b"mine\n"}, "bridges is in the way of a folder"),
        ({"queues/renamed.py": PLAIN}, "renamed.py cannot be updated: queues/two and what it"),
        ({"two.py": PLAIN}, "two.py cannot be updated: queues/two and what it needs are not"),
    ],
)
def test_what_is_in_the_way_stops_one_and_not_the_others(
    run: Run, grown: Path, tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    two = {} if PLAIN in files.values() else {"a/queues/two.py": PLAIN}
    write_tree(tmp_path, {f"a/{name}": data for name, data in files.items()} | two)
    before = tree(tmp_path / "a")
    write_tree(tmp_path, {"a/z/store.py": older(grown)})
    status, out, err = run("update", tmp_path / "a")
    assert status == 2
    assert message in err
    assert {path: data for path, data in tree(tmp_path / "a").items() if path[0] != "z"} == before
    assert f"wrote {tmp_path / 'a' / 'z' / 'store.py'}" in out


def test_one_that_is_no_longer_published_is_left(run: Run, package: Path, tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/store.py": older(package)})
    (package / "caches/store.py").unlink()
    clear_caches()
    status, _, err = run("update", tmp_path / "a")
    assert status == 2
    assert "store.py cannot be updated: caches/store is no longer published" in err
    assert (tmp_path / "a" / "store.py").read_bytes() == older(package)
