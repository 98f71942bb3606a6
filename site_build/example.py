"""Record the session that the page *Copy, change, prove* shows: a copy that lost a lock.

`python -m site_build.example` runs it and writes the record; a test runs it again and compares.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.kit import ROOT

RECORD = ROOT / "docs" / "evidence" / "prove" / "session.txt"
EDIT = ("return self._locked(self._delete_locked, key)", "return self._delete_locked(key)")
_COPY = "your_package/vendored/ttl_cache.py"
_CHECK = ("check", _COPY)
_PROVE = ("prove", "--guarantee", "TC-1", "--guarantee", "TC-4", _COPY)
_PROGRAM = "executable-guarantees"


def session() -> str:
    """What a terminal shows of it."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "your_package")
        package.mkdir()
        (package / "__init__.py").touch()
        _run(folder, 0, "copy", "ttl_cache", "your_package/vendored")
        copy = Path(folder, _COPY)
        text = copy.read_text(encoding="utf-8")
        if text.count(EDIT[0]) != 1:
            raise ValueError(f"the component has changed: choose another edit than {EDIT[0]!r}")
        copy.write_text(text.replace(*EDIT), encoding="utf-8")
        return "\n".join(_run(folder, 1, *words) for words in (_CHECK, _PROVE))


def _run(folder: str, status: int, *words: str) -> str:
    # As the script that the wheel installs: the tool names itself as it was started.
    start = f"import sys; sys.argv[0] = {_PROGRAM!r}; from reference_impl.__main__ import main"
    command = [sys.executable, "-c", f"{start}; sys.exit(main())", *words]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    if done.returncode != status:
        raise RuntimeError(f"{words}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return f"$ {_PROGRAM} {' '.join(words)}\n{done.stdout}"


if __name__ == "__main__":
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(session(), encoding="utf-8")
    print(f"wrote {RECORD.relative_to(ROOT)}")
