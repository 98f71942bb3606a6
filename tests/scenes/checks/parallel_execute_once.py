"""Two workers run two keys, each once."""

import threading
from types import ModuleType

from interleave_test import no_interleave

from tests.bridges.parallel_execute.helpers import started_at_once


def model(module: ModuleType) -> None:
    ran: list[int] = []
    both = threading.Event()

    def operation(key: int) -> int:
        ran.append(key)
        if len(ran) == 2:
            both.set()
        both.wait()  # the workers meet here
        return key * key

    with started_at_once(module), no_interleave():  # the workers alone are interleaved
        results = module.parallel_execute(iter([2, 3]), operation, 2)
    assert sorted(ran) == [2, 3], f"these were run: {ran}"
    assert [result.unwrap() for result in results] == [4, 9]
