"""AsyncConverterPool against a plain account of the files that were dropped."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import reference_impl.queues.async_converter_pool as ours
from tests.kit.profile import budget
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Twin
from tests.queues.async_converter_pool import faults
from tests.queues.async_converter_pool.helpers import COMPONENT, Loop, until

NAMES = ["a.csv", "b.csv", "b-1.csv", "report"]


class Accounts(RuleBasedStateMachine):
    """Each file has a text of its own, which says where it has to end."""

    module: ModuleType = ours

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=Loop)
        self.root = Path(tempfile.mkdtemp())
        self.box, self.staged = self.root / "in", self.root / "staged"
        self.box.mkdir()
        self.number = 0
        self.present: dict[str, str] = {}  # what may be in the box: text by name
        self.ended: list[str] = []  # texts that have to be in done or error
        self.overwritten: set[str] = set()  # texts that may be there
        self.submitted: list[str] = []
        self.pool: Any = None
        self.run(self.start())

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.runner.run(work)

    @staticmethod
    def convert(path: Path) -> str:
        text = path.read_text()
        if text.startswith("bad"):
            raise ValueError(text)
        return text

    async def submit(self, text: str) -> None:
        if text.startswith("refused"):
            raise ConnectionError(text)
        self.submitted.append(text)

    async def start(self) -> None:
        converters = [
            self.module.Converter("tables", self.box, ("*.csv",), self.convert, priority=1),
            self.module.Converter("others", self.box, ("report",), self.convert),
        ]
        self.pool = self.module.AsyncConverterPool(converters, self.submit, max_concurrency=2)
        await self.pool.__aenter__()

    @rule(name=st.sampled_from(NAMES), kind=st.sampled_from(["good", "bad", "refused"]))
    def drop(self, name: str, kind: str) -> None:
        """It may replace one that waits, or is being converted: both are right."""
        self.number += 1
        text = f"{kind} {'x' * self.number}"
        if name in self.present:
            self.overwritten.add(self.present[name])
        self.present[name] = text
        self.staged.write_text(text)
        self.staged.rename(self.box / name)

    @rule()
    def a_turn(self) -> None:
        self.run(asyncio.sleep(0))

    @rule()
    def finish(self) -> None:
        self.run(until(lambda: not any(path.is_file() for path in self.box.iterdir())))
        self.ended += self.present.values()
        self.present.clear()

    @rule(name=st.sampled_from(NAMES))
    @precondition(lambda self: self.ended)
    def come_back(self, name: str) -> None:
        """The same file is moved back, as it is, by hand."""
        self.finish()
        file = self.box / "done" / name
        if file.exists():
            self.present[name] = text = file.read_text()
            file.rename(self.box / name)
            if text in self.ended:
                self.ended.remove(text)
            self.overwritten.discard(text)

    @rule()
    def restart(self) -> None:
        async def again() -> None:
            await self.pool.__aexit__(None, None, None)
            await self.start()

        self.run(again())

    @invariant()
    def nothing_is_lost_or_where_it_should_not_be(self) -> None:
        self.balance()

    def balance(self) -> None:
        done, error = (self.texts(folder) for folder in ("done", "error"))
        assert all(text.startswith("good") for text in done), "a file that failed is done"
        assert not any(text.startswith("good") for text in error), "a good file is in error"
        assert len(set(done + error)) == len(done + error), "a file was doubled"
        assert set(self.ended) <= set(done + error), "a file was lost"
        assert set(done + error) <= {*self.ended, *self.overwritten, *self.present.values()}
        assert set(done) <= set(self.submitted), "a file is done that was never submitted"
        reasons = list((self.box / "error").glob("*.error.json"))
        assert len(reasons) == len(error)

    def texts(self, folder: str) -> list[str]:
        files = (self.box / folder).iterdir()
        return [file.read_text() for file in files if file.suffix != ".json"]

    def teardown(self) -> None:
        try:
            self.run(self.pool.__aexit__(None, None, None))
        finally:
            self.runner.close()
            shutil.rmtree(self.root)


@pytest.mark.guarantee("CP-1")
def test_accounts_balance() -> None:
    limits = settings(max_examples=budget(40, 150), stateful_step_count=20)
    run_state_machine_as_test(Accounts, settings=limits)


def check_the_same_steps(module: ModuleType) -> None:
    """What random steps come upon sooner or later, in a fixed order for the twins."""
    accounts: Accounts = type("Accounts", (Accounts,), {"module": module})()
    try:
        for kind in ("good", "bad", "refused"):
            for _ in range(2):  # the second meets the first in done or error
                accounts.drop("a.csv", kind)
                accounts.finish()
                accounts.balance()
        accounts.drop("b.csv", "good")
        accounts.restart()
        accounts.finish()
        accounts.come_back("b.csv")
        accounts.finish()
        accounts.balance()
    finally:
        accounts.teardown()


PROOFS = [
    Proof(
        "CP-1",
        check_the_same_steps,
        [
            Twin(
                "overwrites a name that is taken",
                faults.overwrites(),
                "AssertionError: a file was lost",
            ),
            Twin(
                "takes a refusal for a submission",
                faults.swallows_refusals(),
                "AssertionError: a file that failed is done",
            ),
        ],
    ),
]


@each_proof(PROOFS)
def test_accounts_balance_after_fixed_steps(proof: Proof) -> None:
    proof.hold(ours)


@each_twin(PROOFS)
def test_accounts_that_do_not_balance_are_caught(proof: Proof, twin: Twin) -> None:
    proof.must_fail(twin, COMPONENT)
