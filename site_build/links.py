"""Follow the external links of the built site: `nox -s links`.

Politely: each address once, one at a time for each host, HEAD first, GET where HEAD is refused.
Only that the page answers is checked, not the place in it that a fragment names.
"""

import sys
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path

from tests.kit.site import SITE

AGENT = "Mozilla/5.0 (compatible; link check of a documentation site)"
HOSTS_AT_A_TIME = 8
# Refused by the host to programs such as this one, and so neither alive nor dead.
UNWELCOME = {401, 403, 429}


@dataclass(frozen=True)
class Answer:
    """What an address answered."""

    address: str
    dead: bool
    text: str  # "200", "moved to …", "404 Not Found", "timed out"


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get("href") if tag == "a" else None
        if address and address.lower().startswith(("http://", "https://")):
            self.found.add(address.partition("#")[0])


def main() -> int:
    """Check the site; 1 if a link is dead."""
    links = external_links(SITE)
    if not links:
        raise SystemExit("no external link was found: build the site first")
    answers = sorted(follow(links), key=lambda answer: (answer.dead, answer.address))
    for answer in answers:
        if answer.dead or answer.text != "200":
            print(f"{'DEAD ' if answer.dead else ''}{answer.address}: {answer.text}")
            for page in sorted(links[answer.address]) if answer.dead else ():
                print(f"  in {page}")
    dead = sum(answer.dead for answer in answers)
    print(f"{len(answers)} external addresses, {dead} dead")
    return int(dead > 0)


def external_links(site: Path) -> dict[str, set[str]]:
    """Each external address, without its fragment, and the pages that have it."""
    links: dict[str, set[str]] = defaultdict(set)
    for page in site.rglob("*.html"):
        parser = _Links()
        parser.feed(page.read_text(encoding="utf-8"))
        for address in parser.found:
            # The site's own made-up name, and what a reader's own machine serves.
            host = _host(address).partition(":")[0]
            if not host.endswith(".example") and host != "localhost":
                links[address].add(page.relative_to(site).as_posix())
    return dict(links)


def _host(address: str) -> str:
    """The host and its port: "docs.python.org"; whatever stands there, if it is none."""
    return address.split("/")[2]


def follow(addresses: Iterable[str], timeout: float = 30.0) -> list[Answer]:
    """Ask each address, several hosts side by side."""
    hosts: dict[str, list[str]] = defaultdict(list)
    for address in addresses:
        hosts[_host(address)].append(address)

    def ask(host: str) -> list[Answer]:
        return [_ask(address, timeout) for address in hosts[host]]

    with ThreadPoolExecutor(HOSTS_AT_A_TIME) as pool:
        return [answer for answers in pool.map(ask, hosts) for answer in answers]


def _ask(address: str, timeout: float) -> Answer:
    texts = []
    for method in ("HEAD", "GET"):
        try:
            request = urllib.request.Request(
                address, method=method, headers={"User-Agent": AGENT, "Accept": "*/*"}
            )
            with urllib.request.urlopen(request, timeout=timeout) as response:
                moved = response.url.partition("#")[0] != address
                return Answer(address, False, f"moved to {response.url}" if moved else "200")
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in UNWELCOME and method == "GET":
                return Answer(address, False, f"{error.code}: not for programs; look yourself")
            texts.append(f"{error.code} {error.reason}")
        except (OSError, HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            texts.append(str(reason) or type(reason).__name__)
    return Answer(address, True, texts[-1])


if __name__ == "__main__":
    sys.exit(main())
