"""A loop whose clock stands still, and a watched directory with a converter that can be held."""

import asyncio
import contextlib
import functools
import selectors
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import reference_impl.queues.async_converter_pool as ours
from reference_impl.queues.async_converter_pool import Converter
from tests.kit.fakes import turns
from tests.queues.async_converter_pool.faults import put_watch

COMPONENT = "queues/async_converter_pool"
DATA = Path(__file__).parents[1] / "data"
Check = Callable[[ModuleType, Path], Coroutine[Any, Any, None]]
R = TypeVar("R")
SAFETY_NET = 30.0  # seconds, against hangs: nothing is measured by it
LIMIT = 10.0  # seconds, by the clock that the test puts forward


class _Selector(selectors.DefaultSelector):
    """After each turn of its loop it looks who can go on."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[Callable[[], object], asyncio.Future[None]]] = []
        self.deadline = 0.0

    def select(self, timeout: float | None = None) -> Any:
        for condition, future in self.waiting:
            if not future.done() and condition():
                future.set_result(None)
                timeout = 0
        self.waiting = [pair for pair in self.waiting if not pair[1].done()]
        if (left := self.deadline - time.monotonic()) < 0:
            self.deadline += SAFETY_NET  # for what cleans up
            raise TimeoutError("the test hangs")
        return super().select(left if timeout is None else min(left, timeout))


class Loop(asyncio.SelectorEventLoop):
    """Its clock stands still until it is put forward; a hang ends it all the same."""

    def __init__(self) -> None:
        self.watcher, self.ahead = _Selector(), 1000.0
        super().__init__(self.watcher)

    def time(self) -> float:
        """Seconds since anything."""
        return self.ahead

    def run_until_complete(self, future: Any) -> Any:
        """Run it; one that hangs ends with a TimeoutError."""
        self.watcher.deadline = time.monotonic() + SAFETY_NET
        return super().run_until_complete(future)


def on_a_loop(main: Coroutine[Any, Any, R]) -> R:
    """Run it on a loop of its own."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(main)


def run(check: Check, module: ModuleType, root: Path) -> None:
    """Run the check of this module, in this directory, on a loop of its own."""
    on_a_loop(check(module, root))


def looped(check: Check) -> Callable[[ModuleType, Path], None]:
    """The check as a plain function, which has a loop of its own."""

    @functools.wraps(check)
    def plainly(module: ModuleType, root: Path) -> None:
        run(check, module, root)

    return plainly


