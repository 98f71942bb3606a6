"""Bringing copies up to date: untouched ones are replaced, changed ones merged."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reference_impl import _history
from reference_impl._components import BOM, Component, CopyError, closure, modules, plain, vetted
from reference_impl._copying import contents, layout, put
from reference_impl._judging import Verdict, address, judge

_CONFLICT = re.compile(r"^<{7} .*?^>{7} [^\n]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """A file that an update writes.

    Attributes:
        path: the file.
        how: "written" as the newest version is, or "merged" with what the reader has changed.
        conflicts: the lines of each conflict: ["12-20", "31-40"].
    """

    path: Path
    how: Literal["written", "merged"]
    conflicts: Sequence[str] = ()


@dataclass(frozen=True)
class Group:
    """Copies that import each other, which are updated together or not at all.

    Attributes:
        places: where each component and part is, or is to be.
        folder: the folder that has them all.
    """

    places: dict[Path, Component]
    folder: Path


def group_of(file: Path, path: str) -> Group:
    """A copy, what its newest version needs, and the copies beside it that need one of these.

    Args:
        file: the copy.
        path: the component, as `judge` has found it.

    Raises:
        CopyError: it cannot be updated.
    """
    component = modules().get(path)
    if component is None:
        raise CopyError(f"{file} cannot be updated: {path} is no longer published")
    found = closure(component)
    for each in found:  # grows meanwhile
        others = [*closure(each), *_users_beside(file, component, each)]
        found += dict.fromkeys(other for other in others if other not in found)
    if len(found) == 1:  # which may have any name
        return Group({file: component}, file.parent)
    several = len({each.family for each in found}) > 1
    folder = file.parent.parent if several else file.parent
    places = layout(found, folder)
    if file not in places:
        raise CopyError(
            f"{file} cannot be updated: {path} and what it needs are not laid out as they are "
            "copied; copy it anew"
        )
    return Group(places, folder)


def _users_beside(file: Path, component: Component, sibling: Component) -> Iterator[Component]:
    """What imports a sibling, and is where it would import it from."""
    for user in (each for each in modules().values() if sibling in closure(each)[1:]):
        folder = file.parent
        if user.family != component.family:
            if folder.name != component.family:
                continue
            folder = folder.parent / user.family
        place = folder / f"{user.module}.py"
        if place.is_file() and address(place.read_bytes()) == user.path:
            yield user


def update(group: Group, *, dry: bool = False) -> list[Step]:
    """Bring copies up to date, with all that the newest versions need: all of it or nothing.

    Args:
        group: the copies, of earlier versions; they may be changed.
        dry: write nothing.

    Returns:
        The files that were (or would be) written.

    Raises:
        CopyError: nothing was written.
    """
    members = list(group.places.values())
    wanted, folders = {place: vetted(each) for place, each in group.places.items()}, list[Path]()
    if len(members) > 1:  # one alone needs no package
        wanted, folders = contents(members, group.folder)
    ours, steps = set[Path](), dict[Path, Step]()
    for place, each in group.places.items():
        data = place.read_bytes() if place.is_file() else b""
        verdict = judge(data)
        if verdict is not None and verdict.path == each.path:
            ours.add(place)
            wanted[place], steps[place] = _updated(place, data, verdict, each)
    written = put(wanted, folders, may_overwrite=ours.__contains__, dry=dry)
    return [steps.get(place, Step(place, "written")) for place, done in written.items() if done]


def conflicts(data: bytes) -> list[str]:
    """The lines of each conflict that is marked in a file: ["12-20", "31-40"]."""
    text = plain(data).decode(errors="backslashreplace")
    spans = (match.span() for match in _CONFLICT.finditer(text))
    return [
        f"{text.count(chr(10), 0, start) + 1}-{text.count(chr(10), 0, end) + 1}"
        for start, end in spans
    ]


def _updated(file: Path, data: bytes, verdict: Verdict, component: Component) -> tuple[bytes, Step]:
    """What the file is to hold, and how that came about."""
    newest = vetted(component)
    if verdict.kind == "modified" and (found := conflicts(data)):
        raise CopyError(f"{file} has conflicts, lines {', '.join(found)}: resolve them first")
    if verdict.is_newest:
        return data, Step(file, "written")
    if verdict.kind == "older":
        return _in_form(newest, data), Step(file, "written")
    assert verdict.version is not None  # only what is unknown has none
    base = _history.text(component.path, verdict.version) or b""
    name = f"{component.module}.py"
    names = (f"{name} {verdict.version}, which yours came from", f"{name} {component.version}")
    merged = _merged(file, plain(data), base, newest, names)
    if merged == newest:
        return _in_form(newest, data), Step(file, "written")
    return _in_form(merged, data), Step(file, "merged", conflicts(merged))


def _in_form(text: bytes, like: bytes) -> bytes:
    """The text with the line endings and the byte order mark that the other has."""
    for ending in (b"\r\n", b"\r"):
        if like.count(ending) * 2 > plain(like).count(b"\n"):
            text = text.replace(b"\n", ending)
            break
    return BOM + text if like.startswith(BOM) else text


def _merged(file: Path, ours: bytes, base: bytes, newest: bytes, names: tuple[str, ...]) -> bytes:
    """The three-way merge, by git; conflicts are marked in it."""
    git = shutil.which("git")
    if git is None:
        raise CopyError(
            f"{file} was changed, and `git` merges such copies, but it is not on the PATH: install "
            "it (https://git-scm.com), or save what `check` prints, `copy --force`, and reapply it"
        )
    with tempfile.TemporaryDirectory() as folder:
        for name, data in (("yours", ours), ("base", base), ("newest", newest)):
            Path(folder, name).write_bytes(data)
        labels = [word for name in ("yours", *names) for word in ("-L", name)]
        done = subprocess.run(  # noqa: S603
            [git, "merge-file", "-p", "--diff3", *labels, "yours", "base", "newest"],
            cwd=folder,
            env=dict(_environment(folder)),
            capture_output=True,
            check=False,
        )
    if not 0 <= done.returncode < 128:  # below, it is the number of conflicts
        words = done.stderr.decode(errors="backslashreplace").strip()
        raise CopyError(f"{file} cannot be merged: git merge-file says {words!r}")
    return done.stdout


def _environment(folder: str) -> Iterator[tuple[str, str]]:
    """That of this process, but with no repository and no settings that git would heed."""
    yield from ((name, value) for name, value in os.environ.items() if name[:4] != "GIT_")
    yield "GIT_CEILING_DIRECTORIES", str(Path(folder).parent)
    yield "GIT_CONFIG_NOSYSTEM", "1"
    yield "GIT_CONFIG_GLOBAL", os.devnull
