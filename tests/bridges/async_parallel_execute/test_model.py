"""async_parallel_execute against a plain loop, for whatever keys, operations and settings."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impl.bridges import async_parallel_execute as module
from reference_impl.bridges.parallel_execute import DeadlineExceeded
from tests.bridges.async_parallel_execute import faults
from tests.bridges.async_parallel_execute.helpers import (
    COMPONENT,
    forms,
    outcomes,
    stopped_clock,
)
from tests.kit.fakes import run
from tests.kit.profile import same_each_time
from tests.kit.proofs import Proof, each_twin, holding
from tests.kit.twins import Twin


@dataclass(frozen=True)
class Key:
    """What its operation gives: a value, or an error; how long it takes to draw, and to run."""

    gives: int | str | None
    takes: int
    turns: int


KEYS = st.lists(
    st.builds(Key, st.sampled_from([1, None, "error"]), st.integers(0, 2), st.integers(0, 3)),
    max_size=30,
)


def outcome(key: Key) -> Any:
    return LookupError if key.gives == "error" else key.gives


def plain_loop(keys: list[Key], deadline: float, fail_fast: bool) -> list[Any]:
    """What each key gives where operations run one after the other, and drawing takes the time."""
    now, found = 0, list[Any]()
    refusal: type[Exception] | None = None
    for key in keys:
        now += key.takes
        if refusal is None and now >= deadline:
            refusal = DeadlineExceeded
        found.append(outcome(key) if refusal is None else refusal)
        if refusal is None and fail_fast and key.gives == "error":
            refusal = CancelledError
    return found


USUAL = settings()
SEARCH = same_each_time(300)


def check_like_a_plain_loop(m: ModuleType, how: settings = USUAL) -> None:
    @how
    @given(
        keys=KEYS,
        limit=st.integers(1, 4),
        deadline=st.integers(0, 30),
        fail_fast=st.booleans(),
        number=st.integers(0, 1),
        is_async=st.booleans(),
    )
    def check(
        keys: list[Key], limit: int, deadline: int, fail_fast: bool, number: int, is_async: bool
    ) -> None:
        told, began = list[Any](), list[Key]()
        running = most = 0

        async def operation(key: Key) -> Any:
            nonlocal running, most
            began.append(key)
            running += 1
            most = max(most, running)
            try:
                for _ in range(key.turns):
                    await asyncio.sleep(0)
            finally:
                running -= 1
            if key.gives == "error":
                raise LookupError
            return key.gives

        async def main() -> list[Any]:
            clock = stopped_clock()

            def drawn() -> Iterator[Key]:
                for key in keys:
                    clock.tick(key.takes / 128)
                    yield key

            async def drawn_async() -> AsyncIterator[Key]:
                for key in drawn():
                    await asyncio.sleep(0)
                    yield key

            results = await forms(m)[number](
                drawn_async() if is_async else drawn(),
                operation,
                limit,
                timeout=deadline / 128,
                fail_fast=fail_fast,
                on_progress=lambda *t: told.append(t),
            )
            assert [result.key for result in results] == keys
            assert len(asyncio.all_tasks()) == 1
            return outcomes(results)

        found = run(main())
        assert most <= limit
        assert running == 0
        assert told == [(n, None) for n in range(1, len(told) + 1)]
        if limit == 1:
            assert found == plain_loop(keys, deadline, fail_fast), "not as one after the other"
        refused = False
        for key, came in zip(keys, found, strict=True):
            assert came in (outcome(key), DeadlineExceeded, CancelledError)
            refused = refused or came in (DeadlineExceeded, CancelledError)
        assert refused or len(told) == len(began) == len(keys)

    check()


PROOFS = [
    Proof(
        "AP-1",
        check_like_a_plain_loop,
        [
            Twin(
                "takes the keys in reverse",
                faults.reverses_the_keys,
                ("AssertionError: [result.key for result in results] == keys", "TypeError: async"),
            ),
            Twin(
                "ignores fail_fast",
                faults.ignores_fail_fast,
                "AssertionError: not as one after the other",
            ),
            Twin(
                "tells of no progress",
                faults.is_told_of_no_progress,
                "AssertionError: refused or len(told)",
            ),
        ],
    ),
]

test_model = holding(PROOFS, module)


@each_twin(PROOFS)
def test_a_broken_twin_differs(proof: Proof, twin: Twin) -> None:
    proof.must_fail(twin, COMPONENT, SEARCH)
