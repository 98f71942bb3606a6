"""`python -m tests.scenes [NAME…]` records traces: of all scenes, or of those of these files."""

import sys

from tests.scenes import Scene, scenes
from tests.scenes.making import check_size, dumps, exhaust, record


def make(scene: Scene) -> None:
    """Record one, and tell what it is like."""
    trace = record(scene)
    if scene.kind != "crash":
        trace["holds"] = exhaust(scene)
    check_size(trace)
    scene.trace.parent.mkdir(parents=True, exist_ok=True)
    scene.trace.write_text(dumps(trace), encoding="utf-8")
    found = trace["found"]
    print(f"{scene.id}: found {found}, as it is {trace.get('holds', '-')} schedules")
    for step in trace["steps"]:
        fold = f" (+{step['skipped']})" if "skipped" in step else ""
        torn = f"  TORN {step['torn']}" if "torn" in step else ""
        told = f"\n        “{step['say']}”" if "say" in step else ""
        print(f"  {step['t']}{fold} {step['fn']}:{step['line']} {step.get('code')}{torn}{told}")
    print(f"  {trace['outcome']}; {len(dumps(trace))} bytes")


def main(names: list[str]) -> int:
    """Record what is named; the status is 1 where one could not be."""
    known = scenes()
    wanted = [s for s in known.values() if not names or s.of in names or s.id in names]
    unknown = set(names) - {s.of for s in wanted} - {s.id for s in wanted}
    if unknown:
        print(f"no scene: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return 2
    failed = 0
    for scene in wanted:
        try:
            make(scene)
        except (AssertionError, ValueError) as error:
            failed = 1
            print(f"{scene.id}: {error}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
