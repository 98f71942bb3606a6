"""Uploads past one process: the same `upload` function on Celery workers, with a Redis broker.

Start as many workers as you like, on any host that sees the files:
`celery --app celery_uploads worker --concurrency 5`
"""

import asyncio
import os
from pathlib import Path
from typing import Any

from celery import Celery

from reference_impl.queues.async_pending_queue import exponential_backoff

app = Celery("uploads", broker=os.environ["BROKER_URL"])
app.conf.update(
    # At least once. A message is done when its upload is, not when a worker has taken it.
    task_acks_late=True,
    # When the process that uploads dies, its worker gives the message back at once.
    task_reject_on_worker_lost=True,
    # When the whole worker dies, Redis gives the message to another one after so many seconds:
    # longer than any upload or countdown, or that is done twice at the same time.
    broker_transport_options={"visibility_timeout": float(os.environ.get("VISIBILITY", "3600"))},
    # A worker takes one message more than it uploads, and not four for each process.
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
)


async def upload(path: Path) -> None:
    """What an AsyncPendingQueue would be given, unchanged."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["SERVER_PORT"]))
    try:
        writer.write(path.name.encode() + b"\n" + path.read_bytes())
        writer.write_eof()
        if await reader.read() != b"stored":
            raise ConnectionError(f"the server did not store {path.name}")
    finally:
        writer.close()


@app.task(bind=True, max_retries=4)  # type: ignore[untyped-decorator]
def upload_file(self: Any, path: str) -> None:
    """Upload a file; a failure goes back to the broker, to be tried again after a while."""
    try:
        asyncio.run(asyncio.wait_for(upload(Path(path)), timeout=600))
    except Exception as error:
        pause = exponential_backoff(self.request.retries + 1)
        raise self.retry(exc=error, countdown=pause) from error
