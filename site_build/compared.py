"""The comparison's pages: tables, cells and reproductions, from peers/results and peers/claims."""

from collections.abc import Iterator
from html import escape
from typing import Any

from peers.claims import Audit, Claim, audits, claims
from peers.results import facts, read
from peers.running import FAMILIES
from site_build.records import EVIDENCE

SHOWN = EVIDENCE / "compare.inc"
# The home page's six libraries and five questions, of the caches.
SHORT_ROWS = (
    "stdlib-LruCache",
    "cachetools-WithLock",
    "cachetools-WithCondition",
    "cachebox-LRU",
    "diskcache-Barrier",
    "dogpile-Memory",
    "ours-TTLCache",
)
SHORT_CHECKS = ("single_flight", "failing_loader", "recursion", "invalidation", "none_cached")

_HERE = "https://executable-guarantees.example/"  # as the components' headers name this site

# Verdict → mark, and in words.
MARKS = {
    "holds": ("✓", "holds"),
    "broken": ("✗", "fails"),
    "stated": ("≠", "its text says otherwise"),
    "unpromised": ("○", "does not; not promised"),
    "unread": ("○", "does not; not audited"),
    "none": ("–", "not offered"),
    "open": ("?", "not shown"),
}
_HOW = {"every interleaving": "all", "many runs": "runs", "one run": "once"}


def verdict(cell: dict[str, Any], claim: Claim | None, *, plain: bool, audited: bool) -> str:
    """A key of MARKS. Red is what was claimed or goes without saying, and was audited."""
    if cell["outcome"] == "holds":
        return "holds"
    if cell["outcome"] == "not offered":
        return "none"
    if cell["outcome"] != "fails":
        return "open"
    if claim is not None and claim.says != "yes":
        return "stated"
    if claim is None and not plain:
        return "unpromised"
    return "broken" if audited else "unread"


