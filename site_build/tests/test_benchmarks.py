"""The benchmarks' arithmetic, on a clock that the measured cases themselves advance."""

import gc
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from benchmarks import sharded
from benchmarks.__main__ import FAMILIES, main
from benchmarks.harness import (
    BenchmarkError,
    Case,
    Effort,
    Figures,
    Group,
    GroupFigures,
    Plan,
    Role,
    Subject,
    TableFigures,
    calibrate,
    fastest,
    measure,
    ratios,
    sample,
    spread,
    take_rounds,
)
from benchmarks.render import render, summary, verdict

EFFORT = Effort(rounds=5, sample_ns=1_000, sizes=(100, 200, 300), items=100)


class Clock:
    """Nanoseconds that pass only when a case says that it worked."""

    def __init__(self) -> None:
        self.now = 0
        self.slowness = 1
        self._lock = threading.Lock()

    def __call__(self) -> int:
        return self.now

    def batch(self, cost: int) -> Callable[[], None]:
        def work() -> None:
            with self._lock:
                self.now += cost * self.slowness

        return work

    def case(self, name: str, cost: int, role: Role = "peer", threads: int = 1) -> Case:
        """A case whose batch of 10 operations takes `cost` nanoseconds."""

        def build() -> Subject:
            return Subject([self.batch(cost)] * threads, 10, check=lambda: None)

        return Case(name, build, role)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ratios_of(figures: GroupFigures) -> dict[str, float]:
    return {case["name"]: case["ratio_median"] for case in figures["cases"]}


def test_a_ratio_is_time_per_operation_over_the_floors(clock: Clock) -> None:
    cases = [clock.case("floor", 70, "floor"), clock.case("three times as long", 210)]
    figures = measure(Group("g", cases), EFFORT, clock)
    assert ratios_of(figures) == {"floor": 1.0, "three times as long": 3.0}
    assert [case["ns"] for case in figures["cases"]] == [7.0, 21.0]


def test_the_number_of_threads_does_not_change_the_cost_of_an_operation(clock: Clock) -> None:
    cases = [clock.case("floor", 50, "floor", threads=4), clock.case("x", 100, threads=4)]
    figures = measure(Group("g", cases), EFFORT, clock)
    assert ratios_of(figures) == {"floor": 1.0, "x": 2.0}
    assert figures["cases"][0]["ns"] == 5.0
    assert figures["cases"][0]["ops"] % (4 * 10) == 0


def test_a_slow_round_changes_no_ratio() -> None:
    quiet, busy = [10.0, 10.0, 10.0], [10.0, 400.0, 10.0]
    assert ratios([2 * ns for ns in busy], busy) == ratios([2 * ns for ns in quiet], quiet)


