"""The command line: its name and version, options between names, what it is told to look at."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.kit import ROOT
from tests.tools.helpers import Run, older, tree, write_tree


@pytest.mark.parametrize(
    ("started_as", "name"),
    [
        ("/usr/bin/executable-guarantees", "executable-guarantees"),
        ("C:/Scripts/executable-guarantees.exe", "executable-guarantees"),
        ("/clone/reference_impl/__main__.py", "python -m reference_impl"),
        ("/usr/bin/pytest", "python -m reference_impl"),
        ("", "python -m reference_impl"),
    ],
)
def test_messages_name_the_program_as_it_was_started(
    run: Run,
    package: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started_as: str,
    name: str,
) -> None:
    monkeypatch.setattr(sys, "argv", [started_as])
    assert f"usage: {name} [-h]" in run("--help")[1]
    assert f"usage: {name} check [-h]" in run("check", "--help")[1]
    place = tmp_path / "a"
    assert f"Check it later: {name} check {place}\n" in run("copy", "store", place)[1]
    write_tree(place, {"store.py": older(package) + b"mine = 1\n"})
    out = run("check", place)[1]
    assert f"{name} update --dry-run {place}\n" in out
    assert f"{name} prove {place}\n" in out
    assert f"{name} prove {place / 'store.py'}\n" in run("update", place)[1]


def test_the_version_is_that_of_the_distribution(run: Run) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    status, out, _ = run("--version")
    assert status == 0
    assert out == f"executable-guarantees {settings['project']['version']}\n"


def test_the_help_tells_every_command_and_status(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    for command in ("list", "show", "copy", "check", "update", "prove"):
        assert f"\n    {command} " in out
    for status_of in ("  list, show, copy  0", "  check             0", "  update            0"):
        assert f"{status_of} " in out


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(
    ("command", "option"), [("check", "--allow-formatted"), ("update", "--dry-run")]
)
def test_an_option_may_stand_between_paths(
    run: Run, package: Path, tmp_path: Path, command: str, option: str, position: int
) -> None:
    data = (package / "caches/store.py").read_bytes() + b"# mine\n"
    write_tree(tmp_path, {"a/store.py": data, "b/store.py": data})
    words: list[object] = [tmp_path / "a", tmp_path / "b"]
    words.insert(position, option)
    assert run(command, *words)[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--as", "{}", "--guarantee=XX-1", "a.py"],
        ["a.py", "--as", "{}", "--guarantee", "XX-1"],
        ["--guarantee", "XX-1", "a.py", "--as", "{}"],
        ["a.py", "--as={}"],
    ],
)
def test_an_option_of_prove_keeps_its_value(run: Run, words: list[str]) -> None:
    """It is refused for its value, which is no component."""
    status, _, err = run("prove", *(word.format("nothing") for word in words), "b.py")
    assert status == 2
    assert "usage:" not in err
    assert "there is no a.py" in err or "no component 'nothing'" in err


@pytest.mark.parametrize("words", [["-x"], ["--all=1"], ["--unknown", "a"]])
def test_an_unknown_option_is_refused(run: Run, words: list[str]) -> None:
    for command in ("check", "update"):
        status, out, err = run(command, *words)
        assert (status, out) == (2, "")
        assert "error: " in err


@pytest.mark.parametrize("command", ["check", "update"])
def test_all_is_the_current_folder(
    run: Run, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    data = (package / "caches/store.py").read_bytes()
    write_tree(tmp_path, {"here/a/store.py": data, "here/b.py": b"x = 1\n", "there/store.py": b""})
    monkeypatch.chdir(tmp_path / "here")
    status, out, _ = run(command, "--all")
    assert status == 0
    assert [line.partition(":")[0] for line in out.splitlines()] == [str(Path("a/store.py"))]
    status, _, err = run(command, "--all", "a")
    assert status == 2
    assert "--all takes a as well, if it is here: name paths, or --all" in err
    status, _, err = run(command)
    assert status == 2
    assert f"usage: python -m reference_impl {command}" in err
    assert "name copies, folders or components, or --all" in err


@pytest.mark.parametrize("name", ["store", "Store", "caches/store", "store.py"])
def test_a_component_stands_for_its_copies_in_the_current_folder(
    run: Run, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    files = {"a/x.py": older(package), "b/store.py": older(package)}
    other = (package / "queues/other.py").read_bytes() + b"x = 1\n"
    write_tree(tmp_path / "here", files | {"b/other.py": other})
    monkeypatch.chdir(tmp_path / "here")
    status, out, err = run("check", name)
    assert (status, err) == (1, "")
    assert out.count(": older: caches/store 1.1.0") == 2
    assert "other" not in out
    assert run("update", name)[0] == 0
    assert run("check", name)[0] == 0
    assert tree(Path())["b/other.py"] == other.decode()
    write_tree(Path(), {"a/x.py": older(package) + b"mine = 1\n"})
    assert f"python -m reference_impl prove {Path('a/x.py')}\n" in run("check", name)[1]
    status, _, err = run("check", "feed")
    assert status == 2
    assert "there is no copy of queues/feed in the current folder or below it" in err


def test_what_is_there_goes_before_a_component_of_the_same_name(
    run: Run, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (package / "queues/other.py").read_bytes()
    write_tree(tmp_path, {"store/other.py": data, "store.py": older(package)})
    monkeypatch.chdir(tmp_path)
    assert run("check", "store")[1] == (
        f"{Path('store/other.py')}: vetted: queues/other 1.0.0 (2026-11-23)\n"
    )


def test_both_ways_to_start_it_are_one(tmp_path: Path) -> None:
    """As pip makes the script of the distribution's entry point."""
    script = tmp_path / "executable-guarantees"
    code = "import sys\nfrom reference_impl.__main__ import main\nsys.exit(main())\n"
    script.write_text(code, encoding="utf-8")
    outs = [
        subprocess.run(
            [sys.executable, *words, "check", "gone"],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        for words in ([str(script)], ["-m", "reference_impl"])
    ]
    assert [(done.returncode, done.stderr) for done in outs] == [(2, outs[0].stderr)] * 2
    assert "there is no gone" in outs[0].stderr
