"""Measure the components: `python -m benchmarks [caches] [queues] [--quick]`.

Writes docs/evidence/figures/<component>.json; with --quick, a smoke test whose figures are
fit for nothing else, build/figures/<component>.json.
"""

import argparse
import itertools
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import (
    async_caches,
    bridges,
    buses,
    caches,
    converter_pool,
    file_watch,
    pending_queue,
    queues,
    sharded,
)
from benchmarks.harness import FULL, QUICK, Effort, Figures, Plan, measure
from benchmarks.render import summary
from reference_impl import _copying
from tests.kit import catalogue

ROOT = Path(__file__).resolve().parents[1]
FAMILIES: dict[str, Callable[[Effort], list[Plan]]] = {
    "caches": caches.plans,
    "queues": queues.plans,
    "async_caches": async_caches.plans,
    "sharded": sharded.plans,
    "buses": buses.plans,
    "bridges": bridges.plans,
    "file_watch": file_watch.plans,
    "pending_queue": pending_queue.plans,
    "converter_pool": converter_pool.plans,
}


def main(arguments: Sequence[str]) -> None:
    """Run the families that the arguments name, or all."""
    options = _parse(arguments)
    effort = QUICK if options.quick else FULL
    if options.items:
        effort = replace(effort, items=options.items)
    if options.rounds:
        effort = replace(effort, rounds=options.rounds)
    folder = options.out or ROOT / ("build/figures" if options.quick else "docs/evidence/figures")
    folder.mkdir(parents=True, exist_ok=True)
    for family in options.families or FAMILIES:
        command = " ".join(["python -m benchmarks", family, *(["--quick"] * options.quick)])
        for plan in FAMILIES[family](effort):
            figures = run(plan, effort, command)
            path = folder / f"{Path(plan.component).name}.json"
            path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
            print(f"{plan.component}: written to {path}", flush=True)


def run(plan: Plan, effort: Effort, command: str) -> Figures:
    """Measure a plan, group by group, and say what was found as it goes."""
    sources = _sources(plan.component)
    groups = []
    for build in plan.groups:
        group = measure(build(), effort)
        print(summary(group), flush=True)
        groups.append(group)
    tables = []
    for build_table in plan.tables:
        table = build_table()
        print(f"{table['title']}: {table['rows']}", flush=True)
        tables.append(table)
    if _sources(plan.component) != sources:
        raise SystemExit(f"{plan.component} was changed while it was measured: run it again")
    ours = _copying.components()[plan.component].version
    for case in itertools.chain.from_iterable(group["cases"] for group in groups):
        if case["ours"]:
            case["version"] = ours
    return {
        "component": plan.component,
        "date": datetime.now(UTC).date().isoformat(),
        "command": command,
        "python": catalogue.python_build(),
        "machine": {
            "processors": os.cpu_count() or 0,
            "platform": f"{platform.system()} {platform.machine()}",
        },
        "sources": sources,
        "groups": groups,
        "tables": tables,
    }


def _sources(component: str) -> dict[str, str]:
    return catalogue.digests(component)


class _Options(argparse.Namespace):
    families: list[str]
    quick: bool
    items: int
    rounds: int
    out: Path | None


def _parse(arguments: Sequence[str]) -> _Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join(FAMILIES)
    parser.add_argument("families", nargs="*", metavar="family", help=f"{names}; all if none")
    parser.add_argument("--quick", action="store_true", help="a smoke test of few rounds")
    parser.add_argument("--items", type=int, default=0, help="items to pass through for memory")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each group")
    parser.add_argument("--out", type=Path, default=None, help="the folder to write to")
    options = parser.parse_args(arguments, namespace=_Options())
    for family in options.families:
        if family not in FAMILIES:
            parser.error(f"there is no family {family!r}: choose from {names}")
    return options


if __name__ == "__main__":
    main(sys.argv[1:])
