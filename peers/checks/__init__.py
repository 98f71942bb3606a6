"""What a reader may expect of a library: one function for each expectation, a file for each family.

A check takes a row, which is a library as its documentation says to use it. It returns how it
was shown, or raises DoesNotHold, NotOffered or NotExplored.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from peers.outcomes import Holds


@dataclass(frozen=True)
class Check:
    """One expectation."""

    name: str  # of its function
    question: str  # "One load for many callers": at most six words, a column's header
    expectation: str  # the docstring's first line, what a user expects
    why: str  # the rest of the docstring: why it matters, in a sentence
    run: Callable[[Any], Holds]
    # Nobody needs to promise it, as nobody would do without: such a failure can be red.
    plain: bool
    uses: tuple[str, ...]  # of the row's functions, those that the reproduction needs
    reproduction: str  # code below them, which raises AssertionError where it does not hold
    reports: Mapping[str, str]  # library → where the fault was reported in public
    deadline: float  # seconds for the cell's process
    clock: bool  # whether it sets the wall clock (libfaketime)


@dataclass
class Family:
    """The checks of one kind of library."""

    name: str  # "caches"
    title: str
    checks: dict[str, Check] = field(default_factory=dict)

    def check(
        self,
        question: str,
        *,
        plain: bool = False,
        uses: tuple[str, ...] = (),
        reproduction: str = "",
        reports: Mapping[str, str] | None = None,
        deadline: float = 60.0,
        clock: bool = False,
    ) -> Callable[[Callable[[Any], Holds]], Callable[[Any], Holds]]:
        """Register the function, whose docstring says what is expected and why it matters."""

        def register(function: Callable[[Any], Holds]) -> Callable[[Any], Holds]:
            expectation, _, why = (function.__doc__ or "").strip().partition("\n")
            assert why.strip(), f"{function.__name__} says in words what is expected, and why"
            self.checks[function.__name__] = Check(
                name=function.__name__,
                question=question,
                expectation=expectation,
                why=" ".join(why.split()),
                run=function,
                plain=plain,
                uses=uses,
                reproduction=reproduction.strip("\n"),
                reports=reports or {},
                deadline=deadline,
                clock=clock,
            )
            return function

        return register
