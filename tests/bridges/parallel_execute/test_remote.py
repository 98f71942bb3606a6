"""parallel_execute with processes: keys, values and errors that do not travel."""

import copy
import multiprocessing
import pickle
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from reference_impl.bridges import parallel_execute as module
from reference_impl.bridges.parallel_execute import (
    RemoteError,
    parallel_as_completed,
    parallel_execute,
)
from tests.bridges.parallel_execute import faults, odd
from tests.bridges.parallel_execute.helpers import (
    Gate,
    Inline,
    clocked,
    failing,
    join_own_threads,
    outcomes,
)
from tests.kit.process import run_python
from tests.kit.proofs import Proof, holding
from tests.kit.twins import Fault, Twin, override, patch

KEYS = ["first", *odd.ERRORS, "last"]


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


# Each check runs on the component (the guarantee), and on broken twins, where it must fail.


def check_an_odd_error_fails_its_key_alone(m: ModuleType) -> None:
    """In a model of a process pool, which breaks by what cannot be unpickled."""
    results = m.parallel_execute(
        ["first", *odd.NAMED, "last"], odd.fail_oddly, 2, executor=odd.Pickling()
    )
    assert [result.is_success for result in results] == [True, *[False] * len(odd.NAMED), True]
    for name, result in zip(odd.NAMED.values(), results[1:], strict=False):
        assert type(result.error) is m.RemoteError
        assert (result.error.type_name, result.error.text) == (name, "refused (7)")
        assert str(result.error) == f"{name}: refused (7)"
        for text in ("in fail_oddly", "what was behind it"):
            assert text in result.error.traceback
            assert text in shown(result.error)


def check_an_error_that_travels_is_itself(m: ModuleType) -> None:
    for executor in (odd.Pickling(), Inline(), None):
        (result,) = m.parallel_execute(["a"], odd.travel, executor=executor)
        assert type(result.error) is odd.Travels
        assert result.error.args == ("a", 7)
        assert "in travel" in shown(result.error)


def check_an_odd_value_fails_its_key_alone(m: ModuleType) -> None:
    keys = ["first", "unpicklable", "odd", "odd inside", "last"]
    first, *odd_ones, last = m.parallel_execute(keys, odd.give, executor=odd.Pickling())
    assert (first.unwrap(), last.unwrap()) == (["first"], ["last"])
    assert [type(result.error) for result in odd_ones[1:]] == [LookupError] * 2


def check_nothing_is_pickled_in_this_process(m: ModuleType) -> None:
    """An executor of threads keeps even an error and a value that could not be pickled."""
    with ThreadPoolExecutor(1) as pool:
        for executor in (None, pool, Inline()):
            error = odd.Unpicklable("refused")

            def refuse(key: int, error: Exception = error) -> None:
                raise error

            (result,) = m.parallel_execute([1], refuse, executor=executor)
            assert result.error is error
            value = odd.Odd()
            (result,) = m.parallel_execute([value], lambda key: key, executor=executor)
            assert result.unwrap() is value


class Length:
    """Keys that say how often they were asked for their number, and what they say to that."""

    def __init__(self, says: Callable[[], Any]) -> None:
        self.asked = 0
        self.says = says

    def __iter__(self) -> Iterator[int]:
        return iter((7, 8))

    def __len__(self) -> Any:
        self.asked += 1
        return self.says()


def raising(error: BaseException) -> Callable[[], Any]:
    def say() -> Any:
        raise error

    return say


def check_nobody_asks_for_a_length_in_vain(m: ModuleType) -> None:
    for call in (m.parallel_execute, m.parallel_as_completed):
        keys, told = Length(lambda: 2), list[Any]()
        list(call(keys, str, 1))
        assert keys.asked == 0
        list(call(keys, str, 1, on_progress=lambda *now, told=told: told.append(now)))
        assert keys.asked == 1
        assert told == [(1, 2), (2, 2)]


def check_what_is_no_length_is_no_total(m: ModuleType) -> None:
    for says in (
        raising(TypeError("object of type 'generator' has no len()")),
        raising(OSError("the database is gone")),
        raising(RecursionError()),
        lambda: -1,
        lambda: None,
        lambda: 2.0,
        lambda: 10**100,
    ):
        for call in (m.parallel_execute, m.parallel_as_completed):
            told = list[Any]()
            list(call(Length(says), str, 1, on_progress=lambda *now, told=told: told.append(now)))
            assert told == [(1, None), (2, None)]


def kind(m: ModuleType, result: Any) -> str:
    match result:
        case m.Success(value=value):
            return str(value)
        case m.Failure(error=m.DeadlineExceeded()):
            return "the deadline"
        case m.Failure(error=TimeoutError()):
            return "its own"
    return "another"


