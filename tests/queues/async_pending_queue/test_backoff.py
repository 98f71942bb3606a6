"""exponential_backoff, a pure function (PQ-4), and what stands in for a faulty one."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reference_impl.queues import async_pending_queue
from reference_impl.queues.async_pending_queue import AsyncPendingQueue, exponential_backoff
from tests.kit.fakes import until
from tests.queues.async_pending_queue.disk import drop
from tests.queues.async_pending_queue.uploads import Pauses, fails_with


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
        ({"attempt": 0}, ValueError, "attempt must be 1 or more, got 0"),
        ({"attempt": 1.5}, TypeError, "attempt must be an int, got 1.5"),
        ({"attempt": 1, "base": -1}, ValueError, "base must be 0 or more seconds, got -1"),
        ({"attempt": 1, "cap": math.nan}, ValueError, "cap must be 0 or more seconds, got nan"),
        ({"attempt": 1, "cap": "60"}, TypeError, "cap must be a number of seconds, got '60'"),
    ],
)
def test_backoff_refuses_what_is_no_number(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        exponential_backoff(**options)


@pytest.mark.parametrize("result", [-1.0, math.nan, "soon", None])
async def test_a_faulty_backoff_is_replaced_by_the_default(
    directory: Path,
    plain_watch: None,
    result: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    default, upload = Pauses(0.0), fails_with(ConnectionError())
    monkeypatch.setattr(async_pending_queue, "exponential_backoff", default)
    drop(directory, "a", b"1")
    queue = AsyncPendingQueue(directory, upload, max_attempts=3, backoff=lambda n: result)
    async with queue:
        await until(lambda: queue.stats.given_up)
    assert (queue.stats.errors, default.asked) == (2, [1, 2])
    logged = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage() for record in logged] == [
        "backoff(1) failed: the default is used",
        "backoff(2) failed: the default is used",
    ]
    for record in logged:
        assert record.exc_info is not None
        assert str(record.exc_info[1]).startswith("what backoff returns must be ")
