"""Copying components: where each file goes, what it may replace, and all of it or nothing."""

import contextlib
import keyword
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from reference_impl._components import (
    Component,
    CopyError,
    Entry,
    closure,
    components,
    find,
    modules,
    plain,
    program,
    third_party,
    users,
    versions,
    vetted,
)
from reference_impl._judging import Verdict, address, copies, judge, python_files

# With what is defined here: all that the rest of the project uses of the tool.
__all__ = [
    "Component",
    "CopyError",
    "Entry",
    "Verdict",
    "address",
    "closure",
    "components",
    "copies",
    "copy",
    "find",
    "judge",
    "layout",
    "modules",
    "package_name",
    "program",
    "third_party",
    "users",
    "versions",
    "vetted",
]

# What says that a folder is on sys.path, or is meant to be, besides being there.
_OF_A_PROJECT = ("pyproject.toml", "setup.py", "setup.cfg")


def layout(wanted: Iterable[Component], folder: Path) -> dict[Path, Component]:
    """Where each file goes: side by side, or by family where there are several families.

    The files stand to each other as in the package, so that their relative imports, and with
    them each byte, can stay as they are.
    """
    found = {each.path: each for component in wanted for each in closure(component)}.values()
    if len({each.family for each in found}) == 1:
        return {folder / f"{each.module}.py": each for each in found}
    return {folder / f"{each.path}.py": each for each in found}


def copy(components: Sequence[Component], folder: Path, *, force: bool = False) -> dict[Path, bool]:
    """Copy the components and what they need into a folder: all of it or nothing.

    Args:
        components: what to copy.
        folder: where to; it is made if only its parent exists.
        force: overwrite files that differ.

    Returns:
        The files, and whether each was written: one that is the same is left as it is.

    Raises:
        CopyError: nothing was written.
    """
    return put(*contents(components, folder), may_overwrite=lambda _path: force)


def contents(components: Sequence[Component], folder: Path) -> tuple[dict[Path, bytes], list[Path]]:
    """What a copy of the components consists of: files with what they hold, and folders.

    Raises:
        CopyError: the folder cannot hold it.
    """
    _check_folder(folder)
    wanted = {path: vetted(each) for path, each in layout(components, folder).items()}
    folders = sorted({folder, *(path.parent for path in wanted)})
    if _wants_package(components, folder):
        markers = [place / "__init__.py" for place in folders if not _is_in_use(place, wanted)]
        wanted |= {path: b"" for path in markers if not os.path.lexists(path)}
    return wanted, folders


def put(
    wanted: Mapping[Path, bytes],
    folders: Collection[Path],
    *,
    may_overwrite: Callable[[Path], bool],
    dry: bool = False,
) -> dict[Path, bool]:
    """Write files: all of them or nothing.

    Args:
        wanted: the files, and what each is to hold.
        folders: the folders that they need.
        may_overwrite: whether a file that differs is overwritten.
        dry: write nothing.

    Returns:
        The files, and whether each was (or would be) written: one that is the same is left.

    Raises:
        CopyError: nothing was written.
    """
    refusals = [_refused_folder(place) for place in folders]
    refusals += [_refused_file(path, data, may_overwrite) for path, data in wanted.items()]
    if reasons := [reason for reason in refusals if reason]:
        raise CopyError("nothing was written:\n  " + "\n  ".join(reasons))
    changes = {path: data for path, data in wanted.items() if not _holds(path, data)}
    if not dry:
        try:
            _write(changes, [place for place in folders if not place.exists()])
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise CopyError(f"nothing was written: {where}{error.strerror}") from error
    return {path: path in changes for path in wanted}


def package_name(folder: Path, *, needed: bool = False) -> tuple[str, Path]:
    """The dotted name of the package that a folder is, and what has to be on sys.path for it.

    A package without an `__init__.py`, a namespace package, is told from a folder of scripts by
    what is above it: sys.path, a project's settings, or `src`. The name is "" where there is
    no package, unless one is needed.
    """
    names = list[str]()
    root = _absolute(folder)
    while (root / "__init__.py").is_file() or (needed and not names):
        names.insert(0, root.name)
        root = root.parent
    place, between = root, list[str]()
    while not _is_root(place) and _is_name(place.name):
        between.insert(0, place.name)
        place = place.parent
    if _is_root(place):
        root, names = place, between + names
    return ".".join(names), root


def _absolute(folder: Path) -> Path:
    """The folder by its own name, where that is a link, too: imports go by that name."""
    return Path(os.path.abspath(folder))  # noqa: PTH100


def _is_root(folder: Path) -> bool:
    """Whether modules are imported from the folder without its name."""
    on_path = {Path(entry).resolve() for entry in sys.path}
    return folder.resolve() in on_path or folder.name == "src" or _has_project(folder)


def _has_project(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _OF_A_PROJECT)


def _is_name(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)


