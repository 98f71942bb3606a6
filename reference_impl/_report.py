"""What `prove` has found, in words: for a terminal, a pull request, a program, JUnit's readers."""

import json
import math
import platform
import shutil
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

# The gravest last. A guarantee has the gravest word of its checks.
WORDS = ("holds", "not shown", "not offered", "suspect", "BROKEN")
_WIDTH = 30
_RUNS, _LINES = 8, 8  # of a losing schedule: the last runs of a thread, and of each so many lines
_EXPLORED = ("3.12", "interleave", "monitoring")  # in the reason for which a search was skipped


@dataclass
class Finding:
    """One guarantee."""

    id: str
    promise: str
    word: str = "holds"
    checks: int = 0  # that passed
    schedules: int = 0
    reason: str = ""
    check: str = ""  # the one that failed
    losing: dict[str, Any] | None = None
    left_out: list[str] = field(default_factory=list)  # why checks did not run

    def worsen(self, word: str, reason: str, event: Mapping[str, Any]) -> None:
        """Take a graver word, with its reason; of two equal ones, that with a schedule to show."""
        losing = event.get("losing")
        grave, now = WORDS.index(word), WORDS.index(self.word)
        if grave > now or (grave == now and losing and not self.losing):
            self.word, self.reason, self.losing = word, reason, losing
            self.check = str(event.get("test", ""))


@dataclass
class Report:
    """What was proved of one file."""

    component: str
    file: str
    state: str
    profile: str
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def status(self, allowed: Collection[str] = ()) -> int:
        """0 if every guarantee holds, or has a word that is allowed; else 1."""
        return int(any(each.word not in {"holds", *allowed} for each in self.findings))

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "component": self.component,
            "file": self.file,
            "state": self.state,
            "profile": self.profile,
            "python": platform.python_version(),
            "seconds": round(self.seconds, 1),
            "guarantees": [
                {
                    "id": each.id,
                    "word": each.word,
                    "checks": each.checks,
                    "schedules": each.schedules,
                    "reason": each.reason,
                    "check": each.check,
                    "losing": each.losing,
                    "not_run": each.left_out,
                }
                for each in self.findings
            ],
        }


def judged(report: Report, events: Sequence[dict[str, Any]]) -> None:
    """Fill in each guarantee, by what its checks came to."""
    texts = next(each["texts"] for each in events if each["event"] == "promises")
    findings = {name: Finding(name, text) for name, text in texts.items()}
    running: dict[str, Any] = {}
    for event in events:
        mine = [findings[each] for each in event.get("ids", ()) if each in findings]
        if event["event"] == "begun":
            running[event["test"]] = event
        elif event["event"] == "done":
            running.pop(event["test"], None)
            for finding in mine:
                _count(finding, event)
        elif event["event"] == "unread":
            for finding in mine:
                finding.worsen("not shown", _unread(event), event)
    for event in running.values():
        for finding in (findings[each] for each in event["ids"] if each in findings):
            word = "BROKEN" if len(event["ids"]) == 1 else "suspect"
            finding.worsen(word, "the check did not end: it hangs, or its process died", event)
    for finding in findings.values():
        if finding.word == "holds" and not finding.checks:
            finding.worsen("not shown", "; ".join(finding.left_out) or "no check ran", {})
    report.findings = list(findings.values())


def _count(finding: Finding, event: Mapping[str, Any]) -> None:
    word = event["word"]
    if word == "holds":
        finding.checks += 1
        finding.schedules += event["schedules"]
    elif word == "skipped":
        reason = event["reason"]
        if any(each in reason for each in _EXPLORED):
            finding.worsen("not shown", f"some checks need another Python: {reason}", event)
        if reason not in finding.left_out:
            finding.left_out.append(reason)
    else:
        shared = word == "BROKEN" and len(event["ids"]) > 1
        finding.worsen("suspect" if shared else word, event["reason"], event)


def _unread(event: Mapping[str, Any]) -> str:
    *_, last = event["why"].strip().splitlines() or [""]
    return f"{event['file']} did not run: {last.removeprefix('E').strip()}"


# Words.


def heading(file: str, state: str) -> str:
    """The first line about a file."""
    return f"{file}: {state}"


def text(report: Report) -> str:
    """The report for a terminal."""
    lines = []
    for each in report.findings:
        lines.append(f"{each.id:<6} {each.word:<12} {_detail(each)}".rstrip())
        if each.word in {"BROKEN", "suspect"} and each.check:
            lines.append(f"       in {each.check}")
        if each.losing and each.word in {"BROKEN", "suspect"}:
            lines += [f"       {line}" for line in lanes(each.losing)]
    counts = defaultdict[str, int](int)
    for each in report.findings:
        counts[each.word] += 1
    told = ", ".join(f"{counts[word]} {word}" for word in reversed(WORDS) if counts[word])
    lines.append(f"{told}; {report.seconds:.0f} s, Python {platform.python_version()}")
    return "\n".join(lines) + "\n"


