"""The command `prove`: which guarantees a changed copy, or another implementation, still keeps.

The proofs are in a clone, or in the wheel; they run in a child process, which has the reader's
file in the place of the component's, and which ends whatever the file does.
"""

import argparse
import ast
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from reference_impl import _copying, _report
from reference_impl._copying import Component, CopyError
from reference_impl._report import WORDS, Report

CLONE = Path(__file__).resolve().parents[1]
_NEEDED = ("pytest", "hypothesis", "pytest_timeout", "xdist", "detangle")
_UNFIT = {"reference_impl", "tests"}  # packages that the proofs have themselves
_IMPORT = 60.0  # seconds, in which the child has imported the file
_WITHOUT_A_WORD = 300.0  # seconds, after which it is not waited for any more
REFUSED = 64  # the child's exit status where it has said why on its standard error
_UNENDING = -64  # in the place of a status: the import did not end


@dataclass
class Target:
    """What is to be proved, and as what."""

    component: Component
    label: str  # the file, or the adapter
    state: str
    bindings: dict[str, dict[str, Any]] = field(default_factory=dict)  # as tests.kit.copies.Binding


def add_command(commands: Any) -> None:
    """Add `prove` to the parser's commands."""
    command: argparse.ArgumentParser = commands.add_parser(
        "prove",
        help="say which guarantees a changed copy keeps",
        description="Run the proofs of a component on your file: a changed copy of it, wherever "
        "it is, or an implementation of your own.",
        epilog="exit status: 0 when every guarantee holds; 1 when one does not, or could not be "
        "shown; 2 when nothing could be run.",
    )
    command.add_argument(
        "paths", metavar="PATH", type=Path, nargs="*", help="a file, or a folder with copies"
    )
    command.add_argument(
        "--as", dest="component", metavar="NAME", help="the component that the file implements"
    )
    command.add_argument(
        "--name",
        dest="names",
        metavar="OURS=YOURS",
        action="append",
        default=[],
        help="what a name of the component is called in the file: TTLCache=MyCache",
    )
    command.add_argument(
        "--adapter",
        dest="adapters",
        metavar="[NAME=]MODULE:ATTRIBUTE",
        action="append",
        default=[],
        help="what makes an object of your own, called as the component's class is; with --as",
    )
    command.add_argument(
        "--guarantee",
        dest="guarantees",
        metavar="ID",
        action="append",
        default=[],
        help="only this guarantee, such as TC-6",
    )
    command.add_argument(
        "--profile", choices=("quick", "full"), default="quick", help="how much to explore"
    )
    command.add_argument(
        "--allow",
        metavar="WORD",
        choices=WORDS[1:],
        action="append",
        default=[],
        help=f"a word that counts as success, too: {', '.join(map(repr, WORDS[1:]))}",
    )
    output = command.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON instead")
    output.add_argument(
        "--markdown", action="store_true", help="print Markdown, for a pull request"
    )
    command.add_argument("--junit", metavar="FILE", type=Path, help="write JUnit XML besides")
    command.set_defaults(command=_prove)


def proofs_root() -> Path:
    """The folder that has the proofs, in its own folder `tests`.

    Raises:
        CopyError: this installation has none, or what they need is not installed.
    """
    root = next(
        (r for r in (_copying_package() / "_proofs", CLONE) if (r / "tests/kit").is_dir()), None
    )
    if root is None:
        raise CopyError(
            "this installation has no proofs: install the wheel of the site, or use a clone"
        )
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise CopyError(
            f"prove needs {', '.join(missing)}: install 'executable-guarantees[prove]', "
            "or in a clone `python -m pip install -e '.[prove]'`"
        )
    return root


def _copying_package() -> Path:
    return Path(__file__).resolve().parent


# What to prove.


