"""The tool from an installed wheel: nothing that it needs is left in the repository.

What needs an index, as the extra for `prove` does, is in tests/browser/test_hosted.py.
"""

import configparser
import email
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit import COMPONENTS, ROOT
from tests.kit.catalogue import components

Tool = Callable[..., subprocess.CompletedProcess[str]]


PROOFS = "reference_impl/_proofs"
# Besides those of the components; each is a folder of the repository, and whole.
FOLDERS = [f"tests/{name}" for name in ("contracts", "interleavings", "kit")]
FAMILIES = {component.partition("/")[0] for component in components()}
FOLDERS += [f"{top}/{family}" for top in ("tests", "docs") for family in FAMILIES]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as pip would build it, but without asking a package index."""
    return built(tmp_path_factory.mktemp("wheel"))


def built(folder: Path) -> Path:
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def tool(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """Runs the tool in an environment that has the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    builder = venv.EnvBuilder(symlinks=sys.platform != "win32")
    builder.create(folder)
    python = builder.ensure_directories(folder).env_exe
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    with zipfile.ZipFile(wheel) as archive:  # which is how one installs a wheel of pure Python
        archive.extractall(_run(python, "-I", "-c", code, cwd=folder).stdout.strip())

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = [str(argument) for argument in arguments]
        return _run(python, "-I", "-W", "error", "-m", "reference_impl", *words, cwd=folder)

    return run


def _run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def files(folder: Path) -> set[str]:
    """The files of a folder, from the project's root, but for what Python leaves there."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if path.suffix != ".pyc"}


def test_the_wheel_has_the_package_and_its_proofs_and_nothing_else(wheel: Path) -> None:
    proofs = {"tests/__init__.py", "tests/conftest.py"}
    proofs = proofs.union(*(files(ROOT / folder) for folder in FOLDERS))
    assert {f"docs/{component}.md" for component in components()} < proofs
    metadata = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    expected = files(COMPONENTS) | {f"{PROOFS}/{name}" for name in proofs}
    expected |= {f"{info}/{name}" for name in metadata}
    names = zipfile.ZipFile(wheel).namelist()
    assert sorted(names) == sorted(expected)
    assert {"reference_impl/versions.json", "reference_impl/py.typed"} <= expected


def test_the_wheel_has_the_bytes_of_the_repository(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    for name in archive.namelist():
        if name.startswith("reference_impl/"):
            path = ROOT / name.removeprefix(f"{PROOFS}/")
            assert archive.read(name) == path.read_bytes(), name


def test_an_installer_can_compile_it(wheel: Path) -> None:
    """As pip does, warnings being errors here."""
    archive = zipfile.ZipFile(wheel)
    for name in archive.namelist():
        if name.endswith(".py"):
            compile(archive.read(name), name, "exec")


def test_a_second_build_gives_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    assert built(tmp_path).read_bytes() == wheel.read_bytes()


def test_it_names_the_command(wheel: Path) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(metadata_file(wheel, "entry_points.txt"))
    scripts = {"executable-guarantees": "reference_impl.__main__:main"}
    assert dict(parser["console_scripts"]) == scripts


def metadata_file(wheel: Path, name: str) -> str:
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    return zipfile.ZipFile(wheel).read(f"{info}/{name}").decode()


def test_the_extra_needs_what_the_tests_run_with(wheel: Path) -> None:
    """The same versions, and nothing that only the repository's own sessions need."""
    extra = PYPROJECT["project"]["optional-dependencies"]["prove"]
    assert set(extra) <= set(PYPROJECT["dependency-groups"]["tests"])
    metadata = email.message_from_string(metadata_file(wheel, "METADATA"))
    needed = metadata.get_all("Requires-Dist") or []
    assert sum("extra == 'prove'" in each for each in needed) == len(extra)
    assert all("extra ==" in each for each in needed), "the tool itself needs nothing"


def test_it_lists_every_component(tool: Tool) -> None:
    assert [line.split()[0] for line in tool("list").stdout.splitlines()] == components()


@pytest.mark.parametrize("component", components())
def test_it_copies_and_checks(tool: Tool, component: str, tmp_path: Path) -> None:
    folder = tmp_path / "vendored"
    tool("copy", component, folder)
    copied = {path.name: path for path in folder.rglob("*.py")}
    name = f"{component.partition('/')[2]}.py"
    assert copied[name].read_bytes() == (COMPONENTS / f"{component}.py").read_bytes()
    report = tool("check", folder).stdout
    assert f"vetted: {component} " in report
    assert tool("show", component).stdout == copied[name].read_text(encoding="utf-8")
