"""The machinery can fail: markers, twins, evidence and subprocesses refuse what is wrong."""

import asyncio
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reference_impl.caches import ttl_cache
from tests.kit import ROOT, estimate, profile, progress, renamed, verify
from tests.kit.catalogue import Selection, select
from tests.kit.explore import EXPLORED, Schedules
from tests.kit.process import run_python
from tests.kit.proofs import Proof
from tests.kit.twins import Fault, Twin, build, edit, override, patch

COMPONENT = "caches/ttl_cache"


def run_pytest(code: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    file = folder / "test_sample.py"
    file.write_text(code, encoding="utf-8")
    settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder)]
    plugins = ["-p", "tests.kit.ledger", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *settings, *plugins, *options, str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_test_that_names_an_unknown_guarantee_fails_the_run(tmp_path: Path) -> None:
    code = "import pytest\n@pytest.mark.guarantee('ZZ-9')\ndef test_it(): pass\n"
    done = run_pytest(code, tmp_path)
    assert done.returncode != 0
    assert "names ZZ-9, which no page promises" in done.stdout + done.stderr


def test_a_twin_that_would_be_the_original_is_refused() -> None:
    with pytest.raises(AssertionError, match="mend the twin"):
        build(COMPONENT, edit("TTLCache.get", "nothing_of_the_kind()", "pass"))
    with pytest.raises(AssertionError, match="mend the twin"):
        build(COMPONENT, edit("TTLCache.no_such_method", "pass", "raise OSError"))
    with pytest.raises(AssertionError, match="changes nothing"):
        build(COMPONENT, edit("", "import time", "import time"))


def test_a_twin_is_a_module_of_its_own() -> None:
    broken = build(COMPONENT, override("TTLCache.get", lambda original: lambda *_: "broken"))
    assert broken.TTLCache(1).get("key") == "broken"
    assert ttl_cache.TTLCache[str, int](1).get("key") is None
    assert broken.TTLCache is not ttl_cache.TTLCache


def check_len(module: ModuleType) -> None:
    cache = module.TTLCache(1)
    cache.set("key", 1)
    assert len(cache) == 1, "an entry is missing"


def raising(error: Exception) -> Fault:
    def make(original: object) -> Any:
        def broken(*_: object) -> None:
            raise error

        return broken

    return override("TTLCache.set", make)


FORGETS = override("TTLCache.set", lambda original: lambda *_: None)


def test_a_twin_that_fails_as_it_says_is_caught() -> None:
    proof = Proof("TC-1", check_len, [Twin("forgets", FORGETS, "AssertionError: is missing")])
    proof.must_fail(proof.twins[0], COMPONENT)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (raising(NameError("name 'x' is not defined")), "but failed with\n  NameError: name 'x'"),
        (raising(AttributeError("no such thing")), "but failed with\n  AttributeError"),
        (patch(lambda module: None), "survived: the check proves nothing"),
        (override("TTLCache.__len__", lambda original: lambda self: 2), "should fail with"),
    ],
    ids=["NameError", "AttributeError", "it behaves rightly", "another failure"],
)
def test_a_twin_that_fails_otherwise_or_not_at_all_is_refused(fault: Fault, words: str) -> None:
    twin = Twin("is broken otherwise", fault, "AssertionError: 0 == 1")
    with pytest.raises(AssertionError) as caught:
        Proof("TC-1", check_len).must_fail(twin, COMPONENT)
    assert words in str(caught.value)


def test_a_twin_that_does_not_import_is_refused() -> None:
    broken = edit("", "import time", "import no_such_module_anywhere")
    with pytest.raises(ModuleNotFoundError):
        Proof("TC-1", check_len).must_fail(Twin("is gone", broken, "KeyError"), COMPONENT)


@pytest.mark.parametrize("fails", ["NameError", "AssertionError", "SyntaxError: x", "it fails"])
def test_a_twin_must_say_how_it_fails(fails: str) -> None:
    with pytest.raises(ValueError, match="must"):
        Twin("is vague", FORGETS, fails)


def test_a_fault_binds_to_no_private_name() -> None:
    with pytest.raises(AssertionError, match="override what a reader can see"):
        build(COMPONENT, override("TTLCache._drop", lambda original: original))


def test_an_edit_sees_the_syntax_and_not_the_layout(tmp_path: Path) -> None:
    file = tmp_path / "laid_out.py"
    file.write_text(
        "class Thing:\n"
        "    def work(self, n):  # a comment\n"
        "        with self.lock:\n"
        "            total = (n +\n"
        "                     1)  # another\n"
        "            return total\n"
    )
    before = file.read_text()
    fault = edit("Thing.work", "n + 1", "n + 2") + edit(
        "Thing.work", "with self.lock: ...", "if True:\n    ..."
    )
    changed = before
    for part in fault.parts():
        assert part.source is not None
        changed = part.source(changed)
    names: dict[str, Any] = {}
    exec(changed, names)
    assert names["Thing"]().work(1) == 3
    assert "# a comment" in changed


