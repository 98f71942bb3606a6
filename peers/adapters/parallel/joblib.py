"""joblib: https://github.com/joblib/joblib."""

from collections.abc import Callable, Iterable
from typing import Any

from joblib import Parallel, delayed

from peers.adapters.parallel import Mapper


class Threading(Mapper):
    """With threads, for functions that wait or release the GIL."""

    name = 'joblib.Parallel, "threading"'
    package = "joblib"
    documented = "https://joblib.readthedocs.io/en/stable/parallel.html"
    take_it = "One call for threads, processes, Dask and Ray, and batches for short functions."
    imports = "from joblib import Parallel, delayed"

    @staticmethod
    def over(function: Callable[[Any], Any], items: Iterable[Any], limit: int = 4) -> list[Any]:
        calls = (delayed(function)(each) for each in items)
        results: list[Any] = Parallel(n_jobs=limit, backend="threading")(calls)
        return results
