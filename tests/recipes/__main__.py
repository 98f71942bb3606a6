"""`python -m tests.recipes FOLDER`: the recipes' Python as files, for mypy and pyright."""

import re
import shutil
import sys
from pathlib import Path

from reference_impl.__main__ import main as copy_tool
from tests.kit import ROOT

GUIDES = ROOT / "docs" / "guides"
_FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write(folder: Path) -> list[Path]:
    """Write each fence of the recipes' pages, the apps, and the copies that these import."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = []
    for page in sorted(GUIDES.glob("*_recipes.md")):
        text = page.read_text(encoding="utf-8")
        for fence in _FENCE.finditer(text):
            line = text.count("\n", 0, fence.start(1))
            files.append(folder / f"{page.stem}_{line + 1}.py")
            files[-1].write_text("\n" * line + fence[1], encoding="utf-8")
    for app in sorted((GUIDES / "recipes").glob("*.py")):
        files.append(Path(shutil.copy(app, folder)))
        command = copying(app)
        command[-1] = str(folder / command[-1])
        if copy_tool(command):
            raise SystemExit(f"{app.name} does not say how to copy what it imports")
    return files


def copying(app: Path) -> list[str]:
    """The arguments for the copy tool that the app's docstring tells its reader."""
    _, _, rest = app.read_text(encoding="utf-8").partition("-m reference_impl ")
    return rest.splitlines()[0].split()


if __name__ == "__main__":
    print(f"{len(write(Path(sys.argv[1])))} files to check in {sys.argv[1]}")
