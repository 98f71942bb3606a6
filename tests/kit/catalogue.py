"""The components and what they promise, read from the files; the standard library only.

Everything that must agree on what a component consists of asks here: the ledger, the evidence,
the benchmarks, the mutation runs and `nox -s verify`, which runs before anything is installed.
"""

import hashlib
import platform
import re
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reference_impl import _copying
from tests.kit import COMPONENTS, ROOT

_ROW = re.compile(r"^\|[^|]*\b([A-Z]{2}-\d+)\b[^|]*\|(.*)\|\s*$")


def components() -> list[str]:
    """Every component as its path without suffix: "caches/ttl_cache", sorted."""
    return [path for path in _modules() if not is_part(path)]


def parts() -> list[str]:
    """The same of every part: a module that components share, and that is copied with them."""
    return [path for path in _modules() if is_part(path)]


def is_part(path: str) -> bool:
    """Whether the module of this path is a part: "queues/_spool"."""
    return path.rpartition("/")[2].startswith("_")


def _modules() -> list[str]:
    return sorted(
        file.relative_to(COMPONENTS).with_suffix("").as_posix()
        for file in COMPONENTS.glob("*/*.py")
        if file.stem != "__init__"
    )


def parts_of(component: str) -> list[str]:
    """The parts in a component's closure."""
    return [each.path for each in _closure(component) if each.is_part]


def page_of(source: Path) -> str:
    """The component on whose page a module is shown whole: its own, or that of a part."""
    path = source.relative_to(COMPONENTS).with_suffix("").as_posix()
    return _copying.modules()[path].page


def parts_shown(component: str) -> list[str]:
    """Those of them that its page shows: it counts their mutants."""
    return [each.path for each in _closure(component) if each.is_part and each.page == component]


def users(part: str) -> list[str]:
    """The components that a part is copied with."""
    return [component for component in components() if part in parts_of(component)]


def pages_of(component: str) -> list[str]:
    """A component's own page, and those in its folder, as paths from the project's root."""
    page = f"docs/{component}"
    return [f"{page}.md", *sorted(f"{page}/{path.name}" for path in (ROOT / page).glob("*.md"))]


def promises(component: str) -> dict[str, str]:
    """The guarantees in the component's page, by ID, in the page's order."""
    page = ROOT / "docs" / f"{component}.md"
    if not page.is_file():
        return {}  # a test says that it is to be written
    rows = (_ROW.match(line) for line in page.read_text(encoding="utf-8").splitlines())
    return {row[1]: row[2].strip() for row in rows if row}


def all_promises() -> dict[str, str]:
    """Every guarantee ID, with the component that promises it."""
    return {
        identifier: component for component in components() for identifier in promises(component)
    }


def closure(component: str) -> list[Path]:
    """What a reader copies: the component's file, its siblings, and theirs."""
    return [COMPONENTS / f"{each.path}.py" for each in _closure(component)]


def third_party(component: str) -> list[str]:
    """The packages outside the standard library that the closure imports."""
    return _copying.third_party(_closure(component))


def _closure(component: str) -> list[_copying.Component]:
    if (found := _copying.modules().get(component)) is None:
        raise ValueError(
            f"reference_impl/{component}.py does not open with the header that the others have: "
            "write it, since the copy tool and the evidence go by it"
        )
    return _copying.closure(found)


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(component: str) -> dict[str, str]:
    """The SHA-256 of each file that a reader copies, by its path from the project's root."""
    return {path.relative_to(ROOT).as_posix(): digest(path) for path in closure(component)}


def all_digests() -> dict[str, str]:
    """The SHA-256 of every component's file, by its path from the project's root."""
    return {name: sha for component in components() for name, sha in digests(component).items()}


def python_build() -> str:
    """This interpreter in words: "CPython 3.13.0, with the GIL, Linux"."""
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    gil = "free-threaded" if free_threaded else "with the GIL"
    return (
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{gil}, {platform.system()}"
    )


def proof_places(component: str) -> list[Path]:
    """Where a component's tests are: files and folders that its name leads to."""
    family, name = component.split("/")
    tests = ROOT / "tests"
    places = [tests / family / name, tests / "interleavings" / name]
    places += (tests / family / f"test_{name}{part}.py" for part in ("", "_model"))
    places.append(tests / "interleavings" / f"test_{name}.py")
    return [place for place in places if place.exists()]


def is_of(file: str, component: str) -> bool:
    """Whether a file of tests or examples, as a path from the root, is about this component."""
    if file == f"reference_impl/{component}.py" or file in pages_of(component):
        return True
    if is_part(file):
        return file in {f"reference_impl/{part}.py" for part in parts_of(component)}
    return any((ROOT / file).is_relative_to(place) for place in proof_places(component))


def title(component: str) -> str:
    """The component's name, as its page's heading gives it."""
    page = ROOT / "docs" / f"{component}.md"
    found = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError(f"{page.relative_to(ROOT)} has no heading")
    return found[1].strip()


@dataclass(frozen=True)
class Selection:
    """What somebody asked to have proved: whole components, or some of their guarantees."""

    components: list[str]
    guarantees: list[str]  # empty: all of the components'


def select(names: Iterable[str]) -> Selection:
    """What these names mean: components, classes, paths, guarantee IDs.

    Raises:
        ValueError: a name is unknown; the message says what there is.
    """
    chosen, guarantees = list[str](), list[str]()
    known = all_promises()
    for name in names:
        identifier = name.upper()
        if re.fullmatch(r"[A-Z]{2}-\d+", identifier):
            if identifier not in known:
                first = identifier[:3]
                there = [each for each in known if each.startswith(first)] or sorted(
                    {each.partition("-")[0] + "-1 …" for each in known}
                )
                raise ValueError(f"no page promises {identifier}: there is {', '.join(there)}")
            guarantees.append(identifier)
            chosen.append(known[identifier])
            continue
        path = re.sub(r"^.*?(?=(queues|caches|buses|bridges)/)", "", name.replace("\\", "/"))
        path = path.replace("/test_", "/").removesuffix(".md")
        path = re.sub(r"^(\w+/\w+)/\w+$", r"\1", path)  # a page in the component's folder
        try:
            chosen.append(_copying.find(path).path)
        except _copying.CopyError as error:
            names_all = ", ".join(each.partition("/")[2] for each in components())
            reason = str(error).partition(": `list`")[0]
            raise ValueError(f"{reason}; name one or more of {names_all}, or a guarantee") from None
    if guarantees and {known[each] for each in guarantees} != set(chosen):
        raise ValueError("name either components or guarantees, not both")
    return Selection(list(dict.fromkeys(chosen)), list(dict.fromkeys(guarantees)))
