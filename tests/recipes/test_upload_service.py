"""The upload service of AsyncPendingQueue's page, as a process of its own that SIGTERM drains."""

import http.server
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reference_impl.__main__ import main
from tests.kit.fakes import PATIENCE
from tests.recipes.__main__ import GUIDES, copying

SERVICE = GUIDES / "recipes" / "upload_service.py"
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


class Server:
    """Takes what is sent to it; answers for "slow" wait until they may go."""

    def __init__(self) -> None:
        self.received: dict[str, bytes] = {}
        self.asked, self.may_answer = threading.Event(), threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                name = self.path.rpartition("/")[2]
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if name.startswith("slow"):
                    server.asked.set()
                    assert server.may_answer.wait(PATIENCE)
                server.received[name] = data
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Be quiet."""

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/upload/"

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._http.serve_forever)
        thread.start()
        try:
            yield
        finally:
            self.may_answer.set()
            self._http.shutdown()
            thread.join(PATIENCE)
            self._http.server_close()


def await_file(path: Path, process: "subprocess.Popen[str]") -> None:
    until = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, "the service has ended"
        assert time.monotonic() < until, f"there is no {path.name}"
        time.sleep(0.01)


@posix
@pytest.mark.guarantee("PQ-5")
def test_sigterm_drains_the_service(tmp_path: Path) -> None:
    shutil.copy(SERVICE, tmp_path)
    command = copying(SERVICE)
    command[-1] = str(tmp_path / command[-1])
    assert main(command) == 0
    directory = tmp_path / "spool"
    directory.mkdir()
    (directory / "there before.csv.queued").write_bytes(b"1")
    server = Server()
    arguments = [str(directory), server.url, "--concurrency", "1"]
    service = [sys.executable, "upload_service.py", *arguments]
    with (
        server.running(),
        subprocess.Popen(service, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            await_file(directory / "there before.csv.completed", process)
            (tmp_path / "slow.tmp").write_bytes(b"2")
            (tmp_path / "slow.tmp").rename(directory / "slow.csv.queued")
            assert server.asked.wait(PATIENCE)
            (directory / "late.csv.queued").write_bytes(b"3")
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            while not process.stderr.readline().startswith("INFO stopping"):
                assert process.poll() is None, "the service does not drain"
            server.may_answer.set()
            _, said = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert "completed=2" in said
    assert server.received == {"there%20before.csv": b"1", "slow.csv": b"2"}
    assert sorted(path.name for path in directory.iterdir() if path.name[0] != ".") == [
        "late.csv.queued",
        "slow.csv.completed",
        "there before.csv.completed",
    ]
