"""What the build makes for the labs, and what it does where npm cannot be reached."""

import io
import zipfile
from pathlib import Path

import pytest

from site_build import lab
from tests.scenes import scenes


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lab's folder, empty but for its own Python."""
    for path in lab.LAB.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(lab, "LAB", tmp_path)
    monkeypatch.setattr(lab, "VENDOR", tmp_path / "vendor")
    monkeypatch.setattr(lab, "_WORK", tmp_path / "work")
    return tmp_path


def test_without_npm_the_site_is_built_and_says_so(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "lab.zip").touch()  # of a build before
    monkeypatch.setattr(lab, "_run", lambda *_: "npm error code ENOTFOUND")
    lab.prepare()
    said = "The site is built without the lab: npm could not fetch it (npm error code ENOTFOUND)\n"
    assert capsys.readouterr().out == said
    assert not lab.is_there()
    assert "This build of the site has no lab" in lab.element("ttl_cache")
    assert "data-lab" not in lab.element("ttl_cache")


def test_what_is_pinned_is_fetched_once(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(tool: str, *arguments: str) -> str:
        ran.append(tool)
        packages = elsewhere / "work" / "node_modules" / "pyodide"
        packages.mkdir(parents=True, exist_ok=True)
        for name in lab._PYODIDE:
            (packages / name).touch()
        with zipfile.ZipFile(packages / lab._STDLIB, "w") as library:
            for name in ("json/__init__.py", "pdb.py", "encodings/cp437.py", "encodings/cp500.py"):
                library.writestr(name, "")
        about = '{"name": "pyodide", "version": "1", "license": "MPL-2.0", "repository": "x"}'
        (packages / "package.json").write_text(about)
        lab.VENDOR.mkdir(exist_ok=True)
        return ""

    monkeypatch.setattr(lab, "_run", run)
    lab.prepare()
    lab.prepare()
    assert ran == ["npm", "node"]
    assert lab.is_there()
    assert 'data-lab="ttl_cache"' in lab.element("ttl_cache")
    assert "pyodide 1, MPL-2.0: x" in (lab.VENDOR / "LICENCES.txt").read_text()
    kept = zipfile.ZipFile(lab.VENDOR / lab._STDLIB).namelist()
    assert kept == ["json/__init__.py", "encodings/cp437.py"]
    offered = {scene.of for scene in scenes().values() if scene.lab}
    assert {path.stem for path in (elsewhere / "labs").glob("*.json")} == offered


def test_the_archive_holds_what_the_lab_imports() -> None:
    names = set(zipfile.ZipFile(io.BytesIO(lab._archive())).namelist())
    wanted = {
        "search.py",
        "fibers.py",
        "blocks.py",
        "tests/kit/recording.py",
        "detangle/__init__.py",
    }
    wanted |= {"interleave_test/__init__.py", "reference_impl/caches/ttl_cache.py"}
    assert wanted <= names
