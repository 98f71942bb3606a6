"""Proofs as tables: a check, the guarantee that it proves, and the twins that it must catch."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from tests.kit.explore import Interleavings
from tests.kit.fakes import run
from tests.kit.twins import Twin, build, must_fail


@dataclass
class Proof:
    """One row: the check holds for the component, and fails for each twin as that states.

    The check takes the module that it examines, and what the test gives it besides (a folder);
    it may be a coroutine function, which then runs on a loop of its own. Where it is explored,
    `preemptions` and `granularity` say how far; without a granularity the profile says it
    (line, or opcode).
    """

    guarantee: str
    check: Callable[..., object]
    twins: list[Twin] = field(default_factory=list)
    preemptions: int = 1
    granularity: str | None = None

    @property
    def name(self) -> str:
        """The check's name in words that pytest can print."""
        return getattr(self.check, "__name__", "check").removeprefix("check_")

    @property
    def search(self) -> dict[str, Any]:
        """How deep to look, as Interleavings takes it."""
        return {"granularity": self.granularity, "preemptions": self.preemptions}

    def explore(self, module: ModuleType, interleavings: Interleavings) -> None:
        """Every schedule of the check on the component."""
        interleavings.prove(lambda: self.check(module), **self.search)

    def catch(self, twin: Twin, component: ModuleType | str, interleavings: Interleavings) -> None:
        """The same search finds the twin's fault."""
        broken = build(component, twin.fault)
        interleavings.catch(lambda: self.check(broken), twin=twin, **self.search)

    def hold(self, module: ModuleType, *arguments: Any) -> None:
        """The check, run once, holds."""
        _run(self.check(module, *arguments))

    def must_fail(self, twin: Twin, component: ModuleType | str, *arguments: Any) -> None:
        """The check, run once on the twin, fails as the twin says."""
        broken = build(component, twin.fault)
        bounded = _bounded if twin.fails == "hang" else _run
        must_fail(twin, lambda: bounded(self.check(broken, *arguments)))


# Seconds after which a coroutine check of a twin that should hang is taken to hang. It can
# only let a twin pass wrongly, never fail wrongly.
HANG = 0.5


def _run(result: object) -> None:
    if inspect.iscoroutine(result):
        run(result)


def _bounded(result: object) -> None:
    """The same for a check that should hang: in a task, which the end of its loop cancels.

    All other tasks are cancelled with it, so that a hang in its clean-up ends, too.
    """

    async def main(check: Coroutine[Any, Any, object]) -> None:
        task = asyncio.ensure_future(check)
        done, _ = await asyncio.wait([task], timeout=HANG)
        if not done:
            raise Hang
        await task

    if inspect.iscoroutine(result):
        run(main(result))


class Hang(Exception):
    """A check that did not end; a twin states it as "hang"."""


def each_proof(proofs: Iterable[Proof]) -> pytest.MarkDecorator:
    """Give the test each `proof` in turn, marked with its guarantee."""
    return pytest.mark.parametrize(
        "proof",
        [
            pytest.param(proof, id=proof.name, marks=pytest.mark.guarantee(proof.guarantee))
            for proof in proofs
        ],
    )


def each_twin(proofs: Iterable[Proof]) -> pytest.MarkDecorator:
    """Give the test each `proof` with each `twin` of it."""
    return pytest.mark.parametrize(
        ("proof", "twin"),
        [
            pytest.param(
                proof,
                twin,
                id=f"{proof.name}-{twin.name}",
                marks=pytest.mark.twin(proof.guarantee, fault=twin.name, fails=twin.ends),
            )
            for proof in proofs
            for twin in proof.twins
        ],
    )


def each_twin_of(guarantee: str, *twins: Twin) -> pytest.MarkDecorator:
    """Give the test each `twin` in turn: for checks that are in no table."""
    return pytest.mark.parametrize(
        "twin",
        [
            pytest.param(
                twin,
                id=twin.name,
                marks=pytest.mark.twin(guarantee, fault=twin.name, fails=twin.ends),
            )
            for twin in twins
        ],
    )


Test = Callable[..., None]


def holding(proofs: Iterable[Proof], module: ModuleType, *given: str) -> Test:
    """A test, to be named in the file, that each proof holds; its check is `given` fixtures."""

    @pytest.mark.usefixtures("request", *given)
    @each_proof(proofs)
    def holds(proof: Proof, request: pytest.FixtureRequest) -> None:
        proof.hold(module, *map(request.getfixturevalue, given))

    return holds


def failing(proofs: Iterable[Proof], component: ModuleType | str, *given: str) -> Test:
    """The same for the twins: each proof fails for each of its own."""

    @pytest.mark.usefixtures("request", *given)
    @each_twin(proofs)
    def fails(proof: Proof, twin: Twin, request: pytest.FixtureRequest) -> None:
        proof.must_fail(twin, component, *map(request.getfixturevalue, given))

    return fails


def explored(proofs: Iterable[Proof], module: ModuleType) -> Test:
    """A test, to be named in the file, that each proof holds in every schedule of its threads."""

    @each_proof(proofs)
    def holds(proof: Proof, interleavings: Interleavings) -> None:
        proof.explore(module, interleavings)

    return holds


def caught(proofs: Iterable[Proof], component: ModuleType | str) -> Test:
    """The same for the twins: the search finds the fault of each."""

    @each_twin(proofs)
    def fails(proof: Proof, twin: Twin, interleavings: Interleavings) -> None:
        proof.catch(twin, component, interleavings)

    return fails
