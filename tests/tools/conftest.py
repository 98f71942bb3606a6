"""What the tests of the copy tool have in common: the tool, and a made-up package."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reference_impl import _components
from reference_impl.__main__ import main
from tests.tools.helpers import Run, clear_caches, record, source, write_tree


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process: its status, output and complaints."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as exit_:  # argparse's own
            status = int(str(exit_.code))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A made-up package: two families, a third party, and a component with a history."""
    watch = "import sys\nfrom elsewhere import watcher\n\n\nclass Watch: ...\n"
    feed = "from ..bridges.watch import Watch\n\n\nclass Feed(Watch): ...\n\n\nclass Full: ...\n"
    place = tmp_path / "package"
    history = [
        source("caches/store", f"class Store: ...  # {version}\n", version=version)
        for version in ("1.2.0", "1.1.0", "1.0.0")
    ]
    sources = {
        "bridges/watch": source("bridges/watch", watch, summary="watches (Watch)"),
        "queues/feed": source("queues/feed", feed, summary="feeds (Feed, Full)"),
        "queues/other": source("queues/other", "class Full: ...\n"),
        "caches/store": history[0],
    }
    write_tree(place, {f"{path}.py": data for path, data in sources.items()})
    monkeypatch.setattr(_components, "PACKAGE", place)
    texts = {path: [data] for path, data in sources.items()}
    record(place, texts | {"caches/store": history})
    yield place
    clear_caches()