def _prove(options: argparse.Namespace) -> int:
    root = proofs_root()
    targets = list(_targets(options))
    if options.junit and not options.junit.absolute().parent.is_dir():
        raise CopyError(
            f"there is no folder {options.junit.parent}: make it, or correct {options.junit}"
        )
    reports = [_run(root, target, options) for target in targets]
    if options.json:
        told = [report.as_dict() for report in reports]
        print(json.dumps(told if len(told) > 1 else told[0], indent=1))
    elif options.markdown:
        print("\n".join(map(_report.markdown, reports)), end="")
    if options.junit:
        options.junit.write_text(_report.junit(reports), encoding="utf-8")
    return max(report.status(options.allow) for report in reports)


def _targets(options: argparse.Namespace) -> Iterator[Target]:
    names = dict(_pair(given) for given in options.names)
    if options.adapters:
        if options.paths or not options.component:
            raise CopyError("--adapter takes no PATH, and --as says what it implements")
        yield _adapted(_copying.find(options.component), options.adapters)
        return
    if not options.paths:
        raise CopyError("name a file to prove, or --adapter MODULE:ATTRIBUTE and --as")
    for path in options.paths:
        for file, data in _files(path):
            yield _of_file(file, data, options.component, names)


def _pair(given: str) -> tuple[str, str]:
    ours, _, theirs = given.partition("=")
    if not (ours.isidentifier() and theirs.isidentifier()):
        raise CopyError(f"--name {given}: write it as TTLCache=MyCache")
    return ours, theirs


def _files(path: Path) -> Iterator[tuple[Path, bytes]]:
    """The file, or the copies in a folder; parts are proved with the components that use them."""
    if not path.is_dir():
        yield from _copying.copies(path)
        return
    parts = {part.path for part in _copying.modules().values() if part.is_part}
    found = [(file, data) for file, data in _copying.copies(path) if _claimed(data) not in parts]
    if not found:
        raise CopyError(f"{path} has parts of components only: name the component's file")
    yield from found


def _claimed(data: bytes) -> str:
    """The component that a file's header names, or ""."""
    address = _copying.address(data)
    return address or ""


def _of_file(file: Path, data: bytes, wanted: str | None, names: dict[str, str]) -> Target:
    tree = _parsed(file, data)
    defined = set(_defined(tree))
    component = _copying.find(wanted) if wanted else _recognised(file, data, defined)
    main = component.names.partition(",")[0]
    if missing := [theirs for theirs in names.values() if theirs not in defined]:
        raise CopyError(f"{file} has no {missing[0]}: it has {_listed(defined)}")
    public = _public(component)
    if unknown := [ours for ours in names if ours not in public]:
        raise CopyError(f"--name: {component.path} has no {unknown[0]}: it has {_listed(public)}")
    if main not in defined | names.keys():
        raise CopyError(
            f"{file} has no {main}: say what stands for it, as in --name {main}=YourName; "
            f"it has {_listed(defined)}"
        )
    bindings = _bindings(component, file, tree)
    bindings[_dotted(component)] |= {"names": names}
    return Target(component, str(file), _state(component, data, file), bindings)


def _parsed(file: Path, data: bytes) -> ast.Module:
    try:
        return ast.parse(data, str(file))
    except SyntaxError as error:
        where = f", line {error.lineno}" if error.lineno else ""
        raise CopyError(
            f"{file}{where}: {error.msg}: it is no Python that can be run here"
        ) from None


