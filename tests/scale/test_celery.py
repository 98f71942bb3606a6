"""The uploads on Celery, with a real Redis server, real workers, and their deaths."""

import importlib
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit import ROOT

pytestmark = pytest.mark.timeout(240)
PATIENCE = 90.0  # seconds: a safety net, not a measurement


class StoreServer:
    """Takes uploads, and answers each when the test says what."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._arrived: queue.Queue[tuple[str, bytes, socket.socket]] = queue.Queue()
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            self._connections.append(connection)
            with connection.makefile("rb") as stream:
                sent = stream.read()
            if not sent:
                return
            name, _, content = sent.partition(b"\n")
            self._arrived.put((name.decode(), content, connection))

    def next(self) -> tuple[str, bytes, Callable[[bytes], None]]:
        """Wait for an upload: its name, its content, and how to answer it."""
        name, content, connection = self._arrived.get(timeout=PATIENCE)

        def answer(data: bytes) -> None:
            with connection:
                if data:
                    connection.sendall(data)

        return name, content, answer

    def close(self) -> None:
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        for each in (*self._connections, self._listener):
            each.close()


@pytest.fixture
def server() -> Iterator[StoreServer]:
    server = StoreServer()
    yield server
    server.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """A Redis server on a free port, that keeps nothing: a test that kills its worker leaves
    the message that was not yet acknowledged, and the next test would be given it."""
    program = shutil.which("redis-server")
    assert program, "there is no redis-server: install it with `apt-get install redis-server`"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--bind", "127.0.0.1", "--port", f"{port}", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(
        [program, *options, "--dir", tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ready to accept connections" in line:
                break
        else:
            pytest.fail("redis-server did not start:\n" + "".join(lines))
        draining = threading.Thread(target=process.stdout.read)
        draining.start()
        yield f"redis://127.0.0.1:{port}/0"
        process.terminate()
        draining.join()


class Worker:
    """A Celery worker with one upload at a time, in a session of its own."""

    def __init__(self, log: Path) -> None:
        command = ["-m", "celery", "--app", "tests.scale.celery_uploads", "worker"]
        options = [
            "--concurrency",
            "1",
            "--loglevel",
            "INFO",
            "--without-gossip",
            "--without-mingle",
        ]
        with log.open("a") as output:
            self._process = subprocess.Popen(
                [sys.executable, *command, *options],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill_child(self) -> None:
        """SIGKILL the process that uploads."""
        pid = self._process.pid
        (child, *_) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL all of it."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def start_worker(
    broker: str, server: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Worker]]:
    monkeypatch.setenv("BROKER_URL", broker)
    monkeypatch.setenv("SERVER_PORT", f"{server.port}")
    workers: list[Worker] = []
    log = tmp_path / "worker.log"

    def start() -> Worker:
        workers.append(Worker(log))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
    print(log.read_text())  # shown where a test fails


@pytest.fixture
def submit(broker: str, start_worker: Callable[[], Worker]) -> Iterator[Callable[[Path], object]]:
    """Hand a path to the broker: the settings are read on import, so not before."""
    task = importlib.import_module("tests.scale.celery_uploads").upload_file
    with task.app.connection_for_write(broker) as connection:
        yield lambda path: task.apply_async((str(path),), connection=connection)


def test_each_file_is_uploaded_and_a_refused_one_again(
    tmp_path: Path,
    server: StoreServer,
    start_worker: Callable[[], Worker],
    submit: Callable[[Path], object],
) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(f"content of {name}")
        submit(tmp_path / name)
    start_worker()
    answers = iter([b"refused", b"stored", b"stored"])
    stored = {}
    for answer_with in answers:
        name, content, answer = server.next()
        if answer_with == b"stored":
            stored[name] = content
        answer(answer_with)
    assert stored == {"a.csv": b"content of a.csv", "b.csv": b"content of b.csv"}


def test_an_upload_survives_the_deaths_of_its_process_and_of_its_worker(
    tmp_path: Path,
    server: StoreServer,
    start_worker: Callable[[], Worker],
    submit: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A worker looks for abandoned messages when it starts, and then every 100 s: what the killed
    # one held must be overdue by the first look, however soon that comes. Not in the other test,
    # where a message that waits would be given out twice.
    monkeypatch.setenv("VISIBILITY", "0")
    (tmp_path / "a.csv").write_bytes(b"1;2")
    submit(tmp_path / "a.csv")
    worker = start_worker()
    name, _, _ = server.next()
    worker.kill_child()
    again, _, _ = server.next()  # in the worker's next process
    worker.kill()
    start_worker()
    name_once_more, content, answer = server.next()
    answer(b"stored")
    assert name == again == name_once_more == "a.csv"
    assert content == b"1;2"
