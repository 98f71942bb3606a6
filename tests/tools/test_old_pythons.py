"""The copy tool on a Python that is too old: a sentence, and the status 2."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit import ROOT


def interpreter(version: str) -> str:
    """Where this Python is, by pyenv or on the PATH; skips the test where it is not."""
    root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    for place in sorted(root.glob(f"versions/{version}.*/bin/python")):
        return str(place)
    found = shutil.which(f"python{version}")
    works = found and subprocess.run([found, "-c", ""], capture_output=True, check=False)
    if not works or works.returncode:
        pytest.skip(f"Python {version} is not installed")
    return str(found)


@pytest.mark.parametrize("command", [["list"], ["copy", "ttl_cache", "{}"], []])
@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7", "3.8", "3.9", "3.10"])
def test_an_old_python_is_told_so(version: str, command: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [interpreter(version), "-B", "-m", "reference_impl"]
        + [word.format(tmp_path / "new") for word in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: the components need Python 3.11 or newer, and this is Python {version}: "
        "run the copy tool by a newer one, such as `python3.13 -m reference_impl`\n"
    )
    assert not (tmp_path / "new").exists()
