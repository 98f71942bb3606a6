"""Where copies go: packages and namespace packages, names that no import can say, several names."""

import os
from pathlib import Path

import pytest

from tests.kit.catalogue import components
from tests.tools.helpers import Run, import_isolated, tree, write_tree


def imports(out: str) -> list[tuple[str, str]]:
    """The lines that say how to import, each with the folder that has to be on sys.path."""
    lines = [line for line in out.splitlines() if line.startswith("Import it:")]
    pairs = (line.removeprefix("Import it:").strip().split("  (with ") for line in lines)
    return [(line, rest[0].removesuffix(" on sys.path)") if rest else "") for line, *rest in pairs]


@pytest.fixture
def project(package: Path, tmp_path: Path) -> Path:
    """A project with a package, a namespace package and scripts."""
    place = tmp_path / "project"
    write_tree(
        place,
        {
            "pyproject.toml": b"",
            "app/__init__.py": b"",
            "space/one/__init__.py": b"",
            "scripts/run.py": b"",
            "elsewhere.py": b"watcher = 0\n",
        },
    )
    return place


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("app", "from app.{} import"),
        ("app/vendored", "from app.vendored.{} import"),
        ("space", "from space.{} import"),
        ("space/one", "from space.one.{} import"),
        ("space/one/vendored", "from space.one.vendored.{} import"),
        ("space/vendored", "from space.vendored.{} import"),
        ("vendored", "from vendored.{} import"),
        ("scripts", "from scripts.{} import"),
    ],
)
@pytest.mark.parametrize(("name", "module"), [("store", "store"), ("feed", "queues.feed")])
def test_the_line_to_import_it_is_right(
    run: Run, project: Path, folder: str, line: str, name: str, module: str
) -> None:
    status, out, _ = run("copy", name, project / folder)
    assert status == 0
    ((printed, root),) = imports(out)
    assert printed.startswith(line.format(module))
    assert root == str(project)
    import_isolated(printed, Path(root))


def test_below_src_and_where_sys_path_says_it(
    run: Run, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path, {"src/space/one/__init__.py": b"", "elsewhere.py": b"watcher = 0\n"})
    status, out, _ = run("copy", "feed", tmp_path / "src" / "space" / "vendored")
    assert status == 0
    line = "from space.vendored.queues.feed import Feed, Full"
    assert imports(out) == [(line, str(tmp_path / "src"))]
    monkeypatch.syspath_prepend(tmp_path / "src")
    assert imports(run("copy", "feed", tmp_path / "src" / "space" / "vendored")[1]) == [(line, "")]


def test_a_linked_folder_goes_by_the_name_of_the_link(
    run: Run, project: Path, tmp_path: Path
) -> None:
    (tmp_path / "class").mkdir()
    (project / "app" / "vendored").symlink_to(tmp_path / "class", target_is_directory=True)
    status, out, _ = run("copy", "feed", project / "app" / "vendored")
    assert status == 0
    ((line, root),) = imports(out)
    assert (line, root) == ("from app.vendored.queues.feed import Feed, Full", str(project))
    import_isolated(line, project)


def test_a_namespace_package_stays_one(run: Run, project: Path, tmp_path: Path) -> None:
    """An `__init__.py` would hide what other distributions have in it."""
    write_tree(tmp_path, {"other/space/two/__init__.py": b""})
    assert run("copy", "feed", project / "space")[0] == 0
    assert "__init__.py" not in tree(project / "space")
    assert "queues/__init__.py" in tree(project / "space")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'other')!r}); "
        "import space.two, space.one; from space.queues.feed import Feed"
    )
    import_isolated(code, project)


def test_a_copy_beside_another_does_not_need_it(run: Run, package: Path, tmp_path: Path) -> None:
    """First one that stands alone, then one that needs a package, which is not yet there."""
    write_tree(tmp_path, {"elsewhere.py": b"watcher = 0\n"})
    assert run("copy", "store", tmp_path / "new")[0] == 0
    status, out, _ = run("copy", "feed", tmp_path / "new")
    assert status == 0
    ((line, root),) = imports(out)
    import_isolated(line, Path(root))
    import_isolated("from new.store import Store", Path(root))