def check_the_deadlines_error_is_told_from_an_operations_own(m: ModuleType) -> None:
    gate, stuck = Gate(), Gate()

    def operation(key: str) -> str:
        if key == "own":
            raise TimeoutError("the server does not answer")
        if key == "stuck":
            stuck.set()
            gate.pass_through()
        return key

    def keys() -> Iterator[str]:
        yield from ("fine", "own", "stuck", "waits")
        stuck.pass_through()
        clock.now += 5.0

    with ThreadPoolExecutor(1) as pool, clocked(m) as clock:
        for executor, workers in ((None, 1), (pool, 4)):
            gate.clear()
            stuck.clear()
            results = m.parallel_execute(keys(), operation, workers, timeout=5.0, executor=executor)
            kinds = [kind(m, result) for result in results]
            gate.set()
            join_own_threads()
            assert kinds == ["fine", "its own", "the deadline", "the deadline"]
            for result in results[2:]:
                for same in (copy.copy(result), pickle.loads(pickle.dumps(result.error))):
                    error = getattr(same, "error", same)
                    assert (type(error), error.args) == (m.DeadlineExceeded, result.error.args)


# Twins.


def _as_before(m: ModuleType) -> None:
    """The operation is given to an executor as it is."""
    m.Portable = lambda operation: operation  # type: ignore[attr-defined]


def _not_opened(m: ModuleType) -> None:
    m.RemoteError = type("RemoteError", (RuntimeError,), {})  # type: ignore[attr-defined]


def _asking_always(original: Any) -> Any:
    def call(keys: Any, *arguments: Any, **options: Any) -> Any:
        len(keys)
        return original(keys, *arguments, **options)

    return call


def _asking_where_wanted(original: Any) -> Any:
    def call(keys: Any, *arguments: Any, on_progress: Any = None, **options: Any) -> Any:
        if on_progress is not None:
            len(keys)
        return original(keys, *arguments, on_progress=on_progress, **options)

    return call


def _both(make: Callable[[Any], Any]) -> Fault:
    return override("parallel_execute", make) + override("parallel_as_completed", make)


def _plain_timeouts(m: ModuleType) -> None:
    m.DeadlineExceeded = TimeoutError  # type: ignore[attr-defined]


def _pickled_copy(original: Any) -> Any:
    def call(keys: Any, operation: Any, *arguments: Any, **options: Any) -> Any:
        def copied(key: Any) -> Any:
            try:
                return operation(key)
            except Exception as error:
                raise type(error)(*error.args) from None

        return original(keys, copied, *arguments, **options)

    return call


AS_IT_IS = patch(_as_before)
PROOFS = [
    Proof(
        "PE-10",
        check_an_odd_error_fails_its_key_alone,
        [
            Twin(
                "lets errors break a pool",
                AS_IT_IS,
                "AssertionError: == [True, *[False] * len(odd.NAMED), True]",
            ),
        ],
    ),
    Proof(
        "PE-10",
        check_an_error_that_travels_is_itself,
        [
            Twin(
                "tells of each error by another",
                faults.raises_instead(Exception, lambda error: RemoteError("T", str(error), "")),
                ("AssertionError: type(result.error) is odd.Travels", "AssertionError: is odd."),
            )
        ],
    ),
    Proof(
        "PE-10",
        check_an_odd_value_fails_its_key_alone,
        [Twin("lets values break a pool", AS_IT_IS, "RuntimeError: broken")],
    ),
    Proof(
        "PE-2",
        check_nothing_is_pickled_in_this_process,
        [
            Twin(
                "keeps a copy of each error",
                override("parallel_execute", _pickled_copy),
                "AssertionError: result.error is error",
            )
        ],
    ),
    Proof(
        "PE-10",
        check_nobody_asks_for_a_length_in_vain,
        [Twin("always asks", _both(_asking_always), "AssertionError: keys.asked == 0")],
    ),
    Proof(
        "PE-10",
        check_what_is_no_length_is_no_total,
        [
            Twin(
                "lets a failing length end the call",
                _both(_asking_where_wanted),
                "TypeError: object of type 'generator' has no len()",
            )
        ],
    ),
    Proof(
        "PE-10",
        check_the_deadlines_error_is_told_from_an_operations_own,
        [
            Twin(
                "raises plain TimeoutErrors",
                patch(_plain_timeouts),
                'AssertionError: kinds == ["fine", "its own", "the deadline", "the deadline"]',
            )
        ],
    ),
]

test_what_travels = holding(PROOFS, module)
test_check_catches_a_twin_that_sends_otherwise = failing(PROOFS)


def test_a_length_that_is_interrupted_ends_the_call() -> None:
    for call in (parallel_execute, parallel_as_completed):
        with pytest.raises(KeyboardInterrupt):
            call(Length(raising(KeyboardInterrupt())), str, on_progress=lambda *_: None)


# Real pools.


@contextmanager
def forking(method: str) -> Iterator[Executor]:
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        yield pool


@contextmanager
def loky(_: str) -> Iterator[Executor]:
    process_executor = pytest.importorskip("joblib.externals.loky.process_executor")
    with process_executor.ProcessPoolExecutor(2) as pool:
        yield pool


METHODS = [
    pytest.param(forking, "spawn"),
    pytest.param(forking, "forkserver", marks=pytest.mark.skipif("sys.platform == 'win32'")),
    pytest.param(loky, ""),
]


