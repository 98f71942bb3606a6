"""One cell, in this process: python -m peers.cell FAMILY MODULE:ROW CHECK prints its outcome.

The parent ends it at its deadline. It leaves at once, whatever threads hang.
"""

import importlib
import json
import os
import sys
import warnings
from typing import Any

from peers.adapters import Row
from peers.checks import Family
from peers.outcomes import DoesNotHold, NotExplored, NotOffered

MARK = "CELL "


def row(address: str) -> type[Row]:
    """The row at module:class."""
    module, _, name = address.partition(":")
    found: type[Row] = getattr(importlib.import_module(module), name)
    return found


def family(name: str) -> Family:
    """The checks of a family."""
    found: Family = importlib.import_module(f"peers.checks.{name}").FAMILY
    return found


def examine(checks: Family, subject: type[Row], name: str) -> dict[str, Any]:
    """What the check finds: outcome, how it was shown, and what was seen."""
    check = checks.checks[name]
    try:
        held = check.run(subject)
    except NotOffered as error:
        return {"outcome": "not offered", "seen": str(error)}
    except NotExplored as error:
        return {"outcome": "not explored", "seen": str(error)}
    except DoesNotHold as error:
        return {"outcome": "fails", "seen": str(error)}
    except BaseException as error:
        # The check's fault, or the adapter's, until somebody has looked at it.
        return {"outcome": "error", "seen": f"{type(error).__name__}: {error}"[:500]}
    return {"outcome": "holds", "how": held.how, "seen": held.seen}


def _leave(found: dict[str, Any]) -> None:
    print(MARK + json.dumps(found), flush=True)
    os._exit(0)


def main(family_name: str, address: str, check: str) -> None:
    """Print the outcome as JSON and end the process."""
    warnings.simplefilter("ignore")

    def unraisable(what: Any) -> None:
        # A coroutine that the adapter or the check forgot to await makes any verdict worthless.
        if "never awaited" in str(what.exc_value):
            _leave({"outcome": "error", "seen": str(what.exc_value)})

    sys.unraisablehook = unraisable
    warnings.filterwarnings("error", message=".*never awaited.*")
    _leave(examine(family(family_name), row(address), check))


if __name__ == "__main__":
    main(*sys.argv[1:4])