class Table:
    """A family's results with what the libraries claim."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.record = read(family)
        self.checks: dict[str, Any] = self.record["checks"]
        self.rows: dict[str, Any] = self.record["rows"]
        self.audits: dict[str, Audit] = audits(family)
        self.claims = {
            (row, check): each
            for each in reversed(claims(family))
            for row in each.rows
            for check in each.checks
        }

    def verdict(self, row: str, check: str) -> str:
        """Of one cell."""
        return verdict(
            self.rows[row]["cells"][check],
            self.claims.get((row, check)),
            plain=self.checks[check]["plain"],
            audited=row in self.audits,
        )

    def anchor(self, row: str, check: str = "") -> str:
        """Where a row's section, or a cell, stands on the family's page."""
        return f"{row}-{check}".lower().replace("_", "-").rstrip("-")


def render() -> str:
    """All parts that the pages include."""
    parts = []
    for family in FAMILIES:
        if not read(family):
            continue
        table = Table(family)
        parts += [
            _part(f"{family}-table", _table(table, list(table.rows), list(table.checks))),
            _part(f"{family}-asked", _asked(table)),
            _part(f"{family}-cells", "\n".join(_cells(table))),
        ]
        if family == "caches":
            rows = [each for each in SHORT_ROWS if each in table.rows]
            checks = [each for each in SHORT_CHECKS if each in table.checks]
            page = "compare/caches.md"
            parts.append(_part("memory", _memory(table)))
            parts.append(_part("short", _table(table, rows, checks, page=page, small=True)))
    parts.append(_part("facts", _facts()))
    parts.append(_part("summary", _summary()))
    return "\n".join(parts)


def _part(name: str, text: str) -> str:
    return f"<!-- --8<-- [start:{name}] -->\n{text}\n<!-- --8<-- [end:{name}] -->\n"


def _table(
    table: Table, rows: list[str], checks: list[str], *, page: str = "", small: bool = False
) -> str:
    """A row for each library, a column for each question: on a phone a card for each library."""
    target = page.replace(".md", ".html")
    shown = [each for each in checks if each != "adapter_sound"]
    head = "".join(
        f'<th scope="col"><a href="{target}#{_asks(table, check)}">'
        f"<span>{escape(table.checks[check]['question'])}</span></a></th>"
        for check in shown
    )
    body = "\n".join(_row(table, row, shown, target) for row in rows)
    kind = "peers short" if small else "peers"
    return (
        f'<div class="peers-box" data-search-exclude>\n<table class="{kind}">\n'
        f'<thead><tr><th scope="col">Library</th>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _row(table: Table, row: str, checks: list[str], target: str) -> str:
    head = table.rows[row]["head"]
    version = f"<small>{escape(head['version'])}</small>" if head["version"] else ""
    name = (
        f'<th scope="row"><a href="{target}#{table.anchor(row)}">{escape(head["name"])}</a>'
        f"{version}</th>"
    )
    cells = "".join(_cell(table, row, check, target) for check in checks)
    return f"<tr{' class=ours' if head['ours'] else ''}>{name}{cells}</tr>"


def _cell(table: Table, row: str, check: str, target: str) -> str:
    cell, kind = table.rows[row]["cells"][check], table.verdict(row, check)
    mark, words = MARKS[kind]
    how = _HOW.get(cell.get("how", ""), "")
    question = escape(table.checks[check]["question"])
    said = '<sup title="its own text speaks of it">§</sup>' * ((row, check) in table.claims)
    return (
        f'<td class="{kind}"><a href="{target}#{table.anchor(row, check)}">'
        f'<span class="q">{question}</span><span class="mark" aria-hidden="true">{mark}</span>'
        f'<span class="words">{words}</span>'
        + (f"<small>{how}</small>" if how else "")
        + f"</a>{said}</td>"
    )


def _asks(table: Table, check: str) -> str:
    return f"asked-{check}".replace("_", "-")


def _asked(table: Table) -> str:
    """What each question means, and why it matters."""
    items = []
    for name, check in table.checks.items():
        if name == "adapter_sound":
            continue
        reports = [
            f'<a href="{escape(address)}">{escape(library)}</a>'
            for library, address in check["reports"]
        ]
        told = f" Reported in public: {', '.join(reports)}." if reports else ""
        plain = " <em>Expected of everybody.</em>" if check["plain"] else ""
        items.append(
            f'<dt id="{_asks(table, name)}">{escape(check["question"])}</dt>\n'
            f"<dd>{escape(check['expectation'])} {escape(check['why'])}{plain}{told}</dd>"
        )
    return "<dl>\n" + "\n".join(items) + "\n</dl>"


def _cells(table: Table) -> Iterator[str]:
    """A section for each row: its adapter, what it claims, what was observed, reproductions."""
    for slug, row in table.rows.items():
        head = row["head"]
        yield f"### {head['name']} {{ #{table.anchor(slug)} }}\n"
        stamps = sorted({cell["date"] for cell in row["cells"].values()})
        pythons = sorted({cell["python"] for cell in row["cells"].values()})
        version = f"{head['package']} {head['version']}, " if head["version"] else ""
        unexplored = f" Not explored: {head['unexplored']}." if head["unexplored"] else ""
        audit = table.audits.get(slug)
        read = f" Read again on <time>{audit.read}</time>: {audit.note}" if audit else ""
        yield (
            f"{version}run on <time>{stamps[-1]}</time> with Python {', '.join(pythons)}, "
            f"used as [its documentation says]({_local(head['documented'], page='.md')}). "
            f"{head['take_it']}{unexplored}{read}\n"
        )
        yield '<table class="cells">'
        yield "<thead><tr><th>Asked</th><th>Its own text</th><th>Observed</th></tr></thead><tbody>"
        for check in row["cells"]:
            yield _observed(table, slug, check)
        yield "</tbody></table>\n"
        yield '<details markdown="1">\n<summary>The adapter</summary>\n'
        yield f"```text\n{head['adapter'].rstrip()}\n```\n\n</details>\n"
        for check, cell in row["cells"].items():
            if cell.get("program"):
                yield (
                    f'<details id="{table.anchor(slug, check)}-program" markdown="1">\n'
                    f"<summary>{escape(table.checks[check]['question'])}: "
                    f"see it fail in {len(cell['program'].splitlines())} lines</summary>\n\n"
                    f"```python\n{cell['program'].strip()}\n```\n\n"
                    f"```text\n{cell['shows']}\n```\n\n</details>\n"
                )


def _local(address: str, *, page: str = ".html") -> str:
    """An address of our own as one that leads there from the comparison's pages."""
    if "://" in address and not address.startswith(_HERE):
        return address
    path, _, place = address.removeprefix(_HERE).partition("#")
    return f"../{path.rpartition('.')[0]}{page}{place and '#' + place}"


