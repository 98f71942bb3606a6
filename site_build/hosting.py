"""What the site offers for use without a clone: its wheel beside the raw files, and where.

Every address on a page is rendered from `base`, so that the lines that a reader copies work from
whatever host serves the folder.
"""

import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from mkdocs.config import load_config

from tests.kit import ROOT
from tests.kit.site import SITE

# Generated from templates of the same names, not committed: what the page about copying includes.
LINES = ROOT / "docs" / "evidence" / "copying.inc"
RECIPES = ROOT / "docs" / "guides" / "recipes" / "proving"
_RECIPES = ("noxfile.py", "pre-commit-config.yaml", "tox.ini", "workflow.yml")

_LEADING_BACK = {
    "Home": "index.html",
    "What do you need?": "index.html#what-do-you-need",
    "Is this operation thread-safe, and how?": "guides/thread-safety.html",
    "How popular libraries compare": "compare/index.html",
    "Glossary": "guides/glossary.html",
}


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


def lead_back(folder: Path = SITE) -> None:
    """Write into the 404 page where else to look; it is shown at any depth, so from the root."""
    root = urlsplit(base()).path
    page = folder / "404.html"
    text = page.read_text(encoding="utf-8")
    heading = "<h1>404 - Not found</h1>"
    if heading not in text:
        raise ValueError(f"the theme's 404 page has no {heading}")
    links = "".join(
        f'<li><a href="{root}{address}">{name}</a></li>' for name, address in _LEADING_BACK.items()
    )
    about = f"<p>No page has this address. Search for it above, or begin here:</p><ul>{links}</ul>"
    page.write_text(text.replace(heading, heading + about), encoding="utf-8")
