"""`check`: what a copy turns out to be, and where copies are looked for."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reference_impl import _copying, _history
from tests.kit import COMPONENTS, ROOT
from tests.tools.helpers import Change, Run, older, record, source, write_tree


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
def test_a_vetted_copy(run: Run, package: Path, tmp_path: Path, change: Change, but: str) -> None:
    data = change((package / "caches/store.py").read_bytes())
    write_tree(tmp_path, {"place/renamed.py": data})
    for path in (tmp_path / "place", tmp_path / "place" / "renamed.py"):
        status, out, _ = run("check", path)
        assert status == 0
        assert f"renamed.py: vetted{but}: caches/store 1.2.0 (2026-11-23)\n" in out


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_an_older_copy_and_what_has_changed_since(
    run: Run, package: Path, tmp_path: Path, ending: bytes
) -> None:
    write_tree(tmp_path, {"place/store.py": older(package).replace(b"\n", ending)})
    status, out, _ = run("check", tmp_path / "place")
    assert status == 1
    assert "caches/store 1.1.0 (2026-11-23)" in out
    assert "store.py: older" in out
    assert "  1.2.0 (2026-11-23): Work of 1.2.0.\n  More." in out
    assert "Work of 1.1.0" not in out


def test_a_modified_copy_and_how_it_differs(run: Run, package: Path, tmp_path: Path) -> None:
    data = newest(package).replace(b"Store: ...", b"Store: pass")
    write_tree(tmp_path, {"place/store.py": data.replace(b"\n", b"\r\n")})
    status, out, _ = run("check", tmp_path / "place")
    assert status == 1
    assert "store.py: modified: from caches/store 1.2.0 (2026-11-23), 1 line changed\n" in out
    assert changed_lines(out) == [
        "-class Store: ...  # 1.2.0",
        "+class Store: pass  # 1.2.0",
    ]
    assert f"Which guarantees still hold: python -m reference_impl prove {tmp_path}" in out
    assert "What would update it" not in out


def test_a_modified_copy_is_compared_with_the_version_that_it_came_from(
    run: Run, package: Path, tmp_path: Path
) -> None:
    write_tree(tmp_path, {"place/store.py": older(package).replace(b"...", b"pass")})
    status, out, _ = run("check", tmp_path / "place")
    assert status == 1
    assert "modified: from caches/store 1.1.0 (2026-11-23), 1 line changed\n" in out
    assert "--- caches/store.py 1.1.0\n" in out
    assert changed_lines(out) == ["-class Store: ...  # 1.1.0", "+class Store: pass  # 1.1.0"]
    assert "  1.2.0 (2026-11-23): Work of 1.2.0.\n  More." in out
    assert "What would update it: python -m reference_impl update --dry-run" in out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data.replace(b"1.2.0", b"9.0.0", 1), "9.0.0, which is not known here: this"),
        (lambda data: data.replace(b"1.2.0", b"\xff", 1), "says \\xff, which is not known here"),
        (lambda data: data.replace(b"# Version", b"# Release"), "says no version: this"),
        (lambda data: data.replace(b"more = 1\n", b"more = 1"), "\\ No newline at end of file"),
        (lambda data: data + b"\xff\x00\n", "+\\xff\x00"),
        (lambda data: data + "≠ größer\n".encode(), "+≠ größer"),
        (
            lambda data: b'"""Copyright of my project."""\n' + data,
            '+"""Copyright of my project."""',
        ),
        (lambda data: b"# Version 1.0.0 (2026-11-23)\n" + data, "+# Version 1.0.0 (2026-11-23)"),
        (lambda data: b"\xef\xbb\xbf#\r\n" + data.replace(b"\n", b"\r\n"), "+#\n"),
    ],
)
@pytest.mark.parametrize("version", ["1.2.0", "1.1.0"])
def test_modified_in_other_ways(
    run: Run, package: Path, tmp_path: Path, change: Change, says: str, version: str
) -> None:
    data = _history.text("caches/store", version) or b""
    data = change(data.replace(version.encode(), b"1.2.0") + b"more = 1\n")
    write_tree(tmp_path, {"place/store.py": data.replace(b"1.2.0", version.encode())})
    status, out, err = run("check", tmp_path / "place")
    assert (status, err) == (1, "")
    assert f"store.py: modified: from caches/store {version} (2026-11-23)" in out
    assert says in out


LAID_OUT: dict[str, Change] = {
    "no newline at the end": lambda data: data[:-1],
    "a comment": lambda data: data + b"# mine\n",
    "a header above": lambda data: b"# Copyright of my project\n" * 500 + data,
    "parentheses": lambda data: data.replace(b"del one, two", b"del (\n    one,\n    two,\n)"),
    "lines": lambda data: data.replace(b"class Store: ...", b"class Store:\n\n  ...\n"),
    "line endings, too": lambda data: (data + b"#\n").replace(b"\n", b"\r\n"),
    "an empty line by an old Mac": lambda data: data + b"\r",
    "no version in the header": lambda data: data.replace(b"# Version", b"# Release"),
}


@pytest.mark.parametrize("change", LAID_OUT)
@pytest.mark.parametrize("version", ["1.2.0", "1.1.0"])
def test_a_formatted_copy_has_the_same_code(
    run: Run, package: Path, tmp_path: Path, change: str, version: str
) -> None:
    write_tree(package, {"caches/store.py": documented("1.2.0")})
    record(package, {"caches/store": [documented("1.2.0"), documented("1.1.0")]})
    text = documented(version)
    write_tree(tmp_path, {"place/store.py": LAID_OUT[change](text)})
    status, out, _ = run("check", tmp_path / "place")
    assert status == 1
    says = f"formatted: caches/store {version} (2026-11-23), the same code; only layout or comments"
    assert says in out
    assert ("Work of 1.2.0." in out) is (version == "1.1.0")
    status, _, _ = run("check", "--allow-formatted", tmp_path / "place")
    assert status == (version == "1.1.0")


def documented(version: str) -> bytes:
    """A version of the store with docstrings; its value is the version."""
    body = f'"""Words.\n\n    More.\n"""\n\nVALUE = "{version}"\n\n\nclass Store: ...\n'
    body += "one = two = 1\ndel one, two\n"
    return source("caches/store", body, version=version)


def test_the_indentation_of_a_docstring_is_layout_and_its_words_are_none(package: Path) -> None:
    text = source("caches/store", 'class Store:\n    """One.\n\n    Two.\n    """\n')
    write_tree(package, {"caches/store.py": text})
    record(package, {"caches/store": [text]})
    body = text.replace(b"\n    ", b"\n  ").replace(b"One.\n", b"One.  \n")
    assert kind(body) == "formatted"
    assert kind(text.replace(b"Two", b"Three")) == "modified"
    assert kind(text.replace(b'"""One', b'f"""One')) == "modified"


def kind(data: bytes) -> str | None:
    verdict = _copying.judge(data)
    return verdict.kind if verdict else None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: data, ("vetted", "1.2.0", 0)),
        (lambda data: data.replace(b"1.2.0", b"1.1.0"), ("older", "1.1.0", 0)),
        (lambda data: data + b"#\n#\n", ("formatted", "1.2.0", 2)),
        (lambda data: data.replace(b"# 1.2.0", b"\nx = 1\n"), ("modified", "1.2.0", 3)),
        (lambda data: data.replace(b"Store", b"Shop"), ("modified", "1.2.0", 1)),
        (lambda data: data.replace(b"caches/store.", b"caches/shop."), ("unknown", None, 0)),
    ],
)
def test_a_verdict_in_fields(
    package: Path, change: Change, expected: tuple[str, str | None, int]
) -> None:
    verdict = _copying.judge(change(newest(package)))
    assert verdict is not None
    assert (verdict.kind, verdict.version, verdict.changed) == expected
    assert verdict.path == ("caches/shop" if verdict.kind == "unknown" else "caches/store")
    assert verdict.is_newest is (verdict.version == "1.2.0")


def test_a_copy_of_an_unknown_version_is_compared_with_the_nearest(package: Path) -> None:
    """The header names none of them, and the file is nearer to the middle one."""
    texts = [
        source("caches/store", "".join(f"line{each} = {each}\n" for each in lines), version=version)
        for version, lines in (("1.2.0", range(9)), ("1.1.0", range(6)), ("1.0.0", range(2)))
    ]
    write_tree(package, {"caches/store.py": texts[0]})
    record(package, {"caches/store": texts})
    data = texts[1].replace(b"1.1.0", b"0.5.0").replace(b"line3 = 3\n", b"")
    verdict = _copying.judge(data)
    assert verdict is not None
    assert (verdict.kind, verdict.version, verdict.changed) == ("modified", "1.1.0", 2)


def newest(package: Path) -> bytes:
    return (package / "caches/store.py").read_bytes()


def changed_lines(out: str) -> list[str]:
    """The lines of the diff that differ."""
    return [line for line in out.splitlines() if line[:1] in set("+-") and line[:3] not in HEADS]


HEADS = {"+++", "---"}


def test_one_bad_copy_among_good_ones_decides_the_status(
    run: Run, package: Path, tmp_path: Path
) -> None:
    data = (package / "caches/store.py").read_bytes()
    write_tree(tmp_path, {"place/a.py": data, "place/b.py": data + b"x = 1\n", "place/c.py": data})
    status, out, _ = run("check", tmp_path / "place")
    assert status == 1
    assert out.count("vetted:") == 2


def test_a_component_that_is_not_known(run: Run, package: Path, tmp_path: Path) -> None:
    write_tree(tmp_path, {"place/new.py": source("caches/new")})
    status, out, _ = run("check", tmp_path / "place")
    assert status == 1
    assert "unknown: there is no caches/new here" in out


def test_a_component_that_is_no_longer_published(run: Run, package: Path, tmp_path: Path) -> None:
    data, old = newest(package), older(package)
    (package / "caches/store.py").unlink()
    record(package, {"caches/store": [data, old]})
    files = {"a.py": data, "b.py": data + b"mine = 1\n", "c.py": old, "d.py": old + b"mine = 1\n"}
    write_tree(tmp_path / "place", files)
    status, out, _ = run("check", tmp_path / "place")
    assert status == 1
    assert "a.py: vetted: caches/store 1.2.0" in out
    assert "b.py: modified: from caches/store 1.2.0 (2026-11-23), 1 line changed" in out
    assert "c.py: older: caches/store 1.1.0" in out
    assert "d.py: modified: from caches/store 1.1.0 (2026-11-23), 1 line changed" in out


def test_a_folder_is_searched_for_copies_and_for_nothing_else(
    run: Run, package: Path, tmp_path: Path
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
    run: Run, package: Path, tmp_path: Path, name: str
) -> None:
    """A mistyped path would look like a clean bill of health otherwise."""
    write_tree(tmp_path, {"own/own.py": b"x = 1\n"})
    (tmp_path / "empty").mkdir()
    status, out, err = run("check", tmp_path / name)
    assert (status, out) == (2, "")
    assert str(tmp_path / name) in err


@pytest.mark.parametrize("name", ["own.py", "notes.txt", "utf16.py", "binary"])
def test_a_file_that_is_no_copy_is_said_to_be_none(
    run: Run, package: Path, tmp_path: Path, name: str
) -> None:
    """As where pre-commit gives each file that has changed."""
    text = (package / "caches/store.py").read_text(encoding="utf-8")
    files = {"own.py": b"x = 1\n", "notes.txt": b"", "utf16.py": text.encode("utf-16")}
    write_tree(tmp_path, files | {"binary": bytes(range(256))})
    status, out, err = run("check", tmp_path / name)
    assert (status, err) == (0, "")
    assert out == f"{tmp_path / name}: no copy: its header has no component's address\n"


def test_several_paths_are_checked_one_after_another(
    run: Run, package: Path, tmp_path: Path
) -> None:
    """The worst of them decides the status, and none is passed over."""
    data = (package / "caches/store.py").read_bytes()
    write_tree(tmp_path, {"a.py": data, "b/b.py": data + b"x = 1\n", "own.py": b"", "c.py": data})
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
    ("above", "kind"),
    [
        (b"#" * 5000 + b"\n", "formatted"),
        (b'"""Of my project.\n' + b"Words.\n" * 9000 + b'"""\n', "modified"),
    ],
    ids=["a comment", "a docstring"],
)
def test_a_long_header_of_the_project_hides_no_copy(
    run: Run, package: Path, tmp_path: Path, above: bytes, kind: str
) -> None:
    """Nor is a version in it taken for ours."""
    own = b"# Version 7 (2020-01-01)\n" + above
    data = own + (package / "caches/store.py").read_bytes()
    write_tree(tmp_path, {"place/store.py": data, "linked/x.py": b""})
    (tmp_path / "linked" / "place").symlink_to(tmp_path / "place", target_is_directory=True)
    for place in ("place", "place/store.py", "linked"):
        status, out, _ = run("check", tmp_path / place)
        assert status == 1
        assert f"store.py: {kind}: {'from ' * (kind == 'modified')}caches/store 1.2.0" in out


def test_a_file_that_cannot_be_read_is_an_error(
    run: Run, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_a_terminal_without_unicode_is_no_trouble(tmp_path: Path) -> None:
    data = (COMPONENTS / "caches/ttl_cache.py").read_bytes() + '"größer"\n'.encode()
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
    assert b'+"gr\\xf6\\xdfer"' in done.stdout