def test_a_disfigured_copy_is_what_the_tests_run_on(tmp_path: Path) -> None:
    """Other layout, no comments, other private names: and a fault in the copy is noticed."""
    (option,) = renamed.write(tmp_path, COMPONENT)
    file = Path(option.partition("=")[2].partition("=")[2])
    copy = file.read_text(encoding="utf-8")
    assert "_entries" not in copy
    assert "#" not in copy.partition('"""')[0]
    test = tmp_path / "test_copy.py"
    test.write_text(
        "from reference_impl.caches import ttl_cache\n"
        f"def test_it(): assert ttl_cache.__file__ == {str(file)!r}\n"
    )
    settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    settings += ["-p", "tests.kit.under_test", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *settings, option, str(test)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_copy_that_is_not_there_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--copy=caches/ttl_cache=/no/such/file.py", "README.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "--copy: there is no file '/no/such/file.py'" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("names", "components", "guarantees"),
    [
        (["ttl_cache"], ["caches/ttl_cache"], []),
        (["TTLCache"], ["caches/ttl_cache"], []),
        (["reference_impl/caches/ttl_cache.py"], ["caches/ttl_cache"], []),
        (["tests/caches/test_ttl_cache.py"], ["caches/ttl_cache"], []),
        (
            ["docs/queues/memory_queue.md", "Event"],
            ["queues/memory_queue", "buses/event"],
            [],
        ),
        (["docs/queues/memory_queue/mistakes.md"], ["queues/memory_queue"], []),
        (["tc-6", "TC-7"], ["caches/ttl_cache"], ["TC-6", "TC-7"]),
    ],
)
def test_verify_takes_any_name(
    names: list[str], components: list[str], guarantees: list[str]
) -> None:
    assert select(names) == Selection(components, guarantees)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["TC-99"], "no page promises TC-99: there is TC-1, TC-2"),
        (["XX-1"], "there is AB-1 …"),
        (["ttl_cash"], "did you mean ttl_cache"),
        (["EB-1", "ttl_cache"], "not both"),
    ],
)
def test_verify_refuses_what_is_not_there(names: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        select(names)


def test_verify_refuses_before_it_runs_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main(["TC-99"]) == 2
    assert "no page promises TC-99" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"checks passed": 3, "twins passed": 2}, "holds   3 checks, 2 broken twins caught"),
        ({"checks passed": 3, "checks failed": 1}, "BROKEN  3 checks"),
        ({"checks passed": 3, "twins failed": 1}, "unsure  3 checks"),
        ({}, "unsure  0 checks"),
    ],
)
def test_verify_ends_with_a_line_for_each_guarantee(row: dict[str, int], words: str) -> None:
    assert f"TC-6   {words}" in progress.line("TC-6", defaultdict(float, row))


async def taking_turns() -> None:
    await asyncio.gather(*(asyncio.sleep(0) for _ in range(5)))


def test_the_brief_profile_runs_a_few_schedules_and_claims_no_more(
    schedules: Schedules, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match="did not exhaust"):
        schedules.prove(taking_turns, delays=2, limit=20)
    monkeypatch.setattr(profile, "_current", "brief")
    assert schedules.prove(taking_turns, delays=2) == 20
    assert [told["exhausted"] for told in request.node.stash[EXPLORED]] == [False]


def test_verify_says_nothing_of_what_was_never_measured() -> None:
    assert estimate.seconds(["buses/event"]) == 0
    assert estimate.seconds([]) == estimate.START


def test_a_guarantee_takes_less_than_its_component() -> None:
    whole = estimate.seconds([COMPONENT])
    assert estimate.START < estimate.seconds([COMPONENT], ["TC-6"]) < whole


def test_a_subprocess_that_fails_or_warns_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="exit code 3"):
        run_python("raise SystemExit(3)")
    with pytest.raises(AssertionError, match="UserWarning"):
        run_python("import warnings; warnings.warn('left open')")


def test_a_thread_that_a_test_leaves_behind_is_reported(tmp_path: Path) -> None:
    """The fixture of tests/conftest.py, run on a test that leaks a thread."""
    code = (
        "import threading\n"
        "from tests.conftest import _no_thread_is_left\n"
        "release = threading.Event()\n"
        "def test_leak():\n"
        "    threading.Thread(target=release.wait, daemon=True).start()\n"
    )
    done = run_pytest(code, tmp_path)  # the fixture is autouse once it is imported
    assert done.returncode != 0
    assert "left threads behind" in done.stdout
