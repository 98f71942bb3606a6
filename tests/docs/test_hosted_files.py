"""What the built site offers without a clone: each address in a command leads to a file."""

import re
import zipfile
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from tests.kit import COMPONENTS, ROOT
from tests.kit.catalogue import closure, components
from tests.kit.site import SITE, pages

RECIPES = SITE / "guides" / "recipes" / "proving"


def base_address(site: Path = SITE) -> str:
    """Where the built site believes to be hosted."""
    text = (site / "index.html").read_text(encoding="utf-8")
    canonical = re.search(r'<link rel="canonical" href="([^"]+)index\.html"', text)
    assert canonical is not None
    return canonical[1]


@pytest.mark.parametrize("component", components())
def test_each_file_of_a_closure_is_served_as_it_is(component: str) -> None:
    for source in closure(component):
        served = SITE / "src" / source.relative_to(COMPONENTS)
        assert served.read_bytes() == source.read_bytes()


def test_the_wheel_has_the_components_that_pages_show() -> None:
    (wheel,) = SITE.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    for component in components():
        for source in closure(component):
            name = source.relative_to(ROOT).as_posix()
            assert archive.read(name) == source.read_bytes()


def commands(page: Path) -> Iterator[str]:
    """The addresses below the site's own that its commands and configurations name."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"<pre\b.*?</pre>", text, re.DOTALL):
        plain = unescape(re.sub(r"<[^>]+>", "", block))
        # Not the addresses in the headers of the components, which are the same everywhere.
        for line in plain.splitlines():
            if not line.startswith("# https:"):
                yield from re.findall(r"https?://[^\s\"')]+\.(?:py|whl)\b", line)


def lost(site: Path) -> list[str]:
    """The addresses in commands that lead to no file of the site."""
    base, found = base_address(site), []
    for page in pages(site):
        for address in commands(page):
            if address.startswith("https://github.com/"):
                continue
            file = site / address.removeprefix(base)
            if not address.startswith(base) or not file.is_file():
                found.append(f"{page.relative_to(site).as_posix()}: {address}")
    return found


def test_each_address_in_a_command_leads_to_a_file() -> None:
    assert sum(1 for page in pages() for _ in commands(page)) > 2 * len(components())
    assert not (found := lost(SITE)), "\n".join(found)


def test_an_address_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "here.whl").touch()
    lines = [f"uvx --from https://site/{name}.whl" for name in ("here", "gone")]
    lines.append('pip install "tool @ https://elsewhere/here.whl"')
    (tmp_path / "index.html").write_text(
        '<link rel="canonical" href="https://site/index.html">'
        f"<pre><code><span>{'</span> <span>'.join(lines)}</span></code></pre>",
        encoding="utf-8",
    )
    assert lost(tmp_path) == [
        "index.html: https://site/gone.whl",
        "index.html: https://elsewhere/here.whl",
    ]


@pytest.mark.parametrize("component", components())
def test_a_page_says_how_to_copy_and_prove_without_a_clone(component: str) -> None:
    text = (SITE / f"{component}.md").read_text(encoding="utf-8")
    (wheel,) = SITE.glob("*.whl")
    address, name = base_address() + wheel.name, component.partition("/")[2]
    assert f"uvx --from {address} executable-guarantees copy {name} vendored\n" in text
    alone = len(closure(component)) == 1
    assert (f"curl -O {base_address()}src/{component}.py\n" in text) == alone
    extra = f'uvx --from "executable-guarantees[prove] @ {address}" executable-guarantees prove '
    promising = re.search(r"^\| \[[A-Z]{2}-1\]", text, re.MULTILINE) is not None
    assert (f"{extra}vendored/" in text) == promising


def test_the_page_shows_the_configurations_that_it_offers() -> None:
    text = (SITE / "guides" / "copying" / "ci.md").read_text(encoding="utf-8")
    offered = sorted(path for path in RECIPES.iterdir() if path.is_file())
    assert len(offered) == 4
    for path in offered:
        assert f"{path.read_text(encoding='utf-8')}```" in text, f"{path.name} is not shown"
