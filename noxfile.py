"""The sessions: `nox` proves everything, `nox -s serve` shows the site, `nox -l` lists them."""

import functools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nox

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))
from tests.kit import catalogue  # noqa: E402  # the standard library only

nox.needs_version = ">=2025.11.12"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"

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
nox.options.sessions = ["lint", f"types-{NEWEST}", f"tests-{NEWEST}", f"docs-{NEWEST}"]
if NEWEST in MONITORED:
    nox.options.sessions.insert(3, f"interleavings-{NEWEST}")

PARALLEL = ("-n", "auto", "--dist", "worksteal")
UNITS = [*("tests", "reference_impl", "docs", "README.md", "CONTRIBUTING.md", "--markdown-docs")]
UNITS += [f"--ignore=tests/{name}" for name in ("docs", "browser", "scale")]
EXPLORED = ["tests/interleavings", "tests/scenes"]


def timed(function: Callable[[nox.Session], None]) -> Callable[[nox.Session], None]:
    """Note what the session takes, once its environment is there, for the evidence page."""

    @functools.wraps(function)
    def session_(session: nox.Session) -> None:
        began = time.monotonic()
        function(session)
        if not session.posargs:
            kept = ROOT / "build" / "sessions" / f"{session.name}.json"
            kept.parent.mkdir(parents=True, exist_ok=True)
            seconds = round(time.monotonic() - began, 1)
            machine = f"{os.cpu_count()} processors, {sys.platform}"
            kept.write_text(json.dumps({"seconds": seconds, "machine": machine}))

    return session_


def install(session: nox.Session, *groups: str) -> None:
    """Install dependency groups in their locked versions."""
    wanted = nox.project.dependency_groups(PYPROJECT, *groups)
    session.install("--quiet", *wanted, "--constraint", "requirements.lock")


def build(session: nox.Session) -> None:
    """Render the generated pages, build strictly, add what is for machines."""
    session.run("python", "-m", "site_build", "render")
    # Not --quiet: strict mode refuses only the warnings that are not silenced.
    session.run("mkdocs", "build", "--clean")
    session.run("python", "-m", "site_build", "finish")


def raw(session: nox.Session) -> str:
    """Where a session writes what it proved."""
    return f"--evidence-to=build/evidence/{session.name}.json"


@nox.session
@timed
def lint(session: nox.Session) -> None:
    """Style, spelling, import contracts, and the validity of the settings."""
    install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell")
    session.run("lint-imports")
    session.run("validate-pyproject", "pyproject.toml")
    workflow = ".github/workflows/site.yml"
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow)
    session.run("zizmor", "--offline", "--quiet", workflow)


@nox.session(python=NEWEST)
@timed
def types(session: nox.Session) -> None:
    """Mypy --strict and pyright."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright")
    session.run("python", "-m", "tests.recipes", "build/recipes")
    session.run("mypy", "build/recipes")
    session.run("pyright", "build/recipes")


@nox.session(python=MATRIX)
@timed
def tests(session: nox.Session) -> None:
    """Unit, model, contract and doctests, and every fence of the documentation; quick."""
    # The recipes' frameworks need wheels that 3.13t has not.
    install(session, "docs", *(() if session.python == "3.13t" else ("recipes",)))
    without = [f"--ignore={each}" for each in EXPLORED]
    session.run("pytest", *PARALLEL, *UNITS, *without, raw(session), *session.posargs)


@nox.session(python=MONITORED)
@timed
def interleavings(session: nox.Session) -> None:
    """Every thread interleaving and asyncio schedule up to the stated bounds; quick."""
    install(session, "tests")
    session.run("pytest", *PARALLEL, *EXPLORED, raw(session), *session.posargs)


@nox.session(python=NEWEST)
@timed
def copies(session: nox.Session) -> None:
    """The guarantees' tests, in brief, on copies with another layout and other private names."""
    install(session, "docs")
    options = session.run("python", "-m", "tests.kit.renamed", "build/copies", silent=True)
    others = [f"--ignore=tests/{name}" for name in ("docs", "browser", "scale")]
    where = ("tests", "-m", "guarantee and not stress", *others, *str(options).split())
    where += ("--profile=brief",)
    session.run("pytest", *PARALLEL, *where, *session.posargs)


@nox.session(python=False)
def verify(session: nox.Session) -> None:
    """Prove components or guarantees: nox -s verify -- ttl_cache, or TTLCache, or TC-6."""
    try:
        selection = catalogue.select(session.posargs)
    except ValueError as error:
        session.error(str(error))
    if not selection.components:
        names = ", ".join(name.partition("/")[2] for name in catalogue.components())
        session.error(f"Name what to prove after --: a guarantee such as TC-6, or of {names}")
    session.notify(f"verification-{NEWEST}", [*selection.components, *selection.guarantees])


@nox.session(python=NEWEST, default=False)
def verification(session: nox.Session) -> None:
    """What `verify` runs once it knows that it can."""
    install(session, "docs")
    session.run("python", "-m", "tests.kit.verify", *session.posargs)


@nox.session(python=NEWEST, default=False)
def prove(session: nox.Session) -> None:
    """Which guarantees a file of yours keeps: nox -s prove -- path/to/ttl_cache.py."""
    install(session, "tests")
    session.chdir(session.invoked_from)  # where the paths are from
    here = {"PYTHONPATH": str(ROOT)}
    session.run("python", "-m", "reference_impl", "prove", *session.posargs, env=here)


