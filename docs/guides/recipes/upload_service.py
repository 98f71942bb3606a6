"""A service that uploads what programs drop into a directory, and drains when it is told to stop.

Copy the queue beside this file:
    python -m reference_impl copy async_pending_queue vendored
Run it:
    python upload_service.py /var/spool/reports https://reports.example/upload/
"""

import argparse
import asyncio
import functools
import http.client
import logging
import signal
import urllib.parse
from pathlib import Path

from vendored.queues.async_pending_queue import AsyncPendingQueue, exponential_backoff


def put(url: str, path: Path, timeout: float) -> None:
    """Send one file; anything but a 2xx answer is an error. The server must accept it twice."""
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=timeout)
    try:
        with path.open("rb") as file:
            length = {"Content-Length": str(path.stat().st_size)}
            connection.request("PUT", parts.path + urllib.parse.quote(path.stem), file, length)
            answer = connection.getresponse()
            answer.read()
        if not 200 <= answer.status < 300:
            raise ConnectionError(f"the server says {answer.status} {answer.reason}")
    finally:
        connection.close()


async def serve(options: argparse.Namespace) -> None:
    """Upload until SIGTERM or SIGINT; then finish what is under way, or put it back."""

    async def upload(path: Path) -> None:
        await asyncio.to_thread(put, options.url, path, options.timeout)

    queue = AsyncPendingQueue(
        options.directory,
        upload,
        max_concurrency=options.concurrency,
        max_attempts=200,  # with these pauses an outage may last 16 hours
        backoff=functools.partial(exponential_backoff, cap=600.0),
    )
    loop, stopping = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def stop() -> None:
        logging.info("stopping: what is being uploaded gets %g seconds", options.drain)
        stopping.add(loop.create_task(queue.stop(options.drain)))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    logging.info("uploading from %s", options.directory)
    await queue.run()
    logging.info("stopped: %s", queue.stats)


def main() -> None:
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser(description="Upload each NAME.queued of a directory.")
    parser.add_argument("directory", type=Path, help="where programs drop the files")
    parser.add_argument("url", help="where to: PUT URL/NAME")
    parser.add_argument("--concurrency", type=int, default=5, help="uploads at once")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds without an answer")
    parser.add_argument("--drain", type=float, default=30.0, help="seconds to finish on SIGTERM")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
