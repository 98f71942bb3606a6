"""`python -m site_build.prose` holds the English of the pages against prose/rules.yml.

textlint comes from npm, pinned by hashes in prose/package-lock.json, and is fetched when the pins
have changed. It reads CommonMark, so it gets copies in which what MkDocs adds to that is text: the
front matter, admonitions, and the comments of Python blocks. Lines keep their numbers.
"""

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from site_build import node
from tests.kit import ROOT

PROSE = ROOT / "prose"
_WORK = ROOT / "build" / "prose"
_PAGES = _WORK / "pages"
_GENERATED = ("docs/evidence/", "docs/review/index.md", "docs/src/", "docs/assets/")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})\s*\{?\.?(\w*)")
_ID = re.compile(r"#[\w-]+(?= ?[)}])")  # of a heading or a link: it stays as it was
_COMMENT = re.compile(r"(?:^|\s)#:? (?!noqa|type: ignore|pragma)(.*)")
# Read with the pages, at each run: a linter that reads nothing finds nothing.
SEEDED = """\
---
description: An answer that is dear.
---
# It waits for ever

!!! warning
    A time-out.

| stands in a table |
|---|
| a [floor](x.md), **anew** |

```python
wait()  # in silence
floor = "a floor"
```
"""
FAULTS = {
    *((2, "dear"), (4, "for ever"), (7, "time-out"), (9, "stands in"), (11, "floor")),
    *((11, "anew"), (14, "in silence")),
}


def main(arguments: list[str]) -> None:
    """Lint the files that are named, or all pages and the files beside the README."""
    _fetch()
    shutil.rmtree(_PAGES, ignore_errors=True)
    for path in [Path(each).resolve() for each in arguments] or sources():
        _put(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    _put("seeded.md", SEEDED)
    textlint = _WORK / "node_modules" / "textlint" / "bin" / "textlint.js"
    rules = ("--rules-base-directory", str(_WORK / "node_modules"), "--no-color")
    options = ("--config", str(PROSE / "textlintrc.json"), "--format=unix", *rules)
    done = node.run("node", str(textlint), *options, str(_PAGES / "**" / "*.md"), folder=_WORK)
    joined = re.sub(rf"\n(?!{re.escape(str(_PAGES))}|\n|\d)", ". ", done.stdout)  # a finding a line
    found = [line.removeprefix(f"{_PAGES}{os.sep}") for line in joined.splitlines()]
    found = [re.sub(r" \[Error/prh\]$", "", line) for line in found if "[Error/prh]" in line]
    seen = {
        (int(line.split(":")[1]), line.split(": ", 1)[1].split(" =>")[0])
        for line in found
        if line.startswith("seeded.md:")
    }
    if not seen >= FAULTS:
        sys.exit(f"The linter overlooks {sorted(FAULTS - seen)}.\n{done.stdout}{done.stderr}")
    if left := [line for line in found if not line.startswith("seeded.md:")]:
        sys.exit("\n".join([*left, f"{len(left)} findings by prose/rules.yml"]))


def sources() -> list[Path]:
    """What people write: the pages that are not generated, and the files beside the README.

    What has been published of a version, in the changelog, stays as it is.
    """
    pages = sorted((ROOT / "docs").rglob("*.md"))
    kept = [p for p in pages if not p.relative_to(ROOT).as_posix().startswith(_GENERATED)]
    return [*kept, *sorted(ROOT.glob("[!C]*.md")), ROOT / "CONTRIBUTING.md"]


def plain(text: str) -> str:
    """The page as CommonMark, line by line."""
    return "\n".join(_lines(text.split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    fence = language = ""
    matter = lines[0] == "---"
    depths: list[int] = []  # of the admonitions around the line
    for number, line in enumerate(lines):
        if matter:
            matter = line != "---" or number == 0
            yield "" if line == "---" else line
            continue
        depth = len(line) - len(line.lstrip())
        while line.strip() and depths and depth < depths[-1]:
            depths.pop()
        text = line[depths[-1] if depths else 0 :]
        mark = _FENCE.match(text)
        if fence:
            closes = mark is not None and text.strip().rstrip(fence[0]) == ""
            if language in {"python", "py"}:
                comment = _COMMENT.search(text)
                yield comment[1] if comment and not closes else ""
            else:
                yield text
            fence = "" if closes and mark and len(mark[1]) >= len(fence) else fence
        elif mark is not None:
            fence, language = mark[1], mark[2]
            yield "" if language in {"python", "py"} else text
        elif re.match(r"\s*(?:!!!|\?\?\?\+?|===) ", text):
            depths.append(depth + 4)
            title = re.search(r'"(.*)"', text)
            yield title[1] if title else ""
        else:
            yield _ID.sub(lambda found: " " * len(found[0]), text)


def _put(name: str, text: str) -> None:
    path = _PAGES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(plain(text), encoding="utf-8")


def _fetch() -> None:
    """Have what is pinned in build/prose, or say why it is not there."""
    pins = hashlib.sha256((PROSE / "package-lock.json").read_bytes()).hexdigest()
    stamp = _WORK / "pins.txt"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == pins:
        return
    shutil.rmtree(_WORK, ignore_errors=True)
    _WORK.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(PROSE / name, _WORK / name)
    done = node.run("npm", *node.CI, folder=_WORK)
    if done.returncode:
        sys.exit(f"The prose is not linted, since npm could not fetch textlint:\n{done.stderr}")
    stamp.write_text(pins, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
