"""One component, three files: code, page and tests, each in the form that the design gives."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.kit import COMPONENTS, ROOT, argument_checks
from tests.kit.catalogue import closure, components, is_part, parts, users

SECTIONS = [
    "See it break",
    "Guarantees",
    "The file",
    "Minimal use",
    "Operations",
    "What goes wrong",
    "How it works",
    "Tuning",
    "Testing your own use",
    "Outgrowing one process",
    "Evidence, known limits, changes",
    "API reference",
]
ASPECTS = [
    "Threads",
    "Event loops",
    "Processes and fork",
    "Ordering and fairness",
    "Capacity and backpressure",
    "Cancellation and timeouts",
    "Close",
    "Time source",
    "Free-threaded build",
]
HEADER = """\
# {name}: .+
# https://executable-guarantees\\.example/{address}
# Version \\d+\\.\\d+\\.\\d+ \\(\\d{{4}}-\\d\\d-\\d\\d\\); Python 3\\.11 to 3\\.14, .+
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 The Executable Guarantees authors
"""
THIRD_PARTY = {"bridges/file_watch": {"watchdog"}}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Longer than that, with what they have now. They grow by nothing but a mended fault: the three
# that watch files did by those of 2026-11-28 (a directory that goes while it is open, entries
# and leaving that were not refused, numbers and names that nobody can use); all but those by
# what holds since 2026-11-30 under a signal handler's exception at any point, and the caches and
# the queue by stale values, on_evict, delays and waiting for room; the converter pool by copies to
# other file systems, and by files that are hidden until they can be moved; parallel_execute by
# results as they come and the canonical argument checks, though what travels is a part now.
LONGER = {
    "bridges/async_runner": 456,
    "bridges/file_watch": 512,
    "bridges/parallel_execute": 528,
    "bridges/run_sync": 443,
    "buses/async_event_bus": 432,
    "buses/event_bus": 390,
    "caches/ttl_cache": 599,
    "queues/async_converter_pool": 544,
    "queues/async_pending_queue": 460,
    "queues/memory_queue": 567,
}

every_component = pytest.mark.parametrize("component", components())
every_module = pytest.mark.parametrize("module", components() + parts())


def siblings(module: str) -> set[str]:
    """The modules that this one may import, as import-linter's contract declares them."""
    contract = PYPROJECT["tool"]["importlinter"]["contracts"][0]
    pairs = (each.split(" -> ") for each in contract["ignore_imports"])
    paths = ((_path(importer), _path(imported)) for importer, imported in pairs)
    return {imported for importer, imported in paths if importer == module}


def _path(module: str) -> str:
    return module.removeprefix("reference_impl.").replace(".", "/")


def source(module: str) -> str:
    return (COMPONENTS / f"{module}.py").read_text(encoding="utf-8")


def page(component: str) -> str:
    path = ROOT / "docs" / f"{component}.md"
    assert path.is_file(), f"{component}.py has no page: write {path.relative_to(ROOT)}"
    return path.read_text(encoding="utf-8")


def test_there_are_components() -> None:
    assert components()


@every_component
def test_has_page_and_tests(component: str) -> None:
    family, name = component.split("/")
    page(component)
    tests = ROOT / "tests" / family / f"test_{name}.py"
    folder = tests.parent / name
    assert tests.is_file() or any(folder.glob("test_*.py")), (
        f"{component}.py has no tests: write {tests.relative_to(ROOT)}"
    )


@every_module
def test_has_its_version_in_the_changelog(module: str) -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = re.search(r"^# Version (\S+) \((\S+)\)", source(module), re.MULTILINE)
    assert version is not None
    entry = rf"^## {module}\n(.*\n)*?### {re.escape(version[1])} \({version[2]}\)$"
    assert re.search(entry, changes, re.MULTILINE), (
        f"CHANGELOG.md has no '### {version[1]} ({version[2]})' below '## {module}'"
    )


@pytest.mark.parametrize("folder", ["docs", "tests"])
def test_no_page_or_test_lacks_its_component(folder: str) -> None:
    known = set(components())
    families = {Path(component).parent.name for component in known}
    for file in (ROOT / folder).glob("*/*"):
        if file.parent.name not in families or file.stem in {"__init__", "__pycache__", "data"}:
            continue
        name = file.stem.removeprefix("test_").removesuffix("_model")
        assert f"{file.parent.name}/{name}" in known, f"{file} belongs to no component"


def header(module: str) -> str:
    """How a file opens; a part names a page that shows it, and itself on it."""
    pages = [module]
    if is_part(module):
        pages = users(module)
        assert pages, f"{module}.py is imported by no component: remove it"
    name = Path(module).name
    fragment = f"#{name}" if is_part(module) else ""
    address = rf"(?:{'|'.join(pages)})\.html{fragment}"
    return HEADER.format(name=rf"{name}\.py", address=address)


@every_module
def test_file_opens_with_its_header(module: str) -> None:
    assert re.match(header(module), source(module)), f"{module}.py: {header(module)}"


