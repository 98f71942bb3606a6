"""python -m peers [FAMILY | LIBRARY | ROW | CHECK …]: run cells, and record them with --record."""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

from peers import results, running
from peers.checks import Check
from peers.running import Subject


def main() -> int:
    """Run what is named; 1 if a cell has an error, no result, or a reproduction shows nothing."""
    parser = argparse.ArgumentParser(prog="python -m peers", description=__doc__)
    parser.add_argument("only", nargs="*", help="families, libraries, rows or checks; all without")
    parser.add_argument("--record", action="store_true", help="write peers/results")
    parser.add_argument("--times", type=int, default=running.TIMES, help="runs of what fails")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    cells = running.wanted(options.only)
    if not cells:
        parser.error(f"nothing is called {' or '.join(options.only)}: name a family or a library")
    began, before = time.monotonic(), {name: results.read(name) for name in running.FAMILIES}

    def run(cell: tuple[Subject, Check]) -> dict[str, Any]:
        subject, check = cell
        row = before[subject.family].get("rows", {}).get(subject.slug, {})
        known = row.get("cells", {}).get(check.name)
        found = running.record(subject, check, times=options.times, known=known)
        print(
            f"{subject.slug:32} {check.name:28} {found['outcome']:12} {found['seconds']:6.1f} s  "
            f"{found['seen'][:160]}"
            + (f"  {found['failed'][0]} of {found['failed'][1]}" if "failed" in found else ""),
            flush=True,
        )
        return found

    with ThreadPoolExecutor(options.processes) as pool:
        found = list(pool.map(run, cells))
    if options.record:
        results.write(
            [
                (subject, check.name, cell)
                for (subject, check), cell in zip(cells, found, strict=True)
            ],
            date.today().isoformat(),
        )
    useless = [
        f"{subject.slug} {check.name}: {cell['outcome']}: {cell['seen']}"
        for (subject, check), cell in zip(cells, found, strict=True)
        if cell["outcome"] in ("error", "no result") or cell.get("shows") == ""
    ]
    print(f"{len(cells)} cells in {time.monotonic() - began:.0f} s")
    print(*useless, sep="\n", file=sys.stderr)
    return 1 if useless else 0


if __name__ == "__main__":
    sys.exit(main())
