"""The contracts in a reader's own project, from a clone and as an installation has them."""

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import reference_impl.contracts
from reference_impl import contracts
from reference_impl.caches.ttl_cache import TTLCache
from tests.caches.ttl_cache import test_leaving, test_promises
from tests.contracts import bus_contract, cache_contract
from tests.contracts.making import Made
from tests.kit import COMPONENTS, ROOT
from tests.kit.process import interpret

PARTS = list(contracts.CacheContract.__bases__)

# A project with a package `tests` of its own, whose settings are strict.
PROJECT = {
    "pyproject.toml": """
[tool.pytest.ini_options]
addopts = ["--strict-markers", "--strict-config", "-p", "no:cacheprovider"]
filterwarnings = ["error"]
testpaths = ["tests"]
""",
    "tests/__init__.py": "MINE = True\n",
    "tests/kit.py": "MINE = True\n",
    "tests/conftest.py": """
import json
from pathlib import Path

import reference_impl
from tests import kit
from tests.spied import used


def pytest_sessionfinish():
    found = {part: sorted(names) for part, names in used.items()}
    found["package"] = str(Path(reference_impl.__file__).parent)
    Path("used.json").write_text(json.dumps(found))


def pytest_configure():
    assert kit.MINE
""",
    "tests/spied.py": """
from collections import defaultdict

from reference_impl.caches.ttl_cache import TTLCache

used = defaultdict(set)


def spied(part):
    class Spied:
        def __init__(self, **arguments):
            if "on_evict" in arguments:
                used[part].add("on_evict")
            self._cache = TTLCache(**arguments)

        def __getattr__(self, name):
            used[part].add(name)
            return getattr(self._cache, name)

        def __len__(self):
            used[part].add("len")
            return len(self._cache)

        def __contains__(self, key):
            used[part].add("in")
            return key in self._cache

    return Spied
""",
    "tests/test_right.py": """
from reference_impl.buses.event_bus import EventBus
from reference_impl.contracts import *
from tests.spied import spied


class TestWhole(CacheContract):
    make = spied("CacheContract")


class TestBus(BusContract):
    def make(self, limit=4, **options):
        return BlockingHarness(EventBus(limit, **options))
"""
    + "".join(
        f"""

class Test{part.__name__}({part.__name__}):
    make = spied("{part.__name__}")
"""
        for part in PARTS
    ),
    "tests/test_wrong.py": """
import time

from reference_impl.buses.event_bus import EventBus
from reference_impl.caches.ttl_cache import TTLCache
from reference_impl.contracts import (
    BlockingHarness, BoundCases, BusContract, CacheContract, StatsCases
)


class LooksByGet(TTLCache):
    def __contains__(self, key):
        return self.get(key) is not None


class AlwaysFound(EventBus):
    def unsubscribe(self, event_type, handler):
        super().unsubscribe(event_type, handler)
        return True


class TestCache(CacheContract):
    make = LooksByGet
    test_none_is_stored_found_and_counted = None


class NoLoads(TTLCache):
    get_or_load = None

    def __init__(self, default_ttl=3600.0, max_size=1000, *, clock=time.monotonic):
        super().__init__(default_ttl, max_size, clock=clock)


class TestNoLoads(CacheContract):
    make = NoLoads
    lacks = {"get_or_load", "on_evict"}


class TestNoLength(BoundCases, StatsCases):
    make = TTLCache
    lacks = {"len", "in"}


class TestNoUnsubscribe(BusContract):
    lacks = {"unsubscribe", "on_error"}

    def make(self, limit=4, **options):
        return BlockingHarness(EventBus(limit, **options))


class TestBus(BusContract):
    def make(self, limit=4, **options):
        return BlockingHarness(AlwaysFound(limit, **options))
""",
}
WRONG = {
    "TestCache": {
        "test_asking_whether_a_key_is_there_is_no_use",
        "test_looking_without_taking_is_no_look_up",
    },
    "TestBus": {"test_unsubscribe_finds_equal_handlers"},
}


class Session:
    """What pytest found in the reader's project."""

    def __init__(self, project: Path) -> None:
        self.used = json.loads((project / "used.json").read_text(encoding="utf-8"))
        self.passed, self.failed = Counter[str](), dict[str, dict[str, str]]()
        self.skipped = dict[str, Counter[str]]()
        for each in ET.parse(project / "found.xml").iter("testcase"):
            module, _, class_ = str(each.get("classname")).rpartition(".")
            name = f"{module.rpartition('.')[2]}.{class_}"
            if (skipped := each.find("skipped")) is not None:
                self.skipped.setdefault(name, Counter())[str(skipped.get("message"))] += 1
                continue
            if (failure := each.find("failure")) is None and each.find("error") is None:
                self.passed[name] += 1
                continue
            assert failure is not None
            self.failed.setdefault(name, {})[str(each.get("name"))] = str(failure.text)


