"""Mutation scores: `python -m site_build.mutation [--changed] [NAME …]` mutates components.

With `--changed` only functions whose code differs from that of the record are mutated; what is
known of the others is kept. The mutants of a part count with the component whose page shows it,
and the tests of all components that share it run on them.

mutmut works on a copy of the project below build/, so that the tree stays as it is. What it
finds of a component goes to docs/evidence/mutation/<name>.json as soon as it is through with
it, with each survivor as the lines that it changes. <name>.toml beside it, written by hand,
says why they may survive; `site_build.evidence` renders both.
"""

import ast
import contextlib
import hashlib
import importlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from site_build import records
from tests.kit import ROOT
from tests.kit.catalogue import (
    components,
    digests,
    is_part,
    parts_shown,
    proof_places,
    python_build,
    users,
)

_WORK = ROOT / "build" / "mutation"
_COPIED = ("reference_impl", "tests", "docs", "conftest.py", "pyproject.toml")
_PLUGIN = '\npytest_plugins.append("tests.kit.mutants")\n'
# What mutmut keeps of each mutant is the code that its process ended with: pytest's own, 255
# where pytest raised (an unraisable exception does it, at the end), or minus a signal.
_KILLED = (1, 2, 3, 255)
_TIMEOUT = (-signal.SIGALRM, -signal.SIGXCPU, -signal.SIGKILL)
_NO_TESTS = (5, 33)
_STATUS = (
    {0: "survived"}
    | dict.fromkeys(_KILLED, "killed")
    | dict.fromkeys(_TIMEOUT, "timeout")
    | dict.fromkeys(_NO_TESTS, "no tests")
)


def main(arguments: list[str]) -> None:
    """Mutate the named components, or all."""
    changed = "--changed" in arguments
    arguments = [name for name in arguments if name != "--changed"]
    wanted = [c for c in components() if not arguments or Path(c).name in arguments]
    unknown = set(arguments) - {Path(c).name for c in wanted}
    if unknown:
        names = ", ".join(Path(c).name for c in components())
        raise SystemExit(f"no component {', '.join(sorted(unknown))}: choose from {names}")
    for component in wanted:
        kept = records.read(component)
        record = rerun(component, kept["mutation"]) if changed else run(component)
        kept["mutation"] = {key: value for key, value in record.items() if key != "component"}
        records.write(kept)
        killed = record["killed"] + record["timeouts"]
        print(f"{component}: {killed} of {record['mutants']} mutants killed", flush=True)


def rerun(component: str, before: dict[str, Any]) -> dict[str, Any]:
    """Mutate the functions that are not as they were in the record; the rest of it stays."""
    old, new = dict[str, _Function](), dict[str, _Function]()
    for module in _mutated(component):
        path = f"reference_impl/{module}.py"
        if path in before["files"]:
            old |= _functions(module, _recorded(component, path, before["files"][path]))
        new |= _functions(module, (ROOT / path).read_text("utf-8"))
    gone = {name for name, function in old.items() if function != new.get(name)}
    changed = [name for name, function in new.items() if function != old.get(name)]
    patterns = [f"{name}__mutmut_*" for name in changed if new[name].mutants]
    now = run(component, *patterns) if patterns else None
    readable = {_readable(name) for name in gone}
    kept = [each for each in before["survivors"] if each["function"] not in readable]
    lost = len(before["survivors"]) - len(kept)
    result = before | {"component": component, "files": digests(component), "survivors": kept}
    dropped = sum(old[name].mutants for name in gone)
    result["mutants"] -= dropped
    result["killed"] -= dropped - lost
    for status in ("survived", "no_tests"):
        name = status.replace("_", " ")
        result[status] = sum(each["status"] == name for each in kept)
    if now is not None:
        for count in ("mutants", "killed", "timeouts", "survived", "no_tests"):
            result[count] += now[count]
        result["survivors"] = kept + now["survivors"]
        result |= {name: now[name] for name in ("date", "python", "tool")}
    return result


@dataclass(frozen=True)
class _Function:
    code: str  # without layout, comments and docstring
    mutants: int


def _mutated(component: str) -> list[str]:
    """The modules whose mutants count with the component: its own, and the parts on its page."""
    return [component, *parts_shown(component)]


def _functions(module: str, source: str) -> dict[str, _Function]:
    """The functions that mutmut knows, by its names for them behind the module's."""
    # Installed in the session that mutates alone.
    mutmut = importlib.import_module("mutmut.mutation.file_mutation")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        # It does not look at a source before it has found settings where it is.
        Path("pyproject.toml").write_text('[tool.mutmut]\nsource_paths = ["."]\n')
        names = mutmut.mutate_file_contents(f"reference_impl/{module}.py", source).mutant_names
    count = Counter(name.rpartition("__mutmut_")[0] for name in names)
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            node.body[0] = ast.Pass()
    hashes = mutmut.compute_function_hashes(ast.unparse(tree))
    dotted = f"reference_impl.{module.replace('/', '.')}"
    return {f"{dotted}.{name}": _Function(code, count[name]) for name, code in hashes.items()}


