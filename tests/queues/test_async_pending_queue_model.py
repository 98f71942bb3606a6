"""AsyncPendingQueue dies at each step, and by SIGKILL; and against a plain model of its files.

What the deaths do and what is checked after each stands in tests/queues/pending_queue_crashes.py.
"""

import asyncio
import itertools
import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reference_impl.queues import async_pending_queue
from tests.kit.process import run_python
from tests.kit.twins import twin
from tests.queues.pending_queue_crashes import PlainWatch, drop, files

FILE = "queues/async_pending_queue.py"
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the owners are forked")
HARNESS = """
from reference_impl.queues import async_pending_queue as ours
from tests.queues.pending_queue_crashes import crash_everywhere, kill_at_random
from tests.kit.twins import twin
"""


@forks
@pytest.mark.guarantee("PQ-1", "PQ-4")
def test_a_death_at_any_step_loses_nothing() -> None:
    """Before and after each rename, replace, link, unlink, fsync, truncate and write."""
    print(run_python(f"{HARNESS}\ncrash_everywhere(ours)", deadline=280).stdout)


@forks
@pytest.mark.stress
@pytest.mark.timeout(1200)
@pytest.mark.guarantee("PQ-1", "PQ-4")
def test_a_death_at_any_step_and_another_while_recovering_lose_nothing() -> None:
    print(run_python(f"{HARNESS}\ncrash_everywhere(ours, second=1)", deadline=1100).stdout)


@forks
@pytest.mark.guarantee("PQ-1", "PQ-2")
def test_busy_owners_are_killed_again_and_again() -> None:
    print(run_python(f"{HARNESS}\nkill_at_random(ours, 120)").stdout)


@forks
@pytest.mark.stress
@pytest.mark.timeout(1200)
@pytest.mark.guarantee("PQ-1", "PQ-2")
@pytest.mark.parametrize("seed", range(1, 4))
def test_busy_owners_are_killed_hundreds_of_times(seed: int) -> None:
    print(run_python(f"{HARNESS}\nkill_at_random(ours, 300, {seed})", deadline=1100).stdout)


LINK = 'target.hardlink_to(self._path(name, "processing"))'
READ = 'data = self._path(name, "processing").read_bytes()'
COUNT = "        attempt = self._attempts(name) + 1\n"
CLAIM = "            queued.rename(processing)\n"
EARLY = "        queued.rename(processing)\n"


@forks
@pytest.mark.twin("PQ-1", "PQ-4")
@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (
            [
                (
                    LINK,
                    f'{READ}; self._path(name, "processing").unlink(); target.write_bytes(data)',
                )
            ],
            "lost {",
        ),
        ([(LINK, f"{READ}; target.write_bytes(data)")], "became two"),
        ([("if found.st_nlink > 1:", "if False:")], "ended otherwise"),
        ([("        for name in orphans:\n", "        for name in []:\n")], "are left alone"),
        ([(CLAIM, "            pass\n"), (COUNT, COUNT + EARLY)], "forgot attempts"),
        (
            [("                queued.hardlink_to(temporary)", "                queued.touch()")],
            "[('s.completed', '')]",
        ),
        (
            [("                    self._explain(stem, error)", "                    pass")],
            "says not why",
        ),
    ],
    ids=[
        "unlink before link",
        "a copy for a link",
        "two names are two files",
        "orphans are left",
        "the attempt is counted after the claim",
        "submitted before it is written",
        "given up without saying why",
    ],
)
def test_a_step_out_of_order_is_caught(faults: list[tuple[str, str]], message: str) -> None:
    twin(FILE, *faults)  # so that a fault without a place is an error here
    code = f"{HARNESS}\ncrash_everywhere(twin({FILE!r}, *{faults!r}))"
    failed = run_python(code, deadline=280, expect=1)
    assert message in failed.stderr, failed.stderr[-2000:]


