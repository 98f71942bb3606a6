"""The command `prove`: which guarantees a changed copy, or another implementation, still keeps.

The proofs are in a clone, or in the wheel; they run in a child process, which has the reader's
file in the place of the component's, and which ends whatever the file does.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from reference_impl import _copying, _report, _targets
from reference_impl._copying import CopyError
from reference_impl._report import WORDS, Report
from reference_impl._targets import Target

_HERE = Path(__file__).resolve().parent
_NEEDED = ("pytest", "hypothesis", "pytest_timeout", "xdist", "detangle")
_IMPORT = 60.0  # seconds, in which the child has imported the file
_WITHOUT_A_WORD = 300.0  # seconds, after which it is not waited for any more
REFUSED = 64  # the child's exit status where it has said why on its standard error
NOTHING = 65  # the same where there is nothing to prove
_UNENDING = -64  # in the place of a status: the import did not end


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
    root = next((r for r in (_HERE / "_proofs", _HERE.parent) if (r / "tests/kit").is_dir()), None)
    if root is None:
        raise CopyError(
            "this installation has no proofs: install the wheel of the site, or use a clone"
        )
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise CopyError(
            f"prove needs {', '.join(missing)}: install 'executable-guarantees[prove]', "
            "or in a clone run `nox -s prove -- PATH`"
        )
    return root


# What to prove.


def _prove(options: argparse.Namespace) -> int:
    root = proofs_root()
    targets = list(_wanted(options))
    if options.junit and not options.junit.absolute().parent.is_dir():
        raise CopyError(
            f"there is no folder {options.junit.parent}: make it, or correct {options.junit}"
        )
    reports, refused = _reports(root, targets, options)
    if options.json:
        told = [report.as_dict() for report in reports]
        print(json.dumps(told if len(told) > 1 else told[0], indent=1))
    elif options.markdown:
        print("\n".join(map(_report.markdown, reports)), end="")
    if options.junit:
        options.junit.write_text(_report.junit(reports), encoding="utf-8")
    return max(report.status(options.allow) for report in reports) if not refused else 2


def _reports(
    root: Path, targets: list[Target], options: argparse.Namespace
) -> tuple[list[Report], bool]:
    """What can be told of each, and whether something was refused; that stops no other."""
    reports, refused = list[Report](), list[CopyError]()
    for target in targets:
        try:
            reports.append(_run(root, target, options))
        except CopyError as error:
            refused.append(error)
            if len(targets) > 1:
                print(f"error: {error}", file=sys.stderr)
    found = [report for report in reports if report.findings]
    if not found and refused and len(targets) == 1:
        raise refused[0]
    if not found:
        names = ", ".join(target.label for target in targets)
        why = f": {reports[0].state}" if reports else ""
        raise CopyError(f"nothing was proved of {names}{why}")
    return found, bool(refused)


def _wanted(options: argparse.Namespace) -> Iterator[Target]:
    names = dict(_pair(given) for given in options.names)
    if options.adapters:
        if options.paths or not options.component:
            raise CopyError("--adapter takes no PATH, and --as says what it implements")
        yield _targets.adapted(_copying.find(options.component), options.adapters)
        return
    if not options.paths:
        raise CopyError("name a file to prove, or --adapter MODULE:ATTRIBUTE and --as")
    for path in options.paths:
        for file, data in _targets.files(path):
            yield _targets.of_file(file, data, options.component, names)


def _pair(given: str) -> tuple[str, str]:
    ours, _, theirs = given.partition("=")
    if not (ours.isidentifier() and theirs.isidentifier()):
        raise CopyError(f"--name {given}: write it as TTLCache=MyCache")
    return ours, theirs


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
    if status == NOTHING:
        print(text.strip(), file=out)
        return Report(target.component.path, target.label, text.strip(), options.profile)
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
