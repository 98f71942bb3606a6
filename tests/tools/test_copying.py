"""The copy tool: `python -m reference_impl list | show | copy`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reference_impl import _copying
from tests.kit import COMPONENTS, ROOT
from tests.kit.catalogue import closure, components
from tests.kit.process import run_python
from tests.tools.helpers import Run, import_isolated, older, tree, write_tree

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
        assert (
            "differs (modified: from caches/store 1.1.0"
            in run("copy", "store", tmp_path / "place")[2]
        )

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
        """Each of the five replacements fails in turn; undoing them does not."""
        write_tree(tmp_path, {"new/queues/feed.py": b"mine\n"})
        before, replaced, replace = tree(tmp_path), list[Path](), Path.replace

        def fail(path: Path, target: Path) -> Path:
            if len(replaced) < failing:
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