def machine(module: ModuleType) -> type[RuleBasedStateMachine]:
    """The state machine for this module, which may be a broken twin."""

    class PendingQueueMachine(RuleBasedStateMachine):
        """Files are known by their contents; the model has their state and their attempts."""

        @initialize(most=st.integers(1, 3))
        def start(self, most: int) -> None:
            self.folder = tempfile.TemporaryDirectory()
            self.directory = Path(self.folder.name, "queue")
            self.directory.mkdir()
            self.loops = asyncio.Runner()
            self.most = most
            self.ends: dict[str, str] = {}  # of the contents that have come to one
            self.attempts: dict[str, int] = {}  # of the others
            self.uploads: dict[str, asyncio.Future[None]] = {}  # of those being uploaded
            self.serial = itertools.count()
            self.queue: Any = None

        def teardown(self) -> None:
            if hasattr(self, "folder"):
                if self.queue is not None:
                    self.stop()
                self.loops.close()
                self.folder.cleanup()

        async def upload(self, path: Path) -> None:
            content = path.read_text()
            assert content not in self.uploads, f"{content} is uploaded twice at once"
            self.attempts[content] += 1
            self.uploads[content] = asyncio.get_running_loop().create_future()
            try:
                await self.uploads[content]
            finally:
                del self.uploads[content]

        def turns(self, number: int = 30) -> None:
            async def turn() -> None:
                for _ in range(number):
                    await asyncio.sleep(0)

            self.loops.run(turn())

        @precondition(lambda self: self.queue is None)
        @rule()
        def run(self) -> None:
            self.queue = module.AsyncPendingQueue(
                self.directory,
                self.upload,
                max_concurrency=100,
                max_attempts=self.most,
                backoff=lambda failures: 0.0,
            )
            for content, attempts in list(self.attempts.items()):
                if attempts == self.most:  # it was being uploaded when its owner died
                    self.end(content, "error")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, "DirectoryWatch", PlainWatch)
                self.loops.run(self.queue.__aenter__())
            self.turns()

        def end(self, content: str, state: str) -> None:
            del self.attempts[content]
            self.ends[content] = state

        @rule(name=st.sampled_from(["a", "b\n", "a-1"]))
        def drop(self, name: str) -> None:
            if not os.path.lexists(self.directory / f"{name}.queued"):
                content = f"content {next(self.serial)}"
                self.attempts[content] = 0
                drop(self.directory, name, content.encode())
                if self.queue is not None:
                    PlainWatch.last.announce(f"{name}.queued")
                    self.turns()

        @precondition(lambda self: bool(self.uploads))
        @rule(data=st.data(), fails=st.booleans())
        def finish(self, data: st.DataObject, fails: bool) -> None:
            content = data.draw(st.sampled_from(sorted(self.uploads)))
            if not fails:
                self.uploads[content].set_result(None)
                self.end(content, "completed")
            else:
                self.uploads[content].set_exception(ConnectionError(content))
                if self.attempts[content] == self.most:
                    self.end(content, "error")
            self.turns()

        @precondition(lambda self: self.queue is not None)
        @rule()
        def announce_again(self) -> None:
            for name in files(self.directory):
                if name.endswith(".queued"):
                    PlainWatch.last.announce(name)
            self.turns()

        @precondition(lambda self: self.queue is not None)
        @rule()
        def stop(self) -> None:
            for content in self.uploads:
                self.attempts[content] -= 1
            self.loops.run(self.queue.stop(0))
            self.loops.run(self.queue.__aexit__())
            self.queue = None

        @precondition(lambda self: self.queue is not None)
        @rule()
        def die(self) -> None:
            """As far as the files can tell."""
            self.queue._put_back = lambda name, attempt: None
            self.loops.run(self.queue.stop(0))
            self.queue = None

        @precondition(lambda self: bool(self.ends))
        @rule()
        def clean_up(self) -> None:
            for path in self.directory.glob("*.completed"):
                path.unlink()
            self.ends = {c: state for c, state in self.ends.items() if state != "completed"}

        @invariant()
        def the_directory_says_what_the_model_says(self) -> None:
            found: dict[str, str] = {}
            for name, data in files(self.directory).items():
                stem, _, state = name.rpartition(".")
                content = data.decode()
                assert content not in found, f"{content} is there twice"
                found[content] = state
                if content in self.attempts:
                    sidecar = self.directory / f".{stem}.attempts"
                    # A newer file of its name: the attempts belong to the one before it.
                    waits = state == "queued" and f"{stem}.processing" in files(self.directory)
                    counted = sidecar.stat().st_size if sidecar.exists() and not waits else 0
                    assert counted == self.attempts[content], f"{content} has {counted} attempts"
                    if self.queue is not None and not waits:
                        assert content in self.uploads, f"{content} is left alone"
            assert {c: s for c, s in found.items() if c not in self.attempts} == self.ends
            assert self.attempts.keys() <= found.keys()
            explained = {path.name[:-5] for path in self.directory.glob("*.error.json")}
            assert explained == {name for name in files(self.directory) if ".error" in name}

    return PendingQueueMachine


TestAsyncPendingQueue = pytest.mark.guarantee("PQ-1", "PQ-2", "PQ-4", "PQ-5")(
    machine(async_pending_queue).TestCase
)


@pytest.mark.twin("PQ-1", "PQ-2", "PQ-4", "PQ-5")
@pytest.mark.parametrize(
    "fault",
    [
        (
            "if name not in self._running:  # else it is looked for when that has ended",
            "if True:",
        ),
        ("            os.truncate(self._sidecar(name), attempt - 1)\n", ""),
        ("            self._sidecar(name).replace(self._sidecar(stem))", "            pass"),
        ("busy = stem != name and", "busy = False and"),
        ("if name not in self._waiting and any", "if False and any"),
    ],
    ids=[
        "a running name is started again",
        "a cancelled attempt counts",
        "attempts stay with the old name",
        "a suffix that is in use",
        "a file that came meanwhile is left",
    ],
)
def test_the_model_catches_faults(fault: tuple[str, str]) -> None:
    quick = settings(
        database=None, deadline=None, phases=[Phase.generate], max_examples=300, derandomize=True
    )
    broken = machine(twin(FILE, fault))
    with pytest.raises(AssertionError):
        run_state_machine_as_test(broken, settings=quick)
