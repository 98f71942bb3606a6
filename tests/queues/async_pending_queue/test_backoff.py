"""exponential_backoff, a pure function (PQ-4), and what a faulty one does."""

import asyncio
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reference_impl.queues.async_pending_queue import AsyncPendingQueue, exponential_backoff
from tests.queues.async_pending_queue.disk import drop, files


@pytest.mark.guarantee("PQ-4")
@example(attempt=1002, base=1e-300, cap=300.0, fraction=1.0)  # it doubles a thousand times
@given(
    attempt=st.integers(1, 10**6),
    base=st.floats(0, 1e300),
    cap=st.floats(0, 1e300),
    fraction=st.floats(0, 1),
)
def test_backoff_doubles_up_to_its_cap_with_full_jitter(
    attempt: int, base: float, cap: float, fraction: float
) -> None:
    longest = exponential_backoff(attempt, base=base, cap=cap, jitter=lambda: 1.0)
    assert longest == min(cap, base * 2.0 ** min(attempt - 1, 1000))
    assert exponential_backoff(attempt, base=base, cap=cap, jitter=lambda: 0.0) == 0
    got = exponential_backoff(attempt, base=base, cap=cap, jitter=lambda: fraction)
    assert got == fraction * longest
    after = exponential_backoff(attempt + 1, base=base, cap=cap, jitter=lambda: 1.0)
    assert longest <= after <= cap


@pytest.mark.guarantee("PQ-4")
def test_backoff_uses_the_whole_interval() -> None:
    chance = random.Random(1)
    drawn = [exponential_backoff(4, jitter=chance.random) for _ in range(4000)]
    for eighth in range(8):
        assert 400 < sum(eighth <= seconds < eighth + 1 for seconds in drawn) < 600
    assert exponential_backoff(4) != exponential_backoff(4)
    longest = [exponential_backoff(attempt, jitter=lambda: 1.0) for attempt in (1, 9, 10, 99)]
    assert longest == [1.0, 256.0, 300.0, 300.0]


def test_backoff_takes_numbers_of_any_size() -> None:
    assert exponential_backoff(3, base=10**400, jitter=lambda: 1.0) == 300.0
    assert exponential_backoff(3, cap=10**400, jitter=lambda: 1.0) == 4.0
    assert exponential_backoff(3, base=10**400, cap=math.inf, jitter=lambda: 0.0) == 0.0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attempt": 0}, ValueError, "attempt must be at least 1, not 0"),
        ({"attempt": 1.5}, TypeError, "attempt must be an int, not 1.5"),
        ({"attempt": 1, "base": -1}, ValueError, "base must be at least 0 seconds, not -1"),
        ({"attempt": 1, "cap": math.nan}, ValueError, "cap must be at least 0 seconds, not nan"),
        ({"attempt": 1, "cap": "60"}, TypeError, "cap must be a number of seconds, not '60'"),
    ],
)
def test_backoff_refuses_what_is_no_number(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        exponential_backoff(**options)


def sulking(failures: int) -> float:
    raise ZeroDivisionError("no pause")


@pytest.mark.guarantee("PQ-4")
@pytest.mark.parametrize(
    ("backoff", "error"),
    [
        (lambda n: -1.0, ValueError),
        (lambda n: math.nan, ValueError),
        (lambda n: "soon", TypeError),
        (lambda n: None, TypeError),
        (sulking, ZeroDivisionError),
    ],
)
async def test_a_faulty_backoff_ends_the_queue_and_loses_nothing(
    directory: Path,
    plain_watch: None,
    backoff: Any,
    error: type[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The file that failed is put back, and what runs beside it is cancelled and put back."""

    async def upload(path: Path) -> None:
        if path.stem == "b":
            await asyncio.get_running_loop().create_future()
        raise ConnectionError("no route")

    for name in "ba":
        drop(directory, name, b"1")
    queue = AsyncPendingQueue(directory, upload, backoff=backoff)
    with pytest.raises(error):
        await queue.run()
    assert files(directory) == {"a.queued": b"1", "b.queued": b"1"}
    assert (directory / ".a.attempts").read_bytes() != b""
    logged = [record.getMessage() for record in caplog.records if record.exc_info]
    assert "backoff(1) failed: the queue ends" in logged
