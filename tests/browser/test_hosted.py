"""The site's wheel and files as a reader uses them: from a server, in an empty environment.

The commands and the configurations are those that the pages show, with this server's address in
the place of the site's. They ask a package index for what the extra needs.
"""

import os
import re
import shlex
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

import pytest

from tests.kit import COMPONENTS
from tests.kit.blocks import python_blocks
from tests.kit.site import SITE

pytestmark = pytest.mark.timeout(1200)  # of a download from a slow index

GUIDE = SITE / "guides" / "copying.md"
RECIPES = SITE / "guides" / "recipes" / "proving"
COPY = COMPONENTS / "caches" / "ttl_cache.py"
# A hit is no use any more: the least recently written entry makes room.
EDIT = ("if newer is not order:", "if False:")
BROKEN = re.compile(r"TC-4\W.*\bBROKEN\b")
HOLDS = re.compile(r"TC-4\W.*\bholds\b")


def base_address() -> str:
    """Where the built site believes to be hosted."""
    (line,) = re.findall(
        r"^curl -O (\S+)src/caches/ttl_cache\.py$", GUIDE.read_text(), re.MULTILINE
    )
    return str(line)


def run(
    *command: str | Path, folder: Path, status: int = 0, more: dict[str, str] | None = None
) -> str:
    """Run a command as somebody who has none of our variables; returns all that it printed."""
    ours = ("PYTHON", "PYTEST", "NOX", "TOX", "VIRTUAL_ENV", "GIT_", "COVERAGE")
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=theirs | (more or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert done.returncode == status, f"{shlex.join(map(str, command))}\n{done.stdout}"
    return done.stdout


def shown(page: Path, start: str, address: str) -> list[str]:
    """The words of the command on a page that starts so, which leads to this server."""
    line = next(
        line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith(start)
    )
    return shlex.split(line.replace(base_address(), address))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a package, and nothing copied yet."""
    package = tmp_path / "project" / "your_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    return package.parent


@pytest.fixture
def vendored(project: Path) -> Path:
    """The project's copy of a component."""
    folder = project / "your_package" / "vendored"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / COPY.name).write_bytes(COPY.read_bytes())
    return folder / COPY.name


def change(copy: Path) -> None:
    """Break TC-4."""
    text = copy.read_text(encoding="utf-8")
    assert text.count(EDIT[0]) == 1
    copy.write_text(text.replace(*EDIT), encoding="utf-8")


def environment(folder: Path) -> Path:
    """A new virtual environment's folder of programs."""
    builder = venv.EnvBuilder(with_pip=True, symlinks=sys.platform != "win32")
    builder.create(folder)
    return Path(builder.ensure_directories(folder).bin_path)


def test_the_raw_file_is_the_component(address: str) -> None:
    curl, _, url = shown(SITE / "caches" / "ttl_cache.md", "curl ", address)
    assert curl == "curl"
    with urllib.request.urlopen(url) as response:
        assert response.read() == COPY.read_bytes()


def test_pip_installs_the_tool_and_its_proofs(address: str, project: Path, tmp_path: Path) -> None:
    programs = environment(tmp_path / "environment")
    install = shown(GUIDE, "python -m pip install ", address)
    run(programs / install[0], *install[1:], "--quiet", folder=tmp_path)
    tool = programs / "executable-guarantees"
    run(tool, "copy", "ttl_cache", "your_package/vendored", folder=project)
    copy = project / "your_package" / "vendored" / "ttl_cache.py"
    assert copy.read_bytes() == COPY.read_bytes()
    assert "vetted" in run(tool, "check", copy, folder=tmp_path)
    assert HOLDS.search(run(tool, "prove", copy, "--guarantee=TC-4", folder=tmp_path))
    change(copy)
    assert "modified" in run(tool, "check", copy, folder=tmp_path, status=1)
    report = run(tool, "prove", copy, "--guarantee=TC-4", folder=tmp_path, status=1)
    assert BROKEN.search(report)


