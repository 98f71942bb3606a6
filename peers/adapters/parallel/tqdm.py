"""tqdm: https://github.com/tqdm/tqdm."""

from collections.abc import Callable, Iterable
from typing import Any

from tqdm.contrib.concurrent import thread_map

from peers.adapters.parallel import Mapper


class ThreadMap(Mapper):
    """A progress bar around ThreadPoolExecutor.map."""

    name = "tqdm.contrib thread_map"
    package = "tqdm"
    documented = "https://tqdm.github.io/docs/contrib.concurrent/"
    take_it = "A progress bar for one line."
    imports = "from tqdm.contrib.concurrent import thread_map"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        results: list[Any] = thread_map(function, items, max_workers=limit)
        return results
