"""The ledger: each promise of a page has a check and a broken twin, each test one promise.

That no test names an unknown guarantee is seen to at collection, by tests/kit/ledger.py.
"""

import ast
import json
import subprocess
import sys

import pytest

from tests.kit import ROOT
from tests.kit.catalogue import all_promises, components, promises

every_component = pytest.mark.parametrize("component", components())
# What others import, and what therefore promises nothing by itself.
SHARED = {"buses/event"}


Marked = list[tuple[str, list[str], list[str]]]


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Marked:
    """Each collected test with the guarantees that it proves, and those that it is a twin of."""
    file = tmp_path_factory.mktemp("marked") / "marked.json"
    others = [f"--ignore=tests/{name}" for name in ("browser", "docs", "scale")]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests", *others]
    command += [f"--evidence-to={file}", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    found: Marked = json.loads(file.read_text("utf-8"))["marked"]
    return found


@every_component
def test_page_promises_something(component: str) -> None:
    assert bool(promises(component)) is (component not in SHARED), (
        f"write docs/{component}.md with a table of guarantees"
    )


def test_each_promise_has_a_check_and_a_twin(marked: Marked) -> None:
    proved = {identifier for _, guarantees, _ in marked for identifier in guarantees}
    caught = {identifier for _, _, twins in marked for identifier in twins}
    for identifier, component in all_promises().items():
        assert identifier in proved, f"nothing proves {identifier}: write a test in {component}'s"
        assert identifier in caught, f"{identifier} has no broken twin: write one in {component}'s"


def test_each_test_belongs_to_one_promise(marked: Marked) -> None:
    several = [
        f"{test}: {', '.join(guarantees + twins)}"
        for test, guarantees, twins in marked
        if len(guarantees + twins) > 1
    ]
    assert not several, "the blame is spread; name the one it is about:\n" + "\n".join(several)


def test_each_twin_says_what_is_broken_and_how_it_fails() -> None:
    """Every twin's mark names its fault, by a table of proofs or by hand."""
    silent = []
    for file in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) != "pytest.mark.twin":
                continue
            if not {"fault", "fails"} <= {keyword.arg for keyword in node.keywords}:
                silent.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not silent, "twins that do not say how they fail:\n" + "\n".join(silent)