async def forward(seconds: float) -> None:
    """Put the loop's clock forward, and give all that sets off its turns."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    loop.ahead += seconds
    await turns()


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds; it is looked at after each turn of the loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    while not condition():
        future = loop.create_future()
        loop.watcher.waiting.append((condition, future))
        await future


class Site:
    """A watched directory, a converter that can be held up, and what became of its files."""

    def __init__(self, root: Path, name: str = "in") -> None:
        self.root, self.box, self.staging = root, root / name, root / "staging"
        for folder in (self.box, self.staging):
            folder.mkdir(exist_ok=True)
        self.name = name
        self.started: list[str] = []  # the files whose conversion has begun, in order
        self.submitted: list[Any] = []
        self.holds: dict[str, threading.Event] = {}  # what conversions wait for
        self.until = until
        self._loop, self._tasks = asyncio.get_running_loop(), set[asyncio.Task[Any]]()

    def converter(self, module: ModuleType = ours, **options: Any) -> "Converter[Any]":
        settings: dict[str, Any] = {"patterns": ("*.csv",), "convert": self.convert, **options}
        made: Converter[Any] = module.Converter(self.name, self.box, **settings)
        return made

    def convert(self, path: Path) -> str:
        self.started.append(path.name)
        self.ring()
        if path.name in self.holds:
            assert self.holds[path.name].wait(SAFETY_NET)
        text = path.read_text()
        if text.startswith("bad"):
            raise ValueError(f"no table in {path.name}")
        return text

    async def submit(self, result: Any) -> None:
        self.submitted.append(result)

    def hold(self, *names: str) -> threading.Event:
        """Let the conversions of these files wait until the event is set."""
        event = threading.Event()
        self.holds.update(dict.fromkeys(names, event))
        return event

    def drop(self, name: str, text: str) -> Path:
        """Write elsewhere, and rename in."""
        staged = self.staging / name
        staged.write_text(text)
        return staged.replace(self.box / name)

    async def begin(self, name: str, text: str) -> None:
        """Drop the first file, and wait until its conversion has begun."""
        self.drop(name, text)
        await until(lambda: self.started)

    def ring(self) -> None:
        """From any thread: there is something to look at."""
        self.post(lambda: None)

    def post(self, call: Callable[..., object], *arguments: object) -> None:
        """From any thread: call it on the loop."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call, *arguments)

    def pool(self, module: ModuleType = ours, **options: Any) -> Any:
        """A pool that submits here."""
        converters = options.pop("converters", None) or [self.converter(module)]
        return module.AsyncConverterPool(converters, options.pop("submit", self.submit), **options)

    @contextlib.asynccontextmanager
    async def entered(self, pool: Any) -> AsyncIterator[Any]:
        """The pool, entered; on leaving nothing is held up any more."""
        before = asyncio.all_tasks()
        try:
            async with pool:
                self._tasks = asyncio.all_tasks() - before
                try:
                    yield pool
                finally:
                    for event in self.holds.values():
                        event.set()
        finally:
            self._tasks = set()

    def running(
        self, module: ModuleType = ours, **options: Any
    ) -> contextlib.AbstractAsyncContextManager[Any]:
        """Such a pool, entered."""
        return self.entered(self.pool(module, **options))

    def ended(self) -> bool:
        """Whether the running pool has ended: all tasks have that it began with."""
        return bool(self._tasks) and all(task.done() for task in self._tasks)

    async def unless_it_ends(self, condition: Callable[[], object]) -> None:
        """Wait until it holds, or fail as soon as the running pool ends before that."""
        await until(lambda: condition() or self.ended())
        assert condition(), "the pool has ended"

    def files(self) -> list[str]:
        """The names of those that are there to be converted, sorted."""
        return sorted(file.name for file in self.box.glob("*.csv"))

    async def left(self) -> None:
        """Wait until no file is left to convert, or fail if the running pool ends before that."""
        await self.unless_it_ends(lambda: not self.files())

    def texts(self, folder: str) -> list[str]:
        """The contents of the files in done or error, sorted; reasons left out."""
        files = (self.box / folder).iterdir()
        return sorted(file.read_text() for file in files if not file.name.endswith(".json"))


class Told:
    """In DirectoryWatch's place: tells of what is there on entry, and then of what a test says.

    A real one may tell twice of a file, and when it does so the second time is not for a test
    to say: where that matters, because somebody opens the file again, this one serves.
    """

    entered: "Told"

    def __init__(self, path: Path, patterns: Any, **_: object) -> None:
        self._path, self._patterns = Path(path), patterns
        self._news = asyncio.Queue[Path]()
        self.taken = 0  # news that the pool has taken note of

    async def __aenter__(self) -> "Told":
        Told.entered = self
        for file in sorted(self._path.glob(*self._patterns)):
            self.tell(file)
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def tell(self, file: Path) -> None:
        self._news.put_nowait(file)

    async def __aiter__(self) -> AsyncIterator[Path]:
        while True:
            yield await self._news.get()
            self.taken += 1


@contextlib.contextmanager
def told(module: ModuleType) -> Iterator[None]:
    """Let the module be told by hand of its files."""
    undo = put_watch(module, Told)
    try:
        yield
    finally:
        undo()


# What stands in for converters and submissions where none is called.


def plain(path: Path) -> str:
    return path.name


async def submit(result: object) -> None:
    pass


def converter_of(tmp_path: Path, **changes: Any) -> "Converter[str]":
    settings = {"name": "c", "watch_dir": tmp_path, "patterns": ("*.csv",), "convert": plain}
    return Converter(**{**settings, **changes})


def start(*converters: "Converter[str]") -> None:
    """Run a pool of them until that ends."""
    asyncio.run(ours.AsyncConverterPool(converters, submit).run())


class Undecided(Exception):
    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")
