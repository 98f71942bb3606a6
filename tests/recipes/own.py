"""`python -m tests.recipes.own [NAME…]`: prove the caches of the page about one's own, anew.

What the tool says is kept beside each, as the page shows it: `own_dict_cache.txt`.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kit import ROOT

RECIPES = ROOT / "docs" / "guides" / "recipes"
ADAPTERS = {
    "own_dict_cache": "DictCache",
    "own_cachetools_cache": "CachetoolsCache",
    "own_racy_cache": "RacyCache",
}


@contextmanager
def project() -> Iterator[Path]:
    """A folder with the page's files."""
    with tempfile.TemporaryDirectory() as folder:
        for path in RECIPES.glob("own_*.py"):
            shutil.copy(path, folder)
        yield Path(folder)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a module of Python there, which finds this clone."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=1_800,
        check=False,
    )


def prove(name: str, *options: str) -> str:
    """What `prove` says of one of them, after the command line that a reader would type."""
    words = ["prove", "--adapter", f"{name}:{ADAPTERS[name]}", "--as", "ttl_cache", *options]
    with project() as folder:
        done = run(folder, "reference_impl", *words)
    if done.returncode == 2:
        raise SystemExit(done.stderr)
    return f"$ executable-guarantees {' '.join(words)}\n{done.stdout}"


def words_of(report: str) -> dict[str, str]:
    """The word for each guarantee in a report."""
    row = r"^([A-Z]{2}-\d+) +(holds|BROKEN|suspect|not offered|not shown)\b"
    return dict(re.findall(row, report, re.MULTILINE))


if __name__ == "__main__":
    for each in sys.argv[1:] or ADAPTERS:
        (RECIPES / f"{each}.txt").write_text(prove(each), encoding="utf-8")
        print(f"docs/guides/recipes/{each}.txt")
