"""A pytest plugin for people who wait: a bar meanwhile, a line for each guarantee at the end."""

import sys
from collections import defaultdict
from typing import Any

import pytest

from tests.kit.catalogue import all_promises

_WIDTH = 30


class _Bar:
    """A line that fills up while the tests run."""

    def __init__(self, total: int) -> None:
        self._total, self._done = max(total, 1), 0
        self._out = sys.__stdout__ or sys.stdout  # pytest captures the other
        self._live = self._out.isatty()

    def step(self) -> None:
        """Another test is through."""
        self._done += 1
        filled = _WIDTH * self._done // self._total
        before = _WIDTH * (self._done - 1) // self._total
        if self._live:
            bar = "#" * filled + "." * (_WIDTH - filled)
            end = "\n" if self._done == self._total else ""
            self._out.write(f"\r[{bar}] {self._done} of {self._total} tests{end}")
        elif filled > before:  # in a log: the bar grows in one line
            end = "\n" if self._done == self._total else ""
            self._out.write("#" * (filled - before) + end)
        self._out.flush()


_bar: _Bar | None = None


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        reporter.showfspath = False
        reporter._show_progress_info = False


def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport,
) -> tuple[str, str, str] | None:
    """No letter for what passes: the bar tells."""
    if report.passed:
        return ("passed" if getattr(report, "when", "") == "call" else "", "", "")
    return None


def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """The workers know how many tests there are."""
    global _bar
    _bar = _bar or _Bar(len(ids))


def pytest_collection_finish(session: pytest.Session) -> None:
    global _bar
    if session.items and not hasattr(session.config, "workerinput"):
        _bar = _Bar(len(session.items))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown" and _bar is not None:
        _bar.step()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """A line for each guarantee: whether it holds, by how many tests and schedules."""
    from tests.kit import ledger  # not before pytest has prepared its assertions

    rows: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(float))
    for result in ledger.results(config):
        for identifier in {*result["guarantees"], *result["twins"]}:
            row = rows[identifier]
            row["seconds"] += result["seconds"]
            kind = "checks" if identifier in result["guarantees"] else "twins"
            row[f"{kind} {result['outcome']}"] += 1
            if kind == "checks":
                row["schedules"] += sum(each["schedules"] for each in result["explored"])
                row["schedules"] += result["examples"]
    order = list(all_promises())
    for identifier in sorted(rows, key=order.index):
        terminalreporter.write_line(line(identifier, rows[identifier]))


def line(identifier: str, row: dict[str, Any]) -> str:
    """One guarantee in words."""
    broken = int(row["checks failed"])
    blind = int(row["twins failed"])
    word = "BROKEN" if broken else "unsure" if blind or not row["checks passed"] else "holds"
    parts = [f"{int(row['checks passed'])} checks"]
    if row["schedules"]:
        parts.append(f"{int(row['schedules']):,} schedules and examples")
    parts.append(f"{int(row['twins passed'])} broken twins caught")
    parts += [f"{broken} checks failed"] * bool(broken) + [f"{blind} twins missed"] * bool(blind)
    return f"{identifier:<6} {word:<7} {', '.join(parts)}; {row['seconds']:.1f} s"
