"""The child of the command `prove`: `python -m tests.kit.prove COMPONENT RESULTS PROFILE [ID…]`.

It imports what is bound in the component's place, then runs the component's proofs on it; the
plugin tests.kit.verdicts writes what they find to RESULTS, line by line.
"""

import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from reference_impl._proving import NOTHING, REFUSED
from tests.kit import ROOT, catalogue, copies

_PLUGINS = (
    *("xdist.plugin", "pytest_timeout", "_hypothesis_pytestplugin"),
    *("tests.kit.profile", "tests.kit.ledger", "tests.kit.verdicts"),
)
_SECONDS = {"quick": 120, "full": 1800}  # after which a test is taken to hang
# Quick is for a minute of waiting: of a larger search, so many schedules are drawn.
_SCHEDULES = {"quick": ["--schedules=200"], "full": []}


def main(component: str, results: str, profile: str, *guarantees: str) -> int:
    """Run the proofs; the status is pytest's, REFUSED, or NOTHING."""
    promises = catalogue.promises(component)
    if not promises:
        print(f"{component} promises nothing by itself: prove the component that imports it")
        return NOTHING
    if unknown := [each for each in guarantees if each not in promises]:
        return _refuse(f"{component} promises no {unknown[0]}: there is {', '.join(promises)}")
    wanted = {name: text for name, text in promises.items() if name in (guarantees or promises)}
    name = f"reference_impl.{component.replace('/', '.')}"
    try:
        importlib.import_module(name)
    except BaseException as error:
        return _refuse(_why_not(error))
    write(Path(results), event="promises", texts=wanted)
    places = [str(place.relative_to(ROOT)) for place in catalogue.proof_places(component)]
    options = [f"--guarantee={each}" for each in guarantees]
    options += ["-c", "tests/kit/prove.ini", f"--rootdir={ROOT}", "--confcutdir=tests"]
    options += [f"--timeout={_SECONDS[profile]}"]
    for plugin in _PLUGINS:
        options += ["-p", plugin]
    options += ["-m", "guarantee and not twin and not stress", f"--profile={profile}"]
    options += _SCHEDULES[profile]
    options += ["--continue-on-collection-errors", f"--results={results}"]
    options += [
        "-n",
        str(min(os.cpu_count() or 1, 8)),
        "--dist=worksteal",
        "--max-worker-restart=99",
    ]
    # A process of its own: pytest rewrites the assertions of what is not imported yet.
    return subprocess.call([sys.executable, "-m", "pytest", *options, *places])


def write(results: Path, **event: Any) -> None:
    """Append a line; each is one write, so that those of several processes do not mix."""
    with results.open("ab", buffering=0) as stream:
        stream.write(json.dumps(event).encode() + b"\n")


def _refuse(reason: str) -> int:
    print(reason, file=sys.stderr)
    return REFUSED


def _why_not(error: BaseException) -> str:
    """The reader's own traceback, without the frames that bring the file here."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = (__file__, copies.__file__, importlib.__file__)
    theirs = [f for f in frames if f.filename not in ours and not f.filename.startswith("<frozen")]
    lines = (
        ["Traceback (most recent call last):\n", *traceback.format_list(theirs)] if theirs else []
    )
    lines += traceback.format_exception_only(error)
    hint = "The file cannot be imported, so nothing was proved."
    if isinstance(error, ModuleNotFoundError):
        hint += (
            f" Run prove where {error.name} is installed: in your project's environment, with "
            "'executable-guarantees[prove]' installed besides."
        )
    return "".join(lines) + hint


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
