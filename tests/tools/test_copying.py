"""The copy tool: `python -m reference_impl list | show | copy | check`."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reference_impl import _copying
from tests.kit import COMPONENTS, ROOT
from tests.kit.catalogue import closure, components
from tests.kit.process import run_python
from tests.tools.helpers import Change, Run, import_isolated, older, source, tree, write_tree

every_component = pytest.mark.parametrize("component", components())


class TestListAndShow:
    def test_list_gives_each_component_its_sentence_and_version(self, run: Run) -> None:
        status, out, _ = run("list")
        lines = {line.split()[0]: line for line in out.splitlines()}
        assert status == 0
        assert sorted(lines) == components()
        for path, line in lines.items():
            header = (COMPONENTS / f"{path}.py").read_text(encoding="utf-8").splitlines()
            assert line.endswith(header[0].partition(": ")[2])
            assert header[2].partition(";")[0].removeprefix("# Version ") in line

    @every_component
    def test_show_prints_the_file_byte_for_byte(self, component: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "reference_impl", "show", component],
            cwd=ROOT,
            capture_output=True,
            check=True,
            timeout=60,
        )
        assert done.stdout == (COMPONENTS / f"{component}.py").read_bytes()

    @pytest.mark.parametrize(
        "name",
        [
            "ttl_cache",
            "TTLCache",
            "CacheStats",
            "ttl_cache.py",
            "caches/ttl_cache",
            "./caches/ttl_cache.py",
            "caches\\ttl_cache",
            "caches.ttl_cache",
            "reference_impl.caches.ttl_cache",
            "reference_impl/caches/ttl_cache.py",
        ],
    )
    def test_a_component_has_many_names(self, name: str) -> None:
        assert _copying.find(name).path == "caches/ttl_cache"

    @every_component
    def test_each_component_is_found_by_the_names_in_its_header(self, component: str) -> None:
        found = _copying.components()[component]
        assert _copying.find(found.module) is found
        main_name = found.names.split(", ")[0]
        assert _copying.find(main_name) is found

    @pytest.mark.parametrize("command", ["show", "copy"])
    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("ttl_cach", "did you mean ttl_cache"),
            ("ttlcache", "did you mean TTLCache"),
            ("caches", "`list` names them all"),
            ("", "`list` names them all"),
            ("../../etc/passwd", "`list` names them all"),
            ("__init__", "`list` names them all"),
        ],
    )
    def test_an_unknown_name_is_refused_with_a_hint(
        self, run: Run, command: str, name: str, hint: str, tmp_path: Path
    ) -> None:
        status, out, err = run(command, name, *([tmp_path / "new"] if command == "copy" else []))
        assert (status, out) == (2, "")
        assert f"there is no component {name!r}" in err
        assert hint in err
        assert tree(tmp_path) == {}

    def test_a_name_of_two_components_is_refused(self, run: Run, package: Path) -> None:
        status, _, err = run("show", "Full")
        assert status == 2
        assert "'Full' is in queues/feed and in queues/other" in err

    @pytest.mark.parametrize("arguments", [[], ["drop"], ["copy"], ["copy", "a"], ["check"]])
    def test_a_command_that_is_none_is_refused(self, run: Run, arguments: list[str]) -> None:
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert "usage: python -m reference_impl" in err

    def test_a_reader_that_leaves_early_is_no_error(self) -> None:
        """As in `show ttl_cache | head -1`."""
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "reference_impl", "show", "ttl_cache"],
                cwd=ROOT,
                stdout=writing,
                stderr=subprocess.PIPE,
                timeout=60,
                check=False,
            )
        finally:
            os.close(writing)
        assert (done.returncode, done.stderr) == (1, b"")


class TestCopy:
    @every_component
    def test_closure_is_what_the_evidence_covers(self, component: str) -> None:
        found = _copying.closure(_copying.components()[component])
        assert [COMPONENTS / f"{part.path}.py" for part in found] == closure(component)

    @every_component
    def test_copy_is_the_source_and_works_in_any_package(
        self, run: Run, component: str, tmp_path: Path
    ) -> None:
        """Imported by the line that the tool prints, and without reference_impl."""
        write_tree(tmp_path, {"app/__init__.py": b""})
        status, out, _ = run("copy", component, tmp_path / "app" / "vendored")
        assert status == 0
        copied = [path for path in tmp_path.rglob("*.py") if path.name != "__init__.py"]
        assert sorted(path.read_bytes() for path in copied) == sorted(
            path.read_bytes() for path in closure(component)
        )
        line = out.partition("Import it:")[2].partition("\n")[0].strip()
        assert line.startswith("from app.vendored.")
        assert line.endswith(f"  (with {tmp_path} on sys.path)")
        import_isolated(line.partition("  (with")[0], tmp_path)
        assert run("check", tmp_path)[0] == 0

    @every_component
    def test_copy_needs_no_package_around_it(
        self, run: Run, component: str, tmp_path: Path
    ) -> None:
        folder = tmp_path / "plain"
        status, out, _ = run("copy", component, folder)
        assert status == 0
        line = out.partition("Import it:")[2].partition("\n")[0].strip()
        alone = len(closure(component)) == 1
        assert (folder / "__init__.py").exists() is not alone
        import_isolated(line.partition("  (with")[0], folder if alone else tmp_path)

    def test_files_of_several_families_keep_their_places(
        self, run: Run, package: Path, tmp_path: Path
    ) -> None:
        status, out, _ = run("copy", "feed", tmp_path / "new")
        assert status == 0
        assert tree(tmp_path / "new") == {
            "__init__.py": "",
            "bridges": "folder",
            "bridges/__init__.py": "",
            "bridges/watch.py": (package / "bridges/watch.py").read_text(),
            "queues": "folder",
            "queues/__init__.py": "",
            "queues/feed.py": (package / "queues/feed.py").read_text(),
        }
        assert "It needs:       elsewhere, which you install yourself" in out
        assert "from new.queues.feed import Feed, Full" in out
        write_tree(tmp_path, {"elsewhere.py": b"watcher = 0\n"})
        import_isolated("from new.queues.feed import Feed, Full", tmp_path)

    def test_a_folder_that_was_no_package_stays_none_where_one_file_comes_in(
        self, run: Run, package: Path, tmp_path: Path
    ) -> None:
        """Scripts in a folder of an application, say; only a new folder becomes a package."""
        write_tree(tmp_path, {"app/__init__.py": b"", "app/scripts/run.py": b""})
        status, out, _ = run("copy", "store", tmp_path / "app" / "scripts")
        assert status == 0
        assert set(tree(tmp_path / "app" / "scripts")) == {"run.py", "store.py"}
        assert "from store import Store  (with" in out

    def test_what_is_there_already_is_left_as_it_is(self, run: Run, tmp_path: Path) -> None:
        folder = tmp_path / "new"
        assert run("copy", "sharded_cache", folder)[0] == 0
        (folder / "__init__.py").write_text("mine = 1\n")
        crlf = (folder / "ttl_cache.py").read_bytes().replace(b"\n", b"\r\n")
        (folder / "ttl_cache.py").write_bytes(crlf)
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        for options in ([], ["--force"]):
            status, out, _ = run("copy", "sharded_cache", folder, *options)
            assert status == 0
            assert "wrote" not in out
            assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before

    def test_a_folder_is_used_through_a_link(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        assert run("copy", "ttl_cache", tmp_path / "link")[0] == 0
        assert "real/ttl_cache.py" in tree(tmp_path)

    def test_the_current_folder_may_be_named_by_a_dot(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        status, out, _ = run("copy", "sharded_cache", ".")
        assert status == 0
        assert f"from here.sharded_cache import ShardedCache  (with {tmp_path} on" in out

    def test_force_overwrites_and_keeps_the_mode(
        self, run: Run, package: Path, tmp_path: Path
    ) -> None:
        write_tree(tmp_path, {"new/store.py": b"something else\n"})
        target = tmp_path / "new" / "store.py"
        target.chmod(0o640)
        status, out, _ = run("copy", "store", tmp_path / "new", "--force")
        assert status == 0
        assert "wrote" in out
        assert target.read_bytes() == (package / "caches/store.py").read_bytes()
        if os.name == "posix":
            assert target.stat().st_mode & 0o777 == 0o640

    def test_a_package_file_that_was_changed_is_not_copied(
        self, run: Run, package: Path, tmp_path: Path
    ) -> None:
        with (package / "caches/store.py").open("ab") as file:
            file.write(b"# changed\n")
        for arguments in (["show", "store"], ["copy", "store", tmp_path / "new"]):
            status, out, err = run(*arguments)
            assert (status, out) == (2, "")
            assert "is not the 1.2.0 that was verified" in err
        assert not (tmp_path / "new").exists()

    def test_a_package_with_windows_line_endings_gives_plain_ones(
        self, run: Run, package: Path, tmp_path: Path
    ) -> None:
        """As git makes them where it is told to."""
        path = package / "caches/store.py"
        plain = path.read_bytes()
        path.write_bytes(plain.replace(b"\n", b"\r\n"))
        assert run("copy", "store", tmp_path / "new")[0] == 0
        assert (tmp_path / "new" / "store.py").read_bytes() == plain

    @pytest.mark.parametrize("text", [None, "", "{", '"\ud800'])
    def test_a_package_without_its_versions_copies_nothing(
        self, run: Run, package: Path, tmp_path: Path, text: str | None
    ) -> None:
        (package / "versions.json").unlink()
        if text is not None:
            (package / "versions.json").write_bytes(text.encode(errors="surrogatepass"))
        status, _, err = run("copy", "store", tmp_path / "new")
        assert status == 2
        assert "versions.json cannot be read" in err
        assert not (tmp_path / "new").exists()


# What stands in the folder, what is copied to where, and what the refusal says.
REFUSED: dict[str, tuple[dict[str, bytes], str, str, str]] = {
    "a file": ({"new": b""}, "store", "new", "is a file: name the folder"),
    "a file's name": ({}, "store", "store.py", "name a folder; the file keeps its name"),
    "no parent": ({}, "store", "no/such/place", "there is no folder"),
    "below a file": ({"new": b""}, "store", "new/place", "there is no folder"),
    "another file": ({"new/store.py": b"mine\n"}, "store", "new", "no copy of a component"),
    "an empty file": ({"new/store.py": b""}, "store", "new", "no copy of a component"),
    "a folder": ({"new/store.py/x": b""}, "store", "new", "is no regular file"),
    "hidden by a folder": ({"new/store/x": b""}, "store", "new", "would hide store.py"),
    "hides a module": ({"new/queues.py": b""}, "feed", "new", "would hide queues.py"),
    "hides a module, itself": ({"new.py": b""}, "feed", "new", "would hide new.py"),
    "a file as family": ({"new/bridges": b""}, "feed", "new", "is in the way of a folder"),
    "no name of a package": ({}, "feed", "my-app", "'my-app' cannot be the name of a package"),
    "one of two": ({"new/bridges/watch.py": b"mine\n"}, "feed", "new", "watch.py differs"),
}


class TestCopyRefuses:
    @pytest.mark.parametrize("case", REFUSED)
    def test_and_changes_nothing(self, run: Run, package: Path, tmp_path: Path, case: str) -> None:
        files, name, folder, message = REFUSED[case]
        place = tmp_path / "place"
        place.mkdir()
        write_tree(place, files)
        before = tree(place)
        status, out, err = run("copy", name, place / folder)
        assert (status, out) == (2, "")
        assert message in err
        assert tree(place) == before

    @pytest.mark.parametrize("options", [[], ["--force"]])
    @pytest.mark.parametrize("target", ["nowhere", "elsewhere"])
    def test_symbolic_links(
        self, run: Run, package: Path, tmp_path: Path, target: str, options: list[str]
    ) -> None:
        write_tree(tmp_path, {"place/elsewhere": b"precious\n"})
        place = tmp_path / "place"
        (place / "store.py").symlink_to(target)
        (place / "link").symlink_to("nowhere")
        before = tree(place)
        status, _, err = run("copy", "store", place, *options)
        assert status == 2
        assert "store.py is no regular file" in err
        status, _, err = run("copy", "store", place / "link", *options)
        assert status == 2
        assert "link is a broken symbolic link" in err
        assert tree(place) == before

    def test_read_only_files_even_with_force(self, run: Run, package: Path, tmp_path: Path) -> None:
        write_tree(tmp_path, {"place/store.py": b"mine\n"})
        (tmp_path / "place" / "store.py").chmod(0o444)
        before = tree(tmp_path)
        status, _, err = run("copy", "store", tmp_path / "place", "--force")
        assert status == 2
        assert "differs and is read-only" in err
        assert tree(tmp_path) == before
        (tmp_path / "place" / "store.py").chmod(0o644)

    def test_and_says_what_the_other_file_is(self, run: Run, package: Path, tmp_path: Path) -> None:
        write_tree(tmp_path, {"place/store.py": older(package)})
        status, _, err = run("copy", "store", tmp_path / "place")
        assert status == 2
        assert "differs (older: caches/store 1.1.0 (2026-11-23)): see `check`" in err
        write_tree(tmp_path, {"place/store.py": older(package) + b"mine\n"})
        assert "differs (modified: caches/store" in run("copy", "store", tmp_path / "place")[2]

    @pytest.mark.parametrize("failing", [1, 2, 3, 4, 5])
    @pytest.mark.parametrize("error", [PermissionError(13, "no"), KeyboardInterrupt()])
    def test_what_fails_midway_is_undone(
        self,
        run: Run,
        package: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        failing: int,
        error: BaseException,
    ) -> None:
        """Each of the five replacements fails in turn."""
        write_tree(tmp_path, {"new/queues/feed.py": b"mine\n"})
        before, replaced, replace = tree(tmp_path), list[Path](), Path.replace

        def fail(path: Path, target: Path) -> Path:
            replaced.append(target)
            if len(replaced) == failing:
                raise error
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", fail)
        if isinstance(error, OSError):
            status, _, err = run("copy", "feed", tmp_path / "new", "--force")
            assert status == 2
            assert "nothing was written" in err
        else:
            with pytest.raises(KeyboardInterrupt):
                run("copy", "feed", tmp_path / "new", "--force")
        assert len(replaced) == failing
        assert tree(tmp_path) == before

    def test_a_full_disk_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """A real failure in the middle of the second file: no file may exceed 15,000 bytes."""
        pytest.importorskip("resource", reason="POSIX only")
        folder = tmp_path / "new"
        code = f"""
            import resource, sys
            from reference_impl.__main__ import main

            resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))
            sys.exit(main(["copy", "sharded_cache", {str(folder)!r}]))
            """
        done = run_python(code, expect=2)
        assert "nothing was written" in done.stderr
        assert tree(tmp_path) == {}


class TestCheck:
    @pytest.mark.parametrize(
        ("change", "but"),
        [
            (lambda data: data, ""),
            (lambda data: data.replace(b"\n", b"\r\n"), ", but for line endings"),
            (lambda data: b"\xef\xbb\xbf" + data, ", but for a byte order mark"),
            (
                lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"),
                ", but for line endings and a byte order mark",
            ),
        ],
    )
    def test_a_vetted_copy(
        self, run: Run, package: Path, tmp_path: Path, change: Change, but: str
    ) -> None:
        data = change((package / "caches/store.py").read_bytes())
        write_tree(tmp_path, {"place/renamed.py": data})
        for path in (tmp_path / "place", tmp_path / "place" / "renamed.py"):
            status, out, _ = run("check", path)
            assert status == 0
            assert f"renamed.py: vetted{but}: caches/store 1.2.0 (2026-11-23)\n" in out

    @pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
    def test_an_older_copy_and_what_has_changed_since(
        self, run: Run, package: Path, tmp_path: Path, ending: bytes
    ) -> None:
        write_tree(tmp_path, {"place/store.py": older(package).replace(b"\n", ending)})
        status, out, _ = run("check", tmp_path / "place")
        assert status == 1
        assert "caches/store 1.1.0 (2026-11-23)" in out
        assert "store.py: older" in out
        assert "  1.2.0 (2026-11-23): Work of 1.2.0.\n  More." in out
        assert "Work of 1.1.0" not in out

    def test_a_modified_copy_and_how_it_differs(
        self, run: Run, package: Path, tmp_path: Path
    ) -> None:
        data = (package / "caches/store.py").read_bytes().replace(b"Store: ...", b"Store: pass")
        write_tree(tmp_path, {"place/store.py": data.replace(b"\n", b"\r\n")})
        status, out, _ = run("check", tmp_path / "place")
        assert status == 1
        assert "store.py: modified: caches/store, whose header says 1.2.0\n" in out
        changed = [line for line in out.splitlines() if line[:1] in "+-" and line[:2] not in "+-"]
        assert [line for line in changed if line[:3] not in {"+++", "---"}] == [
            "-class Store: ...  # 1.2.0",
            "+class Store: pass  # 1.2.0",
        ]

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda data: data.replace(b"1.2.0", b"9.0.0"), "9.0.0, which is not known here"),
            (lambda data: data.replace(b"1.2.0", b"\xff"), "says \\xff, which is not known here"),
            (lambda data: data.replace(b"# Version", b"# Release"), "says no version"),
            (lambda data: data.replace(b"1.2.0", b"1.1.0", 1), "an older one whose text is not"),
            (lambda data: data.replace(b"1.2.0", b"1.1.0", 1), "Work of 1.2.0."),
            (lambda data: data[:-1], "\\ No newline at end of file"),
            (lambda data: data + b"\xff\x00\n", "+\\xff\x00"),
            (lambda data: data + "≠ größer\n".encode(), "+≠ größer"),
            (lambda data: b"# Copyright of my project\n" + data, "+# Copyright of my project"),
            (lambda data: data + b"\r", "modified"),
        ],
    )
    def test_modified_in_other_ways(
        self, run: Run, package: Path, tmp_path: Path, change: Change, says: str
    ) -> None:
        data = change((package / "caches/store.py").read_bytes())
        write_tree(tmp_path, {"place/store.py": data})
        status, out, err = run("check", tmp_path / "place")
        assert (status, err) == (1, "")
        assert "store.py: modified: caches/store, whose header says" in out
        assert says in out

    def test_one_bad_copy_among_good_ones_decides_the_status(
        self, run: Run, package: Path, tmp_path: Path
    ) -> None:
        data = (package / "caches/store.py").read_bytes()
        write_tree(tmp_path, {"place/a.py": data, "place/b.py": data + b"#\n", "place/c.py": data})
        status, out, _ = run("check", tmp_path / "place")
        assert status == 1
        assert out.count("vetted:") == 2

    def test_a_component_that_is_not_known(self, run: Run, package: Path, tmp_path: Path) -> None:
        write_tree(tmp_path, {"place/new.py": source("caches/new")})
        status, out, _ = run("check", tmp_path / "place")
        assert status == 1
        assert "unknown: there is no caches/new here" in out

    def test_a_component_that_is_no_longer_published(
        self, run: Run, package: Path, tmp_path: Path
    ) -> None:
        data = (package / "caches/store.py").read_bytes()
        (package / "caches/store.py").unlink()
        write_tree(tmp_path, {"place/a.py": data, "place/b.py": data + b"mine\n"})
        status, out, _ = run("check", tmp_path / "place")
        assert status == 1
        assert "a.py: vetted: caches/store 1.2.0" in out
        assert "b.py: modified: caches/store, which is no longer published" in out

    def test_a_folder_is_searched_for_copies_and_for_nothing_else(
        self, run: Run, package: Path, tmp_path: Path
    ) -> None:
        copy = (package / "caches/store.py").read_bytes()
        place = tmp_path / "place"
        found = ["a/b/c/deep.py", "with space/ü.py", "top.py", "z/linked/copy.py"]
        others = ["a/.hidden/x.py", ".venv/lib/x.py", "env/lib/x.py", "a/x.txt", "a/x.py.orig"]
        write_tree(place, dict.fromkeys(found + others, copy))
        write_tree(place, {"env/pyvenv.cfg": b"", "a/own.py": b"x = 1\n", "a/empty.py": b""})
        write_tree(place, {"a/binary.py": bytes(9000)})
        write_tree(tmp_path, {"elsewhere/copy.py": copy})
        (place / "z/linked/copy.py").unlink()
        (place / "z/linked").rmdir()
        (place / "z" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (place / "z" / "again").symlink_to(place / "a", target_is_directory=True)
        (place / "z" / "above").symlink_to(tmp_path, target_is_directory=True)
        (place / "folder.py").mkdir()
        (place / "dangling.py").symlink_to("nowhere")
        (place / "loop").symlink_to(place, target_is_directory=True)
        if hasattr(os, "mkfifo"):
            os.mkfifo(place / "pipe.py")
        status, out, err = run("check", place)
        assert (status, err) == (0, "")
        assert out.splitlines() == [
            f"{place / name}: vetted: caches/store 1.2.0 (2026-11-23)"
            for name in ("top.py", "a/b/c/deep.py", "with space/ü.py", "z/linked/copy.py")
        ]

    @pytest.mark.parametrize("name", ["empty", "own", "none", "none.py"])
    def test_where_there_is_no_copy_it_is_refused(
        self, run: Run, package: Path, tmp_path: Path, name: str
    ) -> None:
        """A mistyped path would look like a clean bill of health otherwise."""
        write_tree(tmp_path, {"own/own.py": b"x = 1\n"})
        (tmp_path / "empty").mkdir()
        status, out, err = run("check", tmp_path / name)
        assert (status, out) == (2, "")
        assert str(tmp_path / name) in err

    @pytest.mark.parametrize("name", ["own.py", "notes.txt", "utf16.py", "binary"])
    def test_a_file_that_is_no_copy_is_said_to_be_none(
        self, run: Run, package: Path, tmp_path: Path, name: str
    ) -> None:
        """As where pre-commit gives each file that has changed."""
        text = (package / "caches/store.py").read_text(encoding="utf-8")
        files = {"own.py": b"x = 1\n", "notes.txt": b"", "utf16.py": text.encode("utf-16")}
        write_tree(tmp_path, files | {"binary": bytes(range(256))})
        status, out, err = run("check", tmp_path / name)
        assert (status, err) == (0, "")
        assert out == f"{tmp_path / name}: no copy: its header has no component's address\n"

    def test_several_paths_are_checked_one_after_another(
        self, run: Run, package: Path, tmp_path: Path
    ) -> None:
        """The worst of them decides the status, and none is passed over."""
        data = (package / "caches/store.py").read_bytes()
        write_tree(tmp_path, {"a.py": data, "b/b.py": data + b"#\n", "own.py": b"", "c.py": data})
        paths = [tmp_path / name for name in ("a.py", "own.py", "c.py")]
        status, out, err = run("check", *paths)
        assert (status, err) == (0, "")
        assert [line.split(": ")[:2] for line in out.splitlines()] == [
            [str(paths[0]), "vetted"],
            [str(paths[1]), "no copy"],
            [str(paths[2]), "vetted"],
        ]
        status, out, _ = run("check", tmp_path / "b", *paths)
        assert status == 1
        assert out.count("vetted:") == 2
        status, out, err = run("check", tmp_path / "gone", tmp_path / "b", paths[0])
        assert status == 2
        assert "b.py: modified" in out
        assert "a.py: vetted" in out
        assert f"there is no {tmp_path / 'gone'}" in err

    @pytest.mark.parametrize(
        "above",
        [b"#" * 5000 + b"\n", b'"""Of my project.\n' + b"Words.\n" * 9000 + b'"""\n'],
        ids=["a comment", "a docstring"],
    )
    def test_a_long_header_of_the_project_hides_no_copy(
        self, run: Run, package: Path, tmp_path: Path, above: bytes
    ) -> None:
        """Nor is a version in it taken for ours."""
        own = b"# Version 7 (2020-01-01)\n" + above
        data = own + (package / "caches/store.py").read_bytes()
        write_tree(tmp_path, {"place/store.py": data, "linked/x.py": b""})
        (tmp_path / "linked" / "place").symlink_to(tmp_path / "place", target_is_directory=True)
        for place in ("place", "place/store.py", "linked"):
            status, out, _ = run("check", tmp_path / place)
            assert status == 1
            assert "store.py: modified: caches/store, whose header says 1.2.0\n" in out

    def test_a_file_that_cannot_be_read_is_an_error(
        self, run: Run, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copy = (package / "caches/store.py").read_bytes()
        write_tree(tmp_path, {"place/a.py": copy, "place/b.py": copy})
        opened = Path.open

        def fail(path: Path, *arguments: Any, **options: Any) -> Any:
            if path.name == "b.py":
                raise PermissionError(13, "Permission denied", str(path))
            return opened(path, *arguments, **options)

        monkeypatch.setattr(Path, "open", fail)
        status, out, err = run("check", tmp_path / "place")
        assert status == 2
        assert "a.py: vetted" in out
        assert f"{tmp_path / 'place' / 'b.py'}: Permission denied" in err

    def test_a_terminal_without_unicode_is_no_trouble(self, tmp_path: Path) -> None:
        data = (COMPONENTS / "caches/ttl_cache.py").read_bytes() + "# größer\n".encode()
        write_tree(tmp_path, {"copy.py": data})
        done = subprocess.run(
            [sys.executable, "-m", "reference_impl", "check", str(tmp_path)],
            cwd=ROOT,
            env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        assert b"+# gr\\xf6\\xdfer" in done.stdout