def _observed(table: Table, row: str, check: str) -> str:
    cell, claim = table.rows[row]["cells"][check], table.claims.get((row, check))
    kind = table.verdict(row, check)
    said = "–"
    if claim is not None:
        link = escape(_local(claim.address))
        said = f'{claim.says}: <a href="{link}">“{escape(claim.sentence)}”</a>'
    how = f" ({cell['how']})" if "how" in cell else ""
    times = ""
    if "failed" in cell:
        failed, runs = cell["failed"]
        times = f" {failed} of {runs} runs."
    if cell.get("program"):
        times += f' <a href="#{table.anchor(row, check)}-program">See it fail</a>'
    mark, words = MARKS[kind]
    question = escape(table.checks[check]["question"])
    return (
        f'<tr id="{table.anchor(row, check)}"><td>{question}</td><td>{said}</td>'
        f'<td class="{kind}"><b>{mark} {words}{how}</b>: {escape(cell["seen"])}.{times}</td></tr>'
    )


def _facts() -> str:
    """A row for each distribution."""
    heads = ["Package", "Version", "Last release", "Licence", "Pulls in", "Size", "Import"]
    heads += ["Compiled", "Free-threaded"]
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|--:|--:|---|---|"]
    for name, fact in facts().get("packages", {}).items():
        compiled = "yes" if fact["compiled"] else ", ".join(fact["compiled_below"]) or "no"
        level = f" ({fact['free_threaded_level']})" if fact["free_threaded_level"] else ""
        lines.append(
            f"| [{name}](https://pypi.org/project/{name}/) | {fact['version']} "
            f"| <time>{fact['last_release']}</time> | {fact['licence']} "
            f"| {', '.join(fact['pulls_in']) or '–'} "
            f"| {fact['bytes_with_all'] / 1e6:.1f} MB | {fact['import_ms']:.0f} ms "
            f"| {compiled} | {fact['free_threaded']}{level} |"
        )
    return "\n".join(lines)


def _memory(table: Table) -> str:
    """What an entry costs, the smallest first."""
    heads = sorted((r["head"] for r in table.rows.values()), key=lambda h: h["bytes_per_entry"])
    lines = ["| | Bytes for an entry |", "|---|--:|"]
    lines += [f"| {head['name']} | {head['bytes_per_entry']:,.0f} |" for head in heads]
    return "\n".join(lines)


def _summary() -> str:
    """How much was asked: a row for each family, no score."""
    lines = [
        "| Family | Ways to use a library | Questions | Cells run | Last |",
        "|---|--:|--:|--:|---|",
    ]
    for family in FAMILIES:
        if read(family):
            table = Table(family)
            cells = [cell for row in table.rows.values() for cell in row["cells"].values()]
            last = max(cell["date"] for cell in cells)
            lines.append(
                f"| [{table.record['title']}](../compare/{family}.md) | {len(table.rows)} "
                f"| {len(table.checks) - 1} | {len(cells)} | <time>{last}</time> |"
            )
    return "\n".join(lines)
