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
from tests.kit.twins import twin


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


def unhashable_payloads_are_hashed_around(module: ModuleType) -> None:
    event = module.Event.create("topic", {"not": "hashable"})
    assert hash(event) == hash(copy.copy(event))
    assert len({event, copy.copy(event)}) == 1


def test_the_hash_leaves_the_payload_out() -> None:
    unhashable_payloads_are_hashed_around(event_module)


def test_hashing_the_payload_is_found() -> None:
    broken = twin("buses/event.py", ("field(default=None, hash=False)", "field(default=None)"))
    with pytest.raises(TypeError, match="unhashable"):
        unhashable_payloads_are_hashed_around(broken)


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
