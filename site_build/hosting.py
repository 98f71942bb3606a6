"""What the site offers for use without a clone: its wheel beside the raw files, and where.

Every address on a page is rendered from `base`, so that the lines that a reader copies work from
whatever host serves the folder.
"""

import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

from mkdocs.config import load_config

from tests.kit import ROOT
from tests.kit.site import SITE

# Generated from templates of the same names, not committed: what the page about copying includes.
LINES = ROOT / "docs" / "evidence" / "copying.inc"
RECIPES = ROOT / "docs" / "guides" / "recipes" / "proving"
_RECIPES = ("noxfile.py", "pre-commit-config.yaml", "tox.ini", "workflow.yml")


@cache
def base() -> str:
    """Where the site is hosted, with a slash at its end: SITE_URL, or else what mkdocs.yml says."""
    return str(load_config(str(ROOT / "mkdocs.yml")).site_url)


@cache
def wheel_name() -> str:
    """The file name of the wheel, as its settings determine it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return f"{project['name'].replace('-', '_')}-{project['version']}-py3-none-any.whl"


def addresses() -> dict[str, str]:
    """What templates write into commands: the site, its wheel, and the wheel with its extra."""
    wheel = base() + wheel_name()
    return {"site": base(), "wheel": wheel, "proving": f"executable-guarantees[prove] @ {wheel}"}


def rendered() -> dict[Path, str]:
    """The template of each file that is rendered for the page about copying."""
    recipes = {RECIPES / name: f"proving/{name}.j2" for name in _RECIPES}
    return {LINES: "copying.inc.j2", **recipes}


def offer_wheel(folder: Path = SITE) -> Path:
    """Build the wheel into the site, in the place of any other."""
    for old in folder.glob("*.whl"):
        old.unlink()
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    wheel = folder / wheel_name()
    if not wheel.is_file():
        raise FileNotFoundError(f"hatchling named the wheel otherwise than pages do: {wheel.name}")
    return wheel
