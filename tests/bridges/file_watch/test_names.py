"""FW-8: which names are given, which directories are entered; names in composed form."""

import asyncio
import unicodedata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import file_watch
from reference_impl.bridges.file_watch import name_filter
from tests.bridges.file_watch.faults import made_with
from tests.bridges.file_watch.helpers import linux, twice
from tests.bridges.file_watch.spying import entered
from tests.kit.proofs import Proof, failing, holding
from tests.kit.twins import Fault, Twin, override, patch

TEMPORARY = ("~$*", "*.tmp", "*.part", "*.crdownload", "*.swp", "*~", ".~lock.*")


async def check_excluded_files_are_not_given(m: ModuleType, inbox: Path) -> None:
    names = ("~$book.xlsx", "data.tmp", "video.part", "setup.crdownload", "notes~", "a.swp")
    for each in names:
        (inbox / each).touch()
    async with entered(m, inbox, exclude=TEMPORARY) as spy:
        await spy.at_rest()
        await spy.nothing_more()
        for each in names:
            (inbox / each).write_text("x")
        await spy.nothing_more()
        (inbox / "data.tmp").rename(inbox / "data.csv")
        assert await spy.name() == "data.csv"
        (inbox / "data.csv").rename(inbox / "data.part")
        await spy.nothing_more()


async def check_excluded_directories_are_not_entered(m: ModuleType, inbox: Path) -> None:
    (inbox / "done" / "deep").mkdir(parents=True)
    (inbox / "open" / "done").mkdir(parents=True)
    for each in ("done", "done/deep", "open/done", "open"):
        (inbox / each / "file").touch()
    async with entered(m, inbox, exclude=["done"], recursive=True) as spy:
        assert await spy.name() == "open/file"
        await spy.at_rest()
        await spy.nothing_more()
        (inbox / "done" / "deep" / "late").touch()
        (inbox / "open" / "done" / "late").touch()
        (inbox / "more" / "done").mkdir(parents=True)
        (inbox / "more" / "done" / "late").touch()
        (inbox / "open" / "file").rename(inbox / "done" / "moved")
        await spy.nothing_more()
        await spy.at_rest()
        (inbox / "done").rename(inbox / "again")
        found = set[str]()
        while not {"again/file", "again/deep/file", "again/moved"} <= found:
            found.add(await spy.name())
        (inbox / "open" / "late").touch()
        while "open/late" not in found:
            found.add(await spy.name())
        assert not any("done" in each for each in found)


async def check_names_are_compared_in_composed_form(m: ModuleType, inbox: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    for form in (composed, decomposed):
        for each in (inbox / f"{composed}-1", inbox / f"{decomposed}-2"):
            each.touch()
        async with entered(m, inbox, patterns=[f"{form}*"]) as spy:
            assert set(await spy.names(2)) == {f"{composed}-1", f"{decomposed}-2"}
        async with entered(m, inbox, exclude=[f"{form}*"]) as spy:
            await spy.at_rest()
            await spy.nothing_more()


def takes_names_as_they_are() -> Fault:
    """Names are not composed."""

    def change(module: ModuleType) -> None:
        class Plain:
            @staticmethod
            def normalize(_: str, name: str) -> str:
                return name

        vars(module)["unicodedata"] = Plain

    return patch(change)


def enters_all() -> Fault:
    """What is excluded of directories counts for nothing."""

    def make(original: Any) -> Any:
        def made(patterns: Any, exclude: Any = ()) -> Any:
            return original(patterns, () if tuple(patterns) == ("*",) else exclude)

        return made

    return override("name_filter", make)


PROOFS = [
    Proof(
        "FW-8",
        check_excluded_files_are_not_given,
        [Twin("excludes nothing", made_with(exclude=()), "AssertionError: == sentinel")],
    ),
    Proof(
        "FW-8",
        check_excluded_directories_are_not_entered,
        [
            Twin(
                "enters all directories",
                enters_all(),
                ("AssertionError: == 'open/file'", "AssertionError: == sentinel"),
            )
        ],
    ),
    Proof(
        "FW-8",
        check_names_are_compared_in_composed_form,
        [Twin("takes names as they are", takes_names_as_they_are(), "hang")],
    ),
]

test_names = linux(twice(holding(PROOFS, file_watch, "inbox")))
test_wrong_names_are_noticed = linux(twice(failing(PROOFS, file_watch, "inbox")))


# The function.


@pytest.mark.guarantee("FW-8")
def test_the_filter_tells_what_is_given() -> None:
    matches = name_filter(["*.csv", "report-?"], TEMPORARY)
    for name in ("a.csv", "report-1", " .csv", "~.csv", "new\nline.csv"):
        assert matches(name), name
    for name in ("", ".csv", ".a.csv", "a.csv~", "~$a.csv", "report-10", "a.tmp", ".~lock.a.csv#"):
        assert not matches(name), name
    assert name_filter(["*"])("\udce9")
    assert not name_filter(["?"], ["\u00e9"])("e\u0301")
    assert name_filter(iter(["*"]), iter(["b"]))("a")


@pytest.mark.guarantee("FW-8")
@pytest.mark.parametrize(
    ("patterns", "exclude", "error", "message"),
    [
        ("*", (), TypeError, r"^patterns must be strings, such as \['\*.csv'\], not '\*'$"),
        (["*"], "*.tmp", TypeError, r"^exclude must be strings, .* not '\*.tmp'$"),
        (["*"], b"x", TypeError, "^exclude must be strings, .* not b'x'$"),
        (["*"], None, TypeError, "^exclude must be strings, .* not None$"),
        (["*"], [7], TypeError, r"^exclude must be strings, .* not \[7\]$"),
        ([], (), ValueError, "^patterns must match visible names, .* not ''$"),
        ([".*"], (), ValueError, "^patterns must match visible names, .* not '.*'$"),
        (["*"], [""], ValueError, "^exclude must match names, .* not ''$"),
        (["*"], ["a/b"], ValueError, "^exclude must match names, .* not 'a/b'$"),
    ],
)
def test_what_can_match_nothing_is_refused(
    inbox: Path, patterns: Any, exclude: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        name_filter(patterns, exclude)
    with pytest.raises(error, match=message):
        file_watch.DirectoryWatch(inbox, patterns, exclude=exclude)


def test_an_iterator_of_patterns_is_good_enough(inbox: Path) -> None:
    async def main() -> None:
        (inbox / "a").touch()
        (inbox / "b").touch()
        patterns, exclude = iter(["?", "sentinel*"]), iter(["b"])
        async with entered(
            file_watch, inbox, patterns=patterns, exclude=exclude, recursive=True
        ) as spy:
            assert await spy.name() == "a"
            await spy.nothing_more()

    asyncio.run(main())
