"""Events, topics and figures: what both buses share."""

import copy
import pickle
from dataclasses import FrozenInstanceError
from datetime import UTC, timedelta
from types import ModuleType
from typing import Any

import pytest

from reference_impl.buses import event as event_module
from reference_impl.buses.event import ANY, BusStats, Event, EventType, Subscription
from tests.kit.twins import Twin, build, must_fail, override


def test_an_event_is_made_with_an_identity_and_a_utc_time() -> None:
    first, second = Event.create("topic", 1), Event.create("topic", 1)
    assert first.event_id != second.event_id
    assert first.created_at.tzinfo is UTC
    assert first.created_at.utcoffset() == timedelta(0)
    assert (first.event_type, first.payload) == ("topic", 1)
    assert Event.create("topic").payload is None


def test_an_event_is_immutable() -> None:
    event = Event.create("topic")
    with pytest.raises(FrozenInstanceError):
        event.payload = 1  # type: ignore[misc]


@pytest.mark.parametrize("topic", ["text", 7, ("a", 1), EventType.JOB_FAILED, None, frozenset()])
def test_any_hashable_value_is_a_topic(topic: Any) -> None:
    assert Event.create(topic).event_type == topic


def test_a_member_of_the_enum_and_its_text_are_one_topic() -> None:
    assert {EventType.TEST_RESULT: 1}["test_result"] == 1  # type: ignore[index]


def check_the_hash_leaves_the_payload_out(m: ModuleType) -> None:
    event = m.Event.create("topic", {"not": "hashable"})
    assert hash(event) == hash(copy.copy(event))
    assert len({event, copy.copy(event)}) == 1


def test_the_hash_leaves_the_payload_out() -> None:
    check_the_hash_leaves_the_payload_out(event_module)


def test_a_twin_that_hashes_the_payload_fails() -> None:
    hashes_it = override(
        "Event.__hash__", lambda original: lambda self: hash((self.event_type, self.payload))
    )
    twin = Twin("hashes the payload", hashes_it, "TypeError: unhashable")
    must_fail(twin, lambda: check_the_hash_leaves_the_payload_out(build(event_module, hashes_it)))


def test_events_and_any_survive_copying_and_pickling() -> None:
    event = Event.create(EventType.ITEM_ADDED, [1, 2])
    assert pickle.loads(pickle.dumps(event)) == event
    assert copy.deepcopy(ANY) is pickle.loads(pickle.dumps(ANY)) is ANY
    assert repr(ANY) == "ANY"


@pytest.mark.parametrize(
    ("topic", "error", "words"),
    [
        ([], TypeError, r"^event_type must be hashable, got \[\]"),
        (ANY, ValueError, r"^event_type is ANY, .*: publish under a topic of your own$"),
    ],
)
def test_a_bad_topic_is_refused(topic: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Event.create(topic)
    with pytest.raises(error, match=words):
        Event(topic)


def test_figures_are_immutable_and_named() -> None:
    stats = BusStats(published=1, delivered=2, failed=3, dropped=4, pending=5)
    with pytest.raises(FrozenInstanceError):
        stats.pending = 0  # type: ignore[misc]


def test_a_subscription_cancels_by_its_bus_and_on_leaving() -> None:
    calls: list[str] = []

    def cancel() -> bool:
        calls.append("cancel")
        return len(calls) == 1

    with Subscription(cancel) as subscription:
        assert subscription.cancel()
    assert not subscription.cancel()
    assert len(calls) == 3
