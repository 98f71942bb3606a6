"""What the libraries say themselves: peers/claims/FAMILY.toml, each sentence found in its source.

Who has read an adapter again, and where they looked: peers/audits/FAMILY.toml.

`python -m peers.claims` looks every sentence up again: in the installed package, or in the
source distribution on PyPI of the version that it names.
"""

import io
import json
import sys
import tarfile
import tomllib
import urllib.request
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "claims"
AUDITS = Path(__file__).parent / "audits"
SAYS = ("yes", "no", "otherwise")


@dataclass(frozen=True)
class Claim:
    """A library's own sentence about what a check asks for."""

    rows: tuple[str, ...]
    checks: tuple[str, ...]
    says: str  # "yes": it promises it; "no": it says that it does not; "otherwise": another rule
    sentence: str
    address: str  # where a reader finds it
    # sdist:PACKAGE==VERSION:PATH, installed:PACKAGE:PATH, git:OWNER/NAME@COMMIT:PATH, ours:PATH
    source: str
    read: str  # the date


@dataclass(frozen=True)
class Audit:
    """Somebody who did not write the adapter has read it again for misuse."""

    row: str
    read: str
    searched: tuple[str, ...]  # addresses of the documentation and of the tracker's findings
    note: str


def claims(family: str) -> list[Claim]:
    """All of a family."""
    return [
        Claim(
            rows=tuple(each["rows"]),
            checks=tuple(each["checks"]),
            says=each["says"],
            sentence=each["sentence"],
            address=each["address"],
            source=each["source"],
            read=each["read"],
        )
        for each in _load(FOLDER, family).get("claim", [])
    ]


def audits(family: str) -> dict[str, Audit]:
    """By row."""
    found = [
        Audit(each["row"], each["read"], tuple(each["searched"]), each["note"])
        for each in _load(AUDITS, family).get("audit", [])
    ]
    return {each.row: each for each in found}


def _load(folder: Path, family: str) -> dict[str, Any]:
    file = folder / f"{family}.toml"
    return tomllib.loads(file.read_text()) if file.exists() else {}


def claimed(family: str, row: str, check: str) -> Claim | None:
    """What is said of this cell."""
    for each in claims(family):
        if row in each.rows and check in each.checks:
            return each
    return None


def missing(claim: Claim) -> str:
    """Why the sentence is not in its source; "" if it is, or if the source is a repository."""
    kind, _, rest = claim.source.partition(":")
    if kind == "installed":
        package, _, path = rest.partition(":")
        text = _installed(package, path)
    elif kind == "sdist":
        pinned, _, path = rest.partition(":")
        text = _sdist(*pinned.split("==")).get(path, "")
    elif kind == "ours":
        text = (FOLDER.parents[1] / rest).read_text(encoding="utf-8")
    elif kind == "git":
        return ""
    else:
        return f"source {claim.source!r} is none of sdist:, installed:, ours: and git:"
    if not text:
        return f"{claim.source}: no such file"
    return "" if _plain(claim.sentence) in _plain(text) else f"{claim.source}: not in the text"


def _plain(text: str) -> str:
    """Without line ends and the marks of comments and markup."""
    for mark in ("#", "`", "*", '"', "\\"):
        text = text.replace(mark, "")
    return " ".join(text.split()).lower()


def _installed(package: str, path: str) -> str:
    found = distribution(package)
    if path == "METADATA":
        return found.read_text("METADATA") or ""
    file = Path(str(found.locate_file(path)))
    return file.read_text(errors="replace") if file.exists() else ""


@cache
def _sdist(package: str, version: str) -> dict[str, str]:
    """The text files of a source distribution, by path below its top folder."""
    kind = {"Accept": "application/vnd.pypi.simple.v1+json"}
    asked = urllib.request.Request(f"https://pypi.org/simple/{package}/", headers=kind)
    with urllib.request.urlopen(asked) as answer:
        files = json.load(answer)["files"]
    ends = f"-{version}.tar.gz"
    address = next(each["url"] for each in files if each["filename"].endswith(ends))
    with urllib.request.urlopen(address) as answer:
        content = io.BytesIO(answer.read())
    texts = {}
    with tarfile.open(fileobj=content) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member) if member.size < 1_000_000 else None
            if file is not None:
                texts[member.name.partition("/")[2]] = file.read().decode(errors="replace")
    return texts


def main() -> int:
    """Look up what the words name, all without; 1 if a sentence is not there."""
    wanted = sys.argv[1:] or [file.stem for file in sorted(FOLDER.glob("*.toml"))]
    wrong = []
    for family in wanted:
        found = claims(family)
        wrong += [f"{family}: {each.rows}: {why}" for each in found if (why := missing(each))]
        print(f"{family}: {len(found)} sentences looked up")
    print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
