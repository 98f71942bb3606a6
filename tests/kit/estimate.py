"""How long a verification will take, from what the last recorded one took."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from tests.kit import ROOT

START = 8.0  # seconds, until the workers have collected


def seconds(components: Iterable[str], guarantees: Iterable[str] = ()) -> float:
    """Expected seconds of waiting on this machine; 0 where nothing was recorded."""
    total = 0.0
    wanted = set(guarantees)
    for component in components:
        path = ROOT / "docs" / "evidence" / f"{Path(component).name}.json"
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        proved = record.get("proved", {})
        quick = {k: s for k, s in proved.get("seconds", {}).items() if k.startswith("quick")}
        if not quick:
            return 0.0
        newest = max(quick, key=lambda key: tuple(map(int, key.split()[1].split("."))))
        share = 1.0
        if wanted:
            named = [
                entry if isinstance(entry, str) else entry["id"]
                for kind in ("checks", "twins")
                for functions in proved[kind].values()
                for cases in functions.values()
                for entry in cases.values()
            ]
            share = sum(name in wanted for name in named) / max(len(named), 1)
        total += share * quick[newest]
    return START + total / (os.cpu_count() or 1)
