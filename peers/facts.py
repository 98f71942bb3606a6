"""What can be measured or read of each library: peers/results/facts.json.

`python -m peers.facts` takes every distribution that a row names; with names, those alone, and
leaves the others as they were. It needs PyPI for the dates and the wheels.
"""

import argparse
import ast
import json
import platform
import re
import resource
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from peers.adapters import Row
from peers.running import FAMILIES, RESULTS, ROOT, subjects

FILE = RESULTS / "facts.json"
RUNS = 7  # fresh interpreters for each import time
_FREE_THREADING = "Programming Language :: Python :: Free Threading"
_COMPILED = (".so", ".pyd", ".dylib", ".dll")
_CLASSIFIED = {
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "Python Software Foundation License": "PSF-2.0",
}
# What the free text of `License:` is often short for.
_SHORT = {"mit license": "MIT", "apache 2": "Apache-2.0", "apache 2.0": "Apache-2.0"}


def rows() -> dict[str, list[type[Row]]]:
    """By distribution, the rows that name it."""
    found: dict[str, list[type[Row]]] = {}
    for name in FAMILIES:
        if (ROOT / "peers" / "adapters" / name / "__init__.py").exists():
            for each in subjects(name):
                if each.row.package:
                    found.setdefault(each.row.package, []).append(each.row)
    return dict(sorted(found.items(), key=lambda each: each[0].lower()))


def licence(found: Distribution) -> str:
    """Its SPDX expression, or the nearest that its metadata, then its licence's text, say."""
    metadata: Any = found.metadata
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    told = " ".join((metadata.get("License") or "").split())
    told = _SHORT.get(told.lower(), told)
    classified = [
        _CLASSIFIED.get(str(each).rpartition(" :: ")[2], str(each).rpartition(" :: ")[2])
        for each in metadata.get_all("Classifier") or []
        if each.startswith("License :: ") and each != "License :: OSI Approved"
    ]
    # "MPL-2.0 AND MIT" is an expression; "BSD" and a sentence are none.
    if re.fullmatch(r"[A-Za-z0-9.+-]+( (AND|OR) [A-Za-z0-9.+-]+)*", told) and told != "BSD":
        return told
    name = " OR ".join(classified) or told
    return (_by_text(found) or name or "unknown") if name in ("", "BSD") else name[:40]


def _by_text(found: Distribution) -> str:
    for file in found.files or []:
        if re.match(r"(LICEN[CS]E|COPYING)", file.name, re.IGNORECASE):
            text = " ".join(Path(str(found.locate_file(file))).read_text(errors="replace").split())
            if "Permission is hereby granted, free of charge" in text:
                return "MIT"
            if "Redistribution and use in source and binary forms" in text:
                return (
                    "BSD-3-Clause" if re.search("Neither the names? of", text) else "BSD-2-Clause"
                )
    return ""


def pulled_in(found: Distribution) -> dict[str, Distribution]:
    """The distributions that an installation brings along here, by name, without its extras."""
    tree: dict[str, Distribution] = {}
    extras: dict[str, set[str]] = {}
    waiting: list[tuple[Distribution, frozenset[str]]] = [(found, frozenset())]
    while waiting:
        current, wanted = waiting.pop()
        for each in map(Requirement, current.requires or []):
            marker = each.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                continue
            name = canonicalize_name(each.name)
            if name in tree and each.extras <= extras[name]:
                continue
            try:
                tree[name] = distribution(each.name)
            except PackageNotFoundError as error:
                raise LookupError(f"{current.name} requires {each}, not installed") from error
            extras[name] = extras.get(name, set()) | each.extras
            waiting.append((tree[name], frozenset(extras[name])))
    tree.pop(canonicalize_name(found.name), None)
    return dict(sorted(tree.items()))


def _files(found: Distribution) -> Iterator[PackagePath]:
    """What its record names, without compiled bytecode, which depends on who ran it."""
    for file in found.files or []:
        if file.suffix != ".pyc":
            yield file


def size(found: Distribution) -> int:
    """Bytes of its files, as installed."""
    paths = [Path(str(found.locate_file(each))) for each in _files(found)]
    return sum(each.stat().st_size for each in paths if each.is_file())


def compiled(found: Distribution) -> bool:
    """Whether it has machine code of its own."""
    return any(each.suffix in _COMPILED for each in _files(found))


def imported(found: Distribution, users: Iterable[type[Row]] = ()) -> tuple[str, ...]:
    """The modules that these rows import of it; its main one where they name none."""
    modules = set()
    for file in _files(found):
        path = file.parent if file.name == "__init__.py" else file.with_suffix("")
        if (file.name == "__init__.py" or len(file.parts) == 1) and file.suffix in (".py", ".so"):
            modules.add(".".join(path.parts).partition(".cpython-")[0])
    if not modules:
        raise LookupError(f"{found.name} has no module")
    tops = {each.partition(".")[0] for each in modules}
    used = {
        name
        for row in users
        for node in ast.parse(row.imports).body
        for name in _names(node)
        if name.partition(".")[0] in tops
    }
    if used:
        return tuple(sorted(used))
    wanted = _letters(found.name)
    return (min(modules, key=lambda each: (_letters(each) != wanted, each.count("."), each)),)


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def _letters(name: str) -> str:
    return re.sub(r"[-_.]", "", name).lower()


