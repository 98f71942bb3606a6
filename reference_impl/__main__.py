"""The copy tool: `python -m reference_impl COMMAND`; `--help` names the commands.

An older Python must be able to read this file, to be told that it is too old.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    here = ".".join(map(str, sys.version_info[:2]))
    sys.stderr.write(
        "error: the components need Python 3.11 or newer, and this is Python " + here + ": "
        "run the copy tool by a newer one, such as `python3.13 -m reference_impl`\n"
    )
    sys.exit(2)

from reference_impl._commands import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
