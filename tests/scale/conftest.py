"""What the tests on clusters share."""

from concurrent.futures import Executor
from typing import Any

import pytest

# An example that a page shows. It reads its broker's address when it is imported, as Celery's
# applications do, so --doctest-modules cannot import it: test_celery starts it with one.
collect_ignore = ["celery_uploads.py"]


@pytest.fixture
def executor(client: Any) -> Executor:
    """The executor of the test file's own Dask client."""
    executor: Executor = client.get_executor(pure=False)
    return executor
