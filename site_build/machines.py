"""The site for machines: llms.txt, and each page as Markdown beside its HTML.

Both come from the sources. What a page includes is put in its place, pictures are left to their
tables, and links become addresses, so that each page can be read alone.
"""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

from mkdocs.config import load_config

from tests.kit import ROOT
from tests.kit.site import SITE

DOCS = ROOT / "docs"
_INCLUDE = re.compile(r'^--8<-- "([^":]+)(?::([^"]*))?"$', re.MULTILINE)
_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_LINK = re.compile(r"\]\(((?!https?:|mailto:)[^)\s]*[\w#][^)\s]*)\)")
_REFERENCE = re.compile(r"^::: (\S+)(?:\n[ \t]+.*)*$", re.MULTILINE)
# What tables tell as well: pictures, and what the player plays.
_PICTURE = re.compile(r"<svg .*?</svg>\n?| data-trace='[^']*'", re.DOTALL)
_MARKS = re.compile(r"^<!-- --8<-- .*-->\n", re.MULTILINE)
_FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1`*$", re.MULTILINE | re.DOTALL)
ABOUT = """\
Each component's reference holds the whole file to copy, byte for byte what the tests ran.
The evidence pages say which tests prove which guarantee.
"""


def finish() -> None:
    """Write both into the built site."""
    config = load_config(str(ROOT / "mkdocs.yml"))
    base = str(config.site_url)
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", "", ABOUT]
    for section, paths in _sections(config.nav or []):
        lines += [f"## {section}", ""]
        for path in paths:
            text, matter = markdown(path, base)
            target = SITE / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            title = re.search(r"^# (.+?)(?: \{.*\})?$", text, re.MULTILINE)
            name = title[1] if title else matter.get("title", path)
            lines.append(f"- [{name}]({base}{path}): {matter.get('description', '')}".rstrip(": "))
        lines.append("")
    (SITE / "llms.txt").write_text("\n".join(lines), encoding="utf-8")


def _sections(nav: list[Any]) -> Iterator[tuple[str, list[str]]]:
    """The pages of the navigation; those of no section come first."""
    yield "Start", [entry for entry in nav if isinstance(entry, str)]
    for entry in nav:
        if isinstance(entry, dict):
            for section, below in entry.items():
                yield section, list(_paths(below))


def _paths(entry: Any) -> Iterator[str]:
    """The pages below an entry of the navigation, whose subsections llms.txt does not show."""
    if isinstance(entry, str):
        yield entry
    else:
        for each in entry.values() if isinstance(entry, dict) else entry:
            yield from _paths(each)


def markdown(path: str, base: str) -> tuple[str, dict[str, str]]:
    """A page of docs with all that it includes, and its front matter."""
    text = (DOCS / path).read_text(encoding="utf-8")
    matter: dict[str, str] = {}
    if (found := _MATTER.match(text)) is not None:
        pairs = (line.partition(": ") for line in found[1].splitlines() if ": " in line)
        matter = {key: value for key, _, value in pairs}
        text = text[found.end() :]
    text = _INCLUDE.sub(lambda match: _included(match[1], match[2] or ""), text)
    page = urljoin(base, path)
    parts, last = list[str](), 0
    for fence in _FENCE.finditer(text):  # code stays as it is
        parts += [_prose(text[last : fence.start()], page), _plain(fence[0])]
        last = fence.end()
    return "".join([*parts, _prose(text[last:], page)]).lstrip("\n"), matter


def _plain(fence: str) -> str:
    """The fence with its language alone: titles and classes are for the HTML."""
    first, _, rest = fence.partition("\n")
    marks = re.match(r"(`+|~+)\s*\{?\s*\.?([\w+-]*)", first)
    return fence if marks is None else f"{marks[1]}{marks[2]}\n{rest}"


def _prose(text: str, page: str) -> str:
    text = _PICTURE.sub("", _MARKS.sub("", text))
    text = _REFERENCE.sub(r"The docstrings of `\1`, in the file below, are the reference.", text)
    return _LINK.sub(lambda match: f"]({_address(page, match[1])})", text)


def _address(page: str, link: str) -> str:
    """Where a relative link leads; to pages as people read them, since those have the anchors."""
    path, hash_, anchor = link.partition("#")
    address = urljoin(page, path)
    return re.sub(r"\.md$", ".html", address) + hash_ + anchor


def _included(path: str, part: str) -> str:
    """What pymdownx.snippets would put in the place of an include."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if re.fullmatch(r"\d*:\d*", part):
        first, _, last = part.partition(":")
        lines = text.splitlines(keepends=True)
        return "".join(lines[int(first or 1) - 1 : int(last) if last else None]).rstrip("\n")
    if part:
        marks = (
            rf"--8<-- \[start:{re.escape(part)}\].*?\n(.*?)\n[^\n]*--8<-- \[end:{re.escape(part)}\]"
        )
        section = re.search(marks, text, re.DOTALL)
        if section is None:
            raise ValueError(f"{path} has no section {part!r}")
        return section[1]
    return text.rstrip("\n")
