"""The same call of parallel_execute in this process, and on a Dask cluster."""

from concurrent.futures import Executor

from distributed import Client, LocalCluster  # pyright: ignore[reportMissingImports]

from reference_impl.bridges.parallel_execute import parallel_execute, partition


def smallest_factor(number: int) -> int:
    """Work for a processor, which more threads of one process would not speed up."""
    if number < 2:
        raise ValueError(f"{number} has no factors")
    return next((n for n in range(2, int(number**0.5) + 1) if number % n == 0), number)


def factors(numbers: list[int], executor: Executor | None = None) -> tuple[list[int], list[int]]:
    """The factors found, and the numbers that have none."""
    results = parallel_execute(numbers, smallest_factor, 4, executor=executor, timeout=60.0)
    values, failures = partition(results)
    return values, [failure.key for failure in failures]


def main() -> None:
    numbers = [91, 1, 104_729, 0, 7_919 * 104_729]
    here = factors(numbers)
    # The address of a cluster's scheduler in place of a cluster of this machine: Client("tcp://…")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        # pure=False: Dask would otherwise run the operation once for equal keys.
        there = factors(numbers, client.get_executor(pure=False))
    assert here == there == ([7, 104_729, 7_919], [1, 0])
    print(f"found {there[0]}, and none for {there[1]}")


if __name__ == "__main__":  # Dask's worker processes import this file
    main()
