"""`prove`: which file is what, what its checks came to, and the words for that."""

import json
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reference_impl import _proving, _report, _targets
from reference_impl._copying import CopyError
from reference_impl._report import Finding, Report
from tests.kit import COMPONENTS, copies, verdicts
from tests.kit.process import run_python
from tests.kit.twins import edit
from tests.tools.helpers import Run

CACHE = COMPONENTS / "caches/ttl_cache.py"
SHARDED = COMPONENTS / "caches/sharded_cache.py"


def project(folder: Path, **files: str | bytes) -> Path:
    """A package `mine` that has these modules."""
    package = folder / "mine"
    package.mkdir()
    for name, text in {"__init__": "", **files}.items():
        data = text if isinstance(text, bytes) else textwrap.dedent(text).encode()
        (package / f"{name}.py").write_bytes(data)
    return package


# Real runs: few, since each takes seconds.


def test_a_broken_guarantee_is_told_from_one_that_holds(run: Run, tmp_path: Path) -> None:
    """The copy is elsewhere, in a package of another name, and its class has another name."""
    change = edit("_Store.live", "entry.deadline > self.clock()", "entry.deadline >= self.clock()")
    assert change.source is not None
    text = change.source(CACHE.read_text(encoding="utf-8"))
    text = text.replace("class TTLCache(", "class Mine(")
    file = project(tmp_path, own_cache=text) / "own_cache.py"
    junit = tmp_path / "junit.xml"
    guarantees = ("--guarantee", "TC-2", "--guarantee", "tc-10")
    status, out, err = run(
        "prove", file, "--name", "TTLCache=Mine", *guarantees, "--json", "--junit", junit
    )
    assert status == 1, err
    told = json.loads(out)
    words = {each["id"]: each["word"] for each in told["guarantees"]}
    assert words == {"TC-2": "BROKEN", "TC-10": "holds"}, out
    assert told["component"] == "caches/ttl_cache"
    assert told["guarantees"][1]["checks"] == 3
    (suite,) = ET.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")


def test_an_adapter_is_proved_by_the_same_checks(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(
        tmp_path,
        caches="""
            from reference_impl.caches.ttl_cache import TTLCache

            class Forgetful:
                def __init__(self, *arguments, **options):
                    self._cache = TTLCache(*arguments, **options)
                def get(self, key, default=None):
                    return self._cache.get(key) or default
                def set(self, key, value, ttl=None):
                    self._cache.set(key, value, ttl)
                def get_or_load(self, key, loader, ttl=None):
                    return self._cache.get_or_load(key, loader, ttl)

            def make(*arguments, **options):
                return Forgetful(*arguments, **options)
        """,
    )
    monkeypatch.chdir(tmp_path)
    given = ("--adapter", "mine.caches:make", "--as", "TTLCache")
    status, out, _ = run("prove", *given, "--guarantee", "TC-10", "--guarantee", "TC-4")
    assert status == 1
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("TC-")}
    assert "BROKEN" in lines["TC-10"]
    assert "not offered" in lines["TC-4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nowhere_to_be_found\n", "Run prove where nowhere_to_be_found is installed"),
        ("raise OSError('no licence')\n", "OSError: no licence"),
    ],
)
def test_a_file_that_cannot_be_imported_shows_its_own_traceback(
    run: Run, tmp_path: Path, text: str, message: str
) -> None:
    file = project(tmp_path, cache=text + "class TTLCache: ...\n") / "cache.py"
    status, out, err = run("prove", file)
    assert status == 2
    assert message in err
    assert f'File "{file}", line 1' in err
    assert "tests/kit" not in err
    assert "holds" not in out