def _detail(finding: Finding) -> str:
    if finding.word != "holds":
        shown = finding.losing and finding.word in {"BROKEN", "suspect"}
        where = f", schedule {finding.losing['schedule']:,}" if finding.losing and shown else ""
        return finding.reason + where
    parts = [f"{finding.checks} check{'s' if finding.checks != 1 else ''}"]
    if finding.schedules:
        parts.append(f"{finding.schedules:,} schedules and examples")
    if finding.left_out:
        parts.append(f"not run here: {'; '.join(finding.left_out)}")
    return ", ".join(parts)


def lanes(losing: Mapping[str, Any]) -> list[str]:
    """A losing schedule, a column for each thread or task; long runs of one are shortened."""
    runs = _runs(losing["steps"])
    earlier = len(runs) - _RUNS
    actors = list(dict.fromkeys(actor for actor, _ in runs[-_RUNS:]))
    names = {actor: actor.partition(" ")[0] for actor in actors}
    if len(set(names.values())) < len(actors):  # tasks: their whole names
        names = {actor: actor for actor in actors}
    width = max((len(name) for name in names.values()), default=0)
    lines = [f"… {earlier} earlier switches"] if earlier > 0 else []
    for actor, code in runs[-_RUNS:]:
        indent = "  " * actors.index(actor)
        lines += [f"{names[actor]:<{width}}  {indent}{line}".rstrip() for line in _shortened(code)]
    return [*lines, f"{losing['outcome']}: {losing['details'].partition(chr(10))[0]}"]


def _runs(steps: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """What each thread did until another one went on."""
    found: list[tuple[str, list[str]]] = []
    for step in steps:
        if not step["code"]:
            continue
        if not found or found[-1][0] != step["thread"]:
            found.append((step["thread"], []))
        found[-1][1].append(step["code"])
    return found


def _shortened(code: list[str]) -> list[str]:
    half = _LINES // 2
    return code if len(code) <= _LINES else [*code[:half], "…", *code[-half:]]


def markdown(report: Report) -> str:
    """The report for a pull request."""
    lines = [
        f"### `{report.file}`: {report.state}",
        "",
        f"{report.profile} profile, {report.seconds:.0f} s, Python {platform.python_version()}",
        "",
        "| Guarantee | | |",
        "|---|---|---|",
    ]
    for each in report.findings:
        word = each.word if each.word == "holds" else f"**{each.word}**"
        lines.append(f"| {each.id} | {word} | {_cell(_detail(each))} |")
    for each in report.findings:
        if each.losing:
            code = "\n".join(lanes(each.losing)).replace("```", "'''")
            lines += ["", f"{each.id}, the schedule that breaks it:", "", "```text", code, "```"]
    return "\n".join(lines) + "\n"


def _cell(words: str) -> str:
    return words.replace("|", "\\|").replace("<", "&lt;")


def junit(reports: Sequence[Report]) -> str:
    """JUnit XML: a suite for each file, a case for each guarantee."""
    root = ET.Element("testsuites")
    for report in reports:
        cases = report.findings
        bad = [each for each in cases if each.word in {"BROKEN", "suspect"}]
        skipped = [each for each in cases if each.word.startswith("not")]
        suite = ET.SubElement(
            root,
            "testsuite",
            name=report.file,
            tests=str(len(cases)),
            failures=str(len(bad)),
            skipped=str(len(skipped)),
            time=f"{report.seconds:.1f}",
        )
        for each in cases:
            case = ET.SubElement(suite, "testcase", classname=report.component, name=each.id)
            if each in bad:
                message = f"{each.word}: {each.reason}"
                failure = ET.SubElement(case, "failure", message=message)
                failure.text = "\n".join(lanes(each.losing)) if each.losing else each.check
            elif each in skipped:
                ET.SubElement(case, "skipped", message=f"{each.word}: {each.reason}")
    ET.indent(root)
    return ET.tostring(root, "unicode", xml_declaration=True) + "\n"


class Bar:
    """A line that fills up while the checks run; on a terminal only."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._live = out, out.isatty()
        self._total = self._done = self._failed = 0

    def step(self, line: str) -> None:
        """Hear of an event."""
        if not self._live:
            return
        event = json.loads(line)
        if event["event"] == "collected":
            self._total = event["count"]
        elif event["event"] == "done" and event["when"] != "teardown":
            self._done += 1
            self._failed += event["word"] not in {"holds", "skipped"}
        self._draw()

    def _draw(self) -> None:
        total = max(self._total, self._done, 1)
        filled = math.floor(_WIDTH * self._done / total)
        failed = f", {self._failed} failed" if self._failed else ""
        bar = "#" * filled + "." * (_WIDTH - filled)
        words = f"[{bar}] {self._done} of {total} checks{failed}"
        self._out.write("\r" + words[: shutil.get_terminal_size().columns - 1])
        self._out.flush()

    def close(self) -> None:
        """Leave the line empty for what comes next."""
        if self._live:
            self._out.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
            self._out.flush()
