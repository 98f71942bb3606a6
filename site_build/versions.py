"""Keep reference_impl/versions.json: the digest of every version that anybody may have copied.

`python -m site_build.versions` writes it from CHANGELOG.md and the headers of the components, and
the texts of earlier versions beside it (`site_build/history.py`). Earlier versions stay, so that
`check` knows an old copy. A component that has changed under an unchanged version is refused, but
with `--unpublished`, which is for as long as nobody can have copied that version.
"""

import hashlib
import json
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping

from reference_impl._copying import Component, Entry, modules
from site_build import history
from site_build.history import HISTORY
from tests.kit import COMPONENTS, ROOT
from tests.kit.catalogue import is_part

VERSIONS = COMPONENTS / "versions.json"
CHANGELOG = ROOT / "CHANGELOG.md"
FEED = ROOT / "docs" / "changes.xml"  # rendered with the pages, not committed
LISTED = ROOT / "docs" / "evidence" / "changes.inc"  # likewise: every version, for the page
SITE = "https://executable-guarantees.example/"
ATOM = "{http://www.w3.org/2005/Atom}"

Versions = dict[str, dict[str, Entry]]


def main(arguments: list[str]) -> None:
    """Write the files."""
    if arguments not in ([], ["--unpublished"]):
        raise SystemExit(f"unknown: {' '.join(arguments)}; the only option is --unpublished")
    versions = current(unpublished=bool(arguments))
    kept = json.loads(HISTORY.read_text(encoding="utf-8")) if HISTORY.exists() else {}
    texts = history.record(versions, modules(), kept, history.in_git)
    VERSIONS.write_text(written(versions), encoding="utf-8")
    HISTORY.write_text(history.written(texts), encoding="utf-8")


def current(*, unpublished: bool = False) -> Versions:
    """What the file should hold."""
    recorded: Versions = {}
    if VERSIONS.exists():
        recorded = json.loads(VERSIONS.read_text(encoding="utf-8"))
    changelog = read_changelog(CHANGELOG.read_text(encoding="utf-8"))
    return merge(recorded, changelog, modules(), unpublished=unpublished)


def written(versions: Versions) -> str:
    """The file's text."""
    return json.dumps(versions, indent=1, ensure_ascii=False) + "\n"


def current_feed() -> str:
    """The feed of changes, as it should read."""
    return feed(current())


def listed(changelog: Mapping[str, Mapping[str, tuple[str, str]]]) -> str:
    """Every version of each component, as Markdown; all but the newest are folded."""
    lines = []
    for path, entries in changelog.items():
        (newest, (date, changes)), *earlier = entries.items()
        lines += [f"## {path}", f"### {newest} ({date})", changes]
        for version, (day, before) in earlier:
            summary = f"<summary>{version} ({day})</summary>"
            lines += [f'<details markdown="1">\n{summary}', before, "</details>"]
    return "\n\n".join(lines) + "\n"


def current_list() -> str:
    """What CHANGELOG.md says, for the page of all changes."""
    return listed(read_changelog(CHANGELOG.read_text(encoding="utf-8")))


def read_changelog(text: str) -> dict[str, dict[str, tuple[str, str]]]:
    """Date and text of each version, by component and version, in the order of the file."""
    _, *sections = re.split(r"^## (\S+)$", text, flags=re.MULTILINE)
    result: dict[str, dict[str, tuple[str, str]]] = {}
    for path, section in zip(sections[::2], sections[1::2], strict=True):
        _, *parts = re.split(r"^### (\S+) \(([\d-]+)\)$", section, flags=re.MULTILINE)
        entries = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
        result[path] = {version: (date, body.strip()) for version, date, body in entries}
    return result


def merge(
    recorded: Versions,
    changelog: Mapping[str, Mapping[str, tuple[str, str]]],
    shipped: Mapping[str, Component],
    *,
    unpublished: bool = False,
) -> Versions:
    """What was recorded, with what the changelog and today's sources add to it."""
    merged: Versions = {}
    for path in sorted({*recorded, *changelog, *shipped}):
        entries, known = changelog.get(path, {}), recorded.get(path, {})
        if lost := known.keys() - entries.keys():
            raise SystemExit(f"CHANGELOG.md has lost {path} {', '.join(lost)}: put it back")
        digests = {version: entry["sha256"] for version, entry in known.items()}
        if component := shipped.get(path):
            _check_newest(component, entries)
            digest = hashlib.sha256(component.source).hexdigest()
            if digests.setdefault(component.version, digest) != digest and not unpublished:
                raise SystemExit(
                    f"{path} has changed and still says {component.version}: give it a new "
                    "version, or --unpublished if nobody can have copied this one"
                )
            digests[component.version] = digest
        merged[path] = {}
        for version, (date, changes) in entries.items():
            if version not in digests:
                raise SystemExit(
                    f"no digest of {path} {version} was ever recorded: correct "
                    "CHANGELOG.md, or the component's header"
                )
            if not changes:
                raise SystemExit(f"CHANGELOG.md does not say what {path} {version} changed")
            merged[path][version] = {"date": date, "sha256": digests[version], "changes": changes}
    return merged


def _check_newest(component: Component, entries: Mapping[str, tuple[str, str]]) -> None:
    heading = f"### {component.version} ({component.date})"
    newest = next((f"### {version} ({date})" for version, (date, _) in entries.items()), "nothing")
    if heading != newest:
        raise SystemExit(
            f"CHANGELOG.md has {newest!r} first below '## {component.path}', "
            f"and the file's header asks for {heading!r}"
        )


def feed(versions: Versions) -> str:
    """An Atom feed with an entry for each version of each component, the newest first."""
    entries = [
        (entry["date"], path, version, entry["changes"])
        for path, recorded in versions.items()
        for version, entry in recorded.items()
    ]
    entries.sort(key=lambda entry: entry[0], reverse=True)
    root = _heads(
        ET.Element(f"{ATOM}feed"),
        "Executable Guarantees: changes",
        f"{SITE}changes.html",
        max(entry[0] for entry in entries),
    )
    author = ET.SubElement(root, f"{ATOM}author")
    ET.SubElement(author, f"{ATOM}name").text = "The Executable Guarantees authors"
    for date, path, version, changes in entries:
        entry = ET.SubElement(root, f"{ATOM}entry")
        # A part has no page of its own: what it changed is on the page of all changes.
        where = f"changes.html#{path}-" if is_part(path) else f"{path}.html#"
        _heads(entry, f"{path} {version}", f"{SITE}{where}{version}", date)
        ET.SubElement(entry, f"{ATOM}content").text = changes
    ET.register_namespace("", ATOM.strip("{}"))
    ET.indent(root)
    text: bytes = ET.tostring(root, "utf-8", xml_declaration=True)
    return text.decode() + "\n"


def _heads(element: ET.Element, title: str, address: str, date: str) -> ET.Element:
    """Give a feed or an entry what both must have."""
    ET.SubElement(element, f"{ATOM}id").text = address
    ET.SubElement(element, f"{ATOM}title").text = title
    ET.SubElement(element, f"{ATOM}link", href=address.partition("#")[0])
    ET.SubElement(element, f"{ATOM}updated").text = f"{date}T00:00:00Z"
    return element


if __name__ == "__main__":
    main(sys.argv[1:])
