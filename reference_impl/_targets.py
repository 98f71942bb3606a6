"""What a file of the reader's is: which component, under which name, with which siblings."""

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reference_impl import _copying
from reference_impl._copying import Component, CopyError

_HERE = Path(__file__).resolve().parent
_UNFIT = {"reference_impl", "tests"}  # packages that the proofs have themselves


@dataclass
class Target:
    """What is to be proved, and as what."""

    component: Component
    label: str  # the file, or the adapter
    state: str
    bindings: dict[str, dict[str, Any]] = field(default_factory=dict)  # as tests.kit.copies.Binding


def files(path: Path) -> Iterator[tuple[Path, bytes]]:
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


def of_file(file: Path, data: bytes, wanted: str | None, names: Mapping[str, str]) -> Target:
    """The file as the component that it is, or that is wanted; refused in words if it is none."""
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
    state = _state(component, data, file) + _beside(_dotted(component), bindings)
    bindings[_dotted(component)] |= {"names": dict(names)}
    return Target(component, str(file), state, bindings)


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


def _listed(names: Iterable[str]) -> str:
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


def _beside(itself: str, bindings: Mapping[str, Mapping[str, Any]]) -> str:
    """The siblings that are proved with it and are not as they were vetted: in words."""
    places = [Path(each["file"]) for name, each in bindings.items() if name != itself]
    verdicts = [(place, _copying.judge(place.read_bytes())) for place in places]
    told = [f"{place.name} ({v.kind})" for place, v in verdicts if v and v.kind != "vetted"]
    return f", beside {', '.join(told)}" if told else ""


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
        if module == _dotted(each) or place.samefile(_HERE / f"{path}.py"):
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


def adapted(component: Component, given: Sequence[str]) -> Target:
    """What makes the reader's own objects, as `[NAME=]MODULE:ATTRIBUTE`."""
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
