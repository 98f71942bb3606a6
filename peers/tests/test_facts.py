"""peers/facts.py, without the network: what it reads of distributions made for the test."""

import json
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from peers import facts
from peers.adapters import Row


def installed(
    site: Path, name: str, metadata: str = "", files: dict[str, str] | None = None
) -> None:
    """A distribution in the folder, as pip would leave it."""
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    contents = {
        f"{info}/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{metadata}"
    }
    contents |= files or {f"{name.replace('-', '_')}/__init__.py": ""}
    record = "".join(f"{each},,\n" for each in [*contents, f"{info}/RECORD"])
    for path, content in (contents | {f"{info}/RECORD": record}).items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(content)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that distributions are found in."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("License-Expression: MIT OR Apache-2.0\n", "MIT OR Apache-2.0"),
        ("License: Apache 2\n", "Apache-2.0"),
        ("License: MPL-2.0 AND MIT\n", "MPL-2.0 AND MIT"),
        ("Classifier: License :: OSI Approved :: MIT License\n", "MIT"),
        ("License: BSD\n", "BSD-2-Clause"),  # by its text
        ("", "BSD-2-Clause"),
    ],
)
def test_licence_is_one_short_name(site: Path, metadata: str, expected: str) -> None:
    text = "Redistribution and use in source and binary\nforms, with or without"
    installed(site, "one", metadata, {"one.py": "", "one-1.0.dist-info/licenses/LICENSE": text})
    assert facts.licence(Distribution.from_name("one")) == expected


def test_requirements_are_followed_without_the_extras_that_nobody_asks_for(site: Path) -> None:
    installed(
        site,
        "top",
        "Requires-Dist: middle[fast]>=1\nRequires-Dist: absent; python_version < '3'\n"
        "Requires-Dist: absent; extra == 'more'\n",
    )
    installed(site, "middle", "Requires-Dist: below; extra == 'fast'\nRequires-Dist: top\n")
    installed(site, "below")
    assert list(facts.pulled_in(Distribution.from_name("top"))) == ["below", "middle"]


def test_a_requirement_that_is_missing_is_told(site: Path) -> None:
    installed(site, "top", "Requires-Dist: absent-from-here\n")
    with pytest.raises(LookupError, match="absent-from-here"):
        facts.pulled_in(Distribution.from_name("top"))


def test_size_counts_what_is_installed_but_no_bytecode(site: Path) -> None:
    installed(site, "one", files={"one.py": "12345", "__pycache__/one.cpython-313.pyc": "1" * 999})
    found = Distribution.from_name("one")
    assert facts.size(found) < 999
    assert not facts.compiled(found)


def test_imported_is_what_the_rows_import_or_the_module_of_the_same_name(site: Path) -> None:
    files = {"a_tool.py": "", "my/__init__.py": "", "my/one/__init__.py": ""}
    installed(site, "my.one", files=files)
    found = Distribution.from_name("my.one")
    assert facts.imported(found) == ("my.one",)

    class User(Row):
        imports = "import threading\nfrom my.one.deep import thing\nimport my"

    assert facts.imported(found, [User]) == ("my", "my.one.deep")


def test_newest_release_is_dated_by_its_first_file_that_was_not_withdrawn() -> None:
    files = [
        {"upload_time_iso_8601": "2026-02-01T00:00:00Z", "yanked": True},
        {"upload_time_iso_8601": "2026-02-03T00:00:00Z", "yanked": False},
        {"upload_time_iso_8601": "2026-02-02T00:00:00Z", "yanked": False},
    ]
    answer = {"info": {"version": "2"}, "releases": {"1": [], "2": files}}
    assert facts.released(answer) == ("2", "2026-02-02")


@pytest.mark.parametrize(
    ("metadata", "wheels", "expected"),
    [
        ("", ["one-1.0-cp314-cp314t-manylinux_2_17_x86_64.whl"], "wheel"),
        ("", ["one-1.0-cp314-cp314t-macosx_11_0_arm64.whl"], "pure Python, says nothing"),
        ("", ["one-1.0-py3-none-any.whl"], "pure Python, says nothing"),
        (
            "Classifier: Programming Language :: Python :: Free Threading :: 2 - Beta\n",
            ["one-1.0-py3-none-any.whl"],
            "declared",
        ),
    ],
)
def test_free_threading(site: Path, metadata: str, wheels: list[str], expected: str) -> None:
    installed(site, "one", metadata)
    found = Distribution.from_name("one")
    assert facts.free_threaded(found, wheels) == expected
    assert facts.declared(found) == ("2 - Beta" if metadata else None)


def test_compiled_code_without_a_wheel_for_free_threading_is_told(site: Path) -> None:
    installed(site, "one", files={"one.cpython-313-x86_64-linux-gnu.so": ""})
    found = Distribution.from_name("one")
    here = "one-1.0-cp313-cp313-manylinux_2_17_x86_64.whl"
    elsewhere = "one-1.0-cp313-cp313t-macosx_11_0_arm64.whl"
    assert facts.free_threaded(found, [here, elsewhere]) == "no wheel"
    assert facts.compiled(found)
    assert facts.imported(found) == ("one",)


def test_text_is_json_with_a_line_for_each_package() -> None:
    text = facts.text({"b": {"bytes": 2}, "a": {"bytes": 1}}, "2026-11-30")
    assert list(json.loads(text)["packages"]) == ["a", "b"]
    assert sum('"bytes"' in line for line in text.splitlines()) == 2


def test_import_time_is_counted_above_a_bare_interpreter() -> None:
    assert 0 < facts.import_milliseconds([("asyncio",)], runs=3)["asyncio",] < 2000