def test_uvx_runs_what_a_component_page_shows(address: str, tmp_path: Path) -> None:
    page = SITE / "caches" / "ttl_cache.md"
    empty = {"UV_CACHE_DIR": str(tmp_path / "cache")}  # nothing of an earlier site
    folder = tmp_path / "empty"  # a stranger has no package yet
    folder.mkdir()
    run(*uvx(shown(page, "uvx --from http", address)), folder=folder, more=empty)
    copy = folder / "vendored" / "ttl_cache.py"
    assert copy.read_bytes() == COPY.read_bytes()
    prove = [*uvx(shown(page, 'uvx --from "executable', address)), "--guarantee=TC-4"]
    assert HOLDS.search(run(*prove, folder=folder, more=empty))
    first = next(python_blocks(page.with_suffix(".html")))
    run(sys.executable, "-c", first.text, folder=folder)


def uvx(words: list[str]) -> list[str]:
    """The command by the uv of this session, on this Python."""
    assert words[0] == "uvx"
    return [sys.executable, "-m", "uv", "tool", "run", "--python", sys.executable, *words[1:]]


def pasted(name: str, target: Path, address: str) -> str:
    """Put a configuration into the project, as it is but for its address and one guarantee."""
    text = (RECIPES / name).read_text(encoding="utf-8").replace(base_address(), address)
    words = {"guarantees prove ": "--guarantee=TC-4 ", '"prove", ': '"--guarantee=TC-4", '}
    assert sum(map(text.count, words)) == 1, f"{name} does not prove once"
    for before, after in words.items():
        text = text.replace(before, before + after)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return text


def test_the_workflow_is_one(tmp_path: Path) -> None:
    schema = ("--builtin-schema", "vendor.github-workflows")
    run(
        sys.executable, "-m", "check_jsonschema", *schema, RECIPES / "workflow.yml", folder=tmp_path
    )


def test_the_workflow_proves_a_copy(
    address: str, project: Path, vendored: Path, tmp_path: Path
) -> None:
    text = pasted("workflow.yml", project / ".github" / "workflows" / "copies.yml", address)
    install, check, prove = re.findall(r"^      - run: (.+)$", text, re.MULTILINE)
    summary = tmp_path / "summary.md"
    path = f"{environment(tmp_path / 'environment')}{os.pathsep}{os.environ['PATH']}"

    def step(command: str, status: int = 0) -> str:
        shell = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command)
        variables = {"PATH": path, "GITHUB_STEP_SUMMARY": str(summary)}
        return run(*shell, folder=project, status=status, more=variables)

    step(install)
    change(vendored)
    assert "modified" in step(check)
    step(prove, status=1)
    assert BROKEN.search(summary.read_text(encoding="utf-8"))


def test_the_pre_commit_hooks_stop_a_broken_copy(
    address: str, project: Path, vendored: Path, tmp_path: Path
) -> None:
    pasted("pre-commit-config.yaml", project / ".pre-commit-config.yaml", address)
    hooks = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
    home = {"PRE_COMMIT_HOME": str(tmp_path / "hooks")}
    run("git", "init", "--quiet", folder=project)
    run("git", "add", "--all", folder=project)
    assert run(*hooks, folder=project, more=home).count("Passed") == 2
    change(vendored)
    run("git", "add", "--all", folder=project)
    report = run(*hooks, folder=project, status=1, more=home)
    assert report.count("Failed") == 2
    assert BROKEN.search(report)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("tox.ini", ("tox", "run", "-e", "copies")),
        ("noxfile.py", ("nox", "--session", "copies")),
    ],
)
def test_a_session_fails_for_a_broken_copy(
    address: str, project: Path, vendored: Path, name: str, command: tuple[str, ...]
) -> None:
    pasted(name, project / name, address)
    change(vendored)
    report = run(sys.executable, "-m", *command, folder=project, status=1)
    assert "modified" in report
    assert BROKEN.search(report)