def code_lines(text: str) -> int:
    """How many lines hold code: not blank, no comment, no docstring."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            documented |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#") and number not in documented
        for number, line in enumerate(text.splitlines(), start=1)
    )


@every_module
def test_file_has_a_readable_length(module: str) -> None:
    """More than 350 lines of code want a simpler design; documentation is not counted."""
    assert code_lines(source(module)) <= LONGER.get(module, 350)


@every_module
def test_file_imports_only_what_the_design_allows(module: str) -> None:
    allowed = sys.stdlib_module_names | THIRD_PARTY.get(module, set())
    for node in ast.walk(ast.parse(source(module))):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom) and node.level:
            undeclared = set(imported_siblings(module, node)) - siblings(module)
            assert not undeclared, f"declare {undeclared} in [tool.importlinter]"
        elif isinstance(node, ast.ImportFrom):
            assert str(node.module).split(".")[0] in allowed


def imported_siblings(module: str, node: ast.ImportFrom) -> list[str]:
    """The modules of a relative import; `from . import name` names each of them."""
    package = module.split("/")[: -node.level]
    names = [node.module] if node.module else [alias.name for alias in node.names]
    return ["/".join([*package, *name.split(".")]) for name in names]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from ._spool import Spool", ["queues/_spool"]),
        ("from ..bridges.file_watch import DirectoryWatch", ["bridges/file_watch"]),
        ("from . import _spool, other", ["queues/_spool", "queues/other"]),
    ],
)
def test_a_relative_import_names_its_modules(line: str, found: list[str]) -> None:
    (node,) = ast.parse(line).body
    assert isinstance(node, ast.ImportFrom)
    assert imported_siblings("queues/one", node) == found


@every_component
def test_it_is_copied_as_three_files_at_most(component: str) -> None:
    assert len(closure(component)) <= 3


def functions(text: str) -> dict[str, str]:
    """The lines of each function of a module, comments included."""
    lines = text.splitlines(keepends=True)
    return {
        node.name: "".join(lines[node.lineno - 1 : node.end_lineno])
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def not_canonical(text: str) -> list[str]:
    """The argument checks of a module that are not byte for byte what they are elsewhere."""
    canonical = functions(Path(argument_checks.__file__).read_text(encoding="utf-8"))
    found = functions(text)
    return [name for name in canonical if name in found and found[name] != canonical[name]]


@every_module
def test_argument_checks_are_the_canonical_ones(module: str) -> None:
    changed = not_canonical(source(module))
    assert not changed, f"take {', '.join(changed)} from tests/kit/argument_checks.py as they are"


def test_an_argument_check_that_was_changed_is_found() -> None:
    text = Path(argument_checks.__file__).read_text(encoding="utf-8")
    assert functions(text).keys() >= {"_check_type", "_check_seconds", "_is_generator"}
    assert not_canonical(text) == []
    assert not_canonical("def _check_type(value): ...\n") == ["_check_type"]
    assert not_canonical(text.replace("value < 1", "value < 2")) == ["_check_count"]
    assert not_canonical(text.replace("  # also for an int", "  # for an int")) == [
        "_check_seconds"
    ]
    assert not_canonical("async " + text[text.index("def _check_plain") :]) == ["_check_plain"]


def test_no_test_file_is_too_long_to_find_anything_in() -> None:
    """About 600 lines: then a folder by concern."""
    long = {
        file.relative_to(ROOT).as_posix(): lines
        for file in (ROOT / "tests").rglob("*.py")
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > 650
    }
    assert not long, f"split these by concern: {long}"


@every_component
def test_page_has_its_sections_in_order(component: str) -> None:
    headings = re.findall(r"^## (.+?)(?: \{.*\})?$", page(component), re.MULTILINE)
    # A value that never changes has no schedule that loses.
    expected = SECTIONS[1:] if component == "buses/event" else SECTIONS
    assert headings == expected


@every_component
def test_page_says_when_to_take_another_library(component: str) -> None:
    """The box at its top leads to the comparison, and says in a line what to take instead."""
    page = (ROOT / "docs" / f"{component}.md").read_text(encoding="utf-8")
    box = page.partition("\n## ")[0]
    line = r"^    \*\*\[Compared\]\(\.\./compare/(\w+)\.md\)\*\* .*: take .+"
    found = re.search(line, box, re.MULTILINE)
    assert found is not None, "its box does not link to ../compare/"
    assert (ROOT / "docs" / "compare" / f"{found[1]}.md").is_file()


@every_component
def test_page_answers_every_aspect(component: str) -> None:
    glossary = r"\(\.\./guides/glossary\.md#[\w-]+\)"
    rows = re.findall(rf"^\| \[([A-Z][\w -]+?)\]{glossary} \|", page(component), re.MULTILINE)
    start = rows.index(ASPECTS[0])
    assert rows[start : start + len(ASPECTS)] == ASPECTS


@every_module
def test_page_says_more_than_thread_safe(module: str) -> None:
    """The glossary's terms say what is promised; "thread-safe" alone says nothing."""
    paths = [COMPONENTS / f"{module}.py"]
    if not is_part(module):
        paths.append(ROOT / "docs" / f"{module}.md")
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".md":  # its front matter holds what users type
            text = text.partition("\n---\n")[2]
        found = re.search(r"(?i)\b(thread|async)[- ]safe\b", text)
        assert found is None, f"{path.name} says {found and found[0]!r}"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_fences_keep_the_rules(path: Path) -> None:
    """Fences that the plugin would not collect, or not run alone, are refused."""
    before = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        where = f"{path.name}:{number}"
        assert not re.match(r"\s+(```|~~~)\s*\{?\.?py", line), f"{where}: indented fence"
        if re.match(r"(```|~~~)\s*\{?\.?py", line):
            assert "continuation" not in line, f"{where}: a fence must run alone"
            assert "retry:" not in line, f"{where}: a flaky example is a bug"
            if "notest" in line:
                assert before.startswith("<!-- notest: "), f"{where}: notest without reason"
        before = line