@pytest.fixture(scope="module", params=["clone", "installation"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A run of the project's tests, which see the package alone, or the whole clone."""
    folder = tmp_path_factory.mktemp(request.param)
    project, place = folder / "project", ROOT
    if request.param == "installation":
        place = folder / "site-packages"
        install(place / "reference_impl")
    for name, text in PROJECT.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--junitxml=found.xml"],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(place), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = Session(project)
    assert Path(found.used["package"]) == (place / "reference_impl").resolve()
    return found


def install(package: Path) -> None:
    """The package and its proofs as the wheel has them."""
    ignored = shutil.ignore_patterns("__pycache__", "_proofs")
    shutil.copytree(COMPONENTS, package, ignore=ignored)
    for name in ("contracts", "kit"):
        proofs = package / "_proofs" / "tests" / name
        shutil.copytree(ROOT / "tests" / name, proofs, ignore=ignored)
    (package / "_proofs" / "tests" / "__init__.py").touch()


def cases(contract: type) -> set[str]:
    return {name for name in dir(contract) if name.startswith("test_")}


def test_the_originals_pass(session: Session) -> None:
    assert not [name for name in session.failed if name.startswith("test_right.")]
    parts = sum(session.passed[f"test_right.Test{part.__name__}"] for part in PARTS)
    assert parts == session.passed["test_right.TestWhole"] >= len(cases(contracts.CacheContract))
    assert session.passed["test_right.TestBus"] >= len(cases(contracts.BusContract))


@pytest.mark.parametrize(("name", "failing"), WRONG.items())
def test_a_wrong_one_fails_where_it_is_wrong(
    session: Session, name: str, failing: set[str]
) -> None:
    failed = session.failed[f"test_wrong.{name}"]
    assert set(failed) == failing
    whole = {"TestCache": "TestWhole", "TestBus": "TestBus"}[name]
    left_out = name == "TestCache"  # test_none_... = None
    expected = session.passed[f"test_right.{whole}"] - len(failing) - left_out
    assert session.passed[f"test_wrong.{name}"] == expected


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("TestNoLoads", {"get_or_load", "on_evict"}),
        ("TestNoLength", {"len", "in"}),
        ("TestNoUnsubscribe", {"unsubscribe", "on_error"}),
    ],
)
def test_what_is_lacking_is_skipped(session: Session, name: str, lacks: set[str]) -> None:
    skipped = session.skipped[f"test_wrong.{name}"]
    assert set(skipped) == {f"not offered: {each}" for each in lacks}
    assert session.passed[f"test_wrong.{name}"] > 0
    assert f"test_wrong.{name}" not in session.failed


def test_a_failure_shows_what_was_compared(session: Session) -> None:
    failure = session.failed["test_wrong.TestCache"]["test_looking_without_taking_is_no_look_up"]
    assert "assert (1, 1) == (0, 0)" in failure


@pytest.mark.parametrize("part", [*PARTS, contracts.CacheContract])
def test_a_part_says_what_it_uses(session: Session, part: type) -> None:
    _, _, told = str(part.__doc__).partition("Uses: ")
    if part is contracts.CacheContract:
        _, _, told = str(part.__doc__).partition("The arguments are")
    named = set(re.findall(r"`(?:len\(|key )?(\w+)", told))
    if part is contracts.CacheContract:
        assert set(session.used["CacheContract"]) - {"len", "in"} <= named
    else:
        assert set(session.used[part.__name__]) == named


def test_the_whole_contract_is_all_its_parts() -> None:
    parts = {
        each.__name__
        for each in vars(cache_contract).values()
        if isinstance(each, type) and cases(each) and each.__module__ == cache_contract.__name__
    }
    assert {part.__name__ for part in PARTS} == parts
    assert cases(contracts.BusContract) == cases(bus_contract.BusContract)
    assert set(contracts.__all__) <= set(vars(contracts))


def test_a_part_says_which_guarantee_it_is() -> None:
    """The same as the mark of the class by which TTLCache passes it."""
    checked = 0
    for each in [*vars(test_promises).values(), *vars(test_leaving).values()]:
        if isinstance(each, type) and (marks := vars(each).get("pytestmark")):
            part = getattr(contracts, each.__bases__[-1].__name__)
            assert str(part.__doc__).startswith(marks[0].args[0]), part
            checked += 1
    assert checked == len(PARTS) - 1  # bad input is no guarantee


def make_cache(**arguments: Any) -> TTLCache[Any, Any]:
    return TTLCache(**arguments)


def with_a_method() -> type[Made]:
    class Mine(Made):
        def make(self, *arguments: Any, **options: Any) -> Any:
            return TTLCache(*arguments, **options)

    return Mine


@pytest.mark.parametrize(
    "make",
    [
        TTLCache,
        make_cache,
        staticmethod(make_cache),
        lambda **arguments: TTLCache(**arguments),
        partial(make_cache, max_size=3),
        with_a_method().make,
    ],
)
def test_make_is_whatever_makes_one(make: Any) -> None:
    mine: Any = type("Mine", (Made,), {"make": make})
    assert isinstance(mine().make(default_ttl=5.0), TTLCache)
    assert isinstance(type("Heir", (mine,), {})().make(default_ttl=5.0), TTLCache)


def test_what_it_lacks_is_a_set() -> None:
    with pytest.raises(TypeError, match=r"^Mine.lacks must be a set .* not 'get_or_load'"):
        type("Mine", (contracts.BoundCases,), {"lacks": "get_or_load"})


def test_without_make_it_says_so() -> None:
    for contract in (contracts.CacheContract, contracts.BusContract):
        mine: Any = type("Mine", (contract,), {})
        with pytest.raises(TypeError, match=r"abstract method '?make'?"):
            mine()


def test_without_pytest_it_says_what_to_install() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import reference_impl.contracts"
    done = interpret("-I", "-S", "-B", "-c", code)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: the contracts are tests of pytest, which is not installed: "
        'pip install "executable-guarantees[prove]"'
    )


def test_without_the_proofs_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_impl.contracts, "__file__", str(tmp_path / "p" / "contracts.py"))
    with pytest.raises(ImportError, match=r"lacks its proofs.*pip install"):
        contracts._proofs()
