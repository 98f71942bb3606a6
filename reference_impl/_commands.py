"""The tool's commands: `list`, `show`, `copy`, `check`, `update`, and `prove`."""

import argparse
import contextlib
import itertools
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path

from reference_impl import _history, _proving
from reference_impl._components import (
    Component,
    CopyError,
    components,
    find,
    program,
    third_party,
    vetted,
)
from reference_impl._copying import copy, layout, needs_package, package_name
from reference_impl._judging import Verdict, address, copies, judge
from reference_impl._updating import Step, conflicts, group_of, update

DISTRIBUTION = "executable-guarantees"
NAME = "a module (ttl_cache), a class (TTLCache) or a path (caches/ttl_cache)"
TARGET = "a copy, a folder with copies, or a component's name: its copies in the current folder"
ALL = "all copies in the current folder and below it"
NO_COPY = "no copy: its header has no component's address"
EPILOG = """\
exit status:
  list, show, copy  0 done; 2 refused, and nothing was written
  check             0 each copy is the newest vetted version, line endings aside;
                    1 one is older, formatted or modified;
                    2 there is no copy, or one cannot be read
  update            0 each copy is the newest version now, or your changes to it;
                    1 conflicts are left for you to resolve, or a copy is unknown;
                    2 a copy was refused, and left as it was
  prove             0 every guarantee holds; 1 one does not, or could not be shown;
                    2 nothing could be run
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status says how it went."""
    options = _parse(list(sys.argv[1:] if arguments is None else arguments))
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


