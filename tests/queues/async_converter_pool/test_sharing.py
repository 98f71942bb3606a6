"""Several converters of one directory: one watch, and the first whose patterns match (CP-6)."""

import unicodedata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import reference_impl.queues.async_converter_pool as ours
from reference_impl.bridges.file_watch import DirectoryWatch
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Fault, Twin, patch
from tests.queues.async_converter_pool import faults
from tests.queues.async_converter_pool.helpers import (
    COMPONENT,
    Site,
    looped,
    run,
    submit,
    until,
)


def by(name: str, taken: dict[str, str]) -> Any:
    def convert(path: Path) -> str:
        taken[path.name] = name
        return path.name

    return convert


@looped
async def check_first_match(module: ModuleType, root: Path) -> None:
    """By patterns and exclusions, whatever the priority; by another name of the directory, too."""
    site, taken = Site(root), dict[str, str]()
    (root / "link").symlink_to(site.box)
    converters = [
        site.converter(module, patterns=("report*",), exclude=("*.tmp",), convert=by("in", taken)),
        module.Converter("tables", root / "link", ("*.csv",), by("tables", taken), priority=1),
        module.Converter("rest", site.box, ("*",), by("rest", taken), exclude=("~$*", "*.bak")),
    ]
    names = ["report.csv", "a.csv", "report.tmp", "other", "report.bak"]
    left_alone = ["~$book", "b.bak", ".hidden.csv"]
    for name in names + left_alone:
        site.drop(name, name)
    async with site.running(module, converters=converters):
        await site.unless_it_ends(lambda: len(site.submitted) >= len(names))
    firsts = {"report.csv": "in", "a.csv": "tables", "report.tmp": "rest", "other": "rest"}
    assert taken == firsts | {"report.bak": "in"}, "another one took a file"
    assert sorted(file.name for file in site.box.iterdir() if file.is_file()) == sorted(left_alone)
    assert len(site.texts("done")) == len(names)


def the_last_one_matches() -> Fault:
    """Of several converters the last one takes a file."""

    def made(pool: Any, options: faults.Options) -> None:
        options["converters"].reverse()

    return faults.made_with(made)


def excludes_nothing() -> Fault:
    """Exclusions are not asked for."""

    def change(module: ModuleType) -> None:
        name_filter = vars(module)["name_filter"]
        vars(module)["name_filter"] = lambda patterns, exclude: name_filter(patterns)

    return patch(change)


PROOFS = [
    Proof(
        "CP-6",
        check_first_match,
        [
            Twin(
                "lets the last one take a file",
                the_last_one_matches(),
                "AssertionError: another one took a file",
            ),
            Twin(
                "excludes nothing",
                excludes_nothing(),
                "AssertionError: another one took a file",
            ),
        ],
    )
]


@each_proof(PROOFS)
def test_the_first_converter_that_matches_takes_a_file(proof: Proof, tmp_path: Path) -> None:
    proof.hold(ours, tmp_path)


@each_twin(PROOFS)
def test_a_file_that_another_one_takes_is_caught(proof: Proof, twin: Twin, tmp_path: Path) -> None:
    proof.must_fail(twin, COMPONENT, tmp_path)


@pytest.mark.guarantee("CP-6")
def test_a_directory_is_watched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, ...]] = []

    class Counted(DirectoryWatch):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            made.append((*arguments, options))
            super().__init__(*arguments, **options)

    async def main(module: ModuleType, root: Path) -> None:
        one, other = Site(root, "one"), Site(root, "other")
        (root / "link").symlink_to(one.box)
        monkeypatch.setattr(ours, "DirectoryWatch", Counted)
        converters = [
            one.converter(module),
            module.Converter("linked", root / "link", ("*.txt",), one.convert),
            other.converter(module),
        ]
        async with one.running(module, converters=converters, settle=0.5):
            pass
        watched = [(Path(path), list(patterns), options) for path, patterns, options in made]
        assert watched == [
            (one.box, ["*.csv", "*.txt"], {"settle": 0.5}),
            (other.box, ["*.csv"], {"settle": 0.5}),
        ]

    run(main, ours, tmp_path)


@pytest.mark.guarantee("CP-6")
def test_names_are_compared_in_their_composed_form(tmp_path: Path) -> None:
    """A pattern that was typed, and the name of a file from macOS."""

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        name = unicodedata.normalize("NFD", "Prüfbericht.csv")
        converter = site.converter(module, patterns=(unicodedata.normalize("NFC", "Prü*.csv"),))
        async with site.running(module, converters=[converter]):
            site.drop(name, "decomposed")
            await until(lambda: site.submitted)
        assert [file.name for file in (site.box / "done").iterdir()] == [name]

    run(main, ours, tmp_path)


@pytest.mark.guarantee("CP-2")
def test_an_urgent_file_among_many_of_its_directory_comes_next(tmp_path: Path) -> None:
    """The watch is drawn from until the most urgent converter has enough to choose from."""

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        many = [f"{number:03}.csv" for number in range(300)]
        held = site.hold(*many)
        for name in many:
            site.drop(name, name)
        urgent = module.Converter("urgent", site.box, ("*.now",), site.convert, priority=1)
        converters = [site.converter(module), urgent]
        async with site.running(module, converters=converters, max_concurrency=1) as pool:
            await until(lambda: pool.stats.waiting == 299)
            site.drop("x.now", "!")
            await until(lambda: pool.stats.waiting == 300)
            held.set()
            await until(lambda: len(site.submitted) == 301)
        assert site.submitted[1] == "!"

    run(main, ours, tmp_path)


@pytest.mark.guarantee("CP-5")
def test_a_link_that_is_switched_loses_all_converters_of_its_directory(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site, version = Site(root), root / "version"
        (root / "new").mkdir()
        version.symlink_to(site.box)
        other = Site(root, "other")
        switched = [
            module.Converter(name, version, (f"*.{name}",), site.convert) for name in ("a", "b")
        ]
        async with site.running(module, converters=[*switched, other.converter(module)]) as pool:
            (root / "next").symlink_to(root / "new")
            (root / "next").replace(version)
            (site.box / "x.a").write_text("an event, whose file is not in the new directory")
            await site.unless_it_ends(lambda: pool.stats.lost)
            other.drop("y.csv", "y")
            await until(lambda: "y" in site.submitted)
        assert pool.stats.lost == ("a", "b")

    run(main, ours, tmp_path)


def test_directories_of_others_are_no_targets(tmp_path: Path) -> None:
    """Nor are they by another name."""
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    converter = ours.Converter("c", tmp_path / "in", ("*",), str, done_dir=tmp_path / "link")
    with pytest.raises(ValueError, match="done_dir of converter 'c' must not be watched by 'c'"):
        ours.AsyncConverterPool([converter], submit)
