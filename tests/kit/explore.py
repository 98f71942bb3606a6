"""Systematic exploration of thread interleavings and asyncio schedules.

Both classes say three things of a model: `prove` (exhausted up to a bound, and clean),
`sample` (so many schedules drawn, and clean), `catch` (a broken twin's fault is found).
What they explored goes to the evidence of the test that asked. Where a model does not say by
what its threads are switched, it is by line in the quick profile and by opcode in the full one.
The quick profile draws some schedules where there are many, the brief one a few of each model.
"""

import linecache
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.kit.copies import explored_paths
from tests.kit.profile import budget, is_brief, most_schedules
from tests.kit.twins import Twin, judge

_BRIEF = 20  # schedules
EXPLORED = pytest.StashKey[list[dict[str, Any]]]()


class NotExhausted(AssertionError):
    """The search was not at its end when its limit was: nothing was found, nor shown."""


class Explorer:
    """Writes what was explored to the evidence of the test that asked."""

    def __init__(self, item: pytest.Item) -> None:
        self._records = item.stash.setdefault(EXPLORED, [])

    def _record(self, **record: Any) -> None:
        self._records.append(record)


class Interleavings(Explorer):
    """Thread interleavings, by interleave-test's deterministic scheduler.

    A model is a function without arguments that builds its state, starts its threads
    by `interleave_test.spawn`, joins them and asserts. Only reference_impl is traced:
    the threads switch between its opcodes (or lines) and at each modelled primitive.
    """

    def prove(
        self,
        model: Callable[[], object],
        *,
        preemptions: int = 1,
        granularity: str | None = None,
        limit: int = 200_000,
    ) -> int:
        """Run every schedule with at most `preemptions`; returns how many there were.

        Of more than the profile affords (400 in quick) it draws as many.
        """
        granularity = granularity or budget("line", "opcode")
        most = _most()
        if most < limit:
            spread = _spread(preemptions)
            result = self._explore(model, strategy=spread, granularity=granularity, iterations=most)
        else:
            result = self._search(model, preemptions, granularity, limit)
        if not result.exhausted and limit <= most:
            raise NotExhausted(
                f"{limit} schedules did not exhaust {preemptions} preemptions by {granularity}: "
                "use a smaller model, a lower bound, granularity='line', or sample()"
            )
        plural = "" if preemptions == 1 else "s"
        bound = f"at most {preemptions} preemption{plural}, by {granularity}"
        which = "every interleaving" if result.exhausted else "interleavings drawn from all those"
        told = f"{which} of {self._threads} threads with {bound}"
        run, exhausted = result.schedules_run, result.exhausted
        self._record(kind="threads", exhausted=exhausted, told=told, schedules=run)
        return int(run)

    def sample(
        self,
        model: Callable[[], object],
        *,
        schedules: int,
        granularity: str | None = None,
        seed: int = 0,
    ) -> None:
        """Run `schedules` schedules drawn by PCT (random priorities, few demotions).

        The quick profile draws a fifth of them.
        """
        granularity = granularity or budget("line", "opcode")
        schedules = _drawn(schedules)
        self._explore(
            model, strategy="pct", granularity=granularity, iterations=schedules, seed=seed
        )
        told = f"interleavings of {self._threads} threads drawn by PCT, by {granularity}"
        self._record(kind="threads", exhausted=False, told=told, schedules=schedules)

    def catch(
        self,
        model: Callable[[], object],
        *,
        twin: Twin,
        preemptions: int = 1,
        granularity: str | None = None,
        limit: int = 200_000,
    ) -> Any:
        """Find the fault of a broken twin by the same search; returns the failure.

        It must be the failure that the twin states.
        """
        granularity = granularity or budget("line", "opcode")
        result = self._search(model, preemptions, granularity, limit, raise_on_failure=False)
        assert result.failure is not None, (
            f"the twin that {twin.name} survived {result.schedules_run} "
            f"schedules by {granularity}: the check proves nothing"
        )
        error = result.failure.exception
        judge(twin, error or f"{result.failure.kind}: {result.failure.details}")
        told = f"{result.failure.kind}: {_details(result.failure)}".partition("\n")[0]
        self._record(kind="caught", schedules=result.schedules_run, failure=told)
        return result.failure

    def _search(
        self, model: Callable[[], object], preemptions: int, by: str, limit: int, **options: Any
    ) -> Any:
        """Every schedule with at most so many preemptions, until a failure."""
        bounds = {"max_preemptions": preemptions, "granularity": by, "iterations": limit}
        return self._explore(model, strategy="dfs", **bounds, **options)

    def _explore(self, model: Callable[[], object], **options: Any) -> Any:
        # Neither is there on Python 3.11.
        import interleave_test  # pyright: ignore[reportMissingImports]
        from interleave_test import _scheduler  # pyright: ignore[reportMissingImports]

        self._threads = 0

        def counted() -> None:
            try:
                model()
            finally:
                scheduler: Any = _scheduler.current_scheduler()
                self._threads = max(self._threads, len(scheduler._recs))

        options.setdefault("seed", 0)
        return interleave_test.explore(counted, include=explored_paths(), **options)


