"""The checker of external links, on servers of our own: it finds what is dead, and is polite."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from site_build import links
from site_build.links import external_links, follow


class Server(ThreadingHTTPServer):
    """Answers by path, and remembers who asked for what, and how many at once."""

    def __init__(self, both: threading.Barrier | None = None, patience: float = 0.2) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.both, self.patience = both or threading.Barrier(2), patience
        self.asked: list[str] = []
        self.agents: set[str | None] = set()
        self.together = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def answer(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.agents.add(self.headers["User-Agent"])
        self.reply()

    def reply(self) -> None:
        name = self.path.strip("/")
        if name.startswith("slow"):  # gives another request the time to come meanwhile
            with contextlib.suppress(threading.BrokenBarrierError):
                self.server.both.wait(self.server.patience)
                self.server.together = True
        if name == "cut":  # no answer at all
            return
        if name == "garbage":
            self.wfile.write(b"\x00\x01 not HTTP\r\n\r\n")
            return
        if name == "get-only":
            self.send_response(405 if self.command == "HEAD" else 200)
        elif name in {"moved", "loop", "to-dead", "to-file"}:
            self.send_response(301)
            target = {"moved": "/fine", "loop": "/loop", "to-dead": "/404", "to-file": "file:///"}
            self.send_header("Location", target[name])
        else:
            self.send_response(int(name) if name.isdigit() else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as running:
        yield running


@pytest.mark.parametrize("path", ["fine", "get-only"])
def test_what_answers_is_alive(server: Server, path: str) -> None:
    (answer,) = follow([f"{server.address}/{path}"])
    assert (answer.dead, answer.text) == (False, "200")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("404", "404 Not Found"),
        ("410", "410 Gone"),
        ("500", "500 Internal Server Error"),
        ("to-dead", "404 Not Found"),
        ("loop", "infinite loop"),
        ("to-file", "not allowed"),
        ("cut", "Remote end closed"),
        ("garbage", ""),
    ],
)
def test_what_does_not_is_dead(server: Server, path: str, says: str) -> None:
    (answer,) = follow([f"{server.address}/{path}"])
    assert answer.dead
    assert says in answer.text
    assert answer.text


def test_a_link_that_moved_is_alive_and_reported(server: Server) -> None:
    (answer,) = follow([f"{server.address}/moved"])
    assert (answer.dead, answer.text) == (False, f"moved to {server.address}/fine")


@pytest.mark.parametrize("code", [401, 403, 429])
def test_what_shuts_out_programs_is_not_called_dead(server: Server, code: int) -> None:
    (answer,) = follow([f"{server.address}/{code}"])
    assert not answer.dead
    assert answer.text.startswith(str(code))


def test_a_refused_connection_is_dead() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    (answer,) = follow([f"http://127.0.0.1:{port}/"])
    assert answer.dead
    assert "refused" in answer.text


def test_a_host_that_says_nothing_is_dead() -> None:
    """It accepts the connection, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        (answer,) = follow([address], timeout=0.05)
    assert answer.dead
    assert "timed out" in answer.text


@pytest.mark.parametrize(
    "address", ["http://", "http://[", "http://[x/", "http://127.0.0.1:port/", "http://a b/"]
)
def test_an_address_that_is_none_is_dead(address: str) -> None:
    (answer,) = follow([address])
    assert answer.dead


def test_a_host_is_asked_one_thing_at_a_time(server: Server) -> None:
    follow([f"{server.address}/{path}" for path in ("slow-1", "slow-2", "get-only")])
    assert not server.together
    assert server.asked == ["HEAD /slow-1", "HEAD /slow-2", "HEAD /get-only", "GET /get-only"]
    assert server.agents == {links.AGENT}


def test_hosts_are_asked_side_by_side() -> None:
    """Which also shows that the test above would notice it."""
    both = threading.Barrier(2)
    with serving(Server(both, 60)) as one, serving(Server(both, 60)) as other:
        follow([f"{one.address}/slow", f"{other.address}/slow"])
        assert one.together
        assert other.together


def test_external_links_are_found_once_each(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.html").write_text(
        '<a href="https://x.org/p?q=1&amp;r=2#here">x</a> <a href="https://x.org/p?q=1&amp;r=2">x</a>'
        '<a href="b.html">in</a> <a href="#top">in</a> <a href="mailto:a@x.org">mail</a> <a>no</a>'
        '<a href="http://[">bad</a>'
        '<a href="http://localhost:8000">own</a> <a href="https://me.example/x.html">own</a>'
        '<link rel="canonical" href="https://y.org/">',
        encoding="utf-8",
    )
    (tmp_path / "sub" / "b.html").write_text('<A HREF="https://x.org/p?q=1&r=2">', encoding="utf-8")
    assert external_links(tmp_path) == {
        "https://x.org/p?q=1&r=2": {"a.html", "sub/b.html"},
        "http://[": {"a.html"},
    }


def test_the_session_fails_for_a_dead_link(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(links, "SITE", tmp_path / "site")
    with pytest.raises(SystemExit, match="build the site first"):
        links.main()
    (tmp_path / "site").mkdir()
    page = tmp_path / "site" / "page.html"
    page.write_text(f'<a href="{server.address}/fine">x</a>', encoding="utf-8")
    assert links.main() == 0
    page.write_text(
        f'<a href="{server.address}/fine">x</a> <a href="{server.address}/404">x</a>',
        encoding="utf-8",
    )
    assert links.main() == 1
    out = capsys.readouterr().out
    assert f"DEAD {server.address}/404: 404 Not Found\n  in page.html\n" in out
    assert out.endswith("2 external addresses, 1 dead\n")
