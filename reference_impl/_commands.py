"""The copy tool's commands: `list`, `show NAME`, `copy NAME… DEST`, `check` and `update PATH…`."""

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path

from reference_impl import _proving
from reference_impl._copying import (
    Component,
    CopyError,
    Verdict,
    components,
    copies,
    copy,
    find,
    judge,
    layout,
    needs_package,
    package_name,
    third_party,
    update,
    vetted,
)

PROGRAM = "python -m reference_impl"
NAME = "a module (ttl_cache), a class (TTLCache) or a path (caches/ttl_cache)"
NO_COPY = "no copy: its header has no component's address"
EXIT = """\
exit status: 0 when all is well; 1 when `check` finds a copy that is not the vetted version, or
`update` one that is modified, which it leaves; 2 when something is refused, and not written.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status says how it went."""
    options = _parser().parse_args(_options_first(sys.argv[1:] if arguments is None else arguments))
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough; no second complaint at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except CopyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return status


def _options_first(arguments: Sequence[str]) -> list[str]:
    """The arguments in the order that argparse needs, for which an option ends a list of names."""
    if "--" in arguments or arguments[:1] == ["prove"]:
        return list(arguments)
    return [*arguments[:1], *sorted(arguments[1:], key=lambda word: not re.match("-.", word))]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Copy vetted components into your project, and check the copies later.",
        epilog=EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="name the components")
    command.set_defaults(command=_list)
    command = commands.add_parser("show", help="print a component's file, byte for byte")
    command.add_argument("name", metavar="NAME", help=NAME)
    command.set_defaults(command=_show)
    command = commands.add_parser("copy", help="copy components and what they need")
    command.add_argument("names", metavar="NAME", nargs="*", help=NAME)
    command.add_argument("folder", metavar="DEST", help="the folder to copy into")
    command.add_argument("--all", action="store_true", help="all components, instead of names")
    command.add_argument("--force", action="store_true", help="overwrite files that differ")
    command.set_defaults(command=_copy, error=command.error)
    command = commands.add_parser("check", help="say whether copies are the vetted version")
    command.add_argument(
        "paths", metavar="PATH", type=Path, nargs="+", help="a copy, or a folder with copies"
    )
    command.set_defaults(command=_check)
    command = commands.add_parser("update", help="bring untouched copies up to date")
    command.add_argument(
        "paths", metavar="PATH", type=Path, nargs="+", help="a copy, or a folder with copies"
    )
    command.add_argument("--dry-run", action="store_true", help="write nothing")
    command.set_defaults(command=_update)
    _proving.add_command(commands)
    return parser


def _list(_options: argparse.Namespace) -> int:
    width = max(map(len, components()))
    for path, component in components().items():
        print(f"{path:{width}}  {component.version} ({component.date})  {component.summary}")
    return 0


def _show(options: argparse.Namespace) -> int:
    source = vetted(find(options.name))
    sys.stdout.flush()
    sys.stdout.buffer.write(source)
    return 0


def _copy(options: argparse.Namespace) -> int:
    wanted, folder = _wanted(options), Path(options.folder)
    laid_out = layout(wanted, folder)
    for path, written in copy(wanted, folder, force=options.force).items():
        found = laid_out.get(path)
        label = f"  {found.path} {found.version} ({found.date})" if found else ""
        print(f"{'wrote     ' if written else 'unchanged '} {path}{label}")
    print()
    for component in wanted:
        print(f"Import it:      {_import_line(component, wanted, folder)}")
    if needs := third_party(laid_out.values()):
        print(f"It needs:       {', '.join(needs)}, which you install yourself")
    print(f"Check it later: {PROGRAM} check {folder}")
    return 0


def _wanted(options: argparse.Namespace) -> list[Component]:
    """The components to copy; two names and no folder are refused."""
    names, last = options.names, options.folder
    if options.all:
        if names:
            raise CopyError(f"--all copies {names[0]} as well: name the folder alone")
        return list(components().values())
    if not names:
        options.error("name components and a folder, or --all and a folder")
    if not Path(last).is_dir() and _is_component(last):
        both = " ".join([*names, last])
        raise CopyError(
            f"{last!r} is a component, and no folder: name the folder to copy into last, as in "
            f"`copy {both} vendored`, or make the folder {last} first"
        )
    return list(dict.fromkeys(find(name) for name in names))


def _is_component(name: str) -> bool:
    """Whether a folder's name is a component's as well; "./ttl_cache" is a folder's alone."""
    if name.startswith("."):
        return False
    try:
        find(name)
    except CopyError:
        return False
    return True


def _import_line(component: Component, wanted: Sequence[Component], folder: Path) -> str:
    """How to import it, and what has to be on sys.path for that."""
    base, root = package_name(folder, needed=needs_package(wanted) is not None)
    places = {found: path for path, found in layout(wanted, folder).items()}
    below = places[component].relative_to(folder).with_suffix("").parts
    module = ".".join(filter(None, [base, *below]))
    there = root.resolve() in {Path(entry).resolve() for entry in sys.path}
    where = "" if there else f"  (with {root} on sys.path)"
    return f"from {module} import {component.names}{where}"


def _check(options: argparse.Namespace) -> int:
    def check(file: Path, verdict: Verdict) -> int:
        print(f"{file}: {verdict.text}")
        return not verdict.vetted

    return max(_each_copy(path, check) for path in options.paths)


def _update(options: argparse.Namespace) -> int:
    def check(file: Path, verdict: Verdict) -> int:
        if not verdict.older:
            first, *_ = verdict.text.splitlines()
            print(f"{file}: {first}")
            return not verdict.vetted
        print(f"{file}: {verdict.text}")
        for path, written in update(file, verdict.older, dry=options.dry_run).items():
            if written:
                print(f"{'would write' if options.dry_run else 'wrote'} {path}")
        return 0

    return max(_each_copy(path, check) for path in options.paths)


def _each_copy(path: Path, look: Callable[[Path, Verdict], int]) -> int:
    """Look at each copy at a path; the highest status counts, and a refusal stops no other."""
    status = 0
    with _refusals() as refused:
        for file, data in copies(path):
            verdict = judge(data, str(file))
            if verdict is None:
                print(f"{file}: {NO_COPY}")
                continue
            with _refusals() as refused_here:
                status = max(status, look(file, verdict))
            refused.extend(refused_here)
    return 2 if refused else status


@contextlib.contextmanager
def _refusals() -> Iterator[list[str]]:
    """Print what is refused meanwhile, and collect it."""
    found = list[str]()
    try:
        yield found
    except CopyError as error:
        print(f"error: {error}", file=sys.stderr)
        found.append(str(error))