class Schedules(Explorer):
    """Asyncio schedules and cancellations, by detangle's deterministic loop.

    A model is a coroutine function without arguments. `detangle.maybe_timeout` and
    `detangle.inject_cancellation` inside it make cancellation part of the search.
    """

    def prove(
        self,
        model: Callable[[], Coroutine[Any, Any, object]],
        *,
        delays: int = 1,
        limit: int = 200_000,
    ) -> int:
        """Run every schedule with at most `delays` deviations from asyncio's order.

        Of more than the profile affords (1,200 in quick) it runs the first.
        """
        import detangle

        most = _most() if is_brief() else 3 * _most()  # they take less time than those of threads
        stats = detangle.explore(
            model,
            strategy=detangle.DFS(max_delays=delays),
            runs=min(limit, most),
            database=False,
        )
        if not stats.exhausted and limit <= most:
            raise NotExhausted(f"{limit} schedules did not exhaust {delays} delays")
        plural = "" if delays == 1 else "s"
        which = "every schedule" if stats.exhausted else "the first schedules"
        told = f"{which} with at most {delays} step{plural} out of asyncio's order"
        self._record(kind="asyncio", exhausted=stats.exhausted, told=told, schedules=stats.runs)
        return int(stats.runs)

    def sample(
        self, model: Callable[[], Coroutine[Any, Any, object]], *, schedules: int, seed: int = 0
    ) -> None:
        """Run `schedules` schedules of detangle's portfolio (PCT, random walks, delays).

        The quick profile draws a fifth of them.
        """
        import detangle

        schedules = _drawn(schedules)
        detangle.explore(model, runs=schedules, seed=seed, database=False)
        told = "asyncio schedules drawn by PCT, random walks and delays"
        self._record(kind="asyncio", exhausted=False, told=told, schedules=schedules)

    def catch(
        self,
        model: Callable[[], Coroutine[Any, Any, object]],
        *,
        twin: Twin,
        schedules: int = 10_000,
        seed: int = 0,
    ) -> Any:
        """Find the fault of a broken twin; returns detangle's report.

        It must be the failure that the twin states.
        """
        import detangle

        with pytest.raises(detangle.BugFound) as caught:
            detangle.explore(model, runs=schedules, seed=seed, database=False)
        report = caught.value.report
        failure = report.failure
        judge(twin, failure.exception or f"{failure.kind}: {failure.message}")
        details = str(report.failure.message).partition("\n")[0]
        self._record(kind="caught", schedules=report.runs, failure=details)
        return caught.value


def losing(error: BaseException) -> dict[str, Any] | None:
    """The schedule that an explorer's failure tells of, as steps; None for any other failure."""
    if (failure := getattr(error, "failure", None)) is not None and hasattr(failure, "steps"):
        return {"schedule": failure.iteration + 1, **_trace(failure)}
    report = getattr(error, "report", None)
    if (trace := getattr(report, "trace", None)) is None or report is None:
        return None
    details = str(report.failure.message).partition("\n")[0]
    steps = _task_steps(trace.events)
    return {"schedule": report.runs, "steps": steps, "outcome": "failure", "details": details}


def _spread(preemptions: int) -> Any:
    """The exhaustive search in an order of chance, so that its first schedules are far apart."""
    import interleave_test  # pyright: ignore[reportMissingImports]

    order = random.Random(0)

    class Spread(interleave_test.DFSStrategy):
        def begin(self, iteration: int, seed: int) -> None:
            waiting = self._frontier
            chosen = order.randrange(len(waiting))
            waiting[chosen], waiting[-1] = waiting[-1], waiting[chosen]
            super().begin(iteration, seed)

    return Spread(preemptions)


def _most() -> int:
    """How many schedules of a search this run can afford."""
    return _BRIEF if is_brief() else most_schedules()


def _drawn(schedules: int) -> int:
    """How many schedules to draw where the full profile draws so many."""
    return min(_most(), budget(-(-schedules // 5), schedules))


def _trace(failure: Any) -> dict[str, Any]:
    """The failing schedule as steps (thread, source line), consecutive repeats merged."""
    steps: list[dict[str, str]] = []
    before = None
    for step in failure.steps:
        here = step.chosen, step.location
        # T0 is the model itself, which only starts the others and waits.
        if step.chosen and here != before:
            thread = f"T{step.chosen} {step.thread_name}"
            steps.append({"thread": thread, "code": _source_line(step.location)})
        before = here
    return {"steps": steps, "outcome": failure.kind, "details": _details(failure)}


def _details(failure: Any) -> str:
    """What went wrong; of a deadlock, a line for each thread that is blocked."""
    error = failure.exception
    if error is None:
        return str(failure.details)
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _task_steps(events: Any) -> list[dict[str, str]]:
    """A detangle trace as steps of its tasks: the line each stands at, or what befell it."""
    steps = []
    for event in events:
        where = event.location
        line = "" if where is None else linecache.getline(where.filename, where.lineno).strip()
        if event.verb not in {"await", "spawn"} or not line:
            line = {"cancel": "CancelledError"}.get(event.verb, f"{event.verb} {event.text}")
        steps.append({"thread": event.actor, "code": line})
    return steps


def _source_line(location: str) -> str:
    """The line at "ttl_cache.py.twin3:120", stripped; "" where there is none."""
    name, _, line = location.rpartition(":")
    known = [*map(str, explored_paths()), *linecache.cache]
    files = [file for file in known if Path(file).name == name]
    return linecache.getline(files[0], int(line)).strip() if files and line.isdigit() else ""
