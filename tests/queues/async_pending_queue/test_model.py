"""AsyncPendingQueue against a plain model of its files."""

import asyncio
import itertools
import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
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
from tests.kit.fakes import turns
from tests.kit.profile import budget, same_each_time
from tests.kit.proofs import each_twin_of
from tests.kit.twins import Twin, build, must_fail
from tests.queues.async_pending_queue import faults
from tests.queues.async_pending_queue.disk import drop, files
from tests.queues.async_pending_queue.helpers import COMPONENT, MEMORY
from tests.queues.async_pending_queue.watch import PlainWatch


def machine(module: ModuleType) -> type[RuleBasedStateMachine]:
    """The state machine for this module, which may be a broken twin."""

    class PendingQueueMachine(RuleBasedStateMachine):
        """Files are known by their contents; the model has their state and their attempts."""

        @initialize(most=st.integers(1, 3))
        def start(self, most: int) -> None:
            self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
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

        def turns(self) -> None:
            self.loops.run(turns())

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
            away = self.directory.rename(self.directory.with_name("away"))
            self.loops.run(self.queue.stop(0))
            away.rename(self.directory)
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
                    if state == "processing":
                        counted = max(1, counted)  # which its name says
                    assert counted == self.attempts[content], f"{content} has {counted} attempts"
                    if self.queue is not None and not waits:
                        assert content in self.uploads, f"{content} is left alone"
            assert {c: s for c, s in found.items() if c not in self.attempts} == self.ends
            assert self.attempts.keys() <= found.keys()
            explained = {path.name[:-5] for path in self.directory.glob("*.error.json")}
            assert explained == {name for name in files(self.directory) if ".error" in name}

    return PendingQueueMachine


TestAsyncPendingQueue = pytest.mark.guarantee("PQ-4")(machine(async_pending_queue).TestCase)

MISCOUNTED = "AssertionError: attempts"
LEFT_ALONE = "AssertionError: is left alone"
TWINS = [
    Twin("starts a name again that is being uploaded", faults.STARTS_AGAIN, MISCOUNTED),
    Twin("counts a cancelled attempt", faults.COUNTS_CANCELLED, MISCOUNTED),
    Twin("leaves attempts with the old name", faults.LEAVES_ATTEMPTS, (MISCOUNTED, LEFT_ALONE)),
    Twin("gives a suffix that is in use", faults.SEES_NO_SUFFIX_IN_USE, (MISCOUNTED, LEFT_ALONE)),
    Twin(
        "overlooks a file that came meanwhile", faults.SEES_NO_NEWER_FILE, (MISCOUNTED, LEFT_ALONE)
    ),
]


@each_twin_of("PQ-4", *TWINS)
def test_the_model_catches_faults(twin: Twin) -> None:
    quick = same_each_time(budget(100, 300), deadline=None)
    broken = machine(build(COMPONENT, twin.fault))
    must_fail(twin, lambda: run_state_machine_as_test(broken, settings=quick))
