"""`update`: untouched copies become the newest version, changed ones are merged with it."""

import shutil
from pathlib import Path

import pytest

from reference_impl._updating import conflicts
from tests.tools.helpers import Change, Run, clear_caches, older, record, source, tree, write_tree

PLAIN = source("queues/two", "class Two: ...\n", version="0.9.0", summary="two (Two)")
SHARED = source("queues/_shared", "", version="0.9.0", page="queues/two")


@pytest.fixture
def grown(package: Path) -> Path:
    """The made-up package, with a queue that has got a part and a sibling since 0.9.0."""
    uses = "from ..bridges.watch import Watch\nfrom ._shared import step\n\n\nclass Two: ...\n"
    new = {
        "queues/_shared": source("queues/_shared", "def step(): ...\n", page="queues/two"),
        "queues/two": source("queues/two", uses, summary="two (Two)"),
    }
    write_tree(package, {f"{path}.py": data for path, data in new.items()})
    old = {"queues/_shared": SHARED, "queues/two": PLAIN}
    record(package, {path: [data, old[path]] for path, data in new.items()})
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
    write_tree(tmp_path, {"a/queues/two.py": PLAIN, "a/queues/_shared.py": SHARED})
    status, _, err = run("update", tmp_path / "a")
    assert (status, err) == (0, "")
    for path in ("queues/two.py", "queues/_shared.py", "bridges/watch.py"):
        assert (tmp_path / "a" / path).read_bytes() == (grown / path).read_bytes()
    assert run("check", tmp_path / "a")[0] == 0


def test_a_part_is_updated_by_itself(run: Run, grown: Path, tmp_path: Path) -> None:
    assert run("copy", "two", tmp_path / "a")[0] == 0
    part = tmp_path / "a" / "queues" / "_shared.py"
    part.write_bytes(SHARED)
    status, out, _ = run("update", tmp_path / "a")
    assert status == 0
    assert [line for line in out.splitlines() if line.startswith("wrote")] == [f"wrote {part}"]
    assert run("check", tmp_path / "a")[0] == 0


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"queues/_shared.py": b"mine\n"}, "_shared.py differs (no copy of a component)"),
        ({"queues/_shared": b"", "bridges": b"mine\n"}, "bridges is in the way of a folder"),
        (
            {"queues/_shared.py": source("caches/store", version="1.2.0")},
            "_shared.py differs (modified: from caches/store 1.2.0",
        ),
        ({"queues/_shared.py": source("queues/_new")}, "_shared.py differs (unknown: there is no"),
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
    data = older(package)
    write_tree(tmp_path, {"a/store.py": data})
    (package / "caches/store.py").unlink()
    clear_caches()
    status, _, err = run("update", tmp_path / "a")
    assert status == 2
    assert "store.py cannot be updated: caches/store is no longer published" in err
    assert (tmp_path / "a" / "store.py").read_bytes() == data


