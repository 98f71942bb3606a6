"""What a check can find, and the tools to find it: threads with deadlines, and exploration."""

import importlib
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class DoesNotHold(AssertionError):
    """What was expected did not happen; the message says in words what was seen."""


class NotOffered(Exception):
    """The library has no such thing; the message says which."""


class NotExplored(Exception):
    """It cannot be examined here; the message says why."""


@dataclass(frozen=True)
class Holds:
    """How it was shown: "every interleaving", "many runs" or "one run"; and what was seen."""

    how: str
    seen: str


def once(seen: str) -> Holds:
    """It was seen in one run, whose course the check decides."""
    return Holds("one run", seen)


def sampled(runs: int, seen: str) -> Holds:
    """It was seen in so many runs of real threads, which may have missed a schedule."""
    return Holds("many runs", f"{seen}; {runs} runs of real threads")


def together(*calls: Callable[[], object], deadline: float = 5.0) -> list[Any]:
    """Each call in a thread of its own; what they return or raise, in order.

    Raises DoesNotHold, naming how many hang, if one has not ended after `deadline` seconds.
    """
    results, hanging = settle(*calls, deadline=deadline)
    if hanging:
        raise DoesNotHold(f"{hanging} of {len(calls)} calls still wait after {deadline:g} s")
    return results


def settle(*calls: Callable[[], object], deadline: float = 5.0) -> tuple[list[Any], int]:
    """As `together`, but returns how many calls did not end beside the results."""
    results: list[Any] = [None] * len(calls)

    def go(place: int, call: Callable[[], object]) -> None:
        try:
            results[place] = call()
        except BaseException as error:
            results[place] = error

    threads = [threading.Thread(target=go, args=each, daemon=True) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + deadline
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return results, sum(thread.is_alive() for thread in threads)


_REAL = {
    name: getattr(threading, name)
    for name in ("Lock", "RLock", "Condition", "Event", "Semaphore", "BoundedSemaphore")
}


@contextmanager
def _modelled(packages: Sequence[str]) -> Iterator[None]:
    """What a package took by `from threading import Lock` is the explorer's for the block."""
    import interleave_test

    undo = []
    for name, module in list(sys.modules.items()):
        if not any(name == each or name.startswith(f"{each}.") for each in packages):
            continue
        for attribute, value in list(vars(module).items()):
            for known, real in _REAL.items():
                if value is real:
                    undo.append((module, attribute, value))
                    setattr(module, attribute, getattr(interleave_test, known))
    try:
        yield
    finally:
        for module, attribute, value in undo:
            setattr(module, attribute, value)


def _files(package: str) -> str:
    """Its folder, or its one file."""
    file = Path(str(importlib.import_module(package).__file__))
    return str(file.parent if file.name == "__init__.py" else file)


def explore(
    model: Callable[[], None],
    packages: Sequence[str],
    *,
    preemptions: int = 1,
    granularity: str = "opcode",
    limit: int = 20_000,
) -> Holds:
    """Run the model under each schedule of its threads, up to so many preemptions.

    The model starts its threads by `spawned`. A schedule that breaks it raises DoesNotHold with
    its number and its last steps. Warm up whatever imports or initializes itself lazily before.
    """
    import interleave_test

    with _modelled(packages):
        result = interleave_test.explore(
            model,
            strategy="dfs",
            max_preemptions=preemptions,
            granularity=granularity,
            iterations=limit,
            include=[_files(each) for each in packages],
            raise_on_failure=False,
            seed=0,
            timeout=20,
        )
    failure = result.failure
    if failure is not None:
        error = failure.exception
        text = str(error or failure.details or failure.kind).strip().splitlines()[0]
        steps = " → ".join(f"T{step.chosen} {step.location}" for step in failure.steps[-6:])
        raise DoesNotHold(f"schedule {failure.iteration + 1}: {text} ({steps})")
    bound = f"{preemptions} preemption{'s' * (preemptions != 1)} by {granularity}"
    if not result.exhausted:
        return Holds("many runs", f"{result.schedules_run:,} schedules, not all of {bound}")
    return Holds("every interleaving", f"{result.schedules_run:,} schedules, all of {bound}")


def spawned(*calls: Callable[[], Any]) -> list[Any]:
    """In a model: each call in a scheduled thread; what they return or raise, in order."""
    import interleave_test

    def go(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            return error

    threads = [interleave_test.spawn(go, call) for call in calls]
    for thread in threads:
        thread.join()
    return [thread.result() for thread in threads]


def raise_first(results: Sequence[Any]) -> None:
    """The first exception among what calls returned or raised is a failure of the check."""
    for each in results:
        if isinstance(each, BaseException):
            raise DoesNotHold(f"a call raised {type(each).__name__}: {each}") from each


def chance(seed: int) -> random.Random:
    """Numbers that are the same in each run."""
    return random.Random(seed)