@pytest.mark.guarantee("PE-10")
@pytest.mark.parametrize(("make", "method"), METHODS)
def test_what_does_not_travel_fails_its_key_alone(make: Callable[[str], Any], method: str) -> None:
    with make(method) as pool:
        results: list[Any] = parallel_execute(KEYS, odd.fail_oddly, 2, executor=pool)
        nameless: Any
        travels: Any
        (nameless,) = parallel_execute([1], odd.without_text, executor=pool)
        (travels,) = parallel_execute(["a"], odd.travel, executor=pool)
        values = parallel_execute(
            ["first", "odd", "odd inside", "last"], odd.give, 2, executor=pool
        )
        if make is forking:
            keys = [[1], odd.Odd(), [odd.Odd()], [lambda: None], [2]]
            lengths = outcomes(parallel_execute(keys, odd.length, 2, executor=pool))
            assert lengths[:3] + lengths[4:] == [1, LookupError, LookupError, 1]
            unknown = outcomes(parallel_execute("ab", odd.Unknown(), 2, executor=pool))
            assert unknown == [LookupError] * 2
        assert outcomes(parallel_execute(["x"], odd.fail_oddly, executor=pool)) == ["x"]
    assert (results[0].unwrap(), results[-1].unwrap()) == ("first", "last")
    for result in results[1:-1]:
        assert result.is_failure
        if make is forking:
            assert type(result.error) is RemoteError
            assert "refused (7)" in result.error.text
        assert "what was behind it" in shown(result.error)
    assert nameless.is_failure
    assert str(nameless.error) == "NoText: <exception str() failed>"
    assert travels.is_failure
    assert (type(travels.error), travels.error.args) == (odd.Travels, ("a", 7))
    assert "in travel" in str(travels.error.__cause__)
    assert outcomes(values) == [["first"], LookupError, LookupError, ["last"]]


@pytest.mark.skipif("sys.platform == 'win32'", reason="there is no fork on Windows")
@pytest.mark.guarantee("PE-10")
def test_a_forked_pool_is_not_broken_either() -> None:
    """In a process that has no threads when it forks."""
    run_python("""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        from reference_impl.bridges.parallel_execute import RemoteError, parallel_execute
        from tests.bridges.parallel_execute import odd
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
            pool.submit(int).result()
            results = parallel_execute(["a", *odd.ERRORS, "z"], odd.fail_oddly, 2, executor=pool)
        assert results[0].is_success and results[-1].is_success
        assert all(type(result.error) is RemoteError for result in results[1:-1])
    """)


@pytest.mark.guarantee("PE-10")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_may_define_its_operation_keys_values_and_errors(
    method: str, tmp_path: Any
) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"""
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from reference_impl.bridges.parallel_execute import RemoteError, parallel_execute


class Key:
    def __init__(self, number):
        self.number = number


class Refused(Exception):
    pass


class Odd(Exception):
    def __init__(self, one, other):
        super().__init__(one)


def operation(key):
    if key.number == 1:
        raise Refused(key.number)
    if key.number == 2:
        raise Odd(1, 2)
    return key


if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        zero, one, two, three = parallel_execute(map(Key, range(4)), operation, executor=pool)
    assert zero.unwrap().number == 0 and three.unwrap().number == 3
    assert type(one.error) is Refused and one.error.args == (1,)
    assert type(two.error) is RemoteError and two.error.type_name == "Odd"
""")
    run_python(f"""
        import runpy, sys
        sys.argv = [{str(script)!r}]
        import __main__
        __main__.__file__ = {str(script)!r}
        __main__.__spec__ = None
        exec(compile(open({str(script)!r}).read(), {str(script)!r}, "exec"), vars(__main__))
    """)


def test_a_remote_error_is_a_value() -> None:
    error = RemoteError("Refused", "no", "Traceback …")
    for same in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(same) is RemoteError
        assert (same.type_name, same.text, same.traceback) == ("Refused", "no", "Traceback …")
        assert str(same) == "Refused: no"
    result: Any
    (result,) = parallel_execute(["two arguments"], odd.fail_oddly, executor=odd.Pickling())
    assert result.is_failure
    copied = pickle.loads(pickle.dumps(result))
    assert str(copied.error) == str(result.error)
    assert shown(copied.error).endswith(shown(result.error))


@pytest.mark.guarantee("PE-6")
@pytest.mark.parametrize("operation", [odd.leave, odd.give_an_exit])
def test_an_exit_in_another_process_ends_the_call(operation: Callable[[int], Any]) -> None:
    """Also one that what came from there raises as it is unpickled here."""
    with forking("spawn") as pool:
        for executor in (odd.Pickling(), pool):
            with pytest.raises(SystemExit):
                parallel_execute([1], operation, executor=executor)


@pytest.mark.guarantee("PE-8")
def test_an_executor_that_runs_here_is_given_what_it_can_call() -> None:
    """Also where it is a ProcessPoolExecutor by inheritance."""

    class Here(ProcessPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            return Inline().submit(fn, *args, **kwargs)

    with Here(1) as pool:
        assert outcomes(parallel_execute("12x", int, executor=pool)) == [1, 2, ValueError]