def test_rounds_that_slow_down_change_no_ratio(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine gets slower after each round; ratios of averages would show it."""

    def slow_down(generation: int) -> None:
        clock.slowness *= 3

    subjects = {
        name: Subject([clock.batch(cost)], 10, check=lambda: None)
        for name, cost in (("floor", 10), ("ours", 15))
    }
    monkeypatch.setattr("benchmarks.harness.gc.collect", slow_down)
    times = take_rounds(subjects, {"floor": 1, "ours": 1}, 4, clock)
    assert times["floor"] == [10, 30, 90, 270]
    assert ratios(times["ours"], times["floor"]) == [1.5] * 4


def test_each_round_takes_each_case_once_in_changing_order(clock: Clock) -> None:
    taken: list[str] = []

    def subject(name: str) -> Subject:
        return Subject([lambda: taken.append(name)], 1, check=lambda: None)

    names = ["a", "b", "c", "d"]
    take_rounds({n: subject(n) for n in names}, dict.fromkeys(names, 1), 20, clock)
    rounds = [taken[at : at + 4] for at in range(0, 80, 4)]
    assert all(sorted(order) == names for order in rounds)
    assert len({tuple(order) for order in rounds}) > 5


def test_the_spread_is_the_median_between_the_10th_and_the_90th_percentile() -> None:
    low, median, high = spread([float(n) for n in range(101)])
    assert (low, median, high) == (10.0, 50.0, 90.0)
    assert spread([1.0, 2.0, 90.0])[1] == 2.0


def test_of_two_floors_the_faster_one_counts(clock: Clock) -> None:
    cases = [
        clock.case("with", 30, "floor"),
        clock.case("acquire", 20, "floor"),
        clock.case("ours", 40, "ours"),
    ]
    figures = measure(Group("g", cases), EFFORT, clock)
    assert figures["floor"] == "acquire"
    assert ratios_of(figures) == {"with": 1.5, "acquire": 1.0, "ours": 2.0}
    assert figures["other_floors"] == [{"name": "with", "ratio_median": 1.333}]
    assert "Ours as a multiple of with: 1.33." in render(figures_of({**figures, "aim": 1.4}))


def test_one_lucky_sample_does_not_make_a_floor() -> None:
    assert fastest({"steady": [5, 5, 5], "lucky": [1, 9, 9]}) == "steady"


@pytest.mark.parametrize("cost", [1, 7, 999, 1_000, 50_000])
def test_a_sample_lasts_long_enough_and_not_much_longer(clock: Clock, cost: int) -> None:
    loops = calibrate(
        Subject([clock.batch(cost)], 10, check=lambda: None), enough=1_000, timer=clock
    )
    assert loops * cost >= 1_000
    assert (loops - 2) * cost < 1_000


def test_calibration_ends_on_a_clock_too_coarse_to_see_one_batch(clock: Clock) -> None:
    subject = Subject([clock.batch(1)], 1, check=lambda: None)
    loops = calibrate(subject, 10_000, lambda: clock.now // 1_000 * 1_000)
    assert loops >= 9_000


def test_threads_are_timed_from_the_common_start_to_the_last_end(clock: Clock) -> None:
    barrier = threading.Barrier(3)

    def batch() -> None:
        barrier.wait(timeout=60)
        clock.batch(5)()

    subject = Subject([batch] * 3, 1, check=lambda: None)
    assert sample(subject, 2, clock) == 3 * 2 * 5


def test_what_a_thread_raises_is_raised(clock: Clock) -> None:
    def broken() -> None:
        raise LookupError("in a worker")

    subject = Subject([broken, clock.batch(1)], 1, check=lambda: None)
    with pytest.raises(LookupError, match="in a worker"):
        sample(subject, 1, clock)


def test_between_runs_untimed_after_each_sample(clock: Clock) -> None:
    subject = Subject([clock.batch(5)], 1, check=lambda: None, between=clock.batch(1_000))
    assert sample(subject, 2, clock) == 10
    assert clock.now == 1_010


def failing_from(call: int) -> Callable[[], None]:
    calls = iter(range(1, 100))

    def check() -> None:
        if next(calls) >= call:
            raise AssertionError("a miss")

    return check


@pytest.mark.parametrize("call", [1, 2, 3, 4], ids=["new", "used", "measured", "at the end"])
def test_a_case_that_misses_fails_and_is_closed(clock: Clock, call: int) -> None:
    closed: list[str] = []

    def build() -> Subject:
        return Subject([clock.batch(5)], 1, failing_from(call), close=lambda: closed.append("x"))

    cases = [clock.case("floor", 10, "floor"), Case("fast but wrong", build)]
    with pytest.raises(BenchmarkError, match="'fast but wrong' does not do its work"):
        measure(Group("g", cases), EFFORT, clock)
    assert closed == ["x"]


def test_a_case_that_raises_fails(clock: Clock) -> None:
    def build() -> Subject:
        return Subject([lambda: int("absent")], 1, check=lambda: None)

    with pytest.raises(BenchmarkError, match="ValueError"):
        measure(Group("g", [clock.case("floor", 10, "floor"), Case("x", build)]), EFFORT, clock)


def test_a_missing_peer_is_reported_by_name(clock: Clock) -> None:
    absent = replace(clock.case("their cache", 10), package="no-such-distribution")
    skipped = replace(clock.case("slow cache", 10), skip="it is too slow")
    cases = [clock.case("floor", 10, "floor"), absent, skipped]
    figures = measure(Group("g", cases), EFFORT, clock)
    assert figures["not_measured"] == [
        {"name": "their cache", "reason": "no-such-distribution is not installed"},
        {"name": "slow cache", "reason": "it is too slow"},
    ]
    assert list(ratios_of(figures)) == ["floor"]
    assert "no-such-distribution is not installed" in render(figures_of(figures))


def test_a_group_needs_a_floor_and_distinct_names(clock: Clock) -> None:
    with pytest.raises(BenchmarkError, match="'g' has no floor"):
        measure(Group("g", [clock.case("ours", 10, "ours")]), EFFORT, clock)
    twice = [clock.case("floor", 10, "floor"), clock.case("floor", 20)]
    with pytest.raises(BenchmarkError, match="two cases of one name"):
        measure(Group("g", twice), EFFORT, clock)


def test_an_effort_too_small_for_a_range_is_refused() -> None:
    with pytest.raises(ValueError, match="rounds=1"):
        replace(EFFORT, rounds=1)
    with pytest.raises(ValueError, match="sample_ns=0"):
        replace(EFFORT, sample_ns=0)


def test_the_collector_is_off_while_measuring_and_on_again_after(clock: Clock) -> None:
    seen: list[bool] = []

    def build() -> Subject:
        return Subject([clock.batch(10)], 1, lambda: None, lambda: seen.append(gc.isenabled()))

    measure(Group("g", [Case("floor", build, "floor")]), EFFORT, clock)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert not any(seen[1:])


def figures_of(*groups: GroupFigures) -> Figures:
    return {
        "component": "caches/ttl_cache",
        "date": "2026-11-23",
        "command": "python -m benchmarks caches",
        "python": "CPython 3.13.0, with the GIL, Linux",
        "machine": {"processors": 2, "platform": "Linux x86_64"},
        "sources": {},
        "groups": list(groups),
        "tables": [
            {
                "title": "Memory",
                "note": "",
                "columns": ["Case", "Bytes"],
                "rows": [["ours", 12_345]],
                "not_measured": [],
            }
        ],
    }


def aimed(clock: Clock, cost: int, point: str = "") -> GroupFigures:
    cases = [clock.case("floor", 100, "floor"), clock.case("ours", cost, "ours")]
    return measure(Group(f"get {point}", cases, "", 1.4, "get", point), EFFORT, clock)


def test_the_aim_is_judged_by_the_median_of_ours(clock: Clock) -> None:
    assert verdict(aimed(clock, 140)) == "reached"
    assert verdict(aimed(clock, 150)) == "not reached (1.50)"
    assert verdict(measure(Group("g", [clock.case("f", 1, "floor")]), EFFORT, clock)) == ""


def test_all_of_ours_must_reach_the_aim_and_nobody_else(clock: Clock) -> None:
    cases = [
        clock.case("floor", 100, "floor"),
        clock.case("get", 110, "ours"),
        clock.case("wait", 130, "ours"),
        clock.case("peer", 900),
    ]
    figures = measure(Group("g", cases, aim=1.4), EFFORT, clock)
    assert verdict(figures) == "reached"
    assert verdict({**figures, "aim": 1.2}) == "not reached (1.30)"


def test_render_gives_one_table_per_series_with_a_column_per_point(clock: Clock) -> None:
    text = render(figures_of(aimed(clock, 130, "1,000 entries"), aimed(clock, 200, "1 entry")))
    assert "| Case | Version | 1,000 entries | 1 entry | Lacks |" in text
    assert "1.30 (1.30 to 1.30) | 2.00 (2.00 to 2.00)" in text
    assert "| 1 (the baseline) | 1 (the baseline) |" in text
    assert "1,000 entries: reached; 1 entry: not reached (2.00)." in text
    assert "| ours | 12,345 |" in text


def test_summary_marks_ours(clock: Clock) -> None:
    assert "> ours" in summary(aimed(clock, 130))


def ours(
    parts: Callable[[Plan], Sequence[Callable[[], object]]], effort: Effort = EFFORT
) -> pytest.MarkDecorator:
    """Parametrises a test by what our plans build: their groups, or their tables."""
    cases = [
        pytest.param(build, id=f"{family}-{number}")
        for family, plans in FAMILIES.items()
        for plan in plans(effort)
        for number, build in enumerate(parts(plan))
    ]
    return pytest.mark.parametrize("build", cases)


@ours(lambda plan: plan.groups)
def test_each_case_that_needs_no_package_does_its_work(build: Callable[[], Group]) -> None:
    """One batch or two of each; the peers are left to the session that installs them."""
    group = build()
    own = [case for case in group.cases if not case.package]
    tiny = Effort(rounds=2, sample_ns=1, sizes=EFFORT.sizes, items=EFFORT.items)
    figures = measure(replace(group, cases=own), tiny)
    assert any(case["ours"] for case in figures["cases"])
    assert not figures["not_measured"]


@ours(lambda plan: plan.tables, replace(EFFORT, rounds=2, sample_ns=1))
def test_each_table_has_a_cell_for_each_column(build: Callable[[], TableFigures]) -> None:
    table = build()
    assert table["rows"] or table["not_measured"]
    assert all(len(row) == len(table["columns"]) for row in table["rows"])


def test_an_unknown_family_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["cache"])
    assert "there is no family 'cache': choose from caches, queues" in capsys.readouterr().err


def test_contention_and_throughput_of_shards_are_measured() -> None:
    """What the page of ShardedCache claims of contention (SC-5) comes from these tables."""
    assert {load.threads for load in sharded.LOADS} >= {1, 8, 100}
    (plan,) = sharded.plans(Effort(rounds=2, sample_ns=1, sizes=(10,), items=10))
    assert plan.component == "caches/sharded_cache"
    assert [getattr(table, "func", None) for table in plan.tables] == [
        sharded._contention,
        sharded._throughput,
    ]
