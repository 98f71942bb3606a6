"""What every test of DirectoryWatch is given."""

from pathlib import Path

import pytest


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """An empty directory to watch, with room beside it."""
    path = tmp_path / "inbox"
    path.mkdir()
    return path
