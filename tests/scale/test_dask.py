"""parallel_execute on a Dask cluster with worker processes of its own."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor
from types import SimpleNamespace
from typing import Any

import pytest

from reference_impl.bridges import parallel_execute as module
from reference_impl.bridges.parallel_execute import (
    DeadlineExceeded,
    RemoteError,
    parallel_as_completed,
    parallel_execute,
)
from tests.bridges.parallel_execute import odd
from tests.kit.process import interpret

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    settings = {"distributed.scheduler.allowed-failures": 0, "distributed.worker.daemon": True}
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def _no_thread_is_left() -> None:
    """Dask keeps threads for as long as its client lives."""


def ten_over(key: int) -> float | None:
    return None if key == 10 else 10 / key


def process(key: int) -> int:
    return os.getpid()


def wait_if_told(key: str) -> str:
    if key == "waits":
        distributed.Event("go").wait(timeout=60)
    return key


def kill_worker(key: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def outcomes(results: list[Any]) -> list[Any]:
    return [r.value if r.is_success else (type(r.error), str(r.error)) for r in results]


@pytest.mark.guarantee("PE-8", "PE-1", "PE-2")
def test_a_cluster_gives_the_same_results_as_threads(executor: Executor) -> None:
    keys = [5, 0, 10, 4, 0, 1, *range(20, 40)]
    told: list[tuple[int, int | None]] = []
    there = parallel_execute(
        iter(keys), ten_over, 3, executor=executor, on_progress=lambda *now: told.append(now)
    )
    here = parallel_execute(iter(keys), ten_over, 3)
    assert [result.key for result in there] == keys
    assert outcomes(there) == outcomes(here)
    assert told == [(n, None) for n in range(1, len(keys) + 1)]


def test_operations_run_in_the_workers_processes(client: Any, executor: Executor) -> None:
    results = parallel_execute(range(8), process, 4, executor=executor)
    seen = {result.unwrap() for result in results}
    assert seen <= set(client.run(os.getpid).values())
    assert os.getpid() not in seen


@pytest.mark.guarantee("PE-4", "PE-8")
def test_the_deadline_holds_on_a_cluster(
    client: Any, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    results = parallel_execute(
        ["ends", "waits"],
        wait_if_told,
        2,
        timeout=9.0,
        executor=executor,
        on_progress=lambda *_: clock.__setitem__(0, 9.0),
    )
    before = outcomes(results)
    distributed.Event("go", client=client).set()
    assert before == ["ends", (DeadlineExceeded, "not finished within 9.0 s")]
    assert outcomes(results) == before


@pytest.mark.guarantee("PE-5", "PE-8")
def test_fail_fast_starts_nothing_more_on_a_cluster(executor: Executor) -> None:
    results = parallel_execute([5, 0, 2, 1], ten_over, 1, fail_fast=True, executor=executor)
    kinds = [kind if isinstance(kind, float) else kind[0] for kind in outcomes(results)]
    assert kinds == [2.0, ZeroDivisionError, CancelledError, CancelledError]


def test_a_pure_executor_runs_equal_keys_once(client: Any, executor: Executor) -> None:
    """Why the example says `pure=False`."""
    pure, own = (
        [r.unwrap() for r in parallel_execute([8, 8], os.urandom, 2, executor=kind)]
        for kind in (client.get_executor(), executor)
    )
    assert pure[0] == pure[1]
    assert own[0] != own[1]


@pytest.mark.guarantee("PE-8")
def test_a_key_whose_worker_dies_is_a_failure(executor: Executor) -> None:
    (result,) = parallel_execute([1], kill_worker, executor=executor)
    assert type(result.error) is distributed.KilledWorker  # type: ignore[union-attr]
    assert outcomes(parallel_execute([5], ten_over, executor=executor)) == [2.0]


@pytest.mark.guarantee("PE-10")
def test_what_cannot_travel_fails_its_key_alone(executor: Executor) -> None:
    results: list[Any] = parallel_execute(
        ["first", *odd.ERRORS, "last"], odd.fail_oddly, 2, executor=executor
    )
    assert (results[0].unwrap(), results[-1].unwrap()) == ("first", "last")
    for name, result in zip(odd.ERRORS, results[1:-1], strict=True):
        if name == "unpicklable":  # but not for cloudpickle
            assert type(result.error) is odd.Unpicklable
        else:
            assert type(result.error) is RemoteError
            assert "refused (7)" in str(result.error)
            assert "in fail_oddly" in result.error.traceback
    travels: Any
    (travels,) = parallel_execute(["a"], odd.travel, executor=executor)
    assert (type(travels.error), travels.error.args) == (odd.Travels, ("a", 7))
    keys = ["first", "odd", "odd inside", "last"]
    values = parallel_execute(keys, odd.give, 2, executor=executor)
    assert outcomes(values) == [
        ["first"],
        *[(LookupError, "cannot be unpickled")] * 2,
        ["last"],
    ]


@pytest.mark.guarantee("PE-11")
def test_results_come_from_a_cluster_until_the_consumer_leaves(executor: Executor) -> None:
    taken = []
    for index, result in parallel_as_completed(
        [5, 0, *range(1, 50)], ten_over, 2, executor=executor
    ):
        taken.append((index, result.key))
        if len(taken) == 5:
            break
    assert len({index for index, _ in taken}) == 5
    assert outcomes(parallel_execute([5], ten_over, executor=executor)) == [2.0]


def test_the_example_of_the_page(executor: Executor) -> None:
    from tests.scale.dask_parallel_execute import factors

    assert factors([15, 1], executor) == factors([15, 1]) == ([3], [1])
    done = interpret("-m", "tests.scale.dask_parallel_execute")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "found [7, 104729, 7919], and none for [1, 0]\n"