def test_one_that_is_refused_stops_no_other(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that promises nothing by itself, in a folder, is no refusal."""
    broken = project(tmp_path, cache="import nowhere_to_be_found\nclass TTLCache: ...\n")
    event = (COMPONENTS / "buses/event.py").read_bytes()
    (tmp_path / "event.py").write_bytes(event)
    status, out, err = run("prove", tmp_path / "event.py")
    assert status == 2
    assert "buses/event promises nothing by itself: prove the component that imports it" in err
    real = _proving._run

    def quick(root: Path, target: _targets.Target, options: Any) -> Report:
        return (
            broken_report()
            if target.component.module == "memory_queue"
            else real(root, target, options)
        )

    monkeypatch.setattr(_proving, "_run", quick)
    queue = COMPONENTS / "queues/memory_queue.py"
    status, out, err = run("prove", "--json", tmp_path / "event.py", queue)
    assert (status, err.count("error:")) == (1, 0)
    status, out, err = run("prove", "--json", broken / "cache.py", queue)
    assert status == 2
    assert "nowhere_to_be_found" in err
    assert json.loads(out)["guarantees"][0]["word"] == "BROKEN"


# What is refused before anything runs.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a file to prove"),
        (("nowhere.py",), "there is no nowhere.py"),
        (("empty.py",), "empty.py is no component that is known here"),
        (("empty.py", "--as", "ttl_cache"), "empty.py has no TTLCache: say what stands for it"),
        (("empty.py", "--as", "nothing"), "there is no component 'nothing'"),
        (("wrong.py",), "wrong.py, line 1:"),
        (("mine.py", "--as", "ttl_cache", "--name", "TTLCache"), "write it as TTLCache=MyCache"),
        (("mine.py", "--as", "ttl_cache", "--name", "TTLCache=Other"), "mine.py has no Other"),
        (("mine.py", "--as", "ttl_cache", "--name", "Cache=Mine"), "caches/ttl_cache has no Cache"),
        (("part.py",), "part.py is a part of components: prove async_pending_queue.py or"),
        (("--adapter", "mine:Mine"), "--as says what it implements"),
        (("--adapter", "mine.Mine", "--as", "ttl_cache"), "write it as package.module:make_cache"),
        (("--adapter", "No=mine:Mine", "--as", "ttl_cache"), "caches/ttl_cache has no No"),
        (("--adapter", "absent:make", "--as", "ttl_cache"), "No module named 'absent'"),
        (("ttl_cache.py", "--guarantee", "TC-99"), "promises no TC-99: there is TC-1, TC-2"),
        (("ttl_cache.py", "--junit", "no/junit.xml"), "there is no folder no"),
    ],
)
def test_what_cannot_be_proved_is_refused_in_words(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    part = (COMPONENTS / "queues/_spool.py").read_bytes()
    files = {"empty": b"", "wrong": b"def (:\n", "mine": b"class Mine: ...\n", "part": part}
    for name, data in (files | {"ttl_cache": CACHE.read_bytes()}).items():
        (tmp_path / f"{name}.py").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    status, _, err = run("prove", *arguments)
    assert status == 2
    assert message in err


def targets(run: Run, monkeypatch: pytest.MonkeyPatch, *words: object) -> list[_targets.Target]:
    """What these words of a command line would have proved."""
    found: list[_targets.Target] = []

    def keep(root: Path, target: _targets.Target, options: object) -> Report:
        found.append(target)
        holds = [Finding("X-1", "it works", checks=1)]
        return Report(target.component.path, target.label, target.state, "quick", 1.0, holds)

    monkeypatch.setattr(_proving, "_run", keep)
    assert run("prove", *words)[0] == 0
    return found


def test_siblings_are_served_from_the_copy(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its own name and from where it is imported, relatively or not."""
    text = SHARDED.read_text(encoding="utf-8")
    absolute = text.replace("from .ttl_cache import", "from mine.ttl_cache import")
    assert absolute != text
    package = project(tmp_path, ttl_cache=CACHE.read_bytes(), one=text, two=absolute)
    for name in ("one", "two"):
        (target,) = targets(run, monkeypatch, package / f"{name}.py")
        found = {key: (each["file"], each["module"]) for key, each in target.bindings.items()}
        assert found == {
            "reference_impl.caches.sharded_cache": (str(package / f"{name}.py"), f"mine.{name}"),
            "reference_impl.caches.ttl_cache": (str(package / "ttl_cache.py"), "mine.ttl_cache"),
        }


def test_a_changed_sibling_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("copy", "sharded_cache", tmp_path / "mine")[0] == 0
    (target,) = targets(run, monkeypatch, tmp_path / "mine" / "sharded_cache.py")
    assert target.state.endswith(", as it was vetted")
    sibling = tmp_path / "mine" / "ttl_cache.py"
    sibling.write_bytes(sibling.read_bytes() + b"changed = True\n")
    (target,) = targets(run, monkeypatch, tmp_path / "mine" / "sharded_cache.py")
    assert target.state.endswith(", as it was vetted, beside ttl_cache.py (modified)")


def test_a_sibling_that_was_written_into_the_file_is_found_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = project(tmp_path, both="class TTLCache: ...\nclass ShardedCache(TTLCache): ...\n")
    (target,) = targets(run, monkeypatch, package / "both.py", "--as", "sharded_cache")
    assert {each["module"] for each in target.bindings.values()} == {"mine.both"}
    assert len(target.bindings) == 2


def test_a_folder_is_proved_copy_by_copy(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("copy", "async_pending_queue", "ttl_cache", tmp_path / "vendored")[0] == 0
    found = targets(run, monkeypatch, tmp_path)
    assert [target.component.module for target in found] == [
        "file_watch",
        "ttl_cache",
        "async_pending_queue",
    ]


@pytest.mark.parametrize("name", ["two words", "queue"])
def test_a_file_whose_name_no_import_can_have_goes_by_the_components(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file = tmp_path / f"{name}.py"
    file.write_bytes(CACHE.read_bytes())
    (target,) = targets(run, monkeypatch, file)
    (binding,) = target.bindings.values()
    assert (binding["file"], binding["module"]) == (str(file), "")


def test_such_a_file_is_whole_under_that_name(tmp_path: Path) -> None:
    """Its class is renamed, and what it lacks is told from what is broken."""
    text = "class Mine:\n    def get(self, key): ...\n"
    (tmp_path / "two words.py").write_text(text, encoding="utf-8")
    name = "reference_impl.caches.ttl_cache"
    binding = copies.Binding(str(tmp_path / "two words.py"), names={"TTLCache": "Mine"})
    code = f"""
        from {name} import TTLCache
        from tests.kit.copies import Missing
        assert TTLCache.__name__ == "Mine"
        assert TTLCache.__module__ == {name!r}
        assert not hasattr(TTLCache(), "delete")
        assert Missing.asked == {{"delete"}}
    """
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in copies.described({name: binding}).items():
            patch.setenv(variable, value)
        run_python(code)


# The words.


def done(word: str, *ids: str, **others: Any) -> dict[str, Any]:
    fields = {"test": "test_it", "when": "call", "schedules": 0, "reason": "", "seconds": 0.1}
    return {"event": "done", "word": word, "ids": list(ids), **fields, **others}


LOSING = {
    "schedule": 47,
    "outcome": "exception",
    "details": "KeyError: 'a'\nmore",
    "steps": [
        {"thread": "T1 delete", "code": "entry = entries.get(key)"},
        {"thread": "T2 delete", "code": "entry = entries.get(key)"},
        {"thread": "T2 delete", "code": "del entries[key]"},
        {"thread": "T1 delete", "code": "del entries[key]"},
    ],
}


@pytest.mark.parametrize(
    ("events", "word", "reason"),
    [
        ([done("holds", "X-1", schedules=7)], "holds", ""),
        ([], "not shown", "no check ran"),
        ([done("skipped", "X-1", reason="needs root")], "not shown", "needs root"),
        ([done("holds", "X-1"), done("skipped", "X-1", reason="needs root")], "holds", ""),
        (
            [done("holds", "X-1"), done("skipped", "X-1", reason="needs Python >= 3.12")],
            "not shown",
            "some checks need another Python: needs Python >= 3.12",
        ),
        ([done("holds", "X-1"), done("BROKEN", "X-1", reason="lost")], "BROKEN", "lost"),
        ([done("BROKEN", "X-1", "X-2", reason="lost")], "suspect", "lost"),
        ([done("not shown", "X-1", reason="inside"), done("holds", "X-1")], "not shown", "inside"),
        (
            [done("not offered", "X-1", reason="no keys"), done("not shown", "X-1")],
            "not offered",
            "no keys",
        ),
        ([done("BROKEN", "X-2", reason="lost"), done("holds", "X-1")], "holds", ""),
        (
            [{"event": "begun", "test": "test_it", "ids": ["X-1"]}],
            "BROKEN",
            "the check did not end: it hangs, or its process died",
        ),
        (
            [{"event": "unread", "file": "test_x.py", "ids": ["X-1"], "why": "boom\nE   no name"}],
            "not shown",
            "test_x.py did not run: no name",
        ),
    ],
)
def test_a_guarantee_has_the_gravest_word_of_its_checks(
    events: list[dict[str, Any]], word: str, reason: str
) -> None:
    promises = {"event": "promises", "texts": {"X-1": "it works", "X-2": "so does this"}}
    report = Report("caches/x", "x.py", "modified", "quick")
    _report.judged(report, [promises, *events])
    (finding, _) = report.findings
    assert (finding.word, finding.reason) == (word, reason)
    assert report.status() == 1
    assert report.status(["not shown", "not offered", "suspect"]) == (
        "BROKEN" in {each.word for each in report.findings}
    )


def broken_report() -> Report:
    report = Report("caches/x", "x.py", "modified from X 1.0.0 (3 lines)", "quick", 12.3)
    promises = {"event": "promises", "texts": {"X-1": "it works", "X-2": "so does this"}}
    failure = done("BROKEN", "X-1", reason="KeyError: 'a'", losing=LOSING)
    _report.judged(report, [promises, failure, done("holds", "X-2", schedules=3158)])
    return report


LANES = [
    "T1  entry = entries.get(key)",
    "T2    entry = entries.get(key)",
    "T2    del entries[key]",
    "T1  del entries[key]",
    "exception: KeyError: 'a'",
]


def test_the_losing_schedule_is_shown_as_lanes() -> None:
    assert _report.lanes(LOSING) == LANES
    lines = _report.text(broken_report()).splitlines()
    assert lines[0] == "X-1    BROKEN       KeyError: 'a', schedule 47"
    assert [line.removeprefix("       ") for line in lines[2:7]] == LANES
    assert lines[7] == "X-2    holds        1 check, 3,158 schedules and examples"


def test_a_long_schedule_is_shortened_to_its_last_switches() -> None:
    steps = [{"thread": f"T{n // 20 % 2} x", "code": f"line {n}"} for n in range(400)]
    lanes = _report.lanes(LOSING | {"steps": steps})
    assert lanes[0] == "… 12 earlier switches"
    assert "T1    line 399" in lanes
    assert len(lanes) < 80


def test_markdown_has_a_table_and_the_losing_schedule() -> None:
    text = _report.markdown(broken_report())
    assert "| X-1 | **BROKEN** | KeyError: 'a', schedule 47 |" in text
    assert "| X-2 | holds | 1 check, 3,158 schedules and examples |" in text
    assert "\n".join(["```text", *LANES, "```"]) in text


Check = Callable[[], None]


def test_json_says_all_of_it() -> None:
    told = broken_report().as_dict()
    assert told["guarantees"][0]["losing"] == LOSING
    assert told["guarantees"][1]["schedules"] == 3158
    json.dumps(told)


def test_junit_has_a_case_for_each_guarantee() -> None:
    root = ET.fromstring(_report.junit([broken_report()]))
    first, second = root.iter("testcase")
    assert (first.get("name"), first.get("classname")) == ("X-1", "caches/x")
    assert first[0].get("message") == "BROKEN: KeyError: 'a'"
    assert len(second) == 0


def test_without_the_proofs_packages_it_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_proving, "_NEEDED", ("pytest", "no_such_package"))
    status, _, err = run("prove", CACHE)
    assert status == 2
    assert "prove needs no_such_package: install 'executable-guarantees[prove]'" in err


def test_a_header_with_nothing_behind_it_is_told(tmp_path: Path) -> None:
    file = tmp_path / "ttl_cache.py"
    file.write_bytes(b"".join(CACHE.read_bytes().splitlines(keepends=True)[:6]))
    with pytest.raises(CopyError, match="has no TTLCache: say what stands for it"):
        _targets.of_file(file, file.read_bytes(), None, {})


def failure(check: Callable[[], object]) -> dict[str, Any]:
    """What `prove` says of a check that fails so."""
    with pytest.raises(BaseException) as caught:
        check()
    return verdicts._judged(caught.value)


class Cache:
    def get(self, key: str, default: Any = None) -> Any: ...


def lacking(name: str) -> Callable[[], object]:
    return lambda: getattr(Cache(), name)


@pytest.mark.parametrize(
    ("check", "word", "reason"),
    [
        (lacking("get_or_load"), "not offered", "there is no get_or_load"),
        (lacking("_store"), "not shown", "the check looks inside, for _store"),
        (lacking("mistyped"), "BROKEN", "AttributeError: 'Cache' object has no attribute"),
        (lambda: Cache().get("key").get, "BROKEN", "AttributeError: 'NoneType' object has no"),
        (lambda: len(Cache()), "not offered", "there is no __len__"),  # type: ignore[arg-type]
        (lambda: Cache().get("key", stale=1), "not offered", "there is no stale"),  # type: ignore[call-arg]
        (lambda: dict[str, int]()["key in a check"], "BROKEN", "KeyError: 'key in a check'"),
        (lambda: pytest.fail("Timeout (>120.0s) from x"), "BROKEN", "not at an end after 120 s"),
    ],
)
def test_a_failure_is_told_from_an_absence(
    check: Callable[[], object], word: str, reason: str
) -> None:
    found = failure(check)
    assert found["word"] == word
    assert found["reason"].startswith(reason)
