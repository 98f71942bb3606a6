"""EventBus at the end of processes that multiprocessing made, and where nothing can be done."""

import multiprocessing
import sys
from functools import partial
from types import ModuleType

import pytest

from reference_impl.buses.event import finish_with_process
from reference_impl.buses.event_bus import EventBus
from tests.buses.event_bus import children
from tests.buses.event_bus.children import START, in_children
from tests.kit.process import run_python
from tests.kit.twins import Twin, edit, must_fail, within

METHODS = multiprocessing.get_all_start_methods()
forking = pytest.mark.skipif("fork" not in METHODS, reason="no fork here")

ENDS = """
    gate = threading.Event()
    class Bus(module.EventBus):
        def stop(self, *arguments, **options):
            gate.set()
            return super().stop(*arguments, **options)

    def handle(event):
        gate.wait()
        told.put(event.payload)

    bus = Bus(1)
    bus.subscribe("topic", handle)
    bus.start()
    told.put("begun")  # its thread and its end are there from now on
    for number in range(5):
        bus.publish(module.Event("topic", number))
"""


def check_children_are_drained(module: str, *methods: str) -> None:
    """Their handlers still reach the parent by a queue of multiprocessing."""
    done = run_python(in_children(ENDS, module, *methods))
    assert done.stdout.splitlines() == [f"{method} begun 0 1 2 3 4" for method in methods]


@pytest.mark.guarantee("EB-2")
@pytest.mark.parametrize("method", METHODS)
def test_a_child_of_each_kind_is_drained_at_its_end(method: str) -> None:
    check_children_are_drained("event_bus", method)


def check_the_exit_drains_a_running_bus(module: str) -> None:
    done = run_python(
        f"""
    from reference_impl.buses import event_bus
    from tests.kit.twins import build, edit, within
    module = {module}
    bus = module.EventBus(1)
    bus.subscribe("topic", lambda event: print(event.payload, flush=True))
    bus.start()
    for number in range(100):
        bus.publish(module.Event("topic", number))
    """
    )
    assert done.stdout.split() == [str(number) for number in range(100)]
    assert done.stderr == ""


@pytest.mark.guarantee("EB-2")
def test_the_interpreters_exit_drains_a_running_bus() -> None:
    check_the_exit_drains_a_running_bus("event_bus")


UNHEARD = Twin(
    "asks nobody to be called at the exit",
    within("buses/event", edit("finish_with_process", "atexit.register(finish)", "pass")),
    "AssertionError: done.stdout.split() ==",
)


@pytest.mark.twin("EB-2", fault=UNHEARD.name, fails=UNHEARD.ends)
def test_a_bus_that_is_not_drained_at_the_exit_is_caught() -> None:
    fault = 'within("buses/event", edit("finish_with_process", "atexit.register(finish)", "pass"))'
    module = f'build("buses/event_bus", {fault})'
    must_fail(UNHEARD, partial(check_the_exit_drains_a_running_bus, module))


FAULTS = {
    "forgets_children": Twin(
        "asks nobody to be called at the end of a process",
        children.forgets_children(),
        "AssertionError: assert ['fork begun'] == ['fork begun 0 1 2 3 4']",
    ),
    "finishes_late": Twin(
        "finishes when multiprocessing has closed its queues",
        children.finishes_late(),
        "AssertionError: assert ['fork begun'] == ['fork begun 0 1 2 3 4']",
    ),
}


@forking
@pytest.mark.parametrize(
    ("fault", "twin"),
    [
        pytest.param(*each, marks=pytest.mark.twin("EB-2", fault=each[1].name, fails=each[1].ends))
        for each in FAULTS.items()
    ],
    ids=list(FAULTS),
)
def test_a_child_that_is_not_drained_is_caught(fault: str, twin: Twin) -> None:
    module = f"build(event_bus, children.{fault}())"
    must_fail(twin, partial(check_children_are_drained, module, "fork"))


@forking
def test_a_bus_that_runs_in_the_parent_is_drained_in_the_child_that_starts_it_again() -> None:
    done = run_python(
        f"""{START}
    gate = threading.Event()

    class Bus(event_bus.EventBus):
        def stop(self, *arguments, **options):
            gate.set()
            return super().stop(*arguments, **options)

    def handle(event):
        gate.wait()
        print(event.payload, flush=True)

    bus = Bus(1)
    bus.subscribe("topic", handle)

    def child():
        assert not bus.is_running
        bus.start()
        bus.publish(Event("topic", "the child's"))
        bus.publish(Event("topic", "and the next"))

    bus.start()
    bus.publish(Event("topic", "the parent's"))
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0
    """
    )
    assert done.stdout.splitlines() == ["the child's", "and the next", "the parent's"]
    assert done.stderr == ""


