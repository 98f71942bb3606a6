"""The text of every version that was ever published, each from the next newer one.

`history.json` holds what turns a version into the one before it: `[start, stop, text]` says that
these lines become that text. The newest version is the component's own file; of a component that
is no longer published, the newest is made from nothing. `python -m site_build.versions` writes it.
"""

from collections.abc import Mapping, Sequence
from functools import cache

from reference_impl._components import CopyError, digest, modules, package_data, versions

Edit = tuple[int, int, str]
History = Mapping[str, Mapping[str, Sequence[Edit]]]


def text(path: str, version: str) -> bytes | None:
    """A component's file in a version; None if there never was such a version.

    Raises:
        CopyError: the package was changed, so that the text cannot be told.
    """
    return texts(path).get(version)


def texts(path: str) -> dict[str, bytes]:
    """A component's file in each version, the newest first.

    Raises:
        CopyError: the package was changed, so that a text cannot be told.
    """
    component = modules().get(path)
    newer, found = component.source if component else b"", dict[str, bytes]()
    for version, entry in versions().get(path, {}).items():
        if found or not component:
            newer = _previous(path, version, newer)
        if digest(newer) != entry["sha256"]:
            raise CopyError(
                f"the package's own {path}.py or history.json is not as it was published, so "
                f"that {version} cannot be told: undo the change, or install the package again"
            )
        found[version] = newer
    return found


def _previous(path: str, version: str, newer: bytes) -> bytes:
    try:
        return apply(recorded_edits()[path][version], newer)
    except (KeyError, TypeError, ValueError):  # of other versions, or no history
        return b""


@cache
def recorded_edits() -> History:
    """What turns each version into the one before it, by component and version."""
    edits: History = package_data("history.json")
    return edits


def apply(edits: Sequence[Edit], newer: bytes) -> bytes:
    """The version that these edits of the next newer one give."""
    lines = newer.splitlines(keepends=True)
    for start, stop, replacement in reversed(edits):
        lines[start:stop] = [replacement.encode()]
    return b"".join(lines)
