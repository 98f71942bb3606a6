"""What the recorder of crash points sees, where it ends a process, and what it refuses."""

import sys

import pytest

from tests.kit.process import run_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is for Linux alone")

# The processes are forked, which wants an interpreter without other threads.
START = """
import contextlib, os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from reference_impl.queues._spool import rename_exclusively
from tests.kit import crash_points, crash_recording
from tests.kit.crash_points import crash_at, crashes
from tests.scenes import scenes

def nothing(module, folder, server):
    pass

def check(before, after=nothing, **others):
    return SimpleNamespace(__name__="check", before=before, after=after, **others)

def refused(error, text, call):
    try:
        call()
    except error as found:
        assert text in str(found), found
    else:
        raise AssertionError(f"{text!r} was not refused")
"""


def test_each_call_that_changes_the_folder_is_seen() -> None:
    run_python(
        START
        + """
def before(module, folder, server):
    (folder / "deep").mkdir()
    with open(folder / "a", "wb") as file:
        file.write(b"1")
        file.write(b"2")
        file.flush()
        os.fsync(file.fileno())
    (folder / "a").write_text("3")
    with open(folder / "a", "a") as file:
        file.write("4")
    os.truncate(folder / "a", 1)
    os.link(folder / "a", folder / "b")
    Path(folder / "b").replace(folder / "c")
    rename_exclusively(str(folder / "c"), str(folder / "deep/c"))
    os.close(os.open(folder / ("0" * 16), os.O_CREAT | os.O_WRONLY))
    (folder / ("0" * 16)).unlink()
    os.remove(folder / "deep/c")
    os.listdir(folder / "deep")
    (folder / "deep").rmdir()
    server.append("{done}")

run = crash_at(-1, None, check(before))
assert [call.words for call in run.calls] == [
    "make the directory deep", "create a", "write to a", "fsync a",
    "empty a", "write to a", "write to a", "set the length of a", "link a → b", "rename b → c",
    "rename c → deep/c, overwriting nothing", "create …", "unlink …", "unlink deep/c",
    "list deep", "remove the directory deep", "the server receives '{done}'",
]
assert [call.words for call in run.calls if not call.changes] == ["list deep"]
assert run.calls[6].files == {"a": "'34'"}
assert run.calls[-1].server == ["{done}"]
assert not run.died
"""
    )


def test_what_changes_nothing_or_is_elsewhere_is_no_step() -> None:
    run_python(
        START
        + """
def before(module, folder, server):
    (folder / "a").read_text()
    open(folder / "a", "ab").close()
    os.close(os.open(folder / "a", os.O_RDWR | os.O_CREAT))
    (folder.parent / "elsewhere").write_text("x")
    (folder.parent / "elsewhere").rename(folder.parent / "there")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(folder / "none")
    with contextlib.suppress(FileExistsError):
        rename_exclusively(str(folder / "a"), str(folder / "b"))

def given(folder):
    (folder / "a").touch()
    (folder / "b").touch()

run = crash_at(-1, None, check(before, given=given))
assert run.files == {"a": "''", "b": "''"}
assert run.calls == [], run.calls
"""
    )


def test_a_process_ends_before_the_first_change_and_after_each() -> None:
    run_python(
        START
        + """
def before(module, folder, server):
    server.append("one")
    (folder / "two").touch()
    os.listdir(folder)
    (folder / "two").rename(folder / "three")

def after(module, folder, server):
    assert server or not list(folder.iterdir()), "it has not begun"
    raise ValueError(f"{server} {os.listdir(folder)}")

def between(folder):
    '''others add a file'''
    (folder / "other").touch()
    (folder / "other").unlink()

runs = [*crashes(None, check(before, after, between=between))]
assert [(run.died, run.failure) for run in runs] == [
    (True, "ValueError: [] []"),
    (True, "ValueError: ['one'] []"),
    (True, "ValueError: ['one'] ['two']"),
    (True, "ValueError: ['one'] ['three']"),
    (False, "ValueError: ['one'] ['three']"),
]
told = {call.words for run in runs for call in run.calls if call.by == "between"}
assert told == {"others add a file"}
"""
    )


def test_what_it_cannot_run_is_refused() -> None:
    run_python(
        START
        + """
def fails(module, folder, server):
    raise OSError("no space left")

def hangs(module, folder, server):
    while True:
        pass

refused(AssertionError, "before fails by itself: OSError: no space left",
        lambda: crash_at(-1, None, check(fails)))
crash_points._PATIENCE = 1
assert crash_at(0, None, check(nothing, hangs)).failure == "hang"
crash_points.sys.platform = "darwin"
refused(RuntimeError, "recorded on Linux", lambda: next(crashes(None, check(nothing))))
"""
    )


def test_a_scene_that_shows_nothing_is_refused() -> None:
    run_python(
        START
        + """
scene = scenes()["async_pending_queue-half"]
refused(AssertionError, "no crash point loses",
        lambda: crash_recording.record(replace(scene, edits=())))
told = {"thread": "P1", "line": "rename the moon", "text": "It does not."}
refused(ValueError, "rename the moon",
        lambda: crash_recording.record(replace(scene, story=(told,))))
"""
    )