def _recorded(component: str, path: str, digest: str) -> str:
    """A source that a record is of, from the history."""
    for commit in _git("log", "--format=%H", "--", path).decode().split():
        source = _git("show", f"{commit}:{path}")
        if hashlib.sha256(source).hexdigest().startswith(digest):
            return source.decode()
    raise SystemExit(f"{component}: the file of its record is not in the history; mutate it whole")


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


def _readable(name: str) -> str:
    """mutmut's name of a function as `Class.method`, of one in a part as `_part.Class.method`."""
    *_, module, function = name.split(".")
    readable = re.sub(r"^x_?", "", function).strip("ǁ").replace("ǁ", ".")
    return f"{module}.{readable}" if is_part(module) else readable


def run(component: str, *patterns: str) -> dict[str, Any]:
    """Mutate one component in a copy of the project; all of it, or what `patterns` name."""
    work = _WORK / Path(component).name
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    every = table["tool"]["executable-guarantees"]["mutation"]
    testing = dict.fromkeys([component, *(u for p in parts_shown(component) for u in users(p))])
    tests = [test for each in testing for test in _tests(each)]
    tests += [test for each in testing for test in every.get(each, {}).get("also", [])]
    without = [name for each in testing for name in every.get(each, {}).get("without", [])]
    without = list(dict.fromkeys(without))
    files = digests(component)
    _copy(work, _mutated(component), tests, without)
    start = time.monotonic()
    _mutmut(work, "run", *patterns)
    codes: dict[str, int | None] = {}
    for module in _mutated(component):
        meta = work / "mutants" / "reference_impl" / f"{module}.py.meta"
        codes |= json.loads(meta.read_text())["exit_code_by_key"]
    if patterns:
        codes = {mutant: code for mutant, code in codes.items() if code is not None}
    if not {0, 1} & set(codes.values()):
        raise SystemExit(f"{component}: no test has passed or failed: pytest does not start")
    unknown = {code for code in codes.values() if code not in _STATUS}
    if unknown:
        raise SystemExit(f"{component}: mutmut gave {unknown}: say in _STATUS what they mean")
    count = Counter(_STATUS[code] for code in codes.values() if code is not None)
    return {
        "component": component,
        "date": datetime.now(UTC).date().isoformat(),
        "files": files,
        "python": python_build(),
        "tool": f"mutmut {version('mutmut')}",
        "seconds": round(time.monotonic() - start),
        "without": without,
        "mutants": sum(count.values()),
        "killed": count["killed"],
        "timeouts": count["timeout"],
        "survived": count["survived"],
        "no_tests": count["no tests"],
        "survivors": [
            {"status": _STATUS[code]} | _changed(mutant, _mutmut(work, "show", mutant))
            for mutant, code in codes.items()
            if code in {0, *_NO_TESTS}
        ],
    }


def _tests(component: str) -> list[str]:
    """The component's own test files, without what is explored."""
    places = [place.relative_to(ROOT).as_posix() for place in proof_places(component)]
    return [place for place in places if not place.startswith("tests/interleavings")]


def _copy(work: Path, modules: list[str], tests: list[str], without: list[str]) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "evidence", ".hypothesis")
    for part in _COPIED:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, work / part, ignore=ignored, symlinks=True)
        else:
            shutil.copy2(ROOT / part, work / part)
    with (work / "conftest.py").open("a", encoding="utf-8") as file:
        file.write(_PLUGIN)
    cli = ["-m", "not twin and not stress", "-p", "no:cacheprovider"]
    cli += ["--timeout=0", "--hypothesis-profile=mutation"]
    cli += ["-k", " and ".join(f"not {part}" for part in without)] if without else []
    table = {
        "source_paths": [f"reference_impl/{module}.py" for module in modules],
        "also_copy": list(_COPIED),
        # Each mutant starts from a process that has imported the tests and run none.
        "process_isolation": "forkserver",
        "pytest_add_cli_args": cli,
        "pytest_add_cli_args_test_selection": tests,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    with (work / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write("\n[tool.mutmut]\n" + "\n".join(lines) + "\n")


def _changed(mutant: str, diff: str) -> dict[str, str]:
    """The function that a mutant changes, and the lines before and after."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    name = _readable(re.sub(r"__mutmut_\d+$", "", mutant))
    return {"function": name} | {
        when: " ".join(line[1:].strip() for line in lines if line.startswith(sign))
        for when, sign in (("before", "-"), ("after", "+"))
    }


def _mutmut(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = re.sub(r"^[⠀-⣿] .*\n?", "", done.stdout + done.stderr, flags=re.MULTILINE)
        raise SystemExit(f"mutmut {arguments[0]} failed in {folder}:\n{said[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main(sys.argv[1:])
