"""Buses in processes that multiprocessing makes: what runs there, and what can be wrong."""

import multiprocessing
from multiprocessing.util import Finalize
from typing import Any

from tests.kit.twins import Fault, override, within

START = """
    import tests.kit.copies; tests.kit.copies.install()
    import asyncio, gc, logging, multiprocessing, os, sys, threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of fork with threads
    from reference_impl.buses import async_event_bus, event_bus
    from reference_impl.buses.event import Event
    from tests.buses.event_bus import children
    from tests.kit.twins import build
"""


def in_children(code: str, module: str, *methods: str) -> str:
    """Runs the code in a child of each kind, with `told`, a queue; prints what that was given.

    Its `module` is made in the parent, before a fork: by then it has said what atexit is to do.
    """
    code = START + f"    module = vars(children).get('made') or {module}\n" + code
    return f"""{START}
    children.made = {module}
    for method in {methods!r}:
        context = multiprocessing.get_context(method)
        told = context.Queue()
        child = context.Process(target=exec, args=({code!r}.replace("\\n    ", "\\n"),
                                                   {{"told": told, "method": method}}))
        child.start()
        child.join()
        assert child.exitcode == 0, child.exitcode
        found = []
        while not told.empty():
            found.append(told.get())
        print(method, *found, flush=True)
        told.close()
        told.join_thread()
    """


def forgets_children() -> Fault:
    """Asks nobody to be called at the end of a process."""
    return within("buses/event", override("finish_with_process", lambda _: lambda finish: None))


def _finish_late(finish: Any) -> None:
    if multiprocessing.parent_process() is not None:
        Finalize(None, finish, exitpriority=0)


def finishes_late() -> Fault:
    """Does so when multiprocessing has closed its queues."""
    return within("buses/event", override("finish_with_process", lambda _: _finish_late))