def _recognised(file: Path, data: bytes, defined: set[str]) -> Component:
    """The component that a file is a copy of, by its header or by what it defines."""
    path = _claimed(data)
    if (module := _copying.modules().get(path)) and module.is_part:
        users = " or ".join(f"{user.module}.py" for user in _copying.users(module))
        raise CopyError(f"{file} is a part of components: prove {users} beside it")
    if path in _copying.components():
        return _copying.components()[path]
    found = [
        each for each in _copying.components().values() if each.names.partition(",")[0] in defined
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise CopyError(f"{file} may be {_listed(each.module for each in found)}: say it by --as")
    names = ", ".join(each.module for each in _copying.components().values())
    raise CopyError(
        f"{file} is no component that is known here, by its header or its classes: say which it "
        f"is, as in --as ttl_cache; there is {names}"
    )


def _listed(names: Any) -> str:
    return ", ".join(sorted(name for name in names if not name.startswith("_"))) or "nothing"


def _defined(tree: ast.Module) -> Iterator[str]:
    """What a module's importers can have of it."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        else:
            yield from (
                each.id
                for each in ast.walk(node)
                if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
            )


def _public(component: Component) -> list[str]:
    """What the component itself offers, by its own file."""
    tree = ast.parse(component.source)
    for node in tree.body:
        targets = getattr(node, "targets", [])
        if targets and getattr(targets[0], "id", "") == "__all__" and isinstance(node, ast.Assign):
            names: list[str] = ast.literal_eval(node.value)
            return names
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    return [name for name in _defined(tree) if not name.startswith("_") and name not in imported]


def _state(component: Component, data: bytes, file: Path) -> str:
    """What the file is, in words: "modified from TTLCache 1.1.0 (14 lines)"."""
    name = component.names.partition(",")[0]
    verdict = _copying.judge(data, str(file))
    if verdict is None or verdict.path != component.path:
        return f"proved as {name} {component.version}"
    lines = f" ({verdict.changed} line{'s' if verdict.changed != 1 else ''})"
    return {
        "vetted": f"{name} {verdict.version}, as it was vetted",
        "older": f"{name} {verdict.version}, an older version, proved as {component.version}",
        "formatted": f"{name} {verdict.version}, formatted anew",
    }.get(verdict.kind, f"modified from {name} {verdict.version or '(no version)'}{lines}")


# How the child finds it.


def _dotted(component: Component) -> str:
    return f"reference_impl.{component.path.replace('/', '.')}"


def own_name(file: Path, tree: ast.Module) -> tuple[str, str]:
    """The dotted name by which a file is imported, and what has to be on sys.path for it.

    The name is "" where none would do: the file goes by the component's then.
    """
    relative = any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))
    package, root = _copying.package_name(file.parent, needed=relative)
    parts = [*filter(None, package.split(".")), file.stem]
    dotted = ".".join(parts)
    fit = all(part.isidentifier() for part in parts) and parts[0] not in _UNFIT
    return (dotted if fit and dotted not in sys.stdlib_module_names else ""), str(root)


def _bindings(component: Component, file: Path, tree: ast.Module) -> dict[str, dict[str, Any]]:
    """The file in the component's place, and its own siblings in the siblings' places."""
    found = {component.path: (file, tree)}
    siblings = _copying.closure(component)[1:]
    for sibling in siblings:
        for there, its_tree in list(found.values()):
            place = _imported(there, its_tree, sibling.module)
            if place is None and set(_public(sibling)) & set(_classes(its_tree)):
                place = there  # written into the file itself
            if place is not None:
                found[sibling.path] = place, _parsed(place, place.read_bytes())
                break
    result = {}
    for path, (place, its_tree) in found.items():
        each = _copying.modules()[path]
        module, root = own_name(place, its_tree)
        if module == _dotted(each) or place.samefile(_copying_package() / f"{path}.py"):
            continue
        result[_dotted(each)] = {
            "file": str(place.resolve()),
            "module": module,
            "root": root,
        }
    result.setdefault(_dotted(component), {})
    return result


def _classes(tree: ast.Module) -> list[str]:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [node.name for node in tree.body if isinstance(node, kinds)]


def _imported(file: Path, tree: ast.Module, module: str) -> Path | None:
    """The file of a module of this name that the file imports; None if it imports none."""
    _, root = own_name(file, tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = Path(root)
            if node.level:
                base = file.parent.joinpath(*[".."] * (node.level - 1))
            parts = node.module.split(".") if node.module else []
            places = [parts, *([*parts, alias.name] for alias in node.names)]
        elif isinstance(node, ast.Import):
            base, places = Path(root), [alias.name.split(".") for alias in node.names]
        else:
            continue
        for place in places:
            path = base.joinpath(*place).with_suffix(".py") if place else None
            if path and path.stem == module and path.is_file():
                return path
    return None


def _adapted(component: Component, given: Sequence[str]) -> Target:
    main = component.names.partition(",")[0]
    adapters = {}
    for each in given:
        name, separator, target = each.partition("=")
        name, target = (name, target) if separator else (main, each)
        if not re.fullmatch(r"[\w.]+:[\w.]+", target):
            raise CopyError(f"--adapter {each}: write it as package.module:make_cache")
        if name not in _public(component):
            raise CopyError(f"--adapter {each}: {component.path} has no {name}")
        adapters[name] = target
    binding = {"adapters": adapters, "root": str(Path.cwd())}
    return Target(
        component, ", ".join(adapters.values()), f"proved as {main}", {_dotted(component): binding}
    )


# The child.


def _run(root: Path, target: Target, options: argparse.Namespace) -> Report:
    began = time.monotonic()
    quiet = options.json or options.markdown
    out = sys.stderr if quiet else sys.stdout
    print(
        f"{_report.heading(target.label, target.state)}  {options.profile} profile",
        file=out,
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="prove-") as scratch:
        results = Path(scratch, "results.jsonl")
        results.touch()
        said = Path(scratch, "said.txt")
        words = [
            target.component.path,
            str(results),
            options.profile,
            *map(str.upper, options.guarantees),
        ]
        status, stuck = _child(root, words, target, Path(scratch), out)
        events = [
            json.loads(line)
            for line in results.read_text("utf-8").splitlines()
            if line.endswith("}")
        ]
        text = said.read_text(encoding="utf-8", errors="replace")
    if status == REFUSED:
        raise CopyError(text.strip())
    kinds = {event["event"] for event in events}
    if status == _UNENDING:
        raise CopyError(f"{target.label}: its import was not at an end after {_IMPORT:.0f} s")
    if "promises" not in kinds or not ("ended" in kinds or stuck):
        raise CopyError(f"the proofs did not run (exit status {status}):\n{text[-4000:].strip()}")
    report = Report(target.component.path, target.label, target.state, options.profile)
    report.seconds = time.monotonic() - began
    _report.judged(report, events)
    if not quiet:
        print(_report.text(report), end="", flush=True)
    return report


def _child(
    root: Path, words: Sequence[str], target: Target, scratch: Path, out: TextIO
) -> tuple[int, bool]:
    """Run the proofs to their end; returns the child's status, and whether it was stuck."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONSAFEPATH", "PYTEST_ADDOPTS", "PYTEST_PLUGINS"}
    }
    bindings = {name: binding for name, binding in target.bindings.items() if binding}
    environment |= {
        "EXECUTABLE_GUARANTEES_COPIES": json.dumps(bindings),
        "EXECUTABLE_GUARANTEES_PATIENCE": "20",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(scratch),  # the proofs' own may be read-only
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # those of the reader's project stay out
    }
    results = scratch / "results.jsonl"
    with (scratch / "said.txt").open("wb") as said:
        child = subprocess.Popen(  # noqa: S603  # our own words
            [sys.executable, "-m", "tests.kit.prove", *words],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        bar = _report.Bar(out)
        try:
            return _followed(child, results, bar)
        finally:
            bar.close()
            with contextlib.suppress(OSError):  # all of it has ended already
                if sys.platform == "win32":
                    child.kill()
                else:
                    os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _followed(
    child: "subprocess.Popen[bytes]", results: Path, bar: _report.Bar
) -> tuple[int, bool]:
    heard, begun = time.monotonic(), False
    with results.open(encoding="utf-8") as lines:
        while True:
            ended = child.poll() is not None
            while line := lines.readline():
                heard, begun = time.monotonic(), True
                bar.step(line)
                ended = ended or '"event": "ended"' in line
            if ended:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(10)  # threads that hang may keep it: it is killed then
                return child.returncode or 0, False
            if time.monotonic() - heard > (_WITHOUT_A_WORD if begun else _IMPORT):
                return (-1, True) if begun else (_UNENDING, False)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(0.05)
