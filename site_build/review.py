"""The executable review: docs/review/verdicts.toml, rendered with links to what shows each verdict.

A proof is a guarantee's ID ("TC-4"), a test ("tests/docs/test_review.py::test_x"), the
measurements of a component ("figures:ttl_cache"), or a place on the site
("docs/queues/memory_queue.md#what-goes-wrong"). tests/docs/test_review.py resolves each.
"""

import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from tests.kit import ROOT
from tests.kit.catalogue import all_promises

REVIEW = ROOT / "docs" / "review"
VERDICTS = {
    "confirmed": "the claim holds, and this shows it",
    "corrected": "right in part: this is what holds",
    "refuted": "wrong: this shows it",
    "done": "a recommendation, carried out",
}


def data() -> dict[str, Any]:
    """The systems, findings, checklist items and sections as they stand in the data file."""
    return tomllib.loads((REVIEW / "verdicts.toml").read_text(encoding="utf-8"))


def pages() -> dict[Path, str]:
    """The generated page of the review, as it should read."""
    return {REVIEW / "index.md": _render(data())}


def heading(path: Path) -> str:
    """The title of a page in docs."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(line[2:].strip() for line in lines if line.startswith("# "))


def _render(review: dict[str, Any]) -> str:
    findings = review["finding"]
    count = Counter(finding["verdict"] for finding in findings)
    legend = [f"| *{name}* | {count[name]} | {text} |" for name, text in VERDICTS.items()]
    parts = [
        "---\ntitle: Review\ndescription: The analysis that this project grew from, claim by "
        "claim, each with a verdict that a test or a measurement shows.\n"
        "search:\n  exclude: true\n---",
        "# The review, executed",
        review["introduction"].strip(),
        "| Verdict | Claims | Meaning |\n|---|--:|---|\n" + "\n".join(legend),
        "The table is generated from a data file, and a test holds each proof against\n"
        "the tests, guarantees, figures and pages that exist.\n"
        "Who doubts a verdict runs what stands beside it.",
        "## The systems, and where each stands now",
        _systems(review["system"]),
    ]
    for section in review["section"]:
        rows = [_finding(f) for f in findings if f["section"] == section["number"]]
        if rows:
            head = "| The analysis says | Verdict | What holds | Shown by |\n|---|---|---|---|\n"
            parts += [f"## {section['title']}", head + "\n".join(rows)]
    parts += ["## The checklist, ticked by tests", review["checklist_introduction"].strip()]
    parts.append("\n".join(f"- ✓ {item['text']} ({_proofs(item)})" for item in review["item"]))
    return "\n\n".join(parts) + "\n"


def _systems(systems: list[dict[str, Any]]) -> str:
    rows = [
        f"| {system['name']} | {system['was']} | [{heading(ROOT / 'docs' / page)}](../{page}) "
        f"| {system['now']} |"
        for system in systems
        for page in [system["page"]]
    ]
    head = "| System | What it was built on | Reference | Where it stands |\n|---|---|---|---|\n"
    return head + "\n".join(rows)


def _finding(finding: dict[str, Any]) -> str:
    return (
        f"| {finding['claim']} | *{finding['verdict']}* | {finding['holds']} "
        f"| {_proofs(finding)} (<time>{finding['date']}</time>) |"
    )


def _proofs(entry: dict[str, Any]) -> str:
    return ", ".join(map(_proof, entry["proof"]))


def _proof(proof: str) -> str:
    if proof.startswith("figures:"):
        name = proof.removeprefix("figures:")
        return f"[figures](../evidence/{name}.md#figures)"
    if proof.startswith(("tests/", "site_build/")):
        path, _, name = proof.partition("::")
        # A long name may be broken, or the table's other columns would be a word wide.
        name = name.replace("_", "_<wbr>")
        return f"<code>{name}</code> in <code>{Path(path).name}</code>"
    if proof.startswith("docs/"):
        path, _, anchor = proof.removeprefix("docs/").partition("#")
        return f"[{heading(ROOT / 'docs' / path)}](../{path}{'#' * bool(anchor)}{anchor})"
    component = Path(all_promises()[proof]).name
    return f"[{proof}](../evidence/{component}.md#{proof.lower()})"