@pytest.mark.parametrize(
    ("name", "folder", "message"),
    [
        ("store", "class", "'class' is a word of Python, and no import can name it"),
        ("feed", "lambda", "'lambda' is a word of Python"),
        ("store", "app/None", "'None' is a word of Python"),
        ("feed", "async/vendored", "is in a package 'async', which no import can name"),
        ("store", "reference_impl", "a package named 'reference_impl' is the tool's own"),
        ("feed", "app/reference_impl", "a package named 'reference_impl' is the tool's own"),
        ("store", "reference_impl/caches", "a package named 'reference_impl' is the tool's own"),
        ("feed", "threading", "'threading' would hide the module of the standard library"),
        ("feed", "queue", "'queue' would hide the module of the standard library"),
        ("feed", ".", "is the folder of a project and no package, and queues/feed needs one"),
    ],
)
def test_a_folder_that_cannot_be_imported_is_refused(
    run: Run, project: Path, name: str, folder: str, message: str
) -> None:
    write_tree(project, {"async/__init__.py": b"", "reference_impl/__init__.py": b""})
    write_tree(project, {"queue/x.txt": b""})
    before = tree(project)
    status, out, err = run("copy", name, project / folder)
    assert (status, out) == (2, "")
    assert message in err
    assert tree(project) == before


def test_names_that_are_merely_like_those_are_taken(run: Run, project: Path) -> None:
    """A folder of scripts, a soft keyword, a module's name within a package."""
    assert run("copy", "store", project)[0] == 0
    for name, folder in (("feed", "match"), ("feed", "app/queue"), ("store", "json")):
        assert run("copy", name, project / folder)[0] == 0


def test_two_names_and_no_folder_are_refused(
    run: Run, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    for last in ("feed", "Feed", "queues/feed", "feed.py"):
        status, out, err = run("copy", "store", last)
        assert (status, out) == (2, "")
        assert f"as in `copy store {last} vendored`, or make the folder {last} first" in err
    assert tree(tmp_path) == before
    (tmp_path / "feed").mkdir()
    assert run("copy", "store", "feed")[0] == 0
    assert run("copy", "store", f".{os.sep}other")[0] == 0


def test_several_components_share_their_siblings(run: Run, package: Path, tmp_path: Path) -> None:
    write_tree(tmp_path, {"elsewhere.py": b"watcher = 0\n"})
    status, out, _ = run("copy", "feed", "queues/other", "store", "Feed", tmp_path / "new")
    assert status == 0
    assert {name for name in tree(tmp_path / "new") if not name.endswith("__init__.py")} == {
        *("bridges", "bridges/watch.py", "caches", "caches/store.py"),
        *("queues", "queues/feed.py", "queues/other.py"),
    }
    assert [line for line, _ in imports(out)] == [
        "from new.queues.feed import Feed, Full",
        "from new.queues.other import Full",
        "from new.caches.store import Store",
    ]
    for line, root in imports(out):
        import_isolated(line, Path(root))
    assert run("check", tmp_path / "new")[1].count("vetted:") == 4


def test_several_components_of_one_family_are_side_by_side(run: Run, tmp_path: Path) -> None:
    assert run("copy", "ttl_cache", "sharded_cache", "async_ttl_cache", tmp_path / "new")[0] == 0
    assert set(tree(tmp_path / "new")) == {
        *("__init__.py", "ttl_cache.py", "sharded_cache.py", "async_ttl_cache.py")
    }


def test_one_name_that_is_unknown_stops_all(run: Run, package: Path, tmp_path: Path) -> None:
    status, _, err = run("copy", "store", "feet", tmp_path / "new")
    assert status == 2
    assert "there is no component 'feet': did you mean Feed" in err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("position", [0, 1, 2, 3])
def test_an_option_may_stand_anywhere(
    run: Run, package: Path, tmp_path: Path, position: int
) -> None:
    write_tree(tmp_path, {"new/caches/store.py": b"mine\n"})
    words: list[object] = ["store", "other", tmp_path / "new"]
    assert run("copy", *words)[0] == 2
    words.insert(position, "--force")
    assert run("copy", *words)[0] == 0
    assert run("copy", "--", "store", "other", tmp_path / "new")[0] == 0


def test_all_components_at_once(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("copy", "--all", tmp_path / "new")
    assert status == 0
    assert len(imports(out)) == len(components())
    assert run("check", tmp_path / "new")[0] == 0
    status, _, err = run("copy", "ttl_cache", "--all", tmp_path / "new")
    assert status == 2
    assert "--all copies ttl_cache as well: name the folder alone" in err
