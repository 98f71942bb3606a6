"""Make edits in copies, prove the copies, and compare what broke with what should."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_impl import _copying
from tests.edits.edit import Edit
from tests.edits.tables import EDITS, PROVED_AS
from tests.kit import ROOT
from tests.kit.catalogue import digests, promises, python_build

RECORD = ROOT / "docs" / "evidence" / "edits.json"
_REASON = 60  # characters
_LONGEST = 1800  # seconds, after which a proof that does not end is given up


@dataclass(frozen=True)
class Outcome:
    """What the proofs said of a copy with one edit."""

    edit: Edit
    guarantees: dict[str, dict[str, Any]]  # by ID, as `prove --json` tells them
    seconds: float
    is_whole: bool  # all guarantees were asked for

    @property
    def broken(self) -> set[str]:
        """The guarantees that came out BROKEN."""
        return {name for name, each in self.guarantees.items() if each["word"] == "BROKEN"}

    @property
    def missed(self) -> set[str]:
        """Those that should have, as far as they were asked for, and did not."""
        return {*self.edit.broken} & self.guarantees.keys() - self.broken

    @property
    def wronged(self) -> set[str]:
        """Those that came out BROKEN though they should hold."""
        return self.broken - self.edit.broken - self.edit.tolerated

    def told(self) -> str:
        """One line for people."""
        found = " ".join(_sorted(self.broken)) or "nothing"
        line = f"{self.edit.name}: breaks {found} ({self.seconds:.0f} s)"
        for what, names in (("MISSED", self.missed), ("WRONGED", self.wronged)):
            line += f"  {what}: {' '.join(_sorted(names))}" if names else ""
        return line

    def as_dict(self) -> dict[str, Any]:
        """What is recorded: how each that broke did so first, and whatever else did not hold."""
        words = {name: each["word"] for name, each in self.guarantees.items()}
        return {
            "edit": self.edit.name,
            "file": self.edit.file,
            "harmless": self.edit.is_harmless,
            "whole": self.is_whole,
            "seconds": round(self.seconds, 1),
            "broken": {name: _how(self.guarantees[name]) for name in _sorted(self.broken)},
            "other": {name: word for name, word in words.items() if word not in _PLAIN},
        }


_PLAIN = ("holds", "BROKEN")


def _how(found: dict[str, Any]) -> str:
    """The losing schedule, or what was raised."""
    if losing := found.get("losing"):
        return f"schedule {losing['schedule']}"
    reason = str(found.get("reason") or "").strip()
    return reason if len(reason) <= _REASON else f"{reason[: _REASON - 2]} …"


def _sorted(identifiers: Iterable[str]) -> list[str]:
    return sorted(identifiers, key=lambda each: (each[:3], int(each[3:])))


@dataclass(frozen=True)
class Options:
    """Which edits to prove, and how far."""

    only: str = ""  # those whose name has these words
    named: bool = False  # ask for no other guarantee than those that the edit must break
    new: bool = False  # leave out what was recorded
    profile: str = "quick"

    def wants(self, component: str, edit: Edit) -> bool:
        """Whether this edit is to be proved."""
        known = self.new and edit.name in {each["edit"] for each in _recorded(component)}
        return self.only in edit.name and not known and not (self.named and edit.is_harmless)


def outcome(
    component: str, edit: Edit, guarantees: Collection[str] = (), profile: str = "quick"
) -> Outcome:
    """Prove a copy of the component with this edit; all guarantees, or only these.

    Raises:
        RuntimeError: the proofs did not run.
    """
    with tempfile.TemporaryDirectory(prefix="edits-") as folder:
        file = laid_out(component, edit, Path(folder))
        command = [sys.executable, "-m", "reference_impl", "prove", str(file), "--json"]
        command += [f"--profile={profile}", *(f"--guarantee={each}" for each in guarantees)]
        began = time.monotonic()
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=_LONGEST, check=False
        )
        seconds = time.monotonic() - began
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{component}, {edit.name}: not proved\n{done.stderr[-2000:]}")
    told = json.loads(done.stdout)["guarantees"]
    return Outcome(edit, {each["id"]: each for each in told}, seconds, is_whole=not guarantees)


def laid_out(component: str, edit: Edit, project: Path) -> Path:
    """Copy what the component needs into a package, make the edit; the file to prove."""
    folder = project / "app" / "vendored"
    folder.parent.mkdir()
    folder.parent.joinpath("__init__.py").touch()
    wanted = [_copying.find(_whole(component))]
    _copying.copy(wanted, folder)
    files = {each.path: path for path, each in _copying.layout(wanted, folder).items()}
    changed = files[edit.file or component]
    changed.write_text(edit.applied(changed.read_text(encoding="utf-8")), encoding="utf-8")
    return files[wanted[0].path]


def prove(component: str, edits: Iterable[Edit], options: Options) -> Iterator[Outcome]:
    """Prove each edit, tell of it, and of those that could not be proved."""
    for edit in edits:
        asked = _sorted(edit.broken) if options.named else []
        try:
            found = outcome(component, edit, asked, options.profile)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"{component}: {edit.name}: NOT PROVED: {error}", flush=True)
            continue
        print(f"{component}: {found.told()}", flush=True)
        yield found


def record(component: str, outcomes: Sequence[Outcome]) -> None:
    """Keep what was found, beside what was found of others and by edits that did not run."""
    kept = _read()
    before = {each["edit"]: each for each in _recorded(component)}
    found = before | {each.edit.name: each.as_dict() for each in outcomes}
    kept[component] = {
        "sources": {name: sha[:16] for name, sha in digests(_whole(component)).items()},
        "python": python_build(),
        "edits": [found[edit.name] for edit in EDITS[component] if edit.name in found],
    }
    RECORD.write_text(_compact(kept), encoding="utf-8")


def _read() -> dict[str, Any]:
    kept: dict[str, Any] = {}
    if RECORD.is_file():
        kept = json.loads(RECORD.read_text(encoding="utf-8"))
    return kept


def _recorded(component: str) -> list[dict[str, Any]]:
    edits: list[dict[str, Any]] = _read().get(component, {}).get("edits", [])
    return edits


def _compact(kept: dict[str, Any]) -> str:
    """JSON with a line for each edit."""
    parts = []
    for component, found in sorted(kept.items()):
        lines = ",\n".join(f"  {json.dumps(each)}" for each in found["edits"])
        head = json.dumps({key: found[key] for key in ("sources", "python")})
        parts.append(f'"{component}": {head[:-1]}, "edits": [\n{lines}\n ]}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main(components: Sequence[str], options: Options) -> int:
    """Prove the edits of these components, record them; 1 if one is not told apart."""
    wrong = 0
    for component in components:
        edits = [edit for edit in EDITS[component] if options.wants(component, edit)]
        wrong += len(edits)
        for found in prove(component, edits, options):
            record(component, [found])  # each at once: a long run may be cut off
            wrong -= not (found.missed or found.wronged)
    return int(wrong > 0)


def told_apart(component: str) -> set[frozenset[str]]:
    """The different sets of guarantees that the component's edits break."""
    return {edit.broken for edit in EDITS[component] if not edit.is_harmless}


def proved(component: str) -> set[str]:
    """The guarantees by which a component's edits are judged."""
    return set(promises(_whole(component)))


def _whole(component: str) -> str:
    """What is copied and proved for the sake of this component."""
    return PROVED_AS.get(component, component)
