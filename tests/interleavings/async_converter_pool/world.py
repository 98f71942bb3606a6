"""Files, a watch that is told by hand, and threads that run in turns, for AsyncConverterPool."""

import asyncio
import contextlib
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any

from tests.kit.fakes import PATIENCE
from tests.kit.primitives import rebind
from tests.queues.async_converter_pool.faults import put_watch

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


class Watch:
    """In DirectoryWatch's place: gives what is there on entry, and what is announced."""

    def __init__(self, path: Path, patterns: object, **_: object) -> None:
        self._path = Path(path)
        self.news: asyncio.Queue[Path | Exception] = asyncio.Queue()

    async def __aenter__(self) -> "Watch":
        for path in sorted(self._path.glob("*.csv")):
            self.news.put_nowait(path)
        World.now.watches[self._path.name] = self
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)

    async def __aiter__(self) -> AsyncIterator[Path]:
        while True:
            news = await self.news.get()
            if isinstance(news, Exception):
                raise news
            yield news
            World.now.noted(news)


class World(Executor):
    """Directories, a pool, what became of the files, and where they are converted."""

    now: "World"

    def __init__(self, module: Any, root: Path, *boxes: str) -> None:
        World.now = self
        self.module, self.root = module, root
        self.watches: dict[str, Watch] = {}
        self.boxes = {name: root / name for name in boxes}
        for box in self.boxes.values():
            box.mkdir()
        self.started: list[str] = []
        self.submitted: list[str] = []
        self.threads: list[Thread] = []
        self.hangs = asyncio.Event()
        self.busy = self.most = 0
        self.noted: Callable[[Path], None] = lambda path: None  # the pool took note of it

    def pool(self, *, own: bool = False, **options: Any) -> Any:
        converters = [
            self.module.Converter(name, box, ("*.csv",), self.convert, priority=number)
            for number, (name, box) in enumerate(self.boxes.items())
        ]
        options["executor"] = None if own else self
        return self.module.AsyncConverterPool(converters, self.send, **options)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        future: Future[Any] = Future()
        asyncio.get_running_loop().create_task(
            self._call(future, partial(fn, *args, **kwargs)), name="call"
        )
        return future

    async def _call(self, future: "Future[Any]", call: Callable[[], str]) -> None:
        await asyncio.sleep(0)
        if future.set_running_or_notify_cancel():
            self.busy += 1
            self.most = max(self.busy, self.most)
            try:
                text = call()
                await (self.hangs.wait() if text == "hangs" else asyncio.sleep(0))
                future.set_result(text)
            except OSError as error:
                future.set_exception(error)
            self.busy -= 1

    def convert(self, path: Path) -> str:
        self.started.append(path.name)
        text = path.read_text()
        if isinstance(thread := threading.current_thread(), Thread) and text == "hangs":
            thread.hang()
        return text

    async def send(self, text: str) -> None:
        await asyncio.sleep(0)
        self.submitted.append(text)

    def drop(self, name: str, text: str, box: str = "in") -> None:
        """As a producer does, and as a watch announces it."""
        staged = self.root / "staged"
        staged.write_text(text)
        staged.rename(self.boxes[box] / name)
        if box in self.watches:
            self.watches[box].news.put_nowait(self.boxes[box] / name)

    def texts(self, folder: str, box: str = "in") -> list[str]:
        files = (self.boxes[box] / folder).glob("*.csv")
        return sorted(file.read_text() for file in files)

    async def until(self, condition: Callable[[], object]) -> None:
        for _ in range(2000):  # of the explored loop's own time
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it never came to pass: a file or a slot was lost")

    async def finish(self) -> None:
        """Start again, until nothing is left."""
        pool = self.pool()
        async with pool:
            await self.until(lambda: not any(self.texts(".", box) for box in self.boxes))


class Thread(threading.Thread):
    """A thread that runs only while a task of the loop waits for it, until it hangs or ends."""

    def __init__(self, *, target: Any, args: Any = (), **_: object) -> None:
        super().__init__(daemon=True)
        self._call = partial(target, *args)
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._hanging = self._given_up = False
        self._world = World.now
        self._world.threads.append(self)

    def start(self) -> None:
        asyncio.get_running_loop().create_task(self._go(), name="thread")

    async def _go(self) -> None:
        await asyncio.sleep(0)
        world = self._world
        world.busy += 1
        world.most = max(world.busy, world.most)
        super().start()
        self._await_back()
        if self._hanging:
            await world.hangs.wait()
            self._turn.release()
            self._await_back()
        world.busy -= 1

    def _await_back(self) -> None:
        assert self._back.acquire(timeout=PATIENCE)

    def run(self) -> None:
        """In the thread."""
        self._call()
        self._hanging = False
        self._back.release()

    def hang(self) -> None:
        """In the thread: wait for another turn."""
        self._hanging = True
        self._back.release()
        assert self._turn.acquire(timeout=PATIENCE)
        if self._given_up:
            raise SystemExit

    def give_up(self) -> None:
        """End it if it hangs."""
        if self._hanging:
            self._given_up = True
            self._turn.release()
            self.join(PATIENCE)


@contextlib.contextmanager
def world(module: Any, *boxes: str) -> Iterator[World]:
    root = Path(tempfile.mkdtemp(dir=MEMORY))
    undo = [put_watch(module, Watch), rebind(module, Thread=Thread)]
    there = World(module, root, *boxes)
    try:
        yield there
    finally:
        for thread in there.threads:
            thread.give_up()
        for each in reversed(undo):
            each()
        shutil.rmtree(root)
