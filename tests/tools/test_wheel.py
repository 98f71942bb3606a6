"""The copy tool from an installed wheel: nothing that it needs is left in the repository."""

import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit import COMPONENTS, ROOT
from tests.kit.catalogue import components

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as pip would build it, but without asking a package index."""
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


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


def test_the_wheel_has_the_package_and_its_versions(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in COMPONENTS.rglob("*.*") if path.suffix in {".py", ".json", ".typed"}]
    assert {path.relative_to(ROOT).as_posix() for path in files} <= names
    assert "reference_impl/versions.json" in names


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