@forking
def test_a_child_logs_what_a_stuck_handler_leaves() -> None:
    stuck = """
    from tests.buses.event_bus.helpers import hooked
    block = hooked(event_bus)
    block.__enter__().impatient = True
    begun = threading.Event()
    bus = event_bus.EventBus(1, name="stuck-bus")
    bus.subscribe("topic", lambda event: (begun.set(), threading.Event().wait()))
    bus.start()
    bus.publish(Event("topic"))
    bus.publish(Event("topic"))
    begun.wait()
    """
    done = run_python(in_children(stuck, "event_bus", "fork"))
    assert "stuck-bus stopped, but" in done.stderr
    assert "1 events undelivered" in done.stderr


@forking
@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_what_ends_a_process_at_once_drains_nothing(end: str) -> None:
    """The limit that the page states: nobody is asked before such an end."""
    done = run_python(
        f"""{START}
    def child():
        bus = event_bus.EventBus(1)
        bus.subscribe("topic", lambda event: (begun.set(), threading.Event().wait()))
        bus.subscribe("topic", lambda event: print("handled", flush=True))
        bus.start()
        begun = threading.Event()
        bus.publish(Event("topic"))
        begun.wait()
        {end}

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    """
    )
    assert done.stdout == done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="no signals to oneself")
def test_a_default_sigterm_drains_nothing_and_one_that_is_requested_does() -> None:
    serve = """
    import queue, signal
    requests = queue.SimpleQueue()
    {handler}
    seen = []
    with event_bus.EventBus(1) as bus:
        bus.subscribe("topic", lambda event: print(event.payload, flush=True))
        bus.subscribe("kill", lambda event: os.kill(os.getpid(), signal.SIGTERM))
        bus.publish(Event("kill"))
        for number in range(3):
            bus.publish(Event("topic", number))
        requests.get()
    """
    handler = "signal.signal(signal.SIGTERM, lambda number, frame: requests.put(number))"
    killed = run_python(START + serve.format(handler=""), expect=-15)
    assert killed.stderr == ""
    drained = run_python(START + serve.format(handler=handler))
    assert drained.stdout.split() == ["0", "1", "2"]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="no isolated interpreters to be made here")
def test_an_isolated_interpreter_refuses_its_threads() -> None:
    """The limit that the page states; the bus stays stopped."""
    done = run_python(
        """
    import _interpreters, os
    code = f'''if True:
        import sys
        sys.path.insert(0, {os.getcwd()!r})
        from reference_impl.buses.event_bus import EventBus
        bus = EventBus(1)
        try:
            bus.start()
        except RuntimeError as error:
            print(error, bus.is_running, flush=True)
    '''
    interpreter = _interpreters.create("isolated")
    print(_interpreters.exec(interpreter, code))
    """
    )
    assert "daemon threads are disabled" in done.stdout
    assert done.stdout.splitlines()[0].endswith(" False")


def test_multiprocessing_is_not_imported_by_the_buses() -> None:
    run_python(
        """
    import sys
    from reference_impl.buses import async_event_bus, event_bus
    with event_bus.EventBus(1):
        assert not any(name.partition(".")[0] == "multiprocessing" for name in sys.modules)
    """
    )


@pytest.mark.parametrize("method", [method for method in METHODS if method != "fork"])
def test_a_bus_that_an_import_starts_before_the_child_has_begun_is_drained(method: str) -> None:
    done = run_python(
        f"""{START}
    import importlib

    class Imports:
        def __reduce__(self):
            return importlib.import_module, ("tests.buses.event_bus.early",)

    context = multiprocessing.get_context({method!r})
    child = context.Process(target=id, args=(Imports(),))
    child.start()
    child.join()
    assert child.exitcode == 0
    """
    )
    assert done.stdout.split() == ["0", "1", "2", "3", "4"]


def test_an_import_of_multiprocessing_that_is_under_way_is_no_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another thread imports it just then: its module is there, and empty."""
    for name in ("multiprocessing.process", "multiprocessing.util"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    finish_with_process(lambda: None)
    with EventBus(1) as bus:
        assert bus.is_running