def _check_folder(folder: Path) -> None:
    name = _absolute(folder).name
    if keyword.iskeyword(name):
        raise CopyError(f"{name!r} is a word of Python, and no import can name it: copy elsewhere")
    packages = package_name(folder, needed=True)[0].split(".")
    if "reference_impl" in {name, *packages}:
        raise CopyError(
            f"{folder}: a package named 'reference_impl' is the tool's own: copy elsewhere, "
            "into a folder such as 'vendored'"
        )
    if odd := [package for package in packages if keyword.iskeyword(package)]:
        raise CopyError(f"{folder} is in a package {odd[0]!r}, which no import can name")
    if folder.is_dir():
        return
    if os.path.lexists(folder):
        kind = "a broken symbolic link" if folder.is_symlink() else "a file"
        raise CopyError(f"{folder} is {kind}: name the folder to copy into")
    if folder.suffix == ".py":
        raise CopyError(f"{folder}: name a folder; the file keeps its name, as its header has it")
    if not folder.parent.is_dir():
        raise CopyError(f"there is no folder {folder.parent}: make it, or correct {folder}")


def needs_package(components: Iterable[Component]) -> Component | None:
    """The first of the components that imports a sibling, if any: relatively, as siblings do."""
    return next((each for each in components if len(closure(each)) > 1), None)


def _wants_package(components: Iterable[Component], folder: Path) -> bool:
    """Whether the folder has to be a package: for relative imports, or as part of a package."""
    name = _absolute(folder).name
    importing = needs_package(components)
    is_package = (folder / "__init__.py").is_file()
    why = ""
    if not name.isidentifier():
        why = f"{name!r} cannot be the name of a package"
    elif _has_project(folder) and not is_package:
        why = f"{folder} is the folder of a project and no package"
    if importing and why:
        raise CopyError(
            f"{why}, and {importing.path} needs one for its relative imports: "
            f"name a folder such as {folder / 'vendored'}"
        )
    new_in_package = not folder.exists() and (folder.parent / "__init__.py").is_file()
    wanted = importing is not None or (name.isidentifier() and new_in_package)
    dotted = package_name(folder, needed=True)[0]
    if wanted and not is_package and dotted in sys.stdlib_module_names:
        raise CopyError(
            f"a package {dotted!r} would hide the module of the standard library: copy elsewhere"
        )
    return wanted


def _is_in_use(folder: Path, ours: Collection[Path]) -> bool:
    """Whether other modules are in a folder: it may be a part of a namespace package.

    Such a folder can be imported as it is; an `__init__.py` would hide the other parts.
    """
    return folder.is_dir() and any(path not in ours for path in python_files(folder))


def _refused_folder(folder: Path) -> str | None:
    """Why the folder cannot be made or used, None if it can."""
    if folder.is_dir():
        return None
    if os.path.lexists(folder):
        return f"{folder} is in the way of a folder: move it, or copy elsewhere"
    if folder.with_suffix(".py").exists():
        return f"the folder {folder} would hide {folder.name}.py beside it: copy elsewhere"
    return None


def _refused_file(path: Path, data: bytes, may_overwrite: Callable[[Path], bool]) -> str | None:
    """Why the file must not be written, None if it may."""
    hiding = path.with_suffix("")
    if hiding.is_dir() and data:
        return f"the folder {hiding} would hide {path.name}: copy elsewhere"
    if not os.path.lexists(path) or _holds(path, data):
        return None
    if path.is_symlink() or not path.is_file():
        return f"{path} is no regular file: move it, or copy elsewhere"
    if not path.stat().st_mode & stat.S_IWUSR:
        return f"{path} differs and is read-only: make it writable, or copy elsewhere"
    if may_overwrite(path):
        return None
    verdict = judge(path.read_bytes())
    what = verdict.text.partition("\n")[0] if verdict else "no copy of a component"
    return f"{path} differs ({what}): see `check`, or overwrite it by `copy --force`"


def _holds(path: Path, data: bytes) -> bool:
    """Whether the file is there already, line endings aside."""
    return path.is_file() and plain(path.read_bytes()) == plain(data)


def _write(changes: Mapping[Path, bytes], folders: Iterable[Path]) -> None:
    """Make the folders and write the files, or undo it all where one of them fails.

    What is overwritten is kept beside it until all is done: undoing needs no space on the disk.
    """
    stack = contextlib.ExitStack
    with stack() as made, stack() as tidy, stack() as undo:
        for folder in folders:
            folder.mkdir()
            made.callback(folder.rmdir)
        written = dict[Path, Path]()
        for path, data in changes.items():
            written[path] = temporary = _beside(path)
            tidy.callback(temporary.unlink, missing_ok=True)
            with temporary.open("xb") as stream:
                stream.write(data)
            if path.exists():
                shutil.copymode(path, temporary)
        for path, temporary in written.items():
            if path.exists():
                before = _beside(path)
                tidy.callback(before.unlink, missing_ok=True)
                shutil.copy2(path, before)
                undo.callback(before.replace, path)
            else:
                undo.callback(path.unlink, missing_ok=True)
            temporary.replace(path)
        undo.pop_all()
        made.pop_all()


def _beside(path: Path) -> Path:
    """A name that is not in use, in the same folder."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")
