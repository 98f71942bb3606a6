"""The sessions: `nox` proves everything, `nox -s serve` shows the site, `nox -l` lists them."""

import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.11.12"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "tests", "interleavings", "docs"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
MATRIX: list[str] = PYPROJECT["tool"]["executable-guarantees"]["pythons"]

# pyenv's shims stand on the PATH for interpreters that are not selected: the real ones go first.
for folder in Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser().glob("versions/3*/bin"):
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
os.environ.update(NO_MKDOCS_2_WARNING="1", DISABLE_MKDOCS_2_WARNING="true")

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
INSTALLED = [python for python in MATRIX if python == HERE or shutil.which(f"python{python}")]
if not INSTALLED:
    raise SystemExit(f"None of Python {', '.join(MATRIX)} was found: install one, then run nox.")
# interleave-test schedules threads by sys.monitoring, which Python 3.11 does not have.
MONITORED = [python for python in MATRIX if python != "3.11"]
NEWEST = max(INSTALLED, key=lambda python: (not python.endswith("t"), MATRIX.index(python)))


def _install(session: nox.Session, *groups: str) -> None:
    """Install dependency groups in their locked versions."""
    wanted = nox.project.dependency_groups(PYPROJECT, *groups)
    session.install(*wanted, "--constraint", "requirements.lock")


def _build(session: nox.Session) -> None:
    # Not --quiet: strict mode refuses only the warnings that are not silenced.
    session.run("mkdocs", "build", "--clean")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, spelling, import contracts, and the validity of the settings."""
    _install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell")
    session.run("lint-imports")
    session.run("validate-pyproject", "pyproject.toml")
    workflow = ".github/workflows/site.yml"
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow)


@nox.session
def types(session: nox.Session) -> None:
    """Mypy --strict and pyright."""
    _install(session, "types")
    session.run("mypy")
    session.run("pyright")


@nox.session(python=MATRIX)
def tests(session: nox.Session) -> None:
    """Unit, model, contract and doctests, and every fence of the documentation."""
    _install(session, "docs")
    where = ["tests", "reference_impl", "docs", "README.md", "CONTRIBUTING.md"]
    others = [f"--ignore=tests/{name}" for name in ("interleavings", "docs", "browser", "scale")]
    raw = f"--evidence-to=build/evidence/tests-{session.python}.json"
    session.run("pytest", *where, *others, "--markdown-docs", raw, *session.posargs)


@nox.session(python=MONITORED)
def interleavings(session: nox.Session) -> None:
    """Every thread interleaving and asyncio schedule up to the bounds that the tests state."""
    _install(session, "tests")
    raw = f"--evidence-to=build/evidence/interleavings-{session.python}.json"
    session.run("pytest", "tests/interleavings", raw, *session.posargs)


@nox.session(python=NEWEST)
def verify(session: nox.Session) -> None:
    """Prove one component: nox -s verify -- ttl_cache."""
    names = [name.rpartition("/")[2].removesuffix(".py") for name in session.posargs]
    patterns = "reference_impl/*/{}.py docs/*/{}.md tests/*/test_{}.py tests/*/test_{}_model.py"
    files = [
        path.as_posix()
        for name in names
        for pattern in patterns.split()
        for path in sorted(Path().glob(pattern.replace("{}", name)))
        if NEWEST in MONITORED or "interleavings" not in path.parts
    ]
    known = sorted(path.stem for path in Path("reference_impl").glob("*/[!_]*.py"))
    if not names or not set(names) <= set(known):
        session.error(f"Name what to verify after --, one or more of: {', '.join(known)}")
    _install(session, "docs")
    session.run("pytest", *files, "--markdown-docs")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site strictly, then hold the built pages against what was executed."""
    _install(session, "docs")
    _build(session)
    where = ("docs", "README.md", "reference_impl", "tests/docs", "--markdown-docs")
    session.run("pytest", *where, *session.posargs)


@nox.session
def serve(session: nox.Session) -> None:
    """Serve the site at http://localhost:8000, reloading on changes."""
    _install(session, "site")
    session.run("mkdocs", "serve", *(session.posargs or ["--dev-addr", "localhost:8000"]))


@nox.session
def browser(session: nox.Session) -> None:
    """Walk the built site in a real Chromium."""
    _install(session, "site", "tests", "browser")
    _build(session)
    session.run("pytest", "tests/browser", *session.posargs)


@nox.session
def links(session: nox.Session) -> None:
    """Follow the external links of the built site."""
    _install(session, "site")
    _build(session)
    session.run("python", "-m", "site_build.links")


@nox.session
def screenshot(session: nox.Session) -> None:
    """Take the README's screenshot again."""
    _install(session, "site", "browser")
    _build(session)
    session.run("python", "-m", "tests.browser.screenshot")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the components, their floors and their peers, in one process each."""
    _install(session, "tests", "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)
    session.run("python", "-m", "site_build.evidence", "render")


@nox.session
def scale(session: nox.Session) -> None:
    """Past one process: the examples on Dask, and on Celery with a real redis-server."""
    _install(session, "tests", "scale")
    session.run("pytest", "tests/scale", *session.posargs)


@nox.session(python=MATRIX)
def stress(session: nox.Session) -> None:
    """Real threads for a while: what no scheduler model covers."""
    _install(session, "tests")
    session.run("pytest", "tests", "-m", "stress", *session.posargs)


@nox.session
def mutation(session: nox.Session) -> None:
    """Mutate the components; the tests should notice."""
    _install(session, "mutation")
    session.run("python", "-m", "site_build.mutation", *session.posargs)


@nox.session(
    requires=[f"tests-{p}" for p in INSTALLED]
    + [f"interleavings-{p}" for p in INSTALLED if p in MONITORED]
)
def evidence(session: nox.Session) -> None:
    """Write docs/evidence from what the tests have just proved."""
    _install(session, "tests")
    session.run("python", "-m", "site_build.evidence")


@nox.session
def zensical(session: nox.Session) -> None:
    """Advisory: the same mkdocs.yml, built by Material's successor."""
    _install(session, "zensical")
    session.run("zensical", "build", "--clean")
