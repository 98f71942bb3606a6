"""Keep reference_impl/history.json: the text of every version that anybody may have copied.

`python -m site_build.versions` writes it with the digests, and records no version without the
texts of those before it. It finds them in the record itself, or in the history of git.
"""

import difflib
import json
import subprocess
from collections.abc import Callable, Iterable, Mapping

from reference_impl._components import Component, Entry, digest
from reference_impl._history import Edit, History, apply
from tests.kit import COMPONENTS, ROOT

HISTORY = COMPONENTS / "history.json"


def record(
    versions: Mapping[str, Mapping[str, Entry]],
    shipped: Mapping[str, Component],
    kept: History,
    published: Callable[[str], Iterable[bytes]],
) -> dict[str, dict[str, list[Edit]]]:
    """What turns each version into the one before it.

    Args:
        versions: the digests of all versions, the newest first.
        shipped: the components as they are.
        kept: what was recorded before; it stays where it still fits.
        published: other texts of a component, to look for a version in.

    Raises:
        SystemExit: a text is nowhere to be found.
    """
    result: dict[str, dict[str, list[Edit]]] = {}
    for path, recorded in versions.items():
        newest = shipped[path].source if path in shipped else b""
        known = {digest(newest): newest}
        newer, edits = newest, dict[str, list[Edit]]()
        for version, entry in list(recorded.items())[path in shipped :]:
            wanted = entry["sha256"]
            edits[version] = list(kept.get(path, {}).get(version, []))
            if digest(recalled := apply(edits[version], newer)) == wanted:
                newer = recalled
                continue
            if wanted not in known:
                known |= {digest(text): text for text in published(path)}
            if wanted not in known:
                raise SystemExit(
                    f"the text of {path} {version} is nowhere to be found: `git fetch --unshallow` "
                    "if this clone lacks its history, or commit that version first; if nobody can "
                    "have copied it, remove it from CHANGELOG.md and versions.json"
                )
            edits[version] = between(newer, known[wanted])
            newer = known[wanted]
        if edits:
            result[path] = edits
    return result


def between(newer: bytes, text: bytes) -> list[Edit]:
    """What turns the newer text into the other."""
    lines, wanted = newer.splitlines(keepends=True), text.splitlines(keepends=True)
    matcher = difflib.SequenceMatcher(None, lines, wanted, autojunk=False)
    return [
        (start, stop, b"".join(wanted[first:last]).decode())
        for tag, start, stop, first, last in matcher.get_opcodes()
        if tag != "equal"
    ]


def written(history: History) -> str:
    """The file's text: a line for each edit."""
    paths = []
    for path, versions in history.items():
        parts = []
        for version, edits in versions.items():
            lines = ",\n".join(json.dumps(edit, ensure_ascii=False) for edit in edits)
            parts.append(f"{json.dumps(version)}: [\n{lines}\n]")
        paths.append(f"{json.dumps(path)}: {{\n" + ",\n".join(parts) + "\n}")
    return "{\n" + ",\n".join(paths) + "\n}\n"


def in_git(path: str) -> Iterable[bytes]:
    """Every text that a component's file has had, by the history of this clone."""
    name = f":(glob)**/{path.rpartition('/')[2]}.py"
    log = _git(
        "log", "--all", "-m", "--format=", "--raw", "--no-abbrev", "--no-renames", "--", name
    )
    blobs = {line.split()[3] for line in log.decode().splitlines() if line.startswith(":")}
    return [_git("cat-file", "blob", blob) for blob in sorted(blobs) if blob.strip("0")]


def _git(*words: str) -> bytes:
    """What git prints; nothing where this is no clone."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False).stdout