def _options_first(command: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The words in an order that argparse takes, for which an option ends a list of names."""
    known = command._option_string_actions  # noqa: SLF001  # there is no other way to ask
    options, others, rest = list[str](), list[str](), iter(words)
    for word in rest:
        if word == "--":
            return [*options, *others, word, *rest]
        if not word.startswith("-") or word == "-":
            others.append(word)
            continue
        name, equals, _ = word.partition("=")
        if name not in known or known[name].nargs not in {None, 0}:
            return list(words)  # unknown, abbreviated, or one that takes as many as there are
        options.append(word)
        if known[name].nargs is None and not equals:
            options += itertools.islice(rest, 1)  # its value
    return options + others


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program(),
        description="Copy vetted components into your project, check, update and prove the copies.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print its version")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="name the components")
    command.set_defaults(command=_list)
    command = commands.add_parser("show", help="print a component's file, byte for byte")
    command.add_argument("name", metavar="NAME", help=NAME)
    command.add_argument("--version", help="an earlier version of it: 1.0.0")
    command.set_defaults(command=_show)
    command = commands.add_parser("copy", help="copy components and what they need")
    command.add_argument("names", metavar="NAME", nargs="*", help=NAME)
    command.add_argument("folder", metavar="DEST", help="the folder to copy into")
    command.add_argument("--all", action="store_true", help="all components, instead of names")
    command.add_argument("--force", action="store_true", help="overwrite files that differ")
    command.set_defaults(command=_copy, error=command.error)
    command = commands.add_parser("check", help="say whether copies are the vetted version")
    _add_targets(command)
    command.add_argument(
        "--allow-formatted",
        action="store_true",
        help="accept copies of the newest version with another layout or other comments",
    )
    command.set_defaults(command=_check, error=command.error)
    command = commands.add_parser(
        "update",
        help="bring copies up to date",
        description="Replace untouched copies of earlier versions by the newest, and merge those "
        "that were changed, by `git merge-file`.",
    )
    _add_targets(command)
    command.add_argument(
        "--dry-run", action="store_true", help="say what it would do; write nothing"
    )
    command.set_defaults(command=_update, error=command.error)
    _proving.add_command(commands)
    named = commands.choices.get(words[0]) if words else None
    return parser.parse_args([*words[:1], *_options_first(named, words[1:])] if named else words)


def _add_targets(command: argparse.ArgumentParser) -> None:
    command.add_argument("targets", metavar="PATH", nargs="*", help=TARGET)
    command.add_argument("--all", action="store_true", help=ALL)


class _Version(argparse.Action):
    """Prints the distribution's version; that of a clone is in its settings."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import tomllib  # noqa: PLC0415  # these take as long to import as all the rest
        from importlib import metadata  # noqa: PLC0415

        project = dict[str, str]()
        settings = Path(__file__).parent.with_name("pyproject.toml")
        if settings.is_file():
            project = tomllib.loads(settings.read_text(encoding="utf-8")).get("project", {})
        is_clone = project.get("name") == DISTRIBUTION
        print(DISTRIBUTION, project["version"] if is_clone else metadata.version(DISTRIBUTION))
        parser.exit()


def _list(_options: argparse.Namespace) -> int:
    width = max(map(len, components()))
    for path, component in components().items():
        print(f"{path:{width}}  {component.version} ({component.date})  {component.summary}")
    return 0


def _show(options: argparse.Namespace) -> int:
    component = find(options.name)
    source = vetted(component)
    if options.version is not None:
        earlier = _history.text(component.path, options.version)
        if earlier is None:
            known = ", ".join(_history.texts(component.path))
            raise CopyError(f"{component.path} has no version {options.version!r}: it has {known}")
        source = earlier
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
    print(f"Check it later: {program()} check {folder}")
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
    modified, renew = list[str](), False

    def look(file: Path, verdict: Verdict) -> int:
        nonlocal renew
        print(f"{file}: {verdict.text}")
        modified.extend([str(file)] if verdict.kind == "modified" else [])
        renew |= verdict.kind != "unknown" and not verdict.is_newest
        fine = verdict.kind == "formatted" and verdict.is_newest and options.allow_formatted
        return not (fine or verdict.kind == "vetted")

    targets = _targets(options)
    status = max(_each_copy(target, look) for target in targets)
    if renew:
        print(f"What would update it: {program()} update --dry-run {shlex.join(targets)}")
    if modified:  # prove takes paths, and no names
        paths = targets if all(map(os.path.lexists, targets)) else modified
        print(f"Which guarantees still hold: {program()} prove {shlex.join(paths)}")
    return status


def _update(options: argparse.Namespace) -> int:
    seen = set[Path]()  # one may be written with another that needs it

    def look(file: Path, verdict: Verdict) -> int:
        if file.resolve() in seen:
            return 0
        first = verdict.text.partition("\n")[0]
        if verdict.kind == "unknown":
            print(f"{file}: {first}")
            return 1
        if verdict.kind == "modified" and (found := conflicts(file.read_bytes())):
            print(f"{_counted(found)} in {_unresolved(file, found)}")
            return 1
        if verdict.is_newest:
            print(f"{file}: {first}{'' if verdict.kind == 'vetted' else ': nothing to update'}")
            return 0
        group = group_of(file, verdict.path)
        for place in group.places:
            seen.add(place.resolve())
            _tell_age(place)
        for step in (steps := update(group, dry=options.dry_run)):
            print(_told(step, dry=options.dry_run))
        if verdict.kind == "formatted" and any(step.conflicts for step in steps):
            print("  (only layout and comments are yours: `copy --force` gives the newest, plain)")
        return int(any(step.conflicts for step in steps))

    return max(_each_copy(target, look) for target in _targets(options))


def _tell_age(file: Path) -> None:
    """Say what has changed since the version that a copy is, or came from."""
    verdict = judge(file.read_bytes(), str(file)) if file.is_file() else None
    if verdict and not verdict.is_newest:
        first, *rest = verdict.text.splitlines()
        since = itertools.takewhile(lambda line: line[:1] in {"", " "}, rest)
        print(f"{file}: {first}", *since, sep="\n")


def _told(step: Step, *, dry: bool) -> str:
    """What an update does to a file, and what to do next."""
    if step.how == "written":
        return f"{'would write' if dry else 'wrote'} {step.path}"
    if step.conflicts:
        told = f"{_counted(step.conflicts)} in {_unresolved(step.path, step.conflicts)}"
        return f"would leave {told}" if dry else told
    return f"{'would merge' if dry else 'merged'} {step.path}; prove it: {_prove(step.path)}"


def _counted(conflicts: Sequence[str]) -> str:
    return "1 conflict" if len(conflicts) == 1 else f"{len(conflicts)} conflicts"


def _unresolved(file: Path, conflicts: Sequence[str]) -> str:
    return f"{file}, lines {', '.join(conflicts)}: resolve, then prove it: {_prove(file)}"


def _prove(file: Path) -> str:
    return f"{program()} prove {shlex.quote(str(file))}"


def _targets(options: argparse.Namespace) -> list[str]:
    """What to look at: paths and names, or the current folder."""
    targets: list[str] = options.targets
    if options.all and targets:
        raise CopyError(f"--all takes {targets[0]} as well, if it is here: name paths, or --all")
    if not options.all and not targets:
        options.error("name copies, folders or components, or --all")
    return targets or ["."]


def _each_copy(target: str, look: Callable[[Path, Verdict], int]) -> int:
    """Look at each copy of a target; the highest status counts, and a refusal stops no other."""
    status = 0
    with _refusals() as refused:
        for file, data in _copies(target):
            with _refusals() as refused_here:
                verdict = judge(data, str(file))
                if verdict is None:
                    print(f"{file}: {NO_COPY}")
                else:
                    status = max(status, look(file, verdict))
            refused.extend(refused_here)
    return 2 if refused else status


def _copies(target: str) -> Iterator[tuple[Path, bytes]]:
    """The copies at a path, or, if there is none, of a component in the current folder."""
    if os.path.lexists(target) or not _is_component(target):
        yield from copies(Path(target))
        return
    wanted, found = find(target).path, False
    for file, data in copies(Path()):
        if address(data) == wanted:
            found = True
            yield file, data
    if not found:
        raise CopyError(f"there is no copy of {wanted} in the current folder or below it")


@contextlib.contextmanager
def _refusals() -> Iterator[list[str]]:
    """Print what is refused meanwhile, and collect it."""
    found = list[str]()
    try:
        yield found
    except CopyError as error:
        print(f"error: {error}", file=sys.stderr)
        found.append(str(error))
