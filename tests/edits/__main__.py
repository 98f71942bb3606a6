"""`python -m tests.edits [NAME…] [--only WORDS] [--named] [--new] [--profile quick|full]`."""

import argparse
import sys

from tests.edits import run
from tests.edits.tables import EDITS
from tests.kit.catalogue import select


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.edits", description=run.__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="components; all without one")
    parser.add_argument("--only", default="", metavar="WORDS", help="edits whose name has these")
    parser.add_argument(
        "--named", action="store_true", help="only the guarantees that an edit must break"
    )
    parser.add_argument("--new", action="store_true", help="only what is not recorded yet")
    parser.add_argument("--profile", choices=("quick", "full"), default="quick")
    options = parser.parse_args()
    try:
        components = select(options.names).components or list(EDITS)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    how = run.Options(options.only, options.named, options.new, options.profile)
    return run.main(components, how)


if __name__ == "__main__":
    sys.exit(_main())
