"""The machinery can fail: markers, twins, evidence and subprocesses refuse what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from site_build.evidence import merge
from tests.kit import ROOT
from tests.kit.catalogue import components, digests, promises
from tests.kit.process import run_python
from tests.kit.twins import twin


def run_pytest(code: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    file = folder / "test_sample.py"
    file.write_text(code, encoding="utf-8")
    settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder)]
    plugins = ["-p", "tests.kit.ledger", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *settings, *plugins, *options, str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_test_that_names_an_unknown_guarantee_fails_the_run(tmp_path: Path) -> None:
    code = "import pytest\n@pytest.mark.guarantee('ZZ-9')\ndef test_it(): pass\n"
    done = run_pytest(code, tmp_path)
    assert done.returncode != 0
    assert "names ZZ-9, which no page promises" in done.stdout + done.stderr


def test_evidence_of_another_source_is_refused() -> None:
    component = components()[0]
    proved = {"guarantees": list(promises(component))[:1], "twins": []}
    stale = {"python": "CPython", "sources": {}, "results": [proved]}
    with pytest.raises(SystemExit, match="has changed since"):
        merge(component, [stale])


def test_evidence_with_a_failed_test_is_refused() -> None:
    component = components()[0]
    failed = {"test": "test_x", "outcome": "failed", "explored": [], "examples": 0}
    failed |= {"guarantees": list(promises(component))[:1], "twins": []}
    sources = digests(component)
    raw = {"python": "CPython", "version": [3], "sources": sources, "results": [failed]}
    with pytest.raises(SystemExit, match="test_x failed"):
        merge(component, [raw])


def test_a_twin_that_would_be_the_original_is_refused() -> None:
    with pytest.raises(AssertionError, match="mend the twin"):
        twin("caches/ttl_cache.py", ("this text is nowhere in the file", "x"))
    with pytest.raises(AssertionError, match="by itself"):
        twin("caches/ttl_cache.py", ("import", "import"))


def test_a_twin_is_a_module_of_its_own() -> None:
    import reference_impl.caches.ttl_cache as original

    broken = twin("caches/ttl_cache.py", ("__all__ = [", '__all__ = ["Broken", '))
    assert "Broken" in broken.__all__
    assert "Broken" not in original.__all__
    assert broken.TTLCache is not original.TTLCache


def test_a_subprocess_that_fails_or_warns_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="exit code 3"):
        run_python("raise SystemExit(3)")
    with pytest.raises(AssertionError, match="UserWarning"):
        run_python("import warnings; warnings.warn('left open')")


def test_a_thread_that_a_test_leaves_behind_is_reported(tmp_path: Path) -> None:
    """The fixture of tests/conftest.py, run on a test that leaks a thread."""
    code = (
        "import threading\n"
        "from tests.conftest import _no_thread_is_left\n"
        "release = threading.Event()\n"
        "def test_leak():\n"
        "    threading.Thread(target=release.wait, daemon=True).start()\n"
    )
    done = run_pytest(code, tmp_path)  # the fixture is autouse once it is imported
    assert done.returncode != 0
    assert "left threads behind" in done.stdout
