"""Run cells, each in a process of its own with a deadline, and keep what they found."""

import ast
import contextlib
import hashlib
import importlib
import inspect
import json
import os
import pkgutil
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peers.adapters import Row, source
from peers.cell import MARK, family
from peers.checks import Check

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "peers" / "results"
FAMILIES = ("caches", "async_caches", "queues", "buses", "bridges", "parallel", "watchers")
_FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"
TIMES = 10  # runs of a cell that fails: it is told how many of them failed


@dataclass(frozen=True)
class Subject:
    """A row, and where it stands."""

    family: str
    library: str  # the adapter's file
    row: type[Row]

    @property
    def address(self) -> str:
        """Where the cell's process finds it."""
        return f"{self.row.__module__}:{self.row.__name__}"

    @property
    def slug(self) -> str:
        """Its key in results, claims and addresses: "cachetools-WithLock"."""
        return f"{self.library}-{self.row.__name__}"


def subjects(family_name: str) -> list[Subject]:
    """The rows of a family, in order of their files; ours last."""
    package = importlib.import_module(f"peers.adapters.{family_name}")
    libraries = [each.name for each in pkgutil.iter_modules(package.__path__)]
    found = [each for library in libraries for each in subjects_of(family_name, library)]
    return sorted(found, key=lambda each: each.row.ours)


def subjects_of(family_name: str, library: str) -> list[Subject]:
    """The rows of one adapter, in order of their definition."""
    module = importlib.import_module(f"peers.adapters.{family_name}.{library}")
    return [
        Subject(family_name, library, value)
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Row)
        and value.__module__ == module.__name__
        and "name" in vars(value)
    ]


def examined(subject: Subject, check: Check) -> dict[str, Any]:
    """The cell's outcome; "no result" if its process does not tell one in time."""
    environment = dict(os.environ, PYTHONHASHSEED="0", PYTHONPATH=str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        if check.clock:
            libraries = sorted(Path("/").glob(_FAKETIME.lstrip("/")))
            if not libraries:
                return {"outcome": "not explored", "seen": "libfaketime is not installed here"}
            stamp = Path(folder, "clock")
            stamp.write_text("+0s\n")
            environment |= {
                "LD_PRELOAD": str(libraries[0]),
                "FAKETIME_TIMESTAMP_FILE": str(stamp),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
        command = [sys.executable, "-m", "peers.cell", subject.family, subject.address, check.name]
        return _finish(command, environment | {"TMPDIR": folder}, check.deadline)


def _finish(command: list[str], environment: dict[str, str], deadline: float) -> dict[str, Any]:
    """Run it in a process group of its own, none of which outlives it."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=environment["TMPDIR"],
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            return {"outcome": "no result", "seen": f"the check did not end in {deadline:g} s"}
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
    told = [line for line in out.splitlines() if line.startswith(MARK)]
    if not told:
        return {"outcome": "error", "seen": f"exit {process.returncode}: {err.strip()[-300:]}"}
    found: dict[str, Any] = json.loads(told[-1].removeprefix(MARK))
    return found


def reproduction(row: type[Row], check: Check) -> str:
    """The program that shows the failure without this harness, if the check has one."""
    if not check.reproduction:
        return ""
    parts = [row.imports.strip(), source(row, *check.uses), check.reproduction]
    wanted = {line for part in parts for line in part.splitlines() if line.startswith("import ")}
    body = "\n".join(
        "\n".join(line for line in part.splitlines() if line not in wanted).strip("\n")
        for part in parts
    )
    return "\n".join([*sorted(wanted), body.strip()]) + "\n"


def reproduced(program: str, deadline: float = 60.0) -> str:
    """What the program's AssertionError says, or "" if it ends otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "reproduction.py")
        file.write_text(program)
        try:
            done = subprocess.run(
                [sys.executable, str(file)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                cwd=folder,
                env=dict(os.environ, PYTHONPATH=str(ROOT)),
                timeout=deadline,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ""
    last = [line for line in done.stderr.splitlines() if line.startswith("AssertionError")]
    return last[-1] if done.returncode and last else ""


def fingerprint(family_name: str, library: str, check: str) -> str:
    """A digest of the code of adapter and check, without their words: what a cell depends on."""
    texts = [
        _code(ROOT / "peers" / "adapters" / family_name / f"{library}.py"),
        _code(ROOT / "peers" / "adapters" / family_name / "__init__.py"),
        _code(ROOT / "peers" / "checks" / f"{family_name}.py", check),
    ]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def _code(file: Path, check: str = "") -> str:
    """The file's syntax without docstrings; of the registered checks, this one alone."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)):
            body = node.body
            if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                del body[0]
    if check:
        tree.body = [
            node
            for node in tree.body
            if not (isinstance(node, ast.FunctionDef) and node.decorator_list) or node.name == check
        ]
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                for call in node.decorator_list:
                    if isinstance(call, ast.Call):
                        call.args = []
                        kept = ("uses", "reproduction", "clock")
                        call.keywords = [each for each in call.keywords if each.arg in kept]
    return ast.dump(tree)


def record(
    subject: Subject, check: Check, *, times: int = TIMES, known: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A cell of the results: one that fails is run again, and its reproduction with it.

    Where the `known` cell, of the same code and version, has failed so often already, once more
    is enough.
    """
    began = time.monotonic()
    code, cell = fingerprint(subject.family, subject.library, check.name), examined(subject, check)
    if cell["outcome"] == "fails":
        if known and same(known, subject, code) and known["failed"][0] >= times:
            cell["failed"] = known["failed"]
        else:
            again = [examined(subject, check)["outcome"] for _ in range(times - 1)]
            cell["failed"] = [1 + again.count("fails"), times]
        program = reproduction(subject.row, check)
        if program:
            cell["program"], cell["shows"] = program, reproduced(program)
    cell["seconds"] = round(time.monotonic() - began, 1)
    cell["code"] = code
    return cell


def same(known: dict[str, Any], subject: Subject, code: str) -> bool:
    """Whether the recorded cell is a failure of this code and this version of the library."""
    installed = version(subject.row.package) if subject.row.package else ""
    return bool(
        known["outcome"] == "fails"
        and known["code"] == code
        and known.get("version", "") == installed
        and known["python"] == platform.python_version()
    )


def described(subject: Subject) -> dict[str, Any]:
    """What the site tells of a row beside its cells."""
    row = subject.row
    return {
        "name": row.name,
        "library": subject.library,
        "package": row.package,
        "ours": row.ours,
        "documented": row.documented,
        "take_it": row.take_it,
        "unexplored": row.unexplored,
        "version": version(row.package) if row.package else "",
        "adapter": inspect.getsource(row),
    }


def wanted(only: Iterable[str]) -> list[tuple[Subject, Check]]:
    """The cells that the words name: families, libraries, rows or checks; all without words."""
    words = set(only)
    cells = []
    for name in FAMILIES:
        if not (ROOT / "peers" / "checks" / f"{name}.py").exists():
            continue
        for subject in subjects(name):
            for check in family(name).checks.values():
                known = {name, subject.library, subject.slug, check.name}
                known |= {f"{name}/{subject.library}"}
                if not words or words & known:
                    cells.append((subject, check))
    return cells