@nox.session(python=NEWEST, default=False)
def edits(session: nox.Session) -> None:
    """Make realistic edits in copies, and record which guarantees each of them breaks."""
    install(session, "tests")
    session.run("python", "-m", "tests.edits", *session.posargs)


@nox.session(python=NEWEST)
@timed
def docs(session: nox.Session) -> None:
    """Build the site strictly, execute what it shows, and hold the one against the other."""
    install(session, "docs")
    build(session)
    shown = ("docs", "README.md", "CONTRIBUTING.md", "reference_impl", "--markdown-docs")
    session.run("pytest", *PARALLEL, *shown, "--executed-to=build/executed.json")
    session.run("pytest", *PARALLEL, "tests/docs", "site_build", *session.posargs)


@nox.session
def serve(session: nox.Session) -> None:
    """Serve the site at http://localhost:8000, reloading on changes."""
    install(session, "site")
    session.run("python", "-m", "site_build", "render")
    session.run("mkdocs", "serve", *(session.posargs or ["--dev-addr", "localhost:8000"]))


@nox.session(python=NEWEST)
@timed
def browser(session: nox.Session) -> None:
    """Walk the built site in a real Chromium, and use its wheel in empty environments."""
    install(session, "site", "tests", "fences", "browser")
    build(session)
    session.run("pytest", *PARALLEL, "tests/browser", *session.posargs)


@nox.session(python=NEWEST)
@timed
def scale(session: nox.Session) -> None:
    """Past one process: the examples on Dask, and on Celery with a real redis-server."""
    install(session, "tests", "scale")
    session.run("pytest", "tests/scale", *session.posargs)


@nox.session(python=MATRIX)
@timed
def full(session: nox.Session) -> None:
    """Everything again with the large budgets: by opcode, more examples, hundreds of kills."""
    install(session, "docs")
    where = [] if session.python in MONITORED else [f"--ignore={each}" for each in EXPLORED]
    limits = ("--profile=full", "--timeout=1800")
    session.run("pytest", *PARALLEL, *UNITS, *where, *limits, raw(session), *session.posargs)


@nox.session(requires=[f"full-{python}" for python in INSTALLED])
def evidence(session: nox.Session) -> None:
    """Record in docs/evidence what the sessions have just proved."""
    install(session, "site", "tests")
    session.run("python", "-m", "site_build.evidence")
    session.run("python", "-m", "site_build.example")


@nox.session(python=NEWEST)
def coverage(session: nox.Session) -> None:
    """Record which lines and branches of each component the tests run."""
    install(session, "docs", "coverage")
    where = ("tests", "--ignore=tests/docs", *(f"--ignore={each}" for each in EXPLORED))
    where += ("--ignore=tests/browser", "--ignore=tests/scale", "--ignore=tests/tools")
    session.run("coverage", "run", "-m", "pytest", *where, "-m", "not twin and not stress", "-q")
    session.run("coverage", "json", "--ignore-errors", "-o", "build/coverage.json", "-q")
    session.run("python", "-m", "site_build.evidence")


@nox.session(python=NEWEST)
def bench(session: nox.Session) -> None:
    """Measure the components, their baselines and their peers, in one process each."""
    install(session, "tests", "site", "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)
    session.run("python", "-m", "site_build.evidence")


@nox.session(python=NEWEST)
@timed
def controls(session: nox.Session) -> None:
    """The comparison's own checks: each is failed by its control, and kept by ours."""
    install(session, "tests")
    session.run("pytest", *PARALLEL, "peers/tests", *session.posargs)


@nox.session(python=NEWEST)
@timed
def peers(session: nox.Session) -> None:
    """Ask every library what the comparison asks, and record it: nox -s peers -- cachetools."""
    install(session, "tests", "compared")
    if os.environ.get("NEWEST_PEERS"):  # as the hosted workflow asks each week
        rows = nox.project.dependency_groups(PYPROJECT, "compared")
        session.install("--quiet", "--upgrade", *rows)
    session.run("python", "-m", "peers.claims")
    session.run("python", "-m", "peers", "--record", *session.posargs)
    if not session.posargs:
        session.run("python", "-m", "peers.facts")


@nox.session(python=NEWEST)
def mutation(session: nox.Session) -> None:
    """Mutate the components; the tests should notice."""
    install(session, "site", "mutation")
    session.run("python", "-m", "site_build.mutation", *session.posargs)


@nox.session(python=MATRIX)
def stress(session: nox.Session) -> None:
    """Real threads for a while: what no scheduler model covers."""
    install(session, "tests")
    session.run("pytest", "tests", "-m", "stress", *session.posargs)


@nox.session
def links(session: nox.Session) -> None:
    """Follow the external links of the built site."""
    install(session, "site", "links")
    build(session)
    session.run("linkchecker", "--check-extern", "--no-warnings", "site/index.html")


@nox.session
def screenshot(session: nox.Session) -> None:
    """Take the README's screenshot again."""
    install(session, "site", "browser")
    build(session)
    session.run("python", "-m", "tests.browser.screenshot")


@nox.session
def runs(session: nox.Session) -> None:
    """Record which blocks of the site run in a browser, and so get a button for it."""
    install(session, "site", "tests", "fences", "browser")
    build(session)
    session.run("python", "-m", "tests.browser.blocks")


@nox.session
@timed
def zensical(session: nox.Session) -> None:
    """Build the same mkdocs.yml by Material's successor."""
    install(session, "site", "zensical")
    session.run("python", "-m", "site_build", "render")
    session.run("zensical", "build", "--clean", "--strict")
