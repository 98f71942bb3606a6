"""Run a piece of Python in a process of its own: exit, fork, signals, hangs."""

import subprocess
import sys
import textwrap
from pathlib import Path

from tests.kit import ROOT

# A job that a script put into the background ignores Ctrl-C, and its children do by default.
CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"

_COPIES = "import tests.kit.copies; tests.kit.copies.install()\n"


def interpret(
    *words: str, cwd: Path = ROOT, deadline: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """Start this Python with these words on its command line and await its end, whatever it is."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=deadline,
        check=False,
    )


def run_python(
    code: str, *, deadline: float = 120.0, expect: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Run `code` from the project's root in a fresh interpreter, warnings being errors.

    `deadline` (seconds) is a safety net against a hang, not a measurement: reaching it
    fails the test. `expect` is the exit code asked for; None takes any.
    """
    code = CTRL_C + _COPIES + textwrap.dedent(code)
    done = interpret("-X", "faulthandler", "-W", "error", "-c", code, deadline=deadline)
    if expect is not None:
        assert done.returncode == expect, (
            f"exit code {done.returncode}, expected {expect}\n{done.stdout}\n{done.stderr}"
        )
    return done
