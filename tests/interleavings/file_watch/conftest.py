"""What an exploration replaces in the component is put back."""

import os

import pytest


@pytest.fixture(autouse=True)
def _put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not at the top: this file is read before `--copy` binds the component's name.
    from reference_impl.bridges import file_watch
    from tests.bridges.file_watch import faults, inside

    monkeypatch.setattr(file_watch, "Observer", vars(file_watch)["Observer"])
    inside.keep(file_watch, monkeypatch)
    # A thread that the explorer ends in a scan would not close it.
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path=".": faults.Listing(list(scandir(path))))
