"""The texts of earlier versions: all there, each byte for byte, and never in silence wrong."""

import json
from pathlib import Path

import pytest

from reference_impl import _copying, _history
from reference_impl.__main__ import main
from reference_impl._components import digest
from tests.tools.helpers import Run, clear_caches, older, tree, write_tree

EVERY_VERSION = [
    (path, version) for path, recorded in _copying.versions().items() for version in recorded
]


@pytest.mark.parametrize(("path", "version"), EVERY_VERSION)
def test_the_text_of_every_version_is_kept(path: str, version: str) -> None:
    try:
        text = _history.text(path, version)
    except _copying.CopyError as error:
        pytest.fail(f"{error} (or, in the repository, run `python -m site_build.versions`)")
    assert text is not None
    assert digest(text) == _copying.versions()[path][version]["sha256"]
    assert f"# Version {version} (".encode() in text


def test_there_is_no_text_of_a_version_that_never_was() -> None:
    assert _history.text("caches/ttl_cache", "0.0.1") is None
    assert _history.text("caches/never_was", "1.0.0") is None


def test_edits_replace_insert_and_remove_lines() -> None:
    newer = b"one\ntwo\nthree\nfour"
    assert _history.apply([], newer) == newer
    edits: list[_history.Edit] = [(0, 0, "zero\n"), (1, 2, "2\n"), (3, 4, "")]
    assert _history.apply(edits, newer) == b"zero\none\n2\nthree\n"


@pytest.mark.parametrize(
    "text",
    [None, "", "{", "{}", "[]", '{"caches/store": {}}', '{"caches/store": {"1.1.0": []}}', "null"],
)
@pytest.mark.parametrize("command", ["check", "update"])
def test_a_package_without_its_history_judges_no_changed_copy(
    run: Run, package: Path, tmp_path: Path, text: str | None, command: str
) -> None:
    mine = older(package) + b"mine = 1\n"
    (package / "history.json").unlink()
    if text is not None:
        (package / "history.json").write_text(text, encoding="utf-8")
    clear_caches()
    write_tree(tmp_path, {"a/store.py": mine})
    status, _, err = run(command, tmp_path / "a")
    assert status == 2
    assert "history.json" in err
    assert "install it again" in err or "install the package again" in err
    assert tree(tmp_path / "a") == {"store.py": mine.decode()}


def test_a_history_of_other_texts_is_refused(run: Run, package: Path, tmp_path: Path) -> None:
    place = package / "history.json"
    history = json.loads(place.read_text(encoding="utf-8"))
    history["caches/store"]["1.0.0"][0][2] += "more\n"
    place.write_text(json.dumps(history), encoding="utf-8")
    clear_caches()
    (tmp_path / "store.py").write_bytes((package / "caches/store.py").read_bytes() + b"x = 1\n")
    status, _, err = run("check", tmp_path / "store.py")
    assert status == 2
    assert "caches/store.py or history.json is not as it was published, so that 1.0.0 cannot" in err


def test_an_earlier_version_is_shown_byte_for_byte(
    package: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for words in (["store", "--version", "1.1.0"], ["--version=1.1.0", "Store"]):
        assert main(["show", *words]) == 0
        assert capfdbinary.readouterr().out == older(package)


def test_an_earlier_version_that_never_was_is_refused(run: Run, package: Path) -> None:
    status, out, err = run("show", "--version", "2.0.0", "store")
    assert (status, out) == (2, "")
    assert "caches/store has no version '2.0.0': it has 1.2.0, 1.1.0, 1.0.0" in err
