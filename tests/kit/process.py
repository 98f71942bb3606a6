"""Run a piece of Python in a process of its own: exit, fork, signals, hangs."""

import subprocess
import sys
import textwrap

from tests.kit import ROOT

# A job that a script put into the background ignores Ctrl-C, and its children do by default.
CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"

_COPIES = "import tests.kit.copies; tests.kit.copies.install()\n"


def run_python(
    code: str, *, deadline: float = 120.0, expect: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Run `code` from the project's root in a fresh interpreter, warnings being errors.

    `deadline` (seconds) is a safety net against a hang, not a measurement: reaching it
    fails the test. `expect` is the exit code asked for; None takes any.
    """
    code = CTRL_C + _COPIES + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", code],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=deadline,
        check=False,
    )
    if expect is not None:
        assert done.returncode == expect, (
            f"exit code {done.returncode}, expected {expect}\n{done.stdout}\n{done.stderr}"
        )
    return done
