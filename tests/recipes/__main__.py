"""`python -m tests.recipes FOLDER`: the recipes' Python as files, for mypy and pyright."""

import re
import shutil
import sys
from pathlib import Path

from reference_impl.__main__ import main as copy_tool
from tests.kit import ROOT
from tests.kit.vendored import lay_out

GUIDES = ROOT / "docs" / "guides"
_FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Appended to the fence that has this line: a decorated function keeps its parameters and result.
# An ignore that is not needed is an error for mypy.
_CLAIMS = {
    "class Cached(Generic[P, K, R]):": """
from typing import assert_type
assert_type(length("a7"), int)
assert_type(north.find("b1"), str)
length(1)  # type: ignore[arg-type]
north.find(1)  # type: ignore[arg-type]
north.find.invalidate()  # type: ignore[call-arg]
""",
    "class AsyncCached(Generic[P, K, R]):": """
from typing import assert_type
async def use(north: Reports) -> None:
    assert_type(await north.find("b1"), str)
    await north.find(1)  # type: ignore[arg-type]
    await north.find.invalidate()  # type: ignore[call-arg]
""",
}


def write(folder: Path) -> list[Path]:
    """Write each fence of the recipes' pages, the apps, and the copies that these import."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files, claimed = [], 0
    for page in sorted([*GUIDES.glob("*_recipes.md"), *GUIDES.glob("*_recipes/*.md")]):
        name = "_".join(page.relative_to(GUIDES).with_suffix("").parts)
        text = page.read_text(encoding="utf-8")
        for fence in _FENCE.finditer(text):
            line = text.count("\n", 0, fence.start(1))
            files.append(folder / f"{name}_{line + 1}.py")
            claims = [code for start, code in _CLAIMS.items() if f"\n{start}\n" in fence[1]]
            claimed += len(claims)
            files[-1].write_text("\n" * line + fence[1] + "".join(claims), encoding="utf-8")
    assert claimed == len(_CLAIMS), "the decorators' first lines have changed"
    lay_out(folder / "vendored")
    for app in sorted((GUIDES / "recipes").glob("*.py")):
        files.append(Path(shutil.copy(app, folder)))
        if app.name.startswith("own_"):
            continue  # it needs no copy
        command = copying(app)
        command[-1] = str(folder / command[-1])
        if copy_tool(command):
            raise SystemExit(f"what {app.name} imports was not copied")
    return files


def copying(app: Path) -> list[str]:
    """The arguments for the copy tool that the app's docstring tells its reader."""
    _, _, rest = app.read_text(encoding="utf-8").partition("-m reference_impl ")
    return rest.splitlines()[0].split()


if __name__ == "__main__":
    print(f"{len(write(Path(sys.argv[1])))} files to check in {sys.argv[1]}")
