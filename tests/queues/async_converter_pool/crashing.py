"""A process that ends before or after each step of a move, and what the next start makes of it.

Run in an interpreter of its own, which forks for each step.
"""

import asyncio
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import reference_impl.queues.async_converter_pool as module

CRASHED = 9
TEXTS = {"good.csv": "good", "bad.csv": "bad"}


class Place:
    """A watched directory, two for what is dealt with, and a log of what was submitted."""

    def __init__(self, root: Path, targets: Path) -> None:
        self.box, self.log = root / "in", root / "log"
        self.done, self.error = targets / "done", targets / "error"
        for folder in (self.box, self.done, self.error):
            folder.mkdir(parents=True)

    async def work(self, enough: Callable[[], bool]) -> None:
        """Run a pool until it is enough."""

        def convert(path: Path) -> str:
            if (text := path.read_text()) == "bad":
                raise ValueError(text)
            return text

        async def submit(text: str) -> None:
            with self.log.open("a") as file:
                print(text, file=file)

        converter = module.Converter(
            "c", self.box, ("*.csv",), convert, done_dir=self.done, error_dir=self.error
        )
        async with module.AsyncConverterPool([converter], submit, max_concurrency=1):
            while not enough():
                await asyncio.sleep(0.001)  # this is a subject, not a check

    def names(self, folder: Path, *, hidden: bool = False) -> list[Path]:
        return [
            file
            for file in folder.iterdir()
            if file.name.startswith(".") == hidden and not file.name.endswith(".json")
        ]

    def visible(self) -> list[str]:
        """The texts of all files that a user sees."""
        folders = (self.box, self.done, self.error)
        return sorted(file.read_text() for each in folders for file in self.names(each))

    def finished(self) -> bool:
        """Nothing is left to do."""
        return not self.names(self.box) and not self.names(self.box, hidden=True)

    def submitted(self) -> int:
        return self.log.read_text().split().count("good") if self.log.exists() else 0


def forked(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Do it in a child; its exit code."""
    child = os.fork()
    if not child:
        code = 1
        try:
            asyncio.run(work())
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at(point: int) -> list[str]:
    """From now on this process ends at the step of that number; the names of those it took."""
    steps: list[str] = []

    def crash(function: Any) -> Any:
        def step(name: str) -> None:
            steps.append(name)
            if len(steps) == point:
                os._exit(CRASHED)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            step(f"before {function.__name__}")
            result = function(*arguments, **options)
            step(f"after {function.__name__}")
            return result

        return wrapped

    library: Any = module
    for name in ("rename_new", "open"):
        setattr(library, name, crash(getattr(library, name, open)))
    for owner, name in ((os, "unlink"), (os, "fsync"), (shutil, "copyfileobj")):
        setattr(owner, name, crash(getattr(owner, name)))
    return steps


def crash_at(point: int, place: Place) -> int:
    """Two files, one of which fails; the process ends at that step, if there are so many."""

    async def life() -> None:
        watches: Any = vars(module)["DirectoryWatch"]
        original = watches.__aenter__

        async def enter(watch: Any) -> Any:
            die_at(point)  # not in the tries of the start
            return await original(watch)

        watches.__aenter__ = enter
        await place.work(place.finished)

    for name, text in TEXTS.items():
        (place.box / name).write_text(text)
    return forked(life)


def check(place: Place, crashed: bool) -> None:
    """Nothing is lost, doubled or half visible; then the next start does the rest."""
    seen = place.visible()
    assert set(seen) <= set(TEXTS.values()), f"half a file is visible: {seen}"
    assert len(set(seen)) == len(seen), f"a file is visible twice: {seen}"
    for file in place.error.glob("[!.]*.json"):
        assert json.loads(file.read_text()), "half a reason is visible"
    committed = not (place.box / "good.csv").exists()
    before = place.submitted()
    assert forked(lambda: place.work(place.finished)) == 0
    assert place.visible() == sorted(TEXTS.values()), "lost, or doubled"
    assert place.submitted() <= before + (not committed), "submitted again though it was moved"
    assert 1 <= place.submitted() <= 2
    assert [file.read_text() for file in place.names(place.done)] == ["good"]
    strays = [place.names(each, hidden=True) for each in (place.box, place.done, place.error)]
    assert not any(strays), f"left behind: {strays}"


def main(targets: str, most: int) -> None:
    """Try each point; fewer than `most` are too few."""
    logging.disable(logging.CRITICAL)
    point, code = 0, CRASHED
    while code == CRASHED:
        point += 1
        with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory(dir=targets) as to:
            place = Place(Path(root), Path(to))
            code = crash_at(point, place)
            assert code in {0, CRASHED}, f"point {point}: exit code {code}"
            try:
                check(place, code == CRASHED)
            except AssertionError as error:
                raise AssertionError(f"point {point}: {error}") from None
    assert point > most, f"only {point} points"
    print(f"{point - 1} points")
