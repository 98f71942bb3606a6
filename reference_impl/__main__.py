"""The copy tool: `python -m reference_impl list | show NAME | copy NAME DEST | check PATH`."""

import argparse
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from reference_impl._copying import (
    Component,
    CopyError,
    closure,
    components,
    copies,
    copy,
    find,
    judge,
    layout,
    package_name,
    third_party,
    vetted,
)

PROGRAM = "python -m reference_impl"
NAME = "a module (ttl_cache), a class (TTLCache) or a path (caches/ttl_cache)"
EXIT = """\
exit status: 0 when all is well; 1 when `check` finds a copy that is not the vetted version;
2 when a command is refused, and then nothing has been written.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status says how it went."""
    options = _parser().parse_args(arguments)
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
    command = commands.add_parser("copy", help="copy a component and what it needs")
    command.add_argument("name", metavar="NAME", help=NAME)
    command.add_argument("folder", metavar="DEST", type=Path, help="the folder to copy into")
    command.add_argument("--force", action="store_true", help="overwrite files that differ")
    command.set_defaults(command=_copy)
    command = commands.add_parser("check", help="say whether copies are the vetted version")
    command.add_argument("path", metavar="PATH", type=Path, help="a copy, or a folder with copies")
    command.set_defaults(command=_check)
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
    component, folder = find(options.name), options.folder
    laid_out = layout(component, folder)
    for path, written in copy(component, folder, force=options.force).items():
        found = laid_out.get(path)
        label = f"  {found.path} {found.version} ({found.date})" if found else ""
        print(f"{'wrote     ' if written else 'unchanged '} {path}{label}")
    print(f"\nImport it:      {_import_line(component, folder)}")
    if needs := third_party(closure(component)):
        print(f"It needs:       {', '.join(needs)}, which you install yourself")
    print(f"Check it later: {PROGRAM} check {folder}")
    return 0


def _import_line(component: Component, folder: Path) -> str:
    path = next(iter(layout(component, folder)))
    package = package_name(path.parent)
    module = f"{package}.{component.module}" if package else component.module
    where = "" if package else f"  (with {folder} on sys.path)"
    return f"from {module} import {component.names}{where}"


def _check(options: argparse.Namespace) -> int:
    status = 0
    for path, data in copies(options.path):
        verdict = judge(data, str(path))
        if verdict is not None:
            print(f"{path}: {verdict.text}")
            status |= not verdict.vetted
    return status


if __name__ == "__main__":
    sys.exit(main())
