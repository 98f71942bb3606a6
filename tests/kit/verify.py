"""`nox -s verify -- NAME…`: prove components or guarantees quickly, and say what holds.

`python -m tests.kit.verify ttl_cache` does it in an environment that has the tests' packages.
"""

import os
import subprocess
import sys

from tests.kit import ROOT
from tests.kit.catalogue import pages_of, parts_of, proof_places, select
from tests.kit.estimate import seconds


def main(names: list[str]) -> int:
    """Run what proves these names; the exit code is pytest's."""
    try:
        selection = select(names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    arguments = ["-p", "tests.kit.progress", "-q", "--no-header", "-n", "auto", "--dist=worksteal"]
    for component in selection.components:
        arguments += [str(place.relative_to(ROOT)) for place in proof_places(component)]
        if not selection.guarantees:
            files = [component, *parts_of(component)]
            arguments += [*pages_of(component), *(f"reference_impl/{each}.py" for each in files)]
    arguments += [f"--guarantee={identifier}" for identifier in selection.guarantees]
    if sys.version_info < (3, 12):
        print("Thread interleavings need Python 3.12 or newer: they are left out here.")
        arguments.append("--ignore=tests/interleavings")
    what = ", ".join(selection.guarantees or selection.components)
    expected = seconds(selection.components, selection.guarantees)
    about = f"about {expected:.0f} s" if expected else "not measured yet"
    print(f"Proving {what}: quick profile, {about} on {os.cpu_count()} processors.", flush=True)
    arguments += ["--markdown-docs", "-p", "no:cacheprovider"]
    return subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=ROOT)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