def test_an_unknown_one_is_left(run: Run, package: Path, tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/new.py": source("caches/new")})
    status, out, _ = run("update", tmp_path / "a")
    assert status == 1
    assert out == (
        f"{tmp_path / 'a' / 'new.py'}: "
        "unknown: there is no caches/new here; a newer package may have it\n"
    )


@pytest.mark.parametrize(
    "form",
    [
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"),
        lambda data: data.replace(b"\n", b"\r"),
    ],
    ids=["CRLF", "BOM", "both", "CR"],
)
def test_line_endings_and_a_byte_order_mark_stay(
    run: Run, shop: Path, tmp_path: Path, form: Change
) -> None:
    mine = OLD.replace(b"first = 1", b"first = 100")
    write_tree(tmp_path, {"a/untouched.py": form(OLD), "a/changed.py": form(mine)})
    assert run("update", tmp_path / "a")[0] == 0
    assert (tmp_path / "a" / "untouched.py").read_bytes() == form(NEW)
    expected = NEW.replace(b"first = 1", b"first = 100")
    assert (tmp_path / "a" / "changed.py").read_bytes() == form(expected)


def version_of_shop(version: str, body: str) -> bytes:
    return source("caches/shop", body, version=version, summary="a shop (Shop)")


OLD = version_of_shop("1.0.0", "first = 1\n\n\nclass Shop: ...\n\n\nlast = 1\n")
NEW = version_of_shop("1.1.0", "first = 1\n\n\nclass Shop: ...\n\n\nlast = 2\nmore = 1\n")


@pytest.fixture
def shop(package: Path) -> Path:
    """The made-up package with a component that has a line of its own for each change."""
    write_tree(package, {"caches/shop.py": NEW})
    record(package, {"caches/shop": [NEW, OLD]})
    return package


def test_a_modified_copy_is_merged_with_the_newest(run: Run, shop: Path, tmp_path: Path) -> None:
    place = tmp_path / "a b" / "mine.py"
    write_tree(tmp_path, {"a b/mine.py": OLD.replace(b"first = 1", b"first = 100")})
    place.chmod(0o640)
    status, out, err = run("update", tmp_path / "a b")
    assert (status, err) == (0, "")
    assert f"{place}: modified: from caches/shop 1.0.0 (2026-11-23), 1 line changed\n" in out
    assert "  1.1.0 (2026-11-23): Work of 1.1.0.\n  More." in out
    assert "@@" not in out
    assert f"merged {place}; prove it: python -m reference_impl prove '{place}'\n" in out
    assert place.read_bytes() == NEW.replace(b"first = 1", b"first = 100")
    assert place.stat().st_mode & 0o777 == 0o640
    status, out, _ = run("update", tmp_path / "a b")
    assert status == 0
    assert out == (
        f"{place}: modified: from caches/shop 1.1.0 (2026-11-23), 1 line changed: "
        "nothing to update\n"
    )


def test_a_formatted_copy_is_merged_with_the_newest(run: Run, shop: Path, tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/shop.py": b"# Mine.\n" + OLD})
    status, out, _ = run("update", tmp_path / "a")
    assert status == 0
    assert f"merged {tmp_path / 'a' / 'shop.py'}" in out
    assert (tmp_path / "a" / "shop.py").read_bytes() == b"# Mine.\n" + NEW


def test_a_copy_that_had_the_news_already_is_the_newest(
    run: Run, shop: Path, tmp_path: Path
) -> None:
    """Nothing of it is the reader's own once it is merged."""
    place = tmp_path / "a" / "shop.py"
    write_tree(tmp_path, {"a/shop.py": OLD.replace(b"last = 1\n", b"last = 2\n")})
    newest = NEW.replace(b"more = 1\n", b"")
    write_tree(shop, {"caches/shop.py": newest.replace(b"first = 1", b"first = 2")})
    record(shop, {"caches/shop": [newest.replace(b"first = 1", b"first = 2"), OLD]})
    status, out, _ = run("update", tmp_path / "a")
    assert status == 0
    assert f"wrote {place}\n" in out
    assert "prove" not in out
    assert place.read_bytes() == newest.replace(b"first = 1", b"first = 2")


def test_conflicts_are_marked_and_told(run: Run, shop: Path, tmp_path: Path) -> None:
    place = tmp_path / "a" / "shop.py"
    mine = OLD.replace(b"last = 1", b"last = 100")
    write_tree(tmp_path, {"a/shop.py": mine})
    resolve = f"resolve, then prove it: python -m reference_impl prove {place}\n"
    before = tree(tmp_path / "a")
    status, out, _ = run("update", "--dry-run", tmp_path / "a")
    assert status == 1
    assert f"would leave 1 conflict in {place}, lines 12-19: {resolve}" in out
    assert tree(tmp_path / "a") == before

    status, out, err = run("update", tmp_path / "a")
    assert (status, err) == (1, "")
    assert f"1 conflict in {place}, lines 12-19: {resolve}" in out
    lines = place.read_text(encoding="utf-8").splitlines()
    assert lines[11:19] == [
        "<<<<<<< yours",
        "last = 100",
        "||||||| shop.py 1.0.0, which yours came from",
        "last = 1",
        "=======",
        "last = 2",
        "more = 1",
        ">>>>>>> shop.py 1.1.0",
    ]
    before = tree(tmp_path / "a")
    for command in (["update"], ["update", "--dry-run"]):  # until they are resolved
        status, out, _ = run(*command, tmp_path / "a")
        assert status == 1
        assert out == f"1 conflict in {place}, lines 12-19: {resolve}"
        assert tree(tmp_path / "a") == before


def test_conflicts_of_layout_alone_have_a_short_way(run: Run, shop: Path, tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/shop.py": OLD.replace(b"last = 1", b"last  =  1")})
    status, out, _ = run("update", tmp_path / "a")
    assert status == 1
    assert "only layout and comments are yours: `copy --force` gives the newest" in out


def test_the_lines_of_several_conflicts() -> None:
    one = b"<<<<<<< yours\na\n=======\nb\n>>>>>>> new\n"
    assert conflicts(b"x\n" + one + b"x\n" + one) == ["2-6", "8-12"]
    assert conflicts(one.replace(b"\n", b"\r\n")) == ["1-5"]
    assert conflicts(b"x = '<<<<<<< yours'\n=======\n") == []


def test_a_changed_sibling_is_merged_with_it(run: Run, grown: Path, tmp_path: Path) -> None:
    """The files of a component are updated together, and each is told once."""
    mine = SHARED + b"mine = 1\n"
    write_tree(tmp_path, {"a/queues/two.py": b"# mine\n" + PLAIN, "a/queues/_shared.py": mine})
    status, out, err = run("update", tmp_path / "a" / "queues" / "two.py")
    assert status == 1, err
    assert f"1 conflict in {tmp_path / 'a/queues/_shared.py'}, lines 6-11: resolve," in out
    assert f"merged {tmp_path / 'a/queues/two.py'}; prove it" in out
    assert f"wrote {tmp_path / 'a/bridges/watch.py'}" in out


def test_each_file_is_told_once(run: Run, grown: Path, tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/queues/two.py": PLAIN, "a/queues/_shared.py": SHARED})
    status, out, _ = run("update", "--dry-run", tmp_path / "a", tmp_path / "a")
    assert status == 0
    assert out.count(f"would write {tmp_path / 'a/queues/_shared.py'}\n") == 1
    assert out.count(f"would write {tmp_path / 'a/queues/two.py'}\n") == 1


def test_copies_that_share_a_part_are_updated_together(
    run: Run, grown: Path, tmp_path: Path
) -> None:
    """Whichever of them is named; where one is refused, the others stay as they were."""
    write_tree(tmp_path, {"a/queues/two.py": PLAIN, "a/queues/_shared.py": SHARED})
    write_tree(
        tmp_path, {"b/queues/two.py": PLAIN, "b/queues/_shared.py": SHARED, "b/bridges": b""}
    )
    status, out, err = run("update", tmp_path / "a" / "queues" / "_shared.py")
    assert (status, err) == (0, "")
    for name in ("_shared", "two"):
        assert f"{tmp_path / 'a/queues' / name}.py: older: queues/{name} 0.9.0" in out
        assert f"wrote {tmp_path / 'a/queues' / name}.py" in out
    before = tree(tmp_path / "b")
    for target in (tmp_path / "b" / "queues" / "_shared.py", tmp_path / "b"):
        status, out, err = run("update", target)
        assert status == 2
        assert err.count("bridges is in the way of a folder") == 1
        assert out.count("_shared.py: older") == 1
        assert tree(tmp_path / "b") == before


def test_a_copy_elsewhere_is_no_user(run: Run, grown: Path, tmp_path: Path) -> None:
    """It is in no place that it could import the part from."""
    write_tree(tmp_path, {"a/queues/_shared.py": SHARED, "a/two.py": PLAIN})
    status, out, _ = run("update", tmp_path / "a" / "queues" / "_shared.py")
    assert status == 0
    assert "two" not in out


def test_a_conflict_in_a_sibling_stops_it(run: Run, grown: Path, tmp_path: Path) -> None:
    marked = SHARED + b"<<<<<<< yours\na\n=======\nb\n>>>>>>> new\n"
    write_tree(tmp_path, {"a/queues/two.py": PLAIN, "a/queues/_shared.py": marked})
    before = tree(tmp_path / "a")
    status, _, err = run("update", tmp_path / "a" / "queues" / "two.py")
    assert status == 2
    assert "_shared.py has conflicts, lines 6-10: resolve them first" in err
    assert tree(tmp_path / "a") == before


def test_a_sibling_that_is_changed_and_new_stays(run: Run, grown: Path, tmp_path: Path) -> None:
    """It is of the newest version but for the reader's change."""
    mine = (grown / "queues/_shared.py").read_bytes() + b"mine = 1\n"
    write_tree(tmp_path, {"a/queues/two.py": PLAIN, "a/queues/_shared.py": mine})
    assert run("update", tmp_path / "a" / "queues" / "two.py")[0] == 0
    assert (tmp_path / "a/queues/_shared.py").read_bytes() == mine
    new = (grown / "queues/two.py").read_bytes()
    assert (tmp_path / "a/queues/two.py").read_bytes() == new


def test_without_git_what_is_changed_stays_and_the_rest_is_updated(
    run: Run, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    mine = OLD + b"mine = 1\n"
    write_tree(tmp_path, {"a/changed.py": mine, "a/untouched.py": OLD})
    for options in (["--dry-run"], []):
        status, _, err = run("update", *options, tmp_path / "a")
        assert status == 2
        assert f"{tmp_path / 'a/changed.py'} was changed, and `git` merges such copies" in err
        assert "install it (https://git-scm.com), or save what `check` prints" in err
    assert (tmp_path / "a/changed.py").read_bytes() == mine
    assert (tmp_path / "a/untouched.py").read_bytes() == NEW


def test_what_git_cannot_merge_stays(run: Run, shop: Path, tmp_path: Path) -> None:
    mine = OLD + b"\0\n"  # binary, for git
    write_tree(tmp_path, {"a/shop.py": mine})
    status, _, err = run("update", tmp_path / "a")
    assert status == 2
    assert f"{tmp_path / 'a/shop.py'} cannot be merged: git merge-file says" in err
    assert (tmp_path / "a/shop.py").read_bytes() == mine


@pytest.mark.parametrize("variable", ["GIT_DIR", "GIT_CONFIG_GLOBAL", "HOME"])
def test_the_settings_of_git_do_not_matter(
    run: Run, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    write_tree(tmp_path, {"home/.gitconfig": b"[broken", "a/shop.py": OLD + b"mine = 1\n"})
    write_tree(tmp_path, {"a/.git/config": b"[broken"})
    value = tmp_path / ("home/.gitconfig" if variable == "GIT_CONFIG_GLOBAL" else "home")
    monkeypatch.setenv(variable, str(value))
    monkeypatch.chdir(tmp_path / "a")
    status, _, err = run("update", "shop.py")
    assert (status, err) == (1, "")


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_what_fails_midway_is_undone(
    run: Run, grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    write_tree(tmp_path, {"a/queues/two.py": PLAIN + b"mine = 1\n", "a/queues/_shared.py": SHARED})
    before, replace, done = tree(tmp_path), Path.replace, list[Path]()

    def fail(path: Path, target: Path) -> Path:
        done.append(target)
        if len(done) == failing:
            raise OSError(28, "No space left on device", str(target))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    status, _, err = run("update", tmp_path / "a" / "queues" / "two.py")
    assert status == 2
    assert "nothing was written" in err
    assert "No space left on device" in err
    assert tree(tmp_path) == before


def test_a_linked_copy_is_refused(run: Run, shop: Path, tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/shop.txt": OLD})
    (tmp_path / "a" / "shop.py").symlink_to("shop.txt")
    status, _, err = run("update", tmp_path / "a")
    assert status == 2
    assert "shop.py is no regular file" in err
    assert (tmp_path / "a" / "shop.txt").read_bytes() == OLD