def import_milliseconds(
    modules: Iterable[tuple[str, ...]], runs: int = RUNS
) -> dict[tuple[str, ...], float]:
    """By group of modules: processor time of their import, above that of a bare interpreter.

    Each is a median over fresh interpreters, bare ones in between. Processor time is what an
    import takes on an idle machine, and it hardly changes on a busy one.
    """
    programs = {(): "pass"} | {each: f"import {', '.join(each)}" for each in modules}
    taken: dict[tuple[str, ...], list[float]] = {each: [] for each in programs}
    for program in programs.values():
        _processor_seconds(program)  # fills the caches of bytecode and of the disk
    for _ in range(runs):
        for name, program in programs.items():
            taken[name].append(_processor_seconds(program))
    bare = statistics.median(taken.pop(()))
    return {
        name: round(max(0.0, statistics.median(each) - bare) * 1000, 1)
        for name, each in taken.items()
    }


def _processor_seconds(program: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-I", "-c", program], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def released(answer: Mapping[str, Any]) -> tuple[str, str]:
    """Version and date of the newest release that PyPI lists and that was not withdrawn."""
    version = answer["info"]["version"]  # PyPI's own choice: not yanked, no pre-release if it can
    times = [
        each["upload_time_iso_8601"]
        for each in answer["releases"].get(version, [])
        if not each["yanked"]
    ]
    return version, min(times)[:10] if times else ""


def free_threaded(found: Distribution, wheels: Iterable[str]) -> str:
    """What is there on this system for a build without the GIL: a wheel, a statement, or neither.

    Some distributions are compiled for another system alone, so that its wheels say nothing here.
    """
    here = [each for each in wheels if sys.platform in each]
    if any(re.search(r"-cp3\d+t-", each) for each in here):
        return "wheel"
    if declared(found) is not None:
        return "declared"
    return "no wheel" if compiled(found) else "pure Python, says nothing"


def declared(found: Distribution) -> str | None:
    """The level of its classifier for free threading, "" without a level; None: no classifier."""
    for each in found.metadata.get_all("Classifier") or []:
        if each.startswith(_FREE_THREADING):
            return str(each).removeprefix(_FREE_THREADING).removeprefix(" :: ")
    return None


def pypi(package: str) -> dict[str, Any]:
    """What PyPI knows of it."""
    with urllib.request.urlopen(f"https://pypi.org/pypi/{package}/json", timeout=60) as answer:
        known: dict[str, Any] = json.load(answer)
    return known


def facts(
    package: str, modules: tuple[str, ...], milliseconds: float, known: Mapping[str, Any]
) -> dict[str, Any]:
    """All of one distribution."""
    found = distribution(package)
    tree = pulled_in(found)
    latest, day = released(known)
    wheels = [
        each["filename"]
        for each in known["releases"].get(found.version, [])
        if each["packagetype"] == "bdist_wheel"
    ]
    own = size(found)
    return {
        "version": found.version,
        "latest": latest,
        "last_release": day,
        "licence": licence(found),
        "pulls_in": list(tree),
        "bytes": own,
        "bytes_with_all": own + sum(map(size, tree.values())),
        "imported": list(modules),
        "import_ms": milliseconds,
        "compiled": compiled(found),
        "compiled_below": [name for name, each in tree.items() if compiled(each)],
        "free_threaded": free_threaded(found, wheels),
        "free_threaded_level": declared(found) or "",
    }


def read() -> dict[str, Any]:
    """What was recorded, or nothing."""
    recorded: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return recorded


def text(recorded: Mapping[str, Any], today: str) -> str:
    """JSON with a line for each package."""
    head = {
        "date": today,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "import_runs": RUNS,
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    rows = [
        f"  {json.dumps(name)}: {json.dumps(recorded[name], ensure_ascii=False)}"
        for name in sorted(recorded, key=str.lower)
    ]
    return "\n".join(["{", *lines, ' "packages": {', ",\n".join(rows), " }", "}", ""])


def main() -> int:
    """Record the facts of what is named, of all rows' distributions without."""
    parser = argparse.ArgumentParser(prog="python -m peers.facts", description=__doc__)
    parser.add_argument("packages", nargs="*", help="distributions; those of all rows without")
    options = parser.parse_args()
    known = rows()
    wanted: list[str] = options.packages or list(known)
    kept = read().get("packages", {}) if options.packages else {}
    modules = {each: imported(distribution(each), known.get(each, ())) for each in wanted}
    times = import_milliseconds(modules.values())
    today = date.today().isoformat()
    for package in wanted:
        used = modules[package]
        kept[package] = facts(package, used, times[used], pypi(package)) | {"date": today}
        print(f"{package}: {json.dumps(kept[package], ensure_ascii=False)}")
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text(kept, today))
    return 0


if __name__ == "__main__":
    sys.exit(main())
